"""What goes over the wire, byte for byte, whichever way a request takes: straight from its connection or as a task."""

import gc
import time
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from tests.http.scripted import WAIT_SECONDS_MAX, ServedPort, Wire, post, served_port


@pytest.fixture(scope="module")
def port() -> Iterator[ServedPort]:
    with served_port() as port:
        yield port


@pytest.fixture
def wire(port: ServedPort) -> Iterator[Wire]:
    port.deployment.asked.clear()
    with port.connect() as wire:
        yield wire


def ids(wire: Wire, count: int) -> list[str]:
    return [wire.answer()[1]["convex-request-id"] for _ in range(count)]


def chunked(path: str, name: str) -> bytes:
    head, _, body = post(path, name).partition(b"\r\n\r\n")
    head = head.rpartition(b"\r\n")[0] + b"\r\nTransfer-Encoding: chunked\r\n\r\n"
    pieces = [body[:5], body[5:6], body[6:]]
    return head + b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def get(path: str, name: str, method: str = "GET", *headers: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: a", f"Convex-Request-Id: {name}", *headers, "", ""]
    return "\r\n".join(lines).encode()


MIXED = [
    post("now:a", "direct"),
    get("/version", "framework"),
    post("later:1", "waits", target="/api/mutation"),
    chunked("now:b", "chunked"),
    get("/api/query?path=now:c&args=%7B%7D", "by-get"),
    post("now:d", "absolute", target="http://a/api/query"),
    get("/api/query", "preflight", "OPTIONS", "Origin: https://b"),
    post("later:2", "waits-again", target="/api/run/now/x"),
    post("bad:e", "fault"),
    get("/nope", "nothing"),
    post("now:f", "last"),
]
NAMES = [request.partition(b"Request-Id: ")[2].partition(b"\r\n")[0].decode() for request in MIXED]


def test_pipelined_requests_of_all_kinds_are_answered_in_order(port: ServedPort, wire: Wire) -> None:
    wire.send(b"".join(MIXED))
    assert ids(wire, 2) == NAMES[:2]
    port.deployment.wait_for(lambda: "1" in port.deployment.pending)
    assert port.deployment.asked == ["now:a", "later:1"]  # what stands behind a call under way has not begun
    port.tell("1")
    assert ids(wire, len(NAMES) - 2) == NAMES[2:]


@pytest.mark.parametrize("size", [1, 7, 100])
def test_the_cut_of_the_pieces_does_not_matter(port: ServedPort, wire: Wire, size: int) -> None:
    sent = b"".join(request for request in MIXED if b"later:1" not in request)
    for at in range(0, len(sent), size):
        wire.send(sent[at : at + size])
    assert ids(wire, len(NAMES) - 1) == [name for name in NAMES if name != "waits"]


def test_a_long_pipeline_is_answered_in_order(port: ServedPort, wire: Wire) -> None:
    names = [str(number) for number in range(3000)]
    wire.send(b"".join(post(f"now:{name}", name) for name in names))
    assert ids(wire, len(names)) == names
    assert port.deployment.asked == [f"now:{name}" for name in names]


def test_both_ways_write_the_same_answer(port: ServedPort, wire: Wire) -> None:
    for path, *headers in (
        ("now:a",),
        ("now:a", "Origin: https://b"),
        ("now:a", "Connection: close"),
        ("now:a", "Authorization: Convex no"),
        ("now:a", "Convex-Client: x"),
        ("bad:a",),
    ):
        answers: list[Any] = []
        for target in ("/api/query", "http://a/api/query"):
            with port.connect() as own:
                own.send(post(path, "name", *headers, target=target))
                answers.append(own.answer())
                answers[-1][1].pop("date")
        assert answers[0] == answers[1]
        assert list(answers[0][1]) == list(answers[1][1])


@pytest.mark.parametrize("target", ["/api/query", "http://a/api/query"])
@pytest.mark.parametrize(
    ("version", "header", "kept"),
    [
        ("1.1", "X: y", True),
        ("1.1", "Connection: close", False),
        ("1.0", "X: y", False),
        ("1.0", "Connection: keep-alive", False),
    ],
)
def test_a_connection_is_kept_as_its_client_asks(
    port: ServedPort, wire: Wire, target: str, version: str, header: str, kept: bool
) -> None:
    behind = post("now:c", "3")
    wire.send(post("now:a", "1") + post("now:b", "2", header, version=version, target=target) + behind)
    assert ids(wire, 1) == ["1"]
    status, headers, body = wire.answer()
    assert (status, body) == (200, b'{"status":"success","value":"b"}')
    assert headers.get("connection") == (None if kept else "close")
    if kept:
        assert ids(wire, 1) == ["3"]
    else:
        assert wire.is_over()
        assert port.deployment.asked == ["now:a", "now:b"]


def test_a_client_that_expects_to_be_asked_for_the_body_is(wire: Wire) -> None:
    head, _, body = post("now:a", "1", "Expect: 100-continue").partition(b"\r\n\r\n")
    wire.send(head + b"\r\n\r\n")
    assert wire.answer()[0] == 100
    wire.send(body)
    assert wire.answer()[0] == 200


def test_head_of_a_call_route_is_no_call(port: ServedPort, wire: Wire) -> None:
    wire.send(get("/api/query", "1", "HEAD") + post("now:a", "2"))
    status, headers, _ = wire._file.readline().split()[1], {}, b""
    while (line := wire._file.readline()) != b"\r\n":
        name, _, value = line.decode().partition(": ")
        headers[name] = value.strip()
    assert (status, headers["allow"]) == (b"405", "GET, POST")
    assert ids(wire, 1) == ["2"]
    assert port.deployment.asked == ["now:a"]


@pytest.mark.parametrize("target", ["/api/mutation", "http://a/api/mutation"])
def test_nonsense_behind_a_call_does_not_take_its_answer(port: ServedPort, wire: Wire, target: str) -> None:
    wire.send(post("later:sane", "1", target=target))
    port.deployment.wait_for(lambda: "sane" in port.deployment.pending)
    wire.send(post("now:behind", "2") + b"\x16\x03\x01 hello\r\n\r\n")
    with port.connect() as other:  # what was sent on the first connection is read by the time this one is answered
        other.send(post("now:other", "3"))
        assert ids(other, 1) == ["3"]
    port.tell("sane")
    status, headers, body = wire.answer()
    assert (status, headers["connection"], body) == (200, "close", b'{"status":"success","value":"sane"}')
    assert wire.is_over()


@pytest.mark.parametrize("target", ["/api/query", "http://a/api/query"])
def test_a_body_that_is_no_http_is_refused(port: ServedPort, wire: Wire, target: str) -> None:
    wire.send(f"POST {target} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n".encode())
    assert wire.answer()[0] == 400
    assert wire.is_over()


def test_a_slow_reader_is_served_no_more_than_it_reads(port: ServedPort) -> None:
    count, size = 40, 1 << 20
    port.deployment.asked.clear()
    with port.connect(receive_bytes=1 << 16) as reader, port.connect() as other:
        reader.send(b"".join(post(f"big:{size}", str(number)) for number in range(count)))
        port.deployment.wait_for(lambda: len(port.deployment.asked) > 0)
        for number in range(200):  # turns enough for all of them, were they not held back
            other.send(post("now:a", str(number)))
            assert ids(other, 1) == [str(number)]
        assert port.deployment.asked.count(f"big:{size}") < count // 2
        for number in range(count):
            status, headers, body = reader.answer()
            assert (status, headers["convex-request-id"], len(body)) == (200, str(number), size + 31)


def test_a_client_that_leaves_during_a_call_costs_nothing(port: ServedPort, caplog: pytest.LogCaptureFixture) -> None:
    before = set(port.connections())
    with port.connect() as leaver:
        leaver.send(post("later:gone", "1", target="/api/mutation"))
        port.deployment.wait_for(lambda: "gone" in port.deployment.pending)
        assert port.state.metrics.in_flight == 1
        left = weakref.ref((port.connections() - before).pop())
    give_up = time.monotonic() + WAIT_SECONDS_MAX
    while len(port.connections()) > len(before):
        assert time.monotonic() < give_up
    port.tell("gone")
    assert port.state.metrics.in_flight == 0
    port.on_loop(gc.collect)
    assert left() is None
    assert caplog.text == ""


def test_an_outcome_counts_once(port: ServedPort, wire: Wire) -> None:
    wire.send(post("later:twice", "1"))
    port.deployment.wait_for(lambda: "twice" in port.deployment.pending)
    done = port.deployment.pending["twice"]
    port.tell("twice")
    port.deployment.pending["twice"] = done
    port.tell("twice")
    wire.send(post("now:a", "2"))
    assert ids(wire, 2) == ["1", "2"]
    assert port.state.metrics.in_flight == 0


def test_a_fault_is_logged_and_tells_the_caller_nothing(
    port: ServedPort, wire: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    wire.send(post("bad:secret", "1"))
    status, _, body = wire.answer()
    assert (status, b"secret" in body) == (500, False)
    assert "ZeroDivisionError: secret" in caplog.text
    assert port.state.metrics.in_flight == 0


@pytest.mark.parametrize("target", ["/api/mutation", "http://a/api/mutation"])
def test_a_port_that_stops_answers_what_it_has_begun(target: str) -> None:
    with served_port() as port, port.connect() as idle, port.connect() as busy:
        idle.send(post("now:a", "1"))
        assert ids(idle, 1) == ["1"]
        busy.send(post("later:b", "2", target=target))
        port.deployment.wait_for(lambda: "b" in port.deployment.pending)
        port.stop()
        assert idle.is_over()
        port.tell("b")
        status, headers, body = busy.answer()
        assert (status, headers["connection"], body) == (200, "close", b'{"status":"success","value":"b"}')
        assert busy.is_over()
        port.ended()
