"""What calls use is counted once, whatever way they take."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from skerry.functions.metering import CallLog, CallUsage, Meter
from skerry.functions.terms import Terms
from skerry.http.metrics import Metrics
from skerry.isolate import CpuBudget
from skerry.limits import CALL_LOG_LINES_WAITING_MAX, METRICS_DEPLOYMENTS_MAX
from tests.fixtures.hostile_bundle import hostile_bundle
from tests.fixtures.world import World, request

LONG_MS = 60
STEPS_PER_MS = 2 * 20_000  # of h:spin, whose every turn jumps twice


@pytest.fixture
def metered(tmp_path: Path, compiled: Path, base: Path) -> World:
    world = World(tmp_path / "data", compiled, terms=Terms(Meter("local")))
    world.activate(hostile_bundle(base))
    return world


def test_a_call_is_counted_with_all_its_attempts_and_what_it_committed(metered: World) -> None:
    with metered as world:
        meter = world.deployment.meter
        world.query("h:ping")
        assert (meter.calls, meter.calls_failed, meter.documents_written) == (1, 0, 0)
        assert meter.cpu_ns == meter.loop_ns > 0 and 0 < meter.guest_ns <= meter.cpu_ns
        world.mutation("h:count", {"ms": LONG_MS})
        lane = world.deployment.lane
        assert (lane.calls_inline, lane.calls_patient) == (2, 1)
        assert (meter.calls, meter.documents_written) == (2, 1), "one call, one commit"
        assert meter.cpu_ns > meter.loop_ns, "the second attempt was on another thread"
        assert meter.hostcalls >= 2 and meter.bytes_written > 0


def test_a_call_that_fails_is_counted_and_one_that_reaches_no_function_is_not(metered: World) -> None:
    with metered as world:
        meter = world.deployment.meter
        world.failure("query", "h:noSuchFunction")
        assert meter.calls == 0
        world.deployment.lane.cpu_ms_max = 100
        world.failure("query", "h:loop")
        assert (meter.calls, meter.calls_failed) == (1, 1)
        assert meter.cpu_ns >= 100 * 1_000_000, "the whole budget was used"


def steps_of(world: World, kind: str, path: str, args: dict[str, Any]) -> int:
    usage = world.call(kind, path, args).usage
    assert usage is not None
    return usage.guest_steps


def test_a_calls_steps_are_what_it_computes_and_the_same_each_time(metered: World) -> None:
    with metered as world:
        few, more = (steps_of(world, "query", "h:spin", {"ms": ms}) for ms in (0, 1))
        assert 0 < few < 1_000 and more == few + STEPS_PER_MS
        assert steps_of(world, "query", "h:spin", {"ms": 1}) == more
        assert world.deployment.meter.guest_steps == few + 2 * more


def test_steps_are_those_of_the_attempt_that_counted(metered: World) -> None:
    with metered as world:
        lane = world.deployment.lane
        turns = LONG_MS * STEPS_PER_MS
        steps = [steps_of(world, "query", "h:spin", {"ms": LONG_MS}) for _ in range(2)]
        assert lane.calls_inline >= 1 and lane.calls_patient == 2, "one was begun inline and ran again"
        assert turns < steps[0] == steps[1] < turns + 1_000


def test_the_whole_of_a_budget_that_was_spent_is_counted(metered: World) -> None:
    with metered as world:
        world.deployment.lane.cpu_ms_max = 60_000  # the engine's own budget ends first
        lots = 27_000 * 10_000
        assert lots <= steps_of(world, "query", "h:loop", {}) < lots + 10_000


def test_steps_that_no_machine_can_take_do_not_count() -> None:
    budget, usage = CpuBudget(lambda: 0, 1_000), CallUsage()
    budget.steps = 2**64 - 1
    usage.add_run(5_000, 0, budget, None)
    assert usage.guest_steps == 5_000
    budget.steps = 3
    usage.add_run(5_000, 0, budget, None)
    assert usage.guest_steps == 3


def test_an_answer_is_counted_with_its_call() -> None:
    meter = Meter("one")
    meter.sent(None, 30)
    assert meter.bytes_sent == 30


def test_lines_are_written_later_and_what_is_too_many_is_said(caplog: pytest.LogCaptureFixture) -> None:
    asked: list[Callable[[], None]] = []
    log = CallLog(asked.append)
    usage = CallUsage()
    for _ in range(CALL_LOG_LINES_WAITING_MAX + 1):
        log.add("one", "query", request("query", "f:add"), "f:add", True, None, usage)
    usage.sent = 17
    assert len(asked) == 1
    with caplog.at_level(logging.INFO, "skerry.calls"):
        asked[0]()
    lines = [orjson.loads(record.getMessage()) for record in caplog.records]
    assert len(lines) == CALL_LOG_LINES_WAITING_MAX + 1 and lines[-1] == {"dropped": 1}
    assert lines[0]["bytesSent"] == 17 and lines[0]["deployment"] == "one"


def test_metrics_name_so_many_deployments_and_sum_the_others() -> None:
    meters = {f"d{number}": Meter() for number in range(METRICS_DEPLOYMENTS_MAX + 2)}
    for number, meter in enumerate(meters.values()):
        meter.cpu_ns, meter.calls = 1_000_000_000 * number, 1
    text = Metrics().text(meters).decode()
    named = [line for line in text.splitlines() if line.startswith("skerry_deployment_calls_total{")]
    assert len(named) == METRICS_DEPLOYMENTS_MAX + 1
    assert 'skerry_deployment_calls_total{deployment=""} 2.0' in named
    assert 'skerry_deployment_calls_total{deployment="d1"} 1.0' not in named
    exact = Metrics().text(dict(list(meters.items())[:METRICS_DEPLOYMENTS_MAX])).decode()
    assert 'deployment=""' not in exact
