"""Encoded JSON to decoded values and back, and the two other output formats.

Encoded form: JSON, where an object with the single key `$integer`, `$float` or `$bytes` stands for a value JSON cannot
carry. Invariants: `decode(encode(v)) == v` bit for bit; `dumps` is canonical (keys sorted, no spaces, integral float64
below 2**53 without a point), so equal values have equal bytes. Base64 is strict and must be in its one canonical form.

The fast paths let orjson do the work: text without a `"$` needs no conversion after parsing, and a value whose output
shows no sign of a number to rewrite (`.0`, `null`) or of a `$` key is already canonical. A false alarm only costs the
slow path.

Source: protocol reference 1.1, 1.2, 1.3.
"""

import struct
from base64 import b64encode
from binascii import Error as Base64Error
from binascii import a2b_base64
from collections.abc import Callable
from enum import Enum
from math import isfinite
from typing import Any, Final

import orjson

from skerry.errors import DeveloperError
from skerry.limits import JSON_WHOLE_BYTES_MAX, VALUE_JSON_BYTES_MAX, VALUE_JSON_NESTING_MAX
from skerry.value.kinds import (
    COMMIT_TS,
    FLOAT_INTEGER_MAX,
    INT64_MAX,
    INT64_MIN,
    UNDEFINED,
    CommitTs,
    Int64,
    Undefined,
    kind_of,
    normalize_number,
)
from skerry.value.long_json import dismantle
from skerry.value.raw_json import is_plain, parse_json, windows

_FLOAT_INTEGER_MIN: Final = -FLOAT_INTEGER_MAX
_LONG_DIGITS: Final = b"0" * 16
_DIGITS: Final = bytes(48 if 48 <= byte <= 57 else 32 for byte in range(256))
_DUMP_OPTIONS: Final = (
    orjson.OPT_SORT_KEYS
    | orjson.OPT_STRICT_INTEGER
    | orjson.OPT_PASSTHROUGH_DATACLASS
    | orjson.OPT_PASSTHROUGH_DATETIME
    | orjson.OPT_PASSTHROUGH_SUBCLASS
)
_FLOAT64: Final = struct.Struct("<d")
_INT64: Final = struct.Struct("<q")
_NO_UNDEFINED: Final = "undefined is not a valid Convex value."


Tags = dict[str, Callable[[Any], Any]]
"""What an object with this single key stands for."""


class UndefinedAt(Enum):
    """Where `{"$undefined": null}` is legal: nowhere, as the whole value, or as a field of the outermost object."""

    NOWHERE = 0
    ROOT = 1
    TOP_FIELDS = 2


def loads(
    raw: bytes,
    *,
    undefined: UndefinedAt = UndefinedAt.NOWHERE,
    bytes_max: int = VALUE_JSON_BYTES_MAX,
    look: Callable[[], None] | None = None,
    commit_ts: bool = False,
) -> Any:
    """The decoded value of an encoded JSON text; a long one is read in pieces, with `look` between them. `commit_ts`
    as for `decode`.

    Raises: DeveloperError `InvalidJson`, `InvalidValue`, `TooNestedError`, `ValueTooLargeError`. Counts and names are
    the business of `check_value`.
    """
    parsed = parse_json(raw, depth_max=VALUE_JSON_NESTING_MAX, bytes_max=bytes_max, look=look)
    if is_plain(raw) and not has_large_integer(raw):
        return parsed
    if len(raw) <= JSON_WHOLE_BYTES_MAX:
        return decode(parsed, undefined=undefined, commit_ts=commit_ts)
    try:
        return decode(parsed, undefined=undefined, commit_ts=commit_ts)
    finally:
        dismantle(parsed)


def has_large_integer(raw: bytes) -> bool:
    """Whether a JSON text may hold an integer that is exact in Python and not in float64; True may be a false alarm."""
    if len(raw) > JSON_WHOLE_BYTES_MAX:
        return any(_LONG_DIGITS in part.translate(_DIGITS) for part in windows(raw, len(_LONG_DIGITS)))
    return _LONG_DIGITS in raw.translate(_DIGITS)


def decode(encoded: Any, *, undefined: UndefinedAt = UndefinedAt.NOWHERE, commit_ts: bool = False) -> Any:
    """The decoded value of a parsed encoded JSON object; the argument is not changed.

    Shape: `commit_ts` says that `{"$commitTs": null}` is legal: within a mutation.
    """
    tags = _TAGS_IN_MUTATION if commit_ts else _TAGS
    if undefined is not UndefinedAt.NOWHERE and kind_of(encoded) is dict:
        if undefined is UndefinedAt.ROOT:
            return UNDEFINED if encoded == {"$undefined": None} else _decode(encoded, tags)
        fields: dict[str, Any] = encoded
        if not any(key[:1] == "$" for key in fields):
            return {
                key: UNDEFINED if value == {"$undefined": None} else _decode(value, tags)
                for key, value in fields.items()
            }
    return _decode(encoded, tags)


def encode(value: Any) -> Any:
    """The encoded JSON object of a decoded value; numbers in their one normal form.

    Raises: DeveloperError `InvalidValue` for undefined, for a field name starting with `$`, for a foreign type.
    """
    kind = kind_of(value)
    encoder = _ENCODERS.get(kind)
    if encoder is None:
        raise DeveloperError("InvalidValue", _NO_UNDEFINED if kind is Undefined else f"{kind.__name__} is not a value.")
    return encoder(value)


def dumps(value: Any) -> bytes:
    """The canonical encoded JSON text of a decoded value. Raises as `encode`, and for strings with lone surrogates."""
    try:
        raw = orjson.dumps(value, _default, _DUMP_OPTIONS)
        if b".0" not in raw and (b"$" not in raw or b'"$' not in raw) and b"null" not in raw:
            return raw
    except TypeError:
        pass  # a large integer, bytes, int64 or something that is no value: the slow path tells them apart
    return _dump(encode(value))


def dumps_undefined(value: Any) -> bytes:
    """As `dumps`, but the whole value may be undefined (`{"$undefined":null}`)."""
    return b'{"$undefined":null}' if value is UNDEFINED else dumps(value)


def to_clean(value: Any) -> Any:
    """The `json` format: int64 as decimal string, bytes as base64, NaN and infinities as strings, -0 as -0.0."""
    kind = kind_of(value)
    if kind is dict:
        return {key: to_clean(value[key]) for key in sorted(value)}
    if kind is list:
        return [to_clean(element) for element in value]
    if kind is Int64:
        return str(value.value)
    if kind is bytes:
        return b64encode(value).decode()
    if kind is float and not isfinite(value):
        return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
    return normalize_number(value) if kind is float or kind is int else encode(value)


def to_export(value: Any) -> Any:
    """The `export_json` format: int64 as JSON integer, float64 always as Python float, specials and bytes tagged."""
    kind = kind_of(value)
    if kind is dict:
        return {key: to_export(value[key]) for key in sorted(value)}
    if kind is list:
        return [to_export(element) for element in value]
    if kind is Int64:
        return value.value
    if kind is float or kind is int:
        number = _encode_float(float(normalize_number(value)))
        return float(number) if kind_of(number) is int else number
    return encode(value)


def dumps_clean(value: Any) -> bytes:
    """JSON text in the `json` format."""
    return _dump(to_clean(value))


def dumps_export(value: Any) -> bytes:
    """JSON text in the `export_json` format."""
    return _dump(to_export(value))


def _default(value: Any) -> Any:
    raise TypeError


def _dump(encoded: Any) -> bytes:
    try:
        return orjson.dumps(encoded, option=orjson.OPT_SORT_KEYS)
    except TypeError as error:
        raise DeveloperError("InvalidValue", f"Not a value: {error}") from None


# -- decoding --------------------------------------------------------------------------------------------------------


def _decode(encoded: Any, tags: Tags) -> Any:
    kind = kind_of(encoded)
    if kind is str or kind is float or kind is bool or encoded is None:
        return encoded
    if kind is int:
        return encoded if _FLOAT_INTEGER_MIN < encoded < FLOAT_INTEGER_MAX else normalize_number(encoded)
    if kind is list:
        return [_decode(element, tags) for element in encoded]
    if kind is not dict:
        raise DeveloperError("InvalidValue", f"{kind.__name__} is not JSON.")
    for key in encoded:
        if key[:1] == "$":
            return _decode_tagged(encoded, key, tags)
    return {key: _decode(value, tags) for key, value in encoded.items()}


def _decode_tagged(encoded: dict[str, Any], key: str, tags: Tags) -> Any:
    if len(encoded) == 1:
        decoder = tags.get(key)
        if decoder is not None:
            return decoder(encoded[key])
    shown = key[:64]
    raise DeveloperError(
        "InvalidValue", f"Field name {shown} starts with '$', which is reserved; a special's key must be the only one."
    )


def _decode_base64(text: Any, tag: str) -> bytes:
    if kind_of(text) is not str:
        raise DeveloperError("InvalidValue", f"{tag} must hold a base64 string.")
    try:
        data = a2b_base64(text, strict_mode=True)
    except (Base64Error, ValueError):
        raise DeveloperError("InvalidValue", f"{tag} does not hold valid base64.") from None
    if b64encode(data).decode() != text:
        raise DeveloperError("InvalidValue", f"{tag} does not hold base64 in its canonical form.")
    return data


def _decode_bytes(text: Any) -> bytes:
    return _decode_base64(text, "$bytes")


def _decode_integer(text: Any) -> Int64:
    data = _decode_base64(text, "$integer")
    if len(data) != 8:
        raise DeveloperError("InvalidValue", f"$integer must hold exactly 8 bytes, not {len(data)}.")
    return Int64(_INT64.unpack(data)[0])


def _decode_float(text: Any) -> float:
    data = _decode_base64(text, "$float")
    if len(data) != 8:
        raise DeveloperError("InvalidValue", f"$float must hold exactly 8 bytes, not {len(data)}.")
    number: float = _FLOAT64.unpack(data)[0]
    if number and isfinite(number):
        raise DeveloperError("InvalidValue", "$float must hold -0, NaN or an infinity; other numbers are JSON numbers.")
    return number


def _refuse(message: str) -> Callable[[Any], Any]:
    def refuse(_: Any) -> Any:
        raise DeveloperError("InvalidValue", message)

    return refuse


def _decode_commit_ts(inner: Any) -> CommitTs:
    if inner is not None:
        raise DeveloperError("InvalidValue", "$commitTs must hold null.")
    return COMMIT_TS


_TAGS: Final[Tags] = {
    "$bytes": _decode_bytes,
    "$integer": _decode_integer,
    "$float": _decode_float,
    "$set": _refuse("Sets are no longer supported as values; use an array."),
    "$map": _refuse("Maps are no longer supported as values; use an array of pairs or an object."),
    "$undefined": _refuse(_NO_UNDEFINED),
    "$commitTs": _refuse(
        "A commit timestamp is a value inside a mutation only, until that commits. Read the document after it."
    ),
}
_TAGS_IN_MUTATION: Final[Tags] = {**_TAGS, "$commitTs": _decode_commit_ts}


# -- encoding --------------------------------------------------------------------------------------------------------


def _encode_same(value: Any) -> Any:
    return value


def _encode_int(value: int) -> int | float:
    return value if _FLOAT_INTEGER_MIN < value < FLOAT_INTEGER_MAX else normalize_number(value)


def _encode_float(value: float) -> Any:
    if not isfinite(value) or (value == 0 and str(value)[0] == "-"):
        return {"$float": b64encode(_FLOAT64.pack(value)).decode()}
    if value.is_integer() and _FLOAT_INTEGER_MIN < value < FLOAT_INTEGER_MAX:
        return int(value)
    return value


def _encode_int64(value: Int64) -> dict[str, str]:
    assert INT64_MIN <= value.value <= INT64_MAX
    return {"$integer": b64encode(_INT64.pack(value.value)).decode()}


def _encode_commit_ts(_: CommitTs) -> dict[str, None]:
    return {"$commitTs": None}


def _encode_bytes(value: bytes) -> dict[str, str]:
    return {"$bytes": b64encode(value).decode()}


def _encode_list(value: list[Any]) -> list[Any]:
    return [encode(element) for element in value]


def _encode_dict(value: dict[str, Any]) -> dict[str, Any]:
    for key in value:
        if kind_of(key) is not str or key[:1] == "$":
            raise DeveloperError("InvalidValue", f"Field name {str(key)[:64]} starts with '$', which is reserved.")
    return {key: encode(field) for key, field in value.items()}


_ENCODERS: Final[dict[type, Callable[[Any], Any]]] = {
    type(None): _encode_same,
    bool: _encode_same,
    str: _encode_same,
    int: _encode_int,
    float: _encode_float,
    Int64: _encode_int64,
    CommitTs: _encode_commit_ts,
    bytes: _encode_bytes,
    list: _encode_list,
    dict: _encode_dict,
}
