"""Lines and elements of files, in whatever pieces they are read."""

import io
import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.limits import IMPORT_DOCUMENT_TEXT_BYTES_MAX
from skerry.transfer.pieces import Unreadable, elements, lines

VALUES = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def in_pieces(raw: bytes, size: int) -> Callable[[int], bytes]:
    stream = io.BytesIO(raw)
    return lambda n_bytes: stream.read(min(n_bytes, size))


def all_elements(raw: bytes, size: int = 1 << 20) -> list[tuple[int, bytes]]:
    return [(line, text) for line, text in elements(in_pieces(raw, size)) if text is not None]


def refusal(raw: bytes) -> Unreadable:
    with pytest.raises(Unreadable) as refused:
        all_elements(raw)
    return refused.value


@given(
    st.lists(st.dictionaries(st.text(), VALUES, max_size=4), max_size=5),
    st.integers(1, 40),
    st.sampled_from([None, 2]),
    st.booleans(),
)
def test_an_array_gives_its_objects_in_any_pieces(
    objects: list[dict[str, object]], size: int, indent: int | None, ascii_only: bool
) -> None:
    raw = json.dumps(objects, indent=indent, ensure_ascii=ascii_only).encode("utf-8", "replace")
    assert [json.loads(text) for _, text in all_elements(raw, size)] == json.loads(raw)


def test_elements_tell_their_line() -> None:
    assert all_elements(b'\n[ {"a":\n1},\r\n\r\n{} ]\n', 3) == [(2, b'{"a":\n1}'), (5, b"{}")]


@pytest.mark.parametrize(
    ("raw", "line"),
    [
        (b"", 1),
        (b"{}", 1),
        (b"[", 1),
        (b"[\n1]", 2),
        (b"[{}\n{}]", 2),
        (b"[{},]", 1),
        (b"[{}", 1),
        (b'[{"a": "}', 1),
        (b"[{}]\n\nx", 3),
        (b"[{}]]", 1),
        (b"\xef\xbb\xbf[]", 1),
        (b"\xff\xfe[\0", 1),
    ],
)
def test_what_is_no_array_of_objects(raw: bytes, line: int) -> None:
    assert refusal(raw).line == line


def test_an_element_is_bounded() -> None:
    text = b'{"a":"' + b"x" * (IMPORT_DOCUMENT_TEXT_BYTES_MAX - 8) + b'"}'
    assert len(text) == IMPORT_DOCUMENT_TEXT_BYTES_MAX
    assert all_elements(b"[" + text + b"]")[0][1] == text
    assert refusal(b"[" + text[:-2] + b'x"}]').line == 1
    assert refusal(b'[{"a":"' + b"x" * IMPORT_DOCUMENT_TEXT_BYTES_MAX * 2).line == 1
    assert refusal(b"[" + b" " * IMPORT_DOCUMENT_TEXT_BYTES_MAX * 2 + b"]").line == 1


@given(st.lists(st.binary().map(lambda raw: raw.replace(b"\n", b""))), st.integers(1, 20))
def test_lines_come_whole_in_any_pieces(wanted: list[bytes], size: int) -> None:
    raw = b"\n".join(wanted)
    if raw.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        return
    found = [line for line in lines(in_pieces(raw, size)) if line[1] is not None]
    expected = raw.split(b"\n")
    if not expected[-1]:
        expected.pop()
    assert found == list(enumerate(expected, 1))


def test_a_line_is_bounded() -> None:
    text = b"x" * IMPORT_DOCUMENT_TEXT_BYTES_MAX
    assert [line for line in lines(in_pieces(text + b"\n", 1 << 20)) if line[1]] == [(1, text)]
    for raw in (text + b"x\n", text * 2):
        with pytest.raises(Unreadable) as refused:
            list(lines(in_pieces(b"\n" + raw, 1 << 20)))
        assert refused.value.line == 2
    with pytest.raises(Unreadable):
        list(lines(in_pieces(b"\xfe\xff{}", 9)))
