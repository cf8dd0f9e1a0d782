"""The one timer of a runner: it looks again then, and whoever sets it anew forgets the time before.

Concurrency: the loop thread.
"""

from collections.abc import Callable

from skerry.limits import SCHEDULED_WAIT_SECONDS_MAX
from skerry.schedule.calls import Timer, Timers


class Wakeup:
    """A timer that calls `look`. Limits: SCHEDULED_WAIT_SECONDS_MAX, after which it calls in any case."""

    def __init__(self, timers: Timers, look: Callable[[], None]) -> None:
        self._timers = timers
        self._look = look
        self._timer: Timer | None = None
        self._is_stopped = False

    def set(self, seconds: float | None) -> None:
        """Calls after so many seconds, and at no other time; never for None, nor once it was stopped."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        if seconds is not None and not self._is_stopped:
            self._timer = self._timers.call_later(min(seconds, SCHEDULED_WAIT_SECONDS_MAX), self._ring)

    def stop(self) -> None:
        """Calls no more, whatever is set later."""
        self._is_stopped = True
        self.set(None)

    def _ring(self) -> None:
        self._timer = None
        self._look()
