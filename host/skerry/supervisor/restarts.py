"""When a worker that died is started again, and which modules are no longer loaded. Pure: the time is a parameter."""

from collections import deque
from collections.abc import Iterable
from typing import Any

from skerry.limits import (
    QUARANTINE_CRASHES_MAX,
    QUARANTINE_WINDOW_SECONDS,
    QUARANTINED_MODULES_MAX,
    WORKER_RESTART_DELAY_SECONDS_FIRST,
    WORKER_RESTART_DELAY_SECONDS_MAX,
    WORKER_STEADY_SECONDS,
)
from skerry.supervisor.crash_page import RunningModule


class Restarts:
    """The pauses before the restarts of one worker: none for the first, then doubling while it does not last."""

    def __init__(self) -> None:
        self.short_lives = 0

    def delay(self, lived_seconds: float) -> float:
        """How long to wait, in seconds, after a worker that lived so long after it was ready (0: it never was)."""
        if lived_seconds >= WORKER_STEADY_SECONDS:
            self.short_lives = 0
        self.short_lives += 1
        if self.short_lives == 1:
            return 0.0
        # The exponent is bounded so that the power stays a number.
        doubled = WORKER_RESTART_DELAY_SECONDS_FIRST * 2.0 ** min(self.short_lives - 2, 32)
        return min(doubled, WORKER_RESTART_DELAY_SECONDS_MAX)


class Quarantine:
    """The crashes of modules within the window, and those that had too many.

    Shape: `modules` are quarantined from the start. Limits: QUARANTINED_MODULES_MAX, of each kind; the oldest is
    forgotten.
    """

    def __init__(self, modules: Iterable[RunningModule] = ()) -> None:
        self._crashes: dict[RunningModule, deque[float]] = {}
        self._quarantined: dict[RunningModule, None] = dict.fromkeys(modules)

    def crashed(self, module: RunningModule, now: float) -> bool:
        """Counts a crash; true when the module is quarantined by it."""
        times = self._crashes.pop(module, None) or deque[float](maxlen=QUARANTINE_CRASHES_MAX)
        times.append(now)
        if len(times) == QUARANTINE_CRASHES_MAX and now - times[0] <= QUARANTINE_WINDOW_SECONDS:
            self._quarantined[module] = None
            _forget_oldest(self._quarantined)
            return True
        self._crashes[module] = times
        _forget_oldest(self._crashes)
        return False

    def lift(self, deployment: str) -> None:
        """Forgets the crashes of a deployment's modules."""
        for rows in (self._crashes, self._quarantined):
            for module in [module for module in rows if module.deployment == deployment]:
                del rows[module]

    def modules(self) -> list[RunningModule]:
        """What is quarantined."""
        return list(self._quarantined)


def _forget_oldest(rows: "dict[RunningModule, Any]") -> None:
    if len(rows) > QUARANTINED_MODULES_MAX:
        del rows[next(iter(rows))]
