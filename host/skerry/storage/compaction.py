"""Making an environment's file as small as its data: a copy beside it, brought up to date, put in its place.

```
journal begins ----> LMDB writes a compacting copy of one snapshot into a new file, at a bounded pace
                     the groups that commit meanwhile are noted in the journal
copy is whole -----> the journal is written into the copy, round by round, until little of it is left
switch ------------> on the writer thread: the rest of the journal, a sync, one rename over the old file
```

Commits and reads go on all the time. What waits is the group that comes while the switch is made; how long that
took is in the outcome. The rename is the moment at which the file is another one, and both files are whole and synced
then, so a crash leaves one or the other. The old file's space is free again when the last snapshot of it ends.

A change of the journal is a put or a delete without a condition, so what the copy holds already does no harm. The
copy goes through a pipe: whoever reads it can set the pace, be told to stop, and see the disk's own error. A full
disk, a journal that grows faster than it can be caught up with, a failing storage: the attempt ends, the copy is
removed, and nothing else has changed.

Deliberately absent: when to do it, which is its owner's decision; environments that several processes share.
"""

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from io import BufferedWriter
from pathlib import Path
from struct import Struct
from typing import Any, Final, NamedTuple

import lmdb

from skerry.errors import SystemFault
from skerry.limits import (
    COMPACTION_DISK_SPARE_BYTES,
    COMPACTION_JOURNAL_BYTES_MAX,
    COMPACTION_PACE_PERCENT,
    COMPACTION_PIECE_BYTES,
    COMPACTION_REST_BYTES,
    COMPACTION_ROUNDS_MAX,
    STORAGE_SLICE_PAUSE_SECONDS,
    STORAGE_WRITES_PER_SLICE,
)
from skerry.storage.environment import DATA_FILE, LOCK_FILE, Home
from skerry.storage.folder import sync_folder
from skerry.storage.full_disk import is_full
from skerry.storage.interface import Item

COPY_FOLDER: Final = "trees.new"
_JOURNAL: Final = "journal"
_HEAD: Final = Struct(">BII")
_DELETED: Final = 0xFFFFFFFF
_BATCH_ITEMS: Final = 4_096


class Compacted(NamedTuple):
    """What a compaction came to. Units: bytes of the file; seconds that the writer was away from its queue."""

    before_bytes: int
    after_bytes: int
    pause_seconds: float


class Journal:
    """What was committed since a copy began, in order, in a file. Written by the writer thread, read by another.

    Shape: `failed` once it could not be kept; the commits themselves know nothing of it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BufferedWriter = path.open("xb")
        self._n_bytes = 0
        self.failed: str | None = None
        self.cause: OSError | None = None

    def add(self, tree: int, piece: list[Any], is_put: bool) -> None:
        """Notes stored pairs, or stored keys that were deleted."""
        if self.failed is not None:
            return
        pack = _HEAD.pack
        parts: list[bytes] = []
        if is_put:
            for key, value in piece:
                parts += (pack(tree, len(key), len(value)), key, value)
        else:
            for key in piece:
                parts += (pack(tree, len(key), _DELETED), key)
        raw = b"".join(parts)
        if self._n_bytes + len(raw) > COMPACTION_JOURNAL_BYTES_MAX:
            self.failed = "more was written meanwhile than can be caught up with"
            return
        try:
            self._file.write(raw)
            self._n_bytes += len(raw)
        except OSError as error:
            self._fail(error)
        except ValueError:  # closed since: the attempt has ended, and what is durable is no matter of the journal's
            self.failed = "the journal was closed"

    def end(self) -> int:
        """How far it can be read by now, in bytes."""
        n_bytes = self._n_bytes
        try:
            self._file.flush()
        except OSError as error:
            self._fail(error)
        return n_bytes

    def read(self, start: int, end: int) -> Iterator[tuple[int, list[Item], list[bytes]]]:
        """The changes in a part of the file, as tree, pairs to put, keys to delete: one of the two is empty."""
        tree, puts, deletes = -1, list[Item](), list[bytes]()
        with self._path.open("rb") as file:
            file.seek(start)
            while file.tell() < end:
                number, key_bytes, value_bytes = _HEAD.unpack(file.read(_HEAD.size))
                key = file.read(key_bytes)
                is_put = value_bytes != _DELETED
                if number != tree or len(puts) + len(deletes) >= _BATCH_ITEMS or (deletes if is_put else puts):
                    if puts or deletes:
                        yield tree, puts, deletes
                    tree, puts, deletes = number, [], []
                if is_put:
                    puts.append((key, file.read(value_bytes)))
                else:
                    deletes.append(key)
        if puts or deletes:
            yield tree, puts, deletes

    def close(self) -> None:
        """Ends the writing; a full disk is no matter any more."""
        try:
            self._file.close()
        except OSError:
            self.failed = "the journal could not be closed"

    def _fail(self, error: OSError) -> None:
        self.failed, self.cause = f"the journal could not be written: {error.strerror}", error


class Copy:
    """A compacting copy in the making, in a folder of its own beside the trees.

    Shape: `cancel` from another thread ends the use of the environment soon and waits for that; `pause` sleeps.
    Raises: SystemFault `StorageFull` where the disk has no room for it, `CompactionFailed` where it cannot be begun.
    """

    def __init__(self, trees: Path, pause: Callable[[float], None], seconds: Callable[[], float]) -> None:
        self.folder = trees.with_name(COPY_FOLDER)
        self.home: Home | None = None
        self.is_in_place = False
        self.unsynced: OSError | None = None
        self._trees = trees
        self._pause = pause
        self._seconds = seconds
        self._cancelled = threading.Event()
        self._copied = threading.Event()
        try:
            remove_copy(trees)
            self.folder.mkdir(0o700)
            self.journal = Journal(self.folder / _JOURNAL)
        except OSError as error:
            raise _failed(f"no copy can be begun: {error.strerror}", error) from error
        self._applied = 0

    def check_room(self, data_bytes: int) -> None:
        """Raises: SystemFault `StorageFull` where the disk cannot take a second copy of the data."""
        disk = os.statvfs(self.folder)
        if disk.f_bavail * disk.f_frsize < data_bytes + COMPACTION_DISK_SPARE_BYTES:
            raise SystemFault(
                "StorageFull",
                f"Compacting needs room for a copy beside the data, {data_bytes} bytes and some more; free disk space.",
            )

    def copy(self, home: Home) -> None:
        """Writes the copy. Raises: SystemFault `StorageFull`, `CompactionFailed`."""
        errors: list[BaseException] = []
        reading, writing = os.pipe()

        def send() -> None:
            try:
                home.env.copyfd(writing, compact=True)
            except BaseException as error:
                errors.append(error)
            finally:
                os.close(writing)

        try:
            descriptor = os.open(self.folder / DATA_FILE, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError as error:
            os.close(reading)
            os.close(writing)
            self._copied.set()
            raise _failed(str(error.strerror), error) from error
        sender = threading.Thread(target=send, name="storage copying", daemon=True)
        sender.start()
        try:
            try:
                self._receive(reading, descriptor)
            finally:
                os.close(reading)  # the sender's next write fails, if there is one
                sender.join()
                self._copied.set()
            if not errors and not self._cancelled.is_set():
                os.fsync(descriptor)
        except OSError as error:
            raise _failed(str(error.strerror), error) from error
        finally:
            os.close(descriptor)
        self._check(errors[0] if errors else None)

    def catch_up(self) -> None:
        """Writes what was committed meanwhile into the copy, until little is left. Raises: as `copy`."""
        for _ in range(COMPACTION_ROUNDS_MAX):
            end = self.journal.end()
            if end - self._applied <= COMPACTION_REST_BYTES:
                return
            self.apply(end)
        raise _failed("more was written meanwhile than can be caught up with", None)

    def apply(self, end: int) -> None:
        """Writes the journal up to a place in it into the copy, durably. Raises: as `copy`."""
        self._check(None)
        home = self.home
        assert home is not None
        try:
            with home.env.begin(write=True) as transaction:
                for tree, puts, deletes in self.journal.read(self._applied, end):
                    _write(transaction, home.dbs[tree], puts, deletes, self._pause)
        except (lmdb.Error, OSError) as error:
            raise _failed(str(error), error, self.folder / DATA_FILE) from error
        self._applied = end

    def cancel(self) -> None:
        """Ends the copying and waits until the environment is not used by it any more. Any thread."""
        self._cancelled.set()
        self._copied.wait()

    @property
    def is_cancelled(self) -> bool:
        return self._cancelled.is_set()

    def finish(self) -> Home:
        """Brings the copy up to date and puts its file where the environment's is. Raises: as `copy`.

        Shape: on the writer thread, with nothing being written. Where the name of the new file cannot be made durable
        that is no error of the copy's: see `unsynced`.
        """
        home = self.home
        assert home is not None
        self.apply(self.journal.end())
        try:
            (self.folder / DATA_FILE).rename(self._trees / DATA_FILE)
        except OSError as error:
            raise _failed(f"its file could not be put in place: {error.strerror}", error) from error
        self.is_in_place = True
        try:
            (self.folder / LOCK_FILE).rename(self._trees / LOCK_FILE)
            sync_folder(self._trees)
        except OSError as error:
            self.unsynced = error
        return home

    def discard(self) -> None:
        """Takes away what is there of it; what is in place stays."""
        self._copied.set()
        self.journal.close()
        if self.home is not None and not self.is_in_place:
            self.home.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _receive(self, reading: int, descriptor: int) -> None:
        """Takes the copy out of the pipe, resting in between in proportion to what each piece took."""
        begin = self._seconds()
        n_bytes = 0
        while not self._cancelled.is_set():
            moved = os.splice(reading, descriptor, COMPACTION_PIECE_BYTES)
            if not moved:
                return
            n_bytes += moved
            if n_bytes >= COMPACTION_PIECE_BYTES:
                os.fdatasync(descriptor)  # in pieces, so that no sync of the deployment's has to wait for all of it
                self._pause((self._seconds() - begin) * (100 - COMPACTION_PACE_PERCENT) / COMPACTION_PACE_PERCENT)
                begin, n_bytes = self._seconds(), 0

    def _check(self, error: BaseException | None) -> None:
        if self._cancelled.is_set():
            raise _failed("the storage had to do something else; it is tried again", error)
        if error is not None:
            raise _failed(str(error), error) from error
        if self.journal.failed is not None:
            raise _failed(self.journal.failed, self.journal.cause)


def remove_copy(trees: Path) -> None:
    """Takes away what a crash left of a copy."""
    shutil.rmtree(trees.with_name(COPY_FOLDER), ignore_errors=True)


def _write(transaction: Any, db: Any, puts: list[Item], deletes: list[bytes], pause: Callable[[float], None]) -> None:
    """Writes one run of changes, in slices, so that other threads get the interpreter in between."""
    for start in range(0, len(puts), STORAGE_WRITES_PER_SLICE):
        transaction.cursor(db).putmulti(puts[start : start + STORAGE_WRITES_PER_SLICE])
        pause(STORAGE_SLICE_PAUSE_SECONDS)
    for at, key in enumerate(deletes):
        transaction.delete(key, b"", db)
        if at % STORAGE_WRITES_PER_SLICE == STORAGE_WRITES_PER_SLICE - 1:
            pause(STORAGE_SLICE_PAUSE_SECONDS)


def _failed(why: str, cause: BaseException | None, file: Path | None = None) -> SystemFault:
    code = "StorageFull" if is_full(cause, file) else "CompactionFailed"
    fault = SystemFault(code, f"The storage was not compacted, and is what it was: {why}.")
    fault.__cause__ = cause
    return fault
