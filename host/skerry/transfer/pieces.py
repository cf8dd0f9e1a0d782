"""Reading a file piece by piece: lines and elements of a JSON array, each with where it begins.

What is yielded is the text of one document, or None after each piece that was read, so that whoever reads can let
others have the thread. Nothing larger than `IMPORT_DOCUMENT_TEXT_BYTES_MAX` is held.
"""

import re
from collections.abc import Callable, Iterator
from typing import Final

from skerry.limits import IMPORT_DOCUMENT_TEXT_BYTES_MAX, IMPORT_PIECE_BYTES

Read = Callable[[int], bytes]
"""Gives up to so many of the next bytes, none at the end."""

_BOMS: Final = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")
_SPACE: Final = b" \t\r\n"
_NOT_SPACE: Final = re.compile(rb"[^ \t\r\n]")
_IN_STRING: Final = re.compile(rb'["\\]')
# A whole string, a brace, or the quote of a string that has not arrived whole.
_TOKEN: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[{}]|"', re.DOTALL)


class Unreadable(Exception):
    """What is wrong with a file, as a sentence; `line` counts from 1."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line
        self.message = message


def lines(read: Read) -> Iterator[tuple[int, bytes | None]]:
    """The lines of a file without their ends, each with its number.

    Raises: Unreadable for a byte order mark, or a line that is too long.
    """
    number = 0
    rest: list[bytes] = []
    rest_bytes = 0
    is_first = True
    while piece := read(IMPORT_PIECE_BYTES):
        if is_first:
            check_start(piece)
            is_first = False
        found = piece.split(b"\n")
        if len(found) > 1:
            found[0] = b"".join([*rest, found[0]])
            rest, rest_bytes = [], 0
            for line in found[:-1]:
                number += 1
                if len(line) > IMPORT_DOCUMENT_TEXT_BYTES_MAX:
                    raise too_long(number)
                yield number, line
        rest.append(found[-1])
        rest_bytes += len(found[-1])
        if rest_bytes > IMPORT_DOCUMENT_TEXT_BYTES_MAX:
            raise too_long(number + 1)
        yield number + 1, None
    if rest_bytes:
        yield number + 1, b"".join(rest)


def elements(read: Read) -> Iterator[tuple[int, bytes | None]]:
    """The objects of a JSON array, as text, each with the number of the line on which it begins.

    Limits: the objects are cut out by their braces and not parsed. Raises: Unreadable where the array is none, or holds
    something else than objects, or ends too early.
    """
    text = _Text(read)
    if text.next_byte() != b"[":
        raise Unreadable(text.line, "a JSON array begins with '['.")
    text.at += 1
    is_first = True
    while True:
        byte = text.next_byte()
        if byte == b"]":
            break
        if not is_first:
            if byte != b",":
                raise Unreadable(text.line, "a ',' or the end of the array, ']', is missing here.")
            text.at += 1
            byte = text.next_byte()
        if byte != b"{":
            raise Unreadable(text.line, "each element of the array must be an object: { ... }.")
        yield from text.take_object()
        is_first = False
    text.at += 1
    if text.next_byte() != b"":
        raise Unreadable(text.line, "there is text behind the end of the array.")


class _Text:
    """A file's text around the place that is looked at."""

    def __init__(self, read: Read) -> None:
        self.at = 0
        self.line = 1
        self._read = read
        self._buffer = read(IMPORT_PIECE_BYTES)
        check_start(self._buffer)

    def next_byte(self) -> bytes:
        """The next byte that is no space, which stays; empty at the end."""
        spaces = 0
        while True:
            found = _NOT_SPACE.search(self._buffer, self.at)
            if found is not None:
                self._pass(found.start())
                return self._buffer[self.at : self.at + 1]
            spaces += len(self._buffer) - self.at
            if spaces > IMPORT_DOCUMENT_TEXT_BYTES_MAX:
                raise too_long(self.line)
            self._pass(len(self._buffer))
            self._buffer, self.at = self._read(IMPORT_PIECE_BYTES), 0
            if not self._buffer:
                return b""

    def take_object(self) -> Iterator[tuple[int, bytes | None]]:
        """The object that begins here, with its line, at last. Raises: Unreadable."""
        line, depth, at, is_in_string = self.line, 0, self.at, False
        while True:
            if is_in_string:  # its beginning is not looked at again, however often more of it arrives
                at, is_in_string = _string_end(self._buffer, at)
            if not is_in_string:
                for token in _TOKEN.finditer(self._buffer, at):
                    byte = self._buffer[token.start()]
                    at = token.end()
                    if byte == 0x7B:
                        depth += 1
                    elif byte == 0x7D:
                        depth -= 1
                        if not depth:
                            yield line, self._take(at, line)
                            return
                    elif at == token.start() + 1:
                        at, is_in_string = _string_end(self._buffer, at)
                        break
                else:
                    at = len(self._buffer)
            if len(self._buffer) - self.at > IMPORT_DOCUMENT_TEXT_BYTES_MAX:
                raise too_long(line)
            yield line, None
            more = self._read(IMPORT_PIECE_BYTES)
            if not more:
                raise Unreadable(line, "the file ends within this object.")
            self._buffer, at, self.at = self._buffer[self.at :] + more, at - self.at, 0

    def _take(self, end: int, line: int) -> bytes:
        taken = self._buffer[self.at : end]
        if len(taken) > IMPORT_DOCUMENT_TEXT_BYTES_MAX:
            raise too_long(line)
        self._pass(end)
        return taken

    def _pass(self, to: int) -> None:
        self.line += self._buffer.count(b"\n", self.at, to)
        self.at = to


def _string_end(text: bytes, at: int) -> tuple[int, bool]:
    """Where to go on in a string that was entered before `at`, and whether that is still within it."""
    while True:
        found = _IN_STRING.search(text, at)
        if found is None:
            return len(text), True
        if text[found.start()] == 0x22:
            return found.end(), False
        if found.end() == len(text):
            return found.start(), True
        at = found.end() + 1


def check_start(piece: bytes) -> None:
    """Raises: Unreadable for a byte order mark."""
    if piece.startswith(_BOMS):
        raise Unreadable(1, "the file begins with a byte order mark: save it as UTF-8 without one.")


def too_long(line: int) -> Unreadable:
    return Unreadable(
        line, f"this document has more than {IMPORT_DOCUMENT_TEXT_BYTES_MAX} bytes of text; documents are far smaller."
    )
