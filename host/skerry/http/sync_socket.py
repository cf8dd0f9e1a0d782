"""A WebSocket connection that speaks the sync protocol.

`http.frames` takes frames apart, the protocol's rules are in `sync.session`; here is what connects them to a socket and
to a deployment: one task that keeps the deployment open, and callbacks.

A connection does `SYNC_FRAMES_PER_TURN_MAX` frames and `SYNC_STEPS_PER_TURN_MAX` steps of a message in one turn of the
loop, and reads nothing before it has done what it has read, so that a flood costs its sender time and its neighbours
none. A client that does not read costs what is in its socket's buffer: while that is full no transition is made, and
nothing more is read from it; afterwards it is brought to the newest state in one. One that takes nothing for
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

from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

from skerry.errors import ClientError, SkerryError, SystemFault
from skerry.functions.request import CallResult
from skerry.http.frames import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    FrameFault,
    FrameReader,
    Heard,
    close_payload,
    echoed_close,
)
from skerry.http.front import Front
from skerry.http.outbox import WRITE_BYTES, Outbox, takes_chunks, write_pieces
from skerry.http.port import NEVER, PortShare
from skerry.http.sync_client import DONE, RESTARTING, SyncClient
from skerry.http.sync_hub import SyncHub, hub_of
from skerry.http.turns import Ask
from skerry.limits import (
    JSON_WHOLE_BYTES_MAX,
    SYNC_ACTIONS_MAX,
    SYNC_FRAMES_PER_TURN_MAX,
    SYNC_MESSAGE_BYTES_MAX,
    SYNC_MESSAGE_FRAMES_MAX,
    SYNC_MUTATIONS_AT_ONCE_MAX,
    SYNC_MUTATIONS_WAITING_MAX,
    SYNC_PING_SECONDS,
    SYNC_SILENCE_SECONDS_MAX,
    SYNC_STALL_SECONDS_MAX,
    SYNC_STEPS_PER_TURN_MAX,
    SYNC_UNSENT_BYTES_MAX,
)
from skerry.sync import session as frames
from skerry.sync.live_query import LiveQuery
from skerry.sync.messages import Add, Call, Message
from skerry.sync.mutations import Outcome
from skerry.sync.session import Identify, Run, Step, Subscribe, Unsubscribe

_log: Final = logging.getLogger("skerry.sync")
_PATH: Final = re.compile(r"/api/(?:[^/]{1,64}/)?sync")
_TRY_AGAIN: Final = 1013
_INTERNAL: Final = 1011
_REASON_BYTES_MAX: Final = 123


class SyncSocket(asyncio.Protocol, SyncClient):
    """One connection. Shape: made where an HTTP connection asks for another protocol, with what it had read."""

    def __init__(self, share: PortShare, front: Front, connections: set[Any], loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self.deadline = NEVER
        self._share = share
        self._front = front
        self._connections = connections
        self._loop = loop
        self._handshake: ServerProtocol | None = ServerProtocol()
        self._reader = FrameReader(SYNC_MESSAGE_BYTES_MAX, SYNC_MESSAGE_FRAMES_MAX)
        self._outbox = Outbox()
        self._hub: SyncHub | None = None
        self._task: asyncio.Task[None] | None = None
        self._ended: asyncio.Future[None] = loop.create_future()
        self._steps: deque[Step] = deque()
        self._lives: dict[int, LiveQuery] = {}
        self._queries: dict[int, Add] = {}
        self._ids: dict[LiveQuery, set[int]] = {}
        self._stale: set[LiveQuery] = set()
        self._changed: set[int] = set()
        self._mutations: deque[tuple[Call, Ask]] = deque()
        self._placing: Call | None = None
        self._mutating = 0
        self._pong: bytes | None = None
        self._actions = 0
        self._is_deaf = False  # what arrives is thrown away
        self._is_update_soon = False
        self._is_hearing_soon = False
        self._is_blocked = False
        self._unsent = 0
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
        self._is_open = False
        self._is_deaf = True
        self._steps.clear()
        self._mutations.clear()
        if not self._ended.done():
            self._ended.set_result(None)

    def data_received(self, data: bytes) -> None:
        self._heard_at = self._loop.time()
        if self._handshake is not None:
            self._greet(self._handshake, data)
        elif not self._is_deaf:
            self._reader.feed(data)
            if not self._is_hearing_soon:
                self._hear()

    def pause_writing(self) -> None:
        self._is_blocked = True
        self._blocked_at = self._loop.time()
        self._unsent = self._wire.get_write_buffer_size()
        self._pause_reading()

    def resume_writing(self) -> None:
        self._is_blocked = False
        self._flush()
        self._hear_soon()
        self._update_soon()

    def expire(self) -> None:
        """Says that the connection is alive, or drops it where the client does not seem to be."""
        now = self._loop.time()
        self.deadline = now + SYNC_PING_SECONDS
        if self._is_blocked:
            unsent = self._wire.get_write_buffer_size()
            if unsent < self._unsent:  # slow, and not still
                self._unsent, self._blocked_at = unsent, now
        is_stalled = self._is_blocked and now - self._blocked_at > SYNC_STALL_SECONDS_MAX
        if is_stalled or now - self._heard_at > SYNC_SILENCE_SECONDS_MAX or now > self._ends_at:
            self._wire.abort()
            return
        if self._is_open and not self._is_blocked:
            self._outbox.put(PING, b"")
            if now - self._sent_at >= SYNC_PING_SECONDS - 1:
                self._send(frames.PING)
            self._flush()

    def shutdown(self) -> None:
        """As `leave`; the library's name for it."""
        self.leave()

    def leave(self) -> None:
        """Ends the connection because its server or its deployment stops; the client connects again."""
        self._close(RESTARTING, "ShuttingDown")

    # -- the handshake -----------------------------------------------------------------------------------------------

    def _greet(self, handshake: ServerProtocol, head: bytes) -> None:
        handshake.receive_data(head)
        for event in handshake.events_received():
            if isinstance(event, Request):
                self._open(handshake, event)
        for piece in handshake.data_to_send():
            if piece:
                self._wire.write(piece)
            else:
                self._wire.close()
        if self._is_open:
            self._handshake = None

    def _open(self, handshake: ServerProtocol, request: Request) -> None:
        host = request.headers.get_all("Host")
        path = request.path.partition("?")[0]
        try:
            found = self._front.find(host[0].encode("latin-1") if len(host) == 1 else None, path)
            if not _PATH.fullmatch(found.path):
                raise ClientError("RouteNotFound", f"There is no WebSocket at {path[:100]}: it is /api/sync.")
        except ClientError as error:
            refusal = handshake.reject(error.spec.http_status, f"{error.code}: {error.message}\n")
            handshake.send_response(refusal)
            return
        handshake.send_response(handshake.accept(request))
        if handshake.state is State.OPEN:
            self._is_open = True
            if takes_chunks(found.path):
                self._outbox.use_chunks()
            self._pause_reading()
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
                self._session.transitions = hub.updates.transitions
                try:
                    self._hear()
                    await self._ended
                finally:
                    hub.connections.discard(self)
                    self._forget_all(hub)
        except SkerryError as error:
            self._close_for(error)
        except Exception as error:
            _log.exception("a sync connection failed")
            self._close_for(SystemFault("InternalServerError", str(error)))

    def _forget_all(self, hub: SyncHub) -> None:
        for live in self._ids:
            hub.reactor.forget(live, self)
        self._ids.clear()
        self._lives.clear()
        self._stale.clear()
        self._changed.clear()

    # -- what arrives ------------------------------------------------------------------------------------------------

    @property
    def bytes_unheard(self) -> int:
        """What has arrived and was not looked at, or is no whole message yet."""
        return self._reader.bytes_held

    @property
    def _may_hear(self) -> bool:
        """Whether the next frame can be looked at: what was heard before it is done."""
        if not self._is_open:
            return not self._is_deaf
        return self._hub is not None and not (self._is_waiting or self._is_blocked or self._steps)

    def _hear(self) -> None:
        """Does what the next frames ask for, and reads on when there are none."""
        self._is_hearing_soon = False
        for _ in range(SYNC_FRAMES_PER_TURN_MAX):
            self._do_steps()
            if not self._may_hear:
                break
            try:
                heard = self._reader.next()
                if heard is None:
                    self._read_on()
                    break
                self._frame(heard)
            except FrameFault as fault:
                self._break(fault)
                break
        else:
            self._hear_soon()
        self._flush()

    def _hear_soon(self) -> None:
        """Goes on with what was read in the next turn of the loop; until then nothing more is read."""
        self._pause_reading()
        if not self._is_hearing_soon:
            self._is_hearing_soon = True
            self._loop.call_soon(self._hear)

    def _pause_reading(self) -> None:
        with contextlib.suppress(RuntimeError):
            self._wire.pause_reading()

    def _read_on(self) -> None:
        with contextlib.suppress(RuntimeError):
            self._wire.resume_reading()

    def _frame(self, heard: Heard) -> None:
        kind, data = heard
        if kind == CLOSE:
            self._close_heard(data)
        elif not self._is_open:
            pass
        elif kind == TEXT:
            self._take(data)
        elif kind == PING:
            self._pong = bytes(data)
        elif kind == BINARY:
            self._fail(ClientError("InvalidSyncMessage", "Messages are text, not binary."))

    def _take(self, text: bytes | bytearray) -> None:
        """Takes a message: its steps, or the wait for those of a long one."""
        hub = self._hub
        assert hub is not None, "frames are heard once the deployment is open"
        try:
            if len(text) > JSON_WHOLE_BYTES_MAX:
                hub.read_long(text, self._take_long)
                self._is_waiting = True
                self._pause_reading()
                return
            self._steps.extend(self._session.receive(bytes(text)))
        except SkerryError as error:
            self._fail(error)
        self._update_soon()

    def _take_long(self, message: Message | Exception) -> None:
        """A long message was parsed, and those behind it follow."""
        self._is_waiting = False
        if self._hub is not None and self._is_open:
            if isinstance(message, SkerryError):
                self._fail(message)
            elif isinstance(message, Exception):
                _log.error("a long message could not be read", exc_info=message)
                self._close_for(SystemFault("InternalServerError", str(message)))
            else:
                try:
                    self._steps.extend(self._session.take(message))
                except SkerryError as error:
                    self._fail(error)
                self._update_soon()
        self._hear()

    def _do_steps(self) -> None:
        """Does what a message asked for; a long list goes on in the next turn."""
        hub, steps = self._hub, self._steps
        if hub is None or not steps:
            return
        for _ in range(SYNC_STEPS_PER_TURN_MAX):
            try:
                self._do(hub, steps.popleft())
            except SkerryError as error:
                self._fail(error)
            if not steps:
                return
        self._hear_soon()

    def _do(self, hub: SyncHub, step: Step) -> None:
        if isinstance(step, Subscribe | Run) and self._has_expired(hub, self._caller):
            return
        if isinstance(step, Subscribe):
            self._queries[step.query.query_id] = step.query
            self._watch(hub, step.query, step.query.journal)
        elif isinstance(step, Unsubscribe):
            self._unwatch(hub, step.query_id)
            del self._queries[step.query_id]
            self._changed.discard(step.query_id)
        elif isinstance(step, Identify):
            self._identify(hub, step.sent)
        else:
            self._run(hub, step.call)

    def _watch(self, hub: SyncHub, query: Add, journal: str | None) -> None:
        live = hub.reactor.watch((query.path, query.args, self._caller.key), journal, self)
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

    def _watch_again(self, hub: SyncHub) -> None:
        for query_id, query in self._queries.items():
            journal = self._lives[query_id].journal  # the pages behind it begin where it ends
            self._unwatch(hub, query_id)
            self._watch(hub, query, journal)

    # -- calls -------------------------------------------------------------------------------------------------------

    def _run(self, hub: SyncHub, call: Call) -> None:
        if call.kind == "Mutation":
            if len(self._mutations) >= SYNC_MUTATIONS_WAITING_MAX:
                raise SystemFault("TooManyConcurrentMutations", "Too many mutations wait on one connection.")
            assert self._session.session is not None
            placed, done = partial(self._placed, hub, call), partial(self._mutation_done, hub, call)
            run = hub.mutation(call, self._session.session, self._caller, placed, done)
            self._mutations.append((call, run))
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
        if self._has_expired(hub, self._caller):
            return
        self._placing, run = self._mutations.popleft()
        self._mutating += 1
        hub.ask(run)

    def _placed(self, hub: SyncHub, call: Call) -> None:
        """A mutation is committed, or has ended: the next one may begin. It raises nothing."""
        if self._placing is call:
            self._placing = None
        if self._is_open:
            try:
                self._mutate(hub)
            except SkerryError as error:
                self._fail(error)

    def _mutation_done(self, hub: SyncHub, call: Call, outcome: Outcome) -> None:
        self._mutating -= 1
        if not self._is_open:
            return
        covered_ts = 0
        if isinstance(outcome, tuple):
            covered_ts, parts = outcome
            self._send(frames.mutation_succeeded(call.request_id, covered_ts, parts))
        elif isinstance(outcome, CallResult):
            self._send(frames.mutation_failed(call.request_id, *hub.failure(outcome)))
        elif isinstance(outcome, ClientError):
            self._send(frames.mutation_failed(call.request_id, outcome.message, None, []))
        else:  # the client sends it again, and it takes effect once
            self._close_for(outcome)
            return
        self._session.answered(covered_ts)
        self._update_soon()  # what waits leaves with it
        self._placed(hub, call)

    def _action_done(self, call: Call, outcome: CallResult | SkerryError) -> None:
        self._actions -= 1
        hub = self._hub
        if not self._is_open or hub is None:
            return
        if isinstance(outcome, SkerryError):
            self._send(frames.action_failed(call.request_id, outcome.message, None, []))
        elif outcome.ok:
            self._send(frames.action_succeeded(call.request_id, outcome.value, hub.log_lines(outcome)))
        else:
            self._send(frames.action_failed(call.request_id, *hub.failure(outcome)))
        self._flush()

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
        if hub is None or not self._stale or self._steps or self._is_blocked or not self._is_open:
            return
        if ts < self._session.floor_ts or self._session.is_undecided or self._has_expired(hub, self._caller):
            return
        results = hub.reactor.results_at(ts, self._lives.items())
        frame = None if results is None else self._session.transition(ts, results)
        if frame is not None:
            self._outbox.put(TEXT, frame, is_transition=True)
            self._flush()

    def moved(self, live: LiveQuery, other: LiveQuery) -> None:
        """A query has become the same as another one: that is watched under its ids."""
        ids = self._ids.pop(live)
        self._lives.update(dict.fromkeys(ids, other))
        self._ids.setdefault(other, set()).update(ids)
        self._stale.discard(live)
        (self.settled if other.is_valid else self.stale)(other)

    def _update_soon(self) -> None:
        hub = self._hub
        if hub is not None and not self._is_update_soon:
            self._is_update_soon = True
            hub.updates.ask(self)

    def update(self) -> None:
        """Sends what waits, and brings the client to the newest state where all of its queries are valid there."""
        self._is_update_soon = False
        hub = self._hub
        if hub is None or not self._is_open:
            return
        if not (self._stale or self._steps or self._is_blocked or self._session.is_undecided):
            changed = self._changed
            if (changed or self._session.owes_transition) and not self._has_expired(hub, self._caller):
                results = [(query_id, self._lives[query_id].result or b"") for query_id in sorted(changed)]
                changed.clear()
                frame = self._session.transition(hub.durable_ts, results)
                if frame is not None:
                    self._outbox.put(TEXT, frame, is_transition=True)
        self._flush()

    # -- what leaves -------------------------------------------------------------------------------------------------

    def _send(self, frame: bytes) -> None:
        if self._is_open:
            self._outbox.put(TEXT, frame)

    def _flush(self) -> None:
        """Writes what the socket takes."""
        wire, outbox = self._wire, self._outbox
        if self._pong is not None and self._is_open:
            outbox.put(PONG, self._pong)  # one for all pings that came together
            self._pong = None
        pieces: list[bytes] = []
        n_bytes = 0
        while not self._is_blocked and not wire.is_closing():
            frame = outbox.next()
            if frame is None:
                break
            pieces += frame
            n_bytes += len(frame[1])
            if n_bytes > WRITE_BYTES:
                write_pieces(wire, pieces)
                n_bytes = 0
            self._sent_at = self._loop.time()
        if pieces:
            write_pieces(wire, pieces)
        if wire.get_write_buffer_size() + outbox.bytes_held > SYNC_UNSENT_BYTES_MAX:
            wire.abort()

    def _fail(self, error: SkerryError) -> None:
        """Ends a connection whose messages cannot be understood, or that asks for too much."""
        if isinstance(error, ClientError) and error.spec.http_status != 429:
            self._send(frames.fatal_error(error.message))
            self._close(DONE, error.code)
        else:
            self._close_for(error)

    def _close_for(self, error: SkerryError) -> None:
        """Ends the connection for something that may be over when the client comes back."""
        self._close(_INTERNAL if error.code == "InternalServerError" else _TRY_AGAIN, error.code)

    def _close(self, code: int, reason: str) -> None:
        if not self._is_open:
            return
        self._outbox.put(CLOSE, close_payload(code, reason, _REASON_BYTES_MAX))
        self._is_open = False
        self._ends_at = self._loop.time() + SYNC_PING_SECONDS
        self._steps.clear()
        self._mutations.clear()
        self._flush()
        self._hear_soon()  # the client's own close

    def _close_heard(self, data: bytes | bytearray) -> None:
        """The client ends the connection, or agrees that it ends."""
        if self._is_open:
            self._outbox.put(CLOSE, echoed_close(data))
            self._is_open = False
        self._is_deaf = True
        self._flush()
        self._wire.close()

    def _break(self, fault: FrameFault) -> None:
        """Ends a connection whose frames cannot be told apart; what else comes is thrown away until it ends."""
        self._close(fault.code, fault.reason)
        self._is_deaf = True
        if not self._wire.is_closing() and self._wire.can_write_eof():
            self._wire.write_eof()
        self._read_on()
