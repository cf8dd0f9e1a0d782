"""The server's log: nobody waits for whoever reads it, and what is lost is counted."""

import io
import logging
import os
import threading

from skerry.http.server_log import QueuedLog
from skerry.limits import LOG_END_SECONDS_MAX, LOG_RECORDS_WAITING_MAX

SECONDS_MAX = 30


class Held(io.StringIO):
    """A stream whose reader takes nothing until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.began = threading.Event()
        self.let_go = threading.Event()

    def write(self, text: str) -> int:
        self.began.set()
        assert self.let_go.wait(SECONDS_MAX)
        return super().write(text)


def record(text: str) -> logging.LogRecord:
    return logging.LogRecord("skerry.test", logging.WARNING, "", 0, text, None, None)


def test_a_reader_that_takes_nothing_holds_nobody_up_and_hears_how_much_it_missed() -> None:
    stream = Held()
    log = QueuedLog(stream, logging.Formatter("%(message)s"))
    log.handle(record("first"))
    assert stream.began.wait(SECONDS_MAX)
    for number in range(LOG_RECORDS_WAITING_MAX + 3):
        log.handle(record(f"line {number}"))
    assert log.dropped == 3, "as many wait as may, and no more"
    stream.let_go.set()
    while log.dropped:
        threading.Event().wait(0.001)
    log.finish()
    lines = stream.getvalue().splitlines()
    assert lines[:2] == ["first", "line 0"] and lines[-2] == f"line {LOG_RECORDS_WAITING_MAX - 1}"
    assert lines[-1].startswith("3 lines of the log were dropped")


def test_the_end_writes_what_waits_and_waits_for_no_reader() -> None:
    assert 0 < LOG_END_SECONDS_MAX < SECONDS_MAX
    told = io.StringIO()
    log = QueuedLog(told, logging.Formatter("%(levelname)s %(message)s"))
    for number in range(100):
        log.handle(record(str(number)))
    log.finish()
    assert told.getvalue().splitlines() == [f"WARNING {number}" for number in range(100)]
    read, write = os.pipe()
    with open(write, "w") as pipe:
        stuck = QueuedLog(pipe, logging.Formatter("%(message)s"))
        stuck.handle(record("x" * 1_000_000))
        stuck.finish()
        taken = 0
        while taken < 1_000_001:
            taken += len(os.read(read, 65536))
    os.close(read)
