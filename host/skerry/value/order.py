"""The total order of values, twice: as a comparison and as bytes.

`key_of` maps a value to bytes whose bytewise order is the total order. Where a key is a prefix of another (the empty
string's, of one that begins with 0x00), the longer goes on with 0xFF and whatever follows the shorter with a tag below
it, so keys of several fields written one after the other order as tuples. Layout: one tag byte per value, then

- int64 and float64: 8 big-endian bytes with the sign turned so that smaller numbers come first;
- string and bytes: the bytes with 0x00 written as 0x00 0xFF, then 0x00;
- array: the elements, then 0x00; object: for each field by name, the name as a string and the value, then 0x00.

Every tag lies between 0x01 and 0x7F, so 0x00 ends before anything goes on, and appending 0xFF to a key gives a bound
above every longer key that starts with it (`after_prefix`). A decoder is deliberately absent: documents hold the
values.

Source: protocol reference 1.6. float64 follows the IEEE total order, so -0 < 0 and NaN has a place.
"""

import struct
from collections.abc import Callable, Iterable
from typing import Any, Final

from skerry.value.kinds import INT64_MAX, CommitTs, Int64, Undefined, kind_of

TAG_UNDEFINED: Final = b"\x01"
TAG_NULL: Final = b"\x03"
TAG_INT64: Final = 0x08
TAG_FLOAT64: Final = 0x0D
TAG_FALSE: Final = b"\x0e"
TAG_TRUE: Final = b"\x0f"
TAG_STRING: Final = b"\x10"
TAG_BYTES: Final = b"\x11"
TAG_ARRAY: Final = b"\x12"
TAG_OBJECT: Final = b"\x15"
_SIGN: Final = 2**63

_pack_tagged_float: Final = struct.Struct(">Bd").pack
_pack_tagged_bits: Final = struct.Struct(">BQ").pack
_pack_float: Final = struct.Struct(">d").pack
_unpack_signed: Final = struct.Struct(">q").unpack


def key_of(value: Any) -> bytes:
    """The order-preserving key, which delimits itself before a tag, of a decoded value or of `UNDEFINED`.

    Raises: KeyError for a foreign type, UnicodeEncodeError for a lone surrogate: both mean the value was never checked.
    """
    return _KEYS[kind_of(value)](value)


def index_key(values: Iterable[Any]) -> bytes:
    """The keys of several field values, one after the other."""
    return b"".join([_KEYS[kind_of(value)](value) for value in values])


def after_prefix(key: bytes) -> bytes:
    """The bound above every key that starts with these whole field keys, and below every other larger key."""
    return key + b"\xff"


def compare(left: Any, right: Any) -> int:
    """-1, 0 or 1 as `left` is before, the same as, or after `right` in the total order."""
    kind = kind_of(left)
    if kind is kind_of(right) and (kind is str or kind is bytes or kind is bool):
        if kind is str:
            left, right = left.encode(), right.encode()
        return (left > right) - (left < right)
    left_rank, right_rank = _RANKS[kind], _RANKS[kind_of(right)]
    if left_rank != right_rank:
        return -1 if left_rank < right_rank else 1
    return _COMPARE[left_rank](left, right)


def _key_float(value: float) -> bytes:
    if value > 0:
        # Negating turns the sign bit on, which is just how a positive number must look.
        return _pack_tagged_float(TAG_FLOAT64, -value)
    return _pack_tagged_bits(TAG_FLOAT64, _float_rank(value))


def _float_rank(value: float) -> int:
    bits = _unpack_signed(_pack_float(value))[0]
    return ~bits if bits < 0 else bits + _SIGN


def _key_int64(value: Int64) -> bytes:
    return _pack_tagged_bits(TAG_INT64, value.value + _SIGN)


def _key_commit_ts(_: Any) -> bytes:
    return _KEY_OF_LARGEST


def _key_str(value: str) -> bytes:
    if "\0" in value:
        return TAG_STRING + value.encode().replace(b"\0", b"\0\xff") + b"\0"
    return f"\x10{value}\0".encode()


def _key_bytes(value: bytes) -> bytes:
    return TAG_BYTES + value.replace(b"\0", b"\0\xff") + b"\0"


def _key_list(value: list[Any]) -> bytes:
    return TAG_ARRAY + b"".join([_KEYS[kind_of(element)](element) for element in value]) + b"\0"


def _key_dict(value: dict[str, Any]) -> bytes:
    parts: list[bytes] = [TAG_OBJECT]
    for name in sorted(value):
        field = value[name]
        parts.append(_key_str(name))
        parts.append(_KEYS[kind_of(field)](field))
    parts.append(b"\0")
    return b"".join(parts)


def _key_undefined(_: Any) -> bytes:
    return TAG_UNDEFINED


def _key_null(_: Any) -> bytes:
    return TAG_NULL


def _key_bool(value: bool) -> bytes:
    return TAG_TRUE if value else TAG_FALSE


_KEY_OF_LARGEST: Final = _key_int64(Int64(INT64_MAX))

_KEYS: Final[dict[type, Callable[[Any], bytes]]] = {
    Undefined: _key_undefined,
    type(None): _key_null,
    Int64: _key_int64,
    CommitTs: _key_commit_ts,
    int: _key_float,
    float: _key_float,
    bool: _key_bool,
    str: _key_str,
    bytes: _key_bytes,
    list: _key_list,
    dict: _key_dict,
}


def _compare_same(_left: Any, _right: Any) -> int:
    return 0


def _compare_int64(left: Int64 | CommitTs, right: Int64 | CommitTs) -> int:
    before = INT64_MAX if type(left) is CommitTs else left.value
    after = INT64_MAX if type(right) is CommitTs else right.value
    return (before > after) - (before < after)


def _compare_float(left: float, right: float) -> int:
    if left < right:
        return -1
    if left > right:
        return 1
    left_bits, right_bits = _float_rank(left), _float_rank(right)
    return (left_bits > right_bits) - (left_bits < right_bits)


def _compare_plain(left: Any, right: Any) -> int:
    return (left > right) - (left < right)


def _compare_list(left: list[Any], right: list[Any]) -> int:
    for left_element, right_element in zip(left, right, strict=False):
        order = compare(left_element, right_element)
        if order:
            return order
    return _compare_plain(len(left), len(right))


def _compare_dict(left: dict[str, Any], right: dict[str, Any]) -> int:
    for left_name, right_name in zip(sorted(left), sorted(right), strict=False):
        order = compare(left_name, right_name) or compare(left[left_name], right[right_name])
        if order:
            return order
    return _compare_plain(len(left), len(right))


_RANKS: Final[dict[type, int]] = {
    Undefined: 0,
    kind_of(None): 1,
    Int64: 2,
    CommitTs: 2,
    int: 3,
    float: 3,
    bool: 4,
    str: 5,
    bytes: 6,
    list: 7,
    dict: 8,
}
_COMPARE: Final[tuple[Callable[[Any, Any], int], ...]] = (
    _compare_same,
    _compare_same,
    _compare_int64,
    _compare_float,
    _compare_plain,
    _compare_plain,
    _compare_plain,
    _compare_list,
    _compare_dict,
)
