"""The key layout: order, bounds and runs, without an engine."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.limits import STORAGE_LMDB_KEY_BYTES_MAX, STORAGE_SHORT_KEY_BYTES_MAX
from skerry.storage import key_layout as layout
from tests.storage.contract import bounds, keys, sliced, values


@pytest.mark.parametrize(
    ("length", "is_long"), [(1, False), (STORAGE_SHORT_KEY_BYTES_MAX, False), (STORAGE_SHORT_KEY_BYTES_MAX + 1, True)]
)
def test_a_key_is_kept_as_it_is_up_to_the_bound(length: int, is_long: bool) -> None:
    key = b"k" * length
    physical = layout.physical_key(key)
    assert (physical != key) is is_long
    assert (len(physical) == STORAGE_LMDB_KEY_BYTES_MAX) is is_long
    assert layout.logical_item(physical, layout.physical_value(key, b"v")) == (key, b"v")
    assert layout.logical_value(key, layout.physical_value(key, b"v")) == b"v"


def test_a_long_key_does_not_answer_for_another() -> None:
    stored = layout.physical_value(b"k" * 600, b"v")
    assert layout.logical_value(b"k" * 599 + b"l", stored) is None


@given(st.dictionaries(keys, values, max_size=30), bounds, st.none() | bounds, st.booleans())
def test_a_scan_of_stored_pairs_is_a_scan_of_a_sorted_list(
    model: dict[bytes, bytes], lower: bytes, upper: bytes | None, reverse: bool
) -> None:
    stored = sorted((layout.physical_key(key), layout.physical_value(key, value)) for key, value in model.items())
    floor, end = layout.physical_lower(lower), layout.physical_upper(upper)
    if reverse:
        pairs = [pair for pair in reversed(stored) if end is None or pair[0] < end]
    else:
        pairs = [pair for pair in stored if pair[0] >= floor]
    assert list(layout.logical_items(pairs, lower, upper, reverse, None)) == sliced(model, lower, upper, reverse)


@given(st.binary(max_size=5), st.binary(max_size=5))
def test_the_successor_of_a_prefix_ends_exactly_its_keys(prefix: bytes, key: bytes) -> None:
    successor = layout.successor_of_prefix(prefix)
    below = successor is None or key < successor
    assert (key >= prefix and below) == key.startswith(prefix)
