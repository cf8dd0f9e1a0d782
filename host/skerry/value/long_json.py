"""Long JSON text, read and written in pieces, so that Python's global lock is never held for long.

The parser underneath holds that lock from the first byte of a text to the last: 150 ms for two million short texts,
during which nobody else's call goes on. Here a text is cut at commas outside its strings, each piece is completed by
the brackets that are open at its two ends, parsed alone, and put where it belongs; whoever waits for the lock gets it
between two pieces. What a text means is what it means to the parser.

A piece that goes on inside an object needs a name for what is open there. That is the digest of the whole text, which
no text can hold. Writing goes container by container, and so does taking a value apart, for the machine frees millions
of values in one go without giving the lock away.

Limits: a piece is longer than JSON_PIECE_BYTES where one string is: copying that is one step for the machine.
"""

import re
from collections.abc import Callable, Iterator
from hashlib import sha256
from itertools import islice
from typing import Any, Final

import orjson

from skerry.limits import JSON_PIECE_BYTES, JSON_PIECE_VALUES
from skerry.value.kinds import kind_of

_CONTAINERS: Final = frozenset({dict, list})
_NOT_BRACKETS: Final = bytes(sorted(set(range(256)) - set(b"[]{}")))
_CLOSED_THEN_OPENED: Final = re.compile(rb"[\]}]*([\[{]*)")
_SPACES: Final = re.compile(rb"[ \t\n\r]*")
_CLOSING: Final = bytes.maketrans(b"[{", b"]}")


class NotJson(ValueError):
    """The text is not JSON."""


class TooDeep(ValueError):
    """The text nests deeper than it may."""


class TooManyValues(ValueError):
    """The text holds more values, or more arrays and objects, than it may."""


def parse_long(
    raw: bytes,
    *,
    depth_max: int,
    values_max: int,
    containers_max: int,
    depth_is_within: Callable[[bytes, int], bool],
    look: Callable[[], None] | None = None,
    piece_bytes: int = JSON_PIECE_BYTES,
    parse: Callable[[bytes], Any] = orjson.loads,
) -> Any:
    """The Python form of a JSON text, parsed piece by piece.

    Shape: `depth_is_within` judges the nesting of brackets; `look` is called between pieces.
    Raises: NotJson, TooDeep, TooManyValues.
    """
    reader = _Reader(sha256(raw).hexdigest(), parse)
    begin = commas = containers = 0
    while True:
        end, outside = _piece_end(raw, begin, piece_bytes)
        is_last = end == len(raw)
        containers += outside.count(b"[") + outside.count(b"{")
        commas += outside.count(b",") + (not is_last)
        if containers > containers_max or containers + commas >= values_max:
            raise TooManyValues
        if begin and _starts_with_closer(raw, begin):
            raise NotJson("a comma stands where a value should")
        reader.read(raw[begin:end], outside, is_last, depth_max, depth_is_within)
        if is_last:
            return reader.root
        begin = end + 1
        if look is not None:
            look()


class _Reader:
    """What has been read so far. Shape: `root` the value.

    `name` stands, in a completed piece, for the container that goes on from the piece before; `mark` is put into the
    one that goes on in the next piece, to find it again.
    """

    def __init__(self, digest: str, parse: Callable[[bytes], Any]) -> None:
        self.root: Any = None
        self._open: list[Any] = []
        self._kinds = b""  # of the containers that are open: their brackets
        self._name, self._mark = digest, digest + "+"
        self._parse = parse
        self._goes_on = {0x5B: b"[", 0x7B: b'{"%b":' % self._name.encode()}
        mark = self._mark.encode()
        self._marked = {0x5B: b',"%b"]' % mark, 0x7B: b',"%b":0}' % mark}

    def read(
        self, piece: bytes, outside: bytes, is_last: bool, depth_max: int, depth_is_within: Callable[[bytes, int], bool]
    ) -> None:
        """Reads the next piece, of which `outside` is what lies outside of its strings."""
        before = self._kinds
        n_closed, opened = _unmatched(outside, depth_max)
        if n_closed > len(before):
            raise NotJson("more brackets are closed than were opened")
        n_common = len(before) - n_closed
        after = before[:n_common] + opened
        if is_last != (not after):
            raise NotJson("the text ends within a value, or goes on after it")
        closing = after[::-1].translate(_CLOSING)
        if not depth_is_within(before + outside + closing, depth_max):
            raise TooDeep
        parts = [self._goes_on[kind] for kind in before[:-1]]
        parts += (before[-1:], piece)
        if after:
            if _ends_with_opener(piece):
                raise NotJson("a comma stands where a value should")
            parts += (self._marked[after[-1]], closing[1:])
        try:
            value = self._parse(b"".join(parts))
        except ValueError as error:
            raise NotJson(str(error)) from None
        path = _path_of(value, after, self._mark)
        self._join(value)
        self._open = self._open[:n_common] + path[n_common:]
        self._kinds = after

    def _join(self, value: Any) -> None:
        """Puts what a piece holds where it belongs."""
        if not self._open:
            self.root = value
            return
        last = len(self._open) - 1
        for level, into in enumerate(self._open):
            inner: Any = None
            if level < last:
                inner = value.pop(self._name) if kind_of(value) is dict else value.pop(0)
            if kind_of(into) is dict:
                into.update(value)
            else:
                into += value
            value = inner


def _path_of(value: Any, kinds: bytes, mark: str) -> list[Any]:
    """The open containers of a piece from the outside in, by the mark in the innermost one, which is taken out.

    What is open is the last element of an array; of an object it is the member that came last, which is another one
    than the last in order where a name is repeated.
    """

    def find(node: Any, level: int) -> list[Any] | None:
        if kind_of(node) is not (dict if kinds[level] == 0x7B else list) or not node:
            return None
        if level == len(kinds) - 1:
            if kind_of(node) is dict:
                return None if node.pop(mark, None) is None else [node]
            if node[-1] != mark:
                return None
            node.pop()
            return [node]
        for inner in reversed(node.values()) if kind_of(node) is dict else node[-1:]:
            path = find(inner, level + 1)
            if path is not None:
                return [node, *path]
        return None

    path = find(value, 0) if kinds else []
    assert path is not None, "the mark is in the value"
    return path


def _unmatched(outside: bytes, depth_max: int) -> tuple[int, bytes]:
    """How many brackets a piece closes that it has not opened, and which ones it leaves open."""
    brackets = outside.translate(None, _NOT_BRACKETS)
    for _ in range(depth_max + 1):
        size = len(brackets)
        brackets = brackets.replace(b"[]", b"").replace(b"{}", b"")
        if len(brackets) == size:
            break
    else:
        raise TooDeep
    found = _CLOSED_THEN_OPENED.fullmatch(brackets)
    if found is None:
        raise NotJson("brackets do not match")
    return found.start(1), found.group(1)


def _starts_with_closer(raw: bytes, begin: int) -> bool:
    spaces = _SPACES.match(raw, begin)
    assert spaces is not None, "no space is enough for it"
    return raw[spaces.end() : spaces.end() + 1] in (b"]", b"}", b"")


def _ends_with_opener(piece: bytes) -> bool:
    return (piece[-256:].rstrip() or piece.rstrip())[-1:] in (b"[", b"{", b"")


def _piece_end(raw: bytes, begin: int, piece_bytes: int) -> tuple[int, bytes]:
    """Where the piece from `begin` on ends: at a comma, or at the end; and what of it lies outside of strings."""
    size = piece_bytes
    while True:
        window = raw[begin : begin + size]
        if b"\\" in window:  # an escape is two bytes, and stays so
            window = window.replace(b"\\\\", b"__").replace(b'\\"', b"__")
        parts = window.split(b'"')
        if begin + size >= len(raw):
            return len(raw), b"".join(parts[::2])
        end = len(window)
        for number in range(len(parts) - 1, -1, -1):
            part = parts[number]
            end -= len(part)
            if number % 2 == 0:
                comma = part.rfind(b",")
                if comma >= 0:
                    return begin + end + comma, b"".join([*parts[:number:2], part[:comma]])
            end -= 1
        size *= 2


# -- writing, and taking apart -----------------------------------------------------------------------------------------


def dumps_long(value: Any, write: Callable[[Any], bytes]) -> bytes:
    """The JSON text of a value, with sorted names, written container by container; `write` writes what is short."""
    return b"".join(_written(value, write))


def _written(value: Any, write: Callable[[Any], bytes]) -> Iterator[bytes]:
    kind = kind_of(value)
    if kind is dict:
        is_flat = len(value) <= JSON_PIECE_VALUES and _CONTAINERS.isdisjoint(map(kind_of, value.values()))
    elif kind is list:
        is_flat = len(value) <= JSON_PIECE_VALUES and _CONTAINERS.isdisjoint(map(kind_of, value))
    else:
        is_flat = True
    if is_flat:
        yield write(value)
    elif kind is dict:
        before = b"{"
        for key in sorted(value):
            yield before + write({key: None})[1:-5]  # a name that the writer refuses is refused here as well
            yield from _written(value[key], write)
            before = b","
        yield b"}"
    else:
        before = b"["
        for element in value:
            yield before
            yield from _written(element, write)
            before = b","
        yield b"]"


def dismantle(value: Any) -> None:
    """Empties a value's containers one after another. Limits: whoever calls it is the only one who has the value."""
    left = [value]
    while left:
        container = left.pop()
        kind = kind_of(container)
        if kind is dict:
            left += [inner for inner in container.values() if kind_of(inner) in _CONTAINERS]
            while len(container) > JSON_PIECE_VALUES:
                for key in [*islice(container, JSON_PIECE_VALUES)]:
                    del container[key]
            container.clear()
        elif kind is list:
            left += [inner for inner in container if kind_of(inner) in _CONTAINERS]
            while container:
                del container[-JSON_PIECE_VALUES:]
