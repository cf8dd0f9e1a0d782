import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.bundle import source_maps
from skerry.bundle.source_maps import DecodedMaps, Position, SourceMap, StackMapper, shown_path
from skerry.errors import ClientError
from skerry.limits import (
    SOURCE_MAP_BYTES_MAX,
    SOURCE_MAPS_DECODED_BYTES_MAX,
    STACK_FRAMES_MAX,
    STACK_TEXT_CHARS_MAX,
)

DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
SOURCES = [
    "app/convex/messages.ts",
    "tools/convex/dist/esm/server/index.js",
    "app/node_modules/convex/x.js",
    "up2/lib/a.ts",
    "skerry:entry",
]


def vlq(value: int) -> str:
    rest = -value << 1 | 1 if value < 0 else value << 1
    out = ""
    while True:
        digit, rest = rest & 31, rest >> 5
        out += DIGITS[digit | (32 if rest else 0)]
        if not rest:
            return out


def map_of(lines: list[list[tuple[int, int, int, int]]], sources: list[str] = SOURCES) -> bytes:
    """A map whose lines hold (generated column, source, line, column), all from 0."""
    before = [0, 0, 0]
    out: list[str] = []
    for line in lines:
        column = 0
        segments: list[str] = []
        for at, *place in line:
            segments.append(vlq(at - column) + "".join(vlq(new - old) for new, old in zip(place, before, strict=True)))
            column, before = at, place
        out.append(",".join(segments))
    return orjson.dumps({"version": 3, "sources": sources, "names": [], "mappings": ";".join(out)})


def test_positions_are_the_nearest_mapping_before() -> None:
    decoded = SourceMap(map_of([[], [(4, 0, 2, 4), (10, 0, 2, 9)], [(0, 3, 99, 1000)]]))
    assert decoded.original(1, 1) is None
    assert decoded.original(2, 4) is None
    assert decoded.original(2, 5) == Position(SOURCES[0], 3, 5)
    assert decoded.original(2, 10) == Position(SOURCES[0], 3, 5)
    assert decoded.original(2, 999) == Position(SOURCES[0], 3, 10)
    assert decoded.original(3, 1) == Position(SOURCES[3], 100, 1001)
    assert decoded.original(4, 1) is None
    assert decoded.original(0, 1) is None


@given(st.lists(st.lists(st.tuples(*[st.integers(0, 5000)] * 4), max_size=6), max_size=8))
def test_every_mapping_is_found_again(lines: list[list[tuple[int, int, int, int]]]) -> None:
    lines = [
        sorted({at: (at, source % len(SOURCES), line, column) for at, source, line, column in row}.values())
        for row in lines
    ]
    decoded = SourceMap(map_of(lines))
    for number, row in enumerate(lines):
        for at, source, line, column in row:
            assert decoded.original(number + 1, at + 1) == Position(SOURCES[source], line + 1, column + 1)


def test_a_stack_shows_the_users_frames_alone() -> None:
    raw = map_of([[(0, 0, 0, 0)], [(0, 1, 5, 0)], [(0, 2, 5, 0)], [(0, 3, 6, 3)], [(0, 4, 0, 0)]])
    stack = (
        "    at send (app.js:1:1)\n    at app.js:1:9\n    at handler (app.js:2:3)\n"
        "    at x (app.js:3:1)\n    at <anonymous> (app.js:4:1)\n"
        "    at native\n    at call (native)\n    at invoke (prelude.js:1:100)\n    at <eval> (app.js:5:1)\n"
        "not a frame\n"
    )
    mapper = StackMapper(raw)
    assert mapper.map_stack(stack).split("\n") == [
        "    at send (../convex/messages.ts:1:1)",
        "    at <anonymous> (../convex/messages.ts:1:1)",
        "    at <anonymous> (../../../lib/a.ts:7:4)",
    ]
    assert mapper.locate(stack) == Position("app/convex/messages.ts", 1, 1)
    assert mapper.map_stack("") == "" and mapper.locate("    at native\n") is None


def test_frames_and_text_at_their_limits() -> None:
    mapper = StackMapper(map_of([[(0, 0, 0, 0)]]))
    frame = "    at f (app.js:1:1)\n"
    assert mapper.map_stack(frame * STACK_FRAMES_MAX).count("\n") == STACK_FRAMES_MAX - 1
    assert mapper.map_stack(frame * (STACK_FRAMES_MAX + 1)).count("\n") == STACK_FRAMES_MAX - 1
    last = frame.rstrip("\n")
    padding = "x" * (STACK_TEXT_CHARS_MAX - len(last) - 1) + "\n"
    assert mapper.map_stack(padding + last) != ""
    assert mapper.map_stack("x" + padding + last) == ""


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"{", b"[]", b'{"version":3}', b'{"version":2,"sources":[],"mappings":""}',
        b'{"version":3,"sources":[1],"mappings":""}',
        b'{"version":3,"sources":["a"],"mappings":"!"}', b'{"version":3,"sources":["a"],"mappings":"AA"}',
        b'{"version":3,"sources":["a"],"mappings":"g"}', b'{"version":3,"sources":["a"],"mappings":"AAAAAAAA"}',
        b'{"version":3,"sources":["a"],"mappings":"ggggggggggggggggA"}',
        b'{"version":3,"sources":["a"],"mappings":"EAAA,DAAA"}',
        b'{"version":3,"sources":["a"],"mappings":"\xc3\xa9"}',
    ],
)  # fmt: skip
def test_maps_that_are_none_map_nothing(raw: bytes) -> None:
    with pytest.raises(ClientError) as caught:
        SourceMap(raw)
    assert caught.value.code == "BundleInvalid"
    assert StackMapper(raw).map_stack("    at f (app.js:1:1)") == ""


def test_a_source_index_outside_the_list_maps_nothing() -> None:
    assert SourceMap(map_of([[(0, 7, 0, 0)]], ["a"])).original(1, 1) is None
    assert SourceMap(map_of([[(0, -1, 0, 0)]], ["a"])).original(1, 1) is None


@pytest.mark.parametrize(
    "name", ["SOURCE_MAP_BYTES_MAX", "SOURCE_MAP_LINES_MAX", "SOURCE_MAP_SEGMENTS_MAX", "SOURCE_MAP_SOURCES_MAX"]
)
def test_maps_at_their_limits(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = map_of([[(0, 0, 0, 0), (1, 0, 0, 1)], [(0, 0, 1, 0)]])
    exact = {
        "SOURCE_MAP_BYTES_MAX": len(raw),
        "SOURCE_MAP_LINES_MAX": 2,
        "SOURCE_MAP_SEGMENTS_MAX": 3,
        "SOURCE_MAP_SOURCES_MAX": len(SOURCES),
    }[name]
    monkeypatch.setattr(source_maps, name, exact)
    assert SourceMap(raw).original(2, 1) == Position(SOURCES[0], 2, 1)
    monkeypatch.setattr(source_maps, name, exact - 1)
    with pytest.raises(ClientError):
        SourceMap(raw)


def test_empty_lines_cost_no_lists() -> None:
    mapped = SourceMap(b'{"version":3,"sources":["a"],"mappings":"' + b";" * 1000 + b'AAAA"}')
    assert mapped.original(1001, 1) == Position("a", 1, 1)
    assert mapped.original(1000, 1) is None
    assert len({id(columns) for columns in mapped._columns}) == 2


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("app/convex/a.ts", "../convex/a.ts"),
        ("up1/b.ts", "../../b.ts"),
        ("tools/x.js", "tools/x.js"),
        ("upx/y", "upx/y"),
    ],
)
def test_shown_paths(source: str, shown: str) -> None:
    assert shown_path(source) == shown


def test_the_maps_decoded_longest_ago_make_room_and_are_decoded_anew() -> None:
    raw, stack = map_of([[(0, 0, 0, 0)]]), "    at send (app.js:1:1)"
    each = SourceMap(raw).bytes_held
    reads: list[int] = []
    kept = DecodedMaps(2 * each)

    def mapper(number: int) -> StackMapper:
        return StackMapper(lambda: reads.append(number) or raw, len(raw), decoded=kept)

    first, second, third = map(mapper, range(3))
    for one in (first, second, first, second):
        assert one.map_stack(stack)
    assert reads == [0, 1] and kept.bytes_held == 2 * each and first.decoding_bytes == 0
    assert third.map_stack(stack)
    assert reads == [0, 1, 2] and kept.bytes_held == 2 * each and first.decoding_bytes == len(raw)
    assert first.map_stack(stack) and reads == [0, 1, 2, 0]
    del second, third
    mapper(3).map_stack(stack)
    assert kept.bytes_held <= 2 * each
    assert SOURCE_MAPS_DECODED_BYTES_MAX > SOURCE_MAP_BYTES_MAX
