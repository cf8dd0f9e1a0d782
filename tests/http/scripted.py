"""A port in this process whose deployment does what a test says.

The server, its sockets and its loop are the real ones.
"""

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import uvloop

from skerry.admin.access import Scope
from skerry.errors import SkerryError
from skerry.functions.metering import Meter
from skerry.functions.request import CallRequest, CallResult
from skerry.functions.terms import Terms
from skerry.http.app import ServerState, make_app
from skerry.http.front import Front
from skerry.http.server import _Port

KEY = "local|k"
WAIT_SECONDS_MAX = 60

Done = Callable[[CallResult | SkerryError], None]


class ScriptedDeployment:
    """Function `now:NAME` answers NAME at once, `later:NAME` when told to, `big:BYTES` so much; `bad:NAME` raises.

    Shape: `asked` the paths of the calls in their order, `pending` those that are to be told.
    """

    name = "local"

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.pending: dict[str, Done] = {}
        self.changed = threading.Condition()
        self.meter = Meter(self.name)
        self.share = Terms(self.meter)
        self.refusal: Callable[[int, int], SkerryError | None] = lambda queued, calls: None

    def admit(self, queued: int, calls: int = 1) -> SkerryError | None:
        return self.refusal(queued, calls)

    def kept_answer(self, path: str, args: bytes | None, identity: Any) -> None:
        return None

    def start(self, request: CallRequest, done: Done) -> None:
        kind, _, what = request.path.partition(":")
        with self.changed:
            self.asked.append(request.path)
            if kind == "later":
                self.pending[what] = done
            self.changed.notify_all()
        if kind == "now":
            done(result(what))
        elif kind == "big":
            done(CallResult(True, b'"' + b"x" * int(what) + b'"', [], 1))
        elif kind == "bad":
            raise ZeroDivisionError(what)

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Waits until what was asked makes the condition true."""
        with self.changed:
            assert self.changed.wait_for(condition, WAIT_SECONDS_MAX)


def result(name: str) -> CallResult:
    """What a function of that name answers."""
    return CallResult(True, b'"' + name.encode() + b'"', [], 1)


class ScriptedHost:
    """A host with one deployment, whose admin key is KEY."""

    def __init__(self, deployment: Any) -> None:
        deployment.attached = None
        self.default = deployment

    def find(self, name: str) -> Any:
        return self.default if name == self.default.name else None

    def scope_of(self, name: str, sent: bytes) -> Scope | None:
        return Scope.ADMIN if sent == KEY.encode() else None


def front_of(
    deployment: Any,
    state: ServerState | None = None,
    *,
    call_soon: Callable[[Callable[[], None]], object] | None = None,
) -> Front:
    """The real application in front of a scripted deployment; for a running loop."""
    host: Any = ScriptedHost(deployment)
    return make_app(
        host,
        state=state or ServerState(),
        redacted=False,
        domain=None,
        entropy=lambda n: bytes(n),
        monotonic=lambda: 0.0,
        call_soon=call_soon or asyncio.get_running_loop().call_soon,
        call_soon_threadsafe=asyncio.get_running_loop().call_soon_threadsafe,
    )


class ServedPort:
    """A port and its loop on a thread. Shape: `stop` begins the orderly end, `ended` waits for it."""

    def __init__(self) -> None:
        self.deployment = ScriptedDeployment()
        self.state = ServerState()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._ready: Future[None] = Future()
        self._thread = threading.Thread(target=lambda: uvloop.run(self._run()))
        self._thread.start()
        self._ready.result(WAIT_SECONDS_MAX)

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._port = _Port(front_of(self.deployment, self.state), self._listener)
        serving = asyncio.ensure_future(self._port.serve())
        await self._port.server.listening.wait()
        self._ready.set_result(None)
        await serving

    def on_loop(self, function: Callable[[], Any]) -> Any:
        """What the function gives, run by the loop's thread."""
        made: Future[Any] = Future()
        self._loop.call_soon_threadsafe(lambda: made.set_result(function()))
        return made.result(WAIT_SECONDS_MAX)

    def tell(self, name: str) -> None:
        """Ends a call of `later:name`."""
        self.on_loop(lambda: self.deployment.pending.pop(name)(result(name)))

    def connections(self) -> set[Any]:
        """Those of this moment, looked at on the loop thread: elsewhere the set may change meanwhile."""
        return self.on_loop(lambda: set(self._port.server.server_state.connections))

    def stop(self) -> None:
        self._port.server.should_exit = True

    def ended(self) -> None:
        self._thread.join(WAIT_SECONDS_MAX)
        assert not self._thread.is_alive()

    def connect(self, *, receive_bytes: int | None = None) -> "Wire":
        connection = socket.socket()
        if receive_bytes is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        connection.settimeout(WAIT_SECONDS_MAX)
        connection.connect(self._listener.getsockname())
        return Wire(connection)


@contextmanager
def served_port() -> Iterator[ServedPort]:
    """A port until the end of the block."""
    port = ServedPort()
    try:
        yield port
    finally:
        port.stop()
        port.ended()
        port._listener.close()


class Wire:
    """A connection as bytes, and the answers on it as (status, headers, body)."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.send = connection.sendall
        self.close = connection.close
        self._file = connection.makefile("rb")

    def __enter__(self) -> "Wire":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self.connection.close()

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        """The next answer. Raises: EOFError where the server has closed."""
        line = self._file.readline()
        if not line:
            raise EOFError
        headers: dict[str, str] = {}
        while (header := self._file.readline()) != b"\r\n":
            name, _, value = header.decode("latin-1").partition(": ")
            assert name not in headers
            headers[name] = value.rstrip("\r\n")
        status = int(line.split()[1])
        return status, headers, self._file.read(int(headers.get("content-length", "0")))

    def is_over(self) -> bool:
        """Waits for the server's end of the connection; whether nothing came before it."""
        return self._file.read(1) == b""


def post(path: str, name: str, *headers: str, version: str = "1.1", target: str = "") -> bytes:
    """A call of the function `path`, whose answer carries `name` as its request's id."""
    body = b'{"path":"%s","args":{}}' % path.encode()
    head = [f"POST {target or '/api/query'} HTTP/{version}", "Host: a", f"Convex-Request-Id: {name}", *headers]
    return "\r\n".join([*head, f"Content-Length: {len(body)}", "", ""]).encode() + body
