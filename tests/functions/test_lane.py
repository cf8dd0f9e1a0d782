"""The order of calls: mutations one after the other, long ones beside them, and bounds on what waits."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from skerry import limits
from skerry.database import Transaction
from skerry.errors import SystemFault
from skerry.functions.request import CallResult
from skerry.functions.right_of_way import get_right_of_way
from tests.fixtures.hostile_bundle import hostile_bundle
from tests.fixtures.world import FOUND_SECONDS_MAX, World

LONG_MS = 60  # of work: far over an inline slice, whatever the machine
SLOW = 8


@pytest.fixture
def app(empty: World, base: Path) -> Iterator[World]:
    empty.activate(hostile_bundle(base))
    yield empty
    assert get_right_of_way().taken == 0, "whatever became of the calls, the loop thread's right of way has ended"


def slow_down(world: World, function: str) -> None:
    """Sends calls of a function to the background at once."""
    assert world.deployment.version is not None
    world.deployment.version.functions[function].slowness = SLOW


def values(world: World, futures: list["asyncio.Future[CallResult]"]) -> list[Any]:
    results = [world.finish(future) for future in futures]
    assert all(result.ok for result in results), [result.error_message for result in results]
    return [orjson.loads(result.value) for result in results]


def test_mutations_run_in_the_order_they_arrive_before_any_is_durable(app: World) -> None:
    futures = [app.start("mutation", "h:count") for _ in range(50)]
    assert not any(future.done() for future in futures), "none is answered before the sync"
    assert app.query("h:counted") in range(51)
    assert values(app, futures) == list(range(1, 51))
    assert app.query("h:counted") == 50
    assert app.deployment.lane.conflicts == 0


def test_queries_see_what_is_durable(app: World) -> None:
    future = app.start("mutation", "h:count")
    seen = app.start("query", "h:counted")
    assert seen.done() and orjson.loads(seen.result().value) == 0
    values(app, [future])
    assert app.query("h:counted") == 1


def test_a_call_that_outruns_its_slice_runs_again_in_the_background_and_counts_once(app: World) -> None:
    lane = app.deployment.lane
    assert app.mutation("h:count", {"ms": LONG_MS}) == 1
    assert (lane.calls_inline, lane.calls_patient) == (1, 1)
    assert app.query("h:counted") == 1


def test_a_function_that_is_slow_goes_to_the_background_until_it_proves_quick(app: World) -> None:
    lane = app.deployment.lane
    slow_down(app, "h:ping")
    for number in range(SLOW):
        assert app.query("h:ping", {"n": number}) == "pong"
    assert lane.calls_patient in range(SLOW - 1, SLOW + 1)
    inline_before = lane.calls_inline
    app.query("h:ping", {"n": SLOW})
    assert lane.calls_inline == inline_before + 1


def test_a_long_mutation_conflicts_holds_the_lane_and_counts(app: World) -> None:
    """While it runs, others change what it read; it gets its turn all the same, and nobody's count is lost."""
    assert app.mutation("h:count") == 1
    slow_down(app, "h:count")
    lane = app.deployment.lane
    futures = [app.start("mutation", "h:count", {"ms": LONG_MS}) for _ in range(4)]
    assert sorted(values(app, futures)) == [2, 3, 4, 5]
    assert app.query("h:counted") == 5
    assert lane.conflicts >= 1
    assert lane.in_flight == 0


def test_mutations_that_arrive_while_the_lane_is_held_wait_and_are_bounded(
    app: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LANE_CALLS_WAITING_MAX", 2)
    monkeypatch.setattr(limits, "CONFLICT_RETRIES_MAX", 1)
    lane = app.deployment.lane
    slow_down(app, "h:count")
    racing = [app.start("mutation", "h:count", {"ms": LONG_MS}) for _ in range(2)]
    app.wait(_until(lambda: lane._holder is not None))
    waiting = [app.start("mutation", "h:add", {"n": n}) for n in range(2)]
    refused = app.start("mutation", "h:add", {"n": 2})
    assert isinstance(refused.exception(), SystemFault)
    assert getattr(refused.exception(), "code", None) == "TooManyConcurrentRequests"
    assert app.query("h:ping") == "pong", "queries do not wait"
    assert not any(future.done() for future in waiting)
    values(app, [*racing, *waiting])
    assert app.query("h:written") == [0, 1]
    assert app.query("h:counted") == 2


def grow_under_calls(
    world: World, monkeypatch: pytest.MonkeyPatch, times: int, may: Callable[[], bool] = lambda: True
) -> list[Transaction]:
    """The storage grows just after a call beside the lane has begun, so often; the calls that lost their snapshot."""
    database = world.deployment.database
    begin, hit = database.begin, list[Transaction]()

    def grow(done: threading.Event) -> None:
        database.engine.grow()
        database._view.snapshot.renew()
        done.set()

    def begin_and_grow(**how: Any) -> Transaction:
        transaction = begin(**how)
        if how.get("detached") and len(hit) < times and may():
            hit.append(transaction)
            done = threading.Event()
            world.loop.call_soon_threadsafe(grow, done)
            assert done.wait(FOUND_SECONDS_MAX)
        return transaction

    monkeypatch.setattr(database, "begin", begin_and_grow)
    return hit


@pytest.mark.parametrize(("kind", "function"), [("query", "h:counted"), ("mutation", "h:count")])
def test_a_call_that_loses_its_snapshot_runs_again(
    app: World, monkeypatch: pytest.MonkeyPatch, kind: str, function: str
) -> None:
    app.mutation("h:count")
    slow_down(app, function)
    hit = grow_under_calls(app, monkeypatch, limits.SNAPSHOTS_LOST_MAX)
    expected = 1 if kind == "query" else 2
    assert values(app, [app.start(kind, function)]) == [expected]
    assert len(hit) == limits.SNAPSHOTS_LOST_MAX
    assert app.query("h:counted") == expected, "it counts once"


def test_a_call_that_loses_snapshot_after_snapshot_is_given_up(app: World, monkeypatch: pytest.MonkeyPatch) -> None:
    app.mutation("h:count")
    slow_down(app, "h:counted")
    hit = grow_under_calls(app, monkeypatch, limits.SNAPSHOTS_LOST_MAX + 1)
    future = app.start("query", "h:counted")
    with pytest.raises(SystemFault) as caught:
        app.finish(future)
    assert caught.value.code == "SnapshotGone"
    assert len(hit) == limits.SNAPSHOTS_LOST_MAX + 1
    assert app.deployment.lane.in_flight == 0
    assert app.query("h:counted") == 1


def test_who_holds_the_lane_keeps_it_when_its_snapshot_goes(app: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CONFLICT_RETRIES_MAX", 1)
    slow_down(app, "h:count")
    lane = app.deployment.lane
    hit = grow_under_calls(app, monkeypatch, 1, lambda: lane._holder is not None)
    racing = [app.start("mutation", "h:count", {"ms": LONG_MS}) for _ in range(2)]
    app.wait(_until(lambda: bool(hit)))
    holder = lane._holder
    assert holder is not None
    waiting = app.start("mutation", "h:add", {"n": 1})
    app.wait(_until(lambda: lane._holder is not holder))
    assert holder.snapshots_lost == 1
    values(app, [*racing, waiting])
    assert app.query("h:counted") == 2 and app.query("h:written") == [1]
    assert lane.in_flight == 0


def test_closing_waits_for_what_is_in_flight(app: World, compiled: Path, tmp_path: Path) -> None:
    slow_down(app, "h:count")
    future = app.start("mutation", "h:count", {"ms": LONG_MS})
    app.wait(app.deployment.close())
    assert orjson.loads(future.result().value) == 1
    late = app.start("query", "h:ping")
    assert getattr(late.exception(), "code", None) == "ShuttingDown"
    app.loop.run_until_complete(app.loop.shutdown_default_executor())
    app.loop.close()
    with World(tmp_path / "data", compiled) as again:
        assert again.query("h:counted") == 1


def test_an_error_nobody_foresaw_ends_one_call_and_is_logged(
    app: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("skerry.functions.lane.make_call_record", lambda *_: 1 / 0)
    monkeypatch.setattr("skerry.functions.execution.dumps", lambda _: 1 / 0)
    for slowness in (0, SLOW):
        assert app.deployment.version is not None
        app.deployment.version.functions["h:ping"].slowness = slowness
        with pytest.raises(SystemFault) as caught:
            app.call("query", "h:ping", {})
        assert caught.value.code == "InternalServerError"
        assert "0123456789abcdef" in caplog.text and "ZeroDivisionError" in caplog.text
    monkeypatch.undo()
    assert app.query("h:ping") == "pong"
    assert app.deployment.lane.in_flight == 0


async def _until(is_so: Any) -> None:
    while not is_so():  # noqa: ASYNC110 -- the lane tells nobody when it is held
        await asyncio.sleep(0)


def test_a_commit_that_nobody_foresaw_to_fail_ends_its_call_and_holds_nobody_up(app: World) -> None:
    unwritable = app.start("mutation", "h:count", identity={"subject": object()})
    with pytest.raises(SystemFault, check=lambda error: error.code == "InternalServerError"):
        app.finish(unwritable)
    slow_down(app, "h:count")
    unwritable = app.start("mutation", "h:count", identity={"subject": object()})
    with pytest.raises(SystemFault, check=lambda error: error.code == "InternalServerError"):
        app.finish(unwritable)
    assert app.deployment.lane.in_flight == 0
    assert values(app, [app.start("mutation", "h:count")]) == [1]
