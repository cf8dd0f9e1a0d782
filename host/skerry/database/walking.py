"""Going over whole trees of a snapshot, a bounded piece at a time; works on guarded snapshots too."""

from collections.abc import Iterator

from skerry.limits import SCAN_CHUNK_KEYS_LONG, STORAGE_SHORT_KEY_BYTES_MAX
from skerry.storage import Item, StorageSnapshot, Tree, index_end, index_prefix


def chunks(
    snapshot: StorageSnapshot, tree: Tree, lower: bytes, upper: bytes | None, items_max: int
) -> Iterator[list[Item]]:
    """The items of `[lower, upper)`, up to `items_max` at a time; none is empty.

    Limits: where keys are too long for the engine to order, pieces of SCAN_CHUNK_KEYS_LONG, for each of them sorts a
    run anew.
    """
    while items := snapshot.scan_chunk(tree, lower, upper, False, items_max):
        yield items
        last = items[-1][0]
        if len(last) > STORAGE_SHORT_KEY_BYTES_MAX:
            items_max = SCAN_CHUNK_KEYS_LONG
        lower = last + b"\0"


def count_items(snapshot: StorageSnapshot, index_number: int, items_max: int) -> Iterator[int]:
    """The number of an index's entries, piece by piece."""
    for items in chunks(snapshot, Tree.INDEXES, index_prefix(index_number), index_end(index_number), items_max):
        yield len(items)


def ends(snapshot: StorageSnapshot, tree: Tree, lower: bytes, upper: bytes) -> tuple[bytes, bytes]:
    """The first and the last key of `[lower, upper)`; these two where there is none."""
    first = snapshot.scan_chunk(tree, lower, upper, False, 1)
    last = snapshot.scan_chunk(tree, lower, upper, True, 1)
    return (first[0][0], last[0][0]) if first and last else (lower, upper)


def percent_at(between: tuple[bytes, bytes], key: bytes) -> int:
    """How much of a table lies before a document's key, in per cent: an estimate by what ids begin with, the time.

    Shape: `between` are the `ends` of the table as they were at some moment; keys outside count as at the nearer one.
    """
    size = max(map(len, (*between, key)))
    first, last, here = (int.from_bytes(place.ljust(size, b"\0"), "big") for place in (*between, key))
    if here >= last:
        return 100 if here > first else 0
    return 0 if here <= first else 100 * (here - first) // (last - first)
