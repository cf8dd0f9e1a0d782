"""The threads of patient calls: turns by deployment, and none that one deployment could not be kept from."""

import threading
from collections.abc import Callable

import pytest

from skerry import limits
from skerry.functions.patient_threads import PatientQueue, PatientThreads, threads_of_one

SECONDS_MAX = 30


class Gate:
    """Jobs that say that they began, wait to be let go, and note the order of their ends."""

    def __init__(self) -> None:
        self.began = threading.Semaphore(0)
        self.opened = threading.Event()
        self.order: list[str] = []
        self.ended = threading.Semaphore(0)

    def job(self, name: str) -> Callable[[], None]:
        def run() -> None:
            self.began.release()
            assert self.opened.wait(SECONDS_MAX)
            self.order.append(name)
            self.ended.release()

        return run

    def wait(self, semaphore: threading.Semaphore, times: int) -> None:
        for _ in range(times):
            assert semaphore.acquire(timeout=SECONDS_MAX)


def test_one_deployment_never_has_all_threads() -> None:
    threads, greedy, other = PatientThreads(), PatientQueue(), PatientQueue()
    held, quick = Gate(), Gate()
    quick.opened.set()
    for number in range(10):
        threads.submit(greedy, held.job(f"greedy {number}"))
    held.wait(held.began, limits.BACKGROUND_THREADS_EACH_MAX)
    for number in range(5):
        threads.submit(other, quick.job(f"other {number}"))
    quick.wait(quick.ended, 5)
    assert quick.order == [f"other {number}" for number in range(5)], "served while the greedy one holds its threads"
    assert greedy.running == limits.BACKGROUND_THREADS_EACH_MAX
    assert not held.began.acquire(blocking=False), "one past the bound has begun"
    held.opened.set()
    held.wait(held.ended, 10)


@pytest.mark.parametrize(("processors", "threads"), [(1, 1), (2, 1), (3, 1), (4, 2), (64, 2)])
def test_one_deployment_leaves_a_processor_to_the_loop_thread(processors: int, threads: int) -> None:
    assert threads_of_one(processors) == threads <= limits.BACKGROUND_THREADS_EACH_MAX


def test_deployments_take_turns_whatever_each_has_queued() -> None:
    threads = PatientThreads(threads=1, each_max=1)
    plug, gate = Gate(), Gate()
    gate.opened.set()
    threads.submit(PatientQueue(), plug.job("plug"))
    plug.wait(plug.began, 1)
    many, few = PatientQueue(), PatientQueue()
    for number in range(4):
        threads.submit(many, gate.job(f"many {number}"))
    for number in range(2):
        threads.submit(few, gate.job(f"few {number}"))
    plug.opened.set()
    gate.wait(gate.ended, 6)
    assert gate.order == ["many 0", "few 0", "many 1", "few 1", "many 2", "many 3"]


def test_a_job_that_fails_ends_nothing_but_itself(caplog: pytest.LogCaptureFixture) -> None:
    threads, queue, gate = PatientThreads(threads=1, each_max=1), PatientQueue(), Gate()
    gate.opened.set()

    def fails() -> None:
        raise RuntimeError("the loop is closed")

    threads.submit(queue, fails)
    threads.submit(queue, gate.job("next"))
    gate.wait(gate.ended, 1)
    assert gate.order == ["next"]
    assert "the loop is closed" in caplog.text
