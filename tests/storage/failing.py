"""A storage engine that stops working after a number of operations, in front of one that works.

Counted is each thing that a database asks of its storage: a batch, a read, a snapshot, growing and reopening. From the
bound on each fails as the contract says that it may: batches as a full disk does (with all that is queued behind, until
`recover`), reads as a snapshot that is gone, `snapshot` as too many do, reopening as a storage that cannot be reopened.
Some time later, where `failures` says so, everything works again.

Deliberately absent: failures that the contract does not know. `renew` and `close` of a snapshot work always; what a
disk does to LMDB itself is in `fault_programs`.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from threading import RLock
from typing import Any, TypeVar

from skerry.errors import SystemFault
from skerry.storage import StorageEngine, StorageSnapshot, Tree, Write
from skerry.storage.interface import Charge, Item

T = TypeVar("T")
_NEVER = 1 << 60


class FailingSnapshot:
    """A snapshot whose reads count."""

    def __init__(self, engine: "FailingEngine", inner: StorageSnapshot) -> None:
        self._spend = engine.spend
        self._inner = inner
        self.renew = inner.renew
        self.close = inner.close

    def get(self, tree: Tree, key: bytes) -> bytes | None:
        self._read()
        return self._inner.get(tree, key)

    def scan(self, tree: Tree, lower: bytes, upper: bytes | None, reverse: bool) -> Iterator[Item]:
        self._read()
        return self._inner.scan(tree, lower, upper, reverse)

    def scan_chunk(self, *which: Any, charge: Charge | None = None) -> list[Item]:
        self._read()
        return self._inner.scan_chunk(*which, charge)

    def scan_index(
        self, index_number: int, lower: bytes, upper: bytes | None, reverse: bool, charge: Charge | None = None
    ) -> Iterator[Item]:
        self._read()
        return self._inner.scan_index(index_number, lower, upper, reverse, charge)

    def scan_index_keys(self, *which: Any) -> list[bytes]:
        self._read()
        return self._inner.scan_index_keys(*which)

    def _read(self) -> None:
        if not self._spend():
            raise SystemFault("SnapshotGone", "The test lets this read fail.")


class FailingEngine:
    """See the module. Shape: `after` operations succeed, the next `failures` fail; `operations` were asked for.

    While `is_counting` is false a test looks at it, and everything works.
    """

    def __init__(self, inner: StorageEngine, after: int = _NEVER, failures: int = _NEVER) -> None:
        self.inner = inner
        self.operations = 0
        self.is_counting = True
        self._bad = range(after, after + failures)
        self._failed: SystemFault | None = None
        self._submitted = 0
        self._taken = 0
        self._durable = 0
        self._sent: dict[int, int] = {}
        self._lock = RLock()

    def spend(self) -> bool:
        """Counts an operation; whether it may succeed."""
        if not self.is_counting:
            return True
        self.operations += 1
        return self.operations - 1 not in self._bad

    def break_next(self) -> None:
        """Lets the next operation fail, and none behind it."""
        self._bad = range(self.operations, self.operations + 1)

    @property
    def has_failed(self) -> bool:
        """Whether a failure has come about."""
        return self.operations > self._bad.start

    @property
    def failed(self) -> BaseException | None:
        return self._failed or self.inner.failed

    @property
    def durable_sequence(self) -> int:
        """In the numbers of this engine: batches that failed here have one, and the engine behind never sees them."""
        done = self.inner.durable_sequence
        with self._lock:
            for inner in [inner for inner in self._sent if inner <= done]:
                self._durable = max(self._durable, self._sent.pop(inner))
            return self._durable

    @property
    def filling_percent(self) -> int:
        return self.inner.filling_percent

    @property
    def on_group_durable(self) -> Callable[[], None] | None:
        return self.inner.on_group_durable

    @on_group_durable.setter
    def on_group_durable(self, hook: Callable[[], None] | None) -> None:
        self.inner.on_group_durable = hook

    def snapshot(self) -> Any:
        if not self.spend():
            raise SystemFault("TooManySnapshots", "The test lets this snapshot fail.")
        return FailingSnapshot(self, self.inner.snapshot())

    def commit(self, writes: Sequence[Write]) -> "Future[None]":
        with self._lock:
            if self._takes():
                return self._pass_on(self.inner.commit, writes)
            failed: Future[None] = Future()
            failed.set_exception(self._failed)
            self._submitted += 1
        self._tell()
        return failed

    def submit(self, writes: Sequence[Write]) -> int:
        with self._lock:
            is_taken = self._takes()
            if is_taken:
                self._pass_on(self.inner.submit, writes)
            else:
                self._submitted += 1
            number = self._submitted
        if not is_taken:
            self._tell()
        return number

    def _pass_on(self, take: Callable[[Sequence[Write]], T], writes: Sequence[Write]) -> T:
        # Noted before, for what the batch wakes may ask at once.
        self._sent[self._taken + 1] = self._submitted + 1
        try:
            result = take(writes)
        except SystemFault:
            del self._sent[self._taken + 1]
            raise
        self._taken += 1
        self._submitted += 1
        return result

    def _takes(self) -> bool:
        if self._failed is None and not self.spend():
            self._failed = SystemFault("StorageFull", "The test lets this batch fail.")
        return self._failed is None

    def _tell(self) -> None:
        if self.on_group_durable is not None:
            self.on_group_durable()

    def recover(self) -> None:
        if not self.spend():
            raise SystemFault("StorageFailed", "The test lets reopening fail.")
        self.inner.recover()
        self._failed = None

    def grow(self) -> None:
        if not self.spend():
            raise SystemFault("StorageFull", "The test lets growing fail.")
        self.inner.grow()

    def close(self) -> None:
        self.inner.close()
