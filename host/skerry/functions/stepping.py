"""Driving steps (`skerry.database.Steps`) on the loop thread: up to where they make room for others, and the room.

What steps wait for is waited for, whatever becomes of it: the step behind it looks. Each step's CPU time is counted for
the deployment.

**Room.** Between two steps others have a turn of the loop. Where they use it, the next step waits for a moment
(`STEP_BUSY_PAUSE_SECONDS`), so that calls keep most of the thread, and for some time (`STEP_BUSY_TURNS`) smaller
batches go to storage, since commits stand in one queue with them. Nobody waits on an idle deployment. What others use
is the CPU time of the thread and not the clock: the storage's own thread may have held the turn up, on behalf of the
very steps that make room.
"""

import asyncio
import contextlib
import time
from typing import Final

from skerry import limits
from skerry.database import Database, Steps
from skerry.functions.lane import Lane
from skerry.functions.metering import Meter

_BUSY_NS: Final = limits.STEP_BUSY_TURN_US * 1_000


async def up_to_room(steps: Steps, meter: Meter) -> bool:
    """Takes steps until one makes room; False where they have come to their end. Raises: what the steps raise."""
    while True:
        begin_ns = time.thread_time_ns()
        try:
            waited = next(steps)
        except StopIteration:
            return False
        finally:
            meter.add_loop(time.thread_time_ns() - begin_ns)
        if waited is None:
            return True
        with contextlib.suppress(Exception):  # the next step looks at what became of it
            await asyncio.wrap_future(waited)


class Room:
    """The room between the steps of one piece of work. `make` waits for as long as others should have the loop."""

    def __init__(self, database: Database, lane: Lane) -> None:
        self._database = database
        self._lane = lane
        self._calls = lane.calls_inline
        self._busy_turns = 0

    async def make(self) -> None:
        """Lets others have a turn of the loop, and time where they use it."""
        begin_ns = time.thread_time_ns()
        await asyncio.sleep(0)
        calls = self._lane.calls_inline
        if calls != self._calls or time.thread_time_ns() - begin_ns > _BUSY_NS:
            self._busy_turns = limits.STEP_BUSY_TURNS
            self._database.is_busy = True
            await asyncio.sleep(limits.STEP_BUSY_PAUSE_SECONDS)
        elif self._busy_turns:
            self._busy_turns -= 1
            self._database.is_busy = self._busy_turns > 0
        self._calls = self._lane.calls_inline
