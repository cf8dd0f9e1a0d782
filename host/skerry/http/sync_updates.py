"""Bringing the connections of a deployment to its newest state: some in each turn of the loop.

A commit may touch what thousands watch. Telling them all at once would take the loop from everybody else for as long,
so a turn tells `SYNC_UPDATES_PER_TURN_MAX` of them; those behind are told of the newest state there is when their turn
comes, in one transition, whatever happened while they waited.

Concurrency: the loop thread.
"""

import logging
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from skerry.limits import SYNC_UPDATES_PER_TURN_MAX
from skerry.sync.session import Transitions

_log: Final = logging.getLogger("skerry.sync")


class Updated(Protocol):
    """Who is to be brought to the newest state."""

    def update(self) -> None:
        """Sends what there is to send."""
        ...


class Updates:
    """Shape: `transitions` holds those that are made, while anybody waits; `call_soon` runs a function once the loop's
    turn is over."""

    def __init__(self, call_soon: Callable[[Callable[[], None]], object]) -> None:
        self.transitions = Transitions()
        self._call_soon = call_soon
        self._waiting: deque[Updated] = deque()

    def ask(self, connection: Updated) -> None:
        """Updates a connection when its turn comes; it asks once at a time."""
        self._waiting.append(connection)
        if len(self._waiting) == 1:
            self._call_soon(self._run)

    def _run(self) -> None:
        waiting = self._waiting
        for _ in range(min(len(waiting), SYNC_UPDATES_PER_TURN_MAX)):
            try:
                waiting[0].update()
            except Exception:  # of one connection, behind which others wait
                _log.exception("a client could not be brought to the newest state")
            waiting.popleft()
        if waiting:
            self._call_soon(self._run)
        else:
            self.transitions.forget()
