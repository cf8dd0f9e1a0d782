"""The database of one deployment: where transactions begin, commit and become durable.

Committing gives a timestamp, puts the writes into the overlay for the next transaction of the lane, and hands them
to storage in the loop's next turn, together with those of the mutations that run until then: a sync costs the same
for one commit and for many, and a lone mutation waits for nobody. When storage says that a group is durable, the loop
thread takes those commits out of the overlay, renews the snapshot and tells the callers. Nobody is told earlier:
also a mutation that wrote nothing waits for the pending commits it looked at.

When storage fails, every pending commit failed: the overlay is dropped, the catalog goes back to what is durable,
transactions that began before are refused as conflicts, and the callers of the failed commits get the error.

Concurrency: the loop thread only, except `begin(detached=True)` and what is done with such a transaction before its
commit.
"""

import logging
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from hashlib import blake2b
from threading import Lock
from typing import Final

from skerry.database.catalog import Catalog
from skerry.database.catalog_store import TABLE_PREFIX, counted_up_to, load_catalog
from skerry.database.commit_log import CommitRecord, commit_writes, drop_from_overlay
from skerry.database.commit_time import resolve_commit_ts
from skerry.database.detached_marks import DetachedMarks
from skerry.database.document_write import DocumentWrite
from skerry.database.index_kinds import dump_table
from skerry.database.long_looks import LongLooks
from skerry.database.overlay import Overlay
from skerry.database.past import bound_past, past_snapshot
from skerry.database.pending import UNSENT, OnDurable, Pending, last_commit_ts, tell
from skerry.database.plan_cache import PlanCache
from skerry.database.read_set import ReadSet
from skerry.database.schema_change import apply_schema
from skerry.database.search_counts import Counts, added, difference
from skerry.database.space_used import SpaceUsed
from skerry.database.transaction import Transaction
from skerry.database.view import GuardedSnapshot, View
from skerry.database.write_log import Conflict, WriteLog
from skerry.errors import SkerryError, SystemFault
from skerry.limits import (
    COMMITS_PENDING_BYTES_MAX,
    COMMITS_PENDING_MAX,
    COMMITS_TOGETHER_BYTES_MAX,
    COMMITS_TOGETHER_MAX,
    STORAGE_MAP_FILLING_PERCENT,
    STORAGE_MAP_URGENT_PERCENT,
)
from skerry.storage import StorageEngine, StorageSnapshot, Tree, Write

Mirror = Callable[[list[Write], DocumentWrite, int], None]
"""Adds to a commit's writes what one of its documents means for a copy of its table; the commit's timestamp."""

Also = Callable[[int], list[Write]]

_log: Final = logging.getLogger("skerry.database")
_CURSOR_KEY_BYTES: Final = 64
_NS_PER_MS: Final = 1_000_000


class Database:
    """One deployment's database over a storage engine.

    Shape: `clock_ns` gives the time of a commit, `cursor_key` (any length) authenticates cursors,
    `call_soon_threadsafe` runs a function on the loop thread, and `call_soon`, for calls from that thread itself, in
    its next turn. What is in `on_commit` sees each commit once it is durable, before its caller does. `counted_up_to`
    has, for each search index that is being built, the document key up to which documents are in its counts; who builds
    it says so. `is_busy` says whether calls are made while long work goes on; who drives such work says so.
    """

    def __init__(
        self,
        engine: StorageEngine,
        *,
        clock_ns: Callable[[], int],
        call_soon_threadsafe: Callable[[Callable[[], None]], object],
        cursor_key: bytes,
        call_soon: Callable[[Callable[[], None]], object] | None = None,
    ) -> None:
        self.engine = engine
        self.on_commit: list[Callable[[CommitRecord], None]] = []
        self.is_busy = False
        self.mirrors: dict[int, Mirror] = {}
        self.kept_spaces: dict[int, int] = {}
        self.imported_next = 0
        self.watchers: list[Callable[[dict[bytes, DocumentWrite]], None]] = []
        self.page_key = blake2b(cursor_key, digest_size=_CURSOR_KEY_BYTES, person=b"skerry cursor").digest()
        self._clock_ns = clock_ns
        self._call_soon_threadsafe = call_soon_threadsafe
        self._call_soon = call_soon or call_soon_threadsafe
        self._pending: deque[Pending] = deque()
        self._pending_bytes = 0
        self.space = SpaceUsed()
        self._unsent: list[Write] = []
        self._unsent_commits = 0
        self._unsent_bytes = 0
        self._detached = DetachedMarks()
        self._recovery_lock = Lock()
        self.looks = LongLooks(engine, self._recovery_lock)
        self._epoch = 0
        self._plans = PlanCache()
        self._warned_percent = 0
        snapshot = engine.snapshot()
        self.counted_up_to = counted_up_to(snapshot)
        self._view = View(snapshot, Overlay())
        self._catalog = load_catalog(snapshot)
        self._last_ts = last_commit_ts(snapshot)
        self._log = WriteLog(self._last_ts)
        # One tuple, because other threads read both and must not see one of them older than the other.
        self._durable = (self._last_ts, self._catalog)
        self._creation_floor_ms = self._last_ts / _NS_PER_MS
        engine.on_group_durable = self._wake

    @property
    def durable_ts(self) -> int:
        """The timestamp of the newest durable commit, in nanoseconds."""
        return self._durable[0]

    @property
    def catalog(self) -> Catalog:
        """The newest catalog, which pending commits may have changed."""
        return self._catalog

    @property
    def epoch(self) -> int:
        """How often storage has failed, and went back to what was durable."""
        return self._epoch

    @property
    def durable_catalog(self) -> Catalog:
        """The catalog of the newest durable commit."""
        return self._durable[1]

    @property
    def oldest_ts(self) -> int:
        """No transaction looks at a state before this one. Any thread."""
        return self._detached.oldest(self.durable_ts)

    def snapshot_beside(self) -> StorageSnapshot:
        """A snapshot of the newest durable state for another thread, to be read in chunks and closed.

        It is lost when the storage grows or is opened again (SystemFault `SnapshotGone`); `renew` brings it back.
        """
        with self._recovery_lock:
            return GuardedSnapshot(self.engine.snapshot(), self._recovery_lock)

    @property
    def n_pending(self) -> int:
        """How many commits wait for storage."""
        return len(self._pending)

    def begin(
        self,
        *,
        writable: bool,
        now_ms: float,
        seed: bytes,
        detached: bool = False,
        journal: str | None = None,
        at_ts: int | None = None,
    ) -> Transaction:
        """A new transaction.

        Shape: not writable, over the durable state; writable, over the newest state including pending commits (the
        lane); detached, over the durable state with a snapshot of its own, on any thread. `seed` has at least 16
        secret bytes, different for each transaction. `now_ms` may be raised for a writable one, so that creation
        times never go backwards: take `Transaction.now_ms` for the call's clock and its record. `at_ts`, for one that
        is not writable, is the timestamp whose state it reads.

        Raises: SystemFault StorageFailed, while storage cannot be reopened; SystemFault `OutOfRetention`, ClientError
        `TimestampInFuture`.
        """
        if writable and now_ms <= self._creation_floor_ms:
            now_ms = self._creation_floor_ms
        if detached:
            transaction = self._begin_detached(writable, now_ms, seed, journal, at_ts)
            transaction.usage.is_full = self.space.is_full
            return transaction
        if self.engine.failed is not None:
            self._reopen()
        view = self._view
        snapshot: StorageSnapshot = view.snapshot
        if at_ts is not None:
            snapshot = past_snapshot(snapshot, self._durable[1], at_ts, self._durable[0])
        view.users += 1
        overlay = None
        if writable:
            if self._pending:
                overlay = view.overlay
                view.lane_users += 1
            catalog, begin_ts = self._catalog, self._last_ts
        else:
            begin_ts, catalog = self._durable
            if at_ts is not None:
                begin_ts = at_ts
        transaction = Transaction(
            view,
            snapshot,
            overlay,
            catalog,
            self._plans,
            writable=writable,
            detached=False,
            now_ms=now_ms,
            seed=seed,
            begin_ts=begin_ts,
            epoch=self._epoch,
            page_key=self.page_key,
            journal=journal,
        )
        if writable and self.space.is_full:
            transaction.usage.is_full = True
        if at_ts is not None:
            bound_past(snapshot, transaction.usage)
        return transaction

    def storage_looked_at(self, used_bytes: int, bytes_max: int | None) -> None:
        """Takes note of what the durable data take and may take (None: whatever the disk gives)."""
        self.space.looked_at(used_bytes + self._pending_bytes, bytes_max)

    def commit(
        self, transaction: Transaction, call_record: bytes, on_durable: OnDurable, also: Also | None = None
    ) -> None:
        """Commit a transaction; `on_durable` gets its timestamp once it is durable, or the error that prevented it.

        What `also` gives for the timestamp is written with it, unless it writes nothing.

        A transaction that wrote nothing writes nothing; its timestamp is the one it began at, and `on_durable` may
        be called before this returns. The transaction has ended either way.

        Raises: Conflict, where what it read has changed; SystemFault CommitterFullError; nothing was written then.
        """
        transaction.view.leave(transaction)
        if transaction.epoch != self._epoch and not transaction.detached:
            raise Conflict("The storage failed while the transaction ran.")
        written = transaction.write_set
        if not written and not transaction.created:
            self._tell_after(transaction.begin_ts, on_durable)
            return
        if transaction.detached or transaction.begin_ts != self._last_ts:
            self._log.check(transaction, self._catalog)
        if len(self._pending) >= COMMITS_PENDING_MAX or self._pending_bytes >= COMMITS_PENDING_BYTES_MAX:
            raise SystemFault("CommitterFullError", "Too many commits wait for storage; try again in a moment.")
        self._apply(transaction, written, call_record, on_durable, also)

    def conclude(self, transaction: Transaction, on_durable: OnDurable) -> None:
        """End a transaction without writing, and call back once all it may have looked at is durable, or lost.

        For a mutation that failed on its own: its error may tell of commits that are not durable yet.
        """
        transaction.view.leave(transaction)
        if transaction.epoch == self._epoch or transaction.detached:
            self._tell_after(transaction.begin_ts, on_durable)
        else:
            on_durable(Conflict("The storage failed while the transaction ran."))

    def drain(self) -> None:
        """Take in what storage has made durable, or failed, and tell the callers; runs after each group."""
        failure = self.engine.failed
        done = self._take_in()
        if self.engine.filling_percent >= STORAGE_MAP_FILLING_PERCENT and self._grow():
            done += self._take_in()
        lost: list[Pending] = []
        if failure is not None:
            lost = list(self._pending)
            self._recover()
        tell(done, lost, failure)

    def make_room(self) -> bool:
        """Let storage reserve more space where it fills up, before a commit fails for want of it; whether it did.

        It ends every snapshot, so it waits for a moment without transactions: on the loop thread always, beside the
        lane while there is time for that. Blocks for a sync at most. The caller is not within a transaction.
        """
        if not self._grow():
            return False
        tell(self._take_in(), [], None)
        return True

    def leave_old_file(self) -> None:
        """Reads from the file that compaction has put in place, so that the one before can go. The loop thread."""
        if self._view.users and not self._pending:
            self._fork_view()
        elif not self._pending:  # else the next group that is durable renews the snapshot
            self._view.snapshot.renew()

    def _take_in(self) -> list[Pending]:
        """Move on to what storage has made durable; the commits whose callers are to be told."""
        durable, pending = self.engine.durable_sequence, self._pending
        done: list[Pending] = []
        while pending and pending[0].sequence <= durable:
            done.append(pending.popleft())
        if done:
            self._advance(done)
        return done

    def _grow(self) -> bool:
        """As `make_room`; the new snapshot holds all that is durable, so `_take_in` must follow at once."""
        engine, percent = self.engine, self.engine.filling_percent
        if percent < STORAGE_MAP_FILLING_PERCENT or engine.failed is not None or self._view.users:
            return False
        if percent < STORAGE_MAP_URGENT_PERCENT and (self._pending or self._detached or self.looks.count):
            return False
        try:
            with self._recovery_lock:
                engine.grow()
        except SystemFault as fault:
            if engine.failed is None and percent > self._warned_percent:
                self._warned_percent = percent
                _log.warning("the storage is %d%% full and cannot grow: %s", percent, fault.message)
            return False
        self._view.snapshot.renew()
        return True

    def flush(self) -> None:
        """Wait until nothing is pending, and tell the callers. Blocks. Raises: SystemFault of storage."""
        if self._pending:
            self._send()
            try:
                self.engine.commit([]).result()
            finally:
                self.drain()

    def apply_schema(self, raw: bytes, also: Sequence[Write] = ()) -> None:
        """All of a `SchemaChange` at one go, background work included. Blocks until it is durable.

        Raises: as the change's methods.
        """
        apply_schema(self, raw, also)

    def has_touched(self, reads: ReadSet, since_ts: int, until_ts: int) -> bool:
        """Whether a commit after the one timestamp, up to the other, changed what was read, or may have.

        Limits: it is known of what was read by a transaction that has just ended; of older ones it may be forgotten.
        """
        return self._log.has_touched(reads, since_ts, until_ts)

    def stored_in_meta(self, key: bytes) -> bytes | None:
        """What is durable under a key of the tree of single values."""
        return self._view.snapshot.get(Tree.META, key)

    @property
    def newest_ts(self) -> int:
        """The timestamp of the newest commit, which may be pending."""
        return self._last_ts

    @property
    def newest(self) -> View:
        """The newest state, pending commits included, until the loop's next turn."""
        return self._view

    def submit_behind(self, writes: list[Write]) -> Future[None]:
        """Hand writes beside transactions to storage, behind all that was committed: durable only if that is."""
        self._send()
        return self.engine.commit(writes)

    def switch_catalog(
        self,
        catalog: Catalog,
        writes: Callable[[int], list[Write]],
        call_record: bytes,
        since_ts: int,
        on_durable: OnDurable,
    ) -> None:
        """Commit a new catalog by itself; `on_durable` is called as by `commit`, and no mutation begins before that.

        Raises: Conflict, where there was another commit after `since_ts`.
        """
        if self._pending or self._last_ts != since_ts:
            raise Conflict("Documents changed while the schema was being applied.")
        commit_ts = self._last_ts = max(self._clock_ns(), since_ts + 1)
        batch = writes(commit_ts)
        commit_writes(batch, {}, {}, commit_ts, call_record, self._view.overlay)
        catalog.schema_ts = commit_ts
        self._catalog = catalog
        self._pending.append(Pending(CommitRecord(commit_ts, [], [], 0, call_record), {}, catalog, 0, on_durable))
        self._unsent.extend(batch)
        self._unsent_commits += 1
        self._send()

    def reserve_table_number(self) -> int:
        """A table number that no table gets by itself any more, until the process ends or storage fails."""
        now = self._catalog
        self._catalog = now.with_numbers_reserved(1)
        return now.next_table

    def is_document_pending(self, key: bytes) -> bool:
        """Whether a commit that is not durable yet writes this document."""
        return key in self._view.overlay.documents

    def add_counts(self, number: int, more: Counts) -> Write:
        """What stores the counts of a search index with so much added; goes to storage before anything else does."""
        return added(self._view.overlay, self._view.snapshot, number, more)

    def is_key_pending(self, index_number: int, key: bytes) -> bool:
        """Whether a commit that is not durable yet changes an index key."""
        layer = self._view.overlay.indexes.get(index_number)
        return layer is not None and key in layer.entries

    # -- commit ------------------------------------------------------------------------------------------------------

    def _apply(
        self,
        transaction: Transaction,
        written: list[DocumentWrite],
        call_record: bytes,
        on_durable: OnDurable,
        also: Also | None,
    ) -> None:
        view = self._view
        if view.lane_users:
            view = self._fork_view()
        commit_ts = self._last_ts = max(self._clock_ns(), self._last_ts + 1)
        if transaction.stamped:
            resolve_commit_ts(transaction.writes, transaction.layers, transaction.stamped, commit_ts)
        beside = () if also is None else also(commit_ts)  # what this raises leaves nothing of the commit
        writes = self._unsent
        commit_writes(writes, transaction.writes, transaction.layers, commit_ts, call_record, view.overlay)
        if self.mirrors:
            for write in written:
                mirror = self.mirrors.get(write.table.space)
                if mirror is not None:
                    mirror(writes, write, commit_ts)
        for number, lengths in transaction.lengths.items():
            writes.append(self.add_counts(number, difference(lengths, self.counted_up_to.get(number))))
        for watch in self.watchers:
            watch(transaction.writes)
        writes.extend(beside)
        catalog = self._catalog
        if transaction.created:
            catalog = self._catalog = transaction.catalog
            writes.extend(
                [(Tree.META, TABLE_PREFIX + table.name.encode(), dump_table(table)) for table in transaction.created]
            )
        if transaction.last_creation > self._creation_floor_ms:
            self._creation_floor_ms = transaction.last_creation
        usage = transaction.usage
        size = usage.bytes_written + usage.index_bytes + len(call_record)
        record = CommitRecord(commit_ts, written, transaction.created, size, call_record)
        if beside:
            size += sum([len(key) + len(value or b"") for _, key, value in beside])
        self._pending.append(Pending(record, transaction.layers, catalog, size, on_durable))
        self._pending_bytes += size
        self.space.used_bytes += size
        self._log.append(record)
        self._unsent_bytes += size
        self._unsent_commits += 1
        if self._unsent_commits >= COMMITS_TOGETHER_MAX or self._unsent_bytes >= COMMITS_TOGETHER_BYTES_MAX:
            self._send()
        elif self._unsent_commits == 1:
            self._call_soon(self._send)

    def _send(self) -> None:
        """Hand the commits that have gathered to storage, as one batch."""
        if not self._unsent_commits:
            return
        writes, self._unsent = self._unsent, []
        self._unsent_commits = self._unsent_bytes = 0
        try:
            sequence = self.engine.submit(writes)
        except SkerryError as error:  # the engine is closed: no transaction will commit any more
            lost: list[Pending] = []
            while self._pending and self._pending[-1].sequence == UNSENT:
                lost.insert(0, self._pending.pop())
            tell([], lost, error)
            return
        for entry in reversed(self._pending):
            if entry.sequence != UNSENT:
                break
            entry.sequence = sequence

    def _tell_after(self, timestamp: int, on_durable: OnDurable) -> None:
        for entry in reversed(self._pending):
            if entry.record.commit_ts <= timestamp:
                entry.callbacks.append(on_durable)
                return
        on_durable(timestamp)

    # -- becoming durable --------------------------------------------------------------------------------------------

    def _wake(self) -> None:
        self._call_soon_threadsafe(self.drain)

    def _advance(self, done: list[Pending]) -> None:
        """Move on to a state in which these commits are durable, and those that the new snapshot holds besides."""
        view = self._view
        if view.users:
            view = self._fork_view()
        else:
            view.snapshot.renew()
        pending = self._pending
        if pending:
            # Storage may have made more durable meanwhile; queries must know exactly what their snapshot holds.
            snapshot_ts = last_commit_ts(view.snapshot)
            while pending and pending[0].record.commit_ts <= snapshot_ts:
                done.append(pending.popleft())
        last = done[-1]
        self._durable = (last.record.commit_ts, last.catalog)
        for entry in done:
            self._pending_bytes -= entry.size
        if pending:
            for entry in done:
                drop_from_overlay(view.overlay, entry.layers, entry.record.documents(), entry.record.commit_ts)
        else:
            view.overlay.clear()
        self._log.trim(min(self._detached.oldest(self.durable_ts), self.durable_ts))
        for told in self.on_commit:
            for entry in done:
                told(entry.record)

    def _fork_view(self) -> View:
        """A new view of the newest state for those who come, leaving the old one to those who are there."""
        old = self._view
        self._view = View(self.engine.snapshot(), old.overlay.copy() if old.lane_users else old.overlay)
        old.retire()
        return self._view

    def _reopen(self) -> None:
        """Take in a failure of storage before anything else begins."""
        self.drain()
        if self.engine.failed is not None:
            raise SystemFault("StorageFailed", "The storage of this deployment cannot be reopened; try again later.")

    def _recover(self) -> None:
        """Go back to the durable state after storage failed."""
        self._epoch += 1
        self._pending.clear()
        self._pending_bytes = 0
        self._unsent = []
        self._unsent_commits = self._unsent_bytes = 0
        self._log.clear(self._last_ts)
        self._catalog = self._durable[1]
        old = self._view
        try:
            with self._recovery_lock:
                self.engine.recover()
        except SkerryError:
            # The engine stays failed, so the next begin tries again; meanwhile the callers must hear of their commits.
            return
        self._view = View(self.engine.snapshot(), Overlay())
        self.counted_up_to = counted_up_to(self._view.snapshot)
        old.retire()

    # -- detached transactions ---------------------------------------------------------------------------------------

    def _begin_detached(
        self, writable: bool, now_ms: float, seed: bytes, journal: str | None, at_ts: int | None
    ) -> Transaction:
        mark = self._detached.set(self.durable_ts)
        snapshot: StorageSnapshot | None = None
        try:
            snapshot = self.snapshot_beside()
            begin_ts = last_commit_ts(snapshot)
            durable_ts, catalog = self._durable
            if begin_ts != durable_ts:
                catalog = load_catalog(snapshot)
            seen: StorageSnapshot = snapshot
            if at_ts is not None:
                seen, begin_ts = past_snapshot(snapshot, catalog, at_ts, begin_ts), at_ts
        except BaseException:
            if snapshot is not None:
                snapshot.close()
            self._detached.drop(mark)
            raise
        view = View(snapshot, Overlay(), lambda: self._detached.drop(mark))
        view.users, view.retired = 1, True
        transaction = Transaction(
            view,
            seen,
            None,
            catalog,
            PlanCache(),
            writable=writable,
            detached=True,
            now_ms=now_ms,
            seed=seed,
            begin_ts=begin_ts,
            epoch=self._epoch,
            page_key=self.page_key,
            journal=journal,
        )
        if at_ts is not None:
            bound_past(seen, transaction.usage)
        return transaction
