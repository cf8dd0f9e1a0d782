"""Mutations that are sent twice, as the deployment's other rooms see them: calls that the test ends."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from skerry import limits
from skerry.errors import ClientError, SystemFault
from skerry.functions.request import CallRequest, CallResult
from skerry.sync.mutations import Mutations, Outcome
from skerry.sync.session import success_parts

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


_AROUND = len(success_parts(b"", []))


@pytest.mark.parametrize(
    ("length", "lines", "kept"),
    [
        (limits.ANSWER_BYTES_MAX - _AROUND, [], "all"),
        (limits.ANSWER_BYTES_MAX - _AROUND, ["[LOG] x"], "not its log"),
        (limits.ANSWER_BYTES_MAX - _AROUND + 1, [], "not the answer"),
        (limits.ANSWER_BYTES_MAX - _AROUND + 1, ["[LOG] x"], "not the answer"),
    ],
)
def test_bound_of_an_answer_that_is_kept(length: int, lines: list[str], kept: str) -> None:
    begun: list[tuple[CallRequest, Callable[[Any], None]]] = []
    stored: dict[bytes, tuple[int, bytes]] = {}
    told: list[Outcome] = []

    def run() -> None:
        mutations.run(SESSION, 7, a_request(), lambda: None, told.append)

    mutations = Mutations(lambda request, done: begun.append((request, done)), lambda name: stored.get(name), False)
    run()
    request, done = begun[0]
    result = CallResult(True, b"1" * length, lines, 9)
    assert request.keep is not None
    ((_, key, value),) = request.keep(result, 9)
    assert value is not None and len(value) <= limits.ANSWER_BYTES_MAX + 8
    done(result)
    first = told.pop()
    assert first == (9, success_parts(result.value, lines)), "whoever hears of it at once hears all of it"
    stored[key[-len(SESSION) - 16 :]] = (9, value[8:])
    run()
    again = told.pop()
    assert len(begun) == 1
    if kept == "not the answer":
        assert isinstance(again, ClientError) and again.code == "AnswerNotKept" and "taken effect" in again.message
    else:
        assert again == (9, success_parts(result.value, lines if kept == "all" else []))
