"""Clients as the npm one behaves, on lines that the test delivers and cuts, before a real deployment.

Everything between a line and storage is real: connection, session, reactor, mutations, functions, database. The test
holds the transport (what is delivered, and when), the clock, and when storage says that a commit is durable.
"""

import json
import random
from base64 import b64decode, b64encode
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import pytest
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.uri import parse_uri

from skerry.functions import deployment as deployment_module
from skerry.functions.request import CallRequest, CallResult, ReadTime
from skerry.http.headers import Caller
from skerry.http.port import PortShare
from skerry.http.sync_socket import SyncSocket
from skerry.storage.memory_engine import MemoryEngine
from tests.fixtures import shared
from tests.fixtures.world import World

REQUEST_ID = "0" * 16
ADMIN = "admin"


class Storage(MemoryEngine):
    """The memory engine, with what a deployment asks of its file."""

    def __init__(self, folder: Path, **_options: Any) -> None:
        super().__init__()
        folder.mkdir(mode=0o700)

    def data_bytes(self) -> int:
        return 0

    @property
    def usage(self) -> Any:
        return SimpleNamespace(used_bytes=0, free_bytes=0)

    def clear_stale_readers(self) -> None:
        pass


class Ground:
    """A deployment, and what a port makes of it for connections. Close it."""

    def __init__(self, folder: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.engines: list[Storage] = []

        def engine(*args: Any, **options: Any) -> Storage:
            self.engines.append(Storage(*args, **options))
            return self.engines[-1]

        monkeypatch.setattr(deployment_module, "LmdbEngine", engine)
        self.world = World(folder, shared.compiled(base))
        self.world.activate(shared.bundle("javascript", base))
        self.deployment = self.world.deployment
        self.loop = self.world.loop
        self.share = PortShare(self.loop, None)
        # what a hub asks of its endpoints
        self.redacted = False
        self.cpu_wait_s = 0.0
        self.start = self.deployment.start

    def close(self) -> None:
        self.engines[0].release()
        self.world.close()

    # -- as connections see it -----------------------------------------------------------------------------------------

    def find(self, host: bytes | None, path: str) -> Any:
        return type("Found", (), {"hosted": self, "endpoints": self, "path": path})

    @asynccontextmanager
    async def using(self) -> AsyncGenerator[Any]:
        yield self.deployment

    def ask(self, run: Callable[[], None]) -> None:
        self.loop.call_soon(run)

    run_soon = ask

    def read_long(self, size: int, job: Callable[[], Any], done: Callable[[Any], None]) -> None:
        self.loop.call_soon(lambda: done(job()))

    def count_live_run(self) -> None:
        pass

    def make_request(self, kind: str, path: str, args: bytes, caller: Caller) -> CallRequest:
        return CallRequest(kind=kind, path=path, args=args, request_id=REQUEST_ID, is_admin=caller.is_admin)

    def caller_of(self, authorization: bytes) -> Caller:
        assert authorization == b"Convex " + ADMIN.encode()
        return Caller(True, None)

    # -- what is true --------------------------------------------------------------------------------------------------

    def shown_at(self, path: str, args: str, journal: str | None, ts: int) -> Any:
        """What a fresh run of a query shows, over the state at a timestamp."""
        request = CallRequest(kind="query", path=path, args=args.encode(), request_id=REQUEST_ID, at=ReadTime(ts))
        request.journal = journal
        result: CallResult = self.world.wait(self.deployment.run(request))
        assert result.ts in (None, ts)
        return json.loads(result.value) if result.ok else ("failed", result.error_message)

    def turn(self, times: int = 1) -> None:
        for _ in range(times):
            self.loop.call_soon(self.loop.stop)
            self.loop.run_forever()


class Line:
    """One connection's transport and the client's end of it: bytes wait in both directions until they are delivered."""

    def __init__(self, ground: Ground) -> None:
        self.up = bytearray()
        self.down = bytearray()
        self.is_reading = True
        self.is_cut = False
        self.is_blocked = False
        self.client = ClientProtocol(parse_uri("ws://localhost/api/1.48.0/sync"))
        self.socket = SyncSocket(ground.share, cast("Any", ground), set(), ground.loop)
        self.socket.connection_made(cast("Any", self))
        self.client.send_request(self.client.connect())
        self._send()
        self.deliver_up(len(self.up))

    def say(self, message: dict[str, Any]) -> None:
        self.client.send_text(json.dumps(message).encode())
        self._send()

    def _send(self) -> None:
        for piece in self.client.data_to_send():
            self.up += piece

    def deliver_up(self, length: int) -> None:
        if self.is_reading and not self.is_cut and length:
            piece, self.up = bytes(self.up[:length]), self.up[length:]
            if piece:
                self.socket.data_received(piece)

    def deliver_down(self, length: int) -> list[dict[str, Any]]:
        """The messages that the client has whole."""
        piece, self.down = bytes(self.down[:length]), self.down[length:]
        if piece:
            self.client.receive_data(piece)
        found: list[dict[str, Any]] = []
        for event in self.client.events_received():
            if isinstance(event, Frame) and event.opcode is Opcode.TEXT:
                found.append(json.loads(bytes(event.data)))
            assert not (isinstance(event, Frame) and event.opcode is Opcode.CLOSE), bytes(event.data)
        return found

    def cut(self) -> None:
        if not self.is_cut:
            self.is_cut = True
            self.socket.connection_lost(None)

    def block(self, is_blocked: bool) -> None:
        """The client's side takes nothing, or takes again."""
        if is_blocked != self.is_blocked and not self.is_cut:
            self.is_blocked = is_blocked
            (self.socket.pause_writing if is_blocked else self.socket.resume_writing)()

    # the transport
    def write(self, data: bytes) -> None:
        self.down += data

    def close(self) -> None:
        self.cut()

    abort = close

    def is_closing(self) -> bool:
        return self.is_cut

    def can_write_eof(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return len(self.down)

    def pause_reading(self) -> None:
        self.is_reading = False

    def resume_reading(self) -> None:
        self.is_reading = True


class Client:
    """What the npm client does: it keeps its session, its queries with their journals, and its mutations until a
    transition covers them. Shape: `seen` is each state that it was brought to: the timestamp, and for each query what
    it shows with the journal that came with it."""

    def __init__(self, ground: Ground, number: int) -> None:
        self.ground = ground
        self.number = number
        self.session = str(UUID(int=number + 1))
        self.line: Line | None = None
        self.connections = 0
        self.queries: dict[int, tuple[str, str]] = {}
        self.journals: dict[int, str | None] = {}
        self.is_admin = False
        self.max_ts = 0
        self.waiting: dict[int, tuple[dict[str, Any], int | None]] = {}
        self.committed: dict[int, int] = {}
        self.failed: set[int] = set()
        self.seen: list[tuple[int, list[tuple[tuple[str, str], str | None, Any]]]] = []
        self._next_query = self.next_request = 0
        self._shown: dict[int, Any] = {}
        self._sets: list[dict[int, tuple[str, str]]] = []
        self._identity = 0
        self._version: dict[str, Any] = {}

    # -- what its user does --------------------------------------------------------------------------------------------

    def watch(self, path: str, args: str) -> None:
        query_id, self._next_query = self._next_query, self._next_query + 1
        self.queries[query_id] = (path, args)
        self._change([self._add(query_id)])

    def unwatch(self, query_id: int) -> None:
        del self.queries[query_id]
        self.journals.pop(query_id, None)
        self._change([{"type": "Remove", "queryId": query_id}])

    def mutate(self, path: str, args: dict[str, Any]) -> int:
        request_id, self.next_request = self.next_request, self.next_request + 1
        message = {"type": "Mutation", "requestId": request_id, "udfPath": path, "args": [args]}
        self.waiting[request_id] = (message, None)
        if self.line is not None:
            self.line.say(message)
        return request_id

    def be(self, is_admin: bool) -> None:
        """Another token. Not while mutations wait: as somebody else they would be others."""
        if is_admin != self.is_admin and not self.waiting:
            self.is_admin = is_admin
            if self.line is not None:
                self._authenticate()

    # -- its connection ------------------------------------------------------------------------------------------------

    def connect(self) -> None:
        if self.line is not None:
            return
        self.line = Line(self.ground)
        while not self.line.client.events_received():  # the handshake is over before anything can be said
            self.line.client.receive_data(bytes(self.line.down))
            self.line.down.clear()
        self._version = {"querySet": 0, "identity": 0, "ts": b64encode(bytes(8)).decode()}
        self._identity = 0
        self._sets = [{}]
        self._shown = {}
        observed = b64encode(self.max_ts.to_bytes(8, "little")).decode()
        connect = {"type": "Connect", "sessionId": self.session, "connectionCount": self.connections}
        self.line.say({**connect, "maxObservedTimestamp": observed, "lastCloseReason": None, "clientTs": 0})
        self.connections += 1
        if self.is_admin:
            self._authenticate()
        self._change([self._add(query_id) for query_id in self.queries])
        for message, _ in self.waiting.values():
            self.line.say(message)

    def cut(self) -> None:
        if self.line is not None:
            self.line.cut()
            self.line = None

    def _authenticate(self) -> None:
        assert self.line is not None
        token = {"tokenType": "Admin", "value": ADMIN} if self.is_admin else {"tokenType": "None"}
        self.line.say({"type": "Authenticate", "baseVersion": self._identity, **token})
        self._identity += 1

    def _add(self, query_id: int) -> dict[str, Any]:
        path, args = self.queries[query_id]
        add = {"type": "Add", "queryId": query_id, "udfPath": path, "args": [json.loads(args)]}
        return add if self.journals.get(query_id) is None else {**add, "journal": self.journals[query_id]}

    def _change(self, modifications: list[dict[str, Any]]) -> None:
        if self.line is None:
            return
        base = len(self._sets) - 1
        self._sets.append(dict(self.queries))
        versions = {"baseVersion": base, "newVersion": base + 1}
        self.line.say({"type": "ModifyQuerySet", **versions, "modifications": modifications})

    # -- what it hears -------------------------------------------------------------------------------------------------

    def hear(self, length: int) -> None:
        if self.line is None:
            return
        for message in self.line.deliver_down(length):
            if message["type"] == "Transition":
                self._transition(message)
            elif message["type"] == "MutationResponse":
                self._answered(message)
            else:
                assert message["type"] == "Ping", message
        if self.line.is_cut:
            self.line = None

    def _answered(self, said: dict[str, Any]) -> None:
        request_id = said["requestId"]
        if request_id not in self.waiting:  # sent again, and covered by a transition meanwhile
            assert said["success"] and _ts(said["ts"]) == self.committed[request_id]
            return
        message, ts = self.waiting[request_id]
        if not said["success"]:
            assert ts is None, "what took effect has failed"
            self.failed.add(request_id)
            del self.waiting[request_id]
            return
        told = _ts(said["ts"])
        assert ts in (None, told), "a mutation sent again is another commit"
        self.waiting[request_id] = (message, told)
        assert self.committed.setdefault(request_id, told) == told

    def _transition(self, said: dict[str, Any]) -> None:
        assert said["startVersion"] == self._version, "it goes on from where the client is"
        self._version = end = said["endVersion"]
        ts = _ts(end["ts"])
        assert ts >= self.max_ts, "time does not go back, whatever the connection"
        self.max_ts = ts
        for change in said["modifications"]:
            query_id = change["queryId"]
            if change["type"] == "QueryRemoved":
                self._shown.pop(query_id, None)
                continue
            is_failed = change["type"] == "QueryFailed"
            value = ("failed", change["errorMessage"]) if is_failed else change["value"]
            self._shown[query_id] = (change["journal"], value)
            if query_id in self.queries:
                self.journals[query_id] = change["journal"]
        watched = self._sets[end["querySet"]]
        assert self._shown.keys() == watched.keys(), "all of its queries, and no others"
        self.seen.append((ts, [(watched[query_id], *shown) for query_id, shown in self._shown.items()]))
        for request_id, (_, committed) in list(self.waiting.items()):
            if committed is not None and committed <= ts:
                del self.waiting[request_id]

    def is_done_at(self, ts: int) -> bool:
        """Whether it waits for nothing, and is shown the state at this timestamp or as much of it as it watches."""
        if self.line is None or self.line.up or self.line.down or self.waiting:
            return False
        is_current = (self._version["querySet"], self._version["identity"]) == (len(self._sets) - 1, self._identity)
        return is_current and not self.line.socket.bytes_unheard


def _ts(encoded: str) -> int:
    return int.from_bytes(b64decode(encoded), "little")


def chance_of(seed: int) -> random.Random:
    """What a seed's history draws from."""
    return random.Random(f"history {seed}")
