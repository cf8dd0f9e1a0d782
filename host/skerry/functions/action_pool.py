"""Where actions of all deployments run: a few threads of low priority, and places for so many actions at once.

**Threads.** One entry into a guest is one job; between entries an action has no thread. An entry that outruns
`ACTION_SLICE_MS` of CPU time goes on with the lowest priority there is, and a fresh thread takes its thread's place:
who computes for long delays neither the loop thread nor another action. (A priority cannot be raised again without
privileges, so such a thread ends with its job.) Of those, as many compute at once as half of the processors, in turns:
one that the machine sets aside may hold Python's global lock.

**Turns.** Each deployment has a queue of jobs, and deployments take turns: one that has a thousand actions to enter
delays another's by one job for each thread.

**Several at a time.** A loop thread that is woken by each outcome takes the global lock from the next entry, and loses
it to that again: while there are more jobs, a thread tells of a few outcomes together, and of all once one computes.

**Places.** An action that a caller began takes one of `ACTIONS_RUNNING_MAX` places, waits for one in the order of
arrival, or is refused. What actions call takes from the isolates beyond those and never waits: an action that waited
for a place while it holds one could wait for itself.

One pool serves a process. Nothing is made before the first action.

Concurrency: `submit` any thread; everything else the loop thread.
"""

import contextlib
import logging
import os
import queue
import threading
from collections import deque
from collections.abc import Callable
from time import perf_counter_ns
from typing import Final

from skerry import limits
from skerry.functions.right_of_way import get_right_of_way
from skerry.isolate import Outran

_log: Final = logging.getLogger("skerry.actions")

Job = Callable[[Outran], "Callable[[], None] | None"]
"""Work for an action thread; it is given what to call once it outruns its slice, which gives what to call now and then
from there on, so that others have their turns. What it raises is logged, and ends
nothing but the job. It may give what tells its loop thread of the outcome, to be called soon."""


class JobQueue:
    """The jobs of one deployment, in their order."""

    __slots__ = ("is_listed", "jobs")

    def __init__(self) -> None:
        self.jobs: deque[Job] = deque()
        self.is_listed = False


class ComputingTurns:
    """Turns of threads that compute for long. Shape: `places` threads have a turn at once. Concurrency: any thread."""

    def __init__(self, places: int) -> None:
        self._free = places
        self._lock = threading.Lock()
        self._waiting: deque[threading.Lock] = deque()

    @property
    def n_waiting(self) -> int:
        """How many threads wait."""
        return len(self._waiting)

    def begin(self) -> None:
        """Waits for a turn."""
        with self._lock:
            if self._free:
                self._free -= 1
                return
            mine = threading.Lock()
            mine.acquire()
            self._waiting.append(mine)
        mine.acquire()

    def end(self) -> None:
        """Gives the turn to who waits longest."""
        with self._lock:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._free += 1

    def rotate(self) -> None:
        """Lets the others have a turn."""
        if self._waiting:
            self.end()
            self.begin()


class ActionPool:
    """Threads and places for actions."""

    def __init__(
        self, *, running_max: int = limits.ACTIONS_RUNNING_MAX, waiting_max: int = limits.ACTIONS_WAITING_MAX
    ) -> None:
        self._running_max = running_max
        self._waiting_max = waiting_max
        self._waiting: deque[Callable[[], None]] = deque()
        self._asked: queue.SimpleQueue[None] = queue.SimpleQueue()  # one entry for each job that waits
        self._ring: deque[JobQueue] = deque()
        self._turns = threading.Lock()
        self._anyones = JobQueue()
        self._lock = threading.Lock()
        self._computing = ComputingTurns(max(1, len(os.sched_getaffinity(0)) // 2))
        self._way = get_right_of_way()
        self._threads = 0
        self.outrun = 0
        self.running = 0
        self.isolates = 0

    # -- places --------------------------------------------------------------------------------------------------

    def enter(self, begin: Callable[[], None]) -> bool:
        """Calls `begin` now, or once there is a place; False where too many wait already."""
        if self.running < self._running_max:
            self.running += 1
            self.isolates += 1
            begin()
            return True
        if len(self._waiting) >= self._waiting_max:
            return False
        self._waiting.append(begin)
        return True

    def is_waiting(self, begin: Callable[[], None]) -> bool:
        """Whether it waits: most recently or not at all."""
        return bool(self._waiting) and self._waiting[-1] is begin

    def give_up(self, begin: Callable[[], None]) -> None:
        """Waits no longer."""
        self._waiting.remove(begin)

    def enter_nested(self) -> bool:
        """A place for an action that an action called; False where there is none.

        What callers begin finds its isolate whatever actions call.
        """
        if self.isolates - self.running >= limits.ACTION_ISOLATES_MAX - self._running_max:
            return False
        self.isolates += 1
        return True

    def leave(self, *, is_nested: bool) -> None:
        """Gives a place back, which who waits longest takes."""
        self.isolates -= 1
        if is_nested:
            return
        self.running -= 1
        if self._waiting:
            self.running += 1
            self.isolates += 1
            self._waiting.popleft()()

    # -- threads -------------------------------------------------------------------------------------------------

    def submit(self, job: Job, whose: JobQueue | None = None) -> None:
        """Runs a job on one of the threads, when the turn of its queue comes."""
        if self._threads == 0:
            with self._lock:
                while self._threads < limits.ACTION_THREADS:
                    self._threads += 1
                    self._start_thread()
        jobs = whose or self._anyones
        with self._turns:
            jobs.jobs.append(job)
            if not jobs.is_listed:
                jobs.is_listed = True
                self._ring.append(jobs)
        self._asked.put(None)

    def _start_thread(self) -> None:
        threading.Thread(target=self._work, name="skerry-action", daemon=True).start()

    def _work(self) -> None:
        lower_priority(limits.ACTION_THREAD_NICE)
        is_outrun = False
        untold: list[Callable[[], None]] = []  # loops that outcomes wait for
        jobs_untold = 0

        def tell() -> None:
            nonlocal jobs_untold
            jobs_untold = 0
            while untold:
                untold.pop()()

        def outran() -> Callable[[], None]:
            nonlocal is_outrun
            tell()
            with self._lock:
                if self.outrun >= limits.ACTION_THREADS_OUTRUN_MAX:
                    return self._way.give_way
                self.outrun += 1
            is_outrun = True
            self._start_thread()
            lower_priority(limits.ACTION_THREAD_OUTRUN_NICE)
            self._computing.begin()
            return self._next_turn()

        while not is_outrun:
            job = self._next_job(tell if untold else None, jobs_untold)
            wake = None
            try:
                wake = job(outran)
            except Exception:
                _log.exception("an action's entry failed in the host")
            del job  # an action that has ended must not stay until the next one comes
            if wake is not None:
                untold.append(wake)
            jobs_untold += bool(untold)
        self._computing.end()
        tell()
        with self._lock:
            self.outrun -= 1

    def _next_turn(self) -> Callable[[], None]:
        """What a thread that computes for long calls now and then."""
        end_ns = perf_counter_ns() + limits.COMPUTING_TURN_NS

        def give_way() -> None:
            nonlocal end_ns
            self._way.give_way()
            if perf_counter_ns() >= end_ns:
                self._computing.rotate()
                end_ns = perf_counter_ns() + limits.COMPUTING_TURN_NS

        return give_way

    def _next_job(self, tell: Callable[[], None] | None, jobs_untold: int) -> Job:
        """The next job; who has something to tell neither waits for one nor takes too many before it has told."""
        if tell is not None:
            if jobs_untold < limits.ACTION_JOBS_UNTOLD_MAX:
                with contextlib.suppress(queue.Empty):
                    self._asked.get_nowait()
                    return self._take()
            tell()
        self._asked.get()
        return self._take()

    def _take(self) -> Job:
        """The first job of the queue whose turn it is, which then goes to the end of the turns."""
        with self._turns:
            whose = self._ring.popleft()
            job = whose.jobs.popleft()
            if whose.jobs:
                self._ring.append(whose)
            else:
                whose.is_listed = False
            return job


def lower_priority(nice: int) -> None:
    """Lowers the calling thread's priority, where threads have one of their own; it cannot be raised again."""
    with contextlib.suppress(OSError, AttributeError):  # where threads have no priority of their own
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), nice)


_pool: Final = ActionPool()


def get_action_pool() -> ActionPool:
    """The process's pool."""
    return _pool
