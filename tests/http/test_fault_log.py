"""What the log tells of requests that fail: a trace of faults, and few lines of what callers can bring about."""

import logging
from collections.abc import Callable

import pytest

from skerry.errors import ClientError, SkerryError, SystemFault
from skerry.functions.request import CallRequest, CallResult
from skerry.http.answers import error_answer
from skerry.http.fault_log import FaultLog
from skerry.limits import LOG_REFUSAL_CHARS_MAX, LOG_SAME_REFUSAL_SECONDS
from tests.http.test_edge import TimedDeployment, ask


class Log:
    """A log whose clock the test moves."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self.now = 0.0
        self._caplog = caplog
        self._faults = FaultLog(lambda: self.now)

    def lines_of(self, *errors: Exception) -> list[str]:
        """The lines that these make; of a fault it has its trace."""
        self._caplog.clear()
        for error in errors:
            if isinstance(error, SkerryError):
                self._faults.answered(b"r", error, error_answer(error)[0])
            else:
                self._faults.failed(b"r", error)
        return [record.getMessage() + (" with a trace" if record.exc_info else "") for record in self._caplog.records]


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Log:
    caplog.set_level(logging.INFO)
    return Log(caplog)


def past() -> SystemFault:
    return SystemFault("OutOfRetention", "Read later.")


def test_a_refusal_that_callers_can_bring_about_has_a_line_now_and_then(log: Log) -> None:
    assert log.lines_of(*[past() for _ in range(1_000)]) == ["request r: OutOfRetention: Read later."]
    log.now = LOG_SAME_REFUSAL_SECONDS - 0.01
    assert log.lines_of(past()) == []
    log.now = LOG_SAME_REFUSAL_SECONDS
    assert log.lines_of(past(), past()) == ["request r: OutOfRetention: Read later. (1000 more before it)"]
    log.now = 2 * LOG_SAME_REFUSAL_SECONDS
    assert log.lines_of(past()) == ["request r: OutOfRetention: Read later. (1 more before it)"]
    log.now = 3 * LOG_SAME_REFUSAL_SECONDS
    assert log.lines_of(past()) == ["request r: OutOfRetention: Read later."]


def test_one_code_does_not_hide_another(log: Log) -> None:
    busy, stopping = SystemFault("IsolatesExhausted", "Busy."), ClientError("ShuttingDown", "Stopping.")
    assert len(log.lines_of(past(), busy, stopping, past(), busy)) == 3


def test_a_line_is_one_line(log: Log) -> None:
    (line,) = log.lines_of(SystemFault("JailBusy", "x\n" * LOG_REFUSAL_CHARS_MAX))
    assert line == "request r: JailBusy: " + ("x " * LOG_REFUSAL_CHARS_MAX)[:LOG_REFUSAL_CHARS_MAX]


def test_a_fault_is_told_whole_each_time(log: Log) -> None:
    fault = SystemFault("IndexCorrupted", "Gone.")
    assert log.lines_of(fault, fault) == ["request r: IndexCorrupted: Gone. with a trace"] * 2
    assert log.lines_of(IndexError("nobody")) == ["request r failed with a trace"]


def test_a_bad_request_is_not_told_of(log: Log) -> None:
    assert log.lines_of(ClientError("BadJsonBody", "No.")) == []


def test_a_query_of_a_state_that_is_gone_leaves_no_trace(caplog: pytest.LogCaptureFixture) -> None:
    class Forgetful(TimedDeployment):
        def start(self, request: CallRequest, done: Callable[[CallResult | SkerryError], None]) -> None:
            raise past()

    status, answer = ask(Forgetful([]), "POST", "/api/query", b'{"path": "a:b"}')
    assert (status, answer["code"]) == (503, "OutOfRetention")
    assert [(record.levelname, record.exc_info) for record in caplog.records] == [("WARNING", None)]
