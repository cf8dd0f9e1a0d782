"""The threads that patient calls of all deployments share: each deployment has its turn, and none has them all.

Deployments with work are served round robin, each in the order of its own calls. One deployment has at most
`BACKGROUND_THREADS_EACH_MAX` of the `BACKGROUND_THREADS` threads, and as many as half of the processors, so that a
deployment whose calls take their whole CPU budget leaves threads to the others and a processor to the loop thread. The
threads have a lower priority than the loop thread: between two ready threads the machine takes the one whose callers
wait for the shorter work.

One pool serves a process; nothing is made before the first patient call.

Concurrency: `submit` any thread.
"""

import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from typing import Final

from skerry import limits
from skerry.functions.action_pool import lower_priority

_log: Final = logging.getLogger("skerry.patient")

Job = Callable[[], None]
"""Work for a thread. What it raises is logged, and ends nothing but the job."""


class PatientQueue:
    """The jobs of one deployment, as `PatientThreads` sees them."""

    __slots__ = ("is_listed", "jobs", "running")

    def __init__(self) -> None:
        self.jobs: deque[Job] = deque()
        self.running = 0
        self.is_listed = False


class PatientThreads:
    """The threads and whose turn it is. Shape: `each_max` threads at most run one queue's jobs."""

    def __init__(
        self, *, threads: int = limits.BACKGROUND_THREADS, each_max: int = limits.BACKGROUND_THREADS_EACH_MAX
    ) -> None:
        self._threads_max = threads
        self._each_max = each_max
        self._threads = 0
        self._idle = 0
        self._ready: deque[PatientQueue] = deque()
        self._changed = threading.Condition()

    def submit(self, queue: PatientQueue, job: Job) -> None:
        """Runs a job when its queue's turn comes."""
        with self._changed:
            queue.jobs.append(job)
            self._list(queue)
            if self._idle:
                self._changed.notify()
            elif self._threads < self._threads_max:
                self._threads += 1
                threading.Thread(target=self._work, name="skerry-patient", daemon=True).start()

    def _work(self) -> None:
        lower_priority(limits.BACKGROUND_THREAD_NICE)
        while True:
            with self._changed:
                while not self._ready:
                    self._idle += 1
                    self._changed.wait()
                    self._idle -= 1
                queue = self._ready.popleft()
                queue.is_listed = False
                job = queue.jobs.popleft()
                queue.running += 1
                self._list(queue)
            try:
                job()
            except Exception:
                _log.exception("a patient call failed in the host")
            del job  # a call that has ended must not stay until the next one comes
            with self._changed:
                queue.running -= 1
                if self._list(queue) and self._idle:
                    self._changed.notify()
            del queue

    def _list(self, queue: PatientQueue) -> bool:
        """Puts a queue at the end of the turns, where it has work that may run; whether it did."""
        if queue.is_listed or not queue.jobs or queue.running >= self._each_max:
            return False
        queue.is_listed = True
        self._ready.append(queue)
        return True


def threads_of_one(processors: int) -> int:
    """How many threads one deployment may have, on so many processors."""
    return max(1, min(limits.BACKGROUND_THREADS_EACH_MAX, processors // 2))


_threads: Final = PatientThreads(each_max=threads_of_one(len(os.sched_getaffinity(0))))
_vector_threads: Final = PatientThreads(threads=limits.VECTOR_THREADS, each_max=1)


def get_patient_threads() -> PatientThreads:
    """The process's threads."""
    return _threads


def get_vector_threads() -> PatientThreads:
    """The process's threads for vector indexes: one job of a deployment at a time. They are others than those that a
    query waits on for its index."""
    return _vector_threads
