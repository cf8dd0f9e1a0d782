"""The trees of a deployment in plain memory: the contract without a disk, for tests and models.

Every value is kept with the number of the group that wrote it, so a snapshot is a number and never copies. Nothing is
thrown away. A test decides when and whether a sync happens: with `hold()` commits wait until `release()`, and
`fail_after(n)` lets n more writes through and then fails as a full disk would.

Deliberately absent: durability, threads of its own, bounded memory. A group is what is queued at `release()`.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from itertools import islice
from threading import RLock
from typing import Any

from sortedcontainers import SortedDict

from skerry.errors import SystemFault
from skerry.storage.interface import Charge, Item, Tree, Write, index_end, index_prefix
from skerry.storage.write_group import checked_size_of

_Versions = list[tuple[int, bytes | None]]
_Batch = tuple[int, Sequence[Write], "Future[None] | None"]


class MemorySnapshot:
    """The state after one group; see `StorageSnapshot`."""

    def __init__(self, engine: "MemoryEngine") -> None:
        self._engine = engine
        self._ended = False
        self.renew()

    def get(self, tree: Tree, key: bytes) -> bytes | None:
        self._check()
        return _at(self._engine.versions(tree).get(key), self._group)

    def scan(
        self, tree: Tree, lower: bytes, upper: bytes | None, reverse: bool, charge: Charge | None = None
    ) -> Iterator[Item]:
        self._check()
        if upper is not None and upper <= lower:
            return
        group, epoch = self._group, self._renewals
        versions = self._engine.versions(tree)
        for key in list(versions.irange(lower, upper, (True, False), reverse)):
            self._check()
            if epoch != self._renewals:
                raise SystemFault("SnapshotGone", "The snapshot was renewed under a scan; begin again.")
            value = _at(versions[key], group)
            if value is not None:
                yield key, value

    def scan_chunk(
        self, tree: Tree, lower: bytes, upper: bytes | None, reverse: bool, max_items: int, charge: Charge | None = None
    ) -> list[Item]:
        return list(islice(self.scan(tree, lower, upper, reverse, charge), max_items))

    def scan_index(
        self, index_number: int, lower: bytes, upper: bytes | None, reverse: bool, charge: Charge | None = None
    ) -> Iterator[Item]:
        prefix = index_prefix(index_number)
        end = prefix + upper if upper is not None else index_end(index_number)
        for key, value in self.scan(Tree.INDEXES, prefix + lower, end, reverse, charge):
            yield key[len(prefix) :], value

    def scan_index_keys(
        self,
        index_number: int,
        lower: bytes,
        upper: bytes | None,
        reverse: bool,
        max_items: int,
        charge: Charge | None = None,
    ) -> list[bytes]:
        items = self.scan_index(index_number, lower, upper, reverse, charge)
        return [key for key, _ in islice(items, max_items)]

    def renew(self) -> None:
        self._group = self._engine.group
        self._epoch = self._engine.epoch
        self._renewals = getattr(self, "_renewals", 0) + 1
        self._ended = False

    def close(self) -> None:
        self._ended = True

    def _check(self) -> None:
        if self._ended or self._epoch != self._engine.epoch:
            raise SystemFault("SnapshotGone", "The storage snapshot has ended; begin again.")


class MemoryEngine:
    """Sorted maps with versions, one for each tree; see `StorageEngine`."""

    def __init__(self) -> None:
        self.on_group_durable: Callable[[], None] | None = None
        self.durable_sequence = 0
        self.filling_percent = 0
        self.group = 0
        self.epoch = 0
        self._failed: SystemFault | None = None
        self._trees: list[Any] = [SortedDict() for _ in Tree]
        self._queued: list[_Batch] = []
        self._submitted = 0
        self._held = False
        self._closed = False
        self._writes_left: int | None = None
        self._lock = RLock()

    @property
    def failed(self) -> SystemFault | None:
        return self._failed

    def versions(self, tree: Tree) -> Any:
        """The sorted map of a tree: key to its versions, oldest first."""
        return self._trees[tree]

    def snapshot(self) -> MemorySnapshot:
        return MemorySnapshot(self)

    def commit(self, writes: Sequence[Write]) -> "Future[None]":
        future: Future[None] = Future()
        self._enqueue(writes, future)
        return future

    def submit(self, writes: Sequence[Write]) -> int:
        return self._enqueue(writes, None)

    def hold(self) -> None:
        """Let commits wait, as if a sync took long, until `release()`."""
        self._held = True

    def release(self) -> None:
        """Make everything queued durable as one group."""
        self._held = False
        self._settle()

    def fail_after(self, n_writes: int) -> None:
        """Fail the group that holds the write after the next `n_writes`; over with `recover()`."""
        self._writes_left = n_writes

    def recover(self) -> None:
        with self._lock:
            self._held = False
            self._settle()
            self._failed = None
            self._writes_left = None
            self.epoch += 1

    def grow(self) -> None:
        with self._lock:
            if self._failed is not None:
                raise self._failed
            self._settle()
            self.epoch += 1

    def close(self) -> None:
        if not self._closed:
            self.release()
            self._closed = True
            self.epoch += 1

    def _enqueue(self, writes: Sequence[Write], future: "Future[None] | None") -> int:
        checked_size_of(writes)
        if self._closed:
            raise SystemFault("StorageFailed", "The storage engine is closed.")
        with self._lock:
            self._submitted += 1
            sequence = self._submitted
            self._queued.append((sequence, writes, future))
            if not self._held:
                self._settle()
        return sequence

    def _settle(self) -> None:
        with self._lock:
            group, self._queued = self._queued, []
            if not group:
                return
            if self._failed is None and not self._spend(sum(len(writes) for _, writes, _ in group)):
                self._failed = SystemFault("StorageFull", "The storage of this deployment is full; free or add space.")
            if self._failed is None:
                self._apply(group)
        for _, _, future in group:
            if future is None or not future.set_running_or_notify_cancel():
                continue
            if self._failed is None:
                future.set_result(None)
            else:
                future.set_exception(self._failed)
        if self.on_group_durable is not None:
            self.on_group_durable()

    def _spend(self, n_writes: int) -> bool:
        """Whether the writes fit before the failure that a test asked for."""
        if self._writes_left is None:
            return True
        self._writes_left -= n_writes
        if self._writes_left >= 0:
            return True
        self._writes_left = None
        return False

    def _apply(self, group: list[_Batch]) -> None:
        number = self.group + 1
        for _, writes, _ in group:
            for tree, key, value in writes:
                versions: _Versions = self._trees[tree].setdefault(key, [])
                if versions and versions[-1][0] == number:
                    versions[-1] = (number, value)
                else:
                    versions.append((number, value))
        self.group = number
        self.durable_sequence = group[-1][0]


def _at(versions: _Versions | None, group: int) -> bytes | None:
    """What a key held after a group."""
    if versions:
        for number, value in reversed(versions):
            if number <= group:
                return value
    return None
