"""The total order: the protocol's sequence, and keys that sort as the comparison does."""

import struct
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skerry.value import UNDEFINED, Int64, after_prefix, compare, index_key, key_of
from tests.value.strategies import ordered, same, scalars, strings

NAN = float("nan")
NEGATIVE_NAN = struct.unpack(">d", bytes.fromhex("fff8000000000000"))[0]
INF = float("inf")

SEQUENCE = [
    UNDEFINED, None, Int64(-(2**63)), Int64(-5), Int64(0), Int64(10), Int64(2**63 - 1),
    NEGATIVE_NAN, -INF, -1e300, -1, -5e-324, -0.0, 0, 5e-324, 1, 1.5, 2**53, 1e300, INF, NAN,
    False, True, "", "\0", "\0\0", "\x01", "a", "a\0", "a\0b", "a\x01", "b", "é", "\uffff", "😀",
    b"", b"\x00", b"\x00\x01", b"\x01", b"\xff", [], [None], [1], [1, 2], [2], [[]], [{}],
    {}, {"": 1}, {"a": 1}, {"a": 1, "b": 1}, {"a": 2}, {"a": []}, {"aa": 0}, {"b": 0},
]  # fmt: skip


def sign(left, right) -> int:
    return (left > right) - (left < right)


def test_sequence_pairwise():
    for (i, left), (j, right) in product(enumerate(SEQUENCE), repeat=2):
        assert compare(left, right) == sign(i, j), (left, right)
        assert sign(key_of(left), key_of(right)) == sign(i, j), (left, right)


def test_int_and_float_of_one_number_have_one_key():
    assert key_of(3) == key_of(3.0)
    assert key_of(0) == key_of(0.0) != key_of(-0.0)
    assert compare(3, 3.0) == 0
    assert compare(Int64(3), 3) == -1


def test_object_key_ignores_insertion_order():
    assert key_of({"a": 1, "b": 2}) == key_of({"b": 2, "a": 1})


@pytest.mark.parametrize("value", [(1,), object(), {1, 2}])
def test_foreign_types_are_loud(value):
    with pytest.raises(KeyError):
        key_of(value)


@given(ordered, ordered)
@settings(deadline=None, max_examples=400)
def test_key_order_is_value_order(left, right):
    expected = compare(left, right)
    assert sign(key_of(left), key_of(right)) == expected
    assert compare(right, left) == -expected
    assert (expected == 0) == same(left, right)


@given(st.text(st.sampled_from("\0a😀"), max_size=60), strings, strings, ordered)
@settings(deadline=None)
def test_long_common_prefixes(prefix, left, right, after):
    left_key, right_key = index_key([prefix + left, after]), index_key([prefix + right, after])
    assert sign(left_key, right_key) == compare(left, right)


@given(st.lists(scalars, max_size=3), st.lists(scalars, max_size=3))
@settings(deadline=None, max_examples=300)
def test_concatenated_keys_order_as_tuples(left, right):
    assert sign(index_key(left), index_key(right)) == compare(left, right)


@given(ordered, ordered, ordered)
@settings(deadline=None, max_examples=300)
def test_no_key_is_a_prefix_and_after_prefix_bounds(left, right, more):
    left_key, right_key = key_of(left), key_of(right)
    bound = after_prefix(left_key)
    assert left_key < left_key + key_of(more) < bound
    if compare(left, right) != 0:
        assert not right_key.startswith(left_key)
        assert (right_key + key_of(more) > bound) == (right_key > left_key)
