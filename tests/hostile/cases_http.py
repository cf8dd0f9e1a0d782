"""Attacks on the wire and in requests: framing, heads, addresses, bodies, origins."""

import json
from typing import Any

from tests.hostile.case import Case, Outcome
from tests.hostile.cases_script import fails, value
from tests.hostile.ground import Ground, outcome_of

WALL = "requests"
ONE = "one deployment before another"
BODY = b'{"path":"alive:ping","args":{}}'
PONG = b'{"status":"success","value":"pong"}'
HIDDEN = (
    b"POST /api/mutation HTTP/1.1\r\nHost: neighbour.localhost\r\nContent-Length: 39\r\n\r\n"
    b'{"path":"alive:put","args":{"n": 66.6}}'
)


def head(*lines: bytes, start: bytes = b"POST /api/query HTTP/1.1", host: bytes = b"Host: script.localhost") -> bytes:
    return b"\r\n".join([start, *([host] if host else []), *lines, b"", b""])


def _wire(*pieces: bytes) -> Any:
    def run(ground: Ground) -> Outcome:
        before = ground.call("neighbour", "query", "alive:rows")
        statuses, answer = ground.wire(*pieces)
        assert ground.call("neighbour", "query", "alive:rows") == before, "a hidden request was run"
        return ("wire", statuses, answer.count(PONG))

    return run


def _length(body: bytes = BODY) -> bytes:
    return b"Content-Length: %d" % len(body)


# Nothing is kept of these, so their calls are under way when what follows is read; a kept answer would be written by then.
_ASKED_ONCE = b'{"path":"alive:ping","args":{"n":1}}'
_ASKED_ONCE_TOO = b'{"path":"alive:ping","args":{"n":2}}'
_CHUNKED = b"Transfer-Encoding: chunked"
_CHUNKS = b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)
_GET = b"GET /version HTTP/1.1"

_WIRE: list[tuple[str, tuple[bytes, ...], tuple[int, ...], int]] = [
    ("a length and chunks", (head(b"Content-Length: 5", _CHUNKED) + b"0\r\n\r\n" + HIDDEN,), (400,), 0),
    ("chunks and a length", (head(_CHUNKED, b"Content-Length: 5") + b"0\r\n\r\n" + HIDDEN,), (400,), 0),
    ("two lengths", (head(b"Content-Length: 5", _length()) + BODY,), (400,), 0),
    ("one length twice", (head(_length(), _length()) + BODY,), (400,), 0),
    ("a list of lengths", (head(b"Content-Length: 31, 31") + BODY,), (400,), 0),
    ("a negative length", (head(b"Content-Length: -1") + BODY,), (400,), 0),
    ("a length with a sign", (head(b"Content-Length: +31") + BODY,), (400,), 0),
    ("a length in hexadecimal", (head(b"Content-Length: 0x1f") + BODY,), (400,), 0),
    ("a length past 64 bits", (head(b"Content-Length: 99999999999999999999999") + BODY,), (400,), 0),
    ("a length with a space inside", (head(b"Content-Length: 3 1") + BODY,), (400,), 0),
    ("chunks of a mistyped coding", (head(b"Transfer-Encoding: xchunked") + _CHUNKS + HIDDEN,), (400,), 0),
    ("a coding after chunked", (head(b"Transfer-Encoding: chunked, identity") + _CHUNKS,), (400,), 0),
    ("chunked twice", (head(_CHUNKED, _CHUNKED) + _CHUNKS + HIDDEN,), (400,), 0),
    ("a space before the colon", (head(b"Transfer-Encoding : chunked", _length()) + BODY,), (400,), 0),
    ("a folded header", (head(b"X: a\r\n b", _length()) + BODY,), (400,), 0),
    ("a folded coding", (head(b"Transfer-Encoding:\r\n chunked") + _CHUNKS,), (400,), 0),
    ("lines that end with LF", (head(_length()).replace(b"\r\n", b"\n") + BODY,), (400,), 0),
    ("a lone CR in a header", (head(b"X: a\rContent-Length: 0", _length()) + BODY,), (400,), 0),
    ("a chunk's size in 0x", (head(_CHUNKED) + b"0x5\r\nhello\r\n0\r\n\r\n",), (400,), 0),
    ("a chunk of negative size", (head(_CHUNKED) + b"-5\r\nhello\r\n0\r\n\r\n",), (400,), 0),
    ("a chunk past 64 bits", (head(_CHUNKED) + b"fffffffffffffffff\r\nhello\r\n0\r\n\r\n",), (400,), 0),
    ("a chunk without its end", (head(_CHUNKED) + b"5\r\nhelloX\r\n0\r\n\r\n",), (400,), 0),
    ("a chunk's line that ends with LF", (head(_CHUNKED) + b"5\nhello\n0\n\n",), (400,), 0),
    ("trailers that frame", (head(_CHUNKED) + _CHUNKS[:-2] + b"Content-Length: 5\r\n\r\n",), (400,), 0),
    ("a zero byte in a header", (head(b"X: a\0b", _length()) + BODY,), (400,), 0),
    ("a zero byte in the path", (head(_length(), start=b"POST /api/query\0 HTTP/1.1") + BODY,), (400,), 0),
    ("a header without a name", (head(b": a", _length()) + BODY,), (400,), 0),
    ("a header's name with a space", (head(b"X Y: a", _length()) + BODY,), (400,), 0),
    ("a head without a colon", (head(b"nonsense", _length()) + BODY,), (400,), 0),
    ("no host: the default deployment's", (head(_length(), host=b"") + BODY,), (200,), 0),
    ("two hosts", (head(b"Host: neighbour.localhost", _length()) + BODY,), (400,), 0),
    ("two hosts in one", (head(_length(), host=b"Host: script.localhost, neighbour.localhost") + BODY,), (400,), 0),
    ("a user in the host", (head(_length(), host=b"Host: script@neighbour.localhost") + BODY,), (400,), 0),
    ("a path in the host", (head(_length(), host=b"Host: script.localhost/../neighbour") + BODY,), (400,), 0),
    ("a host of 4,000 labels", (head(_length(), host=b"Host: " + b"a." * 4000 + b"localhost") + BODY,), (400,), 0),
    ("a host in percent", (head(_length(), host=b"Host: %73cript.localhost") + BODY,), (400,), 0),
    ("a host of nobody", (head(_length(), host=b"Host: nobody.localhost") + BODY,), (404,), 0),
    ("HTTP/2 at once", (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",), (400,), 0),
    ("a line without a version", (b"GET /version\r\n\r\n",), (200,), 0),
    ("HTTP/9.9", (head(start=b"GET /version HTTP/9.9"),), (400,), 0),
    ("an upgrade to HTTP/2", (head(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQAAP__", start=_GET),), (200,), 0),
    ("an upgrade to a web socket", (head(b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Key: AAAA", b"Sec-WebSocket-Version: 13", start=b"GET /api/sync HTTP/1.1"),), (400,), 0),
    ("CONNECT", (head(start=b"CONNECT 127.0.0.1:22 HTTP/1.1"),), (400,), 0),
    ("TRACE", (head(b"Cookie: secret", start=b"TRACE /version HTTP/1.1"),), (405,), 0),
    ("OPTIONS of everything", (head(start=b"OPTIONS * HTTP/1.1"),), (404,), 0),
    ("a method in small letters", (head(_length(), start=b"post /api/query HTTP/1.1") + BODY,), (400,), 0),
    ("a method of nobody's", (head(_length(), start=b"OWN /api/query HTTP/1.1") + BODY,), (400,), 0),
    ("another host in the target", (head(_length(), start=b"POST http://nobody.localhost/api/query HTTP/1.1") + BODY,), (404,), 0),
    ("another scheme in the target", (head(start=b"GET file:///etc/passwd HTTP/1.1"),), (400,), 0),
    ("nonsense behind a request", (head(_length(_ASKED_ONCE)) + _ASKED_ONCE + b"\x16\x03\x01 nonsense\r\n\r\n",), (200,), 1),
    ("a head of 2,000 headers", (head(*[b"X-%d: y" % number for number in range(2000)], _length()) + BODY,), (200,), 1),
    ("1,000 requests at once", ((head(_length()) + BODY) * 999 + head(b"Connection: close", _length()) + BODY,), (200,) * 1000, 1000),
    ("a body shorter than said", (head(b"Content-Length: 500") + BODY,), (), 0),
    ("a body longer than said", (head(_length(_ASKED_ONCE_TOO)) + _ASKED_ONCE_TOO + b"x" * 100 + b"\r\n\r\n",), (200,), 1),
    ("dots in the path", (head(start=b"GET /api/run/../../host/deployments HTTP/1.1"),), (405,), 0),
    ("dots in percent", (head(start=b"GET /d/neighbour/%2e%2e/script/version HTTP/1.1"),), (404,), 0),
]  # fmt: skip


def _ask(method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Any:
    def run(ground: Ground) -> Outcome:
        return outcome_of(ground.server.ask(method, path, body, headers))

    return run


def _call(body: Any, headers: dict[str, str] | None = None, route: str = "/api/query") -> Any:
    def run(ground: Ground) -> Outcome:
        raw = body.encode() if isinstance(body, str) else body
        return outcome_of(ground.ask("script", "POST", route, raw, headers))

    return run


def refused(status: int, code: str, part: str) -> Outcome:
    return ("refused", status, code, part)


_ECHO = '{"path":"values:echo","args":{"value":%s}}'
_MANY = "The body: JSON text holds more than 2000000 values, or 500000 arrays and objects."
_BIG = 5_000_000
_BAD_JSON = "The body is not valid JSON"

_BODIES: list[tuple[str, Any, Outcome]] = [
    ("ten million lists", _ECHO % ("[" + "[]," * _BIG + "[]]"), refused(413, "RequestTooLarge", _MANY)),
    ("lists of sixty levels by the hundred thousand", _ECHO % ("[" + ("[" * 60 + "]" * 60 + ",") * 100_000 + "1]"), refused(413, "RequestTooLarge", _MANY)),
    ("five million texts", _ECHO % ("[" + '"[",' * _BIG + "1]"), refused(413, "RequestTooLarge", _MANY)),
    ("five million numbers", _ECHO % ("[" + "1," * _BIG + "1]"), refused(413, "RequestTooLarge", _MANY)),
    ("a text of commas and brackets", _ECHO % ('"' + "[,{" * _BIG + '"'), value("[,{" * _BIG)),
    ("a text of escapes", _ECHO % ('"' + '\\"' * 1_000_000 + '"'), value('"' * 1_000_000)),
    ("a byte order mark", b"\xef\xbb\xbf" + BODY, refused(400, "BadJsonBody", _BAD_JSON)),
    ("UTF-16", BODY.decode().encode("utf-16"), refused(400, "BadJsonBody", _BAD_JSON)),
    ("UTF-8 of too many bytes", b'{"path":"alive:ping\xc0\xaf","args":{}}', refused(400, "BadJsonBody", _BAD_JSON)),
    ("a zero byte behind", BODY + b"\0", refused(400, "BadJsonBody", _BAD_JSON)),
    ("a number past float64", _ECHO % "1e999", refused(400, "BadJsonBody", _BAD_JSON)),
    ("two paths", b'{"path":"alive:ping","path":"alive:secret","args":{}}', fails("Could not find public function for 'alive:secret'.")),
    ("an own __proto__", _ECHO % '{"__proto__":{"owned":1},"a":1}', value({"a": 1})),
    ("a name with a dollar", _ECHO % '{"$what":1}', fails("Field name $what starts with '$'")),
    ("a forged $integer", _ECHO % '{"$integer":"AA=="}', fails("$integer must hold exactly 8 bytes, not 1.")),
    ("an internal function", '{"path":"alive:secret","args":{}}', fails("Could not find public function for 'alive:secret'.")),
    ("a path to a file", '{"path":"../../etc/passwd:x","args":{}}', refused(400, "BadConvexFunctionIdentifier", "")),
    ("a path with a zero byte", '{"path":"alive:ping\\u0000","args":{}}', refused(400, "BadConvexFunctionIdentifier", "")),
    ("a path of look-alikes", '{"path":"\u0430live:ping","args":{}}', refused(400, "BadConvexFunctionIdentifier", "")),
    ("a path of 1 MiB", '{"path":"%s:x","args":{}}' % ("a" * (1 << 20)), refused(400, "BadConvexFunctionIdentifier", "")),
    ("a path into Object.prototype", '{"path":"__proto__:toString","args":{}}', fails("Could not find public function for '__proto__:toString'.")),
    ("1025 arguments", json.dumps({"path": "values:echo", "args": {f"f{i}": i for i in range(1025)}}), fails("Object has too many fields (1025 > maximum number 1024)")),
]  # fmt: skip

_ADDRESSES: list[tuple[str, str, str, str, Outcome]] = [
    (
        "the host's routes under a deployment",
        ONE,
        "GET",
        "/d/neighbour/host/deployments",
        refused(404, "RouteNotFound", ""),
    ),
    (
        "a deployment under a deployment",
        ONE,
        "POST",
        "/d/neighbour/d/script/api/query",
        refused(404, "RouteNotFound", ""),
    ),
    ("a deployment of no name", ONE, "POST", "/d//api/query", refused(404, "RouteNotFound", "")),
    ("a deployment by dots", ONE, "POST", "/d/../api/query", refused(404, "DeploymentNotFound", "")),
    ("a deployment in percent", ONE, "POST", "/d/%6eeighbour%2fapi/query", value("pong")),
    ("a deployment of nobody", ONE, "POST", "/d/nobody/api/query", refused(404, "DeploymentNotFound", "")),
    ("a deployment with a zero byte", ONE, "POST", "/d/neighbour%00/api/query", refused(404, "DeploymentNotFound", "")),
    (
        "a function by dots",
        WALL,
        "POST",
        "/d/script/api/run/../alive/ping",
        refused(400, "BadConvexFunctionIdentifier", ""),
    ),
    (
        "a function twice in percent",
        WALL,
        "POST",
        "/d/script/api/run/%252e%252e/ping",
        refused(400, "BadConvexFunctionIdentifier", ""),
    ),
    (
        "a function with a zero byte",
        WALL,
        "POST",
        "/d/script/api/run/alive/ping%00",
        refused(400, "BadConvexFunctionIdentifier", ""),
    ),
    ("metrics without a credential", "administration", "GET", "/metrics", refused(403, "BadDeployKey", "")),
    (
        "the host's deployments without a credential",
        "administration",
        "GET",
        "/host/deployments",
        refused(401, "BadHostCredential", ""),
    ),
]


def _origin(origin: str) -> Any:
    def run(ground: Ground) -> Outcome:
        answer = ground.ask("script", "POST", "/api/query", BODY, {"Origin": origin})
        kept = {name: text for name, text in answer.headers.items() if name.startswith("access-control")}
        return ("cors", answer.status, kept)

    return run


# No cookie and no other ambient right exists, so any origin may ask: what it may not have, it needs a key for.
_OPEN = {"access-control-allow-credentials": "true", "access-control-expose-headers": "convex-request-id"}
_ORIGINS = [("null", "null"), ("an address of 8 KiB", "http://" + "a" * 8192), ("no address", "<script>")]

CASES = [
    *(Case(f"wire: {name}", WALL, name, _wire(*pieces), ("wire", statuses, pongs)) for name, pieces, statuses, pongs in _WIRE),
    *(Case(f"body: {name}", WALL, name, _call(body), want) for name, body, want in _BODIES),
    *(Case(f"address: {name}", wall, path, _ask(method, path, BODY if method == "POST" else None), want) for name, wall, method, path, want in _ADDRESSES),
    *(
        Case(f"origin: {name}", WALL, origin[:40], _origin(origin), ("cors", 200, {**_OPEN, "access-control-allow-origin": origin}))
        for name, origin in _ORIGINS
    ),
]  # fmt: skip
