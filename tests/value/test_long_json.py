"""Long JSON text in pieces means what it means in one, and no step of it is long."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.errors import DeveloperError
from skerry.limits import JSON_PIECE_BYTES, JSON_PIECE_VALUES, JSON_WHOLE_BYTES_MAX, VALUE_JSON_VALUES_MAX
from skerry.value import depth_is_within, dismantle, dumps, dumps_long, parse_json
from skerry.value.long_json import NotJson, TooDeep, TooManyValues, parse_long

_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.text('ab,[]{}":\\\n é', max_size=8)
    | st.floats(width=16)
)
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text('ab,"\\', max_size=2), inner, max_size=6),
    max_leaves=40,
)


def _in_pieces(
    raw: bytes, piece_bytes: int = 1, *, depth_max: int = 64, values: int = 1_000, containers: int = 500
) -> Any:
    return parse_long(
        raw,
        depth_max=depth_max,
        values_max=values,
        containers_max=containers,
        depth_is_within=depth_is_within,
        piece_bytes=piece_bytes,
    )


@given(value=_VALUES, piece_bytes=st.integers(1, 40), indent=st.booleans())
def test_a_text_means_the_same_in_pieces(value: Any, piece_bytes: int, indent: bool) -> None:
    raw = orjson.dumps(value, option=orjson.OPT_INDENT_2 if indent else None)
    assert repr(_in_pieces(raw, piece_bytes)) == repr(orjson.loads(raw))


@given(
    tokens=st.lists(
        st.sampled_from([b"[", b"]", b"{", b"}", b",", b":", b'"a"', b'"b"', b"1", b" ", b'"', b"\\"]), max_size=14
    ),
    piece_bytes=st.integers(1, 8),
)
def test_a_text_is_refused_in_pieces_where_it_is_refused_whole(tokens: list[bytes], piece_bytes: int) -> None:
    raw = b"".join(tokens)
    try:
        whole = orjson.loads(raw)
    except ValueError:
        with pytest.raises(NotJson):
            _in_pieces(raw, piece_bytes)
    else:
        assert repr(_in_pieces(raw, piece_bytes)) == repr(whole)


@pytest.mark.parametrize(
    "raw",
    [
        b"[1,]", b"[,1]", b"[1,,2]", b'{"a":1,}', b'{,"a":1}', b"[1,2],3", b"[1,2", b"1,2", b"[1,2]]", b"[1,2}",
        b'["a,b]', b"", b'[1,2]"', b'{"a":[1,2},"b":3]',
    ],
)  # fmt: skip
def test_what_is_no_json_is_refused_however_it_is_cut(raw: bytes) -> None:
    for piece_bytes in range(1, len(raw) + 2):
        with pytest.raises(NotJson):
            _in_pieces(raw, piece_bytes)


def test_a_repeated_name_means_its_last_value_also_across_pieces() -> None:
    raw = b'{"a":[1,2,3],"b":{"c":1,"c":2},"a":{"x":[4,5],"y":1,"x":[6,7,8]},"b":[9,9]}'
    for piece_bytes in range(1, len(raw) + 2):
        assert _in_pieces(raw, piece_bytes) == orjson.loads(raw)


def test_the_bounds_hold_across_pieces() -> None:
    nested = b"[1,[2,[3,[4,5]]]]"
    deep = b"[[0],[[[1,2],3],4]]"
    for piece_bytes in range(1, len(nested) + 2):
        assert _in_pieces(nested, piece_bytes, depth_max=4, values=9, containers=4) == [1, [2, [3, [4, 5]]]]
        with pytest.raises(TooDeep):
            _in_pieces(nested, piece_bytes, depth_max=3)
        with pytest.raises(TooDeep):
            _in_pieces(deep, piece_bytes, depth_max=3)
        with pytest.raises(TooManyValues):
            _in_pieces(nested, piece_bytes, values=8)
        with pytest.raises(TooManyValues):
            _in_pieces(nested, piece_bytes, containers=3)


@pytest.mark.parametrize("unit", [b'"ab"', b"1.5", b"[]", b'{"a":[1]}', b'"a\\"\\\\,"'])
def test_no_step_of_parsing_is_longer_than_a_piece(unit: bytes) -> None:
    inner = b"[" + b",".join([unit] * 4_000) + b"]"
    raw = b'{"args":{"list":[' + b",".join([inner] * 12) + b"]}}"
    sizes: list[int] = []

    def parse(text: bytes) -> Any:
        sizes.append(len(text))
        return orjson.loads(text)

    value = parse_long(
        raw, depth_max=64, values_max=10**6, containers_max=10**6, depth_is_within=depth_is_within, parse=parse
    )
    assert value == orjson.loads(raw)
    assert max(sizes) <= JSON_PIECE_BYTES + 500
    assert len(sizes) >= len(raw) // JSON_PIECE_BYTES


def test_a_text_past_the_bound_is_parsed_in_pieces_with_the_same_errors() -> None:
    text = b'"' + b"x" * (JSON_WHOLE_BYTES_MAX - 4) + b'"'
    for raw in (b"[%b]" % text, b"[%b,1]" % text):  # at the bound, and past it
        assert parse_json(raw, depth_max=1, bytes_max=10**6) == orjson.loads(raw)
    for broken, code in (
        (b"[%b,1" % text, "InvalidJson"),
        (b"[%b,[1]]" % text, "TooNestedError"),
        (b"[" + b"1," * VALUE_JSON_VALUES_MAX + b"1]", "ValueTooLargeError"),
    ):
        with pytest.raises(DeveloperError) as caught:
            parse_json(broken, depth_max=1, bytes_max=10**8)
        assert caught.value.code == code


@given(
    value=st.recursive(
        st.none() | st.text("ab$é", max_size=4) | st.integers(-9, 9) | st.binary(max_size=4),
        lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text("abé", max_size=3), inner, max_size=5),
    )
)
def test_what_is_written_in_pieces_is_written_alike(value: Any) -> None:
    assert dumps_long(value, dumps) == dumps(value)


def test_no_step_of_writing_holds_more_than_a_piece_of_values() -> None:
    counts: list[int] = []

    def write(value: Any) -> bytes:
        counts.append(len(value) if type(value) in (dict, list) else 1)
        return orjson.dumps(value)

    value = {
        "long": [1] * 3 * JSON_PIECE_VALUES,
        "wide": {str(n): n for n in range(2 * JSON_PIECE_VALUES)},
        "x": [[1], 2],
    }
    assert orjson.loads(dumps_long(value, write)) == value
    assert max(counts) <= JSON_PIECE_VALUES


def test_taking_a_value_apart_empties_every_container() -> None:
    inner: list[Any] = [{"a": [1]}, [2] * 3 * JSON_PIECE_VALUES]
    wide: dict[str, Any] = {str(n): n for n in range(3 * JSON_PIECE_VALUES)}
    value = {"inner": inner, "wide": wide}
    dismantle(value)
    assert (value, inner, wide) == ({}, [], {})
