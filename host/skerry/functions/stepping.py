"""Driving steps (`skerry.database.Steps`) on the loop thread, up to where they make room for others.

What steps wait for is waited for, whatever becomes of it: the step behind it looks. Each step's CPU time is counted for
the deployment. What is done with the room is whoever drives them's to say.
"""

import asyncio
import contextlib
import time

from skerry.database import Steps
from skerry.functions.metering import Meter


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
