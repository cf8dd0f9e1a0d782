"""What the writer thread does to a group before the engine sees it: merging, sorting, slicing, measuring.

Sorted keys make an engine with pages touch each of them once. Pure.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from skerry.errors import SystemFault
from skerry.limits import STORAGE_KEY_BYTES_MAX, STORAGE_WRITES_PER_SLICE
from skerry.storage.interface import Item, Tree, Write
from skerry.storage.key_layout import PREFIX_BYTES, physical_key, physical_value


def merge(batches: Iterable[Sequence[Write]]) -> list[tuple[list[Item], list[bytes]]]:
    """Per tree, the stored pairs to put and the stored keys to delete, each once and sorted."""
    trees: list[dict[bytes, bytes | None]] = [{} for _ in Tree]
    for writes in batches:
        for tree, key, value in writes:
            trees[tree][key] = value
    merged: list[tuple[list[Item], list[bytes]]] = []
    for changes in trees:
        puts: list[Item] = []
        deletes: list[bytes] = []
        for key, value in changes.items():
            if value is None:
                deletes.append(physical_key(key))
            elif len(key) <= PREFIX_BYTES:
                puts.append((key, value))
            else:
                puts.append((physical_key(key), physical_value(key, value)))
        puts.sort()
        deletes.sort()
        merged.append((puts, deletes))
    return merged


def slices(merged: list[tuple[list[Item], list[bytes]]]) -> Iterator[tuple[int, list[Any], bool]]:
    """The writes of a group in pieces: the tree, pairs or keys, and whether they are to be put or deleted."""
    for tree, (puts, deletes) in enumerate(merged):
        for start in range(0, len(puts), STORAGE_WRITES_PER_SLICE):
            yield tree, puts[start : start + STORAGE_WRITES_PER_SLICE], True
        for start in range(0, len(deletes), STORAGE_WRITES_PER_SLICE):
            yield tree, deletes[start : start + STORAGE_WRITES_PER_SLICE], False


def checked_size_of(writes: Sequence[Write]) -> int:
    """The bytes of a batch's keys and values.

    Raises: SystemFault StorageKeyInvalid for a key that no tree takes.
    """
    n_bytes = 0
    for _, key, value in writes:
        n_key = len(key)
        if not 0 < n_key <= STORAGE_KEY_BYTES_MAX:
            raise SystemFault(
                "StorageKeyInvalid", f"A storage key has {n_key} bytes; 1 to {STORAGE_KEY_BYTES_MAX} are taken."
            )
        n_bytes += n_key if value is None else n_key + len(value)
    return n_bytes
