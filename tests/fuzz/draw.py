"""Structured input out of a fuzzer's bytes: any bytes give some value, and close bytes give close values."""

import struct
from typing import Any

import orjson

_NUMBERS = (0, 1, -1, 0.5, 2**31, 2**53, -(2**53), 1e308, -0.0)
_TEXTS = (
    "",
    "a",
    "_id",
    "$integer",
    "$bytes",
    "$float",
    "$undefined",
    "AQAAAAAAAAA=",
    "é",
    "\x00",
    "\U0001f600",
    "x" * 70,
)
_DEPTH_MAX = 12


class Draw:
    """Takes a fuzzer's bytes one after the other; past their end everything is zero."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def is_empty(self) -> bool:
        return self._at >= len(self._data)

    def byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1] if self._at <= len(self._data) else 0

    def word(self) -> int:
        """An unsigned 32-bit number."""
        return int.from_bytes(self.take(4).ljust(4, b"\x00"), "little")

    def take(self, length: int) -> bytes:
        taken = self._data[self._at : self._at + length]
        self._at += length
        return taken

    def short_bytes(self) -> bytes:
        return self.take(self.byte())

    def rest(self) -> bytes:
        return self.take(len(self._data))

    def pick(self, choices: Any) -> Any:
        return choices[self.byte() % len(choices)]

    def text(self) -> str:
        if self.byte() % 2:
            return self.pick(_TEXTS)
        return self.take(self.byte() % 16).decode("utf-8", "replace")

    def json(self, depth: int = 0) -> Any:
        """A JSON value."""
        kind = self.byte() % (6 if depth < _DEPTH_MAX else 4)
        if kind == 0:
            return self.pick((None, True, False))
        if kind == 1:
            return self.pick(_NUMBERS)
        if kind == 2:
            number = struct.unpack("<d", self.take(8).ljust(8, b"\x00"))[0]
            return number if number - number == 0 else None
        if kind == 3:
            return self.text()
        if kind == 4:
            return [self.json(depth + 1) for _ in range(self.byte() % 5)]
        return {self.text(): self.json(depth + 1) for _ in range(self.byte() % 5)}

    def json_text(self) -> bytes:
        """JSON, or seldom what is none."""
        return self.short_bytes() if self.byte() == 255 else orjson.dumps(self.json())
