"""The catalog in the META tree: one entry for each table, one for the schema (timestamp of the last change of the
catalog, and JSON), one for the next index number, a *build record* for each index that does not have all its entries
yet, and a mark for each index number whose entries are no longer in use.

A build record says behind which document to go on, and how many were done; it is written in one batch with the entries
of those. An index without one is whole.

The next free numbers follow from the largest ones in use, except that dropped indexes must not give theirs back;
the schema change that drops one therefore writes the number that follows.
"""

from typing import Any, Final, NamedTuple

import orjson

from skerry.database.catalog import IMPORTED_NUMBER_FIRST, Catalog, empty_catalog
from skerry.database.index_kinds import load_table
from skerry.database.schema_rules import validators_of
from skerry.database.walking import chunks
from skerry.errors import DeveloperError, SystemFault
from skerry.limits import TABLES_MAX
from skerry.storage import StorageSnapshot, Tree, Write

TABLE_PREFIX: Final = b"table/"
SCHEMA_KEY: Final = b"schema"
NEXT_INDEX_KEY: Final = b"next_index"
UNFINISHED_PREFIX: Final = b"unfinished/"
IMPORTED_PREFIX: Final = b"imported/"
BUILD_PREFIX: Final = b"build/"
_NUMBER_BYTES: Final = 4
_COUNT_BYTES: Final = 8
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


class BuildRecord(NamedTuple):
    """How far an index is built: the document key behind which to go on (empty at the beginning), documents done."""

    resume: bytes = b""
    documents: int = 0


def build_records(snapshot: StorageSnapshot) -> dict[int, BuildRecord]:
    """The build records by index number; also those of numbers that are no index's any more."""
    return {
        int.from_bytes(key[len(BUILD_PREFIX) :], "big"): BuildRecord(
            raw[_COUNT_BYTES:], int.from_bytes(raw[:_COUNT_BYTES], "big")
        )
        for piece in chunks(snapshot, Tree.META, BUILD_PREFIX, BUILD_PREFIX + b"\xff" * 5, _CHUNK)
        for key, raw in piece
    }


def counted_up_to(snapshot: StorageSnapshot) -> dict[int, bytes]:
    """For each index that is being built, the document key up to which it is."""
    return {number: record.resume for number, record in build_records(snapshot).items()}


def build_write(number: int, record: BuildRecord | None) -> Write:
    """The write of a build record, or of its end."""
    raw = None if record is None else record.documents.to_bytes(_COUNT_BYTES, "big") + record.resume
    return (Tree.META, BUILD_PREFIX + number.to_bytes(_NUMBER_BYTES, "big"), raw)


def unfinished_write(number: int, is_unfinished: bool) -> Write:
    """The write of a mark on an index number, or of its end."""
    return (Tree.META, UNFINISHED_PREFIX + number.to_bytes(_NUMBER_BYTES, "big"), b"" if is_unfinished else None)


def unfinished_indexes(snapshot: StorageSnapshot) -> list[int]:
    """The index numbers whose entries are of no use."""
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
