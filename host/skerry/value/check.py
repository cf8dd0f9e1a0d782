"""The size of a value, and the one walk that says whether a value may exist.

`check_value` counts, measures and reads the names in one pass and gives the size back, because whoever checks also
charges. Nesting counts containers: a scalar is 0 deep, `[]` is 1, `[[]]` is 2. The walk stops at the bound, so
recursion is bounded whatever comes in; `size_of` trusts that its argument was checked or parsed.

`check_encoded_result` is the same judgement on JSON text, with short cuts: too few bytes for a large value; too few
commas for a long array and only characters that every name may have; else a look at the containers that passes over
the scalars.

Source: protocol reference 1.4, 1.5.
"""

from collections.abc import Callable
from typing import Any, Final

import orjson

from skerry.errors import DeveloperError
from skerry.limits import (
    DOCUMENT_BYTES_MAX,
    DOCUMENT_NESTING_MAX,
    FIELD_NAME_CHARS_MAX,
    FUNCTION_RESULT_BYTES_MAX,
    FUNCTION_RESULT_JSON_BYTES_MAX,
    IDENTIFIER_CHARS_MAX,
    KIB,
    MIB,
    VALUE_ARRAY_ELEMENTS_MAX,
    VALUE_BYTES_MAX,
    VALUE_JSON_NESTING_MAX,
    VALUE_NESTING_MAX,
    VALUE_OBJECT_FIELDS_MAX,
)
from skerry.value.codec import decode, loads
from skerry.value.kinds import FLOAT_INTEGER_MAX, CommitTs, Int64, Undefined, kind_of
from skerry.value.names import SYSTEM_FIELDS, check_document_field, check_field_name, is_field_name
from skerry.value.raw_json import is_plain, parse_json

# One number takes 9 bytes by the size function and may take 2 in JSON text ("1,"), or 1 where it is the whole text.
_SIZE_PER_JSON_BYTE_MAX: Final = 9
# Half of the longest name: a longer run without a quote holds one whole block of this size, wherever the run starts.
_NAME_BLOCK_BYTES: Final = FIELD_NAME_CHARS_MAX // 2
# Longer texts hold more commas than the reading allows anyway; do not count them in vain.
_READ_BYTES_MAX: Final = 64 * KIB
_CONTAINERS: Final = frozenset({dict, list})


class _TooDeep(Exception):
    """Leaves the walk; the caller knows the bound and words the error."""


def size_of(value: Any) -> int:
    """The size of a decoded value in bytes, as every limit and every usage counter counts it.

    Source: protocol reference 1.5.
    """
    return _SIZES[kind_of(value)](value)


def check_value(value: Any, *, nesting_max: int = VALUE_NESTING_MAX, bytes_max: int = VALUE_BYTES_MAX) -> int:
    """The size of a decoded value that keeps all limits.

    Raises: DeveloperError `ArrayTooLong`, `TooManyFieldsError`, `TooNestedError`, `ValueTooLargeError`,
    `InvalidFieldName`, `InvalidValue`.
    """
    try:
        size = _walk(value, nesting_max)
    except _TooDeep:
        raise _too_nested("Value", value, nesting_max) from None
    except UnicodeEncodeError:
        raise DeveloperError("InvalidValue", "A string holds a lone surrogate, which is not valid Unicode.") from None
    if size > bytes_max:
        raise _too_large(size, bytes_max)
    return size


def check_document(value: Any) -> int:
    """The size of an object that may be stored: as `check_value`, with a document's names, nesting and size."""
    if kind_of(value) is not dict:
        raise DeveloperError("InvalidValue", "A document must be an object.")
    document: dict[str, Any] = value
    for name in document:
        if (
            name.isidentifier()
            and name.isascii()
            and len(name) <= IDENTIFIER_CHARS_MAX
            and (name[0] != "_" or name in SYSTEM_FIELDS)
        ):
            continue
        check_document_field(name)
    try:
        size = _walk_dict(document, DOCUMENT_NESTING_MAX)
    except _TooDeep:
        raise _too_nested("Document", document, DOCUMENT_NESTING_MAX) from None
    except UnicodeEncodeError:
        raise DeveloperError("InvalidValue", "A string holds a lone surrogate, which is not valid Unicode.") from None
    if size > DOCUMENT_BYTES_MAX:
        raise _too_large(size, DOCUMENT_BYTES_MAX)
    return size


def check_encoded_result(raw: bytes, *, bytes_max: int = FUNCTION_RESULT_BYTES_MAX, commit_ts: bool = False) -> Any:
    """The decoded value of a function's result, which came from a guest as encoded JSON text. `commit_ts` as for
    `decode`.

    Raises: as `loads` and `check_value`. Where `is_plain(raw)`, the text itself may go on to a client.
    """
    if not is_plain(raw):
        value = loads(raw, bytes_max=FUNCTION_RESULT_JSON_BYTES_MAX, commit_ts=commit_ts)
        check_value(value, bytes_max=bytes_max)
        return value
    value = parse_json(raw, depth_max=VALUE_NESTING_MAX, bytes_max=FUNCTION_RESULT_JSON_BYTES_MAX)
    value = _without_large_integers(value)
    if len(raw) * _SIZE_PER_JSON_BYTE_MAX <= bytes_max and (_reads_legal(raw) or _looks_legal(value)):
        return value
    check_value(value, bytes_max=bytes_max)
    return value


def nesting_of(value: Any) -> int:
    """How many containers deep a value goes; a scalar is 0."""
    level = [value]
    depth = 0
    while True:
        containers = [item for item in level if kind_of(item) is dict or kind_of(item) is list]
        if not containers:
            return depth
        depth += 1
        level = [inner for item in containers for inner in (item.values() if kind_of(item) is dict else item)]


def show_bytes(count: int) -> str:
    """A number of bytes for a reader: `1 MiB`, `1.05 MiB`, `12 B`."""
    unit, name = (MIB, "MiB") if count >= MIB else (KIB, "KiB") if count >= KIB else (1, "B")
    return f"{count // unit} {name}" if count % unit == 0 else f"{count / unit:.2f} {name}"


def _too_nested(what: str, value: Any, nesting_max: int) -> DeveloperError:
    depth = nesting_of(value)
    return DeveloperError(
        "TooNestedError", f"{what} is too nested (nested {depth} levels deep > maximum nesting {nesting_max})"
    )


def _too_large(size: int, bytes_max: int) -> DeveloperError:
    return DeveloperError(
        "ValueTooLargeError", f"Value is too large ({show_bytes(size)} > maximum size {show_bytes(bytes_max)})"
    )


def _without_large_integers(value: Any) -> Any:
    try:  # writing the value costs less than looking for digits in its text
        orjson.dumps(value, option=orjson.OPT_STRICT_INTEGER)
    except TypeError:
        return decode(value)
    return value


def _reads_legal(raw: bytes) -> bool:
    """Whether plain text alone shows legal names and counts; False only means: look at the objects."""
    if len(raw) > _READ_BYTES_MAX or b"\\" in raw or b"\x7f" in raw or not raw.isascii():
        return False
    # n + 1 members need n commas
    if raw.count(b",") >= VALUE_OBJECT_FIELDS_MAX:
        return False
    find = raw.find
    for start in range(0, len(raw) - _NAME_BLOCK_BYTES + 1, _NAME_BLOCK_BYTES):
        if find(b'"', start, start + _NAME_BLOCK_BYTES) < 0:
            return False
    return True


def _looks_legal(value: Any) -> bool:
    """Whether parsed plain text has legal names and counts; a name is checked once and a scalar not at all."""
    names: set[str] = set()
    stack: list[Any] = [[value]]
    while stack:
        item = stack.pop()
        if kind_of(item) is dict:
            if len(item) > VALUE_OBJECT_FIELDS_MAX:
                return False
            names.update(item)
            item = item.values()
        elif len(item) > VALUE_ARRAY_ELEMENTS_MAX:
            return False
        if not _CONTAINERS.isdisjoint(map(kind_of, item)):
            stack += [inner for inner in item if kind_of(inner) in _CONTAINERS]
    return all(map(is_field_name, names))


# -- the walk --------------------------------------------------------------------------------------------------------


def _walk(value: Any, room: int) -> int:
    """The size of a checked value; `room` is how many containers deep it may go."""
    kind = kind_of(value)
    if kind is dict:
        return _walk_dict(value, room)
    if kind is list:
        return _walk_list(value, room)
    if kind is str:
        return 2 + (len(value) if value.isascii() else len(value.encode()))
    if kind is int and not -FLOAT_INTEGER_MAX <= value <= FLOAT_INTEGER_MAX:
        raise DeveloperError("InvalidValue", "An integer beyond 2^53 is not a float64; it must be decoded first.")
    sizer = _SIZES.get(kind)
    if sizer is None:
        what = "undefined" if kind is Undefined else kind.__name__
        raise DeveloperError("InvalidValue", f"{what} is not a valid Convex value.")
    return sizer(value)


def _walk_dict(value: dict[str, Any], room: int) -> int:
    if not room:
        raise _TooDeep
    count = len(value)
    if count > VALUE_OBJECT_FIELDS_MAX:
        raise DeveloperError(
            "TooManyFieldsError", f"Object has too many fields ({count} > maximum number {VALUE_OBJECT_FIELDS_MAX})"
        )
    room -= 1
    size = 2 + count
    for name, field in value.items():
        length = len(name)
        if not (name.isascii() and name.isprintable() and length <= FIELD_NAME_CHARS_MAX) or name[:1] == "$":
            check_field_name(name)
        kind = kind_of(field)
        if kind is str:
            size += length + 2 + (len(field) if field.isascii() else len(field.encode()))
        elif kind is float:
            size += length + 9
        else:
            size += length + _walk(field, room)
    return size


def _walk_list(value: list[Any], room: int) -> int:
    if not room:
        raise _TooDeep
    count = len(value)
    if count > VALUE_ARRAY_ELEMENTS_MAX:
        raise DeveloperError(
            "ArrayTooLong", f"Array length is too long ({count} > maximum length {VALUE_ARRAY_ELEMENTS_MAX})"
        )
    room -= 1
    size = 2
    for element in value:
        size += 9 if kind_of(element) is float else _walk(element, room)
    return size


# -- sizes -----------------------------------------------------------------------------------------------------------


def _size_one(_: Any) -> int:
    return 1


def _size_nine(_: Any) -> int:
    return 9


def _size_str(value: str) -> int:
    return 2 + (len(value) if value.isascii() else len(value.encode()))


def _size_bytes(value: bytes) -> int:
    return 2 + len(value)


def _size_list(value: list[Any]) -> int:
    sizes = _SIZES
    return 2 + sum([sizes[kind_of(element)](element) for element in value])


def _size_dict(value: dict[str, Any]) -> int:
    sizes = _SIZES
    size = 2 + len(value)
    for name, field in value.items():
        size += (len(name) if name.isascii() else len(name.encode())) + sizes[kind_of(field)](field)
    return size


_SIZES: Final[dict[type, Callable[[Any], int]]] = {
    type(None): _size_one,
    bool: _size_one,
    int: _size_nine,
    float: _size_nine,
    Int64: _size_nine,
    CommitTs: _size_nine,
    str: _size_str,
    bytes: _size_bytes,
    list: _size_list,
    dict: _size_dict,
}

assert VALUE_JSON_NESTING_MAX == VALUE_NESTING_MAX + 1
