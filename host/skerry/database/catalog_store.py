"""The catalog in the META tree: one entry for each table, one for the schema (commit timestamp and JSON), one for
the next index number, and one for each index number whose entries are not, or no longer, in use.

The next free numbers follow from the largest ones in use, except that dropped indexes must not give theirs back;
the schema change that drops one therefore writes the number that follows.
"""

from typing import Any, Final

import orjson

from skerry.database.catalog import IMPORTED_NUMBER_FIRST, Catalog, empty_catalog
from skerry.database.index_kinds import load_table
from skerry.database.schema_rules import validators_of
from skerry.database.walking import chunks
from skerry.errors import DeveloperError, SystemFault
from skerry.limits import TABLES_MAX
from skerry.storage import StorageSnapshot, Tree

TABLE_PREFIX: Final = b"table/"
SCHEMA_KEY: Final = b"schema"
NEXT_INDEX_KEY: Final = b"next_index"
UNFINISHED_PREFIX: Final = b"unfinished/"
IMPORTED_PREFIX: Final = b"imported/"
_CHUNK: Final = 1_000


def load_catalog(snapshot: StorageSnapshot) -> Catalog:
    """The catalog of a snapshot. Raises: SystemFault `DataFolderFormat` where it is damaged."""
    try:
        return _read(snapshot)
    except (ValueError, KeyError, TypeError, AttributeError, DeveloperError) as error:
        raise SystemFault(
            "DataFolderFormat",
            "The deployment's catalog of tables and indexes is damaged: put back a copy of its folder.",
        ) from error


def imported_garbage(snapshot: StorageSnapshot) -> dict[int, list[int]]:
    """The spaces that hold what imports left, or are filling now, each with its index numbers."""
    items = snapshot.scan_chunk(Tree.META, IMPORTED_PREFIX, IMPORTED_PREFIX + b"\xff" * 5, False, TABLES_MAX)
    return {int.from_bytes(key[len(IMPORTED_PREFIX) :], "big"): orjson.loads(raw)["indexes"] for key, raw in items}


def unfinished_indexes(snapshot: StorageSnapshot) -> list[int]:
    """The index numbers that a crash left with entries of no use."""
    end = UNFINISHED_PREFIX + b"\xff" * 5
    items = [item for piece in chunks(snapshot, Tree.META, UNFINISHED_PREFIX, end, _CHUNK) for item in piece]
    return [int.from_bytes(key[len(UNFINISHED_PREFIX) :], "big") for key, _ in items]


def _read(snapshot: StorageSnapshot) -> Catalog:
    raw = snapshot.get(Tree.META, SCHEMA_KEY)
    schema: dict[str, Any] | None = None if raw is None else orjson.loads(raw[8:])
    validators = validators_of(schema)
    catalog = empty_catalog()
    tables = dict(catalog.tables)
    next_table, next_index = catalog.next_table, catalog.next_index
    lower = TABLE_PREFIX
    while True:
        items = snapshot.scan_chunk(Tree.META, lower, TABLE_PREFIX + b"\xff", False, _CHUNK)
        for _, value in items:
            table = load_table(value, validators)
            tables[table.name] = table
            next_table = max(next_table, table.number + 1)
            numbers = [table.by_id.number, *(index.number for index in table.stored)]
            next_index = max(next_index, 1 + max([n for n in numbers if n < IMPORTED_NUMBER_FIRST], default=0))
        if len(items) < _CHUNK:
            break
        lower = items[-1][0] + b"\0"
    saved = snapshot.get(Tree.META, NEXT_INDEX_KEY)
    if saved is not None:
        next_index = max(next_index, int.from_bytes(saved, "big"))
    schema_ts = 0 if raw is None else int.from_bytes(raw[:8], "big")
    return Catalog(tables, next_table, next_index, schema, schema_ts)
