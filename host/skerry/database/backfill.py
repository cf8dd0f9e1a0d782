"""Building indexes over the documents that are there, while the deployment serves.

A hidden index is maintained by every write that began after it was registered, so what is left to do is to put the
entries of all documents of its table once. Indexes of one table that have come equally far are built together.

One *run* takes some thousands of documents in the order of their keys, as of the newest commit, pending ones included;
works out their entries, sorts these, so that a batch touches few pages, and hands them to storage batch by batch. The
last batch of a run holds the build record, so a crash repeats one run at most; putting an entry twice is putting it
once.

Why no entry is wrong at the end. A batch goes to storage behind every commit that was looked at, so it is durable only
if they are, and before every later one: an entry that a later commit takes away is taken away after it was put. Where
a document is written between its reading and its batch, its entries are worked out anew at that moment. A transaction
that began before the registration conflicts with it.

What a search index counts (`search_counts`) grows with the last batch of a run, by the documents of the run as they are
at that moment; from then on transactions count what they change in them, which `Database.counted_up_to` tells them.

Concurrency: the loop thread; the entries of large documents are worked out beside it. Deliberately absent: who drives
it, and in which order (`schema_change`).
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future
from heapq import merge
from typing import TYPE_CHECKING, Any

from skerry.database.catalog import Index, SearchedIndex, Table, creation_tail
from skerry.database.catalog_store import BuildRecord, build_records, build_write
from skerry.database.search_counts import difference
from skerry.database.steps import Batches, Beside, Steps, Turn, run_beside
from skerry.database.stored import HEADER_BYTES, parse_document
from skerry.database.walking import ends, percent_at
from skerry.errors import DeveloperError, SystemFault
from skerry.limits import (
    BACKFILL_BATCH_BYTES,
    BACKFILL_BATCH_ENTRIES,
    BACKFILL_RUN_BYTES,
    BACKFILL_RUN_CHUNKS,
    SCHEMA_STEP_BYTES,
    SCHEMA_STEP_ITEMS,
    STEP_BUSY_BATCH_WRITES,
)
from skerry.storage import Item, StorageSnapshot, Tree, Write, index_prefix
from skerry.value import encode_document_id

if TYPE_CHECKING:
    from skerry.database.database import Database

_INDEXES = Tree.INDEXES
Entry = tuple[bytes, bytes]
"""A key in the index tree, and that of the document it belongs to."""

Wanted = Callable[[Table, Index], bool]
"""Whether an index is to be built now."""


class BuildProgress:
    """What operators see of a running build: documents done by index number, and all since the process began."""

    def __init__(self) -> None:
        self.documents: dict[int, int] = {}
        self.documents_total = 0


def unbuilt(database: "Database") -> dict[int, BuildRecord]:
    """The build records of the catalog's hidden indexes, as storage has them."""
    snapshot = database.engine.snapshot()
    try:
        return _unbuilt(database, snapshot)
    finally:
        snapshot.close()


def _unbuilt(database: "Database", snapshot: StorageSnapshot) -> dict[int, BuildRecord]:
    records = build_records(snapshot)
    hidden = [index.number for table in database.catalog.tables.values() for index in table.hidden]
    return {number: records[number] for number in hidden if number in records}


def index_states(database: "Database", progress: BuildProgress) -> list[dict[str, Any]]:
    """Each index that a schema declares or a push registered, and how far it is.

    Shape: `state` is `ready`, `staged` (ready, and refused to queries), `building`, `building staged` or `waiting` (for
    the push that declares it); where it is being built, `documents` how many were done, and of all an estimate in
    `percent`.
    """
    snapshot = database.engine.snapshot()
    try:
        records = _unbuilt(database, snapshot)
        tables = database.catalog.tables.values()
        return [
            _state_of(snapshot, table, index, records.get(index.number), progress)
            for table in tables
            if not table.is_system
            for index in table.declared
        ]
    finally:
        snapshot.close()


def _state_of(
    snapshot: StorageSnapshot, table: Table, index: Index, record: BuildRecord | None, progress: BuildProgress
) -> dict[str, Any]:
    state: dict[str, Any] = {"table": table.name, "index": index.name, "kind": index.kind, "state": "ready"}
    if index in table.hidden:
        state["state"] = "staged" if index.is_staged else "waiting"
    if record is not None:
        state["state"] = "building staged" if index.is_staged else "building"
        state["documents"] = max(record.documents, progress.documents.get(index.number, 0))
        state["percent"] = percent_at(ends(snapshot, Tree.DOCUMENTS, table.prefix, table.end), record.resume)
    return state


def backfill_steps(database: "Database", progress: BuildProgress, beside: Beside, is_wanted: Wanted) -> Steps:
    """Build those of the hidden indexes that are wanted and not built.

    Raises: DeveloperError of an index key that is too large, naming the document; SystemFault of storage.
    """
    while True:
        group = _next_group(database, unbuilt(database), is_wanted)
        if group is None:
            return
        table, indexes, record, stop = group
        yield from _Build(database, progress, beside, table, indexes).steps(record, stop)


def _next_group(
    database: "Database", records: dict[int, BuildRecord], is_wanted: Wanted
) -> tuple[Table, list[Index], BuildRecord, bytes] | None:
    """The indexes of one table to build together: those that are furthest behind, up to where the next one stands."""
    for table in database.catalog.tables.values():
        left = [index for index in table.hidden if index.number in records and is_wanted(table, index)]
        if left:
            places = sorted({records[index.number].resume for index in left})
            behind = [index for index in left if records[index.number].resume == places[0]]
            return table, behind, records[behind[0].number], places[1] if len(places) > 1 else b""
    return None


Run = Generator[Future[None] | None, None, tuple[BuildRecord, bool]]
"""The steps of one run; it returns the build record behind it, and whether it was the last one."""


class _Build:
    """The building of some indexes of one table, from one document to another."""

    def __init__(
        self, database: "Database", progress: BuildProgress, beside: Beside, table: Table, indexes: list[Index]
    ) -> None:
        self._database = database
        self._progress = progress
        self._beside = beside
        self._table = table
        self._indexes = indexes
        self._epoch = database.epoch
        self._touched: set[bytes] = set()
        self._again: dict[bytes, None] = {}
        self._searches = [index for index in indexes if isinstance(index, SearchedIndex)]
        self._lengths: dict[bytes, list[int]] = {}
        self._batches = Batches(database.submit_behind)
        self._turn = Turn()

    def steps(self, record: BuildRecord, stop: bytes) -> Steps:
        """Runs from where the record stands to the end, or up to the document `stop`."""
        watchers = self._database.watchers
        watchers.append(self._watch)
        try:
            is_done = False
            while not is_done:
                record, is_done = yield from self._run(record, stop)
            yield from self._batches.drain()
        finally:
            watchers.remove(self._watch)

    def _watch(self, writes: Iterable[bytes]) -> None:
        """Notes the documents of the table that are written while a run is under way."""
        prefix, touched = self._table.prefix, self._touched
        for key in writes:
            if key.startswith(prefix):
                touched.add(key)
                self._again[key] = None

    def _run(self, record: BuildRecord, stop: bytes) -> Run:
        self._touched.clear()
        self._again.clear()
        self._lengths.clear()
        if self._searches:  # those that only pending commits have are found nowhere else
            self._watch(self._database.newest.overlay.documents)
        chunks: list[list[Entry]] = [[]]
        lower = record.resume + b"\0" if record.resume else self._table.prefix
        upper = stop + b"\0" if stop else self._table.end
        resume, n_bytes, n_documents = b"", 0, 0
        self._turn.begin()
        while len(chunks) <= BACKFILL_RUN_CHUNKS and n_bytes < BACKFILL_RUN_BYTES:
            self._must_be_same_epoch()
            items, resume, size = self._database.newest.documents(lower, upper, SCHEMA_STEP_ITEMS, SCHEMA_STEP_BYTES)
            entries: list[Entry] = []
            if size > 2 * SCHEMA_STEP_BYTES:
                yield from run_beside(self._beside, self._add_entries, items, entries)
                self._turn.begin()
            else:
                self._add_entries(items, entries)
            n_bytes += sum([len(entry) for entry, _ in entries])
            n_documents += len(items)
            chunks[-1] += entries
            if len(chunks[-1]) >= BACKFILL_BATCH_ENTRIES:
                chunks[-1].sort()
                chunks.append([])
            if not resume:
                break
            lower = resume + b"\0"
            if self._turn.is_over():
                yield None
                self._turn.begin()
        chunks[-1].sort()
        done = BuildRecord(resume or stop, record.documents + n_documents)
        is_whole = not resume and not stop
        yield from self._put(merge(*chunks), (record.resume, done.resume), done, is_whole)
        for index in self._indexes:
            self._progress.documents[index.number] = done.documents
        self._progress.documents_total += n_documents
        return done, not resume

    def _put(self, entries: Iterator[Entry], between: tuple[bytes, bytes], done: BuildRecord, is_whole: bool) -> Steps:
        """Hand sorted entries to storage, those of what was written meanwhile anew; the record with the last batch."""
        is_last = False
        while not is_last:
            yield None
            self._must_be_same_epoch()
            piece = _batch_of(entries, STEP_BUSY_BATCH_WRITES if self._database.is_busy else BACKFILL_BATCH_ENTRIES)
            is_last = not piece
            again: list[Entry] = []
            yield from self._add_again(between, again)
            self._must_be_same_epoch()
            touched, anew = self._touched, self._again  # to which writes have added that came meanwhile
            writes: list[Write] = [(_INDEXES, entry, b"") for entry, key in piece if key not in touched]
            writes += [(_INDEXES, entry, b"") for entry, key in again if key not in anew]
            if is_last and self._again:
                is_last = False
            elif is_last:
                writes += self._ended(done, is_whole)
            yield from self._batches.add(writes)
            self._database.make_room()

    def _add_again(self, between: tuple[bytes, bytes], out: list[Entry]) -> Steps:
        """Adds entries of some documents of the run that were written since it began, as they are now; of one that is
        written again while large ones are worked on beside, once more later.
        """
        newest, (first, end) = self._database.newest, between
        items: list[Item] = []
        n_bytes = 0
        while self._again and len(items) < SCHEMA_STEP_ITEMS and n_bytes < SCHEMA_STEP_BYTES:
            key = next(iter(self._again))
            del self._again[key]
            if not first < key or (end and key > end):
                continue
            stored = newest.document(key)
            if stored is None:
                self._lengths.pop(key, None)
            else:
                items.append((key, stored))
                n_bytes += len(stored)
        if n_bytes > 2 * SCHEMA_STEP_BYTES:
            yield from run_beside(self._beside, self._add_entries, items, out)
        else:
            self._add_entries(items, out)

    def _ended(self, done: BuildRecord, is_whole: bool) -> list[Write]:
        """What ends a run: the record, and what its documents add to the counts of search indexes."""
        database = self._database
        writes = [build_write(index.number, None if is_whole else done) for index in self._indexes]
        for at, index in enumerate(self._searches):
            more = difference({key: (0, lengths[at]) for key, lengths in self._lengths.items()})
            writes.append(database.add_counts(index.number, more))
        for index in self._indexes:
            if is_whole:
                database.counted_up_to.pop(index.number, None)
            else:
                database.counted_up_to[index.number] = done.resume
        return writes

    def _add_entries(self, items: list[Item], out: list[Entry]) -> None:
        """Appends the index entries of stored documents, and keeps their lengths. Any thread."""
        add_entries(self._table, self._indexes, items, out)
        if self._searches:
            for key, stored in items:
                document = parse_document(stored[HEADER_BYTES:])
                self._lengths[key] = [index.length(document) for index in self._searches]

    def _must_be_same_epoch(self) -> None:
        if self._database.epoch != self._epoch:
            raise SystemFault("StorageFailed", "The storage failed while an index was being built.")


def add_entries(table: Table, indexes: Sequence[Index], items: list[Item], out: list[Entry]) -> None:
    """Appends the index entries of stored documents. Any thread.

    Raises: DeveloperError `IndexKeyTooLarge`, naming the document.
    """
    kinds = [(index_prefix(index.number), index.keys) for index in indexes]
    id_at = len(table.prefix)
    for key, stored in items:
        document = parse_document(stored[HEADER_BYTES:])
        tail = creation_tail(document["_creationTime"], key[id_at:])
        try:
            for prefix, keys in kinds:
                out += [(prefix + entry, key) for entry in keys(document, tail)]
        except DeveloperError as error:
            document_id = encode_document_id(table.number, key[id_at:])
            raise DeveloperError(
                error.code, f'Document with ID "{document_id}" in table "{table.name}": {error.message}'
            ) from None


def _batch_of(entries: Iterator[Entry], entries_max: int) -> list[Entry]:
    """The next entries to be put together; none at the end."""
    piece: list[Entry] = []
    n_bytes = 0
    for entry in entries:
        piece.append(entry)
        n_bytes += len(entry[0])
        if len(piece) >= entries_max or n_bytes >= BACKFILL_BATCH_BYTES:
            break
    return piece
