"""Content codings, undone in bounded steps: no read makes more bytes than were asked for, whatever the peer compressed.

Supported are gzip (with its members) and deflate in both of its forms, zlib's and the bare one. Other codings
are not offered to the peer; what comes in one anyway is handed on as it came, as browsers' fetch hands on an unknown
one. Deliberately absent: layers of codings, which only attacks use.
"""

import zlib
from typing import Literal, Protocol

from skerry.errors import DeveloperError
from skerry.limits import EGRESS_GZIP_MEMBERS_MAX

Coding = Literal["gzip", "deflate"]
ACCEPTED = "gzip, deflate"

_GZIP_BITS = 16 + zlib.MAX_WBITS


class _Stream(Protocol):
    """What is used of zlib's decompressor, which has no public type."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    @property
    def unconsumed_tail(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


def coding_of(header: str) -> Coding | None:
    """The coding that a Content-Encoding header names, or None where the body is handed on as it comes.

    Raises: DeveloperError EgressFailed for layers of codings.
    """
    names = [name for part in header.split(",") if (name := part.strip().lower()) not in ("", "identity")]
    if len(names) > 1:
        raise DeveloperError("EgressFailed", "The response is compressed more than once; this is not supported.")
    match names:
        case ["gzip" | "x-gzip"]:
            return "gzip"
        case ["deflate"]:
            return "deflate"
        case _:
            return None


class Decoder:
    """One body's decompressor: feed what arrived, take what comes out of it.

    Raises: DeveloperError EgressFailed for damaged or truncated data, EgressTooLarge for too many members.
    """

    def __init__(self, coding: Coding) -> None:
        self._coding = coding
        self._rest = b""
        self._stream: _Stream | None = zlib.decompressobj(_GZIP_BITS) if coding == "gzip" else None
        self._fed = False
        self._members = 1

    def feed(self, data: bytes) -> None:
        """Adds what arrived."""
        self._fed = True
        self._rest = self._rest + data if self._rest else data

    def take(self, bytes_max: int) -> bytes:
        """At most so many decompressed bytes; none where more input is needed, or the data has ended."""
        while True:
            stream = self._stream or self._deflate_stream()
            if stream is None:
                return b""
            if stream.eof and (stream := self._next_member()) is None:
                return b""
            try:
                # Asked also without input: the decompressor may hold output back from its last step.
                out = stream.decompress(self._rest, bytes_max)
            except zlib.error as error:
                raise DeveloperError("EgressFailed", f"The response is not valid {self._coding} data.") from error
            self._rest = stream.unused_data if stream.eof else stream.unconsumed_tail
            if out or not stream.eof:
                return out

    def finish(self) -> None:
        """Checks that the input ended where the compressed data ends."""
        if self._fed and not (self._stream is not None and self._stream.eof):
            raise DeveloperError("EgressFailed", f"The response ended in the middle of its {self._coding} data.")

    def _deflate_stream(self) -> "_Stream | None":
        """Chooses the form by the two bytes that zlib's begins with."""
        if len(self._rest) < 2:
            return None
        first, second = self._rest[:2]
        is_zlib = first & 0x0F == 8 and first >> 4 <= 7 and (first << 8 | second) % 31 == 0
        self._stream = zlib.decompressobj(zlib.MAX_WBITS if is_zlib else -zlib.MAX_WBITS)
        return self._stream

    def _next_member(self) -> "_Stream | None":
        if self._coding != "gzip" or not self._rest.startswith(b"\x1f\x8b"[: len(self._rest)]) or not self._rest:
            self._rest = b""  # what trails the data is nobody's
            return None
        self._members += 1
        if self._members > EGRESS_GZIP_MEMBERS_MAX:
            sentence = f"The gzip data of a response has at most {EGRESS_GZIP_MEMBERS_MAX} members."
            raise DeveloperError("EgressTooLarge", sentence)
        self._stream = zlib.decompressobj(_GZIP_BITS)
        return self._stream
