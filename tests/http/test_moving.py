"""Connections that move between workers: which worker answers, in which order, and that the client sees one connection.

Two workers in this process, each with a loop of its own; sockets, doors and the server are the real ones.
"""

import asyncio
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.http.moving import from_message
from skerry.http.server import Share, _Port
from skerry.limits import HANDOVER_BYTES_MAX, HANDOVER_SECONDS_MAX, HTTP_HEAD_SECONDS_MAX
from skerry.supervisor.channel import Channel, channel_pair
from skerry.supervisor.ownership import owner_of
from tests.http.scripted import WAIT_SECONDS_MAX, ServedPort, Wire, front_of, post

NAMES = [next(f"n{n}" for n in range(100) if owner_of(f"n{n}", 2) == index) for index in range(2)]


def addressed(host: bytes | None, target: bytes) -> str | None:
    """Deployments by their plain names; `any` is nobody's."""
    return None if host in (None, b"any") else (host or b"").decode()


def of(index: int, path: str, name: str, *headers: str, body: bytes | None = None) -> bytes:
    """A call for the worker of that number."""
    request = post(path, name, *headers).replace(b"Host: a", b"Host: " + NAMES[index].encode())
    if body is not None:
        head = request.partition(b"\r\n\r\n")[0].rpartition(b"\r\n")[0]
        request = head + b"\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    return request


class Worker(ServedPort):
    """One worker of several."""

    def __init__(self, index: int, doors: list[tuple[Channel, Channel]]) -> None:
        self.share = Share(index, doors[index][0], [out for _, out in doors])
        super().__init__()

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._port = _Port(front_of(self.deployment, self.state), self._listener, self.share.moves(0, addressed))
        self.share.ports = [self._port]
        serving = asyncio.ensure_future(self._port.serve())
        await self._port.server.listening.wait()
        self.share.open_door()
        self._ready.set_result(None)
        await serving

    def connections(self) -> set[Any]:
        """Those of this moment: the loop's thread changes the set while a test looks."""
        return set(super().connections())

    @property
    def asked(self) -> list[str]:
        return self.deployment.asked

    def retire(self) -> None:
        asyncio.run_coroutine_threadsafe(self.share.retire(), self._loop).result(WAIT_SECONDS_MAX)


@pytest.fixture
def start() -> Iterator[Callable[..., Worker]]:
    started: list[Worker] = []
    doors: dict[int, list[tuple[Channel, Channel]]] = {}

    def start_one(index: int, workers: int = 2, empties_door: bool = False) -> Worker:
        if workers not in doors:
            doors[workers] = [channel_pair() for _ in range(workers)]
        while empties_door and doors[workers][index][0].receive() is not None:
            pass
        started.append(Worker(index, doors[workers]))
        return started[-1]

    yield start_one
    for worker in started:
        worker.stop()
    for worker in started:
        worker.ended()
        worker._listener.close()
    for pairs in doors.values():
        for one, other in pairs:
            one.close()
            other.close()


@pytest.fixture
def workers(start: Callable[..., Worker]) -> list[Worker]:
    return [start(0), start(1)]


def ids(wire: Wire, count: int) -> list[str]:
    return [wire.answer()[1]["convex-request-id"] for _ in range(count)]


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + WAIT_SECONDS_MAX
    while not condition():
        assert time.monotonic() < until


def test_each_request_is_answered_by_its_owner_over_one_connection(workers: list[Worker]) -> None:
    zero, one = workers
    with zero.connect() as wire:
        for number, index in enumerate([0, 1, 1, 0, 1, 0, 0]):
            wire.send(of(index, f"now:{number}", f"r{number}"))
            assert ids(wire, 1) == [f"r{number}"]
    assert zero.asked == ["now:0", "now:3", "now:5", "now:6"]
    assert one.asked == ["now:1", "now:2", "now:4"]


def test_what_belongs_to_nobody_is_answered_where_it_arrives(workers: list[Worker]) -> None:
    with workers[1].connect() as wire:
        wire.send(b"GET /version HTTP/1.1\r\nHost: any\r\n\r\n")
        assert wire.answer()[0] == 200
        assert len(workers[1].connections()) == 1
        assert not workers[0].connections()


def test_requests_of_several_owners_in_one_piece_are_answered_in_order(workers: list[Worker]) -> None:
    zero, one = workers
    order = [0, 0, 1, 0, 1, 1, 0]
    requests = [of(index, f"now:{number}", f"r{number}") for number, index in enumerate(order)]
    requests.insert(3, b"GET /version HTTP/1.1\r\nHost: any\r\nConvex-Request-Id: get\r\n\r\n")
    with zero.connect() as wire:
        wire.send(b"".join(requests))
        assert ids(wire, 8) == ["r0", "r1", "r2", "get", "r3", "r4", "r5", "r6"]
    assert (zero.asked, one.asked) == (["now:0", "now:1", "now:3", "now:6"], ["now:2", "now:4", "now:5"])


def test_a_request_for_another_waits_for_the_answers_before_it(workers: list[Worker]) -> None:
    zero, one = workers
    with zero.connect() as wire, one.connect() as other:
        wire.send(of(0, "later:a", "first") + of(1, "now:b", "second") + of(0, "now:c", "third"))
        zero.deployment.wait_for(lambda: "later:a" in zero.asked)
        other.send(of(1, "now:x", "x"))
        assert ids(other, 1) == ["x"]
        assert one.asked == ["now:x"], "nothing moves while a request is under way"
        zero.tell("a")
        assert ids(wire, 3) == ["first", "second", "third"]


@pytest.mark.parametrize("cut", [1, 20, 70, -30, -1])
def test_a_request_in_pieces_arrives_whole(workers: list[Worker], cut: int) -> None:
    zero, one = workers
    request = of(1, "now:b", "pieces")
    with zero.connect() as wire:
        wire.send(of(0, "now:a", "before") + request[:cut])
        assert ids(wire, 1) == ["before"]
        wire.send(request[cut:])
        assert ids(wire, 1) == ["pieces"]
    assert one.asked == ["now:b"]


def test_byte_by_byte(workers: list[Worker]) -> None:
    with workers[0].connect() as wire:
        wire.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in of(0, "now:a", "first") + of(1, "now:b", "second"):
            wire.send(bytes([byte]))
        assert ids(wire, 2) == ["first", "second"]


def test_a_large_body_moves_with_its_head_or_follows_it(workers: list[Worker]) -> None:
    body = b'{"path":"now:big","args":{"a":"' + b"x" * 3_000_000 + b'"}}'
    with workers[0].connect() as wire:
        wire.send(of(1, "", "large", body=body))
        assert ids(wire, 1) == ["large"]
    assert workers[1].asked == ["now:big"]


@pytest.mark.parametrize("over", [False, True])
def test_a_boundary_behind_a_body_is_known_up_to_a_bound(workers: list[Worker], over: bool) -> None:
    zero, one = workers
    frame = b'{"path":"now:a","args":{"a":"%s"}}'
    request = of(0, "now:a", "long", body=frame % (b"x" * (HANDOVER_BYTES_MAX - 1_000 + 2_000 * over)))
    with zero.connect() as wire:
        wire.send(request[:-500])
        (connection,) = _soon(zero.connections)
        wait_for(lambda: connection._read_bytes == len(request) - 500)
        wire.send(request[-500:] + of(1, "now:b", "behind"))
        assert ids(wire, 1) == ["long"]
        if over:
            assert wire.is_over()
        else:
            assert ids(wire, 1) == ["behind"]
    assert one.asked == ([] if over else ["now:b"])


def _soon(some: Callable[[], set[Any]]) -> set[Any]:
    wait_for(lambda: bool(some()))
    return some()


def test_nonsense_behind_a_request_that_moves_ends_the_connection_after_its_answer(workers: list[Worker]) -> None:
    with workers[0].connect() as wire:
        wire.send(of(1, "now:b", "fine") + b"NONSENSE\r\n\r\n")
        assert ids(wire, 1) == ["fine"]
        assert wire.is_over()


def test_a_client_that_closes_behind_a_request_that_moves_is_answered(workers: list[Worker]) -> None:
    with workers[0].connect() as wire:
        wire.send(of(1, "now:b", "last", "Connection: close"))
        assert ids(wire, 1) == ["last"]
        assert wire.is_over()


def test_a_full_door_is_tried_again_for_a_bounded_time(start: Callable[..., Worker]) -> None:
    zero = start(0)
    door = zero.share._doors[1]
    while door.send(b"\0\0"):
        pass
    with zero.connect() as wire, zero.connect() as given_up:
        wire.send(of(1, "now:b", "patient"))
        given_up.send(of(1, "now:c", "impatient"))
        wait_for(lambda: sum(c._owner == 1 and c.deadline < float("inf") for c in zero.connections()) == 2)
        waiting = [c for c in zero.connections() if b"impatient" in c._read[0]]
        now = zero.on_loop(zero._loop.time)
        assert 0 < waiting[0].deadline - now <= HANDOVER_SECONDS_MAX
        zero.on_loop(waiting[0].expire)
        assert given_up.is_over()
        one = start(1, empties_door=True)
        assert ids(wire, 1) == ["patient"]
        assert one.asked == ["now:b"]


def test_more_than_may_be_handed_over_ends_the_connection(workers: list[Worker]) -> None:
    zero, one = workers
    with zero.connect() as wire:
        wire.send(of(0, "later:a", "first"))
        zero.deployment.wait_for(lambda: "later:a" in zero.asked)
        (connection,) = zero.connections()

        def overfill() -> None:
            connection.data_received(of(1, "now:b", "second", body=bytes(100)))
            connection.data_received(bytes(HANDOVER_BYTES_MAX - connection._read_bytes))
            assert sum(map(len, connection._read)) == HANDOVER_BYTES_MAX
            connection.data_received(b"x")
            assert not connection._read

        zero.on_loop(overfill)
        zero.tell("a")
        assert ids(wire, 1) == ["first"]
        assert wire.is_over()
    assert one.asked == []


# -- a successor -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2])
def test_a_worker_that_retires_hands_everything_on(start: Callable[..., Worker], count: int) -> None:
    old = start(0, count)
    half = of(0, "now:half", "half")
    with old.connect() as fresh, old.connect() as idle, old.connect() as busy, old.connect() as halved:
        idle.send(of(0, "now:a", "one"))
        assert ids(idle, 1) == ["one"]
        busy.send(of(0, "later:b", "two"))
        old.deployment.wait_for(lambda: "later:b" in old.asked)
        halved.send(half[:40])
        wait_for(lambda: len(old.connections()) == 4 and any(c._head_bytes for c in old.connections()))
        old.on_loop(lambda: [port.retire() for port in old.share.ports])
        new = start(0, count)
        retiring = asyncio.run_coroutine_threadsafe(old.share.retire(), old._loop)
        wait_for(lambda: len(old.connections()) <= 2)
        idle.send(of(0, "now:c", "three"))
        fresh.send(of(0, "now:d", "four"))
        assert ids(idle, 1) == ["three"]
        assert ids(fresh, 1) == ["four"]
        busy.send(of(0, "now:e", "five"))
        halved.send(half[40:])
        assert ids(halved, 1) == ["half"]
        old.tell("b")
        assert ids(busy, 2) == ["two", "five"]
        halved.send(of(0, "now:f", "six"))
        assert ids(halved, 1) == ["six"]
        retiring.result(WAIT_SECONDS_MAX)
        assert not old.connections()
        assert set(new.asked) >= {"now:c", "now:d", "now:e"}
        idle_there = [c for c in new.connections() if c.deadline < float("inf")]
        assert idle_there


def test_an_idle_connection_that_was_handed_on_may_stay_idle(start: Callable[..., Worker]) -> None:
    old = start(0, 1)
    with old.connect() as wire:
        wire.send(of(0, "now:a", "one"))
        assert ids(wire, 1) == ["one"]
        old.retire()
        new = start(0, 1)
        (connection,) = _soon(new.connections)
        assert connection.deadline - new.on_loop(new._loop.time) > HTTP_HEAD_SECONDS_MAX


# -- finding a boundary ------------------------------------------------------------------------------------------

MESSAGES = [
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nContent-Length: 31\r\n\r\nGET / HTTP/1.1\r\nHost: abcde\r\n\r\n",
]


@given(st.lists(st.sampled_from(MESSAGES), min_size=1, max_size=6), st.binary(max_size=40))
def test_the_boundary_of_each_message_is_found(messages: list[bytes], rest: bytes) -> None:
    data = b"".join(messages) + rest
    for number in range(1, len(messages) + 2):
        assert from_message(data, number) == data[len(b"".join(messages[: number - 1])) :]
