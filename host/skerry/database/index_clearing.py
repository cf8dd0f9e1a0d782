"""Deleting the entries of indexes that are nobody's any more, in bounded batches.

Which those are is written down in the commit that drops them, so a crash loses nothing. Nobody reads the entries of a
number that no catalog has, and numbers are never used again, so this can go on beside everything else; a transaction
that still has the older catalog reads its own snapshot, and conflicts when it commits.

Concurrency: the loop thread.
"""

from skerry.database.catalog_store import unfinished_indexes, unfinished_write
from skerry.database.search_counts import counts_key
from skerry.database.steps import Batches, Steps, Turn
from skerry.limits import SCHEMA_CHANGE_BATCH_BYTES, SCHEMA_CHANGE_BATCH_ITEMS, SCHEMA_STEP_BYTES, SCHEMA_STEP_ITEMS
from skerry.storage import Item, StorageEngine, Tree, Write, index_end, index_prefix


def clearing_steps(engine: StorageEngine) -> Steps:
    """Delete what every marked number has, and then the marks. Raises: SystemFault of storage."""
    for number in marked(engine):
        batches = Batches(engine.commit)
        for tree in (Tree.INDEXES, Tree.INDEX_HISTORY):
            yield from _clear_tree(engine, batches, tree, number)
        yield from batches.add([unfinished_write(number, is_unfinished=False), (Tree.META, counts_key(number), None)])
        yield from batches.drain()


def marked(engine: StorageEngine) -> list[int]:
    """The index numbers whose entries are of no use, as storage has them."""
    snapshot = engine.snapshot()
    try:
        return unfinished_indexes(snapshot)
    finally:
        snapshot.close()


def _clear_tree(engine: StorageEngine, batches: Batches, tree: Tree, number: int) -> Steps:
    """Delete an index's entries in one tree, batch by batch."""
    lower, end = index_prefix(number), index_end(number)
    writes: list[Write] = []
    n_bytes = 0
    turn = Turn()
    while True:
        items, size = _piece(engine, tree, lower, end)
        writes += [(tree, key, None) for key, _ in items]
        n_bytes += size
        is_batch = len(writes) >= SCHEMA_CHANGE_BATCH_ITEMS or n_bytes >= SCHEMA_CHANGE_BATCH_BYTES
        if writes and (not items or is_batch):
            yield from batches.add(writes)
            writes, n_bytes = [], 0
        if not items:
            return
        lower = items[-1][0] + b"\0"
        if turn.is_over():
            yield None
            turn.begin()


def _piece(engine: StorageEngine, tree: Tree, lower: bytes, upper: bytes | None) -> tuple[list[Item], int]:
    """The first items from a key on, as many as one step takes, and their bytes; the last may lie on top."""
    items: list[Item] = []
    n_bytes = 0
    snapshot = engine.snapshot()
    try:
        for item in snapshot.scan(tree, lower, upper, False):
            items.append(item)
            n_bytes += len(item[0]) + len(item[1])
            if len(items) >= SCHEMA_STEP_ITEMS or n_bytes >= SCHEMA_STEP_BYTES:
                break
    finally:
        snapshot.close()
    return items, n_bytes
