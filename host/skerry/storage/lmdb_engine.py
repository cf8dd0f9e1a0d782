"""The embedded storage engine: one LMDB environment per deployment, one thread that writes.

Threads. `commit` and `submit` put a batch on a queue and return. The writer thread owns every write transaction (LMDB
binds them to a thread): it takes all that is queued as one group, merges it per tree (the last write to a key wins),
puts it in key order, commits with a sync, and only then completes the futures. Readers never wait for it. `recover`,
`grow` and `close` travel through the same queue, so what was queued before them is settled before them.

Failure. Any error in a group fails the group, and the engine is `failed`: all that is queued behind fails too, until
`recover()` has reopened the environment. LMDB writes its root page only after the data is synced, so nothing of a
failed group is ever reachable.

Compaction. `compact` makes the file as small as its data while commits and reads go on, and puts the copy in the file's
place on the writer thread (`compaction`). No snapshot ends for it: each goes on reading the file it began in.

Map. The map is reserved sparse within the process's `AddressSpace`. Its size changes only in `recover` and `grow`, on
the writer thread with no transaction open: every snapshot is ended first, its next use raises SnapshotGone, and
`renew()` brings it back. The engine says how full the map is; when to grow it is its owner's to decide.

Deliberately absent: two openings of one environment in a process (LMDB forbids it; the folder's lock refuses it),
and when to compact: its owner decides.
"""

import logging
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import NamedTuple

import lmdb

from skerry.errors import SystemFault
from skerry.limits import (
    STORAGE_GROUP_BATCHES_MAX,
    STORAGE_GROUP_BYTES_MAX,
    STORAGE_MAP_BYTES_INITIAL,
    STORAGE_MAP_BYTES_MAX,
    STORAGE_READERS_MAX,
    STORAGE_SLICE_PAUSE_SECONDS,
    STORAGE_WRITES_PER_SLICE,
)
from skerry.storage.address_space import PROCESS_ADDRESS_SPACE, AddressSpace
from skerry.storage.compaction import Compacted, Copy, remove_copy
from skerry.storage.environment import DATA_FILE, Home, map_bytes_for
from skerry.storage.folder import DeploymentFolder, Hold
from skerry.storage.full_disk import write_fault
from skerry.storage.interface import Tree, Write
from skerry.storage.lmdb_snapshot import LmdbSnapshot
from skerry.storage.write_group import checked_size_of, merge, slices

_log = logging.getLogger(__name__)


class StorageUsage(NamedTuple):
    """What an environment takes. Units: bytes, `free_bytes` of them of no use; readers are open snapshots."""

    used_bytes: int
    free_bytes: int
    map_bytes: int
    readers: int


class _Command:
    """Work for the writer thread other than a batch: what to do and where to answer."""

    __slots__ = ("answer", "copy", "name")

    def __init__(self, name: str, copy: Copy | None = None) -> None:
        self.name = name
        self.copy = copy
        self.answer: Future[None] = Future()


class _After:
    """A batch that is written only where nothing was since a change, and whom to tell whether it was."""

    __slots__ = ("answer", "change", "writes")

    def __init__(self, change: int, writes: Sequence[Write]) -> None:
        self.change = change
        self.writes = writes
        self.answer: Future[bool] = Future()


_Batch = tuple[int, int, Sequence[Write], Future[None] | None]  # number, bytes, writes, whom to tell


class LmdbEngine:
    """The LMDB environment of one deployment; see `StorageEngine`.

    Raises: SystemFault DataFolderInUse, DataFolderFormat, StorageFull (address space), StorageFailed (cannot be
    opened).
    """

    def __init__(
        self,
        path: Path,
        *,
        map_bytes: int = STORAGE_MAP_BYTES_INITIAL,
        map_bytes_max: int = STORAGE_MAP_BYTES_MAX,
        group_bytes_max: int = STORAGE_GROUP_BYTES_MAX,
        address_space: AddressSpace = PROCESS_ADDRESS_SPACE,
        folder_format: str = DeploymentFolder.FORMAT,
        hold: Hold = Hold.ALONE,
        lock_seconds_max: float = 0,
        pause: Callable[[float], None] = time.sleep,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self.on_group_durable: Callable[[], None] | None = None
        self.durable_sequence = 0
        self.filling_percent = 0
        self._failed: SystemFault | None = None
        self._map_bytes_max = map_bytes_max
        self._group_bytes_max = group_bytes_max
        self._address_space = address_space
        self._pause = pause
        self._seconds = seconds
        self._is_alone = hold is Hold.ALONE
        self._compacting = threading.Lock()
        self._copy: Copy | None = None
        self._retired: list[Home] = []
        self._submitted = 0
        self._closed = False
        self._lock = threading.Lock()
        self._snapshots: weakref.WeakSet[LmdbSnapshot] = weakref.WeakSet()
        self._queue: SimpleQueue[_Batch | _Command | _After] = SimpleQueue()
        self._folder = DeploymentFolder(path, folder_format, hold, lock_seconds_max)
        try:
            if self._is_alone:
                remove_copy(self._folder.trees)
            self._home = self._opened(map_bytes_for(self._folder.trees, map_bytes, map_bytes_max))
        except BaseException:
            self._folder.close()
            raise
        self._thread = threading.Thread(target=self._run, name=f"storage {path.name}", daemon=True)
        self._thread.start()

    @property
    def failed(self) -> SystemFault | None:
        return self._failed

    @property
    def usage(self) -> StorageUsage:
        home = self._home
        return StorageUsage(home.file_bytes(), home.free_bytes(), home.map_bytes, len(self._snapshots))

    def data_bytes(self) -> int:
        """The pages that the trees fill, as LMDB counts them: what is free inside the file is not among them.

        Concurrency: the thread that may call `recover`; not while `failed` is set.
        """
        return self._home.data_bytes()

    def items(self) -> dict[Tree, int]:
        """The number of items in each tree. Concurrency: as `data_bytes`."""
        return self._home.items()

    def snapshot(self) -> LmdbSnapshot:
        with self._lock:
            if len(self._snapshots) >= STORAGE_READERS_MAX:
                raise SystemFault("TooManySnapshots", f"{STORAGE_READERS_MAX} snapshots are open; try again.")
            snapshot = LmdbSnapshot(self)
            self._snapshots.add(snapshot)
        return snapshot

    def commit(self, writes: Sequence[Write]) -> Future[None]:
        future: Future[None] = Future()
        self._enqueue(writes, future)
        return future

    def submit(self, writes: Sequence[Write]) -> int:
        """Queue a batch without a future: it is durable once `durable_sequence` has reached the number returned.

        When `failed` is set, every number above `durable_sequence` has failed or will fail.
        """
        return self._enqueue(writes, None)

    @property
    def last_change(self) -> int:
        """The number of the last durable group, of whichever process; a snapshot taken after this has it in it.

        What `info` says would not do: a writer makes that number known before readers see what it wrote.
        """
        with self._home.env.begin() as txn:
            return txn.id()

    def commit_after(self, change: int, writes: Sequence[Write]) -> "Future[bool]":
        """Queue a batch that is written only if the last change, of whichever process, is still the given one.

        Shape: the future says whether it was; it is then the change after that one. One writing transaction of the
        storage decides and writes, so of two processes that read the same state one is told no.
        Raises: through the future, as `commit`. Concurrency: as `commit`.
        """
        checked_size_of(writes)
        entry = _After(change, writes)
        with self._lock:
            if self._closed:
                raise SystemFault("StorageFailed", "The storage engine is closed.")
            self._queue.put(entry)
        return entry.answer

    def recover(self) -> None:
        self._command("recover")

    def grow(self) -> None:
        """Double the map. Same concurrency as `recover`; only while `failed` is None.

        Raises: SystemFault StorageFull at the largest map or at the address space budget.
        """
        self._command("grow")

    def clear_stale_readers(self) -> int:
        """Free reader slots of processes that died; the number freed. Call now and then; done at every opening."""
        return self._home.env.reader_check()

    @property
    def is_compacting(self) -> bool:
        """Whether a copy is being made."""
        return self._compacting.locked()

    def compact(self) -> Compacted:
        """Makes the file as small as its data. Blocks for as long as a copy takes; commits and reads go on.

        Raises: SystemFault `CompactionInProgress`; `CompactionFailed` or `StorageFull`, and nothing has changed then.
        Concurrency: any thread but the one that calls `recover`, `grow` and `close`. One of these ends the attempt.
        """
        assert self._is_alone, "what other processes have open cannot change its file"
        if not self._compacting.acquire(blocking=False):
            raise SystemFault("CompactionInProgress", "The storage is being compacted already; wait for that to end.")
        copy: Copy | None = None
        try:
            before_bytes = self._home.file_bytes()
            copy = Copy(self._folder.trees, self._pause, self._seconds)
            copy.check_room(self._home.data_bytes())
            self._command("begin copy", copy)
            copy.copy(self._home)
            map_bytes = map_bytes_for(copy.folder, self._home.map_bytes, self._map_bytes_max)
            copy.home = Home(copy.folder, map_bytes, self._address_space)
            copy.catch_up()
            begin = self._seconds()
            self._command("end copy", copy)
            return Compacted(before_bytes, copy.home.file_bytes(), self._seconds() - begin)
        finally:
            self._copy = None
            if copy is not None:
                copy.discard()
            self._compacting.release()

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
        command = _Command("close")
        self._queue.put(command)
        command.answer.result()
        self._thread.join()
        self._folder.close()

    # -- for snapshots ---------------------------------------------------------------------------------------------

    def home(self) -> Home:
        """The environment to read, entered."""
        while True:
            home = self._home
            if home.enter():
                return home
            if home is self._home:
                raise SystemFault("SnapshotGone", "The storage is closed; begin again.")

    def forget(self, snapshot: LmdbSnapshot) -> None:
        """Drop a closed snapshot from those that a reopening has to end."""
        with self._lock:
            self._snapshots.discard(snapshot)

    # -- any thread ------------------------------------------------------------------------------------------------

    def _enqueue(self, writes: Sequence[Write], future: Future[None] | None) -> int:
        n_bytes = checked_size_of(writes)
        with self._lock:
            if self._closed:
                raise SystemFault("StorageFailed", "The storage engine is closed.")
            self._submitted += 1
            sequence = self._submitted
            self._queue.put((sequence, n_bytes, writes, future))
        return sequence

    def _command(self, name: str, copy: Copy | None = None) -> None:
        command = _Command(name, copy)
        with self._lock:
            if self._closed:
                raise SystemFault("StorageFailed", "The storage engine is closed.")
            self._queue.put(command)
        command.answer.result()

    # -- the writer thread -----------------------------------------------------------------------------------------

    def _run(self) -> None:
        entry: _Batch | _Command | _After | None = None
        while True:
            entry = entry or self._queue.get()
            if isinstance(entry, _After):
                self._write_after(entry)
                entry = None
            elif isinstance(entry, _Command):
                self._obey(entry)
                if entry.name == "close":
                    return
                entry = None
            else:
                group, entry = self._take_group(entry)
                self._settle(group, self._failed or self._write(group))

    def _take_group(self, first: _Batch) -> tuple[list[_Batch], _Batch | _Command | _After | None]:
        """All that is queued, up to the bounds of a group, and what else was taken from the queue, if anything."""
        group = [first]
        group_bytes = first[1]
        get = self._queue.get_nowait
        try:
            while len(group) < STORAGE_GROUP_BATCHES_MAX:
                entry = get()
                if isinstance(entry, _Command | _After):
                    return group, entry
                group_bytes += entry[1]
                if group_bytes > self._group_bytes_max:
                    return group, entry
                group.append(entry)
        except Empty:
            pass
        return group, None

    def _write(self, group: list[_Batch]) -> SystemFault | None:
        """Make a group durable, or say why it is not.

        Between slices the thread sleeps for a moment: a write gives the interpreter up for less time than a waiting
        thread needs to wake, so a large group would hold the loop thread up until it is through.
        """
        try:
            merged = merge(writes for _, _, writes, _ in group)
            dbs = self._home.dbs
            with self._home.env.begin(write=True) as txn:
                n_written = 0
                for tree, piece, is_put in slices(merged):
                    if n_written >= STORAGE_WRITES_PER_SLICE:
                        self._pause(STORAGE_SLICE_PAUSE_SECONDS)
                        n_written = 0
                    n_written += len(piece)
                    db = dbs[tree]
                    if is_put:
                        txn.cursor(db).putmulti(piece)
                        continue
                    for key in piece:
                        txn.delete(key, b"", db)
            copy = self._copy
            if copy is not None:
                for tree, piece, is_put in slices(merged):
                    copy.journal.add(tree, piece, is_put)
        except lmdb.Error as error:
            self._failed = write_fault(error, self._folder.trees / DATA_FILE)
            self._failed.__cause__ = error
        except Exception as error:  # whatever it was, the group is not durable and the thread must live on to say so
            self._failed = SystemFault("StorageFailed", f"Storage could not write: {type(error).__name__}.")
            self._failed.__cause__ = error
        self._look_at_map()
        return self._failed

    def _write_after(self, entry: _After) -> None:
        """Write a batch if nothing came before it."""
        assert not self._is_alone, "a copy that is being made would not hear of it"
        if not entry.answer.set_running_or_notify_cancel():
            return
        if self._failed is not None:
            entry.answer.set_exception(self._failed)
            return
        try:
            txn = self._home.env.begin(write=True)
            try:
                is_next = txn.id() == entry.change + 1
                if is_next:
                    for tree, piece, is_put in slices(merge([entry.writes])):
                        db = self._home.dbs[tree]
                        if is_put:
                            txn.cursor(db).putmulti(piece)
                        else:
                            for key in piece:
                                txn.delete(key, b"", db)
                    txn.commit()
            finally:
                txn.abort()  # nothing, where it was committed
        except lmdb.Error as error:
            self._failed = write_fault(error, self._folder.trees / DATA_FILE)
            self._failed.__cause__ = error
            entry.answer.set_exception(self._failed)
            return
        self._look_at_map()
        entry.answer.set_result(is_next)

    def _look_at_map(self) -> None:
        home = self._home
        is_largest = home.map_bytes >= self._map_bytes_max
        self.filling_percent = 0 if is_largest else home.file_bytes() * 100 // home.map_bytes

    def _settle(self, group: list[_Batch], fault: SystemFault | None) -> None:
        if fault is None:
            self.durable_sequence = group[-1][0]
        for _, _, _, future in group:
            if future is None or not future.set_running_or_notify_cancel():
                continue
            if fault is None:
                future.set_result(None)
            else:
                future.set_exception(fault)
        callback = self.on_group_durable
        if callback is None:
            return
        try:
            callback()
        except Exception:  # the hook is not ours; whatever it raises, the thread must live on to complete futures
            _log.exception("the hook on_group_durable failed")

    def _obey(self, command: _Command) -> None:
        try:
            if command.name == "recover":
                self._recover()
            elif command.name == "grow":
                self._grow()
            elif command.name == "begin copy":
                self._copy = command.copy
            elif command.name == "end copy":
                assert command.copy is not None
                self._switch(command.copy)
            else:
                self._end_use()
                self._home.close()
                for home in self._retired:
                    home.closed.wait()
        except BaseException as error:
            command.answer.set_exception(error)
        else:
            command.answer.set_result(None)

    def _recover(self) -> None:
        cause = self._failed.__cause__ if self._failed else None
        before = map_bytes = self._home.map_bytes
        if isinstance(cause, lmdb.MapFullError):
            map_bytes = min(before * 2, self._map_bytes_max)
        self._end_use()
        self._home.close()
        try:
            try:
                self._home = self._opened(map_bytes)
            except SystemFault:
                if map_bytes == before:
                    raise
                self._home = self._opened(before)  # no room for more: what is there can be read all the same
        except SystemFault as error:
            self._failed = error
            raise
        self._failed = None

    def _grow(self) -> None:
        if self._failed is not None:
            raise self._failed
        home = self._home
        map_bytes = min(home.map_bytes * 2, self._map_bytes_max)
        if map_bytes == home.map_bytes:
            raise SystemFault("StorageFull", f"The storage of this deployment is at its largest, {map_bytes} bytes.")
        self._end_use()
        home.grow(map_bytes)
        self._look_at_map()

    def _switch(self, copy: Copy) -> None:
        """Goes on in the copy. Snapshots of the file that was go on there, and the last of them closes it."""
        if self._failed is not None:
            raise self._failed
        old = self._home
        self._home = copy.finish()
        self._copy = None
        self._retired = [home for home in (*self._retired, old) if not home.closed.is_set()]
        old.retire()
        self._look_at_map()
        if copy.unsynced is not None:  # a crash may bring the old file back: nothing is acknowledged until it is synced
            self._failed = write_fault(copy.unsynced, self._folder.trees / DATA_FILE)
            self._failed.__cause__ = copy.unsynced
            raise self._failed

    def _end_use(self) -> None:
        """Ends whatever uses the environment beside this thread: a copy in the making, snapshots."""
        if self._copy is not None:
            self._copy.cancel()
            self._copy = None
        with self._lock:
            snapshots = list(self._snapshots)
        for snapshot in snapshots:
            snapshot.end()

    def _opened(self, map_bytes: int) -> Home:
        return Home(self._folder.trees, map_bytes, self._address_space)
