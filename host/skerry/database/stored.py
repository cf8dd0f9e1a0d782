"""The stored form of a document: a 12-byte header and the JSON text a guest receives.

Shape: byte 0 how often the document was rewritten (modulo 256), bytes 1-3 its size by the protocol's size function,
bytes 4-11 the timestamp of the commit that wrote this version, then canonical encoded JSON with `_id` and
`_creationTime`. So a read is a slice, charging it needs no parsing, and every version knows since when it holds,
which is what leads from it to the version before (see `history`).
"""

from typing import Any, Final

import orjson

from skerry.limits import HISTORY_MILESTONE_VERSIONS
from skerry.value import decode, is_plain

HEADER_BYTES: Final = 12
SIZE_MASK: Final = 0xFFFFFF
_COUNT_AT: Final = 24
_COUNT_MASK: Final = 0xFF
_MILESTONE_MASK: Final = HISTORY_MILESTONE_VERSIONS - 1
_WORD_BYTES: Final = 4


def stored_form(json: bytes, size: int, stamp: bytes, before: bytes | None) -> bytes:
    """The bytes of a document version: `stamp` is `timestamp_bytes` of its commit, `before` the stored form that it
    replaces."""
    count = 0 if before is None else (before[0] + 1) & _COUNT_MASK
    return (count << _COUNT_AT | size).to_bytes(_WORD_BYTES, "big") + stamp + json


def is_before_milestone(stored: bytes) -> bool:
    """Whether the version that replaces this one is one of those that the history can be entered at."""
    return (stored[0] + 1) & _MILESTONE_MASK == _MILESTONE_MASK


def commit_ts_of(stored: bytes) -> int:
    """The timestamp of the commit that wrote this version."""
    return int.from_bytes(stored[4:HEADER_BYTES], "big")


def timestamp_bytes(stored: bytes) -> bytes:
    """`commit_ts_of` as it stands in keys: 8 bytes, big-endian."""
    return stored[4:HEADER_BYTES]


def parse_document(json: bytes) -> dict[str, Any]:
    """The decoded value of a document's own JSON."""
    return orjson.loads(json) if is_plain(json) else decode(orjson.loads(json), commit_ts=True)
