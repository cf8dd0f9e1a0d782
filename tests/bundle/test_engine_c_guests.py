"""The C guests of tests/fixtures against the small host: what the C SDK promises, and what the hostile ones break."""

import json

import pytest
import wasmtime

from skerry.bundle.wasm_binary import parse_module
from tests.bundle.runner import Compiled, GuestRunner, Refused, Ticketed
from tests.fixtures.guests import c_guest

TRAPPING = ["op_outside", "op_wraps", "argument_outside", "raw_outside", "out_outside", "out_past_end", "take_outside"]
TRAPPING += ["take_too_small", "take_nothing", "take_twice", "take_dropped", "exit_zero", "trap", "recurse", "allocate"]


@pytest.fixture(scope="module")
def functions() -> Compiled:
    return Compiled(c_guest("functions"))


@pytest.fixture(scope="module")
def hostile() -> Compiled:
    return Compiled(c_guest("hostile"))


def started(compiled: Compiled) -> GuestRunner:
    guest = GuestRunner(compiled)
    guest.call("_initialize", None)
    return guest


def test_a_guest_describes_its_functions(functions: Compiled) -> None:
    status, described = started(functions).result(started(functions).call("describe", None))
    assert status == "done"
    assert {
        "name": "f:insert",
        "kind": "mutation",
        "visibility": "public",
        "args": {"type": "any"},
        "returns": None,
    } in (described["functions"])


@pytest.mark.parametrize(
    ("name", "arguments", "result"),
    [
        ("f:echo", '[{"a":[1,"two",null]}]', [{"a": [1, "two", None]}]),
        ("f:add", '[{"a":1.5,"b":-4}]', -2.5),
        ("f:fibonacci", '[{"n":27}]', 196418),
        ("f:requestId", "[{}]", "r1"),
        ("f:clock", "[{}]", 1_700_000_000_123),
        ("f:kind", "[{}]", 0),
    ],
)
def test_a_call_returns_its_result(functions: Compiled, name: str, arguments: str, result: object) -> None:
    assert started(functions).invoke(name, arguments) == ("done", result)


def test_a_failure_carries_its_error_object(functions: Compiled) -> None:
    assert started(functions).invoke("f:fail") == ("failed", {"message": "refused", "data": {"why": "asked"}})


def test_documents_are_reached_by_the_operation_names_of_the_package(functions: Compiled) -> None:
    guest = started(functions)
    guest.ops["1.0/insert"] = lambda argument, raw: json.dumps(
        {"_id": json.loads(argument)["value"]["author"]}
    ).encode()
    assert guest.invoke("f:insert", '[{"author":"ada","body":"hi"}]', "mutation") == ("done", {"_id": "ada"})
    assert json.loads(guest.hostcalls[-1][1]) == {"table": "messages", "value": {"author": "ada", "body": "hi"}}


def test_an_answer_longer_than_the_buffer_is_taken(functions: Compiled) -> None:
    guest = started(functions)
    guest.ops["collect"] = lambda argument, raw: json.dumps(["x" * 100_000]).encode()
    assert guest.invoke("f:list") == ("done", ["x" * 100_000])


def test_a_refused_hostcall_is_an_error_status(functions: Compiled) -> None:
    def refuse(argument: str, raw: bytes) -> bytes:
        raise Refused("no such document", "NotFound")

    guest = started(functions)
    guest.ops["1.0/get"] = refuse
    assert guest.invoke("f:get", '[{"id":"x"}]') == ("failed", {"message": "no such document", "code": "NotFound"})


def test_standard_output_and_error_reach_the_log(functions: Compiled) -> None:
    guest = started(functions)
    guest.invoke("f:print", '[{"text":"hello"}]')
    assert sorted(guest.output.split(b"\n")) == [b"", b'"hello"', b"second"]


def test_tickets_are_completed_by_resume_in_any_grouping(functions: Compiled) -> None:
    def later(argument: str, raw: bytes) -> bytes:
        raise Ticketed(7 + json.loads(argument)["number"])

    guest = started(functions)
    guest.ops["1.0/actions/query"] = later
    assert guest.invoke("f:gather", '[{"count":3}]', "action") == ("pending", None)
    assert guest.resume((8, 0, b'"eight"')) == ("pending", None)
    assert guest.resume((7, 0, b"7"), (9, 1, b'{"message":"no"}')) == (
        "done",
        [[8, 0, "eight"], [7, 0, 7], [9, 1, {"message": "no"}], None],
    )


@pytest.mark.parametrize("name", TRAPPING)
def test_a_broken_rule_or_spent_memory_ends_the_call(hostile: Compiled, name: str) -> None:
    with pytest.raises((wasmtime.Trap, wasmtime.WasmtimeError, IndexError)):
        started(hostile).invoke(f"h:{name}")


def test_a_buffer_in_memory_that_was_just_grown_is_good(hostile: Compiled) -> None:
    assert started(hostile).invoke("h:grow_then_take") == ("done", 32)


def test_a_loop_is_ended_by_the_epoch(hostile: Compiled) -> None:
    guest = started(hostile)
    timer = guest.interrupt_after(0.05)
    with pytest.raises(wasmtime.Trap, match="interrupt"):
        guest.invoke("h:loop")
    timer.cancel()


def test_the_c_stack_lies_below_the_data() -> None:
    """Then running over its end leaves the memory (and traps) instead of reaching data."""
    module = parse_module(c_guest("functions"))
    top = module.globals[0].initial
    assert top is not None and all(segment.offset is not None and segment.offset >= top for segment in module.data)
