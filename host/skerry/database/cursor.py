"""Cursors: positions in a query's result that travel through clients without being believed.

A cursor says "after this index key" or "at the end", and carries a fingerprint of its function, its query and the
definition of its index: in another function, for another query, or once the index is another, it means nothing. It is
sealed with AES-SIV under a key of the deployment, which hides the key's contents, refuses anything not made here, and
gives the same text for the same position, so that running a query again gives the same answer byte for byte.

Source: protocol reference 4.5.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from skerry.errors import DeveloperError
from skerry.limits import CURSOR_CHARS_MAX, QUERY_FINGERPRINT_BYTES

_AFTER: Final = b"\x01"
_END: Final = b"\x02"
_SEAL: Final = [b"skerry cursor 1"]
_ERROR_DATA: Final = {"isConvexSystemError": True, "paginationError": "InvalidCursor"}


class Position:
    """Where a page begins or ends: after an index key, or at the end (`key` is None)."""

    __slots__ = ("key",)

    def __init__(self, key: bytes | None) -> None:
        self.key = key


def seal_cursor(page_key: bytes, fingerprint: bytes, position: Position) -> str:
    """The cursor of a position in a query."""
    plain = fingerprint + (_END if position.key is None else _AFTER + position.key)
    return urlsafe_b64encode(AESSIV(page_key).encrypt(plain, _SEAL)).decode()


def open_cursor(page_key: bytes, fingerprint: bytes, cursor: str) -> Position:
    """The position of a cursor of this query.

    Raises: DeveloperError `InvalidCursor`, with the data by which clients know it.
    """
    if len(cursor) > CURSOR_CHARS_MAX:
        raise _invalid("Failed to parse cursor: it is too long.")
    try:
        raw = cursor.encode()
        sealed = urlsafe_b64decode(raw)
        if urlsafe_b64encode(sealed) != raw:  # the decoder skips what it does not know
            raise ValueError("another spelling")
        plain = AESSIV(page_key).decrypt(sealed, _SEAL)
    except (InvalidTag, Base64Error, ValueError):
        raise _invalid("Failed to parse cursor") from None
    if plain[:QUERY_FINGERPRINT_BYTES] != fingerprint:
        raise _invalid(
            "Tried to run a query starting from a cursor, but it looks like this cursor is from a different query."
        )
    rest = plain[QUERY_FINGERPRINT_BYTES:]
    return Position(None if rest == _END else rest[1:])


def _invalid(message: str) -> DeveloperError:
    return DeveloperError("InvalidCursor", f"InvalidCursor: {message}", _ERROR_DATA)
