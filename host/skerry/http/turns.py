"""In which order the calls of all deployments run: the calls of one turn of the loop, each deployment in its turn.

Every deployment has a queue of what its requests asked for, in the order in which they came. At the end of a turn of
the loop, queues are served by deficit round robin: a queue whose turn it is may spend `TURN_QUANTUM_US` of the loop
thread's CPU time, what a call spends beyond is owed, and one that owes is passed over until its turns have paid for it.
So a deployment waits for at most one quantum, and one call's slice, of each other one, however much these have queued.

While only one deployment asks, a turn runs up to `HTTP_CALLS_PER_TURN_MAX` of its calls next to each other, for a call
leaves the processor's caches warm for the next one. Once another has asked, a turn ends after `TURN_SHARED_US`, so that
what arrives meanwhile is looked at; and it stays so for `TURNS_SHARED` turns.

What a call costs is what its deployment's meter says it cost the loop thread, which nobody measures a second time.

Concurrency: the loop thread.
"""

import logging
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from skerry.functions.right_of_way import RightOfWay, get_right_of_way
from skerry.limits import (
    HTTP_CALLS_PER_TURN_MAX,
    TURN_CALL_US_MIN,
    TURN_DEBT_US_MAX,
    TURN_QUANTUM_US,
    TURN_SHARED_US,
    TURNS_SHARED,
)

_log: Final = logging.getLogger("skerry.http")
_QUANTUM_NS: Final = TURN_QUANTUM_US * 1_000
_DEBT_NS_MAX: Final = TURN_DEBT_US_MAX * 1_000
_CALL_NS_MIN: Final = TURN_CALL_US_MIN * 1_000
_SHARED_NS: Final = TURN_SHARED_US * 1_000
_ALONE_NS: Final = 10**12

Ask = Callable[[], None]
"""One call, ready to run. It raises nothing."""


class Spent(Protocol):
    """Who says what a deployment has cost the loop thread so far, in nanoseconds."""

    loop_ns: int


class TurnQueue:
    """What one deployment's requests ask for. Shape: `end` is called after its calls of a turn have run."""

    __slots__ = ("asked", "credit_ns", "end", "is_listed", "is_running", "meter")

    def __init__(self, meter: Spent, end: Callable[[], None]) -> None:
        self.asked: deque[Ask] = deque()
        self.meter = meter
        self.end = end
        self.credit_ns = 0
        self.is_listed = False
        self.is_running = False


class Turns:
    """The turns of all deployments of a server. Shape: `call_soon` runs a function once the loop's turn is over."""

    def __init__(self, call_soon: Callable[[Callable[[], None]], object], way: RightOfWay | None = None) -> None:
        self._call_soon = call_soon
        self._ring: deque[TurnQueue] = deque()
        self._is_awaited = False
        self._last: TurnQueue | None = None
        self._shared = 0
        self._way = way or get_right_of_way()

    def ask(self, queue: TurnQueue, ask: Ask) -> None:
        """Runs a call when its turn comes."""
        queue.asked.append(ask)
        if queue is not self._last:
            if self._last is not None:
                self._shared = TURNS_SHARED
                self._way.is_shared = True
            self._last = queue
        if not queue.is_listed:
            queue.is_listed = True
            self._ring.append(queue)
        if not self._is_awaited:
            self._is_awaited = True
            self._way.take()
            self._call_soon(self._run)

    def _run(self) -> None:
        """One turn: runs calls, then tells their queues."""
        ring = self._ring
        calls, left_ns = HTTP_CALLS_PER_TURN_MAX, _ALONE_NS
        if self._shared:
            self._shared -= 1
            self._way.is_shared = self._shared > 0
            left_ns = _SHARED_NS
        served: list[TurnQueue] = []
        while ring and calls > 0 and left_ns > 0:
            queue = ring[0]
            if queue.credit_ns <= 0:
                queue.credit_ns = _QUANTUM_NS + (queue.credit_ns if len(ring) > 1 else 0)
                if queue.credit_ns <= 0:
                    ring.rotate(-1)
                    continue
            if not queue.is_running:
                queue.is_running = True
                served.append(queue)
            asked, meter = queue.asked, queue.meter
            while asked and calls > 0 and left_ns > 0 and queue.credit_ns > 0:
                before_ns = meter.loop_ns
                try:
                    asked.popleft()()
                except Exception:  # of one call, which must not take the turns of all the others with it
                    _log.exception("a call could not be begun")
                cost_ns = meter.loop_ns - before_ns + _CALL_NS_MIN
                queue.credit_ns -= cost_ns
                left_ns -= cost_ns
                calls -= 1
            if not asked:
                ring.popleft()
                queue.is_listed = False
                queue.credit_ns = min(queue.credit_ns, 0)  # what is owed stays owed, what is left is not kept
            elif queue.credit_ns <= 0:
                ring.rotate(-1)
            queue.credit_ns = max(queue.credit_ns, -_DEBT_NS_MAX)
        for queue in served:
            queue.is_running = False
            try:
                queue.end()
            except Exception:
                _log.exception("the calls of a turn could not be answered")
        if ring:
            self._call_soon(self._run)
        else:
            self._is_awaited = False
            self._way.release()
