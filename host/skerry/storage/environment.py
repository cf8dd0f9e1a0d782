"""One opened LMDB environment: its file mapped, its trees' handles, and who still reads it.

An engine has one *home* at a time. Compaction gives it another one, over another file; snapshots that were begun in
the old home go on reading there, and the last of them closes it, which also gives its file's space back to the disk.

Opening. No read-ahead (deployments are many and reads are points), every page of the file cleared first (else it holds
what was in freed memory), no writable map (a stray pointer of native code must not reach the file, and measured
commits were not faster), readers not bound to threads.

Concurrency: any thread. Closing may take as long as the disk needs to free a large file, so a home that was retired is
closed on a thread of its own.
"""

import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import lmdb

from skerry.errors import SystemFault
from skerry.limits import STORAGE_LMDB_KEY_BYTES_MAX, STORAGE_READERS_MAX
from skerry.storage.address_space import AddressSpace
from skerry.storage.folder import sync_folder
from skerry.storage.full_disk import write_fault
from skerry.storage.interface import Tree

DATA_FILE: Final = "data.mdb"
LOCK_FILE: Final = "lock.mdb"
_SPARE_READERS_MAX: Final = 8
_META_PAGES: Final = 2
_LOOK_SECONDS_MAX: Final = 5


class Home:
    """An environment in a folder, with as many bytes of addresses taken from the budget as its map has.

    Raises: SystemFault StorageFull (address space), StorageFailed (cannot be opened).
    """

    def __init__(self, folder: Path, map_bytes: int, address_space: AddressSpace) -> None:
        self.map_bytes = map_bytes
        self.closed = threading.Event()
        self._address_space = address_space
        self._readers = 0
        self._retired = False
        self._is_closing = False
        self._lock = threading.Condition()
        address_space.reserve(map_bytes)
        try:
            self.env, self.dbs = _open(folder, map_bytes)
            self.page_bytes: int = self.env.stat()["psize"]
        except BaseException:
            address_space.release(map_bytes)
            raise

    def enter(self) -> bool:
        """Begin to read; False where it is closed already."""
        with self._lock:
            if self._is_closing or (self._retired and not self._readers):
                return False
            self._readers += 1
            return True

    def leave(self) -> None:
        """End a reading that `enter` began."""
        with self._lock:
            self._readers -= 1
            is_last = self._retired and not self._readers
            if not self._readers:
                self._lock.notify_all()
        if is_last:
            self._close_beside()

    @contextmanager
    def reading(self) -> Generator[Any]:
        """A read transaction for the length of a block. Raises: SystemFault SnapshotGone."""
        if not self.enter():
            raise SystemFault("SnapshotGone", "The storage has moved on; begin again.")
        try:
            with self.env.begin() as transaction:
                yield transaction
        finally:
            self.leave()

    def data_bytes(self) -> int:
        """The pages that the trees fill, as LMDB counts them."""
        pages = 0
        with self.reading() as transaction:
            for tree in self.dbs:
                counted = transaction.stat(tree)
                pages += counted["branch_pages"] + counted["leaf_pages"] + counted["overflow_pages"]
        return pages * self.page_bytes

    def items(self) -> dict[Tree, int]:
        """The number of stored pairs in each tree."""
        with self.reading() as transaction:
            return {tree: transaction.stat(self.dbs[tree])["entries"] for tree in Tree}

    def file_bytes(self) -> int:
        """The pages that were ever used."""
        return (self.env.info()["last_pgno"] + 1) * self.page_bytes

    def free_bytes(self) -> int:
        """The pages in the file that hold nothing any more, the list of them among these."""
        return max(self.file_bytes() - self.data_bytes() - _META_PAGES * self.page_bytes, 0)

    def grow(self, map_bytes: int) -> None:
        """A larger map; no transaction may be open. Raises: SystemFault StorageFull (address space)."""
        self._address_space.reserve(map_bytes - self.map_bytes)
        self.map_bytes = map_bytes
        self.env.set_mapsize(map_bytes)

    def retire(self) -> None:
        """Nobody new will come; closed once the last reader leaves."""
        with self._lock:
            self._retired = True
            is_last = not self._readers
        if is_last:
            self._close_beside()

    def close(self) -> None:
        """Close it now: snapshots were ended, and whoever looks at it for a moment is waited for. A second time is no
        error.
        """
        with self._lock:
            if self._is_closing:
                return
            self._is_closing = True
            self._lock.wait_for(lambda: not self._readers, _LOOK_SECONDS_MAX)
            self.env.close()
            self._address_space.release(self.map_bytes)
            self.closed.set()

    def _close_beside(self) -> None:
        threading.Thread(target=self.close, name="storage closing", daemon=True).start()


def map_bytes_for(trees: Path, map_bytes: int, map_bytes_max: int) -> int:
    """The map to open with: as asked, and twice to four times the file when that is more."""
    data = trees / DATA_FILE
    wanted = data.stat().st_size * 2 if data.exists() else 0
    while map_bytes < wanted:
        map_bytes *= 2
    return min(map_bytes, map_bytes_max)


def _open(folder: Path, map_bytes: int) -> tuple[Any, list[Any]]:
    try:
        env = lmdb.open(
            str(folder),
            map_size=map_bytes,
            max_dbs=len(Tree),
            max_readers=STORAGE_READERS_MAX + _SPARE_READERS_MAX,
            max_spare_txns=_SPARE_READERS_MAX,
            mode=0o600,
            readahead=False,
            meminit=True,  # else pages hold what was in freed memory: keys, other tenants
            writemap=False,
            sync=True,
            metasync=True,
            lock=True,
        )
        try:
            assert env.max_key_size() >= STORAGE_LMDB_KEY_BYTES_MAX
            env.reader_check()
            dbs = [env.open_db(tree.name.lower().encode()) for tree in Tree]
            sync_folder(folder)
        except BaseException:
            env.close()
            raise
    except (lmdb.Error, OSError) as error:
        raise write_fault(error, folder / DATA_FILE) from error
    return env, dbs
