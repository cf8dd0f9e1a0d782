"""The target of sockets: whatever bytes come in whatever order, a connection answers or ends, and raises nothing."""

import asyncio
import logging
from base64 import b64encode
from functools import cache
from typing import Any

import orjson

from skerry.errors import ClientError, SystemFault
from skerry.functions.request import CallResult
from skerry.limits import JSON_WHOLE_BYTES_MAX, SYNC_PING_SECONDS
from tests.fuzz.draw import Draw
from tests.http.socket_world import Deployed, World

_ROUNDS_MAX = 40
_TURNS = 4
_MASK = b"\x37\xfa\x21\x3d"
_PATHS = ("/api/sync", "/api/1.48.0/sync", "/api/1.27.0/sync")
_TYPES = ("ModifyQuerySet", "ModifyQuerySet", "Mutation", "Action", "Authenticate", "Event")
_ODD_TYPES = ("Connect", "Ping", "")
_FIELDS = ("baseVersion", "newVersion", "queryId", "requestId", "udfPath", "args", "tokenType", "value", "journal")
_SAID = {"Transition", "TransitionChunk", "MutationResponse", "ActionResponse", "AuthError", "FatalError", "Ping"}
_CODES = {1000, 1002, 1007, 1009, 1011, 1012, 1013}


class _Faults(logging.Handler):
    """What is said in the log where nothing should be."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


@cache
def _loop() -> tuple[asyncio.AbstractEventLoop, _Faults]:
    loop, faults = asyncio.new_event_loop(), _Faults()
    loop.set_exception_handler(lambda _, context: faults.said.append(repr(context)))
    logging.getLogger("skerry").addHandler(faults)
    return loop, faults


def close_loop() -> None:
    """Ends what the target opened."""
    if _loop.cache_info().currsize:
        loop, faults = _loop()
        logging.getLogger("skerry").removeHandler(faults)
        loop.close()
        _loop.cache_clear()


def sockets(data: bytes) -> None:
    """A connection that is told anything: it says what the protocol knows, in order, and ends cleanly."""
    loop, faults = _loop()
    draw = Draw(data)
    world = _QuickWorld(loop, Deployed(), draw.pick(_PATHS))
    talk = _Talk()
    for _ in range(_ROUNDS_MAX):
        if draw.is_empty:
            break
        _round(world, talk, draw)
        for _ in range(draw.byte() % _TURNS):
            _turn(loop)
        _check(talk, world.heard())
    world.wire.is_full_after = None
    world.socket.resume_writing()
    for _ in range(4 * _TURNS):
        _turn(loop)
    _check(talk, world.heard())
    world.socket.connection_lost(None)
    for _ in range(2 * _TURNS):
        _turn(loop)
    for _, done in world.deployed.calls:  # whoever ran for it may still end
        done(CallResult(True, b"null", [], world.deployed.durable_ts))
    assert not faults.said, faults.said


class _QuickWorld(World):
    """With no more turns than a message takes."""

    def settle(self) -> None:
        for _ in range(2 * _TURNS):
            _turn(self.loop)


class _Talk:
    """What both sides have said. Shape: `sets` and `tokens` the versions that the client means to have."""

    def __init__(self) -> None:
        self.sets = self.tokens = self.request = self.query = 0
        self.version: Any = None
        self.is_over = False


def _round(world: World, talk: _Talk, draw: Draw) -> None:
    kind = draw.byte() % 16
    if kind < 2 and draw.byte() % 8:
        kind = 8
    if kind == 0:
        world.socket.data_received(draw.short_bytes())
    elif kind == 1:
        world.socket.data_received(_frame(draw.byte(), draw.short_bytes()))
    elif kind == 2:
        world.now += draw.byte() % (3 * SYNC_PING_SECONDS)
        world.socket.expire()
    elif kind in (3, 4):
        _end_a_call(world, draw)
    elif kind == 5:
        (world.socket.pause_writing if draw.byte() % 2 else world.socket.resume_writing)()
    elif kind == 6:
        _parse_those_aside(world)
    elif kind == 7:
        for told in world.deployed.on_drained if draw.byte() >= 250 else world.deployed.on_activated:
            told()
    else:
        text = _message(talk, draw)
        if draw.byte() == 255:
            text = text[:-1] + b" " * JSON_WHOLE_BYTES_MAX + text[-1:]
        cut = draw.byte() if draw.byte() % 4 == 0 else 0
        if cut:
            world.socket.data_received(_frame(0x01, text[:cut]) + _frame(0x80, text[cut:]))
        else:
            world.socket.data_received(_frame(0x81, text))


def _frame(first: int, payload: bytes) -> bytes:
    if len(payload) > 65535:
        length = b"\xff" + len(payload).to_bytes(8, "big")
    else:
        length = bytes((0x80 | len(payload),)) if len(payload) < 126 else b"\xfe" + len(payload).to_bytes(2, "big")
    mask = (_MASK * (len(payload) // 4 + 1))[: len(payload)]
    masked = (int.from_bytes(payload, "big") ^ int.from_bytes(mask, "big")).to_bytes(len(payload), "big")
    return bytes((first,)) + length + _MASK + masked


def _message(talk: _Talk, draw: Draw) -> bytes:
    """Mostly what a client may say next."""
    kind = draw.pick(_ODD_TYPES if draw.byte() >= 250 else _TYPES)
    fields: dict[str, Any] = {"type": kind}
    if kind == "ModifyQuerySet":
        changes = [_change(talk, draw) for _ in range(draw.byte() % 4)]
        fields |= {"baseVersion": talk.sets, "newVersion": talk.sets + 1, "modifications": changes}
        talk.sets += 1
    elif kind in ("Mutation", "Action"):
        fields |= {"requestId": talk.request, "udfPath": "m:f", "args": [{"n": draw.byte()}]}
        talk.request += draw.byte() % 2
    elif kind == "Authenticate":
        fields |= {"baseVersion": talk.tokens, "tokenType": draw.pick(("Admin", "None", "User")), "value": draw.text()}
        talk.tokens += 1
    elif kind == "Connect":
        fields |= {"sessionId": "2d2f0000-0000-4000-8000-000000000001", "maxObservedTimestamp": draw.text()}
    if draw.byte() % 64 == 63:
        fields[draw.pick(_FIELDS)] = draw.json()
    return orjson.dumps(fields) if draw.byte() < 250 else draw.json_text()


def _change(talk: _Talk, draw: Draw) -> Any:
    query_id = draw.byte() % 8
    if draw.byte() % 3 == 0:
        return {"type": "Remove", "queryId": query_id}
    if draw.byte() < 250:
        query_id = talk.query = talk.query + 1
    add = {"type": "Add", "queryId": query_id, "udfPath": draw.pick(("m:q", "m:r")), "args": [{"n": draw.byte() % 3}]}
    if draw.byte() % 4 == 0:
        add["journal"] = draw.text()
    return add if draw.byte() < 250 else draw.json()


def _end_a_call(world: World, draw: Draw) -> None:
    calls = world.deployed.calls
    if not calls:
        return
    request, done = calls.pop(draw.byte() % len(calls))
    how = draw.byte() % 8
    world.deployed.durable_ts += draw.byte() % 3
    ts = world.deployed.durable_ts
    if how == 0 and draw.byte() % 4 == 3:
        done(SystemFault("TooManyConcurrentRequests", "Later."))
    elif how == 1 and (request.kind == "action" or draw.byte() % 4 == 3):
        done(
            ClientError("BadJsonBody", "Not that.") if request.kind != "query" else SystemFault("StorageFailed", "No.")
        )
    elif how == 2:
        done(CallResult(False, b"", [draw.text()], ts, draw.text(), b"null" if draw.byte() % 2 else None))
    else:
        done(CallResult(True, orjson.dumps(draw.json()), [draw.text()], ts))


def _parse_those_aside(world: World) -> None:
    waiting, world.deployed.long = world.deployed.long, []
    for job, done in waiting:
        outcome: Any
        try:
            outcome = job()
        except Exception as error:
            outcome = error
        done(outcome)


def _turn(loop: asyncio.AbstractEventLoop) -> None:
    loop.call_soon(loop.stop)
    loop.run_forever()


def _check(talk: _Talk, heard: list[Any]) -> None:
    """What was said is what the protocol knows, in order, and nothing after the end."""
    for said in heard:
        assert not talk.is_over, "something is said after the end"
        if isinstance(said, tuple):
            _, code, _reason = said
            assert code in _CODES or 1000 <= code <= 4999
            talk.is_over = True
        else:
            assert said["type"] in _SAID, said
            if said["type"] == "Transition":
                zero = {"querySet": 0, "identity": 0, "ts": b64encode(bytes(8)).decode()}
                assert said["startVersion"] == (talk.version or zero)
                talk.version = said["endVersion"]


__all__ = ["close_loop", "sockets"]
