"""Document ids: a table number and 16 random bytes, written as lowercase Crockford base32 with a checksum.

    varint(table number) || 16 bytes || two-byte little-endian Fletcher-16 (modulus 256)

Invariant: one spelling per id. `decode_document_id` refuses every string that `encode_document_id` would not have
written, so ids may be compared, indexed and cached as strings. Which table a number means is the caller's business.

Source: protocol reference 1.7.
"""

from collections.abc import Callable
from functools import lru_cache
from itertools import accumulate
from typing import Final

from skerry.errors import DeveloperError
from skerry.limits import (
    DOCUMENT_ID_CACHE_ENTRIES_MAX,
    DOCUMENT_ID_SHOWN_CHARS_MAX,
    TABLE_NUMBER_CACHE_ENTRIES_MAX,
    TABLE_NUMBER_MAX,
)

INTERNAL_ID_BYTES: Final = 16

_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS: Final = tuple(high + low for high in _ALPHABET for low in _ALPHABET)
_PYTHON_DIGITS: Final = b"0123456789abcdefghijklmnopqrstuv"
# int() also takes signs, spaces, underscores and capitals; all bytes outside the alphabet become one it refuses.
_TO_PYTHON: Final = bytes(
    _PYTHON_DIGITS[_ALPHABET.index(chr(byte))] if chr(byte) in _ALPHABET else 0x2A for byte in range(256)
)
# string length -> (bytes, unused low bits), for varints of 1 to 5 bytes
_SHAPES: Final = {31: (19, 3), 32: (20, 0), 34: (21, 2), 36: (22, 4), 37: (23, 1)}
_CHARS: Final = {size: (chars, unused) for chars, (size, unused) in _SHAPES.items()}


def encode_document_id(table_number: int, internal_id: bytes) -> str:
    """The id string. Limits: table number 1 to `TABLE_NUMBER_MAX`, internal id `INTERNAL_ID_BYTES`."""
    assert len(internal_id) == INTERNAL_ID_BYTES
    body = _varint(table_number) + internal_id
    checks = tuple(accumulate(body))
    number = int.from_bytes(body + bytes((checks[-1] & 0xFF, sum(checks) & 0xFF)))
    pairs = _PAIRS
    if len(body) == 18:
        high, low = number >> 80, number & 0xFFFFFFFFFFFFFFFFFFFF
        return (
            f"{pairs[high >> 70]}{pairs[high >> 60 & 1023]}{pairs[high >> 50 & 1023]}{pairs[high >> 40 & 1023]}"
            f"{pairs[high >> 30 & 1023]}{pairs[high >> 20 & 1023]}{pairs[high >> 10 & 1023]}{pairs[high & 1023]}"
            f"{pairs[low >> 70]}{pairs[low >> 60 & 1023]}{pairs[low >> 50 & 1023]}{pairs[low >> 40 & 1023]}"
            f"{pairs[low >> 30 & 1023]}{pairs[low >> 20 & 1023]}{pairs[low >> 10 & 1023]}{pairs[low & 1023]}"
        )
    chars, unused = _CHARS[len(body) + 2]
    number <<= unused
    text = "".join([pairs[number >> shift & 1023] for shift in range(190, -10, -10)])
    return text[-chars:]


def decode_document_id(text: str) -> tuple[int, bytes]:
    """The table number and internal id of an id string.

    Raises: DeveloperError `InvalidDocumentId` for anything but the one canonical spelling.
    """
    decoded = try_decode_document_id(text)
    if decoded is None:
        shown = text[:DOCUMENT_ID_SHOWN_CHARS_MAX]
        raise DeveloperError("InvalidDocumentId", f"Unable to decode ID: {shown} is not a document ID.")
    return decoded


def try_decode_document_id(text: str) -> tuple[int, bytes] | None:
    """As `decode_document_id`, but None for a string that is no id."""
    return _decoded(text) if len(text) in _SHAPES else None


@lru_cache(DOCUMENT_ID_CACHE_ENTRIES_MAX)
def _decoded(text: str) -> tuple[int, bytes] | None:
    """A string that is as long as an id. Cached, because one call names the same id several times."""
    if not text.isascii():
        return None
    shape = _SHAPES[len(text)]
    try:
        number = int(text.encode().translate(_TO_PYTHON), 32)
    except ValueError:
        return None
    size, unused = shape
    if unused:
        if number & ((1 << unused) - 1):
            return None
        number >>= unused
    if number >> (8 * size):
        return None
    data = number.to_bytes(size)
    checks = tuple(accumulate(data[:-2]))
    if data[-2] != checks[-1] & 0xFF or data[-1] != sum(checks) & 0xFF:
        return None
    table_number = _varint_value(data[: size - 18])
    return None if table_number is None else (table_number, data[-18:-2])


def normalize_id(table: str, text: str, resolve_table: Callable[[int], str | None]) -> str | None:
    """The id string if it is an id of `table`, else None. Legacy ids of 16 bare bytes are deliberately not taken."""
    decoded = try_decode_document_id(text)
    return text if decoded is not None and resolve_table(decoded[0]) == table else None


@lru_cache(TABLE_NUMBER_CACHE_ENTRIES_MAX)
def _varint(number: int) -> bytes:
    assert 1 <= number <= TABLE_NUMBER_MAX
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


@lru_cache(TABLE_NUMBER_CACHE_ENTRIES_MAX)
def _varint_value(data: bytes) -> int | None:
    """The number of a whole LEB128 text in its shortest form, else None."""
    number = 0
    for position, byte in enumerate(data):
        number |= (byte & 0x7F) << (7 * position)
        if (byte < 0x80) != (position == len(data) - 1):
            return None
    return number if data[-1] and number <= TABLE_NUMBER_MAX else None
