"""Applying a schema: judge the documents there are, build new indexes, switch over in one commit, clear away old
indexes.

Steps, each durable before the next. (1) Every existing document of a table whose validator changes is checked; one
that does not fit ends the change with nothing done. (2) The numbers of new indexes are written down as unfinished,
then their entries are built in bounded batches. (3) One commit switches tables, schema and marks: from here on new
indexes are used, and dropped ones are unfinished. (4) The entries of dropped indexes are deleted in bounded
batches.

A crash leaves either schema whole; index numbers that are marked unfinished are cleared at the next opening.
Numbers are never reused.

Concurrency: the loop thread, blocking; commits that were pending are made durable first. Deliberately absent:
building in the background.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import orjson

from skerry.database.catalog import Catalog, Index, Table, Validator, creation_tail, dump_table, user_index
from skerry.database.catalog_store import (
    NEXT_INDEX_KEY,
    SCHEMA_KEY,
    TABLE_PREFIX,
    UNFINISHED_PREFIX,
    unfinished_indexes,
)
from skerry.database.schema_rules import parse_schema, validators_of
from skerry.database.stored import HEADER_BYTES, parse_document
from skerry.errors import SystemFault
from skerry.limits import SCHEMA_CHANGE_BATCH_ITEMS
from skerry.storage import StorageEngine, StorageSnapshot, Tree, Write, index_end, index_prefix
from skerry.value import Mismatch, encode_document_id, stored_document_error

if TYPE_CHECKING:
    from skerry.database.database import Database

_TIMESTAMP_BYTES: Final = 8
CALL_RECORD: Final = b'{"kind":"schema"}'


class SchemaChange:
    """What applying a schema means for a catalog: the catalog after it, the indexes to build, the numbers to clear."""

    __slots__ = ("after", "building", "dropped", "tables")

    def __init__(self, before: Catalog, schema: dict[str, Any]) -> None:
        validators = validators_of(schema)
        declared = {table["tableName"]: table for table in schema["tables"]}
        catalog = before
        for name in declared:
            if name not in catalog.tables:
                catalog, _ = catalog.with_table(name)
        next_index = catalog.next_index
        self.building: list[tuple[Table, Index]] = []
        self.dropped: list[int] = []
        self.tables: list[Table] = []
        tables = dict(catalog.tables)
        for name, table in catalog.tables.items():
            if table.is_system:
                continue
            wanted = {
                entry["indexDescriptor"]: tuple(entry["fields"]) for entry in declared.get(name, {}).get("indexes", ())
            }
            indexes: dict[str, Index] = {}
            added: list[Index] = []
            for index_name, fields in wanted.items():
                present = table.indexes.get(index_name)
                if present is not None and present.fields == fields:
                    indexes[index_name] = present
                else:
                    indexes[index_name] = user_index(next_index, index_name, fields)
                    added.append(indexes[index_name])
                    next_index += 1
            self.dropped += [index.number for key, index in table.indexes.items() if indexes.get(key) is not index]
            changed = Table(
                table.number, name, table.by_id.number, table.by_creation_time.number, indexes, validators.get(name)
            )
            tables[name] = changed
            self.tables.append(changed)
            self.building += [(changed, index) for index in added]
        self.after = Catalog(tables, catalog.next_table, next_index, schema)


def apply_schema(database: "Database", raw: bytes, also: Sequence[Write] = ()) -> None:
    """Make a schema export the deployment's schema; see the module. `also` is written in the same commit.

    Raises: DeveloperError of `parse_schema`; `SchemaEnforcementError` naming table, document and path; SystemFault
    of storage.
    """
    schema = parse_schema(raw)
    database.flush()
    engine = database.engine
    snapshot = engine.snapshot()
    try:
        # A change that failed may have left entries under the very numbers that this one will take.
        clear_indexes(engine, unfinished_indexes(snapshot))
        change = SchemaChange(database.catalog, schema)
        _check_documents(snapshot, database.catalog, change.after)
        unfinished = [_mark(index.number) for _, index in change.building]
        if unfinished:
            next_index = change.after.next_index.to_bytes(4, "big")
            engine.commit([*unfinished, (Tree.META, NEXT_INDEX_KEY, next_index)]).result()
        for table, index in change.building:
            _build(database, snapshot, table, index)
    finally:
        snapshot.close()
    database.switch_catalog(change.after, lambda commit_ts: [*_switch(change, schema, commit_ts), *also], CALL_RECORD)
    # The change is made; what a failure leaves of the dropped indexes is cleared by the next change or opening.
    with suppress(SystemFault):
        clear_indexes(engine, change.dropped)


def clear_indexes(engine: StorageEngine, numbers: list[int]) -> None:
    """Delete all entries of indexes that are no longer, or not yet, anybody's, and then their marks."""
    if not numbers:
        return
    for number in numbers:
        first, end = index_prefix(number), index_end(number)
        for tree in (Tree.INDEXES, Tree.INDEX_HISTORY):
            while True:
                snapshot = engine.snapshot()
                try:
                    items = snapshot.scan_chunk(tree, first, end, False, SCHEMA_CHANGE_BATCH_ITEMS)
                finally:
                    snapshot.close()
                if not items:
                    break
                engine.commit([(tree, key, None) for key, _ in items]).result()
    engine.commit([(Tree.META, UNFINISHED_PREFIX + number.to_bytes(4, "big"), None) for number in numbers]).result()


def _switch(change: SchemaChange, schema: dict[str, Any], commit_ts: int) -> list[Write]:
    """The writes of the commit that makes the change real."""
    writes: list[Write] = [
        (Tree.META, TABLE_PREFIX + table.name.encode(), dump_table(table)) for table in change.tables
    ]
    writes.append((Tree.META, SCHEMA_KEY, commit_ts.to_bytes(_TIMESTAMP_BYTES, "big") + orjson.dumps(schema)))
    writes.append((Tree.META, NEXT_INDEX_KEY, change.after.next_index.to_bytes(4, "big")))
    for _, index in change.building:
        writes.append((Tree.META, UNFINISHED_PREFIX + index.number.to_bytes(4, "big"), None))
    writes += [_mark(number) for number in change.dropped]
    return writes


def _mark(number: int) -> Write:
    return (Tree.META, UNFINISHED_PREFIX + number.to_bytes(4, "big"), b"")


def _check_documents(snapshot: StorageSnapshot, before: Catalog, after: Catalog) -> None:
    """Judge the documents of every table whose validator is not the one already enforced."""
    for table in after.tables.values():
        validator = table.validator
        if validator is None:
            continue
        old = before.tables.get(table.name)
        if old is not None and old.validator is not None and old.validator.json == validator.json:
            continue
        for internal_id, document in _documents(snapshot, table):
            _check_document(table, validator, internal_id, document, after)


def _check_document(
    table: Table, validator: Validator, internal_id: bytes, document: dict[str, Any], catalog: Catalog
) -> None:
    fields = {name: value for name, value in document.items() if name[0] != "_"}
    try:
        validator.check(fields, catalog.resolve)
    except Mismatch as mismatch:
        raise stored_document_error(encode_document_id(table.number, internal_id), table.name, mismatch) from None


def _build(database: "Database", snapshot: StorageSnapshot, table: Table, index: Index) -> None:
    """Write the entries of a new index, batch by batch."""
    engine = database.engine
    prefix = index_prefix(index.number)
    writes: list[Write] = []
    for internal_id, document in _documents(snapshot, table):
        key = index.key(document, creation_tail(document["_creationTime"], internal_id))
        writes.append((Tree.INDEXES, prefix + key, b""))
        if len(writes) == SCHEMA_CHANGE_BATCH_ITEMS:
            engine.commit(writes).result()
            writes = []
            if database.make_room():
                snapshot.renew()
    if writes:
        engine.commit(writes).result()


def _documents(snapshot: StorageSnapshot, table: Table) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """The internal id and decoded value of every document of a table."""
    lower = table.prefix
    end = (table.number + 1).to_bytes(4, "big")
    while True:
        items = snapshot.scan_chunk(Tree.DOCUMENTS, lower, end, False, SCHEMA_CHANGE_BATCH_ITEMS)
        for key, stored in items:
            yield key[4:], parse_document(stored[HEADER_BYTES:])
        if len(items) < SCHEMA_CHANGE_BATCH_ITEMS:
            return
        lower = items[-1][0] + b"\0"
