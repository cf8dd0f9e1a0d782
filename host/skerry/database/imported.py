"""What imports leave behind: which contents are garbage, and how they are cleared away in the background.

A mark in META says that a space and some index numbers are of no use: because an import that fills them is not through,
or because their table has other contents now. What is being filled, or read by an export, is kept until it is done.

Concurrency: the loop thread.
"""

from typing import Final

import orjson

from skerry.database.catalog import Table
from skerry.database.catalog_store import IMPORTED_PREFIX, imported_garbage
from skerry.database.database import Database
from skerry.database.search_counts import counts_key
from skerry.database.steps import Steps
from skerry.limits import BULK_STEP_ITEMS, DOCUMENT_BYTES_MAX
from skerry.storage import StorageSnapshot, Tree, Write

_NUMBER_BYTES: Final = 4
_SPACE_TREES: Final = (Tree.DOCUMENTS, Tree.DOCUMENT_HISTORY)
_INDEX_TREES: Final = (Tree.INDEXES, Tree.INDEX_HISTORY)


def clear_imported(database: Database) -> Steps:
    """Delete what imports have left: contents that were never switched in, and those that were replaced.

    Shape: steps, as of a schema change; what is being filled or still read by an export stays for the next time.
    """
    snapshot = database.engine.snapshot()
    try:
        marks = imported_garbage(snapshot)
    finally:
        snapshot.close()
    for space, numbers in marks.items():
        if space in database.kept_spaces:
            continue
        for tree in _SPACE_TREES:
            yield from _clear(database, tree, space)
        for number in numbers:
            for tree in _INDEX_TREES:
                yield from _clear(database, tree, number)
        gone = [mark_key(space), *[counts_key(number) for number in numbers]]
        done = database.engine.commit([(Tree.META, key, None) for key in gone])
        yield done
        done.result()


def keep_space(database: Database, space: int) -> None:
    """Keeps the contents of a space from being cleared away until `leave_space` is called as often."""
    database.kept_spaces[space] = database.kept_spaces.get(space, 0) + 1


def leave_space(database: Database, space: int) -> None:
    """Ends what `keep_space` began."""
    kept = database.kept_spaces
    kept[space] -= 1
    if not kept[space]:
        del kept[space]


def has_garbage(snapshot: StorageSnapshot) -> bool:
    """Whether `clear_imported` may have something to do."""
    return bool(snapshot.scan_chunk(Tree.META, IMPORTED_PREFIX, IMPORTED_PREFIX + b"\xff" * 5, False, 1))


def _clear(database: Database, tree: Tree, number: int) -> Steps:
    lower, end = number.to_bytes(_NUMBER_BYTES, "big"), (number + 1).to_bytes(_NUMBER_BYTES, "big")
    while True:
        snapshot = database.engine.snapshot()
        try:
            items: list[bytes] = []
            n_bytes = 0
            for key, value in snapshot.scan(tree, lower, end, False):
                items.append(key)
                n_bytes += len(key) + len(value)
                if len(items) >= BULK_STEP_ITEMS or n_bytes >= DOCUMENT_BYTES_MAX:
                    break
        finally:
            snapshot.close()
        if not items:
            return
        cleared = database.engine.commit([(tree, key, None) for key in items])
        yield cleared
        cleared.result()
        lower = items[-1] + b"\0"
        yield None


def mark_key(space: int) -> bytes:
    """The META key of a space that is garbage unless it is named by the catalog."""
    return IMPORTED_PREFIX + space.to_bytes(_NUMBER_BYTES, "big")


def mark(table: Table) -> Write:
    """What says that a table's contents are garbage."""
    numbers = [table.by_id.number, *[index.number for index in table.stored]]
    return (Tree.META, mark_key(table.space), orjson.dumps({"indexes": numbers}))
