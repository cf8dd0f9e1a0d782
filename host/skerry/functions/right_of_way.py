"""Who goes first where both want Python's global lock: the loop thread, whose callers wait for short calls.

A background thread that computes in Python gives the lock up soon after it is asked, but the loop thread takes it anew
for each event and each hostcall, and each time it may have to ask, wait for a thread that the machine has set aside,
and lose it again. So while calls wait for the loop thread, or commits for the writer, background work stops where it
looks at its budget or asks its host, until they are done or `GIVE_WAY_SECONDS_MAX` have passed: it is never starved.

Before that the loop thread needs the lock to learn that there are calls, and asking for it is not enough: Python counts
the time a holder keeps the lock anew whenever the holder lets it go for a moment, as it does for each read of the
storage, and has it back before a thread that slept is awake. So background work also looks, every `EVENTS_LOOK_NS`,
whether events wait that the loop has not taken, and sleeps then for as long as it takes to wake a thread.

The same object says whether several deployments ask for calls at present, because then a call's slice is shorter.

One object serves a process.

Concurrency: `give_way` any thread but the loop thread; everything else the loop thread.
"""

import asyncio
import select
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from threading import Lock
from time import perf_counter_ns
from typing import Any, Final

from skerry import limits
from skerry.isolate import CpuBudget


class RightOfWay:
    """Shape: `taken` is for how many reasons the loop thread goes first; `is_shared`, whether deployments share it."""

    __slots__ = ("_events", "_pause", "_waiting", "is_shared", "taken")

    def __init__(self, pause: Callable[[float], None] = time.sleep) -> None:
        self._pause = pause
        self.taken = 0
        self.is_shared = False
        self._waiting: list[Lock] = []
        self._events: _Events | None = None

    def watch(self, descriptor: int | None) -> None:
        """Has background work give way to what waits for the loop as well. Shape: what it polls; None for none."""
        self._events = None if descriptor is None else _Events(descriptor)

    def take(self) -> None:
        """Background work stops at its next look. Each `take` is ended by one `release`."""
        self.taken += 1

    def release(self) -> None:
        """Ends one `take`; after the last one background work goes on."""
        self.taken -= 1
        if not self.taken:
            waiting = self._waiting
            while waiting:
                waiting.pop().release()

    def give_way(self) -> None:
        """Waits while the loop thread goes first, GIVE_WAY_SECONDS_MAX at most."""
        if not self.taken:
            events = self._events
            if events is None or not events.wait():
                return
            self._pause(limits.HAND_OVER_SECONDS)
            if not self.taken:
                return
        lock = Lock()
        lock.acquire()
        waiting = self._waiting
        waiting.append(lock)
        # Looked at again: the last release may have come before it could know of this lock.
        if not self.taken or not lock.acquire(timeout=limits.GIVE_WAY_SECONDS_MAX):
            with suppress(ValueError):  # released in this very moment
                waiting.remove(lock)

    @property
    def n_waiting(self) -> int:
        """How many threads wait. Any thread."""
        return len(self._waiting)

    @property
    def slice_ms(self) -> int:
        """What a call run on the loop thread may spend there, in milliseconds of CPU time."""
        return limits.INLINE_SLICE_SHARED_MS if self.is_shared else limits.INLINE_SLICE_MS


class _Events(threading.local):
    """Whether events wait for the loop. Concurrency: any thread; each asks with a poll object of its own."""

    def __init__(self, descriptor: int) -> None:
        self._looked_ns = 0
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)

    def wait(self) -> bool:
        """Whether the loop has not taken all events that came; False if this thread asked a moment ago."""
        now_ns = perf_counter_ns()
        if now_ns - self._looked_ns < limits.EVENTS_LOOK_NS:
            return False
        self._looked_ns = now_ns
        return bool(self._poll.poll(0))


def descriptor_of(loop: asyncio.AbstractEventLoop) -> int | None:
    """What a loop polls for its events; None where the loop does not tell."""
    ask: Any = getattr(loop, "_get_backend_id", None)  # uvloop's only way to tell
    return None if ask is None else int(ask())


class PatientBudget(CpuBudget):
    """The budget of a call on a background thread, which gives way where it looks at it."""

    __slots__ = ()

    def look(self) -> None:
        _way.give_way()
        super().look()

    def asked(self) -> None:
        _way.give_way()


_way: Final = RightOfWay()


def get_right_of_way() -> RightOfWay:
    """The process's."""
    return _way
