"""How keys of any length live in an engine whose own keys end at 511 bytes.

A *logical* key is what callers see, a *physical* key is what the engine stores. Up to `STORAGE_SHORT_KEY_BYTES_MAX`
bytes both are the same. A longer logical key becomes

    physical key   = first STORAGE_SHORT_KEY_BYTES_MAX bytes + digest of the whole key
    physical value = length of the rest (4 bytes, big-endian) + the rest of the key + value

so a physical key is long exactly when it has `STORAGE_LMDB_KEY_BYTES_MAX` bytes, and a point lookup or a delete needs
no search. The digest (BLAKE2b) stands in for uniqueness only; its order means nothing.

Order. A short key compares with every physical key as it does with the logical one: it is at most as long as the
prefix that long keys keep. Long keys of different prefixes compare by prefix. Only long keys of one prefix, a *run*,
which lie side by side, have to be gathered and sorted by their rest. A bound no longer than the prefix never cuts
through a run.

Pure: no engine, no I/O. Deliberately absent: any knowledge of what the bytes mean.
"""

from collections.abc import Iterable, Iterator
from hashlib import blake2b

from skerry.limits import (
    STORAGE_KEY_BYTES_MAX,
    STORAGE_KEY_DIGEST_BYTES,
    STORAGE_LMDB_KEY_BYTES_MAX,
    STORAGE_SHORT_KEY_BYTES_MAX,
)
from skerry.storage.interface import Charge, Item

PREFIX_BYTES = STORAGE_SHORT_KEY_BYTES_MAX
LONG_BYTES = STORAGE_LMDB_KEY_BYTES_MAX
_LENGTH_BYTES = 4

assert STORAGE_KEY_BYTES_MAX < 1 << (8 * _LENGTH_BYTES)


def physical_key(key: bytes) -> bytes:
    """The engine's key for a logical key."""
    if len(key) <= PREFIX_BYTES:
        return key
    return key[:PREFIX_BYTES] + blake2b(key, digest_size=STORAGE_KEY_DIGEST_BYTES).digest()


def physical_value(key: bytes, value: bytes) -> bytes:
    """The engine's value for a logical item."""
    if len(key) <= PREFIX_BYTES:
        return value
    return b"".join(((len(key) - PREFIX_BYTES).to_bytes(_LENGTH_BYTES, "big"), key[PREFIX_BYTES:], value))


def logical_item(physical: bytes, stored: bytes) -> Item:
    """The logical key and value of one stored pair."""
    if len(physical) < LONG_BYTES:
        return physical, stored
    end = _LENGTH_BYTES + int.from_bytes(stored[:_LENGTH_BYTES], "big")
    return physical[:PREFIX_BYTES] + stored[_LENGTH_BYTES:end], stored[end:]


def logical_value(key: bytes, stored: bytes) -> bytes | None:
    """The value stored for a logical key, or None when the stored pair belongs to another key of the same digest."""
    if len(key) <= PREFIX_BYTES:
        return stored
    end = _LENGTH_BYTES + len(key) - PREFIX_BYTES
    if stored[_LENGTH_BYTES:end] != key[PREFIX_BYTES:]:
        return None
    return stored[end:]


def physical_lower(lower: bytes) -> bytes:
    """The first physical key that a scan from a logical lower bound has to look at."""
    return lower[:PREFIX_BYTES]


def physical_upper(upper: bytes | None) -> bytes | None:
    """The physical key that ends, exclusively, a scan up to a logical upper bound; None for no end."""
    if upper is None or len(upper) <= PREFIX_BYTES:
        return upper
    return successor_of_prefix(upper[:PREFIX_BYTES])


def successor_of_prefix(prefix: bytes) -> bytes | None:
    """The smallest key above every key that starts with the prefix, or None when there is none."""
    stripped = prefix.rstrip(b"\xff")
    if not stripped:
        return None
    return stripped[:-1] + bytes((stripped[-1] + 1,))


def logical_items(
    pairs: Iterable[Item], lower: bytes, upper: bytes | None, reverse: bool, charge: Charge | None
) -> Iterator[Item]:
    """The logical items of `[lower, upper)` from stored pairs that begin at the scan's first key and may run past its
    end.

    Only a run is held in memory; each of its pairs is charged before it is kept.
    """
    floor = physical_lower(lower)
    end = physical_upper(upper)
    run: list[Item] = []
    run_prefix = b""
    for pair in pairs:
        physical = pair[0]
        is_long = len(physical) == LONG_BYTES
        if run and not (is_long and physical.startswith(run_prefix)):
            yield from sort_run(run, lower, upper, reverse)
            run = []
        if (physical < floor) if reverse else (end is not None and physical >= end):
            break
        if is_long:
            run_prefix = physical[:PREFIX_BYTES]
            if charge is not None:
                charge(LONG_BYTES + len(pair[1]))
            run.append(pair)
        elif physical >= lower:
            yield pair
    if run:
        yield from sort_run(run, lower, upper, reverse)


def sort_run(run: list[Item], lower: bytes, upper: bytes | None, reverse: bool) -> list[Item]:
    """The logical items of one run of stored pairs, in key order, cut to `[lower, upper)`."""
    items = [logical_item(physical, stored) for physical, stored in run]
    if upper is None:
        items = [item for item in items if item[0] >= lower]
    else:
        items = [item for item in items if lower <= item[0] < upper]
    items.sort(key=_key_of, reverse=reverse)
    return items


def _key_of(item: Item) -> bytes:
    return item[0]
