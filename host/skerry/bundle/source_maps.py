"""Error traces in terms of the user's own files: raw stacks of the engine read through a bundle's source map.

A raw frame names the one script that was evaluated (`    at send (app.js:120:9)`); a mapped frame names the file it
came from, relative to the functions folder as Convex shows it (`    at send (../convex/messages.ts:3:5)`). Frames of
the runtime (the prelude, native functions, the `convex` package) are left out.

A map comes out of an uploaded bundle, a stack out of tenant code: both are hostile. Sizes are checked before anything
is parsed, decoding is linear in the map and happens once, at the first error. A map that does not decode maps
nothing; a trace never fails a call.
"""

import re
import threading
import weakref
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, cast

import orjson

from skerry.errors import ClientError
from skerry.limits import (
    SOURCE_MAP_BYTES_MAX,
    SOURCE_MAP_LINES_MAX,
    SOURCE_MAP_SEGMENT_BYTES,
    SOURCE_MAP_SEGMENTS_MAX,
    SOURCE_MAP_SOURCES_MAX,
    SOURCE_MAPS_DECODED_BYTES_MAX,
    STACK_FRAMES_MAX,
    STACK_TEXT_CHARS_MAX,
)
from skerry.value import values_are_within

SCRIPT_NAME: Final = "app.js"

_PLACE: Final = r"([^\n():]{1,256}):([0-9]{1,9}):([0-9]{1,9})"
_FRAME: Final = re.compile(rf" *at (?:([^\n(]{{1,256}}) \({_PLACE}\)|{_PLACE})")
_VLQ_VALUES: Final = {
    ord(c): i for i, c in enumerate("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")
}
_VLQ_BITS_MAX: Final = 32
_NOTHING: Final[list[Any]] = []
_RUNTIME_PACKAGE: Final = re.compile(r"^tools/|(?:^|/)node_modules/convex/")


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a source. Shape: `source` is the name in the bundle (`app/convex/messages.ts`); `line` and `column`
    count from 1.
    """

    source: str
    line: int
    column: int


class SourceMap:
    """A decoded source map (version 3).

    Limits: SOURCE_MAP_BYTES_MAX, SOURCE_MAP_SOURCES_MAX, SOURCE_MAP_LINES_MAX, SOURCE_MAP_SEGMENTS_MAX.
    """

    __slots__ = ("_columns", "_places", "_sources", "bytes_held")

    def __init__(self, raw: bytes) -> None:
        """Raises: ClientError `BundleInvalid` for a map that is none, or is over a limit."""
        sources, mappings = _parse(raw)
        self._sources = sources
        # By generated line: the columns in order, and beside each column (source, line, column), all from 0.
        self._columns: list[list[int]] = []
        self._places: list[list[tuple[int, int, int]]] = []
        self._decode(mappings)
        self.bytes_held = len(raw) + sum(map(len, self._columns)) * SOURCE_MAP_SEGMENT_BYTES

    def original(self, line: int, column: int) -> Position | None:
        """Where the generated position (both from 1) came from, None where nothing did."""
        if not 1 <= line <= len(self._columns):
            return None
        at = bisect_right(self._columns[line - 1], column - 1) - 1
        if at < 0:
            return None
        source, source_line, source_column = self._places[line - 1][at]
        if not 0 <= source < len(self._sources):
            return None
        return Position(self._sources[source], source_line + 1, source_column + 1)

    def _decode(self, mappings: bytes) -> None:
        if mappings.count(b";") >= SOURCE_MAP_LINES_MAX:
            raise ClientError("BundleInvalid", f"The source map has more than {SOURCE_MAP_LINES_MAX} lines.")
        segments_left = SOURCE_MAP_SEGMENTS_MAX
        if mappings.count(b",") > segments_left:  # before time is spent on those that fit
            raise _too_many_segments()
        source = source_line = source_column = 0
        for line in mappings.split(b";"):
            if not line:  # one list for all of them: a byte of the map must not cost a list
                self._columns.append(_NOTHING)
                self._places.append(_NOTHING)
                continue
            column = 0
            columns: list[int] = []
            places: list[tuple[int, int, int]] = []
            for segment in line.split(b","):
                segments_left -= 1
                if segments_left < 0:
                    raise _too_many_segments()
                fields = _decode_vlq(segment)
                if len(fields) not in (1, 4, 5):
                    raise ClientError("BundleInvalid", "The source map has a segment that is none.")
                column += fields[0]
                if len(fields) == 1:
                    continue
                source += fields[1]
                source_line += fields[2]
                source_column += fields[3]
                if columns and column < columns[-1]:
                    raise ClientError("BundleInvalid", "The source map is not in order.")
                columns.append(column)
                places.append((source, source_line, source_column))
            self._columns.append(columns)
            self._places.append(places)


class StackMapper:
    """Maps the traces of one bundle. The map is decoded at the first trace that needs it, and kept among `decoded`.

    Shape: `raw_map`, or what reads a map of `bytes_to_read`.
    """

    __slots__ = ("__weakref__", "_decoded_maps", "_map", "_raw", "_size", "decoding_bytes")

    def __init__(
        self,
        raw_map: bytes | Callable[[], bytes],
        bytes_to_read: int = 0,
        *,
        decoded: "DecodedMaps | None" = None,
    ) -> None:
        self._raw = raw_map
        self._map: SourceMap | bool = False  # true where it cannot be decoded, false where it was not
        self._decoded_maps = decoded or _decoded_maps
        self.decoding_bytes = self._size = len(raw_map) if isinstance(raw_map, bytes) else bytes_to_read
        """The size of the map that the next trace decodes first; 0 once it is decoded."""

    def map_stack(self, stack: str) -> str:
        """The frames of the user's own code, one a line, as Convex shows them; empty where there are none.

        Limits: STACK_TEXT_CHARS_MAX of the raw text are read, STACK_FRAMES_MAX frames come out.
        """
        return "\n".join(
            f"    at {name} ({shown_path(place.source)}:{place.line}:{place.column})"
            for name, place in self._frames(stack)
        )

    def locate(self, stack: str) -> Position | None:
        """The innermost place in the user's own code."""
        frames = self._frames(stack)
        return frames[0][1] if frames else None

    def _frames(self, stack: str) -> list[tuple[str, Position]]:
        found: list[tuple[str, Position]] = []
        for line in stack[:STACK_TEXT_CHARS_MAX].split("\n"):
            frame = _FRAME.fullmatch(line)
            if frame is None or (frame[2] or frame[5]) != SCRIPT_NAME:
                continue
            source_map = self._decoded()
            place = source_map.original(int(frame[3] or frame[6]), int(frame[4] or frame[7])) if source_map else None
            if place is None or _RUNTIME_PACKAGE.search(place.source) or ":" in place.source:
                continue
            found.append((frame[1] or "<anonymous>", place))
            if len(found) == STACK_FRAMES_MAX:
                break
        return found

    def _decoded(self) -> SourceMap | None:
        found = self._map
        if found is False:  # another thread may find the same meanwhile, and decodes it too
            raw = self._raw
            try:
                found = SourceMap(raw if isinstance(raw, bytes) else raw())
            except ClientError:
                found = True
            self._map = found
            self.decoding_bytes = 0
            if isinstance(found, SourceMap):
                self._decoded_maps.keep(self, found.bytes_held)
        return found if isinstance(found, SourceMap) else None

    def forget(self) -> None:
        """Gives the decoded map up; the next trace decodes it anew."""
        self._map = False
        self.decoding_bytes = self._size


class DecodedMaps:
    """The decoded maps of all bundles of a process: those used last to be decoded, as many as fit.

    Shape: `bytes_held` by all of them, an estimate. Limits: SOURCE_MAPS_DECODED_BYTES_MAX; the newest is kept in any
    case. Concurrency: any thread.
    """

    def __init__(self, bytes_max: int = SOURCE_MAPS_DECODED_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._lock = threading.Lock()
        self._kept: dict[int, tuple[weakref.ref[StackMapper], int]] = {}
        self.bytes_held = 0

    def keep(self, mapper: StackMapper, size: int) -> None:
        """Counts a decoded map, and has the oldest ones forgotten where they are too many."""
        with self._lock:
            self._drop(id(mapper))
            self._kept[id(mapper)] = (weakref.ref(mapper), size)
            self.bytes_held += size
            for key in [key for key, (of, _) in self._kept.items() if of() is None]:
                self._drop(key)
            for key in [*self._kept]:
                if self.bytes_held <= self._bytes_max or key == id(mapper):
                    break
                oldest = self._kept[key][0]()
                if oldest is not None:
                    oldest.forget()
                self._drop(key)

    def _drop(self, key: int) -> None:
        found = self._kept.pop(key, None)
        if found is not None:
            self.bytes_held -= found[1]


_decoded_maps: Final = DecodedMaps()


def _too_many_segments() -> ClientError:
    return ClientError("BundleInvalid", f"The source map has more than {SOURCE_MAP_SEGMENTS_MAX} segments.")


def shown_path(source: str) -> str:
    """The name of a source as traces show it: relative to a folder beside the functions folder."""
    area, _, rest = source.partition("/")
    if area == "app":
        return f"../{rest}"
    if area.startswith("up") and area[2:].isdigit() and len(area) <= 4:
        return "../" * (int(area[2:]) + 1) + rest
    return source


def _parse(raw: bytes) -> tuple[list[str], bytes]:
    if len(raw) > SOURCE_MAP_BYTES_MAX:
        raise ClientError("BundleInvalid", f"The source map is larger than {SOURCE_MAP_BYTES_MAX} bytes.")
    try:
        parsed: Any = orjson.loads(raw) if values_are_within(raw) else None
    except orjson.JSONDecodeError:
        parsed = None
    fields = cast("dict[str, Any]", parsed) if isinstance(parsed, dict) else {}
    sources: Any = fields.get("sources")
    mappings: Any = fields.get("mappings")
    if fields.get("version") != 3 or not isinstance(sources, list) or not isinstance(mappings, str):
        raise ClientError("BundleInvalid", "The source map is not one of version 3.")
    names = cast("list[Any]", sources)
    if len(names) > SOURCE_MAP_SOURCES_MAX or not all(isinstance(name, str) for name in names):
        raise ClientError("BundleInvalid", "The source map's list of sources is not one.")
    return names, mappings.encode()


def _decode_vlq(segment: bytes) -> list[int]:
    fields: list[int] = []
    value = shift = 0
    for byte in segment:
        digit = _VLQ_VALUES.get(byte)
        if digit is None or shift > _VLQ_BITS_MAX:
            return []
        value |= (digit & 31) << shift
        if digit & 32:
            shift += 5
            continue
        fields.append(-(value >> 1) if value & 1 else value >> 1)
        value = shift = 0
        if len(fields) > 5:
            return []
    return fields if not shift else []
