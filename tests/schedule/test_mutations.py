"""Scheduled mutations: written with their transaction, run when due, once."""

from collections.abc import Callable

import pytest

from skerry import limits
from skerry.database import Transaction, verify
from skerry.errors import DeveloperError
from skerry.functions.operations import function_to_schedule
from skerry.schedule.jobs import begin_job, cancel_job, due_ms_of, internal_id_of
from tests.fixtures.world import NOW_MS
from tests.schedule.world import Clocked

HOUR_MS = 3_600_000


def test_a_function_runs_when_it_is_due_and_not_before(world: Clocked) -> None:
    job = world.mutation("jobs:after", {"ms": HOUR_MS, "n": 1})
    assert world.state(job) == {"kind": "pending"}
    world.pass_ms(HOUR_MS - 1)
    assert world.notes() == []
    world.pass_ms(1)
    assert world.notes() == [1]
    assert world.state(job) == {"kind": "success"}


def test_the_document_is_as_documented(world: Clocked) -> None:
    job = world.mutation("jobs:after", {"ms": HOUR_MS, "n": 1})
    [document] = world.query("jobs:scheduled")
    creation = document.pop("_creationTime")
    assert creation >= NOW_MS
    assert document == {
        "_id": job,
        "name": "jobs.js:note",
        "args": [{"n": 1}],
        "scheduledTime": document["scheduledTime"],
        "state": {"kind": "pending"},
    }
    assert document["scheduledTime"] - NOW_MS - HOUR_MS < 1000
    world.pass_ms(2 * HOUR_MS)
    [document] = world.query("jobs:scheduled")
    assert document["state"] == {"kind": "success"}
    assert document["completedTime"] >= document["scheduledTime"]


def test_what_is_due_at_once_runs_after_the_commit(world: Clocked) -> None:
    world.mutation("jobs:after", {"ms": 0, "n": 7})
    world.settle()
    assert world.notes() == [7]


def test_a_time_in_the_past_means_at_once(world: Clocked) -> None:
    for ms in (NOW_MS - 10 * HOUR_MS, 0, -5):
        world.mutation("jobs:at", {"ms": ms, "n": ms})
    world.settle()
    assert sorted(world.notes()) == sorted([NOW_MS - 10 * HOUR_MS, 0, -5])


def test_a_mutation_that_fails_schedules_nothing(world: Clocked) -> None:
    world.failure("mutation", "jobs:thenFails", {"n": 1})
    world.settle()
    assert world.query("jobs:scheduled") == []


def test_a_called_mutation_that_fails_takes_its_schedules_back(world: Clocked) -> None:
    world.mutation("jobs:nestedFails", {"n": 1})
    world.settle()
    assert world.notes() == [1]
    assert len(world.query("jobs:scheduled")) == 1


def test_a_mutation_that_throws_leaves_its_error_and_nothing_else(world: Clocked) -> None:
    job = world.mutation("jobs:after", {"ms": 0, "n": 1, "fn": "fails"})
    world.settle()
    state = world.state(job)
    assert state["kind"] == "failed"
    assert "not today" in state["error"]
    assert world.notes() == []
    world.pass_ms(HOUR_MS)
    assert world.state(job) == state, "it is not tried again"


def test_arguments_are_checked_when_it_runs(world: Clocked) -> None:
    job = world.mutation("jobs:after", {"ms": 0, "n": "no number", "fn": "typed"})
    world.settle()
    assert "ArgumentValidationError" in world.state(job)["error"]


def test_a_canceled_function_does_not_run(world: Clocked) -> None:
    job = world.mutation("jobs:after", {"ms": 1000, "n": 1})
    world.mutation("jobs:cancel", {"id": job})
    world.pass_ms(HOUR_MS)
    assert world.notes() == []
    assert world.state(job) == {"kind": "canceled"}
    world.mutation("jobs:cancel", {"id": job})
    assert world.state(job) == {"kind": "canceled"}


def test_canceling_what_has_ended_does_nothing(world: Clocked) -> None:
    job = world.mutation("jobs:after", {"ms": 0, "n": 1})
    world.settle()
    world.mutation("jobs:cancel", {"id": job})
    assert world.state(job) == {"kind": "success"}
    assert "Invalid argument `id`" in world.failure("mutation", "jobs:cancel", {"id": "nonsense"})


def test_a_mutation_knows_its_job_and_cannot_cancel_it(world: Clocked) -> None:
    job = world.mutation("jobs:after", {"ms": 0, "n": 1, "fn": "itself"})
    world.settle()
    knows, refusal = world.notes()
    assert knows is True
    assert "cannot cancel itself" in refusal
    assert world.state(job) == {"kind": "success"}


def test_what_cannot_be_scheduled_is_refused_in_the_documented_words(world: Clocked) -> None:
    def said(name: str, ts: float = 0) -> str:
        return world.mutation("jobs:named", {"name": name, "ts": ts})

    assert said("away:run") == "Attempted to schedule function at nonexistent path: away.js:run"
    assert said("jobs:away") == (
        "Attempted to schedule function, but no exported function away found in the file: jobs.js. Did you forget to "
        "export it?"
    )
    assert said("jobs:looks").startswith("Attempted to schedule jobs:looks, which is a query")
    assert said("../x").startswith("Attempted to schedule function at nonexistent path: ")


def test_the_furthest_time_is_five_years_away(world: Clocked) -> None:
    def said(ts: float) -> str:
        return world.mutation("jobs:named", {"name": "jobs:note", "ts": ts})

    now_s = NOW_MS // 1000
    assert "5 years" not in said(now_s + limits.SCHEDULED_DELAY_SECONDS_MAX)
    assert "5 years" in said(now_s + limits.SCHEDULED_DELAY_SECONDS_MAX + 60)
    assert "5 years" in said(1e300)


def test_a_thousand_functions_and_no_more(world: Clocked) -> None:
    assert "limit: 1000" in world.failure("mutation", "jobs:many", {"count": 1001})
    assert world.query("jobs:scheduled") == []
    world.mutation("jobs:many", {"count": 1000})
    world.settle()
    assert sorted(world.notes()) == list(range(1000))


def test_arguments_have_a_bound_each_and_together(world: Clocked) -> None:
    fits = limits.SCHEDULED_ARGS_BYTES_MAX - 100
    world.mutation("jobs:large", {"bytes": 900_000, "times": 1})
    world.settle()
    assert world.notes() == [900_000]
    assert "too large" in world.failure("mutation", "jobs:large", {"bytes": fits + 100, "times": 1})
    assert "Too large total size" in world.failure("mutation", "jobs:large", {"bytes": fits, "times": 5})
    world.mutation("jobs:large", {"bytes": fits, "times": 1})


def test_results_are_kept_for_a_week(world: Clocked) -> None:
    world.mutation("jobs:many", {"count": 120})
    world.settle()
    later = world.mutation("jobs:after", {"ms": 30 * 24 * HOUR_MS, "n": 1})
    world.pass_ms(limits.SCHEDULED_KEPT_SECONDS * 1000 - 10_000)
    world.runner.forget()
    world.settle()
    assert len(world.query("jobs:scheduled")) == 121
    world.pass_ms(20_000)
    world.runner.forget()
    world.until(lambda: not world.runner._is_forgetting)
    world.settle()
    assert [document["_id"] for document in world.query("jobs:scheduled")] == [later]


def test_what_is_stored_agrees_with_itself(world: Clocked) -> None:
    world.mutation("jobs:many", {"count": 20})
    world.mutation("jobs:after", {"ms": HOUR_MS, "n": 1})
    job = world.mutation("jobs:after", {"ms": HOUR_MS, "n": 2})
    world.mutation("jobs:cancel", {"id": job})
    world.settle()
    snapshot = world.deployment.database.snapshot_beside()
    try:
        found = verify(snapshot)
    finally:
        snapshot.close()
    assert found.counts["documents"] == 22 + 20
    assert found.difference_count == 0


def test_what_is_refused_has_a_code(world: Clocked) -> None:
    job = world.mutation("jobs:after", {"ms": HOUR_MS, "n": 1})
    world.mutation("jobs:cancel", {"id": job})

    def change(transaction: Transaction) -> str:
        def code(work: Callable[[], object]) -> str:
            with pytest.raises(DeveloperError) as caught:
                work()
            return caught.value.code

        internal_id = internal_id_of(job)
        assert code(lambda: due_ms_of(float("inf"), 0)) == "InvalidScheduledFunctionDelay"
        assert code(lambda: due_ms_of("soon", 0)) == "InvalidScheduledFunctionDelay"
        assert code(lambda: cancel_job(transaction, job, job)) == "ScheduledFunctionCancelingItself"
        assert code(lambda: begin_job(transaction, internal_id, "pending")) == "ScheduledFunctionGone"
        version = world.deployment.version
        assert version is not None
        return code(lambda: function_to_schedule(version, b'{"name":"jobs:away"}'))

    database = world.deployment.database
    transaction = database.begin(writable=True, now_ms=NOW_MS, seed=b"s" * 32)
    try:
        assert change(transaction) == "InvalidScheduledFunction"
    finally:
        transaction.abort()


def test_an_error_is_kept_up_to_a_length(world: Clocked) -> None:
    most = limits.SCHEDULED_ERROR_CHARS_MAX
    for length in (most, most + 1):
        job = world.mutation("jobs:after", {"ms": 0, "n": length, "fn": "throws"})
        world.settle()
        assert len(world.state(job)["error"]) == most
