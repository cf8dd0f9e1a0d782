"""One connection on a transport and a clock of the test's own: deadlines, turns, and what leaves in one piece."""

import asyncio
import socket
from collections.abc import Callable
from typing import Any, cast

import pytest
import uvicorn
from uvicorn.server import ServerState as UvicornState

from skerry.http.app import make_site_app
from skerry.http.connection import BoundedProtocol
from skerry.http.front import Front
from skerry.http.port import PortShare
from skerry.http.server import _Port
from skerry.limits import (
    HTTP_BODY_BYTES_MAX,
    HTTP_BODY_SECONDS_MAX,
    HTTP_CALLS_PER_TURN_MAX,
    HTTP_DRAIN_BYTES_MAX,
    HTTP_EXPIRED_PER_TURN_MAX,
    HTTP_HEAD_SECONDS_MAX,
    HTTP_IDLE_SECONDS_MAX,
    HTTP_SHUTDOWN_SECONDS_MAX,
    HTTP_SWEEP_SECONDS,
    MIB,
)
from tests.http.scripted import ScriptedDeployment, ScriptedHost, front_of, post

_SCRIPTED: Any = ScriptedHost(ScriptedDeployment())
SITE_APP = make_site_app(_SCRIPTED, None)


async def turns(count: int) -> None:
    """Lets the loop take so many turns."""
    for _ in range(count):
        await asyncio.sleep(0)


class ClockedLoop:
    """A loop whose clock the test turns."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.now = 1000.0

    def time(self) -> float:
        return self.now

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)


class NotedTransport(asyncio.Transport):
    """A transport that notes what is done to it."""

    def __init__(self) -> None:
        super().__init__()
        self.closed = False
        self.aborted = False
        self.unsent = 0
        self.answered = asyncio.Event()
        self.written: list[bytes] = []

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = self.aborted = True

    def is_closing(self) -> bool:
        return self.closed

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))
        if bytes(data).endswith((b"enabled.", b"}", b"\r\n\r\n")):
            self.answered.set()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


class Connected:
    """A connection to a port, on a transport and a clock of the test's own."""

    def __init__(self, front: Front | None = None) -> None:
        app: Any = front or SITE_APP
        config = uvicorn.Config(app, http=BoundedProtocol, ws="none", lifespan="off", log_config=None)
        config.load()
        self.loop = ClockedLoop(asyncio.get_running_loop())
        loop = cast("asyncio.AbstractEventLoop", self.loop)
        self.share = PortShare(loop, front)
        self.protocol = BoundedProtocol(config, UvicornState(), {}, self.share, loop)
        self.transport = NotedTransport()
        self.protocol.connection_made(self.transport)

    def closed_after(self, seconds: float) -> bool:
        """Whether the connection is closed once so much more time has passed."""
        self.loop.now += seconds
        self.share.sweep()
        return self.transport.closed


@pytest.mark.parametrize(
    ("arrived", "seconds"),
    [
        ([], HTTP_HEAD_SECONDS_MAX),
        ([b"GET / HTTP/1.1\r\nHo"], HTTP_HEAD_SECONDS_MAX),
        ([b"GET / HTTP/1.1\r\nHo", b"st: a\r\nX"], HTTP_HEAD_SECONDS_MAX),
        ([b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc"], HTTP_BODY_SECONDS_MAX),
        ([b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n", b"abc", b"d"], HTTP_BODY_SECONDS_MAX),
    ],
)
@pytest.mark.parametrize("path", [b"/", b"/api/query"])
def test_a_request_that_takes_too_long_ends_with_its_connection(
    arrived: list[bytes], seconds: int, path: bytes
) -> None:
    async def scenario() -> None:
        connected = Connected(front_of(ScriptedDeployment()))
        for piece in arrived:
            connected.protocol.data_received(piece.replace(b" / ", b" " + path + b" "))
        assert not connected.closed_after(seconds - 0.01)
        assert connected.closed_after(0.01)
        connected.protocol.connection_lost(None)

    asyncio.run(scenario())


def test_pieces_do_not_buy_a_head_more_time() -> None:
    async def scenario() -> None:
        connected = Connected()
        for piece in (b"GET / HT", b"TP/1.1\r\n", b"Host: a\r\n"):
            assert not connected.closed_after(HTTP_HEAD_SECONDS_MAX / 3 - 0.01)
            connected.protocol.data_received(piece)
        assert connected.closed_after(0.03)
        connected.protocol.connection_lost(None)

    asyncio.run(scenario())


CALL = post("now:a", "1")
SITE = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"


@pytest.mark.parametrize("request_bytes", [CALL, SITE])
def test_an_answered_connection_may_be_idle_for_so_long(request_bytes: bytes) -> None:
    async def scenario() -> None:
        connected = Connected(front_of(ScriptedDeployment()) if request_bytes is CALL else None)
        for _ in range(2):
            connected.transport.written.clear()
            connected.transport.answered.clear()
            connected.protocol.data_received(request_bytes)
            await connected.transport.answered.wait()
            assert len(connected.transport.written) == 1
            assert not connected.closed_after(HTTP_IDLE_SECONDS_MAX - 0.01)
        # A head that has begun has its own time.
        connected.protocol.data_received(b"GET")
        assert not connected.closed_after(HTTP_HEAD_SECONDS_MAX - 0.01)
        assert connected.closed_after(0.01)
        connected.protocol.connection_lost(None)

    asyncio.run(scenario())


@pytest.mark.parametrize("target", ["/api/query", "http://a/api/query"])
def test_a_request_that_is_being_served_has_no_deadline(target: str) -> None:
    async def scenario() -> None:
        deployment = ScriptedDeployment()
        connected = Connected(front_of(deployment))
        connected.protocol.data_received(post("later:a", "1", target=target))
        await turns(5)
        assert deployment.pending
        assert not connected.closed_after(HTTP_IDLE_SECONDS_MAX + HTTP_BODY_SECONDS_MAX)
        connected.protocol.connection_lost(None)

    asyncio.run(scenario())


@pytest.mark.parametrize("header", ["X: y", "Connection: close"])
@pytest.mark.parametrize("behind", [b"", post("now:b", "2")])
def test_an_answer_must_be_taken_however_slowly(header: str, behind: bytes) -> None:
    async def scenario() -> None:
        connected = Connected(front_of(ScriptedDeployment()))
        connected.protocol.data_received(post("now:a", "1", header) + behind)
        connected.protocol.pause_writing()  # as the transport does where it holds more than it should
        await turns(5)
        assert len(connected.transport.written) == 1
        for unsent in (1000, 999, 1):
            connected.transport.unsent = unsent
            connected.closed_after(HTTP_IDLE_SECONDS_MAX)
            assert not connected.transport.aborted
        connected.closed_after(HTTP_IDLE_SECONDS_MAX - 0.01)
        assert not connected.transport.aborted
        connected.closed_after(0.01)
        assert connected.transport.aborted
        connected.protocol.connection_lost(None)

    asyncio.run(scenario())


def test_a_head_behind_a_call_keeps_its_deadline() -> None:
    async def scenario() -> None:
        connected = Connected(front_of(ScriptedDeployment()))
        connected.protocol.data_received(post("now:a", "1") + post("now:b", "2"))
        connected.protocol.data_received(b"GET / HT")
        await turns(9)
        assert len(connected.transport.written) == 2
        assert not connected.closed_after(HTTP_HEAD_SECONDS_MAX - 0.01)
        assert connected.closed_after(0.01)
        connected.protocol.connection_lost(None)

    asyncio.run(scenario())


def test_a_body_without_end_is_cut_off() -> None:
    async def scenario() -> None:
        connected = Connected(front_of(ScriptedDeployment()))
        head = b"POST /api/query HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        connected.protocol.data_received(head)
        piece = b"%x\r\n%s\r\n" % (MIB, bytes(MIB))
        for _ in range((HTTP_BODY_BYTES_MAX + HTTP_DRAIN_BYTES_MAX) // MIB):
            connected.protocol.data_received(piece)
            assert not connected.transport.closed
        connected.protocol.data_received(piece)
        assert connected.transport.closed
        assert connected.transport.written[0].startswith(b"HTTP/1.1 413 ")
        assert b"\r\nconnection: close\r\n" in connected.transport.written[0]
        connected.protocol.data_received(piece)  # what was on its way
        assert len(connected.transport.written) == 1
        connected.protocol.connection_lost(None)

    asyncio.run(scenario())


def test_calls_of_a_turn_are_bounded() -> None:
    async def scenario() -> None:
        turns: list[Callable[[], None]] = []
        deployment = ScriptedDeployment()
        front = front_of(deployment, call_soon=turns.append)
        waiting = [Connected(front) for _ in range(HTTP_CALLS_PER_TURN_MAX + 1)]
        for number, connected in enumerate(waiting):
            connected.protocol.data_received(post(f"now:{number}", "1"))
        assert deployment.asked == []
        turns.pop()()
        assert len(deployment.asked) == HTTP_CALLS_PER_TURN_MAX
        assert [len(connected.transport.written) for connected in waiting] == [1] * HTTP_CALLS_PER_TURN_MAX + [0]
        turns.pop()()
        assert deployment.asked == [f"now:{number}" for number in range(len(waiting))]
        assert turns == []
        for connected in waiting:
            assert len(connected.transport.written) == 1
            connected.protocol.connection_lost(None)

    asyncio.run(scenario())


def test_a_pipeline_takes_a_turn_for_each_request() -> None:
    async def scenario() -> None:
        deployment = ScriptedDeployment()
        front = front_of(deployment)
        greedy, other = Connected(front), Connected(front)
        greedy.protocol.data_received(b"".join(post(f"now:{number}", "1") for number in range(9)))
        other.protocol.data_received(post("now:other", "1"))
        await turns(50)
        assert len(deployment.asked) == 10
        assert deployment.asked.index("now:other") == 1
        for connected in (greedy, other):
            connected.protocol.connection_lost(None)

    asyncio.run(scenario())


def test_the_port_looks_at_its_connections_while_it_has_any() -> None:
    async def scenario() -> None:
        timers: list[tuple[float, Callable[[], None]]] = []

        class TimedLoop(ClockedLoop):
            def call_later(self, seconds: float, callback: Callable[[], None]) -> None:
                timers.append((seconds, callback))

        share = PortShare(cast("asyncio.AbstractEventLoop", TimedLoop(asyncio.get_running_loop())), None)
        connected = Connected()
        assert timers == []
        share.watch(connected.protocol)
        assert [seconds for seconds, _ in timers] == [HTTP_SWEEP_SECONDS]
        timers.pop()[1]()
        assert [seconds for seconds, _ in timers] == [HTTP_SWEEP_SECONDS]
        share.forget(connected.protocol)
        timers.pop()[1]()
        assert timers == []
        connected.protocol.connection_lost(None)

    asyncio.run(scenario())


def test_a_connection_that_cannot_be_ended_costs_the_others_no_deadline() -> None:
    async def scenario() -> None:
        timers: list[Callable[[], None]] = []

        class TimedLoop(ClockedLoop):
            def call_later(self, seconds: float, callback: Callable[[], None]) -> object:
                timers.append(callback)
                return callback

        class Watched:
            deadline = 0.0
            expired = 0

            def expire(self) -> None:
                self.expired += 1
                raise OSError("what a transport may raise")

        share = PortShare(cast("asyncio.AbstractEventLoop", TimedLoop(asyncio.get_running_loop())), None)
        watched = [Watched(), Watched()]
        for one in watched:
            share.watch(one)
        timers.pop()()
        assert [one.expired for one in watched] == [1, 1]
        assert len(timers) == 1, "the port goes on looking"

    asyncio.run(scenario())


def test_bound_of_the_connections_that_a_turn_sees_to() -> None:
    timers: list[Callable[[], None]] = []
    turns: list[Callable[[], None]] = []

    class Loop:
        def time(self) -> float:
            return 1.0

        def call_later(self, seconds: float, callback: Callable[[], None]) -> object:
            timers.append(callback)
            return callback

        def call_soon(self, callback: Callable[[], None]) -> None:
            turns.append(callback)

    class Watched:
        deadline = 0.0
        expired = 0

        def expire(self) -> None:
            self.expired += 1
            self.deadline = 2.0

    share = PortShare(cast("asyncio.AbstractEventLoop", Loop()), None)
    watched = [Watched() for _ in range(HTTP_EXPIRED_PER_TURN_MAX + 2)]
    for one in watched:
        share.watch(one)
    timers.pop()()
    assert sum(one.expired for one in watched) == HTTP_EXPIRED_PER_TURN_MAX and len(turns) == 1 and timers == []
    late = next(one for one in watched if not one.expired)
    late.deadline = 2.0  # it has done something meanwhile
    turns.pop()()
    assert sum(one.expired for one in watched) == HTTP_EXPIRED_PER_TURN_MAX + 1 and not late.expired
    assert turns == [] and len(timers) == 1


@pytest.mark.parametrize(("method", "end"), [(b"GET", b"enabled."), (b"HEAD", b"\r\n\r\n")])
def test_an_answer_leaves_in_one_piece(method: bytes, end: bytes) -> None:
    async def scenario() -> None:
        connected = Connected()
        protocol, transport = connected.protocol, connected.transport
        protocol.data_received(method + b" / HTTP/1.1\r\nHost: a\r\n\r\n")
        await transport.answered.wait()
        assert len(transport.written) == 1
        assert transport.written[0].startswith(b"HTTP/1.1 404 Not Found\r\n")
        assert transport.written[0].endswith(end)
        protocol.connection_lost(None)

    asyncio.run(scenario())


def test_the_end_of_the_server_is_bounded() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = _Port(SITE_APP, listener).server.config
    assert config.timeout_graceful_shutdown == HTTP_SHUTDOWN_SECONDS_MAX
