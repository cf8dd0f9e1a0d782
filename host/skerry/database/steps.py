"""Long work of a database in short pieces: what a step is, and the few things that steps are made of.

A generator of *steps* gives None where it merely makes room, or a future to wait for before it goes on: a sync, or work
that is too long for the loop thread and is done beside it. Whoever drives it lets others have the loop thread in
between, and may end it anywhere by closing it.

Concurrency: the loop thread.
"""

from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future
from functools import partial
from time import perf_counter_ns
from typing import Any, Final

from skerry.limits import SCHEMA_BATCHES_PENDING_MAX, SCHEMA_STEP_US_MAX

Steps = Generator[Future[None] | None, None, None]
"""Work in pieces: each gives what to wait for before the next one, None where that is nothing."""

Beside = Callable[[Callable[[], None]], Future[None]]
"""Runs a function on another thread."""

STEP_NS: Final = SCHEMA_STEP_US_MAX * 1_000


class Turn:
    """The time that a step has on the loop thread."""

    __slots__ = ("_end_ns",)

    def __init__(self) -> None:
        self._end_ns = perf_counter_ns() + STEP_NS

    def is_over(self) -> bool:
        """Whether it is time to make room; if so, the next step begins now."""
        now_ns = perf_counter_ns()
        if now_ns < self._end_ns:
            return False
        self._end_ns = now_ns + STEP_NS
        return True

    def begin(self) -> None:
        """Count from now on: the thread was somebody else's."""
        self._end_ns = perf_counter_ns() + STEP_NS


class Batches:
    """Batches on their way to storage. Limits: SCHEMA_BATCHES_PENDING_MAX are waited for, so that memory is bounded."""

    def __init__(self, submit: Callable[[list[Any]], Future[None]]) -> None:
        self._submit = submit
        self._pending: deque[Future[None]] = deque()

    def add(self, writes: list[Any]) -> Steps:
        """Hand one over, and wait for the oldest where there are too many. Raises: SystemFault of storage."""
        self._pending.append(self._submit(writes))
        if len(self._pending) >= SCHEMA_BATCHES_PENDING_MAX:
            yield from waited(self._pending.popleft())

    def drain(self) -> Steps:
        """Wait for all of them. Raises: SystemFault of storage."""
        while self._pending:
            yield from waited(self._pending.popleft())


def waited(future: Future[None]) -> Steps:
    """Wait for a future. Raises: what it holds."""
    if not future.done():
        yield future
    future.result()


def run_beside(beside: Beside, work: Callable[..., None], *arguments: Any) -> Steps:
    """Do work on another thread, and wait for it. Raises: what it raises."""
    done = beside(partial(work, *arguments))
    yield done
    done.result()


def at_once(work: Callable[[], None]) -> Future[None]:
    """A `Beside` that works on this thread."""
    done: Future[None] = Future()
    try:
        work()
    except Exception as error:
        done.set_exception(error)
    else:
        done.set_result(None)
    return done
