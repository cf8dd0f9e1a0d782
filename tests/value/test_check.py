"""Sizes, and every limit of a value at its bound and one past it."""

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skerry.errors import DeveloperError
from skerry.limits import (
    DOCUMENT_BYTES_MAX,
    DOCUMENT_NESTING_MAX,
    FIELD_NAME_CHARS_MAX,
    FUNCTION_RESULT_BYTES_MAX,
    FUNCTION_RESULT_JSON_BYTES_MAX,
    IDENTIFIER_CHARS_MAX,
    VALUE_ARRAY_ELEMENTS_MAX,
    VALUE_BYTES_MAX,
    VALUE_NESTING_MAX,
    VALUE_OBJECT_FIELDS_MAX,
)
from skerry.value import (
    UNDEFINED,
    Int64,
    check_document,
    check_encoded_result,
    check_value,
    dumps,
    nesting_of,
    show_bytes,
    size_of,
)
from tests.value.strategies import same, values

SIZES = [
    (None, 1), (True, 1), (1, 9), (0.5, 9), (Int64(1), 9), ("", 2), ("ab", 4),
    ("é", 4), ("😀", 6), (b"", 2), (b"ab", 4),
    ([], 2), ([None, 1], 12), ({}, 2), ({"a": None}, 5), ({"ab": "c", "": []}, 2 + 3 + 3 + 1 + 2),
]  # fmt: skip


def nested(depth):
    value = None
    for level in range(depth):
        value = [value] if level % 2 else {"a": value}
    return value


def code_of(function, *args, **options):
    with pytest.raises(DeveloperError) as caught:
        function(*args, **options)
    return caught.value.code


@pytest.mark.parametrize(("value", "size"), SIZES)
def test_sizes(value, size):
    assert size_of(value) == size
    assert check_value(value) == size


@given(values)
@settings(deadline=None)
def test_check_measures_and_counts_as_the_separate_functions_do(value):
    assert check_value(value) == size_of(value)
    depth = nesting_of(value)
    assert check_value(value, nesting_max=depth) == size_of(value)
    if depth:
        assert code_of(check_value, value, nesting_max=depth - 1) == "TooNestedError"
    assert check_value(value, bytes_max=size_of(value)) == size_of(value)
    assert code_of(check_value, value, bytes_max=size_of(value) - 1) == "ValueTooLargeError"


@given(values)
@settings(deadline=None)
def test_result_text_gives_the_value(value):
    assert same(check_encoded_result(dumps(value)), value)


@given(values, st.integers(0, 40))
@settings(deadline=None)
def test_result_short_cuts_agree_with_the_walk(value, bytes_max):
    legal = size_of(value) <= bytes_max
    if legal:
        assert same(check_encoded_result(dumps(value), bytes_max=bytes_max), value)
    else:
        assert code_of(check_encoded_result, dumps(value), bytes_max=bytes_max) == "ValueTooLargeError"


BOUNDS = [
    ([None] * VALUE_ARRAY_ELEMENTS_MAX, [None] * (VALUE_ARRAY_ELEMENTS_MAX + 1), "ArrayTooLong"),
    (
        {f"f{i}": i for i in range(VALUE_OBJECT_FIELDS_MAX)},
        {f"f{i}": i for i in range(VALUE_OBJECT_FIELDS_MAX + 1)},
        "TooManyFieldsError",
    ),
    (nested(VALUE_NESTING_MAX), nested(VALUE_NESTING_MAX + 1), "TooNestedError"),
    ({"n" * FIELD_NAME_CHARS_MAX: 1}, {"n" * (FIELD_NAME_CHARS_MAX + 1): 1}, "InvalidFieldName"),
    ([{"n" * FIELD_NAME_CHARS_MAX: 1}], [{"n" * (FIELD_NAME_CHARS_MAX + 1): "x" * 600}], "InvalidFieldName"),
]


@pytest.mark.parametrize(("within", "past", "code"), BOUNDS)
def test_bounds(within, past, code):
    assert check_value(within) == size_of(within)
    assert same(check_encoded_result(orjson.dumps(within)), within)
    assert code_of(check_value, past) == code
    assert code_of(check_encoded_result, orjson.dumps(past)) == code


def test_innermost_special_at_the_nesting_bound():
    raw = b"[" * VALUE_NESTING_MAX + b'{"$integer":"AQAAAAAAAAA="}' + b"]" * VALUE_NESTING_MAX
    assert nesting_of(check_encoded_result(raw)) == VALUE_NESTING_MAX
    raw = b"[" * VALUE_NESTING_MAX + b"{}" + b"]" * VALUE_NESTING_MAX
    assert code_of(check_encoded_result, raw) == "TooNestedError"


def test_deep_values_do_not_exhaust_the_stack():
    deep = nested(100_000)
    with pytest.raises(DeveloperError, match="nested 100000 levels deep > maximum nesting 64"):
        check_value(deep)


def test_value_bytes():
    assert check_value("x" * (VALUE_BYTES_MAX - 2)) == VALUE_BYTES_MAX
    assert code_of(check_value, "x" * (VALUE_BYTES_MAX - 1)) == "ValueTooLargeError"


def test_document_bytes():
    room = DOCUMENT_BYTES_MAX - size_of({"a": ""})
    assert check_document({"a": "x" * room}) == DOCUMENT_BYTES_MAX
    with pytest.raises(DeveloperError, match=r"^Value is too large \(1\.00 MiB > maximum size 1 MiB\)$") as caught:
        check_document({"a": "x" * (room + 1)})
    assert caught.value.code == "ValueTooLargeError"


def test_document_nesting():
    within = {"a": nested(DOCUMENT_NESTING_MAX - 1)}
    assert check_document(within) == size_of(within)
    with pytest.raises(
        DeveloperError, match=r"^Document is too nested \(nested 17 levels deep > maximum nesting 16\)$"
    ) as caught:
        check_document({"a": nested(DOCUMENT_NESTING_MAX)})
    assert caught.value.code == "TooNestedError"


def test_document_names():
    assert check_document(
        {"_id": "x", "_creationTime": 1, "a_1": {"any name": 1, "": 2}, "A" * IDENTIFIER_CHARS_MAX: 1}
    )
    for name in ["", "1a", "a b", "_a", "_", "__", "é", "$a", "a-b", "A" * (IDENTIFIER_CHARS_MAX + 1)]:
        assert code_of(check_document, {name: 1}) == "InvalidFieldName", name
    for value in [None, [], "x", UNDEFINED]:
        assert code_of(check_document, value) == "InvalidValue"


@pytest.mark.parametrize("name", ["$a", "é", "a\n", "\x7f", "\0", "\ud800"])
def test_nested_names(name):
    assert code_of(check_value, {"a": {name: 1}}) == "InvalidFieldName"
    assert code_of(check_document, {"a": {name: 1}}) == "InvalidFieldName"


@pytest.mark.parametrize(
    "raw", [b'{"\\u007f":1}', b'{"\x7f":1}', '{"é":1}'.encode(), b'{"\\u0000":1}', b'[{"a\\n":1}]']
)
def test_result_names(raw):
    assert code_of(check_encoded_result, raw) == "InvalidFieldName"


def test_what_is_no_value():
    for value in [UNDEFINED, [UNDEFINED], (1,), object(), 2**53 + 1, -(2**53) - 1, ["\ud800"], {"a": "\ud800"}]:
        assert code_of(check_value, value) == "InvalidValue", value
    assert check_value([2**53, -(2**53)]) == 20
    assert code_of(check_document, {"a": "\ud800"}) == "InvalidValue"


def test_result_numbers_are_normalized():
    assert type(check_encoded_result(b"9007199254740993")) is float
    assert check_encoded_result(b"[0.30000000000000004]") == [0.30000000000000004]


def test_result_bytes_at_the_bound_and_one_past():
    within = b'"' + b"x" * (FUNCTION_RESULT_BYTES_MAX - 2) + b'"'
    assert size_of(check_encoded_result(within)) == FUNCTION_RESULT_BYTES_MAX
    assert code_of(check_encoded_result, b'"x' + within[1:]) == "ValueTooLargeError"
    padded = b" " * (FUNCTION_RESULT_JSON_BYTES_MAX - 1) + b"1"
    assert check_encoded_result(padded) == 1
    assert code_of(check_encoded_result, b" " + padded) == "ValueTooLargeError"


def test_show_bytes():
    assert [show_bytes(n) for n in (12, 1024, 1536, 1 << 20, (1 << 20) + 52429)] == [
        "12 B",
        "1 KiB",
        "1.50 KiB",
        "1 MiB",
        "1.05 MiB",
    ]


@given(st.one_of(st.binary(max_size=40), st.text('[]{}",:\\$u0024integer1e-', max_size=40).map(str.encode)))
@settings(deadline=None, max_examples=300)
def test_random_results_never_raise_anything_else(raw):
    try:
        value = check_encoded_result(raw)
    except DeveloperError:
        return
    check_value(value)
