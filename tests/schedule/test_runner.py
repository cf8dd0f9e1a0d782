"""What the host could not run is tried again; what waits costs a timer."""

import pytest

from skerry import limits
from skerry.errors import SkerryError, SystemFault
from skerry.schedule.calls import Change, Ended
from tests.schedule.world import Clocked

HOUR_MS = 3_600_000


@pytest.fixture
def refusals(world: Clocked, monkeypatch: pytest.MonkeyPatch) -> list[SkerryError]:
    """What the next mutations of jobs are refused with, the last of them for good, once there is one."""
    given: list[SkerryError] = []
    calls = world.deployment.actions.job_calls
    assert calls is not None
    run = calls.run_mutation

    def run_mutation(path: str, args: bytes, job_id: str | None, before: Change, after: Change, done: Ended) -> None:
        if given:
            done(given[0])
        else:
            run(path, args, job_id, before, after, done)

    monkeypatch.setattr(calls, "run_mutation", run_mutation)
    return given


def only_timer(world: Clocked) -> float:
    """How many milliseconds the runner waits."""
    [timer] = world.timers.pending
    return round((timer.at - world.timers.now) * 1000)


def test_what_the_host_could_not_run_is_tried_again_after_a_rest_that_grows(
    world: Clocked, refusals: list[SkerryError]
) -> None:
    refusals.append(SystemFault("CommitterFullError", "Try again."))
    job = world.mutation("jobs:after", {"ms": 0, "n": 1})
    world.settle()
    rests: list[float] = []
    while not rests or rests[-1] < limits.SCHEDULED_RETRY_MS_MAX:
        rests.append(only_timer(world))
        world.pass_ms(rests[-1] + 1)
        assert world.state(job) == {"kind": "pending"}
    assert rests[0] == limits.SCHEDULED_RETRY_MS_MIN
    assert rests == [min(limits.SCHEDULED_RETRY_MS_MIN << n, limits.SCHEDULED_RETRY_MS_MAX) for n in range(len(rests))]
    assert only_timer(world) == limits.SCHEDULED_RETRY_MS_MAX
    refusals.clear()
    world.pass_ms(limits.SCHEDULED_RETRY_MS_MAX + 1)
    assert world.notes() == [1]
    assert world.state(job) == {"kind": "success"}


def test_a_refusal_that_says_how_long_is_believed(world: Clocked, refusals: list[SkerryError]) -> None:
    refusals.append(SystemFault("CommitterFullError", "Try again.", retry_after_s=7))
    world.mutation("jobs:after", {"ms": 0, "n": 1})
    world.settle()
    assert only_timer(world) == 7000


def test_only_so_many_rest_and_the_others_wait_in_storage(world: Clocked, refusals: list[SkerryError]) -> None:
    refusals.append(SystemFault("CommitterFullError", "Try again."))
    most = limits.SCHEDULED_RESTING_MAX
    world.mutation("jobs:many", {"count": most})
    world.mutation("jobs:many", {"count": limits.SCHEDULED_MUTATIONS_AT_ONCE + 1})
    world.until(lambda: len(world.runner._resting) >= most)
    world.settle()
    assert most <= len(world.runner._resting) <= most + limits.SCHEDULED_MUTATIONS_AT_ONCE
    refusals.clear()
    world.pass_ms(limits.SCHEDULED_RETRY_MS_MIN + 1)
    assert len(world.notes()) == most + limits.SCHEDULED_MUTATIONS_AT_ONCE + 1


def test_a_timer_waits_for_a_bounded_time(world: Clocked) -> None:
    world.mutation("jobs:after", {"ms": 2 * HOUR_MS + 500, "n": 1})
    world.settle()
    assert only_timer(world) == limits.SCHEDULED_WAIT_SECONDS_MAX * 1000
    world.pass_ms(HOUR_MS)
    world.pass_ms(HOUR_MS)
    assert 0 < only_timer(world) <= 500
    world.pass_ms(500)
    assert world.notes() == [1]


def test_what_waits_costs_one_timer(world: Clocked) -> None:
    for _ in range(5):
        world.mutation("jobs:many", {"count": 500, "ms": HOUR_MS})
    world.settle()
    assert only_timer(world) <= HOUR_MS
    assert not world.runner._held and not world.runner._resting


def test_a_paused_deployment_begins_nothing(world: Clocked) -> None:
    world.runner.pause(True)
    world.mutation("jobs:after", {"ms": 0, "n": 1})
    world.pass_ms(HOUR_MS)
    assert world.notes() == []
    world.runner.pause(False)
    world.settle()
    assert world.notes() == [1]
