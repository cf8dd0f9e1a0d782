"""Guests that break the ABI or spend a limit: each ends its own call with one exact code, and nothing else."""

import contextlib
import itertools
import threading
import time
from typing import Any

import pytest

from skerry import limits
from skerry.errors import DeveloperError
from skerry.isolate import DONE, FAILED, PENDING, CpuSlice, ModuleCache, SliceSpent, get_engine, linker_of_this_thread
from skerry.isolate.build_runner import LOAD_OPERATIONS
from skerry.isolate.isolate import Isolate
from tests.fixtures.guests import c_guest, wat_guest
from tests.isolate.driver import call, host, open_isolate, request

POINTERS = ("op_outside", "op_wraps", "argument_outside", "raw_outside", "out_outside", "out_past_end", "take_outside")
RULES = ("take_too_small", "take_nothing", "take_twice", "take_dropped", "result_status", "pending_without_ticket")
TRAPS = dict.fromkeys((*POINTERS, "result_outside"), "GuestPointerInvalid")
TRAPS |= dict.fromkeys(RULES, "GuestProtocolError")
TRAPS |= {
    "many_hostcalls": "TooManyHostcalls",
    "many_tickets": "TooManyConcurrentOperations",
    "result_long": "ResultTooLarge",
    "giant_result": "ResultTooLarge",
    "loop": "FunctionTimedOut",
    "exit_zero": "GuestExited",
    "trap": "GuestTrapped",
    "allocate": "GuestTrapped",
    "recurse": "StackOverflow",
}


def tickets() -> dict[bytes, Any]:
    """The small host's operations, and one that answers later."""
    numbers = itertools.count(1)
    return {**LOAD_OPERATIONS, b"1.0/runUdf": lambda *_: next(numbers)}


@pytest.mark.parametrize(("name", "code"), TRAPS.items())
def test_a_broken_rule_ends_the_call_and_the_next_one_works(cache: ModuleCache, name: str, code: str) -> None:
    with pytest.raises(DeveloperError) as caught:
        call(cache, c_guest("hostile"), f"h:{name}", operations=tickets(), cpu_ms_max=200 if name == "loop" else 20_000)
    assert caught.value.code == code
    assert call(cache, c_guest("hostile"), "h:grow_then_take") == (DONE, 32)


@pytest.mark.parametrize("name", ["op_not_text", "op_long"])
def test_the_name_of_no_operation_is_an_error_status(cache: ModuleCache, name: str) -> None:
    assert call(cache, c_guest("hostile"), f"h:{name}") == (DONE, None)


def test_memory_ends_at_the_limit_and_growing_says_so(cache: ModuleCache) -> None:
    assert call(cache, c_guest("hostile"), "h:grow") == (DONE, None)
    status, (found, pages) = call(cache, c_guest("hostile"), "h:find")
    assert (status, found) == (DONE, 0)
    assert pages * 65536 <= limits.GUEST_MEMORY_BYTES_MAX < (pages + 17) * 65536


def test_a_hostcall_in_memory_that_was_just_grown_is_good(cache: ModuleCache) -> None:
    assert call(cache, c_guest("hostile"), "h:grow_then_take") == (DONE, 32)


def test_hostcalls_are_counted(cache: ModuleCache) -> None:
    answered = 0

    def count_one(*_: object) -> bytes:
        nonlocal answered
        answered += 1
        return b"null"

    with pytest.raises(DeveloperError) as caught:
        call(cache, c_guest("hostile"), "h:many_hostcalls", operations={b"entropy": count_one})
    assert (caught.value.code, answered) == ("TooManyHostcalls", limits.HOSTCALLS_PER_CALL_MAX)


def test_tickets_are_counted(cache: ModuleCache) -> None:
    made: list[int] = []

    def later(*_: object) -> int:
        made.append(len(made) + 1)
        return made[-1]

    with pytest.raises(DeveloperError) as caught:
        call(cache, c_guest("hostile"), "h:many_tickets", operations={b"1.0/runUdf": later})
    assert caught.value.code == "TooManyConcurrentOperations"
    assert len(made) == limits.TICKETS_OPEN_MAX + 1


def test_waiting_is_believed_while_a_ticket_is_open_and_not_after(cache: ModuleCache) -> None:
    isolate = open_isolate(cache, c_guest("hostile"), operations=tickets())
    try:
        assert isolate.invoke(request("h:pending_forever")) == (PENDING, b"")
        isolate.tickets_open -= 1
        completions = b"".join(number.to_bytes(4, "little") for number in (1, 1, 0, 4)) + b"null"
        with pytest.raises(DeveloperError, match="does not hold"):
            isolate.resume(completions)
    finally:
        isolate.close()


@pytest.mark.parametrize(
    ("bound", "operation", "length"),
    [
        ("HOSTCALL_ARGUMENT_BYTES_MAX", "log", limits.HOSTCALL_ARGUMENT_BYTES_MAX),
        ("HOSTCALL_NAME_BYTES_MAX", "name", limits.HOSTCALL_NAME_BYTES_MAX),
    ],
)
def test_names_and_arguments_are_served_up_to_their_bound(
    cache: ModuleCache, bound: str, operation: str, length: int
) -> None:
    seen: list[tuple[int, int]] = []

    class Table(dict[bytes, Any]):
        def get(self, name: bytes, default: Any = None) -> Any:
            return lambda _host, argument, _raw: seen.append((len(name), len(argument))) or b"null"

    wasm = wat_guest("hostcall_of_lengths")
    for extra in (0, 1):
        name, argument = (limits.HOSTCALL_NAME_BYTES_MAX + extra, 2) if operation == "name" else (3, length + extra)
        isolate = open_isolate(cache, wasm, operations=Table())
        try:
            status = _lengths(isolate, name, argument)
        finally:
            isolate.close()
        assert status == (DONE, extra), (bound, extra)
    assert len(seen) == 1


def _lengths(isolate: Isolate, name: int, argument: int) -> tuple[int, int]:
    """Status of the call, and of the hostcall that it made with so many bytes of name and of argument."""
    status, payload = isolate.invoke(name.to_bytes(4, "little") + argument.to_bytes(4, "little"))
    return status, payload[7] >> 4


def test_a_hostcalls_result_has_a_bound(cache: ModuleCache) -> None:
    for extra, expected in ((0, DONE), (1, FAILED)):
        answer = bytes(limits.HOSTCALL_RESULT_BYTES_MAX + extra)
        isolate = open_isolate(
            cache, wat_guest("hostcall_of_lengths"), operations={b"\0": lambda *_, answer=answer: answer}
        )
        try:
            assert _lengths(isolate, 1, 2)[1] == expected
        finally:
            isolate.close()


def test_an_error_that_cannot_be_written_down_ends_the_call(cache: ModuleCache) -> None:
    def fail(*_: object) -> bytes:
        raise DeveloperError("InvalidArgument", "No JSON holds the data.", data=object())

    with pytest.raises(TypeError):
        call(cache, c_guest("hostile"), "h:many_hostcalls", operations={b"entropy": fail})
    assert linker_of_this_thread().current is None


def test_an_error_of_the_host_reaches_the_host(cache: ModuleCache) -> None:
    def fail(*_: object) -> bytes:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        call(cache, c_guest("hostile"), "h:many_hostcalls", operations={b"entropy": fail})


def test_output_is_cut_and_counted(cache: ModuleCache) -> None:
    for name in ("giant_log_line", "many_log_lines"):
        asked = host()
        with contextlib.suppress(DeveloperError):  # time may end first
            call(cache, c_guest("hostile"), f"h:{name}", asked=asked, cpu_ms_max=400)
        assert asked.log_lines
        assert len(asked.log_lines) <= limits.LOG_LINES_MAX
        assert all(len(line) <= limits.LOG_LINE_BYTES_MAX + 20 for line in asked.log_lines)


def test_an_inline_isolate_ends_with_its_slice_and_the_slice_is_the_calls(cache: ModuleCache) -> None:
    linker = linker_of_this_thread()
    cpu = CpuSlice(time.thread_time_ns, limits.INLINE_SLICE_MS)
    module = cache.load(c_guest("hostile"))
    isolate = Isolate(linker, module, host(), LOAD_OPERATIONS, cpu)
    with pytest.raises(SliceSpent):
        isolate.invoke(request("h:loop"))
    isolate.close()
    with pytest.raises(SliceSpent):  # what the same call would start next has nothing left
        Isolate(linker, module, host(), LOAD_OPERATIONS, cpu)


def test_a_guest_that_is_entered_again_after_the_ticker_fell_asleep_is_still_interrupted(cache: ModuleCache) -> None:
    ticker = get_engine().ticker
    isolate = open_isolate(cache, c_guest("hostile"), cpu_ms_max=200)
    pause = threading.Event()
    while not ticker.asleep:
        pause.wait(0.01)
    try:
        with pytest.raises(DeveloperError) as caught:
            isolate.invoke(request("h:loop"))
    finally:
        isolate.close()
    assert caught.value.code == "FunctionTimedOut"


@pytest.mark.parametrize(
    ("guest", "code", "cpu_ms_max"),
    [("initialize_loops", "FunctionTimedOut", 1), ("initialize_exits", "GuestExited", 1000)],
)
def test_a_guest_that_does_not_start_leaves_no_instance_behind(
    cache: ModuleCache, guest: str, code: str, cpu_ms_max: int
) -> None:
    for _ in range(limits.ISOLATES_MAX + 1):
        with pytest.raises(DeveloperError) as caught:
            open_isolate(cache, c_guest(guest), cpu_ms_max=cpu_ms_max)
        assert caught.value.code == code


def test_nothing_is_answered_before_the_first_call(cache: ModuleCache) -> None:
    asked: list[bytes] = []
    operations = {b"log": lambda _host, argument, _raw: asked.append(argument) or b"null"}
    open_isolate(cache, c_guest("initialize_hostcall"), operations=operations).close()
    assert asked == []
