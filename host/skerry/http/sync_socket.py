"""A WebSocket connection that speaks the sync protocol.

The library reads and writes frames without input and output of its own; the protocol's rules are in `sync.session`;
here is what connects them to a socket and to a deployment: one task that keeps the deployment open, and callbacks.

A client that does not read costs what is in its socket's buffer: while that is full no transition is made, and nothing
more is read from it; afterwards it is brought to the newest state in one. One that takes nothing for
`SYNC_STALL_SECONDS_MAX`, or is not heard of for `SYNC_SILENCE_SECONDS_MAX`, is dropped, and so is one that does not end
within `SYNC_PING_SECONDS` of being told to. Nothing is read while the deployment opens, and nothing kept of what comes
after the end.

A call runs as whoever the client was when it asked for it, also where it has to wait.

Source: protocol reference 3.1, 3.6, 3.9 (close codes).
"""

import asyncio
import contextlib
import logging
import re
from collections import deque
from functools import partial
from typing import Any, Final

from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

from skerry.errors import ClientError, SkerryError, SystemFault
from skerry.functions.request import CallResult
from skerry.http.front import Front
from skerry.http.port import NEVER, PortShare
from skerry.http.sync_hub import NOBODY, CallerKey, Leaving, SyncHub, hub_of
from skerry.limits import (
    JSON_WHOLE_BYTES_MAX,
    SYNC_ACTIONS_MAX,
    SYNC_MESSAGE_BYTES_MAX,
    SYNC_MUTATIONS_AT_ONCE_MAX,
    SYNC_MUTATIONS_WAITING_MAX,
    SYNC_PING_SECONDS,
    SYNC_SILENCE_SECONDS_MAX,
    SYNC_STALL_SECONDS_MAX,
    SYNC_UNSENT_BYTES_MAX,
)
from skerry.sync import session as frames
from skerry.sync.live_query import LiveQuery
from skerry.sync.messages import Add, Authenticate, Call, Message
from skerry.sync.mutations import Outcome
from skerry.sync.reactor import shown_message
from skerry.sync.session import Identify, Session, Step, Subscribe, Unsubscribe

_log: Final = logging.getLogger("skerry.sync")
_PATH: Final = re.compile(r"/api/(?:[^/]{1,64}/)?sync")
_TRY_AGAIN: Final = 1013
_RESTARTING: Final = 1012
_INTERNAL: Final = 1011
_DONE: Final = 1000
_REASON_BYTES_MAX: Final = 123


class SyncSocket(asyncio.Protocol, Leaving):
    """One connection. Shape: made where an HTTP connection asks for another protocol, with what it had read."""

    def __init__(self, share: PortShare, front: Front, connections: set[Any], loop: asyncio.AbstractEventLoop) -> None:
        self.deadline = NEVER
        self._share = share
        self._front = front
        self._connections = connections
        self._loop = loop
        self._ws = ServerProtocol(max_size=SYNC_MESSAGE_BYTES_MAX)
        self._session = Session()
        self._hub: SyncHub | None = None
        self._caller: CallerKey = NOBODY
        self._task: asyncio.Task[None] | None = None
        self._ended: asyncio.Future[None] = loop.create_future()
        self._texts: deque[bytes] = deque()
        self._fragments: list[bytes] = []
        self._lives: dict[int, LiveQuery] = {}
        self._queries: dict[int, Add] = {}
        self._ids: dict[LiveQuery, set[int]] = {}
        self._stale: set[LiveQuery] = set()
        self._changed: set[int] = set()
        self._mutations: deque[tuple[Call, CallerKey]] = deque()
        self._placing: Call | None = None
        self._mutating = 0
        self._actions = 0
        self._is_update_soon = False
        self._is_blocked = False
        self._is_parsing = False
        self._ends_at = NEVER
        self._heard_at = self._sent_at = self._blocked_at = loop.time()

    # -- the socket --------------------------------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        self._wire: asyncio.Transport = transport
        self._connections.add(self)
        self.deadline = self._loop.time() + SYNC_PING_SECONDS
        self._share.watch(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._share.forget(self)
        self._connections.discard(self)
        self.deadline = NEVER
        self._texts.clear()
        self._mutations.clear()
        if not self._ended.done():
            self._ended.set_result(None)

    def data_received(self, data: bytes) -> None:
        self._heard_at = self._loop.time()
        self._ws.receive_data(data)
        for event in self._ws.events_received():
            if isinstance(event, Request):
                self._open(event)
            elif isinstance(event, Frame):
                self._frame(event)
        self._flush()

    def eof_received(self) -> None:
        self._ws.receive_eof()
        self._flush()

    def pause_writing(self) -> None:
        self._is_blocked = True
        self._blocked_at = self._loop.time()
        with contextlib.suppress(RuntimeError):
            self._wire.pause_reading()

    def resume_writing(self) -> None:
        self._is_blocked = False
        if self._hub is not None or self._ws.state is not State.OPEN:
            self._read_on()
        self._update_soon()

    def expire(self) -> None:
        """Says that the connection is alive, or drops it where the client does not seem to be."""
        now = self._loop.time()
        self.deadline = now + SYNC_PING_SECONDS
        is_stalled = self._is_blocked and now - self._blocked_at > SYNC_STALL_SECONDS_MAX
        if is_stalled or now - self._heard_at > SYNC_SILENCE_SECONDS_MAX or now > self._ends_at:
            self._wire.abort()
            return
        if self._ws.state is State.OPEN and not self._is_blocked:
            self._ws.send_ping(b"")
            if now - self._sent_at >= SYNC_PING_SECONDS - 1:
                self._send(frames.PING)
            self._flush()

    def shutdown(self) -> None:
        """As `leave`; the library's name for it."""
        self.leave()

    def leave(self) -> None:
        """Ends the connection because its server or its deployment stops; the client connects again."""
        self._close(_RESTARTING, "ShuttingDown")

    # -- the handshake -----------------------------------------------------------------------------------------------

    def _open(self, request: Request) -> None:
        host = request.headers.get_all("Host")
        path = request.path.partition("?")[0]
        try:
            found = self._front.find(host[0].encode("latin-1") if len(host) == 1 else None, path)
            if not _PATH.fullmatch(found.path):
                raise ClientError("RouteNotFound", f"There is no WebSocket at {path[:100]}: it is /api/sync.")
        except ClientError as error:
            self._ws.send_response(self._ws.reject(error.spec.http_status, f"{error.code}: {error.message}\n"))
            return
        self._ws.send_response(self._ws.accept(request))
        if self._ws.state is State.OPEN:
            self._wire.pause_reading()
            self._task = self._loop.create_task(self._serve(found.hosted, found.endpoints))

    async def _serve(self, hosted: Any, endpoints: Any) -> None:
        """Keeps the deployment open for as long as the connection is."""
        try:
            async with hosted.using() as deployment:
                hub = hub_of(deployment, endpoints, self._loop)
                if hub.is_full:
                    raise SystemFault("TooManyConnections", "The deployment has too many connections. Try again soon.")
                self._hub = hub
                hub.connections.add(self)
                self._read_on()
                try:
                    self._take()
                    self._flush()
                    await self._ended
                finally:
                    hub.connections.discard(self)
                    self._forget_all(hub)
        except SkerryError as error:
            self._close_for(error)
        except Exception as error:
            _log.exception("a sync connection failed")
            self._close_for(SystemFault("InternalServerError", str(error)))

    def _read_on(self) -> None:
        if not self._is_blocked and not self._is_parsing:
            with contextlib.suppress(RuntimeError):
                self._wire.resume_reading()

    def _forget_all(self, hub: SyncHub) -> None:
        for live in self._ids:
            hub.reactor.forget(live, self)
        self._ids.clear()
        self._lives.clear()
        self._stale.clear()

    # -- what arrives ------------------------------------------------------------------------------------------------

    def _frame(self, frame: Frame) -> None:
        if self._ws.state is not State.OPEN:
            return
        if frame.opcode is Opcode.TEXT or (frame.opcode is Opcode.CONT and self._fragments):
            self._fragments.append(bytes(frame.data))
            if frame.fin:
                text, self._fragments = b"".join(self._fragments), []
                self._texts.append(text)
                self._take()
        elif frame.opcode is Opcode.BINARY:
            self._fail(ClientError("InvalidSyncMessage", "Messages are text, not binary."))

    def _take(self) -> None:
        """Does what the messages ask for that have come, once the deployment is open."""
        hub = self._hub
        while hub is not None and self._texts and not self._is_parsing and self._ws.state is State.OPEN:
            text = self._texts.popleft()
            try:
                if len(text) > JSON_WHOLE_BYTES_MAX:
                    hub.read_long(text, self._take_long)
                    self._is_parsing = True
                    self._wire.pause_reading()
                    break
                for step in self._session.receive(text):
                    self._do(hub, step)
            except SkerryError as error:
                self._fail(error)
        self._update_soon()

    def _take_long(self, message: Message | Exception) -> None:
        """A long message was parsed, and those behind it follow."""
        self._is_parsing = False
        self._read_on()
        hub = self._hub
        if hub is None or self._ended.done() or self._ws.state is not State.OPEN:
            return
        if isinstance(message, SkerryError):
            self._fail(message)
        elif isinstance(message, Exception):
            _log.error("a long message could not be read", exc_info=message)
            self._close_for(SystemFault("InternalServerError", str(message)))
        else:
            try:
                for step in self._session.take(message):
                    self._do(hub, step)
            except SkerryError as error:
                self._fail(error)
        self._take()
        self._flush()

    def _do(self, hub: SyncHub, step: Step) -> None:
        if self._ws.state is not State.OPEN:
            return
        if isinstance(step, Subscribe):
            self._queries[step.query.query_id] = step.query
            self._watch(hub, step.query)
        elif isinstance(step, Unsubscribe):
            self._unwatch(hub, step.query_id)
            del self._queries[step.query_id]
            self._changed.discard(step.query_id)
        elif isinstance(step, Identify):
            self._identify(hub, step.sent)
        else:
            self._run(hub, step.call)

    def _watch(self, hub: SyncHub, query: Add) -> None:
        live = hub.reactor.watch((query.path, query.args, self._caller), query.journal, self)
        self._lives[query.query_id] = live
        self._ids.setdefault(live, set()).add(query.query_id)
        if live.is_valid:
            self._changed.add(query.query_id)
        else:
            self._stale.add(live)

    def _unwatch(self, hub: SyncHub, query_id: int) -> None:
        live = self._lives.pop(query_id)
        ids = self._ids[live]
        ids.discard(query_id)
        if not ids:
            del self._ids[live]
            self._stale.discard(live)
            hub.reactor.forget(live, self)

    def _identify(self, hub: SyncHub, sent: Authenticate) -> None:
        try:
            caller = hub.identify(sent)
        except ClientError as error:
            self._send(self._session.refused_identity(sent, f"{error.code}: {error.message}"))
            self._close(_DONE, error.code)
            return
        if caller == self._caller:
            return
        self._caller = caller
        for query_id, query in self._queries.items():
            self._unwatch(hub, query_id)
            self._watch(hub, query)

    # -- calls -------------------------------------------------------------------------------------------------------

    def _run(self, hub: SyncHub, call: Call) -> None:
        if call.kind == "Mutation":
            if len(self._mutations) >= SYNC_MUTATIONS_WAITING_MAX:
                raise SystemFault("TooManyConcurrentMutations", "Too many mutations wait on one connection.")
            self._mutations.append((call, self._caller))
            self._mutate(hub)
            return
        if self._actions >= SYNC_ACTIONS_MAX:
            raise SystemFault("TooManyConcurrentRequests", "Too many actions run on one connection.")
        hub.act(call, self._caller, lambda outcome: self._action_done(call, outcome))
        self._actions += 1

    def _mutate(self, hub: SyncHub) -> None:
        """Begins the next mutation, once the one before has its place among all others."""
        if self._placing is not None or not self._mutations or self._mutating >= SYNC_MUTATIONS_AT_ONCE_MAX:
            return
        call, caller = self._mutations.popleft()
        assert self._session.session is not None
        self._placing = call
        self._mutating += 1
        placed, done = partial(self._placed, hub, call), partial(self._mutation_done, hub, call)
        hub.mutate(call, self._session.session, caller, placed, done)

    def _placed(self, hub: SyncHub, call: Call) -> None:
        """A mutation is committed, or has ended: the next one may begin. It raises nothing."""
        if self._placing is call:
            self._placing = None
        if self._ws.state is State.OPEN:
            try:
                self._mutate(hub)
            except SkerryError as error:
                self._fail(error)

    def _mutation_done(self, hub: SyncHub, call: Call, outcome: Outcome) -> None:
        self._mutating -= 1
        if self._ws.state is not State.OPEN:
            return
        covered_ts = 0
        if isinstance(outcome, tuple):
            covered_ts, parts = outcome
            self._send(frames.mutation_succeeded(call.request_id, covered_ts, parts))
        elif isinstance(outcome, CallResult):
            self._send(frames.mutation_failed(call.request_id, *self._failure(hub, outcome)))
        elif isinstance(outcome, ClientError):
            self._send(frames.mutation_failed(call.request_id, outcome.message, None, []))
        else:  # the client sends it again, and it takes effect once
            self._close_for(outcome)
            return
        self._session.answered(covered_ts)
        self._flush()
        self._update_soon()
        self._placed(hub, call)

    def _action_done(self, call: Call, outcome: CallResult | SkerryError) -> None:
        self._actions -= 1
        hub = self._hub
        if self._ws.state is not State.OPEN or hub is None:
            return
        if isinstance(outcome, SkerryError):
            self._send(frames.action_failed(call.request_id, outcome.message, None, []))
        elif outcome.ok:
            lines = [] if hub.redacted else outcome.log_lines
            self._send(frames.action_succeeded(call.request_id, outcome.value, lines))
        else:
            self._send(frames.action_failed(call.request_id, *self._failure(hub, outcome)))
        self._flush()

    def _failure(self, hub: SyncHub, outcome: CallResult) -> tuple[str, bytes | None, list[str]]:
        message = shown_message(outcome.error_message, hub.redacted)
        return message, outcome.error_data, [] if hub.redacted else outcome.log_lines

    # -- what the reactor tells --------------------------------------------------------------------------------------

    def stale(self, live: LiveQuery) -> None:
        """A query is being run again: nothing is sent before it is settled."""
        self._stale.add(live)

    def settled(self, live: LiveQuery) -> None:
        """A query is valid: the client can be brought to the newest state once all of its queries are."""
        self._stale.discard(live)
        if live.fault is not None:
            self._close_for(live.fault)
            return
        self._changed |= self._ids[live]
        self._update_soon()

    def reach(self, ts: int) -> None:
        """Brings the client to an older timestamp, while a query of its is not done at the newest one."""
        hub = self._hub
        if hub is None or not self._stale or self._is_blocked or self._ws.state is not State.OPEN:
            return
        if ts < self._session.floor_ts:
            return
        results = hub.reactor.results_at(ts, self._lives.items())
        frame = None if results is None else self._session.transition(ts, results)
        if frame is not None:
            self._send(frame)
            self._flush()

    def _update_soon(self) -> None:
        if not self._is_update_soon:
            self._is_update_soon = True
            self._loop.call_soon(self._update)

    def _update(self) -> None:
        """Brings the client to the newest state, where all of its queries are valid there."""
        self._is_update_soon = False
        hub = self._hub
        if hub is None or self._stale or self._is_blocked or self._ws.state is not State.OPEN:
            return
        if not self._changed and not self._session.owes_transition:
            return
        changed, self._changed = sorted(self._changed), set()
        results = [(query_id, self._lives[query_id].result or b"") for query_id in changed]
        frame = self._session.transition(hub.durable_ts, results)
        if frame is not None:
            self._send(frame)
            self._flush()

    # -- what leaves -------------------------------------------------------------------------------------------------

    def _send(self, frame: bytes) -> None:
        if self._ws.state is State.OPEN:
            self._ws.send_text(frame)

    def _flush(self) -> None:
        pieces = self._ws.data_to_send()
        if not pieces or self._wire.is_closing():
            return
        self._sent_at = self._loop.time()
        for piece in pieces:
            if piece:
                self._wire.write(piece)
            else:
                self._wire.close()
        if self._wire.get_write_buffer_size() > SYNC_UNSENT_BYTES_MAX:
            self._wire.abort()

    def _fail(self, error: SkerryError) -> None:
        """Ends a connection whose messages cannot be understood, or that asks for too much."""
        if isinstance(error, ClientError) and error.spec.http_status != 429:
            self._send(frames.fatal_error(error.message))
            self._close(_DONE, error.code)
        else:
            self._close_for(error)

    def _close_for(self, error: SkerryError) -> None:
        """Ends the connection for something that may be over when the client comes back."""
        self._close(_INTERNAL if error.code == "InternalServerError" else _TRY_AGAIN, error.code)

    def _close(self, code: int, reason: str) -> None:
        if self._ws.state is State.OPEN:
            self._ws.send_close(code, reason[:_REASON_BYTES_MAX])
            self._flush()
            self._ends_at = self._loop.time() + SYNC_PING_SECONDS
            self._texts.clear()
            self._mutations.clear()
            self._read_on()  # the client's own close
        elif self._ws.state is State.CONNECTING:
            self._wire.close()
