"""Scheduled actions: marked before they begin, run once at most; and what actions schedule."""

from pathlib import Path

import pytest

from skerry import limits
from skerry.schedule.jobs import LOST_ACTION
from tests.fixtures import shared
from tests.schedule.world import Clocked, schedule_bundle

HOUR_MS = 3_600_000


def test_an_action_runs_and_its_job_ends(world: Clocked) -> None:
    job = world.mutation("jobs:after", {"ms": 1000, "n": 3, "fn": "act"})
    world.pass_ms(1000)
    world.until_state(job, "success")
    assert world.notes() == [3]


def test_an_action_that_throws_leaves_its_error(world: Clocked) -> None:
    job = world.mutation("jobs:after", {"ms": 0, "n": 3, "fn": "actFails"})
    world.until_state(job, "failed")
    assert "no luck" in world.state(job)["error"]


def test_while_it_runs_it_is_in_progress(world: Clocked) -> None:
    job = world.mutation("jobs:after", {"ms": 0, "n": 1, "fn": "sleeps"})
    world.until(lambda: world.timers.waiting(60))
    assert world.state(job) == {"kind": "inProgress"}
    world.timers.advance(61)
    world.until_state(job, "success")
    world.asked_until(lambda: sorted(world.notes()) == [1, 2, 3])


def test_what_a_canceled_action_schedules_is_canceled(world: Clocked) -> None:
    job = world.mutation("jobs:after", {"ms": 0, "n": 1, "fn": "sleeps"})
    world.until(lambda: world.timers.waiting(60))
    world.mutation("jobs:cancel", {"id": job})
    world.timers.advance(61)
    world.asked_until(lambda: world.deployment.actions.is_idle and len(world.query("jobs:scheduled")) == 3)
    world.settle()
    assert [document["state"]["kind"] for document in world.query("jobs:scheduled")] == ["canceled"] * 3
    assert world.notes() == [1]


def test_an_action_schedules_and_cancels(world: Clocked) -> None:
    first = world.action("jobs:fromAction", {"ms": 1000, "n": 1})
    second = world.action("jobs:fromAction", {"ms": 1000, "n": 2})
    world.action("jobs:cancelFromAction", {"id": first})
    world.pass_ms(1000)
    assert world.notes() == [2]
    assert [world.state(job)["kind"] for job in (first, second)] == ["canceled", "success"]


def test_what_an_action_may_not_ask_for_is_its_to_catch(world: Clocked) -> None:
    missing, far, nonsense = world.action("jobs:wrongFromAction")
    assert "no exported function nothing found in the file: jobs.js" in missing
    assert "5 years" in far
    assert "it is no id of a scheduled function" in nonsense


def test_what_was_under_way_at_a_crash_has_failed(base: Path, tmp_path: Path) -> None:
    count = limits.SCHEDULED_RECOVER_STEP + 1
    with Clocked(tmp_path / "data", shared.compiled(base)) as world:
        world.activate(schedule_bundle(base))
        jobs = [world.mutation("jobs:after", {"ms": 0, "n": n, "fn": "act"}) for n in range(2)]
        world.mutation("jobs:many", {"count": count, "ms": HOUR_MS})
        jobs += [document["_id"] for document in world.query("jobs:scheduled") if "note" in document["name"]]
        world.until_state(jobs[0], "success")
        world.until_state(jobs[1], "success")
        for job in jobs[2:]:
            world.put_in_progress(job)
    with Clocked(tmp_path / "data", shared.compiled(base), stream=b"second") as world:
        world.until_state(jobs[-1], "failed")
        world.settle()
        states = [world.state(job) for job in jobs]
        assert states == [{"kind": "success"}] * 2 + [{"kind": "failed", "error": LOST_ACTION}] * count


@pytest.mark.parametrize("at_once", [limits.SCHEDULED_ACTIONS_AT_ONCE])
def test_so_many_run_at_once_and_mutations_pass_those_that_wait(world: Clocked, at_once: int) -> None:
    jobs = [world.mutation("jobs:after", {"ms": 0, "n": 0, "fn": "sleeps"}) for _ in range(at_once + 2)]
    world.mutation("jobs:after", {"ms": 0, "n": 7})
    world.until(lambda: world.timers.waiting(60) == at_once)
    world.asked_until(lambda: 7 in world.notes())
    assert [world.state(job)["kind"] for job in jobs] == ["inProgress"] * at_once + ["pending"] * 2
    world.timers.advance(61)
    world.until(lambda: world.timers.waiting(60) == 2)
    world.timers.advance(61)
    world.until_state(jobs[-1], "success")
