"""What a deployment's storage needs now and then: old history dropped, dead readers' slots freed, its size looked at.

Disk must grow with the data, not with the time the server has been up. Every `UPKEEP_INTERVAL_S` history older than the
deployment's retention is dropped, in steps of at most `UPKEEP_STEP_US` on the loop thread. While there is more, the
next step follows after a rest, so that dropping takes `UPKEEP_SHARE_PERCENT` of the loop thread's time; where it falls
behind by more than `UPKEEP_LATE_SECONDS` it takes `UPKEEP_LATE_SHARE_PERCENT`, and since dropping a change costs less
than making it, history then grows no further, whatever the rate of writes. A step's deletes share the next group's
sync; their pages are used again. So are the answers of mutations forgotten (`skerry.database.answers`).

What was deleted counts for the storage quota as long as it is history. A deployment at its quota therefore keeps its
history for HISTORY_RETENTION_S_MIN only: what it deletes makes room after that time, and no call that is under way
loses what it reads.

Deliberately absent: shrinking files, which is `care`'s, and a clock of its own: the time is the deployment's.
"""

import asyncio
import logging
import time
from collections.abc import Callable

from skerry import limits
from skerry.database import Database, forget_answers, oldest_ts, retain
from skerry.functions.failing import Failing
from skerry.functions.terms import Terms
from skerry.storage.lmdb_engine import LmdbEngine

_log = logging.getLogger("skerry.upkeep")
_NS_PER_S = 1_000_000_000
_NS_PER_US = 1_000


class Upkeep:
    """The upkeep of one deployment, on its loop thread. `start` schedules it, `stop` ends it, `step` is one turn.

    Shape: `retention_s` says how long history is kept; `after_turn` hears whether there is more to drop.
    """

    def __init__(
        self,
        database: Database,
        engine: LmdbEngine,
        clock_ns: Callable[[], int],
        loop: asyncio.AbstractEventLoop,
        terms: Terms,
        *,
        retention_s: Callable[[], int] | None = None,
        after_turn: Callable[[bool], None] | None = None,
        elapsed_ns: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        self._terms = terms
        self._database = database
        self._engine = engine
        self._clock_ns = clock_ns
        self._loop = loop
        self.retention_s = retention_s or _default
        self.after_turn = after_turn
        self._elapsed_ns = elapsed_ns
        self._timer: asyncio.TimerHandle | None = None
        self._is_stopped = False
        self._failing = Failing("The upkeep", _log, terms.meter)

    def start(self) -> None:
        if not self._is_stopped:  # it may have been closed before the loop came round to this
            self._schedule(limits.UPKEEP_INTERVAL_S)
            self.look_at_storage()

    def stop(self) -> None:
        self._is_stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def step(self) -> bool:
        """One bounded turn; whether there is more to do at once."""
        self._engine.clear_stale_readers()
        self.look_at_storage()
        end_ns = self._elapsed_ns() + limits.UPKEEP_STEP_US * _NS_PER_US
        spent = retain(self._database, self._horizon(), limits.UPKEEP_COMMITS_MAX, lambda: self._elapsed_ns() >= end_ns)
        has_answers = forget_answers(self._database, self._clock_ns())
        return spent == limits.UPKEEP_COMMITS_MAX or has_answers

    def rest_seconds(self, step_seconds: float) -> float:
        """How long to wait after a step that left something to drop."""
        snapshot = self._engine.snapshot()
        try:
            late_ns = self._horizon() - oldest_ts(snapshot)
        finally:
            snapshot.close()
        is_late = late_ns > limits.UPKEEP_LATE_SECONDS * _NS_PER_S
        percent = limits.UPKEEP_LATE_SHARE_PERCENT if is_late else limits.UPKEEP_SHARE_PERCENT
        return step_seconds * (100 - percent) / percent

    def look_at_storage(self) -> None:
        """Tells the database what its data and its file take, and what the data may take."""
        data_bytes = self._engine.data_bytes()
        self._database.storage_looked_at(data_bytes, self._terms.storage_bytes)
        self._database.looks.watch(self._engine.usage.used_bytes, data_bytes)

    def _horizon(self) -> int:
        retention_s = self.retention_s()
        if self._database.space.is_full:
            retention_s = min(retention_s, limits.HISTORY_RETENTION_S_MIN)
        return self._clock_ns() - retention_s * _NS_PER_S

    def _schedule(self, seconds: float) -> None:
        self._timer = self._loop.call_later(seconds, self._turn)

    def _turn(self) -> None:
        seconds, has_more = limits.UPKEEP_INTERVAL_S, False
        if self._engine.failed is None:
            try:
                begin_ns = self._elapsed_ns()
                has_more = self.step()
                if has_more:
                    seconds = self.rest_seconds((self._elapsed_ns() - begin_ns) / _NS_PER_S)
                if self.after_turn is not None:
                    self.after_turn(has_more)
                self._failing.succeeded()
            except Exception as error:  # the next turn may do better; without one the disk would fill
                self._failing.failed(error)
        self._schedule(seconds)


def _default() -> int:
    return limits.HISTORY_RETENTION_S
