"""JSON text before it is believed: size, nesting, how many values, the signs of special ones; no object is built.

Every check here is linear in the text and runs in C: the brackets are lifted out with `bytes.translate` and the deepest
layer is removed pass by pass, so deep nesting costs at most `depth_max` passes over the brackets.
Brackets inside strings cannot mislead the count: the quotes are lifted out as well, and only when every string is empty
of brackets (all quotes vanish in pairs) are the brackets alone believed; otherwise the strings are cut out first.

Rules of the parser underneath: a repeated key means its last value; a lone surrogate, a number beyond float64, NaN and
bytes that are not UTF-8 are refused; the number `-0` is 0 (minus zero travels as `$float` or `-0.0`).
"""

from collections.abc import Callable, Iterator
from typing import Any, Final

import orjson

from skerry.errors import DeveloperError
from skerry.limits import JSON_WHOLE_BYTES_MAX, VALUE_JSON_CONTAINERS_MAX, VALUE_JSON_VALUES_MAX
from skerry.value.long_json import NotJson, TooDeep, TooManyValues, parse_long

_NOT_STRUCTURE: Final = bytes(sorted(set(range(256)) - set(b'"[]{}')))
_COUNTED_BYTES_MAX: Final = 4096  # in a longer text, lifting the brackets out costs less than counting them
TOO_MANY_VALUES: Final = (
    f"JSON text holds more than {VALUE_JSON_VALUES_MAX} values, or {VALUE_JSON_CONTAINERS_MAX} arrays and objects."
)
_ONE_BRACKET: Final = bytes.maketrans(b"[]{}", b"()()")


def parse_json(raw: bytes, *, depth_max: int, bytes_max: int, look: Callable[[], None] | None = None) -> Any:
    """The Python form of a JSON text from a stranger; a long one is parsed in pieces, with `look` between them.

    Raises: DeveloperError `ValueTooLargeError` (bytes or values) or `TooNestedError` before any parsing, `InvalidJson`
    for anything that is not JSON. A repeated key means its last value.
    """
    if len(raw) > bytes_max:
        raise DeveloperError(
            "ValueTooLargeError", f"JSON text is too large ({len(raw)} bytes > maximum size {bytes_max} bytes)"
        )
    if len(raw) > JSON_WHOLE_BYTES_MAX:
        return _parse_long(raw, depth_max, look)
    if not values_are_within(raw):
        raise DeveloperError("ValueTooLargeError", TOO_MANY_VALUES)
    if not depth_is_within(raw, depth_max):
        raise DeveloperError("TooNestedError", f"JSON text is nested more than {depth_max} levels deep.")
    try:
        return orjson.loads(raw)
    except ValueError as error:
        raise DeveloperError("InvalidJson", f"Not valid JSON: {error}") from None


def _parse_long(raw: bytes, depth_max: int, look: Callable[[], None] | None) -> Any:
    try:
        return parse_long(
            raw,
            depth_max=depth_max,
            values_max=VALUE_JSON_VALUES_MAX,
            containers_max=VALUE_JSON_CONTAINERS_MAX,
            depth_is_within=depth_is_within,
            look=look,
        )
    except TooManyValues:
        raise DeveloperError("ValueTooLargeError", TOO_MANY_VALUES) from None
    except TooDeep:
        raise DeveloperError("TooNestedError", f"JSON text is nested more than {depth_max} levels deep.") from None
    except NotJson as error:
        raise DeveloperError("InvalidJson", f"Not valid JSON: {error}") from None


def values_are_within(
    raw: bytes, values_max: int = VALUE_JSON_VALUES_MAX, containers_max: int = VALUE_JSON_CONTAINERS_MAX
) -> bool:
    """Whether a text is cheap enough to parse: so many values at most, and so many of them arrays and objects.

    A text of three-byte values costs a parser thirty times its size, and seconds in which nothing else runs. Asked
    before `depth_is_within`, whose passes are long over such text. Malformed text may get either answer.
    An empty array or object counts as two values.
    """
    if len(raw) <= 2 * containers_max:  # an array needs two bytes
        return True
    containers = raw.count(b"[") + raw.count(b"{")
    if containers <= containers_max and containers + raw.count(b",") < values_max:
        return True
    text = raw.replace(b"\\\\", b"").replace(b'\\"', b"") if b"\\" in raw else raw
    if text.count(b'"') > 4 * values_max:  # a string has two, and is a value or the name of one
        return False
    outside = b"".join(text.split(b'"')[::2])
    containers = outside.count(b"[") + outside.count(b"{")
    return containers <= containers_max and containers + outside.count(b",") < values_max


def depth_is_within(raw: bytes, depth_max: int) -> bool:
    """Whether brackets outside strings nest at most `depth_max` deep; malformed text may get either answer."""
    if len(raw) <= _COUNTED_BYTES_MAX and raw.count(b"[") + raw.count(b"{") <= depth_max:
        return True
    text = raw
    if b"\\" in text:
        # A backslash occurs only in a string, where pairs are read from the left; one left before a quote escapes it.
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    structure = text.translate(None, _NOT_STRUCTURE)
    brackets = structure.replace(b'""', b"")
    if b'"' in brackets:
        brackets = b"".join(structure.split(b'"')[::2])
    brackets = brackets.translate(_ONE_BRACKET)
    for _ in range(depth_max):
        if not brackets:
            return True
        brackets = brackets.replace(b"()", b"")
    # What is left of well-formed text is deeper than the bound; text with only closing brackets left is for the parser.
    return not brackets or brackets.count(b"(") == 0


def windows(raw: bytes, overlap: int) -> Iterator[bytes]:
    """A long text in parts that a search may hold the global lock for; what is `overlap` long lies whole in one."""
    for begin in range(0, len(raw), JSON_WHOLE_BYTES_MAX - overlap):
        yield raw[begin : begin + JSON_WHOLE_BYTES_MAX]


def is_plain(raw: bytes) -> bool:
    """Whether encoded and decoded forms are the same: no key starts with `$`, not even spelled as an escape."""
    if len(raw) > JSON_WHOLE_BYTES_MAX:
        return all(map(is_plain, windows(raw, 6)))
    # One byte is searched for many times faster than two, and most texts have no `$` and no escape at all.
    return (b"$" not in raw or b'"$' not in raw) and (b"\\" not in raw or b"\\u0024" not in raw)
