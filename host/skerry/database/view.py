"""What transactions look at: a storage snapshot, the overlay above it, and who still uses them.

The loop thread shares one view among its transactions. When the deployment moves on while somebody still looks, the
view is retired: its snapshot is closed by the last one to leave, and the next transactions get a new view. A
detached transaction has a view of its own, whose snapshot is guarded by a lock, because recovering storage must not
happen in the middle of a read on another thread.
"""

from collections.abc import Callable, Iterator
from threading import Lock
from typing import TYPE_CHECKING, Final

from skerry.database.overlay import Overlay
from skerry.errors import SystemFault
from skerry.storage import Charge, Item, StorageSnapshot, Tree

if TYPE_CHECKING:
    from skerry.database.transaction import Transaction


_DOCUMENT_KEY_BYTES: Final = 20


class View:
    """A snapshot and an overlay with their users."""

    __slots__ = ("lane_users", "on_leave", "overlay", "retired", "snapshot", "users")

    def __init__(self, snapshot: StorageSnapshot, overlay: Overlay, on_leave: Callable[[], None] | None = None) -> None:
        self.snapshot = snapshot
        self.overlay = overlay
        self.users = 0
        self.lane_users = 0
        self.retired = False
        self.on_leave = on_leave

    def leave(self, transaction: "Transaction") -> None:
        """End a transaction's use; a second time is no error."""
        if transaction.ended:
            return
        transaction.ended = True
        self.users -= 1
        if transaction.overlay is not None:
            self.lane_users -= 1
        if self.on_leave is not None:
            self.on_leave()
        if self.retired and not self.users:
            self.snapshot.close()

    def retire(self) -> None:
        """Nobody new will come; close the snapshot once the last user leaves."""
        self.retired = True
        if not self.users:
            self.snapshot.close()

    def document(self, key: bytes) -> bytes | None:
        """The stored form of a document pending commits included. Raises: as a snapshot's get."""
        found = self.overlay.documents.get(key, b"")
        return self.snapshot.get(Tree.DOCUMENTS, key) if found == b"" else found

    def documents(self, lower: bytes, upper: bytes, items_max: int, bytes_max: int) -> tuple[list[Item], bytes, int]:
        """Some first documents of a range of the documents tree pending commits included.

        Shape: keys and stored forms, the key behind which to go on, empty where there is nothing more, and the bytes
        read; the last document may lie on top of `bytes_max`. Documents that only pending commits have are left out:
        `Database.watchers` hear of those.
        """
        pending = self.overlay.documents
        items: list[Item] = []
        n_bytes = 0
        for n_items, item in enumerate(self.snapshot.scan(Tree.DOCUMENTS, lower, upper, False), 1):
            key, stored = item
            n_bytes += len(stored) + _DOCUMENT_KEY_BYTES
            if key not in pending:
                items.append(item)
            elif (newer := pending[key]) is not None:
                items.append((key, newer))
            if n_items >= items_max or n_bytes >= bytes_max:
                return items, key, n_bytes
        return items, b"", n_bytes


class GuardedSnapshot:
    """A storage snapshot used on another thread than the loop's: each access holds the lock that recovery takes."""

    __slots__ = ("_lock", "_on_close", "_snapshot", "fault")

    def __init__(self, snapshot: StorageSnapshot, lock: Lock, on_close: Callable[[], None] | None = None) -> None:
        self._on_close = on_close
        self._snapshot = snapshot
        self._lock = lock
        self.fault: SystemFault | None = None

    def get(self, tree: Tree, key: bytes) -> bytes | None:
        with self._lock:
            return self._usable().get(tree, key)

    def scan(
        self, tree: Tree, lower: bytes, upper: bytes | None, reverse: bool, charge: Charge | None = None
    ) -> Iterator[Item]:
        raise NotImplementedError("a guarded snapshot is read in chunks")

    def scan_chunk(
        self, tree: Tree, lower: bytes, upper: bytes | None, reverse: bool, max_items: int, charge: Charge | None = None
    ) -> list[Item]:
        with self._lock:
            return self._usable().scan_chunk(tree, lower, upper, reverse, max_items, charge)

    def scan_index(
        self, index_number: int, lower: bytes, upper: bytes | None, reverse: bool, charge: Charge | None = None
    ) -> Iterator[Item]:
        raise NotImplementedError("a guarded snapshot is read in chunks")

    def scan_index_keys(
        self,
        index_number: int,
        lower: bytes,
        upper: bytes | None,
        reverse: bool,
        max_items: int,
        charge: Charge | None = None,
    ) -> list[bytes]:
        with self._lock:
            return self._usable().scan_index_keys(index_number, lower, upper, reverse, max_items, charge)

    def renew(self) -> None:
        with self._lock:
            self._snapshot.renew()

    def close(self) -> None:
        with self._lock:
            self._snapshot.close()
        on_close, self._on_close = self._on_close, None
        if on_close is not None:
            on_close()

    def _usable(self) -> StorageSnapshot:
        if self.fault is not None:
            raise self.fault
        return self._snapshot
