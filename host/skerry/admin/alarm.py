"""Opens closed deployments when a scheduled function of theirs comes due.

A deployment that is open looks after itself. When each closed one has to be opened is a small file in its folder
(`schedule.due_mark`), read when the host starts and when one closes; in memory is a number for each deployment that has
something to do, and one timer for the first of them. One that cannot be opened, or is paused, is tried again or waits
for whoever resumes it.

Concurrency: the loop thread.
"""

import heapq
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from skerry.limits import SCHEDULED_WAIT_SECONDS_MAX
from skerry.schedule.due_mark import read_due

_NS_PER_MS: Final = 1_000_000
_MS_PER_S: Final = 1_000


class Timer(Protocol):
    def cancel(self) -> None: ...


class Timers(Protocol):
    def call_later(self, delay: float, callback: Callable[[], object], /) -> Timer: ...


class Alarm:
    """The alarm of one host. Shape: `wake` opens a deployment by its name, in the background."""

    def __init__(self, timers: Timers, clock_ns: Callable[[], int], wake: Callable[[str], None]) -> None:
        self._timers = timers
        self._clock_ns = clock_ns
        self._wake = wake
        self._due: dict[str, float] = {}
        self._order: list[tuple[float, str]] = []
        self._timer: Timer | None = None
        self._is_stopped = False

    def set(self, name: str, due_ms: float | None) -> None:
        """Says when a deployment is to be opened, None for never. Units: ms since 1970."""
        if due_ms is None:
            self._due.pop(name, None)
        else:
            self._due[name] = due_ms
            heapq.heappush(self._order, (due_ms, name))
        self._arm()

    def set_in(self, name: str, seconds: float) -> None:
        """Says that a deployment is to be opened after so many seconds."""
        self.set(name, self._clock_ns() / _NS_PER_MS + seconds * _MS_PER_S)

    def look(self, name: str, folder: Path) -> None:
        """Takes in what a deployment that has closed left in its folder."""
        self.set(name, read_due(folder))

    def due_ms(self, name: str) -> float | None:
        """When a deployment is to be opened."""
        return self._due.get(name)

    def stop(self) -> None:
        """Opens nothing more."""
        self._is_stopped = True
        self._arm()

    def _arm(self) -> None:
        order, due = self._order, self._due
        while order and due.get(order[0][1]) != order[0][0]:
            heapq.heappop(order)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if order and not self._is_stopped:
            wait_s = (order[0][0] - self._clock_ns() / _NS_PER_MS) / _MS_PER_S
            self._timer = self._timers.call_later(min(max(0.0, wait_s), SCHEDULED_WAIT_SECONDS_MAX), self._ring)

    def _ring(self) -> None:
        self._timer = None
        now_ms = self._clock_ns() / _NS_PER_MS
        while self._order and self._order[0][0] <= now_ms:
            due_ms, name = heapq.heappop(self._order)
            if self._due.get(name) == due_ms:
                del self._due[name]
                self._wake(name)
        self._arm()


def due_of_all(folders: Callable[[str], Path], names: list[str]) -> dict[str, int]:
    """When which of these deployments is to be opened. Blocks: a look at a file for each."""
    found = {name: read_due(folders(name)) for name in names}
    return {name: due_ms for name, due_ms in found.items() if due_ms is not None}
