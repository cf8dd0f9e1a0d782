"""JSON text before it is believed: size, nesting and the signs of special values, all without building objects.

Every check here is linear in the text and runs in C: the brackets are lifted out with `bytes.translate` and the deepest
layer is removed pass by pass, so deep nesting costs at most `depth_max` passes over the brackets.
Brackets inside strings cannot mislead the count: the quotes are lifted out as well, and only when every string is empty
of brackets (all quotes vanish in pairs) are the brackets alone believed; otherwise the strings are cut out first.

Rules of the parser underneath: a repeated key means its last value; a lone surrogate, a number beyond float64, NaN and
bytes that are not UTF-8 are refused; the number `-0` is 0 (minus zero travels as `$float` or `-0.0`).
"""

from typing import Any, Final

import orjson

from skerry.errors import DeveloperError

_NOT_STRUCTURE: Final = bytes(sorted(set(range(256)) - set(b'"[]{}')))
_COUNTED_BYTES_MAX: Final = 4096  # in a longer text, lifting the brackets out costs less than counting them
_ONE_BRACKET: Final = bytes.maketrans(b"[]{}", b"()()")


def parse_json(raw: bytes, *, depth_max: int, bytes_max: int) -> Any:
    """The Python form of a JSON text from a stranger.

    Raises: DeveloperError `ValueTooLargeError` or `TooNestedError` before any parsing, `InvalidJson` for anything that
    is not JSON. A repeated key means its last value.
    """
    if len(raw) > bytes_max:
        raise DeveloperError(
            "ValueTooLargeError", f"JSON text is too large ({len(raw)} bytes > maximum size {bytes_max} bytes)"
        )
    if not depth_is_within(raw, depth_max):
        raise DeveloperError("TooNestedError", f"JSON text is nested more than {depth_max} levels deep.")
    try:
        return orjson.loads(raw)
    except ValueError as error:
        raise DeveloperError("InvalidJson", f"Not valid JSON: {error}") from None


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


def is_plain(raw: bytes) -> bool:
    """Whether encoded and decoded forms are the same: no key starts with `$`, not even spelled as an escape."""
    # One byte is searched for many times faster than two, and most texts have no `$` and no escape at all.
    return (b"$" not in raw or b'"$' not in raw) and (b"\\" not in raw or b"\\u0024" not in raw)
