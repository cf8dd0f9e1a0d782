"""Filling a table that nobody sees yet, and putting it in the place of another in one commit.

An import writes its documents under a space and index numbers of their own, in bounded batches that go straight to
storage while the deployment serves. Nothing leads there: no catalog names them. One commit then makes the catalog name
them (`switch_tables`), and marks what the tables held before as garbage. So an import is there as a whole or not at
all, whatever its size, and what it costs at the end does not depend on it.

    begin   META gets a mark: "space S and index numbers N... are unfinished"; it is durable before anything else
    fill    documents, batch by batch: no commit log, no history, no overlay; then their index entries, in order
    switch  catalog, schema timestamp, marks of the old contents, in one commit; who began before conflicts
    clear   what is marked is deleted in short steps; what a crash left, after the next opening

**Appending** to a table that has documents fills a copy: the documents there are are copied first, and while that
goes on each commit writes what it changes in the table to the copy as well (`Database.mirrors`). A document that a
pending commit has written is left out of copying, because that commit's own writes come after.

Invariants. The numbers of a fill are used once. A document passes the same checks as one that is inserted: names,
sizes, nesting, validator, index keys; ids are decoded, of the table's number, and occur once. The stamp in the header
of an imported document is a timestamp before the switch; reads of the past are refused before the switch, because it
moves the schema's timestamp.

Concurrency: the loop thread, but for `Fill.judge`, which may run on any. Deliberately absent: formats (room
`transfer`), and resuming: what a crash interrupted is cleared away and begun again.
"""

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from math import isfinite
from tempfile import TemporaryFile
from typing import IO, Any, Final, NamedTuple

import orjson

from skerry.database.backfill import unbuilt
from skerry.database.birth import Birth
from skerry.database.catalog import IMPORTED_NUMBER_FIRST, Table, creation_tail
from skerry.database.catalog_store import SCHEMA_KEY, TABLE_PREFIX
from skerry.database.database import Database
from skerry.database.document_write import DocumentWrite
from skerry.database.imported import clear_imported, has_garbage, keep_space, leave_space, mark, mark_key
from skerry.database.index_kinds import dump_table, moved_table
from skerry.database.search_counts import Tally
from skerry.database.sorted_runs import SortedRuns
from skerry.database.steps import Beside, Steps, at_once, waited
from skerry.database.stored import HEADER_BYTES, parse_document, stored_form
from skerry.database.write_log import Conflict
from skerry.errors import ClientError, DeveloperError, SystemFault
from skerry.limits import (
    BULK_BATCH_BYTES,
    BULK_BATCH_WRITES,
    BULK_BATCHES_PENDING_MAX,
    BULK_STEP_ITEMS,
    SLICE_VALIDATION_STEPS_MAX,
    STEP_BUSY_BATCH_WRITES,
    STORAGE_SHORT_KEY_BYTES_MAX,
    VALIDATOR_STEPS_MAX,
)
from skerry.storage import StorageSnapshot, Tree, Write
from skerry.value import Mismatch, check_document, dumps, encode_document_id, try_decode_document_id, write_error

NEXT_NUMBER_KEY: Final = b"imported next"
_NUMBER_BYTES: Final = 4
_TIMESTAMP_BYTES: Final = 8
_DOCUMENTS: Final = Tree.DOCUMENTS
_INDEXES: Final = Tree.INDEXES


class Judged(NamedTuple):
    """A document that may be stored, and the keys it has in the indexes of its table. Shape: `is_new` of its id."""

    internal_id: bytes
    document: dict[str, Any]
    json: bytes
    size: int
    entries: list[bytes]
    is_new: bool


class Fill:
    """One hidden table being filled.

    Shape: `table` is what the switch will put in place of `source` (None: there was none); `resolve` names the table
    of a number as it will be then. `documents` counts what was added, not what was copied.
    """

    def __init__(
        self,
        database: Database,
        source: Table | None,
        table: Table,
        resolve: Callable[[int], str | None],
        clock_ms: Callable[[], float],
        entropy: Callable[[int], bytes],
        runs: SortedRuns,
    ) -> None:
        self.table = table
        self.source = source
        self.documents = 0
        self.copied = 0
        self._database = database
        self._resolve = resolve
        self._clock_ms = clock_ms
        self._entropy = entropy
        self._stamp = max(database.newest_ts, 1).to_bytes(_TIMESTAMP_BYTES, "big")
        self._birth = Birth(clock_ms(), entropy(32))
        self._born_ms = clock_ms()
        self._last_creation = 0.0
        self._snapshot: StorageSnapshot = database.engine.snapshot()
        self._writes: list[Write] = []
        self._bytes = 0
        self._sorting_bytes = 0
        self._waiting_bytes = 0
        self._copies: dict[bytes, list[Write]] = {}
        self._fresh: set[bytes] = set()
        self._highest = b""
        self._pending: deque[tuple[Future[None], set[bytes]]] = deque()
        self._copied_up_to = b""
        self._runs = runs
        self.tally = Tally(table.searches)

    @property
    def is_batch(self) -> bool:
        """Whether there is enough for a batch."""
        return len(self._writes) >= self._writes_max or self._bytes >= BULK_BATCH_BYTES or self._runs.is_full

    @property
    def _writes_max(self) -> int:
        return STEP_BUSY_BATCH_WRITES if self._database.is_busy else BULK_BATCH_WRITES

    # -- adding ----------------------------------------------------------------------------------------------------

    def judge(self, fields: dict[str, Any], steps_max: int = SLICE_VALIDATION_STEPS_MAX) -> Judged:
        """What a document of a file becomes; it gets an id and a creation time where it has none.

        Raises: DeveloperError of a document that may not be stored, `IndexKeyTooLarge`; `ValidationTooExpensive` past
        `steps_max`, and then it may be judged again with more.
        """
        validator = self.table.validator
        if validator is not None:
            plain = {name: value for name, value in fields.items() if name != "_id" and name != "_creationTime"}
            try:
                validator.check(plain, self._resolve, steps_max=steps_max)
            except Mismatch as mismatch:
                raise write_error(self.table.name, mismatch) from None
        given = fields.get("_id")
        is_new = given is None and "_id" not in fields
        if is_new:
            internal_id = self._birth.internal_id()
            document_id = encode_document_id(self.table.number, internal_id)
        else:
            internal_id = self._internal_id(given)
            document_id = given
        time = fields.get("_creationTime")
        if time is None and "_creationTime" not in fields:
            time = self._birth.creation_time()
        elif (type(time) is not int and type(time) is not float) or not isfinite(time):
            raise DeveloperError("InvalidValue", "`_creationTime` must be a number: milliseconds since 1970.")
        document = {**fields, "_creationTime": time, "_id": document_id}
        size = check_document(document)
        entries = self._entries(internal_id, document)
        return Judged(internal_id, document, dumps(document), size, entries, is_new)

    def judge_long(self, fields: dict[str, Any]) -> Judged:
        """The same for what is too long for the loop thread."""
        return self.judge(fields, VALIDATOR_STEPS_MAX)

    def add(self, judged: Judged) -> None:
        """Take a document. Raises: DeveloperError `DuplicateId`."""
        internal_id, document, json, size, entries, is_new = judged
        table = self.table
        key = table.prefix + internal_id
        if key > self._highest:
            self._highest = key
        elif not is_new and self._is_there(key):
            raise DeveloperError("DuplicateId", f"The table has another document with the id {document['_id']}.")
        if not is_new:
            self._fresh.add(key)
        stored = stored_form(json, size, self._stamp, None)
        writes = self._writes
        writes.append((_DOCUMENTS, key, stored))
        entry_bytes = sum(map(len, entries))
        if entry_bytes > STORAGE_SHORT_KEY_BYTES_MAX:  # one of them may be so long that no order is kept for it
            writes += [(_INDEXES, entry, b"") for entry in entries if len(entry) > STORAGE_SHORT_KEY_BYTES_MAX]
            entries = [entry for entry in entries if len(entry) <= STORAGE_SHORT_KEY_BYTES_MAX]
            self._bytes += entry_bytes
            entry_bytes = sum(map(len, entries))
            self._bytes -= entry_bytes
        self._runs.add(entries, entry_bytes)
        self._sorting_bytes += entry_bytes
        if table.searches:
            self.tally.add(internal_id, document)
        self._bytes += len(key) + len(stored)
        self.documents += 1

    def _is_there(self, key: bytes) -> bool:
        """Whether a document was added or copied under this key. New ids are not asked for: they are drawn."""
        if key in self._fresh or any(key in sent for _, sent in self._pending):
            return True
        return self._snapshot.get(Tree.DOCUMENTS, key) is not None

    def _internal_id(self, given: Any) -> bytes:
        decoded = try_decode_document_id(given) if type(given) is str else None
        if decoded is None:
            raise DeveloperError(
                "InvalidDocumentId", f"`_id` {str(given)[:64]!r} is not a document ID: leave it out to get a new one."
            )
        number, internal_id = decoded
        if number != self.table.number:
            raise DeveloperError(
                "InvalidDocumentId",
                f"`_id` {given} is an id of table number {number}, and {self.table.name} has number "
                f"{self.table.number}: remove the `_id` fields, or import the documents of one table.",
            )
        return internal_id

    # -- batches ---------------------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """To be called where others have had the thread: a storage that grew has ended the snapshot."""
        self._snapshot.renew()

    def send(self) -> Steps:
        """Hand what has gathered to storage, when not too much is on its way there.

        Raises: SystemFault of storage; OSError of the file that index entries wait in.
        """
        if self._runs.is_full:
            yield from self._runs.spill()
        while len(self._pending) >= (1 if self._database.is_busy else BULK_BATCHES_PENDING_MAX):
            yield from self._land()
        writes = self._writes
        for made in self._copies.values():
            writes += made
        self._copies = {}
        if not writes:
            return
        self._database.space.charge(self._bytes + self._sorting_bytes)
        self._wait(self._sorting_bytes)
        self._writes, self._bytes, self._sorting_bytes = [], 0, 0
        self._pending.append((self._database.engine.commit(writes), self._fresh))
        self._fresh = set()
        # New ids begin with their time: with a later one for each batch they go to the end of the tree, side by side.
        self._born_ms = max(self._clock_ms(), self._born_ms + 1)
        self._birth = Birth(self._born_ms, self._entropy(32))

    def finish(self) -> Steps:
        """Hand over everything that was added, the index entries in their order, and wait until it is durable.

        Raises: as `send`.
        """
        yield from self.send()
        for keys in self._runs.merged():
            while keys:
                piece = keys[: self._writes_max]
                keys = keys[len(piece) :]
                self._writes += [(_INDEXES, key, b"") for key in piece]
                yield None
                yield from self.send()
                self._wait(-sum(map(len, piece)))
        yield from self.settle()

    def _wait(self, n_bytes: int) -> None:
        """Counts so many bytes more that wait to be sorted, or fewer."""
        self._waiting_bytes += n_bytes
        self._database.space.waiting_bytes += n_bytes

    def settle(self) -> Steps:
        """Wait until all that was handed over is durable, or failed. Raises: SystemFault of storage."""
        failure: SystemFault | None = None
        while self._pending:
            try:
                yield from self._land()
            except SystemFault as error:
                failure = failure or error
        if failure is not None:
            raise failure

    def _land(self) -> Steps:
        """Wait for the oldest batch that is on its way."""
        durable, _ = self._pending[0]
        try:
            yield from waited(durable)
        finally:
            self._pending.popleft()
        self._database.make_room()
        self._snapshot.renew()

    # -- copying ---------------------------------------------------------------------------------------------------

    def copy(self) -> Steps:
        """Bring in the documents that the source has, and from here on what commits change in them."""
        source, database = self.source, self._database
        assert source is not None
        database.mirrors[source.space] = self._mirror
        since_ts = database.newest_ts
        while database.durable_ts < since_ts:  # what was pending before the mirror has not been through it
            barrier = database.engine.commit([])
            yield barrier
            barrier.result()
            yield None
        lower = source.prefix
        while True:
            self._snapshot.renew()
            items = self._snapshot.scan_chunk(Tree.DOCUMENTS, lower, source.end, False, BULK_STEP_ITEMS)
            for key, stored in items:
                if not database.is_document_pending(key):
                    self._copy(key[_NUMBER_BYTES:], stored)
            if not items:
                break
            self._copied_up_to = items[-1][0]
            lower = self._copied_up_to + b"\0"
            yield None
            if len(self._copies) * (1 + len(source.stored)) >= BULK_BATCH_WRITES or self._bytes >= BULK_BATCH_BYTES:
                yield from self.send()
        yield from self.send()
        yield from self.settle()

    def _copy(self, internal_id: bytes, stored: bytes) -> None:
        key = self.table.prefix + internal_id
        made: list[Write] = [(Tree.DOCUMENTS, key, stored)]
        made += [(Tree.INDEXES, entry, b"") for entry in self._entries_of(internal_id, stored[HEADER_BYTES:])]
        if self.table.searches:
            self.tally.add(internal_id, parse_document(stored[HEADER_BYTES:]))
        self._copies[internal_id] = made
        self._bytes += len(stored) + sum([len(key) for _, key, _ in made])
        self._highest = max(self._highest, key)
        self.copied += 1

    def _entries_of(self, internal_id: bytes, json: bytes) -> list[bytes]:
        return self._entries(internal_id, parse_document(json))

    def _entries(self, internal_id: bytes, document: dict[str, Any]) -> list[bytes]:
        """The document's keys in the index tree."""
        tail = creation_tail(document["_creationTime"], internal_id)
        return [
            index.number.to_bytes(_NUMBER_BYTES, "big") + entry
            for index in self.table.stored
            for entry in index.keys(document, tail)
        ]

    def _mirror(self, writes: list[Write], write: DocumentWrite, commit_ts: int) -> None:
        internal_id, before, json = write.internal_id, write.before, write.json
        self._copies.pop(internal_id, None)
        if self.table.searches:
            self._tally(write)
        key = self.table.prefix + internal_id
        if before is not None:
            writes += [(Tree.INDEXES, entry, None) for entry in self._entries_of(internal_id, before[HEADER_BYTES:])]
        if json is None:
            writes.append((Tree.DOCUMENTS, key, None))
            return
        stamp = commit_ts.to_bytes(_TIMESTAMP_BYTES, "big")
        writes.append((Tree.DOCUMENTS, key, stored_form(json, write.size, stamp, before)))
        writes += [(Tree.INDEXES, entry, b"") for entry in self._entries_of(internal_id, json)]
        self._highest = max(self._highest, key)

    def _tally(self, write: DocumentWrite) -> None:
        before, json, source = write.before, write.json, self.source
        assert source is not None
        is_counted = before is not None and source.prefix + write.internal_id <= self._copied_up_to
        self.tally.write(
            write.internal_id,
            parse_document(before[HEADER_BYTES:]) if before is not None and is_counted else None,
            None if json is None else parse_document(json),
        )

    def close(self) -> None:
        """Stop: what was written is garbage unless it was switched in."""
        if self.source is not None:
            self._database.mirrors.pop(self.source.space, None)
        self._runs.close()
        self._wait(-self._waiting_bytes)
        self._snapshot.close()


class Fills:
    """The hidden tables of one import, from the mark to the switch.

    Shape: `fills` by the name of the table; `open_file` opens files without names, for index entries that wait."""

    def __init__(
        self,
        database: Database,
        clock_ms: Callable[[], float],
        entropy: Callable[[int], bytes],
        open_file: Callable[[], IO[bytes]] = TemporaryFile,
        beside: Beside = at_once,
    ) -> None:
        self.fills: dict[str, Fill] = {}
        self._open_file = open_file
        self._beside = beside
        self._database = database
        self._clock_ms = clock_ms
        self._entropy = entropy
        self._epoch = database.epoch
        self._numbers: dict[int, str] = {}
        self._marks: dict[str, bytes] = {}
        self._kept: list[int] = []

    def begin(self, numbers: dict[str, int]) -> Steps:
        """Make a hidden table for each name, with the table number that its ids have.

        Raises: ClientError `TableConflict` where a number belongs to a table that stays as it is.
        """
        database = self._database
        catalog = database.catalog
        for name, number in numbers.items():
            other = catalog.numbers.get(number)
            if other is not None and other.name != name and other.name not in numbers:
                raise ClientError(
                    "TableConflict",
                    f"New table `{name}` has IDs that conflict with existing table `{other.name}`: both have number "
                    f"{number}. Remove the `_id` fields, or import into a new deployment.",
                )
        self._numbers = {
            **{table.number: name for name, table in catalog.tables.items() if name not in numbers},
            **{number: name for name, number in numbers.items()},
        }
        snapshot = database.engine.snapshot()
        try:
            raw = snapshot.get(Tree.META, NEXT_NUMBER_KEY)
        finally:
            snapshot.close()
        first = max(IMPORTED_NUMBER_FIRST, database.imported_next, 0 if raw is None else int.from_bytes(raw, "big"))
        counter = iter(range(first, 1 << 32))
        made: list[tuple[Table | None, Table]] = []
        building = unbuilt(database).keys()
        for name, number in numbers.items():
            source = catalog.tables.get(name)
            if source is not None and not building.isdisjoint([index.number for index in source.hidden]):
                raise ClientError(
                    "ImportOverlapped", f"An index of table {name} is being built. Import when the deploy is done."
                )
            space = next(counter)
            pattern = source or Table(number, name, 0, 0, {}, None)
            made.append((source, moved_table(pattern, number, space, lambda: next(counter))))
        database.imported_next = next(counter)
        writes: list[Write] = [(Tree.META, NEXT_NUMBER_KEY, database.imported_next.to_bytes(_NUMBER_BYTES, "big"))]
        for _, table in made:
            keep_space(database, table.space)
            self._kept.append(table.space)
            self._marks[table.name] = mark_key(table.space)
            writes.append(mark(table))
        for source, table in made:
            runs = SortedRuns(self._open_file, self._beside)
            self.fills[table.name] = Fill(
                database, source, table, self._numbers.get, self._clock_ms, self._entropy, runs
            )
        marked = database.engine.commit(writes)
        yield marked
        marked.result()

    def switch(self, call_record: bytes, also: Sequence[Write] = ()) -> Steps:
        """Put the hidden tables in place, in one commit that writes `also` too. Whoever drives this holds the lane, and
        nothing is pending.

        Raises: SystemFault where storage failed meanwhile; ClientError `ImportOverlapped` where a table got another
        schema, or a number was taken.
        """
        database = self._database
        catalog = database.catalog
        if database.epoch != self._epoch:  # what was mirrored may be lost
            raise SystemFault("StorageFailed", "Storage failed while the import ran; import again.")
        dropped: list[Table] = []
        tables: list[Table] = []
        for name, fill in self.fills.items():
            present = catalog.tables.get(name)
            owner = catalog.numbers.get(fill.table.number)
            is_taken = owner is not None and owner.name not in self.fills
            if is_taken or (present is None) != (fill.source is None) or not _is_same(present, fill.source):
                raise ClientError(
                    "ImportOverlapped",
                    f"Table {name} was created, or its schema changed, while the import ran. Import it again.",
                )
            if present is not None:
                dropped.append(present)
            tables.append(fill.table)
        after = catalog.with_tables(tables)
        switched = _Switched()

        def writes(commit_ts: int) -> list[Write]:
            for table in tables:
                table.since_ts = commit_ts
                for index in table.stored:
                    index.since_ts = commit_ts
            out: list[Write] = [(Tree.META, TABLE_PREFIX + table.name.encode(), dump_table(table)) for table in tables]
            out += [(Tree.META, mark, None) for mark in self._marks.values()]
            out += [counted for fill in self.fills.values() for counted in fill.tally.writes()]
            out += [*[mark(table) for table in dropped], *also]
            if after.schema is not None:
                stamp = commit_ts.to_bytes(_TIMESTAMP_BYTES, "big")
                out.append((Tree.META, SCHEMA_KEY, stamp + orjson.dumps(after.schema)))
            return out

        database.switch_catalog(after, writes, call_record, database.newest_ts, switched)
        barrier = database.engine.commit([])
        yield barrier
        while switched.outcome is None:
            yield None
        if isinstance(switched.outcome, BaseException):
            raise switched.outcome

    def close(self) -> None:
        """End it, whatever became of it; a second time is no error."""
        for fill in self.fills.values():
            fill.close()
        while self._kept:
            leave_space(self._database, self._kept.pop())


class _Switched:
    """What became of the switch, None until it is known."""

    def __init__(self) -> None:
        self.outcome: int | BaseException | None = None

    def __call__(self, outcome: int | BaseException) -> None:
        self.outcome = outcome


def _is_same(present: Table | None, source: Table | None) -> bool:
    return present is source or (present is not None and source is not None and present.is_same(source))


__all__ = ["Conflict", "Fill", "Fills", "Judged", "clear_imported", "has_garbage", "keep_space", "leave_space"]
