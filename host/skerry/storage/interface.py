"""The storage contract: ordered byte trees with snapshots and durable atomic groups.

A storage engine holds the trees of one deployment. It knows keys and values as bytes and nothing about documents,
timestamps or functions. What every engine promises, and the contract tests in `tests/storage` check on each of them:

* **Order.** Keys compare as unsigned bytes. A scan yields `[lower, upper)`, ascending, or descending when `reverse`.
* **Any key length.** A tree accepts non-empty keys up to `STORAGE_KEY_BYTES_MAX`. Keys past
  `STORAGE_SHORT_KEY_BYTES_MAX` cost more, because an engine may have to gather and sort those that share a long
  prefix.
* **Snapshots.** A snapshot is one durable state and does not change until `renew()`. It is used by one thread at a
  time.
* **Commit.** `commit(writes)` returns at once with a future. Batches are applied in the order of the calls; later
  writes to a key win, in a batch and between batches. The future is done only after the sync that covers the batch. A
  batch is durable as a whole or not at all, and never without every batch committed before it.
* **Failure.** A failed write or sync fails its whole group and everything queued behind it, and the engine is then
  `failed`: each further commit fails until `recover()` has reopened the last durable state. Snapshots keep working.

Index entries live in `Tree.INDEXES` under `index_number` (4 bytes, big-endian) followed by the full order-preserving
index key; `scan_index` strips the number again.

Deliberately absent: read-modify-write, merge operators, time to live, and reading one's own unsynced writes. The
pending writes of a deployment are an overlay of the database room above a snapshot.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from enum import IntEnum
from typing import Protocol


class Tree(IntEnum):
    """The named trees of a deployment; the numbers are stable, the names are on disk."""

    DOCUMENTS = 0
    INDEXES = 1
    DOCUMENT_HISTORY = 2
    INDEX_HISTORY = 3
    COMMIT_LOG = 4
    META = 5
    REPLACED = 6


Write = tuple[Tree, bytes, bytes | None]
"""One change: tree, key, new value. None deletes; deleting what is absent is no error."""

Item = tuple[bytes, bytes]
"""A key and its value."""

Charge = Callable[[int], None]
"""Called with a number of bytes of host work or memory before they are spent; raises to refuse."""


class StorageSnapshot(Protocol):
    """One consistent durable state.

    Concurrency: used by one thread at a time, and iterators it gave out end with `renew()` and `close()`.
    """

    def get(self, tree: Tree, key: bytes) -> bytes | None:
        """The value under the key, or None."""
        ...

    def scan(self, tree: Tree, lower: bytes, upper: bytes | None, reverse: bool) -> Iterator[Item]:
        """The items of `[lower, upper)` in key order, lazily; no upper bound when it is None."""
        ...

    def scan_chunk(
        self, tree: Tree, lower: bytes, upper: bytes | None, reverse: bool, max_items: int, charge: Charge | None = None
    ) -> list[Item]:
        """Up to `max_items` first items of what `scan` would yield, as a list: the cheap form for hot paths.

        To continue: ascending from `items[-1][0] + b"\\0"` as the lower bound, descending with `items[-1][0]` as the
        upper.
        """
        ...

    def scan_index(
        self, index_number: int, lower: bytes, upper: bytes | None, reverse: bool, charge: Charge | None = None
    ) -> Iterator[Item]:
        """The entries of an index as (full index key without the index number, value), lazily.

        `charge` is called with the bytes gathered when entries share a prefix too long to be ordered by the engine.
        """
        ...

    def scan_index_keys(
        self,
        index_number: int,
        lower: bytes,
        upper: bytes | None,
        reverse: bool,
        max_items: int,
        charge: Charge | None = None,
    ) -> list[bytes]:
        """The keys of up to `max_items` first entries of what `scan_index` would yield: cheap, for hot paths."""
        ...

    def renew(self) -> None:
        """Move to the newest durable state, cheaply, in place; not for a closed snapshot.

        Raises: SystemFault SnapshotGone while a failed engine cannot be read and has not been recovered.
        """
        ...

    def close(self) -> None:
        """Give the snapshot up; closing twice is no error."""
        ...


class StorageEngine(Protocol):
    """The trees of one deployment."""

    on_group_durable: Callable[[], None] | None
    """Called on the engine's own thread after each group, failed or not, its futures done: one wake a group."""

    durable_sequence: int
    """The number of the last batch that is durable; batches are numbered from 1 in the order of the calls."""

    filling_percent: int
    """How full the space is that the engine has reserved, as of the last group; 0 where it cannot or need not grow."""

    @property
    def failed(self) -> BaseException | None:
        """What made the engine refuse commits until `recover()`, or None."""
        ...

    def snapshot(self) -> StorageSnapshot:
        """The newest durable state, to be closed after use.

        Raises: SystemFault TooManySnapshots.
        Concurrency: any thread; the snapshot belongs to one at a time.
        """
        ...

    def commit(self, writes: Sequence[Write]) -> Future[None]:
        """Queue one atomic batch; the future is done after its sync.

        Raises: through the future, `SystemFault` with the code StorageFull or StorageFailed.
        Concurrency: any thread, does not block. The caller leaves `writes` alone from here on.
        """
        ...

    def submit(self, writes: Sequence[Write]) -> int:
        """Queue one atomic batch without a future: its number, durable once `durable_sequence` has reached it.

        When `failed` is set, every number above `durable_sequence` has failed or is about to.
        Concurrency: as `commit`, and cheaper.
        """
        ...

    def recover(self) -> None:
        """Reopen the last durable state after a failure; what was queued before it has failed by then.

        Every open snapshot ends: its next use raises SnapshotGone, and `renew()` brings it onto the reopened state.

        Raises: SystemFault StorageFailed or StorageFull when it cannot be reopened; the engine stays failed.
        Concurrency: blocks; no snapshot may be in use on another thread meanwhile.
        """
        ...

    def grow(self) -> None:
        """Reserve twice the space, so that no batch fails for want of it. Ends every open snapshot as `recover` does.

        Raises: SystemFault StorageFull where there is no more to reserve; everything is as before then.
        Concurrency: as `recover`; only while `failed` is None.
        """
        ...

    def close(self) -> None:
        """Finish what is queued and let go of the files; closing twice is no error."""
        ...


def index_prefix(index_number: int) -> bytes:
    """The key prefix of one index's entries in `Tree.INDEXES`."""
    return index_number.to_bytes(4, "big")


def index_end(index_number: int) -> bytes | None:
    """The key that ends an index's entries in `Tree.INDEXES`, exclusively; None behind the last index number."""
    return None if index_number == 0xFFFFFFFF else index_prefix(index_number + 1)
