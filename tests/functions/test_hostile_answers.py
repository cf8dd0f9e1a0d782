"""What a guest returns is hostile: results that are no values and errors that are none, through a deployment."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from skerry.value import TOO_MANY_VALUES
from tests.fixtures import shared
from tests.fixtures.bundles import wrap_honestly
from tests.fixtures.guests import c_guest
from tests.fixtures.world import World

CODES = {
    "result_not_json": "InvalidJson",
    "result_not_text": "InvalidJson",
    "result_outside": "GuestPointerInvalid",
    "result_long": "ResultTooLarge",
    "result_status": "GuestProtocolError",
    "pending_without_ticket": "GuestProtocolError",
    "many_tickets": "TooManyConcurrentOperations",
    "op_outside": "GuestPointerInvalid",
    "take_nothing": "GuestProtocolError",
    "exit_zero": "GuestExited",
    "trap": "GuestTrapped",
    "recurse": "StackOverflow",
}


@pytest.fixture(scope="module")
def hostile(base: Path, compiled: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with World(tmp_path_factory.mktemp("answers"), compiled) as made:
        made.activate(wrap_honestly(c_guest("hostile"), shared.module_cache(base)))
        yield made


@pytest.fixture(autouse=True)
def still_works(hostile: World) -> Iterator[None]:
    yield
    assert hostile.query("h:grow_then_take") == 32
    assert hostile.deployment.lane.in_flight == 0


@pytest.mark.parametrize(("name", "code"), CODES.items())
def test_an_answer_that_is_none_has_its_code(hostile: World, name: str, code: str) -> None:
    result = hostile.call("query", f"h:{name}", {})
    assert (result.ok, result.error_code) == (False, code), result.error_message
    assert "Uncaught" not in result.error_message


@pytest.mark.parametrize("name", ["error_not_json", "error_without_message"])
def test_an_error_that_is_none_is_an_error_all_the_same(hostile: World, name: str) -> None:
    assert hostile.failure("query", f"h:{name}") == "Uncaught Error: \n"


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("argument_not_json", "The argument of an operation must be the JSON of an object."),
        ("argument_deep", f"The argument of an operation: {TOO_MANY_VALUES}"),
    ],
)
def test_a_bad_argument_is_the_guests_error_to_catch(hostile: World, name: str, sentence: str) -> None:
    assert hostile.failure("query", f"h:{name}") == f"Uncaught Error: {sentence}\n"


def test_a_call_that_nobody_waits_for_does_not_run(hostile: World) -> None:
    assert hostile.query("h:leave_ticket") is None


def test_waiting_ends_when_every_ticket_was_answered(hostile: World) -> None:
    assert hostile.call("query", "h:pending_forever", {}).error_code == "GuestProtocolError"


@pytest.mark.parametrize("name", ["giant_log_line", "many_log_lines"])
def test_a_flood_of_output_is_cut(hostile: World, name: str) -> None:
    hostile.deployment.lane.cpu_ms_max = 400
    try:
        lines = hostile.call("query", f"h:{name}", {}).log_lines
    finally:
        hostile.deployment.lane.cpu_ms_max = 5000
    assert 0 < len(lines) <= 257
    assert all(len(line) < 4200 for line in lines)
