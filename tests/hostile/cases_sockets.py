"""Attacks on WebSockets: handshakes, frames, messages out of their order, floods, clients that do not read."""

import socket
from collections.abc import Callable
from typing import Any

from skerry import limits
from tests.hostile.case import Case, Outcome
from tests.hostile.ground import Ground
from tests.hostile.raw_socket import CONNECT, RawSocket, frame, outcome, said

WALL = "WebSockets"
_WHOLE = f"of a message must be a whole number from 0 to {2**32 - 1}."


def add(query_id: Any, path: Any = "alive:ping", args: Any = None, **more: Any) -> dict[str, Any]:
    return {"type": "Add", "queryId": query_id, "udfPath": path, "args": [args or {}], **more}


def change(*modifications: Any, base: Any = 0, new: Any = 1) -> dict[str, Any]:
    return {"type": "ModifyQuerySet", "baseVersion": base, "newVersion": new, "modifications": list(modifications)}


def call(kind: str, path: Any, args: Any = None, request_id: Any = 0, **more: Any) -> dict[str, Any]:
    return {"type": kind, "requestId": request_id, "udfPath": path, "args": [args or {}], **more}


def fatal(text: str, code: str = "InvalidSyncMessage") -> tuple[Any, ...]:
    return (("FatalError", text), (1000, code))


def shows(*results: Any, version: int = 1) -> tuple[Any, ...]:
    return (("Transition", version, *results),)


def fails(text: str) -> tuple[Any, ...]:
    return shows(text)


# -- handshakes ------------------------------------------------------------------------------------------------------

_HANDSHAKES: list[tuple[str, str, str, tuple[str, ...], int]] = [
    ("no key", "script", "/api/sync", ("Sec-WebSocket-Key:",), 400),
    ("a key that is no key", "script", "/api/sync", ("Sec-WebSocket-Key: AAAA",), 400),
    ("two keys", "script", "/api/sync", ("Sec-WebSocket-Key: AAECAwQFBgcICQoLDA0ODw==",) * 2, 400),
    ("an old version", "script", "/api/sync", ("Sec-WebSocket-Version: 8",), 400),
    ("a version of nobody", "script", "/api/sync", ("Sec-WebSocket-Version: 99999999999999999999",), 400),
    ("another path", "script", "/api/query", (), 404),
    ("a path of 65 letters", "script", f"/api/{'1' * 65}/sync", (), 404),
    ("dots for a version", "script", "/api/../sync", (), 101),
    ("a deployment of nobody", "nobody", "/api/sync", (), 404),
    ("a version of letters", "script", "/api/%F0%9F%98%80/sync", (), 101),
    ("a version of 19 digits", "script", f"/api/{'9' * 19}.{'9' * 19}.0/sync", (), 101),
    ("compression", "script", "/api/sync", ("Sec-WebSocket-Extensions: permessage-deflate",), 101),
    ("a subprotocol", "script", "/api/sync", ("Sec-WebSocket-Protocol: chat",), 101),
]


def _handshake(deployment: str, path: str, headers: tuple[str, ...]) -> Callable[[Ground], Outcome]:
    def run(ground: Ground) -> Outcome:
        with RawSocket(ground.server.url, deployment, path, *headers) as raw:
            assert "sec-websocket-extensions" not in raw.head.lower()
            assert "sec-websocket-protocol" not in raw.head.lower()
            return ("socket", raw.status)

    return run


# -- frames: bytes, and what is heard until the server closes --------------------------------------------------------

_PING = frame(0x89, b"x")
_HELLO = said(CONNECT, change())
_PIECE = b"a" * 1000

_FRAMES: list[tuple[str, bytes, tuple[Any, ...]]] = [
    ("no mask", b"\x81\x01x", ((1002, "a client's frames must be masked"),)),
    ("a mask of zeros", _HELLO + frame(0x81, b"{}", mask=bytes(4)), fatal("There is no message of the type 'None'.")),
    ("a compressed frame", frame(0xC1, b"x"), ((1002, "reserved bits or an unknown opcode"),)),
    ("a reserved bit", frame(0xA1, b"x"), ((1002, "reserved bits or an unknown opcode"),)),
    ("an opcode of nobody", frame(0x83, b"x"), ((1002, "reserved bits or an unknown opcode"),)),
    ("a control opcode of nobody", frame(0x8F, b"x"), ((1002, "reserved bits or an unknown opcode"),)),
    ("a ping in pieces", frame(0x09, b"x"), ((1002, "a control frame is short and in one piece"),)),
    ("a ping of 126 bytes", frame(0x89, b"x" * 126), ((1002, "a control frame is short and in one piece"),)),
    ("a continuation of nothing", frame(0x80, b"x"), ((1002, "frames of a message out of their order"),)),
    ("a text in a text", frame(0x01, b"x") + frame(0x81, b"x"), ((1002, "frames of a message out of their order"),)),
    ("a length past 63 bits", b"\x81\xff" + b"\xff" * 8 + b"\1\2\3\4", ((1009, "a message has 33554432 bytes at most"),)),
    ("a byte more than a message may have", b"\x81\xff" + (limits.SYNC_MESSAGE_BYTES_MAX + 1).to_bytes(8, "big"), ((1009, "a message has 33554432 bytes at most"),)),
    ("pieces of more than a message may have", frame(0x01, _PIECE) + b"\x00\xff" + (limits.SYNC_MESSAGE_BYTES_MAX - 999).to_bytes(8, "big"), ((1009, "a message has 33554432 bytes at most"),)),
    ("20,000 empty pieces", frame(0x01) + frame(0x00) * 20_000, ((1009, "a message comes in 16384 frames at most"),)),
    ("a message of bytes", frame(0x82, b"{}"), fatal("Messages are text, not binary.")),
    ("a close of one byte", frame(0x88, b"x"), ((1002, "a close code that nobody may send"),)),
    ("a close code of nobody", frame(0x88, b"\x03\xed"), ((1002, "a close code that nobody may send"),)),
    ("a close reason that is no text", frame(0x88, b"\x03\xe8\xff\xfe"), ((1007, "a close reason that is no UTF-8"),)),
    ("a close in a message", _HELLO + frame(0x01, b"x") + frame(0x88, b"\x03\xe8"), ((1000, ""),)),
    ("a close, and more", frame(0x88, b"\x03\xe8") + said(call("Mutation", "alive:put", {"n": 666})), ((1000, ""),)),
    ("a text that is no UTF-8", frame(0x81, b'{"type":"\xff"}'), fatal("Not valid JSON: ")),
    ("a text with half a surrogate", said(b'{"type":"\\ud800"}'), fatal("Not valid JSON: ")),
    ("nothing in a text", frame(0x81), fatal("Not valid JSON: ")),
    ("HTTP behind the handshake", b"GET /version HTTP/1.1\r\nHost: script.localhost\r\n\r\n", ((1002, "reserved bits or an unknown opcode"),)),
]  # fmt: skip


# -- messages: what is said, and what is heard until the last of it --------------------------------------------------

_BAD_FUNCTION = "Could not find public function for "

_BEFORE: list[tuple[str, Any, tuple[Any, ...]]] = [
    ("a query set before Connect", change(), fatal("The first message of a connection must be Connect.")),
    ("a mutation before Connect", call("Mutation", "alive:put", {"n": 666}), fatal("The first message of a connection must be Connect.")),
    ("no session", {**CONNECT, "sessionId": None}, fatal("The sessionId of a Connect message must be a UUID.")),
    ("a session that is none", {**CONNECT, "sessionId": "x" * 36}, fatal("The sessionId of a Connect message must be a UUID.")),
    ("a timestamp of 7 bytes", {**CONNECT, "maxObservedTimestamp": "AAAAAAAAAA=="}, fatal("A timestamp must be the base64 of eight bytes.")),
]  # fmt: skip

_MESSAGES: list[tuple[str, tuple[Any, ...], tuple[Any, ...]]] = [
    ("an array", ([],), fatal("A message must be an object.")),
    ("a number", (b"1",), fatal("A message must be an object.")),
    ("half an object", (b'{"type":"Connect"',), fatal("Not valid JSON: ")),
    ("a number past float64", (b'{"type":1e999}',), fatal("Not valid JSON: ")),
    ("100 levels", (b"[" * 100 + b"]" * 100,), fatal("")),
    ("no type", ({},), fatal("There is no message of the type 'None'.")),
    ("a type of nobody", ({"type": "Own"},), fatal("There is no message of the type 'Own'.")),
    ("a type that is a list", ({"type": ["Connect"]},), fatal("There is no message of the type ")),
    ("the server's type", ({"type": "Transition"},), fatal("There is no message of the type 'Transition'.")),
    ("a type of 1 MB", ({"type": "x" * 1_000_000},), fatal("There is no message of the type 'xxxxxxxxxx")),
    ("Connect twice", (CONNECT,), fatal("A connection begins with one Connect message.")),
    ("an event of anything", ({"type": "Event", "eventType": 7, "event": {"$": []}}, change()), shows()),
    ("a base version of another", (change(base=1, new=2),), fatal("BaseVersionMismatch: the query set is at version 0, the message builds on 1.", "BaseVersionMismatch")),
    ("a new version that skips one", (change(new=2),), fatal("BaseVersionMismatch: the query set is at version 0", "BaseVersionMismatch")),
    ("one base version twice", (change(), change()), fatal("BaseVersionMismatch: the query set is at version 1", "BaseVersionMismatch")),
    ("a token's base version of another", ({"type": "Authenticate", "baseVersion": 5, "tokenType": "None"},), fatal("BaseVersionMismatch: the identity is at version 0", "BaseVersionMismatch")),
    ("a version that is negative", (change(base=-1),), fatal(f"The baseVersion {_WHOLE}")),
    ("a version past 32 bits", (change(base=2**32),), fatal(f"The baseVersion {_WHOLE}")),
    ("a version that is a half", (change(base=0.5),), fatal(f"The baseVersion {_WHOLE}")),
    ("a version that is true", (change(base=True),), fatal(f"The baseVersion {_WHOLE}")),
    ("no modifications", ({"type": "ModifyQuerySet", "baseVersion": 0, "newVersion": 1},), fatal("A ModifyQuerySet message must have modifications.")),
    ("a modification of nobody", (change({"type": "Own"}),), fatal("A modification must be Add or Remove.")),
    ("a modification that is none", (change(None),), fatal("A modification must be an object.")),
    ("10,001 modifications", (change(*[{"type": "Remove", "queryId": 1}] * 10_001),), fatal("A ModifyQuerySet message has more than 10000 modifications.")),
    ("a query id twice", (change(add(1), add(1)),), fatal("The query id 1 is in use.")),
    ("a query id that is in use", (change(add(1)), change(add(1), base=1, new=2)), fatal("The query id 1 is in use.")),
    ("a query id past 32 bits", (change(add(2**32)),), fatal(f"The queryId {_WHOLE}")),
    ("the removal of nothing", (change({"type": "Remove", "queryId": 9}),), shows()),
    ("10,001 queries", (change(*[add(n) for n in range(10_000)]), change(add(10_000), base=1, new=2)), fatal("A connection can watch 10000 queries.", "TooManyQueries")),
    ("a path that is a number", (change(add(1, 7)),), fatal("A message must name its function in udfPath.")),
    ("a component", (change(add(1, componentPath="a")),), fatal("This deployment has no components: leave componentPath out.")),
    ("two arguments", (change({**add(1), "args": [{}, {}]}),), fatal("The args of a message must be an array with one object.")),
    ("arguments that are a text", (change({**add(1), "args": "x"}),), fatal("The args of a message must be an array with one object.")),
    ("a journal that is an object", (change(add(1, journal={})),), fatal("The journal of a query must be a string.")),
    ("a journal of nobody's", (change(add(1, "alive:rows", journal="x" * 1000)),), shows(0)),
    ("a watched mutation", (change(add(1, "alive:put", {"n": 666})),), fails("Trying to execute alive.js:put as Query, but it is defined as Mutation.")),
    ("a watched action", (change(add(1, "acts:timerForms")),), fails("Trying to execute ")),
    ("a watched internal function", (change(add(1, "alive:secret")),), fails(_BAD_FUNCTION)),
    ("a watched function of nobody", (change(add(1, "alive:none")),), fails(_BAD_FUNCTION)),
    ("a path to a file", (change(add(1, "../../etc/passwd:x")),), fails("'../../etc/passwd:x' is no function path.")),
    ("a path with a zero byte", (change(add(1, "alive:ping\0")),), fails("'alive:ping\\x00' is no function path.")),
    ("1,025 arguments", (change(add(1, "values:echo", {f"f{n}": n for n in range(1025)})),), fails("Object has too many fields (1025 > maximum number 1024)")),
    ("a forged $integer", (change(add(1, "values:echo", {"value": {"$integer": "AA=="}})),), fails("$integer must hold exactly 8 bytes, not 1.")),
    ("an own __proto__", (change(add(1, "values:echo", {"value": {"a": 1}, "__proto__": {"owned": 1}})),), shows({"a": 1})),
    ("a query as a mutation", (call("Mutation", "alive:ping"),), (("MutationResponse", "Trying to execute "),)),
    ("a mutation as an action", (call("Action", "alive:put", {"n": 666}),), (("ActionResponse", "Trying to execute "),)),
    ("an internal mutation", (call("Mutation", "alive:secret"),), (("MutationResponse", _BAD_FUNCTION),)),
    ("a request id that is a text", (call("Mutation", "alive:put", {"n": 666}, "0"),), fatal(f"The requestId {_WHOLE}")),
    ("a key of nobody's", ({"type": "Authenticate", "baseVersion": 0, "tokenType": "Admin", "value": "script|nothing"},), (("AuthError", "BadAdminKey: "), (1000, "BadAdminKey"))),
    ("a key that is no Unicode", (b'{"type":"Authenticate","baseVersion":0,"tokenType":"Admin","value":"\\ud800"}',), fatal("Not valid JSON: ")),
    ("a token of nobody's kind", ({"type": "Authenticate", "baseVersion": 0, "tokenType": "Root", "value": "x"},), fatal("The tokenType of an Authenticate message must be User, Admin or None.")),
    ("an identity that is a list", ({"type": "Authenticate", "baseVersion": 0, "tokenType": "Admin", "value": "x", "impersonating": []},), fatal("The impersonated identity must be an object.")),
]  # fmt: skip


def _talk(data: bytes, count: int) -> Callable[[Ground], Outcome]:
    def run(ground: Ground) -> Outcome:
        before = ground.call("script", "query", "alive:rows")
        with RawSocket(ground.server.url) as raw:
            raw.send(data)
            found = outcome(raw.answers(count))
        assert ground.call("script", "query", "alive:rows") == before, "something was written"
        return found

    return run


# -- floods and clients that do not do their part --------------------------------------------------------------------


def _query_sets(ground: Ground) -> Outcome:
    """As many changes of a query set as fit a pipe, while a neighbour is served."""
    n_changes, at_once = 100_000, 1000
    with RawSocket(ground.server.url) as raw:
        raw.send(said(CONNECT))
        version = 0
        for start in range(0, n_changes, at_once):
            piece = b"".join(
                frame(0x81, b'{"type":"ModifyQuerySet","baseVersion":%d,"newVersion":%d,"modifications":[]}' % (n, n + 1), mask=bytes(4))
                for n in range(start, start + at_once)
            )  # fmt: skip
            raw.send(piece)
            if start % 20_000 == 0:
                assert ground.call("neighbour", "query", "alive:ping") == ("value", "pong")
        while version < n_changes:
            (transition,) = raw.answers(1)
            version = transition["endVersion"]["querySet"]
        return ("socket", version)


def _pings(ground: Ground) -> Outcome:
    with RawSocket(ground.server.url) as raw:
        raw.send(frame(0x89, b"x") * 50_000 + frame(0x89, b"last"))
        pong = None
        while pong != ("pong", b"last"):
            (pong,) = raw.answers(1)
        return ("socket", "answered")


def _added_and_removed(ground: Ground) -> Outcome:
    """Queries that are gone before anybody can have run them."""
    n_changes = 5000
    with RawSocket(ground.server.url) as raw:
        messages = [change(add(n), {"type": "Remove", "queryId": n}, base=n, new=n + 1) for n in range(n_changes)]
        raw.send(said(CONNECT, *messages))
        version = 0
        while version < n_changes:
            (transition,) = raw.answers(1)
            version = transition["endVersion"]["querySet"]
        return ("socket", version)


def _half_closed(data: bytes) -> Callable[[Ground], Outcome]:
    def run(ground: Ground) -> Outcome:
        with RawSocket(ground.server.url) as raw:
            raw.send(data)
            raw.connection.shutdown(socket.SHUT_WR)
            while raw.hear() is not None:
                pass
            return ("socket", "closed")

    return run


_FLOODS: list[tuple[str, Callable[[Ground], Outcome], Outcome]] = [
    ("100,000 query sets", _query_sets, ("socket", 100_000)),
    ("50,000 pings", _pings, ("socket", "answered")),
    ("5,000 queries added and removed at once", _added_and_removed, ("socket", 5000)),
    ("half-closed at once", _half_closed(b""), ("socket", "closed")),
    ("half-closed in a frame", _half_closed(said(CONNECT)[:10]), ("socket", "closed")),
    ("half-closed in a message", _half_closed(said(CONNECT) + frame(0x01, b"{")), ("socket", "closed")),
    ("half-closed with a query to come", _half_closed(said(CONNECT, change(add(0)))), ("socket", "closed")),
]

CASES = [
    *(
        Case(f"socket: handshake: {name}", WALL, name, _handshake(deployment, path, headers), ("socket", status))
        for name, deployment, path, headers, status in _HANDSHAKES
    ),
    *(Case(f"socket: frame: {name}", WALL, name, _talk(data, 9), ("socket", *want)) for name, data, want in _FRAMES),
    *(
        Case(f"socket: {name}", WALL, name, _talk(said(message), len(want)), ("socket", *want))
        for name, message, want in _BEFORE
    ),
    *(
        Case(f"socket: {name}", WALL, name, _talk(said(CONNECT, *messages), len(want)), ("socket", *want))
        for name, messages, want in _MESSAGES
    ),
    *(Case(f"socket: {name}", WALL, name, run, want) for name, run, want in _FLOODS),
]
