"""Functions that spend limits, through a whole deployment: exact outcomes, and everybody else goes on."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from skerry import limits
from skerry.functions.request import CallResult
from tests.fixtures.hostile_bundle import hostile_bundle
from tests.fixtures.world import World


@pytest.fixture(scope="module")
def hostile(base: Path, compiled: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with World(tmp_path_factory.mktemp("hostile"), compiled) as made:
        made.activate(hostile_bundle(base))
        yield made


@pytest.fixture(autouse=True)
def still_works(hostile: World) -> Iterator[None]:
    """After every test, the next call works, and nothing is left in flight."""
    hostile.deployment.lane.cpu_ms_max = 300
    yield
    hostile.deployment.lane.cpu_ms_max = limits.GUEST_CPU_MS_MAX
    assert hostile.query("h:ping") == "pong"
    assert hostile.deployment.lane.in_flight == 0


TIMED_OUT = "Function execution timed out (maximum duration: 0.3s)"


@pytest.mark.parametrize("function", ["h:loop", "h:loopCaught", "h:callLoops"])
def test_a_loop_ends_when_its_time_is_spent_and_others_go_on(hostile: World, function: str) -> None:
    looping = hostile.start("query", function, {})
    answered = 0
    while not looping.done():
        assert hostile.query("h:ping") == "pong"
        assert hostile.mutation("h:count") > 0
        answered += 1
    result = hostile.finish(looping)
    assert result.error_message.endswith(TIMED_OUT)
    assert answered > 0
    assert hostile.deployment.version is not None
    hostile.deployment.version.functions[function].slowness = 0


def test_a_mutation_that_loops_leaves_nothing(hostile: World) -> None:
    assert hostile.failure("mutation", "h:loopInMutation") == TIMED_OUT
    assert hostile.query("h:lost") == 0


def test_the_default_time_is_the_documented_one(hostile: World) -> None:
    with_default = type(hostile.deployment.lane)(
        hostile.deployment.database, hostile.loop, lambda: 0, lambda length: bytes(length)
    )
    assert with_default.cpu_ms_max == limits.GUEST_CPU_MS_MAX == 5000


def test_memory_that_runs_out_can_be_caught(hostile: World) -> None:
    hostile.deployment.lane.cpu_ms_max = 20_000
    assert hostile.query("h:grow") == ["InternalError", True]
    assert hostile.failure("query", "h:growUncaught").startswith("Uncaught InternalError: out of memory\n")


def test_deep_recursion_can_be_caught(hostile: World) -> None:
    assert hostile.query("h:recurse") == "RangeError"
    text = hostile.failure("query", "h:recurseUncaught")
    assert text.startswith("Uncaught RangeError: Maximum call stack size exceeded\n    at deeper (../convex/h.ts:")
    assert text.count("\n    at ") <= limits.STACK_FRAMES_MAX


def test_a_result_may_have_the_documented_size_and_no_more(hostile: World) -> None:
    hostile.deployment.lane.cpu_ms_max = 20_000
    largest = limits.FUNCTION_RESULT_BYTES_MAX - 2
    assert len(hostile.query("h:giantResult", {"bytes": largest})) == largest
    assert hostile.failure("query", "h:giantResult", {"bytes": largest + 1}) == (
        "Function h:giantResult return value is too large (actual: 16.00 MiB, limit: 16 MiB)"
    )


@pytest.mark.parametrize(("count", "shown"), [(256, 256), (257, 257), (1000, 257)])
def test_log_lines_are_counted(hostile: World, count: int, shown: int) -> None:
    lines = hostile.call("query", "h:manyLogs", {"count": count}).log_lines
    assert len(lines) == shown
    overflow = f"[ERROR] Log overflow (maximum {limits.LOG_LINES_MAX}). Remaining log lines omitted."
    assert (lines[-1] == overflow) is (count > limits.LOG_LINES_MAX)


@pytest.mark.parametrize("extra", [0, 1, 10_000])
def test_log_lines_are_cut(hostile: World, extra: int) -> None:
    quotes = 2
    length = limits.LOG_LINE_BYTES_MAX - quotes + extra
    (line,) = hostile.call("query", "h:longLog", {"length": length}).log_lines
    assert line.endswith(" (truncated due to length)") is (extra > 0)
    assert len(line) <= limits.LOG_LINE_BYTES_MAX + len("[LOG] ") + len(" (truncated due to length)")


def test_hostcalls_are_counted(hostile: World) -> None:
    hostile.deployment.lane.cpu_ms_max = 20_000
    assert hostile.query("h:manyHostcalls", {"count": limits.HOSTCALLS_PER_CALL_MAX}) is None
    text = hostile.failure("query", "h:manyHostcalls", {"count": limits.HOSTCALLS_PER_CALL_MAX + 1})
    assert text.startswith("The function made more than 100000 calls to the host.")


def test_open_calls_are_counted(hostile: World) -> None:
    hostile.deployment.lane.cpu_ms_max = 20_000
    assert hostile.query("h:manyTickets", {"count": limits.TICKETS_OPEN_MAX}) == limits.TICKETS_OPEN_MAX
    text = hostile.failure("query", "h:manyTickets", {"count": limits.TICKETS_OPEN_MAX + 1})
    assert text.startswith("More than 1000 operations are open.")


def test_arguments_of_open_calls_are_bounded(hostile: World) -> None:
    """Each has 15 MiB."""
    hostile.deployment.lane.cpu_ms_max = 20_000
    fitting = limits.TICKETS_OPEN_BYTES_MAX // (15 << 20)
    assert hostile.query("h:heavyTickets", {"count": fitting}) == fitting
    text = hostile.failure("query", "h:heavyTickets", {"count": fitting + 1})
    assert text.startswith("The arguments of open operations have more than 64 MiB.")


def test_results_of_open_calls_come_in_portions(hostile: World) -> None:
    """Each has 14 MiB: together more than is handed over at once, and than the guest's memory could hold so."""
    hostile.deployment.lane.cpu_ms_max = 20_000
    assert limits.COMPLETIONS_BYTES_MAX < 5 * 14_680_064
    assert hostile.query("h:heavyResults", {"count": 5}) == 5 * (14_680_064 + 2)


def test_time_for_a_call_does_not_come_back_with_a_second_call(hostile: World) -> None:
    """Several calls that loop at once: each ends by itself, on as many threads as there are."""
    futures = [hostile.start("query", "h:loop", {}) for _ in range(limits.BACKGROUND_THREADS + 1)]
    results: list[CallResult] = [hostile.finish(future) for future in futures]
    assert all(result.error_message.endswith(TIMED_OUT) for result in results)


def test_calls_that_wait_for_a_thread_are_bounded(hostile: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BACKGROUND_CALLS_WAITING_MAX", 2)
    assert hostile.deployment.version is not None
    hostile.deployment.version.functions["h:loop"].slowness = 8
    first, second, third = (hostile.start("query", "h:loop", {"n": n}) for n in range(3))
    assert third.done()
    error = third.exception()
    assert getattr(error, "code", None) == "TooManyConcurrentRequests"
    for future in (first, second):
        assert not hostile.finish(future).ok
