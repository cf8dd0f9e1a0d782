"""What a deployment's storage needs now and then: old history dropped, dead readers' slots freed, its size looked at.

Disk must grow with the data, not with the time the server has been up. Every `UPKEEP_INTERVAL_S` one bounded step
drops history older than `HISTORY_RETENTION_S`; while a step finds as much as it may drop, the next follows after
`UPKEEP_BUSY_INTERVAL_S`, so that dropping keeps up with committing without ever holding the loop thread for long. A
step's deletes share the next group's sync.

Deliberately absent: shrinking files (a later, offline step), and a clock of its own: the time is the deployment's.
"""

import asyncio
import logging
from collections.abc import Callable

from skerry import limits
from skerry.database import Database, retain
from skerry.errors import SkerryError
from skerry.functions.terms import Terms
from skerry.storage.lmdb_engine import LmdbEngine

_log = logging.getLogger("skerry.upkeep")
_NS_PER_S = 1_000_000_000


class Upkeep:
    """The upkeep of one deployment, on its loop thread. `start` schedules it, `stop` ends it, `step` is one turn."""

    def __init__(
        self,
        database: Database,
        engine: LmdbEngine,
        clock_ns: Callable[[], int],
        loop: asyncio.AbstractEventLoop,
        terms: Terms,
    ) -> None:
        self._terms = terms
        self._database = database
        self._engine = engine
        self._clock_ns = clock_ns
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None
        self._is_stopped = False

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
        before_ts = self._clock_ns() - limits.HISTORY_RETENTION_S * _NS_PER_S
        return retain(self._database, before_ts, limits.UPKEEP_COMMITS_MAX) == limits.UPKEEP_COMMITS_MAX

    def look_at_storage(self) -> None:
        """Tells the database what its data take and may take."""
        self._database.storage_looked_at(self._engine.data_bytes(), self._terms.storage_bytes)

    def _schedule(self, seconds: float) -> None:
        self._timer = self._loop.call_later(seconds, self._turn)

    def _turn(self) -> None:
        has_more = False
        if self._engine.failed is None:
            try:
                has_more = self.step()
            except SkerryError as error:
                _log.warning("history could not be dropped: %s: %s", error.code, error.message)
            except Exception:  # the next turn may do better; without one the disk would fill
                _log.exception("a turn of upkeep failed")
        self._schedule(limits.UPKEEP_BUSY_INTERVAL_S if has_more else limits.UPKEEP_INTERVAL_S)
