"""Depth and size of JSON text before parsing."""

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skerry.errors import DeveloperError
from skerry.limits import (
    VALUE_JSON_BYTES_MAX,
    VALUE_JSON_CONTAINERS_MAX,
    VALUE_JSON_NESTING_MAX,
    VALUE_JSON_VALUES_MAX,
)
from skerry.value import depth_is_within, is_plain, loads, nesting_of, parse_json, values_are_within

CASES = [
    (b"1", 0),
    (b"[]", 1),
    (b"[[]]", 2),
    (b"[{}]", 2),
    (b'{"a":[{}],"b":[[]]}', 3),
    (b'"[[[["', 0),
    (b'["]","]",[[["]"]]]]', 4),
    (b'["\\"[[[","\\\\",["\\\\\\"]"]]', 2),
    (b'[""]', 1),
    (b'["","[",""]', 1),
]


@pytest.mark.parametrize(("raw", "depth"), CASES)
def test_depth_is_exact_for_json(raw, depth):
    assert depth_is_within(raw, depth)
    assert depth == 0 or not depth_is_within(raw, depth - 1)


def test_closing_brackets_in_strings_do_not_hide_depth():
    deep = b'["]",' * 80 + b'"["' + b',"["]' * 80
    assert nesting_of(orjson.loads(deep)) == 80
    assert not depth_is_within(deep, 79)
    assert depth_is_within(deep, 80)


def test_depth_at_the_bound_and_one_past():
    bound = VALUE_JSON_NESTING_MAX
    assert nesting_of(loads(b"[" * bound + b"]" * bound)) == bound
    with pytest.raises(DeveloperError) as caught:
        loads(b"[" * (bound + 1) + b"]" * (bound + 1))
    assert caught.value.code == "TooNestedError"
    with pytest.raises(DeveloperError):
        loads(b"[" * 1_000_000)


def test_size_at_the_bound_and_one_past():
    assert parse_json(b'"aa"', depth_max=1, bytes_max=4) == "aa"
    with pytest.raises(DeveloperError) as caught:
        parse_json(b'"aaa"', depth_max=1, bytes_max=4)
    assert caught.value.code == "ValueTooLargeError"
    assert loads(b" " * (VALUE_JSON_BYTES_MAX - 1) + b"1") == 1
    with pytest.raises(DeveloperError):
        loads(b" " * VALUE_JSON_BYTES_MAX + b"1")


@pytest.mark.parametrize(
    ("raw", "plain"),
    [(b'{"a":1}', True), (b'"\\n"', True), (b'{"$a":1}', False), (b'"$"', False), (b'{"\\u0024a":1}', False)],
)
def test_is_plain(raw, plain):
    assert is_plain(raw) is plain


json_objects = st.recursive(
    st.one_of(st.none(), st.text('[]{}"\\a', max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text('[]{}"\\', max_size=3), inner, max_size=3)
    ),
    max_leaves=20,
)


@given(json_objects)
@settings(deadline=None)
def test_depth_agrees_with_the_parsed_object(value):
    raw = orjson.dumps(value)
    depth = nesting_of(value)
    assert depth_is_within(raw, depth)
    assert depth == 0 or not depth_is_within(raw, depth - 1)


VALUES = [
    (b"[1,[2,3],{}]", 7, 3),
    (b'{"a":[],"b":{"c":"[[[,,,{{{"}}', 5, 3),
    (b'["\\"[,\\\\",["\\\\\\"]"],1]', 5, 2),
    (b'["","",""]', 4, 1),
    (b'{"[":1,"{":2,",":3}', 4, 1),
]


@pytest.mark.parametrize(("raw", "values", "containers"), VALUES)
def test_values_are_counted_outside_strings(raw, values, containers):
    padded = raw + b" " * (2 * containers + 2)  # what is shorter than its bound is not looked at
    assert values_are_within(padded, values, containers)
    assert not values_are_within(padded, values - 1, containers)
    assert not values_are_within(padded, values, containers - 1)


@pytest.mark.parametrize(
    ("unit", "bound"),
    [(b"1", VALUE_JSON_VALUES_MAX), (b"[]", VALUE_JSON_CONTAINERS_MAX), (b"{}", VALUE_JSON_CONTAINERS_MAX)],
)
def test_values_at_the_bound_and_one_past(unit, bound):
    def text(count: int) -> bytes:
        return b"[" + b",".join([unit] * (count - 1)) + b"]"

    assert len(parse_json(text(bound), depth_max=2, bytes_max=VALUE_JSON_BYTES_MAX)) == bound - 1
    with pytest.raises(DeveloperError) as caught:
        parse_json(text(bound + 1), depth_max=2, bytes_max=VALUE_JSON_BYTES_MAX)
    assert (caught.value.code, "500000 arrays and objects" in caught.value.message) == ("ValueTooLargeError", True)
