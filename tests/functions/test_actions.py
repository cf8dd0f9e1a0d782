"""What actions may do: call functions, wait, ask for the time and for chance; and how each of these ends."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from skerry import limits
from skerry.errors import DeveloperError
from skerry.functions.action_operations import ACTION_OPERATIONS
from skerry.functions.operations import OPERATIONS
from skerry.functions.request import CallResult
from tests.fixtures import shared
from tests.fixtures.action_bundle import action_bundle
from tests.fixtures.hands import FetchDouble, HandTimers
from tests.fixtures.world import NOW_MS, World


@pytest.fixture
def timers() -> HandTimers:
    return HandTimers()


@pytest.fixture
def world(base: Path, tmp_path: Path) -> Iterator[World]:
    with World(tmp_path / "data", shared.compiled(base), way_out=FetchDouble()) as made:
        made.activate(action_bundle(base))
        yield made


@pytest.fixture
def timed(base: Path, tmp_path: Path, timers: HandTimers) -> Iterator[World]:
    """A deployment whose actions wait for the test's hand."""
    with World(tmp_path / "data", shared.compiled(base), timers=timers, way_out=FetchDouble()) as made:
        made.activate(action_bundle(base))
        yield made
        timers.advance(2 * limits.ACTION_SECONDS_MAX)


# -- calling functions ---------------------------------------------------------------------------------------------


def test_an_action_calls_functions_of_every_kind_also_internal_ones(world: World) -> None:
    assert world.action("a:calls", {"n": 3}) == [[3], "x!", "hidden"]


def test_what_an_action_calls_sees_the_same_identity(world: World) -> None:
    assert world.action("a:identity") == [None, None]
    assert world.action("a:identity", identity={"subject": "Ada"}) == ["Ada", "Ada"]


def test_arguments_and_results_are_validated(world: World) -> None:
    assert world.action("a:typed", {"text": "a"}) == "a!"
    assert world.failure("action", "a:typed", {"text": 1}).startswith("ArgumentValidationError: ")
    assert world.failure("action", "a:typed", []).startswith("ArgumentValidationError: ")
    assert world.failure("action", "a:returnsWrong").startswith("ReturnsValidationError: ")
    assert world.call("action", "a:typed", [1, 2]).error_code == "ArgumentValidationError"


def test_a_mutation_that_fails_leaves_nothing_and_its_error_reaches_the_action(world: World) -> None:
    assert world.action("a:catches") == [True, {"why": "asked"}, []]
    result = world.call("action", "a:fails", {})
    assert not result.ok
    assert result.error_data == b'{"why":"asked"}'
    assert "Uncaught ConvexError: " in result.error_message


@pytest.mark.parametrize(
    ("run", "name", "begins"),
    [
        ("runQuery", "none", "Could not find function for 'a:none'. Did you forget"),
        ("runQuery", "put", "Trying to execute a.js:put as Query, but it is defined as Mutation."),
        ("runMutation", "add", "Trying to execute a.js:add as Mutation, but it is defined as Query."),
        ("runAction", "add", "Trying to execute a.js:add as Action, but it is defined as Query."),
        ("runAction", "typed", "ArgumentValidationError: Object is missing the required field `text`."),
    ],
)
def test_a_call_that_cannot_be(world: World, run: str, name: str, begins: str) -> None:
    assert world.action("a:tries", {"run": run, "name": name}).startswith(begins)


def test_only_its_kind_calls_an_action(world: World) -> None:
    for kind in ("query", "mutation"):
        text = world.failure(kind, "a:typed", {"text": "x"})
        assert text.startswith(f"Trying to execute a.js:typed as {kind.capitalize()}, but it is defined as Action.")
    assert orjson.loads(world.call(None, "a:typed", {"text": "x"}).value) == "x!"


def test_log_lines_come_in_order_with_those_of_called_functions(world: World) -> None:
    assert world.call("action", "a:logs", {}).log_lines == [
        "[LOG] 'before'",
        "[LOG] 'from the mutation'",
        "[WARN] 'after'",
    ]


def test_actions_call_each_other_to_a_bound(world: World) -> None:
    assert world.action("a:depth", {"n": limits.FUNCTION_CALL_DEPTH_MAX}) == limits.FUNCTION_CALL_DEPTH_MAX
    deep = world.failure("action", "a:depth", {"n": limits.FUNCTION_CALL_DEPTH_MAX + 1})
    assert f"Actions may call each other {limits.FUNCTION_CALL_DEPTH_MAX} levels deep." in deep


def test_many_calls_at_once_all_come_back(world: World) -> None:
    assert world.action("a:many", {"n": 3 * limits.ACTION_RESULTS_IN_FLIGHT_MAX}) == (
        3 * limits.ACTION_RESULTS_IN_FLIGHT_MAX
    )


def test_calls_in_flight_are_bounded(world: World) -> None:
    """The others wait for an answer to one of these."""
    answers: list[Any] = []
    world.deployment.actions.call = lambda request, args, done, parent: answers.append(done)
    future = world.start("action", "a:many", {"n": limits.ACTION_RESULTS_IN_FLIGHT_MAX + 1})
    world.until(lambda: len(answers) >= limits.ACTION_RESULTS_IN_FLIGHT_MAX)
    world.turn(10)
    assert len(answers) == limits.ACTION_RESULTS_IN_FLIGHT_MAX
    answers[0](CallResult(True, b"1", []))
    world.until(lambda: len(answers) > limits.ACTION_RESULTS_IN_FLIGHT_MAX)
    for answer in answers[1:]:
        answer(CallResult(True, b"1", []))
    assert orjson.loads(world.finish(future).value) == limits.ACTION_RESULTS_IN_FLIGHT_MAX + 1


def test_what_is_not_awaited_ends_with_its_action_or_never_begins(world: World) -> None:
    actions, outcomes = world.deployment.actions, []
    call = actions.call

    def spying(request: Any, args: Any, done: Any, parent: Any) -> Any:
        return call(request, args, lambda outcome: (outcomes.append(outcome), done(outcome)), parent)

    actions.call = spying
    result = world.call("action", "a:leaves", {})
    assert result.value == b'"left"'
    (line,) = result.log_lines
    assert line.startswith("[WARN] The action ended before it awaited what it had begun (mutation)")
    assert [outcome.error_code for outcome in outcomes] == ["ActionCancelled"]
    assert world.query("a:all") == []
    assert actions.pool.isolates == 0


# -- time and chance -----------------------------------------------------------------------------------------------


def test_the_clock_is_the_hosts_and_runs(timed: World, timers: HandTimers) -> None:
    future = timed.start("action", "a:clock", {})
    timed.until(lambda: timers.waiting(0.005))
    timed.now_ns += 5_999_999  # whole milliseconds are shown
    timers.advance(0.005)
    assert orjson.loads(timed.finish(future).value) == [NOW_MS, NOW_MS + 5, True]


def test_chance_differs_from_action_to_action(world: World) -> None:
    (one, first), (other, second) = world.action("a:random"), world.action("a:random")
    assert one != other and first != second and first[14] == "4"


def test_timers_fire_in_their_order_until_cleared(timed: World, timers: HandTimers) -> None:
    future = timed.start("action", "a:timers", {})
    timed.until(lambda: timers.waiting(0.009))
    for _ in range(40):
        timers.advance(0.001)
        timed.until(lambda: not timed.deployment.actions.has_entries())
    ticks = ["tick 1", "early", "tick 2", "late", "tick 3"]
    assert orjson.loads(timed.finish(future).value) == ticks


def test_timers_run_in_the_context_that_started_them(timed: World, timers: HandTimers) -> None:
    future = timed.start("action", "a:timersInContexts")
    for seconds in (0.005, 0.01):
        timed.until(lambda seconds=seconds: timers.waiting(seconds))
        timers.advance(seconds)
    assert orjson.loads(timed.finish(future).value) == ["one", "two", None, "one"]


def test_waiting_is_concurrent(timed: World, timers: HandTimers) -> None:
    future = timed.start("action", "a:allAtOnce", {"url": "http://a.test/hello"})
    timed.until(lambda: timers.waiting(0.005))
    timers.advance(0.005)
    assert orjson.loads(timed.finish(future).value) == [3, "hello", "slept", "t!"]


def test_operations_open_at_once_are_bounded(timed: World, timers: HandTimers) -> None:
    most = limits.TICKETS_OPEN_MAX
    future = timed.start("action", "a:sleepsAtOnce", {"n": most, "ms": 50})
    timed.until(lambda: timers.waiting(0.05) == most)
    timers.advance(0.05)
    assert orjson.loads(timed.finish(future).value) == most
    result = timed.call("action", "a:sleepsAtOnce", {"n": most + 1, "ms": 50})
    assert result.error_code == "TooManyConcurrentOperations"


def test_an_action_runs_ten_minutes_and_no_longer(timed: World, timers: HandTimers) -> None:
    most_ms = limits.ACTION_SECONDS_MAX * 1000
    future = timed.start("action", "a:sleeps", {"ms": most_ms - 1})
    timed.until(lambda: timers.waiting(limits.ACTION_SECONDS_MAX - 0.001))
    timers.advance(limits.ACTION_SECONDS_MAX - 0.001)
    assert timed.finish(future).value == b'"slept"'
    future = timed.start("action", "a:sleeps", {"ms": most_ms})
    timed.until(lambda: timers.waiting(limits.ACTION_SECONDS_MAX) == 2)
    timers.advance(limits.ACTION_SECONDS_MAX)
    result = timed.finish(future)
    assert result.error_code == "ActionTimedOut"
    assert "Action `a:sleeps` execution timed out (maximum duration 600s)" in result.error_message


def test_the_steps_of_an_action_are_counted_over_its_entries_and_the_same_each_time(world: World) -> None:
    turns = 3 * 4_000
    usages = [world.call("action", "a:burns", {"times": 3, "ms": 1}).usage for _ in range(2)]
    steps = [usage.guest_steps for usage in usages if usage is not None]
    assert 2 * turns < steps[0] < 2 * turns + 2_000 and steps == [steps[0]] * 2


def test_the_steps_of_an_action_that_is_ended_while_it_waits_are_counted(timed: World, timers: HandTimers) -> None:
    future = timed.start("action", "a:sleeps", {"ms": 2 * limits.ACTION_SECONDS_MAX * 1000})
    timed.until(lambda: timers.waiting(2 * limits.ACTION_SECONDS_MAX))
    timers.advance(limits.ACTION_SECONDS_MAX)
    usage = timed.finish(future).usage
    assert usage is not None and usage.guest_steps > 0


def test_the_time_of_an_action_that_computes_ends_too(timed: World, timers: HandTimers) -> None:
    future = timed.start("action", "a:loops", {})
    timed.until(lambda: timed.deployment.actions.pool.outrun)
    timers.advance(limits.ACTION_SECONDS_MAX)
    assert timed.finish(future).error_code == "ActionTimedOut"


@pytest.mark.parametrize(("ms", "begins"), [(2**31 - 1, None), (2**31, "Invalid argument `ms`"), (-1, "Invalid")])
def test_how_long_a_timer_waits_is_bounded(timed: World, timers: HandTimers, ms: int, begins: str | None) -> None:
    assert limits.ACTION_TIMER_MS_MAX == 2**31 - 1
    future = timed.start("action", "a:operation", {"op": "timer/start", "args": {"id": 1, "ms": ms}})
    if begins is None:
        timed.until(lambda: timers.waiting(ms / 1000))
        timers.advance(limits.ACTION_SECONDS_MAX)
        assert timed.finish(future).error_code == "ActionTimedOut"
    else:
        assert begins in timed.finish(future).error_message


# -- CPU time ------------------------------------------------------------------------------------------------------


def test_cpu_time_is_counted_over_all_entries(world: World) -> None:
    actions = world.deployment.actions
    assert actions.cpu_ms_max == limits.ACTION_CPU_MS_MAX
    actions.cpu_ms_max = 400
    assert world.action("a:burns", {"times": 1, "ms": 10}) == "burnt"
    assert world.call("action", "a:burns", {"times": 1000, "ms": 10}).error_code == "FunctionTimedOut"
    assert world.call("action", "a:loops", {}).error_code == "FunctionTimedOut"
    assert world.action("a:typed", {"text": "after"}) == "after!"


def test_actions_that_compute_do_not_delay_others(world: World) -> None:
    world.deployment.actions.cpu_ms_max = 20_000
    loops = [world.start("action", "a:loops", {}) for _ in range(2 * limits.ACTION_THREADS)]
    assert world.action("a:typed", {"text": "x"}) == "x!"
    assert world.query("a:add", {"x": 1, "y": 2}) == 3
    world.deployment.actions.end_all(DeveloperError("ActionCancelled", "enough"))
    assert {world.finish(loop_).error_code for loop_ in loops} == {"ActionCancelled"}


# -- what others cannot reach --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["query", "mutation"])
def test_no_transaction_offers_what_only_actions_have(kind: str) -> None:
    assert {name.partition(b"/")[0] for name in ACTION_OPERATIONS.keys() - OPERATIONS[kind].keys()} == {
        b"1.0", b"fetch", b"timer", b"storage", b"requestFromConvexJson", b"convexJsonFromResponse",
    }  # fmt: skip


@pytest.mark.parametrize("op", ["1.0/get", "1.0/insert", "1.0/queryStream", "1.0/runUdf", "collect", "1.0/schedule"])
def test_actions_have_no_database(world: World, op: str) -> None:
    assert f"Unknown async operation {op}" in world.failure("action", "a:operation", {"op": op})
