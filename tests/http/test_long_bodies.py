"""Long bodies and answers: beside the loop thread, bounded, and with the outcome that short ones have."""

import json
import threading
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from skerry.errors import ClientError, SystemFault
from skerry.functions.patient_threads import PatientQueue, PatientThreads
from skerry.functions.request import CallResult
from skerry.functions.terms import Terms
from skerry.http import app
from skerry.http.answers import CLEAN, ENCODED, EXPORT, long_bytes, result_json
from skerry.http.bodies import ArrivingBody, args_of, parse_body
from skerry.http.long_bodies import LongWork, fields_of_long
from skerry.limits import (
    HTTP_BATCH_QUERIES_MAX,
    HTTP_BODY_NESTING_MAX,
    HTTP_FIELDS_MAX,
    HTTP_LONG_BYTES_WAITING_MAX,
    JSON_WHOLE_BYTES_MAX,
    LOG_LINE_BYTES_MAX,
)
from tests.http.scripted import WAIT_SECONDS_MAX, Wire, served_port

FILLER = "x" * JSON_WHOLE_BYTES_MAX


class Threads:
    """Runs jobs when a test says so."""

    def __init__(self) -> None:
        self.jobs: list[Callable[[], None]] = []

    def submit(self, queue: PatientQueue, job: Callable[[], None]) -> None:
        self.jobs.append(job)


def body_of(raw: bytes) -> ArrivingBody:
    body = ArrivingBody()
    body.add(raw)
    return body


def post(wire: Wire, fields: Any) -> None:
    raw = orjson.dumps(fields)
    wire.send(b"POST /api/query HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b" % (len(raw), raw))


def test_a_long_body_waits_for_a_thread_and_nobody_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    gate, entered, threads = threading.Event(), threading.Semaphore(0), PatientThreads(threads=1)
    monkeypatch.setattr(app, "get_patient_threads", lambda: threads)

    def block() -> None:
        entered.release()
        assert gate.wait(WAIT_SECONDS_MAX)

    with served_port() as port, port.connect() as heavy, port.connect() as small:
        try:
            threads.submit(PatientQueue(), block)
            assert entered.acquire(timeout=WAIT_SECONDS_MAX)
            post(heavy, {"path": "now:heavy", "args": {"a": FILLER}})
            for turn in range(20):  # the whole body has arrived before these are done
                post(small, {"path": f"now:{turn}", "args": {}})
                assert json.loads(small.answer()[2])["value"] == str(turn)
            assert "now:heavy" not in port.deployment.asked
        finally:
            gate.set()
        assert json.loads(heavy.answer()[2])["value"] == "heavy"
        assert port.deployment.meter.cpu_ns > 0


def test_a_long_body_says_what_a_short_one_says() -> None:
    raw = orjson.dumps({"path": "a:b", "format": "json", "args": {"a": [1, {"$integer": "AAAAAAAAAAA="}], "b": FILLER}})
    fields = fields_of_long(raw)
    assert type(fields) is dict
    assert {name: fields[name] for name in ("path", "format")} == {"path": "a:b", "format": "json"}
    assert orjson.loads(args_of(fields) or b"") == orjson.loads(args_of(parse_body(raw)) or b"")


def test_a_long_batch_keeps_its_calls_and_one_too_many() -> None:
    call = {"path": "a:b", "args": [{"n": 1}], "junk": {"deep": [FILLER]}}
    short = fields_of_long(orjson.dumps({"queries": [call, 7], "path": [FILLER]}))
    assert short == {"queries": [{"path": "a:b", "args": b'{"n":1}', "junk": []}, None], "path": []}
    many = fields_of_long(orjson.dumps({"queries": [{}] * (HTTP_BATCH_QUERIES_MAX + 9), "filler": FILLER}))
    assert type(many) is dict and len(many["queries"]) == HTTP_BATCH_QUERIES_MAX + 1


def test_only_spaces_are_no_body() -> None:
    assert fields_of_long(b" " * (JSON_WHOLE_BYTES_MAX + 1)) == b""


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        (b"[1]", "BadJsonBody"),
        (b"{", "BadJsonBody"),
        (b'{"args":7}', "BadJsonBody"),
        (b'{"args":[{},{}]}', "BadJsonBody"),
        (b'{"args":' + b"[" * HTTP_BODY_NESTING_MAX + b"]" * HTTP_BODY_NESTING_MAX + b"}", "RequestTooDeep"),
        (orjson.dumps({str(n): n for n in range(HTTP_FIELDS_MAX + 1)}), "RequestTooLarge"),
    ],
)
def test_a_long_body_is_refused_as_a_short_one_is(fields: bytes, code: str) -> None:
    with pytest.raises(ClientError) as caught:
        fields_of_long(fields + b" " * JSON_WHOLE_BYTES_MAX)
    assert caught.value.code == code


def test_as_many_fields_as_may_be_are_read() -> None:
    fields = fields_of_long(orjson.dumps({str(n): n for n in range(HTTP_FIELDS_MAX)}) + b" " * JSON_WHOLE_BYTES_MAX)
    assert len(fields) == HTTP_FIELDS_MAX


def test_what_waits_is_bounded_by_its_bytes() -> None:
    threads: Any = Threads()
    told: list[Callable[[], None]] = []
    work = LongWork(Terms(), threads, lambda callback, *args: told.append(lambda: callback(*args)), lambda: 0)
    body = body_of(orjson.dumps({"args": {"a": "x" * (HTTP_LONG_BYTES_WAITING_MAX // 16)}}))
    outcomes: list[Any] = []
    for _ in range(15):
        work.read(body, outcomes.append)
    with pytest.raises(SystemFault, match="large requests"):
        work.read(body_of(bytes(HTTP_LONG_BYTES_WAITING_MAX - work.bytes_under_way + 1)[: 2**24]), outcomes.append)
        work.read(body, outcomes.append)
    threads.jobs[0]()
    for tell in told:
        tell()
    assert type(outcomes[0]["args"]) is bytes and work.bytes_under_way < 15 * body.size + 2**24
    work.read(body, outcomes.append)


def test_the_loop_thread_takes_apart_what_is_at_the_bound() -> None:
    assert not body_of(bytes(JSON_WHOLE_BYTES_MAX)).is_long
    assert body_of(bytes(JSON_WHOLE_BYTES_MAX + 1)).is_long


@pytest.mark.parametrize("value_format", [ENCODED, CLEAN, EXPORT])
def test_a_long_answer_is_what_a_short_one_is(value_format: int) -> None:
    value = [{"$integer": "AQAAAAAAAAA="}, 1, "a", {"b": [{"$bytes": "AAAA"}, 2.5]}]
    short = CallResult(True, orjson.dumps(value), [])
    long = CallResult(True, orjson.dumps([*value, FILLER]), [])
    assert not long_bytes(short) and long_bytes(long) > JSON_WHOLE_BYTES_MAX
    answers = [json.loads(result_json(result, value_format, False))["value"] for result in (short, long)]
    assert answers[1] == [*answers[0], FILLER]


@pytest.mark.parametrize("past", [0, 1])
def test_many_log_lines_make_a_long_answer(past: int) -> None:
    lines = JSON_WHOLE_BYTES_MAX // LOG_LINE_BYTES_MAX + 1
    left = JSON_WHOLE_BYTES_MAX - (lines - 1) * (LOG_LINE_BYTES_MAX - 1) - 1
    logged = ["l" * (LOG_LINE_BYTES_MAX - 1)] * (lines - 1) + ["l" * (left + past)]
    assert bool(long_bytes(CallResult(True, b"1", logged))) is bool(past)


def test_a_long_answer_leaves_whole_and_in_its_place() -> None:
    with served_port() as port, port.connect() as wire:
        size = 3 * JSON_WHOLE_BYTES_MAX
        post(wire, {"path": f"big:{size}", "args": {}})
        post(wire, {"path": "now:next", "args": {}})
        _, headers, body = wire.answer()
        assert json.loads(body)["value"] == "x" * size and headers["content-length"] == str(len(body))
        assert json.loads(wire.answer()[2])["value"] == "next"
