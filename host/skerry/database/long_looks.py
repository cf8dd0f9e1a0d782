"""Snapshots for looks that last: verifying, counting space, backing up, loading vectors.

LMDB uses no page again that an open snapshot may still read, so a look costs disk for as long as it lasts beside
writes: about what is written meanwhile. It has a bound, which upkeep watches: a look beside which the file has grown by
LONG_LOOK_GROWTH_BYTES_MAX, or by as much as the data where those take more, is ended. Whoever looks is told
`SnapshotGone`, and begins again; the pages are used again at once.

Concurrency: any thread; each access holds the lock that recovery takes.
"""

from threading import Lock
from weakref import WeakSet

from skerry.database.view import GuardedSnapshot
from skerry.errors import SystemFault
from skerry.limits import LONG_LOOK_GROWTH_BYTES_MAX, MIB
from skerry.storage import StorageEngine


class LongLook(GuardedSnapshot):
    """One look. Shape: `seen_bytes` is what the file took when it was first seen under this look."""

    __slots__ = ("__weakref__", "_engine", "_looks", "seen_bytes")

    def __init__(self, engine: StorageEngine, lock: Lock, looks: "LongLooks") -> None:
        with lock:
            super().__init__(engine.snapshot(), lock, looks.ended)
        self._engine = engine
        self._looks = looks
        self.seen_bytes: int | None = None

    def renew(self) -> None:
        with self._lock:
            if self.fault is None:
                self._snapshot.renew()
            else:
                self._snapshot = self._engine.snapshot()
                self.fault = None
            self.seen_bytes = None

    def end(self, fault: SystemFault) -> None:
        """Ends it: each use raises the fault until it is renewed."""
        with self._lock:
            self.fault = fault
            self._snapshot.close()


class LongLooks:
    """The looks of one database. Shape: `count` are open."""

    def __init__(self, engine: StorageEngine, lock: Lock) -> None:
        self.count = 0
        self._engine = engine
        self._lock = lock
        self._counting = Lock()
        self._open: WeakSet[LongLook] = WeakSet()

    def snapshot(self) -> LongLook:
        """The newest durable state, to be closed. Storage grows beside it only when it must: then its next use raises
        SystemFault `SnapshotGone`, as it does where the file has grown too far beside it.
        """
        look = LongLook(self._engine, self._lock, self)
        with self._counting:
            self.count += 1
            self._open.add(look)
        return look

    def watch(self, file_bytes: int, data_bytes: int) -> None:
        """Ends what lasts too long: the file takes so many bytes by now, and the data in it so many."""
        if not self.count:
            return
        with self._counting:
            looks = [look for look in self._open if look.fault is None]
        bound = max(LONG_LOOK_GROWTH_BYTES_MAX, data_bytes)
        for look in looks:
            seen = look.seen_bytes
            if seen is None or file_bytes < seen:
                look.seen_bytes = file_bytes
            elif file_bytes - seen > bound:
                look.end(
                    SystemFault(
                        "SnapshotGone",
                        f"This took so long that the file grew by {(file_bytes - seen) // MIB} MiB beside it, for what "
                        "it may still read. Begin again when less is written.",
                    )
                )

    def ended(self) -> None:
        """Hears that a look was closed."""
        with self._counting:
            self.count -= 1
