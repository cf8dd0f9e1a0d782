"""Mutations that are sent twice, as the deployment's other rooms see them: calls that the test ends."""

from collections.abc import Callable
from functools import partial
from typing import Any

from skerry.errors import SystemFault
from skerry.functions.request import CallRequest, CallResult
from skerry.sync.mutations import Mutations

SESSION = bytes(16)


class Calls:
    """Shape: `begun` are the calls with who hears of them; `told` what the callers of `run` heard."""

    def __init__(self) -> None:
        self.begun: list[tuple[CallRequest, Callable[[Any], None]]] = []
        self.told: list[Any] = []
        self.mutations = Mutations(lambda request, done: self.begun.append((request, done)), lambda name: None, False)

    def run(self, who: str) -> None:
        request = CallRequest(kind="mutation", path="m:f", args=b"{}", request_id="0" * 16)
        placed = partial(self.told.append, (who, "placed"))
        self.mutations.run(SESSION, 7, request, placed, lambda outcome: self.told.append((who, outcome)))

    def commit(self) -> None:
        keep = self.begun[0][0].keep
        assert keep is not None
        keep(CallResult(True, b"1", [], 9), 9)


def test_a_request_sent_again_has_its_place_with_the_first_one() -> None:
    calls = Calls()
    calls.run("first")
    calls.run("again")
    assert len(calls.begun) == 1 and calls.told == []
    calls.commit()
    assert calls.told == [("first", "placed"), ("again", "placed")]
    calls.run("later")
    assert calls.told[2:] == [("later", "placed")] and len(calls.begun) == 1
    calls.begun[0][1](CallResult(True, b"1", [], 9))
    assert [(who, outcome[0]) for who, outcome in calls.told[3:]] == [("first", 9), ("again", 9), ("later", 9)]


def test_one_that_failed_had_no_place_and_runs_again() -> None:
    calls = Calls()
    calls.run("first")
    fault = SystemFault("CommitterFullError", "full")
    calls.begun[0][1](fault)
    assert calls.told == [("first", fault)]
    calls.run("again")
    assert len(calls.begun) == 2
