"""Long looks at a deployment's storage and what is done about it, while it serves: one *job* at a time.

A job (`space`, `verify`, `compact`) is begun by a request or, for compacting, by upkeep, and runs on a thread of its
own in bounded steps. After each step it gives way to the loop thread and rests for as long as the step took, so it
takes at most half a core and delays nobody's call by more than a step. How far it came, and what it came to, can be
asked for until the next one begins.

Compacting by itself: once more than `COMPACTION_FREE_PERCENT` of the file, and `COMPACTION_FREE_BYTES_MIN`, hold
nothing, upkeep has nothing left to drop, and `COMPACTION_INTERVAL_SECONDS` have passed since the last attempt.

Concurrency: the loop thread, but for the work itself.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from skerry import limits
from skerry.database import Database, Verification
from skerry.database.space import SpaceWalk
from skerry.errors import ClientError, SkerryError, SystemFault
from skerry.functions.right_of_way import get_right_of_way
from skerry.storage.lmdb_engine import LmdbEngine

KINDS: Final = ("space", "verify", "compact")
_log: Final = logging.getLogger("skerry.care")


class StorageSeen(NamedTuple):
    """What a deployment's storage took at the last look. Units: bytes; of the file, and of that what holds nothing."""

    data_bytes: int
    file_bytes: int
    free_bytes: int

    @property
    def is_worth_compacting(self) -> bool:
        """Whether so much of the file holds nothing that a smaller one is worth its making."""
        free, percent = self.free_bytes, limits.COMPACTION_FREE_PERCENT
        return free >= limits.COMPACTION_FREE_BYTES_MIN and free * 100 >= self.file_bytes * percent


class Job:
    """One job. Shape: `done` of `total` items; `state` is running, done or failed."""

    def __init__(self, kind: str, total: int) -> None:
        self.kind = kind
        self.done = 0
        self.total = total
        self.state = "running"
        self.result: dict[str, Any] | None = None
        self.error: SkerryError | None = None

    def shown(self) -> dict[str, Any]:
        """What is told of it."""
        error = None if self.error is None else {"code": self.error.code, "message": self.error.message}
        return {
            "kind": self.kind,
            "state": self.state,
            "done": self.done,
            "total": self.total,
            "result": self.result,
            "error": error,
        }


class Care:
    """The jobs of one deployment. `close` before its storage is closed, `closed` after that."""

    def __init__(
        self,
        database: Database,
        engine: LmdbEngine,
        loop: asyncio.AbstractEventLoop,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self.job: Job | None = None
        self._database = database
        self._engine = engine
        self._loop = loop
        self._seconds = seconds
        self._task: asyncio.Task[None] | None = None
        self._stopping = threading.Event()
        self._compacted_at: float | None = None

    @property
    def is_busy(self) -> bool:
        """Whether a job runs."""
        return self._task is not None

    def seen(self) -> StorageSeen:
        """What the storage takes now. Not while it has failed."""
        usage = self._engine.usage
        return StorageSeen(self._engine.data_bytes(), usage.used_bytes, usage.free_bytes)

    def start(self, kind: str) -> Job:
        """Begins a job. Raises: ClientError `InvalidJob`, `JobInProgress`; SystemFault `StorageFailed`."""
        if kind not in KINDS:
            raise ClientError("InvalidJob", f"There is no job {kind[:40]!r}; there are {', '.join(KINDS)}.")
        if self._task is not None and self.job is not None:
            raise ClientError("JobInProgress", f"The job {self.job.kind!r} is running: wait for its end.")
        if self._stopping.is_set():
            raise SystemFault("ShuttingDown", "The server is shutting down. Try again in a moment.")
        if self._engine.failed is not None:
            raise SystemFault("StorageFailed", "The storage of this deployment cannot be read; try again later.")
        job = self.job = Job(kind, sum(self._engine.items().values()))
        self._task = self._loop.create_task(self._run(job))
        return job

    def turn(self, is_behind: bool) -> None:
        """Begins to compact where that is worth it; upkeep calls this after each of its turns."""
        now, last = self._seconds(), self._compacted_at
        if is_behind or self._task is not None or self._stopping.is_set():
            return
        if (last is None or now - last >= limits.COMPACTION_INTERVAL_SECONDS) and self.seen().is_worth_compacting:
            self.start("compact")

    def close(self) -> None:
        """Ends the job that runs soon; compacting ends when the storage closes."""
        self._stopping.set()

    async def walked(self) -> None:
        """Waits until nothing reads the storage any more, once `close` was called."""
        if self._task is not None and self.job is not None and self.job.kind != "compact":
            await self._task

    async def closed(self) -> None:
        """Waits for the end of the last job, once the storage was closed."""
        if self._task is not None:
            await self._task

    async def _run(self, job: Job) -> None:
        try:
            if job.kind == "compact":
                self._compacted_at = self._seconds()
                job.result = await self._compact()
            else:
                job.result = await asyncio.to_thread(self._walk, job)
            job.state = "done"
        except Exception as error:
            if not isinstance(error, SkerryError):
                _log.error("the job %s failed", job.kind, exc_info=error)
            job.error = error if isinstance(error, SkerryError) else SystemFault("InternalServerError", str(error))
            job.state = "failed"
            if not self._stopping.is_set():
                _log.warning("the job %s ended: %s: %s", job.kind, job.error.code, job.error.message)
        finally:
            self._task = None

    async def _compact(self) -> dict[str, Any]:
        done = await asyncio.to_thread(self._engine.compact)
        if self._engine.failed is None:
            self._database.leave_old_file()
        pause_ms = round(done.pause_seconds * 1_000, 3)
        _log.info("compacted %d bytes to %d, pause %.1f ms", done.before_bytes, done.after_bytes, pause_ms)
        return {"beforeBytes": done.before_bytes, "afterBytes": done.after_bytes, "pauseMs": pause_ms}

    def _walk(self, job: Job) -> dict[str, Any]:
        """Blocks: on a thread of its own."""
        snapshot = self._database.looks.snapshot()
        try:
            if job.kind == "space":
                space = SpaceWalk(snapshot)
                self._drive(job, space.steps(), lambda: space.done)
                return space.report()
            found = Verification(snapshot)
            self._drive(job, found.steps(), lambda: sum(found.counts.values()))
            return found.report()
        finally:
            snapshot.close()

    def _drive(self, job: Job, steps: Iterator[None], done: Callable[[], int]) -> None:
        way = get_right_of_way()
        begin = self._seconds()
        for _ in steps:
            job.done = done()
            if self._stopping.wait(self._seconds() - begin):
                raise SystemFault("ShuttingDown", "The server is shutting down. Try again in a moment.")
            way.give_way()
            begin = self._seconds()
