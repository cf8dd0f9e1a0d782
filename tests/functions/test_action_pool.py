"""Places and threads for actions: who runs, who waits, who is refused, and what a server that stops does."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from skerry import limits
from skerry.errors import SkerryError
from skerry.functions.action_pool import ActionPool, ComputingTurns, Job, JobQueue
from skerry.isolate import Outran
from tests.fixtures import shared
from tests.fixtures.action_bundle import action_bundle
from tests.fixtures.hands import HandTimer, HandTimers
from tests.fixtures.world import FOUND_SECONDS_MAX, World

SLEEP = {"ms": 50_000}


@pytest.fixture
def timers() -> HandTimers:
    return HandTimers()


@pytest.fixture
def pool() -> ActionPool:
    return ActionPool(running_max=2, waiting_max=2)


@pytest.fixture
def world(base: Path, tmp_path: Path, timers: HandTimers, pool: ActionPool) -> Iterator[World]:
    with World(tmp_path / "data", shared.compiled(base), timers=timers, action_pool=pool) as made:
        made.activate(action_bundle(base))
        yield made
        timers.advance(2 * limits.ACTION_SECONDS_MAX)


def _code(world: World, future: "object") -> str:
    with pytest.raises(SkerryError) as caught:
        world.finish(future)  # type: ignore[arg-type]
    return caught.value.code


# -- places --------------------------------------------------------------------------------------------------------


def test_a_full_pool_queues_and_then_refuses(world: World, timers: HandTimers, pool: ActionPool) -> None:
    running = [world.start("action", "a:sleeps", {"ms": 10_000}) for _ in range(2)]
    waiting = [world.start("action", "a:typed", {"text": text}) for text in "ab"]
    refused = world.start("action", "a:typed", {"text": "c"})
    assert _code(world, refused) == "TooManyConcurrentActions"
    assert pool.running == 2 and not any(future.done() for future in running + waiting)
    world.until(lambda: timers.waiting(10) == 2)
    timers.advance(10)
    assert [world.finish(future).ok for future in running + waiting] == [True] * 4
    world.until(lambda: pool.running == 0)


def test_nobody_waits_for_a_place_too_long(world: World, timers: HandTimers, pool: ActionPool) -> None:
    for _ in range(2):
        world.start("action", "a:sleeps", SLEEP)
    world.until(lambda: timers.waiting(50) == 2)
    waiting = world.start("action", "a:typed", {"text": "a"})
    timers.advance(limits.ACTION_WAIT_SECONDS_MAX - 1)
    assert not waiting.done()
    timers.advance(1)
    assert _code(world, waiting) == "TooManyConcurrentActions"
    later = world.start("action", "a:typed", {"text": "b"})
    timers.advance(50 - limits.ACTION_WAIT_SECONDS_MAX)
    assert world.finish(later).value == b'"b!"'


def test_called_actions_take_no_place_and_never_wait(world: World, timers: HandTimers, pool: ActionPool) -> None:
    world.start("action", "a:sleeps", SLEEP)
    assert world.action("a:depth", {"n": 2}) == 2
    called = 0
    while pool.enter_nested():
        called += 1
    assert called == limits.ACTION_ISOLATES_MAX - 2  # the pool of this test begins two for callers
    assert "Too many actions run or wait." in world.failure("action", "a:depth", {"n": 1})
    for _ in range(called):
        pool.leave(is_nested=True)
    assert world.action("a:depth", {"n": 1}) == 1


def test_what_actions_call_leaves_callers_their_isolates() -> None:
    pool, begun = ActionPool(), []
    assert pool.enter(lambda: begun.append(0))
    while pool.enter_nested():
        pass
    for number in range(1, limits.ACTIONS_RUNNING_MAX + 1):
        assert pool.enter(lambda number=number: begun.append(number))
    assert begun == list(range(limits.ACTIONS_RUNNING_MAX))
    assert pool.isolates == limits.ACTION_ISOLATES_MAX
    pool.leave(is_nested=False)
    assert begun[-1] == limits.ACTIONS_RUNNING_MAX  # who waited goes on, whatever actions called


def test_the_bounds_of_a_pool() -> None:
    pool, begun = ActionPool(), []

    def begin_of(number: int) -> Callable[[], None]:
        return lambda: begun.append(number)

    most, waiting = limits.ACTIONS_RUNNING_MAX, limits.ACTIONS_WAITING_MAX
    assert all(pool.enter(begin_of(number)) for number in range(most + waiting))
    assert begun == list(range(most))
    assert not pool.enter(begin_of(-1))
    pool.leave(is_nested=False)
    assert begun[-1] == most
    assert pool.enter(begin_of(-1))


def test_a_thousand_actions_sleep_while_a_query_runs(base: Path, tmp_path: Path, timers: HandTimers) -> None:
    with World(tmp_path / "data", shared.compiled(base), timers=timers) as world:
        world.activate(action_bundle(base))
        sleeping = [world.start("action", "a:sleeps", SLEEP) for _ in range(limits.ACTIONS_RUNNING_MAX)]
        world.until(lambda: timers.waiting(50) == limits.ACTIONS_RUNNING_MAX)
        assert world.query("a:add", {"x": 1, "y": 2}) == 3
        timers.advance(50)
        assert {world.finish(future).value for future in sleeping} == {b'"slept"'}
        assert world.deployment.actions.pool.isolates == 0


# -- threads -------------------------------------------------------------------------------------------------------


def test_threads_that_outrun_their_slice_are_replaced_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "COMPUTING_TURN_NS", 0)
    pool, ends = ActionPool(), threading.Event()
    blocked = threading.Semaphore(0)

    def hog(outran: Outran) -> None:
        look = outran()
        blocked.release()
        while not ends.wait(0.001):
            look()

    def runs_now() -> threading.Event:
        ran = threading.Event()
        pool.submit(lambda _outran: ran.set())
        return ran

    for _ in range(limits.ACTION_THREADS_OUTRUN_MAX):
        pool.submit(hog)
        assert blocked.acquire(timeout=FOUND_SECONDS_MAX)
    assert pool.outrun == limits.ACTION_THREADS_OUTRUN_MAX
    assert runs_now().wait(FOUND_SECONDS_MAX)
    for _ in range(limits.ACTION_THREADS):
        pool.submit(hog)
        assert blocked.acquire(timeout=FOUND_SECONDS_MAX)
    late = runs_now()
    assert not late.is_set() and pool.outrun == limits.ACTION_THREADS_OUTRUN_MAX
    ends.set()
    assert late.wait(FOUND_SECONDS_MAX)


def test_few_threads_compute_at_once_and_each_has_its_turn() -> None:
    turns, order, waiting = ComputingTurns(1), list[str](), list[threading.Thread]()
    turns.begin()

    def compute(name: str) -> None:
        turns.begin()
        order.append(name)
        turns.end()

    for name in ("first", "second"):
        thread = threading.Thread(target=compute, args=(name,))
        thread.start()
        waiting.append(thread)
        while turns.n_waiting < len(waiting):
            thread.join(0.001)
    assert not order
    turns.rotate()
    order.append("again")
    turns.rotate()
    turns.end()
    for thread in waiting:
        thread.join(FOUND_SECONDS_MAX)
    assert order == ["first", "second", "again"] and turns.n_waiting == 0


# -- the end -------------------------------------------------------------------------------------------------------


def test_a_server_that_stops_lets_actions_end(world: World, timers: HandTimers) -> None:
    running = world.start("action", "a:sleeps", {"ms": limits.ACTION_SHUTDOWN_SECONDS_MAX * 1000 - 1})
    calling = world.start("action", "a:calls", {"n": 1})
    waiting = world.start("action", "a:typed", {"text": "a"})
    world.deployment.drain()
    assert _code(world, waiting) == "ShuttingDown"
    assert _code(world, world.start("action", "a:typed", {"text": "b"})) == "ShuttingDown"
    assert world.finish(calling).ok, "what an action calls is served to the end"
    world.until(lambda: timers.waiting(limits.ACTION_SHUTDOWN_SECONDS_MAX - 0.001))
    timers.advance(limits.ACTION_SHUTDOWN_SECONDS_MAX - 0.001)
    assert world.finish(running).value == b'"slept"'
    world.close()


def test_a_server_that_stops_ends_actions_that_do_not(world: World, timers: HandTimers, pool: ActionPool) -> None:
    sleeping = world.start("action", "a:sleeps", SLEEP)
    looping = world.start("action", "a:loops", {})
    world.until(lambda: timers.waiting(50) and pool.outrun)
    closing = world.loop.create_task(world.deployment.close())
    world.until(lambda: timers.waiting(limits.ACTION_SHUTDOWN_SECONDS_MAX))
    timers.advance(limits.ACTION_SHUTDOWN_SECONDS_MAX)
    assert {_code(world, sleeping), _code(world, looping)} == {"ShuttingDown"}
    world.finish(closing)


def test_a_job_that_fails_leaves_its_thread_to_the_others(caplog: pytest.LogCaptureFixture) -> None:
    pool, ran = ActionPool(), threading.Semaphore(0)

    def fails(_: Callable[[], None]) -> None:
        raise RuntimeError("the loop is closed")

    for _ in range(limits.ACTION_THREADS):
        pool.submit(fails)
    pool.submit(lambda _: ran.release())
    assert ran.acquire(timeout=FOUND_SECONDS_MAX)
    assert "the loop is closed" in caplog.text


class BrokenTimers(HandTimers):
    """Timers of which one breaks: that of 777 ms."""

    def call_later(self, delay: float, callback: Callable[[], object], /) -> HandTimer:
        if delay == 0.777:
            raise RuntimeError("no such timer")
        return super().call_later(delay, callback)


def test_an_action_that_fails_in_the_host_ends_alone(base: Path, tmp_path: Path) -> None:
    timers, pool = BrokenTimers(), ActionPool(running_max=2, waiting_max=2)
    with World(tmp_path / "data", shared.compiled(base), timers=timers, action_pool=pool) as world:
        world.activate(action_bundle(base))
        assert _code(world, world.start("action", "a:sleeps", {"ms": 777})) == "InternalServerError"
        futures = [world.start("action", "a:sleeps", {"ms": 777}), world.start("action", "a:typed", {"text": "a"})]
        assert _code(world, futures[0]) == "InternalServerError"
        assert world.finish(futures[1]).ok
        world.until(lambda: pool.running == 0)
        assert world.deployment.actions.is_idle


def _run_on_one_thread(pool: ActionPool, jobs: list[Job]) -> None:
    """Runs jobs one after another, none of which begins before all wait."""
    begin, end = threading.Event(), threading.Event()
    held = threading.Semaphore(0)

    def hold(until: threading.Event) -> None:
        held.release()
        until.wait(FOUND_SECONDS_MAX)

    for until in (begin, *[end] * (limits.ACTION_THREADS - 1)):
        pool.submit(lambda _outran, until=until: hold(until))
        assert held.acquire(timeout=FOUND_SECONDS_MAX)
    for job in jobs:
        pool.submit(job)
    last = threading.Event()
    pool.submit(lambda _outran: last.set())
    begin.set()
    assert last.wait(FOUND_SECONDS_MAX)
    end.set()


def test_outcomes_are_told_together_and_not_kept_for_long() -> None:
    told: list[int] = []
    seen: list[int] = []

    def job(number: int) -> Job:
        def run(_outran: Outran) -> Callable[[], None]:
            seen.append(len(told))
            return lambda: told.append(number)

        return run

    most = limits.ACTION_JOBS_UNTOLD_MAX
    _run_on_one_thread(ActionPool(), [job(number) for number in range(most + 2)])
    assert seen == [0] * most + [most] * 2


def test_an_entry_that_computes_for_long_keeps_no_outcome_from_others() -> None:
    told, ended, seen = threading.Event(), threading.Event(), []

    def compute(outran: Outran) -> None:
        seen.append(told.is_set())
        outran()
        seen.append(told.is_set())
        ended.set()

    _run_on_one_thread(ActionPool(), [lambda _outran: told.set, compute])
    assert ended.wait(FOUND_SECONDS_MAX)
    assert seen == [False, True]


def test_an_outcome_waits_for_no_other_job() -> None:
    pool = ActionPool()
    for _ in range(200):  # two threads that take each other's next job, again and again
        told = [threading.Event() for _ in range(4)]
        for each in told:
            pool.submit(lambda _outran, each=each: each.set)
        assert all(each.wait(FOUND_SECONDS_MAX) for each in told)


def test_deployments_take_turns_at_the_threads() -> None:
    pool, many, few = ActionPool(), JobQueue(), JobQueue()
    ran: list[str] = []
    begin, end, last = threading.Event(), threading.Event(), threading.Event()
    held = threading.Semaphore(0)

    def hold(until: threading.Event) -> None:
        held.release()
        until.wait(FOUND_SECONDS_MAX)

    for until in (begin, *[end] * (limits.ACTION_THREADS - 1)):  # one thread is left, and begins when all wait
        pool.submit(lambda _outran, until=until: hold(until))
        assert held.acquire(timeout=FOUND_SECONDS_MAX)
    for number in range(100):
        pool.submit(lambda _outran, number=number: ran.append(f"many {number}"), many)
    for number in range(3):
        pool.submit(lambda _outran, number=number: ran.append(f"few {number}"), few)
    pool.submit(lambda _outran: last.set(), many)
    begin.set()
    assert last.wait(FOUND_SECONDS_MAX)
    end.set()
    assert ran[:6] == ["many 0", "few 0", "many 1", "few 1", "many 2", "few 2"]
    assert ran[6:] == [f"many {number}" for number in range(3, 100)]
