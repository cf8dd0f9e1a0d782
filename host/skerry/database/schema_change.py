"""Applying a schema: judge the documents there are, build new indexes, switch over in one commit, clear away old
indexes.

Stages, each durable before the next. (1) Every existing document of a table whose validator changes is checked; one
that does not fit ends the change with nothing done. (2) The numbers of new indexes are written down as unfinished,
then their entries are built in bounded batches. (3) One commit switches tables, schema and marks: from here on new
indexes are used, and dropped ones are unfinished. (4) The entries of dropped indexes are deleted in bounded
batches.

All of it is a generator of *steps*, each short, so that whoever drives it can let others have the thread in between.
A step gives None where it merely makes room, or a future to wait for before the next one: a sync, or the judging of
a document that is too large for the loop thread. The documents must not change from the first step to the switch:
whoever drives the steps holds the lane, and the switch is refused if a commit came between all the same.

A crash leaves either schema whole, and so does ending the steps early; index numbers that are marked unfinished are
cleared at the next opening or change. Numbers are never reused, also not those of a change that failed.

Concurrency: the loop thread. Deliberately absent: building while mutations run.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Final

import orjson

from skerry.database.catalog import Catalog, Index, SearchedIndex, Table, Validator, creation_tail
from skerry.database.catalog_store import (
    NEXT_INDEX_KEY,
    SCHEMA_KEY,
    TABLE_PREFIX,
    UNFINISHED_PREFIX,
    unfinished_indexes,
)
from skerry.database.index_kinds import declared_indexes, dump_table, make_index
from skerry.database.schema_rules import parse_schema, validators_of
from skerry.database.search_counts import counts_key, difference
from skerry.database.stored import HEADER_BYTES, parse_document
from skerry.errors import DeveloperError, SystemFault
from skerry.limits import (
    SCHEMA_CHANGE_BATCH_BYTES,
    SCHEMA_CHANGE_BATCH_ITEMS,
    SCHEMA_STEP_BYTES,
    SCHEMA_STEP_ITEMS,
    SCHEMA_STEP_US_MAX,
    SLICE_VALIDATION_STEPS_MAX,
    VALIDATOR_STEPS_MAX,
)
from skerry.storage import Item, StorageEngine, StorageSnapshot, Tree, Write, index_end, index_prefix
from skerry.value import Mismatch, encode_document_id, stored_document_error

if TYPE_CHECKING:
    from skerry.database.database import Database

Steps = Generator[Future[None] | None, None, None]
"""Work in pieces: each gives what to wait for before the next one, None where that is nothing."""

Beside = Callable[[Callable[[], None]], Future[None]]
"""Runs a function on another thread."""

_TIMESTAMP_BYTES: Final = 8
SCHEMA_STEP_NS: Final = SCHEMA_STEP_US_MAX * 1_000
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
                entry.name: entry.definition
                for entry in declared_indexes(declared.get(name, {}))
                if not entry.is_staged
            }
            indexes: dict[str, Index] = {}
            added: list[Index] = []
            for index_name, definition in wanted.items():
                present = table.indexes.get(index_name)
                if present is not None and present.definition == definition:
                    indexes[index_name] = present
                else:
                    indexes[index_name] = make_index(next_index, index_name, definition)
                    added.append(indexes[index_name])
                    next_index += 1
            self.dropped += [index.number for key, index in table.indexes.items() if indexes.get(key) is not index]
            changed = table.with_indexes(indexes, (), validators.get(name))
            tables[name] = changed
            self.tables.append(changed)
            self.building += [(changed, index) for index in added]
        self.after = Catalog(tables, catalog.next_table, next_index, schema)


def schema_steps(
    database: "Database",
    raw: bytes,
    also: Sequence[Write] = (),
    *,
    on_switched: Callable[[], None] | None = None,
    beside: Beside | None = None,
) -> Steps:
    """The steps that make a schema export the deployment's schema; see the module. Nothing may be pending.

    Shape: `also` is written in the commit that switches, and `on_switched` called when that is durable, before
    anybody sees it. `beside` runs what is too long for the loop thread; without it that is done here. The steps can
    be ended by an exception thrown in where one gave None, or by closing them there.

    Raises: DeveloperError of `parse_schema`; `SchemaEnforcementError` naming table, document and path; SystemFault
    of storage; Conflict where documents changed meanwhile.
    """
    schema = parse_schema(raw)
    assert not database.n_pending
    since_ts, engine = database.newest_ts, database.engine
    snapshot = engine.snapshot()
    try:
        # A change that failed may have left entries; with their marks the numbers would stay taken for ever.
        yield from _clear(engine, unfinished_indexes(snapshot))
        change = SchemaChange(database.catalog, schema)
        yield from _check_documents(snapshot, database.catalog, change.after, beside or _at_once)
        if change.building:
            database.reserve_indexes(change.after.next_index)
            marks = [_mark(index.number) for _, index in change.building]
            next_index = change.after.next_index.to_bytes(4, "big")
            yield from _committed(engine, [*marks, (Tree.META, NEXT_INDEX_KEY, next_index)])
        for table, index in change.building:
            yield from _build(database, snapshot, table, index, beside or _at_once)
    finally:
        snapshot.close()
    switched: Future[None] = Future()

    def on_durable(outcome: int | BaseException) -> None:
        if isinstance(outcome, BaseException):
            switched.set_exception(outcome)
            return
        switched.set_result(None)
        if on_switched is not None:
            on_switched()

    database.switch_catalog(
        change.after, lambda commit_ts: [*_switch(change, schema, commit_ts), *also], CALL_RECORD, since_ts, on_durable
    )
    yield switched
    switched.result()
    # The change is made; what a failure leaves of the dropped indexes is cleared by the next change or opening.
    with suppress(SystemFault):
        yield from _clear(engine, change.dropped)


def clear_indexes(engine: StorageEngine, numbers: list[int]) -> None:
    """Delete all entries of indexes that are no longer, or not yet, anybody's, and then their marks. Blocks."""
    for waited in _clear(engine, numbers):
        if waited is not None:
            waited.exception()


def _clear(engine: StorageEngine, numbers: list[int]) -> Steps:
    """The steps of `clear_indexes`."""
    if not numbers:
        return
    for number in numbers:
        for tree in (Tree.INDEXES, Tree.INDEX_HISTORY):
            yield from _clear_tree(engine, tree, number)
    keys = [key for number in numbers for key in (UNFINISHED_PREFIX + number.to_bytes(4, "big"), counts_key(number))]
    yield from _committed(engine, [(Tree.META, key, None) for key in keys])


def _clear_tree(engine: StorageEngine, tree: Tree, number: int) -> Steps:
    """Delete an index's entries in one tree, batch by batch."""
    lower, end = index_prefix(number), index_end(number)
    writes: list[Write] = []
    n_bytes = 0
    while True:
        snapshot = engine.snapshot()
        try:
            items, size = _piece(snapshot, tree, lower, end)
        finally:
            snapshot.close()
        writes += [(tree, key, None) for key, _ in items]
        n_bytes += size
        if writes and (not items or _is_batch(writes, n_bytes)):
            yield from _committed(engine, writes)
            writes, n_bytes = [], 0
        if not items:
            return
        lower = items[-1][0] + b"\0"
        yield None


def _is_batch(writes: list[Write], n_bytes: int) -> bool:
    """Whether writes are enough for a sync."""
    return len(writes) >= SCHEMA_CHANGE_BATCH_ITEMS or n_bytes >= SCHEMA_CHANGE_BATCH_BYTES


def _committed(engine: StorageEngine, writes: list[Write]) -> Steps:
    """Waits until a batch is durable. Raises: SystemFault of storage."""
    durable = engine.commit(writes)
    yield durable
    durable.result()


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


def _check_documents(snapshot: StorageSnapshot, before: Catalog, after: Catalog, beside: Beside) -> Steps:
    """Judge the documents of every table whose validator is not the one already enforced."""
    for table in after.tables.values():
        validator = table.validator
        if validator is None:
            continue
        old = before.tables.get(table.name)
        if old is not None and old.validator is not None and old.validator.json == validator.json:
            continue
        for items, is_large in _pieces(snapshot, table):
            if is_large:
                yield from _run(beside, _check, table, validator, items, after)
                continue
            end_ns = perf_counter_ns() + SCHEMA_STEP_NS
            for item in items:
                try:
                    _check(table, validator, [item], after, SLICE_VALIDATION_STEPS_MAX)
                except DeveloperError as error:
                    if error.code != "ValidationTooExpensive":
                        raise
                    yield from _run(beside, _check, table, validator, [item], after)
                if perf_counter_ns() >= end_ns:
                    yield None
                    end_ns = perf_counter_ns() + SCHEMA_STEP_NS
            yield None


def _check(
    table: Table, validator: Validator, items: list[Item], catalog: Catalog, steps_max: int = VALIDATOR_STEPS_MAX
) -> None:
    """Judges stored documents. Any thread."""
    for key, stored in items:
        document = parse_document(stored[HEADER_BYTES:])
        fields = {name: value for name, value in document.items() if name[0] != "_"}
        try:
            validator.check(fields, catalog.resolve, steps_max=steps_max)
        except Mismatch as mismatch:
            document_id = encode_document_id(table.number, key[len(table.prefix) :])
            raise stored_document_error(document_id, table.name, mismatch) from None


def _build(database: "Database", snapshot: StorageSnapshot, table: Table, index: Index, beside: Beside) -> Steps:
    """Write the entries of a new index, batch by batch."""
    engine = database.engine
    writes: list[Write] = []
    n_bytes = 0
    lengths: dict[bytes, tuple[int, int]] = {}
    for items, is_large in _pieces(snapshot, table):
        made: list[Write] = []
        if isinstance(index, SearchedIndex):
            lengths.update([(key, (0, index.length(parse_document(stored[HEADER_BYTES:])))) for key, stored in items])
        if is_large:
            yield from _run(beside, _entries, table, index, items, made)
        else:
            _entries(table, index, items, made)
            yield None
        writes += made
        n_bytes += sum([len(key) for _, key, _ in made])
        if _is_batch(writes, n_bytes):
            yield from _committed(engine, writes)
            writes, n_bytes = [], 0
            database.make_room()
    if lengths:
        writes.append(database.add_counts(index.number, difference(lengths)))
    if writes:
        yield from _committed(engine, writes)


def _entries(table: Table, index: Index, items: list[Item], out: list[Write]) -> None:
    """Appends the index entries of stored documents. Any thread."""
    prefix = index_prefix(index.number)
    for key, stored in items:
        document = parse_document(stored[HEADER_BYTES:])
        tail = creation_tail(document["_creationTime"], key[len(table.prefix) :])
        out += [(Tree.INDEXES, prefix + entry, b"") for entry in index.keys(document, tail)]


def _pieces(snapshot: StorageSnapshot, table: Table) -> Iterator[tuple[list[Item], bool]]:
    """The stored documents of a table, a few at a time, and whether they are large. Nothing may change them.

    The snapshot is renewed for each piece: a storage that grows ends snapshots, and one that stays keeps pages from
    being used again.
    """
    lower: bytes = table.prefix
    end = table.end
    while True:
        snapshot.renew()
        items, n_bytes = _piece(snapshot, Tree.DOCUMENTS, lower, end)
        if not items:
            return
        yield items, n_bytes > 2 * SCHEMA_STEP_BYTES
        lower = items[-1][0] + b"\0"


def _piece(snapshot: StorageSnapshot, tree: Tree, lower: bytes, upper: bytes | None) -> tuple[list[Item], int]:
    """The first items from a key on, as many as one step takes, and their bytes; the last may lie on top."""
    items: list[Item] = []
    n_bytes = 0
    for item in snapshot.scan(tree, lower, upper, False):
        items.append(item)
        n_bytes += len(item[0]) + len(item[1])
        if len(items) >= SCHEMA_STEP_ITEMS or n_bytes >= SCHEMA_STEP_BYTES:
            break
    return items, n_bytes


def _run(beside: Beside, work: Callable[..., None], *arguments: Any) -> Steps:
    done = beside(partial(work, *arguments))
    yield done
    done.result()


def _at_once(work: Callable[[], None]) -> Future[None]:
    done: Future[None] = Future()
    try:
        work()
    except Exception as error:
        done.set_exception(error)
    else:
        done.set_result(None)
    return done
