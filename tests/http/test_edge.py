"""What a real server cannot be made to do on demand: states that change between queries, time that passes, a drain.

The application and the protocol are the real ones; what is scripted is the other side of them: a deployment whose
timestamps the test chooses, a receive channel, a transport and a loop that notes timers.
"""

import asyncio
import json
import socket
from collections.abc import Callable
from typing import Any, cast

import pytest
import uvicorn
from uvicorn.server import ServerState as UvicornState

from skerry.errors import ClientError, SkerryError
from skerry.functions.request import CallRequest, CallResult
from skerry.http.app import ServerState, make_app, site_app
from skerry.http.bodies import ClientGone, drain, read_body
from skerry.http.connection import BoundedProtocol
from skerry.http.front import Front
from skerry.http.headers import RequestIds, expects_encoded_json
from skerry.http.port import PortShare
from skerry.http.server import _Port
from skerry.limits import (
    CLIENT_HEADER_CACHE_ENTRIES_MAX,
    HTTP_BATCH_ATTEMPTS_MAX,
    HTTP_BODY_SECONDS_MAX,
    HTTP_DRAIN_BYTES_MAX,
    HTTP_HEAD_SECONDS_MAX,
    HTTP_IDLE_SECONDS_MAX,
    HTTP_REQUEST_ID_CHARS_MAX,
    HTTP_SHUTDOWN_SECONDS_MAX,
    HTTP_SWEEP_SECONDS,
    MIB,
    USER_AGENT_CHARS_MAX,
)

KEY = "local|k"


class ScriptedDeployment:
    """A deployment whose every call reads the next of the given timestamps."""

    name = "local"

    def __init__(self, timestamps: list[int | None]) -> None:
        self.timestamps = timestamps
        self.asked: list[CallRequest] = []

    def call(self, request: CallRequest, done: Callable[[CallResult | SkerryError], None]) -> None:
        self.asked.append(request)
        done(CallResult(True, b"1", [], self.timestamps.pop(0)))


class PendingDeployment:
    """A deployment whose calls end when the test says so."""

    name = "local"

    def __init__(self) -> None:
        self.pending: list[Callable[[CallResult | SkerryError], None]] = []

    def call(self, request: CallRequest, done: Callable[[CallResult | SkerryError], None]) -> None:
        self.pending.append(done)


def front_of(deployment: Any, *, draining: bool = False) -> Front:
    """The real application in front of a scripted deployment."""
    state = ServerState()
    state.draining = draining
    return make_app(
        deployment, admin_key=KEY, state=state, redacted=False, entropy=lambda n: bytes(n), monotonic=lambda: 0.0
    )


def ask(
    deployment: Any,
    method: str,
    path: str,
    body: bytes = b"",
    *,
    draining: bool = False,
    headers: tuple[tuple[bytes, bytes], ...] = (),
) -> tuple[int, Any]:
    """Status and parsed answer of one request to the application."""
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    async def serve() -> None:
        app = front_of(deployment, draining=draining)
        scope = {"type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": b""}
        await app({**scope, "headers": list(headers), "client": ("127.0.0.9", 1234)}, receive, send)

    asyncio.run(serve())
    return sent[0]["status"], json.loads(b"".join(message.get("body", b"") for message in sent[1:]))


BATCH = json.dumps({"queries": [{"path": "a:b"}, {"path": "a:c"}]}).encode()


def test_a_batch_is_asked_again_until_its_queries_read_one_state() -> None:
    unsettled = [1, 2] * (HTTP_BATCH_ATTEMPTS_MAX - 1)
    deployment = ScriptedDeployment([*unsettled, 3, 3])
    status, answer = ask(deployment, "POST", "/api/query_batch", BATCH)
    assert (status, len(answer["results"])) == (200, 2)
    assert deployment.timestamps == []


def test_a_batch_that_never_settles_is_refused() -> None:
    deployment = ScriptedDeployment([1, 2] * HTTP_BATCH_ATTEMPTS_MAX)
    status, answer = ask(deployment, "POST", "/api/query_batch", BATCH)
    assert (status, answer["code"]) == (503, "QueriesUnsettled")
    assert deployment.timestamps == []


def test_health_says_when_the_server_stops() -> None:
    assert ask(ScriptedDeployment([]), "GET", "/health") == (200, {"status": "ok"})
    status, answer = ask(ScriptedDeployment([]), "GET", "/health", draining=True)
    assert (status, answer["code"]) == (503, "ShuttingDown")


def test_a_fault_of_ours_tells_the_caller_nothing(caplog: pytest.LogCaptureFixture) -> None:
    status, answer = ask(ScriptedDeployment([]), "POST", "/api/query", b'{"path": "a:b"}')  # there is no timestamp left
    assert (status, answer["code"]) == (500, "InternalServerError")
    assert answer["message"] == "Your request couldn't be completed. Try again later."
    assert "IndexError" in caplog.text


def test_a_call_knows_who_sent_it() -> None:
    for sent, kept in (
        ((), None),
        (((b"user-agent", b"x" * USER_AGENT_CHARS_MAX),), "x" * USER_AGENT_CHARS_MAX),
        (((b"user-agent", b"x" * (USER_AGENT_CHARS_MAX + 1)),), "x" * USER_AGENT_CHARS_MAX),
    ):
        deployment = ScriptedDeployment([1])
        ask(deployment, "POST", "/api/query", b'{"path": "a:b"}', headers=sent)
        assert (deployment.asked[0].ip, deployment.asked[0].user_agent) == ("127.0.0.9", kept)


def pieces(*sizes: int, ends: bool = True) -> Any:
    """A receive channel of pieces of these sizes, and the list of those that were read."""
    read: list[int] = []
    left = list(sizes)

    async def receive() -> Any:
        if not left:
            return {"type": "http.disconnect"}
        size = left.pop(0)
        read.append(size)
        return {"type": "http.request", "body": bytes(size), "more_body": bool(left) or not ends}

    return receive, read


def test_a_body_is_read_to_its_bound_and_a_client_that_leaves_is_noticed() -> None:
    assert len(asyncio.run(read_body(pieces(4, 6)[0], 10))) == 10
    with pytest.raises(ClientError, match="larger than 10 bytes") as refused:
        asyncio.run(read_body(pieces(4, 7)[0], 10))
    assert refused.value.code == "RequestTooLarge"
    with pytest.raises(ClientGone):
        asyncio.run(read_body(pieces(4, 4, ends=False)[0], 10))


def test_what_is_too_large_is_read_on_only_so_far() -> None:
    steps = HTTP_DRAIN_BYTES_MAX // MIB
    for extra, expected in ((0, steps), (5, steps + 1)):
        receive, read = pieces(*[MIB] * (steps + extra))
        asyncio.run(drain(receive))
        assert len(read) == expected
        receive, read = pieces(*[MIB] * (steps + extra))
        with pytest.raises(ClientError):
            asyncio.run(read_body(receive, 0))
        assert len(read) == expected


def test_a_request_id_has_a_bound() -> None:
    ids = RequestIds(lambda count: bytes(count))
    longest = b"x" * HTTP_REQUEST_ID_CHARS_MAX
    assert ids.name(longest) == longest
    assert ids.name(longest + b"x") == b"0" * 16


def test_client_headers_are_remembered_within_a_bound() -> None:
    for number in range(CLIENT_HEADER_CACHE_ENTRIES_MAX + 1):
        expects_encoded_json(b"npm-1.0.%d" % number)
    assert expects_encoded_json.cache_info().currsize == CLIENT_HEADER_CACHE_ENTRIES_MAX


# -- time ----------------------------------------------------------------------------------------------------------


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
        self.answered = asyncio.Event()
        self.written: list[bytes] = []

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))
        if bytes(data).endswith((b"enabled.", b"\r\n\r\n")):
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
        app: Any = front or site_app
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
        connected = Connected(front_of(ScriptedDeployment([])))
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


CALL = b"POST /api/query HTTP/1.1\r\nHost: a\r\nContent-Length: 14\r\n\r\n" + b'{"path":"a:b"}'
SITE = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"


@pytest.mark.parametrize("request_bytes", [CALL, SITE])
def test_an_answered_connection_may_be_idle_for_so_long(request_bytes: bytes) -> None:
    async def scenario() -> None:
        connected = Connected(front_of(ScriptedDeployment([1, 2])) if request_bytes is CALL else None)
        for _ in range(2):
            connected.transport.written.clear()
            connected.transport.answered.clear()
            connected.protocol.data_received(request_bytes)
            if request_bytes is SITE:
                await connected.transport.answered.wait()
            assert len(connected.transport.written) == 1
            assert not connected.closed_after(HTTP_IDLE_SECONDS_MAX - 0.01)
        # A head that has begun has its own time.
        connected.protocol.data_received(b"GET")
        assert not connected.closed_after(HTTP_HEAD_SECONDS_MAX - 0.01)
        assert connected.closed_after(0.01)
        connected.protocol.connection_lost(None)

    asyncio.run(scenario())


@pytest.mark.parametrize("request_bytes", [CALL, SITE])
def test_a_request_that_is_being_served_has_no_deadline(request_bytes: bytes) -> None:
    async def scenario() -> None:
        deployment = PendingDeployment()
        connected = Connected(front_of(deployment) if request_bytes is CALL else None)
        connected.protocol.data_received(request_bytes)
        assert not connected.closed_after(HTTP_IDLE_SECONDS_MAX + HTTP_BODY_SECONDS_MAX)
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
        config = _Port(site_app, listener).server.config
    assert config.timeout_graceful_shutdown == HTTP_SHUTDOWN_SECONDS_MAX
