"""Mutations that are sent twice, as the deployment's other rooms see them: calls that the test ends."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from skerry.errors import SystemFault
from skerry.functions.request import CallRequest, CallResult
from skerry.sync.mutations import Mutations, Outcome

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


def a_request() -> CallRequest:
    return CallRequest(kind="mutation", path="m:f", args=b"{}", request_id="0" * 16)


def test_one_that_cannot_be_begun_is_answered_and_may_be_sent_again(caplog: pytest.LogCaptureFixture) -> None:
    fails = [True]

    def begin(_: CallRequest, done: Callable[[Any], None]) -> None:
        if fails.pop():
            raise RuntimeError("no call")
        done(CallResult(True, b"1", [], 7))

    mutations = Mutations(begin, lambda _: None, False)
    told: list[Outcome] = []
    mutations.run(SESSION, 0, a_request(), list, told.append)
    assert isinstance(told[0], SystemFault) and told[0].code == "InternalServerError" and len(caplog.records) == 1
    fails.append(False)
    mutations.run(SESSION, 0, a_request(), list, told.append)
    assert told[1:] == [(7, b'"success":true,"result":1,"logLines":[]')]


def test_one_that_cannot_be_looked_for_is_answered() -> None:
    def find(_: bytes) -> None:
        raise SystemFault("StorageFailed", "It is gone.")

    told: list[Outcome] = []
    Mutations(lambda _, __: None, find, False).run(SESSION, 0, a_request(), list, told.append)
    assert isinstance(told[0], SystemFault) and told[0].code == "StorageFailed"
