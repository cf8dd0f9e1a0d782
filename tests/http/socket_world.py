"""One sync connection on a transport, a clock and a deployment that the test holds."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any, cast

from websockets.client import ClientProtocol
from websockets.frames import Close, Frame, Opcode
from websockets.uri import parse_uri

from skerry.errors import SkerryError
from skerry.functions.request import CallRequest, CallResult
from skerry.http.headers import Caller
from skerry.http.port import PortShare
from skerry.http.sync_socket import SyncSocket
from skerry.identity import User

CONNECT = {"type": "Connect", "sessionId": "2d2f0000-0000-4000-8000-000000000001", "connectionCount": 0}
TURNS_MAX = 50


class Wire:
    """A transport that keeps what is written. Shape: `unsent` is what it says to have in its buffer."""

    def __init__(self) -> None:
        self.written = b""
        self.unsent = 0
        self.is_full_after: int | None = None
        self.pause: Callable[[], None] = lambda: None
        self.is_reading = True
        self.ended: str | None = None

    def write(self, data: bytes) -> None:
        self.written += data
        if self.is_full_after is not None and len(data) > self.is_full_after:
            self.pause()

    def close(self) -> None:
        self.ended = self.ended or "closed"

    def abort(self) -> None:
        self.ended = self.ended or "aborted"

    def is_closing(self) -> bool:
        return self.ended is not None

    def can_write_eof(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def pause_reading(self) -> None:
        self.is_reading = False

    def resume_reading(self) -> None:
        self.is_reading = True


class Deployed:
    """A deployment and its endpoints, as far as connections see them: calls wait until the test ends them."""

    def __init__(self) -> None:
        self.redacted = False
        self.database = self
        self.engine = self
        self.durable_ts = 5
        self.cpu_wait_s = 0.0
        self.live_runs = 0
        self.long: list[tuple[Callable[[], Any], Callable[[Any], None]]] = []
        self.on_commit: list[Any] = []
        self.on_activated: list[Any] = []
        self.on_drained: list[Callable[[], None]] = []
        self.calls: list[tuple[CallRequest, Callable[[Any], None]]] = []
        self.opening: asyncio.Future[None] | None = None
        self.authority = self
        self.providers: tuple[Any, ...] = ()
        self.wall_s = 0.0
        self.tokens: list[tuple[bytes, Callable[[User | SkerryError], None]]] = []

    def now_s(self) -> float:
        return self.wall_s

    def identify(self, token: bytes, told: Callable[[User | SkerryError], None]) -> None:
        self.tokens.append((token, told))

    def start(self, request: CallRequest, done: Callable[[Any], None]) -> None:
        self.calls.append((request, done))

    def ask(self, run: Callable[[], None]) -> None:
        run()

    run_soon = ask

    def read_long(self, size: int, job: Callable[[], Any], done: Callable[[Any], None]) -> None:
        self.long.append((job, done))

    def count_live_run(self) -> None:
        self.live_runs += 1

    def make_request(self, kind: str, path: str, args: bytes, caller: Any) -> CallRequest:
        return CallRequest(
            kind=kind,
            path=path,
            args=args,
            request_id="0" * 16,
            is_admin=caller.is_admin,
            identity=caller.identity,
            token=caller.token,
        )

    def caller_of(self, authorization: bytes) -> Caller:
        return Caller(True, None)

    def snapshot(self) -> "Deployed":
        return self

    def scan(self, *bounds: Any) -> Iterator[Any]:
        return iter(())

    def close(self) -> None:
        pass

    def stored_in_meta(self, key: bytes) -> bytes | None:
        return None

    @asynccontextmanager
    async def using(self) -> AsyncGenerator["Deployed"]:
        if self.opening is not None:
            await self.opening
        yield self


class World:
    """A connection after its handshake."""

    def __init__(self, loop: asyncio.AbstractEventLoop, deployed: Deployed, path: str = "/api/sync") -> None:
        self.loop = loop
        self.deployed = deployed
        self.now = 0.0
        self.wire = Wire()
        self.client = ClientProtocol(parse_uri(f"ws://localhost{path}"), max_size=None)
        front = cast("Any", self)
        self.socket = SyncSocket(PortShare(loop, None), front, set(), cast("Any", self))
        self.wire.pause = self.socket.pause_writing
        self.socket.connection_made(self.wire)
        self.client.send_request(self.client.connect())
        self.pass_on()
        self.settle()
        self.greeting = self.heard()
        if not self.greeting:
            self.tell(CONNECT)

    # what the connection asks of the front and of the loop
    def find(self, host: bytes | None, path: str) -> Any:
        return type("Found", (), {"hosted": self.deployed, "endpoints": self.deployed, "path": path})

    def time(self) -> float:
        return self.now

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loop, name)

    def pass_on(self) -> None:
        for piece in self.client.data_to_send():
            if piece:
                self.socket.data_received(piece)

    def pass_on_together(self) -> None:
        self.socket.data_received(b"".join(self.client.data_to_send()))

    def settle(self) -> None:
        for _ in range(TURNS_MAX):
            self.loop.run_until_complete(asyncio.sleep(0))

    def tell(self, *messages: dict[str, Any]) -> None:
        for message in messages:
            self.client.send_text(json.dumps(message).encode())
        self.pass_on()
        self.settle()

    def heard(self) -> list[Any]:
        """The messages that have come since the last time, and a close as ("close", code, reason)."""
        data, self.wire.written = self.wire.written, b""
        if data:
            self.client.receive_data(data)
        found: list[Any] = []
        for event in self.client.events_received():
            if isinstance(event, Frame) and event.opcode is Opcode.TEXT:
                found.append(json.loads(bytes(event.data)))
            elif isinstance(event, Frame) and event.opcode is Opcode.CLOSE:
                closed = Close.parse(event.data)
                found.append(("close", closed.code, closed.reason))
        return found

    def commit(self, number: int, ts: int = 5) -> None:
        """A mutation is committed and not yet durable: what it keeps is asked for."""
        keep = self.deployed.calls[number][0].keep
        assert keep is not None and len(keep(CallResult(True, b"null", [], ts), ts)) == 1
        self.settle()

    def finish(self, number: int, value: bytes = b"null", ts: int = 5) -> None:
        self.deployed.calls[number][1](CallResult(True, value, [], ts))
        self.settle()
