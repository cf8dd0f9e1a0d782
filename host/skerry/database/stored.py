"""The stored form of a document: a 12-byte header and the JSON text a guest receives.

Shape: byte 0 format (1), bytes 1-3 the document's size by the protocol's size function, bytes 4-11 the timestamp of
the commit that wrote it, then canonical encoded JSON with `_id` and `_creationTime`. So a read is a slice, charging
it needs no parsing, and every version knows since when it holds, which is what lets an insert write no history (see
`history`).
"""

from struct import Struct
from typing import Any, Final

import orjson

from skerry.value import decode, is_plain

HEADER_BYTES: Final = 12
SIZE_MASK: Final = 0xFFFFFF
_FORMAT: Final = 1 << 24
_HEADER: Final = Struct(">IQ")
_pack = _HEADER.pack
_unpack_from = _HEADER.unpack_from


def stored_form(json: bytes, size: int, commit_ts: int) -> bytes:
    """The bytes of a document version."""
    return _pack(_FORMAT | size, commit_ts) + json


def commit_ts_of(stored: bytes) -> int:
    """The timestamp of the commit that wrote this version."""
    return int.from_bytes(stored[4:HEADER_BYTES], "big")


def size_and_ts(stored: bytes) -> tuple[int, int]:
    """The document's size and the timestamp of the commit that wrote this version."""
    word, commit_ts = _unpack_from(stored)
    return word & SIZE_MASK, commit_ts


def parse_document(json: bytes) -> dict[str, Any]:
    """The decoded value of a document's own JSON."""
    return orjson.loads(json) if is_plain(json) else decode(orjson.loads(json))
