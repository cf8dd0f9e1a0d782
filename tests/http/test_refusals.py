"""Every kind of bad input: its status, its stable code, a sentence; and the server serves on."""

import json
import socket
from base64 import b64encode
from typing import Any
from urllib.parse import urlsplit

import pytest

from skerry.limits import (
    HTTP_BATCH_QUERIES_MAX,
    HTTP_BODY_BYTES_MAX,
    HTTP_BODY_NESTING_MAX,
    HTTP_ECHO_BYTES_MAX,
    HTTP_HEAD_BYTES_MAX,
    HTTP_QUERY_STRING_BYTES_MAX,
    IDENTITY_JSON_BYTES_MAX,
    VALUE_NESTING_MAX,
)
from tests.http.serving import RunningServer

OK = '{"path": "probe:echo", "args": {}}'


def nested(depth: int) -> str:
    """A request whose deepest bracket is `depth` deep."""
    inner = depth - 2
    return '{"path": "probe:echo", "args": {"a": ' + "[" * inner + "]" * inner + "}}"


BAD_BODIES: list[tuple[str, str | bytes, int, str]] = [
    ("empty", "", 400, "BadJsonBody"),
    ("truncated", OK[:-3], 400, "BadJsonBody"),
    ("not JSON", "path=probe:echo", 400, "BadJsonBody"),
    ("not UTF-8", b'{"path": "\xff", "args": {}}', 400, "BadJsonBody"),
    ("half a surrogate pair", r'{"path": "probe:echo", "args": {"a": "\ud800"}}', 400, "BadJsonBody"),
    ("NaN", '{"path": "probe:echo", "args": {"a": NaN}}', 400, "BadJsonBody"),
    ("two objects", OK + OK, 400, "BadJsonBody"),
    ("an array", "[]", 400, "BadJsonBody"),
    ("null", "null", 400, "BadJsonBody"),
    ("no path", '{"args": {}}', 400, "BadJsonBody"),
    ("path of a wrong type", '{"path": 1, "args": {}}', 400, "BadJsonBody"),
    ("args null", '{"path": "probe:echo", "args": null}', 400, "BadJsonBody"),
    ("args a string", '{"path": "probe:echo", "args": "{}"}', 400, "BadJsonBody"),
    ("no positional argument", '{"path": "probe:echo", "args": []}', 400, "BadJsonBody"),
    ("two positional arguments", '{"path": "probe:echo", "args": [{}, {}]}', 400, "BadJsonBody"),
    ("a positional number", '{"path": "probe:echo", "args": [1]}', 400, "BadJsonBody"),
    ("unknown format", '{"path": "probe:echo", "args": {}, "format": "xml"}', 400, "BadFormat"),
    ("format of a wrong type", '{"path": "probe:echo", "args": {}, "format": 1}', 400, "BadFormat"),
    ("too deep", nested(HTTP_BODY_NESTING_MAX + 1), 400, "RequestTooDeep"),
    ("far too deep", "[" * 100_000, 400, "RequestTooDeep"),
    ("no function path", '{"path": "a:b:c", "args": {}}', 400, "BadConvexFunctionIdentifier"),
    ("an empty path", '{"path": "", "args": {}}', 400, "BadConvexFunctionIdentifier"),
]


@pytest.mark.parametrize(
    ("body", "status", "code"), [row[1:] for row in BAD_BODIES], ids=[row[0] for row in BAD_BODIES]
)
@pytest.mark.parametrize("route", ["/api/query", "/api/mutation"])
def test_bad_body(server: RunningServer, route: str, body: str | bytes, status: int, code: str) -> None:
    assert server.ask("POST", route, body).refusal() == (status, code)


def test_the_deepest_value_is_taken(server: RunningServer) -> None:
    answer = server.ask("POST", "/api/query", nested(VALUE_NESTING_MAX + 1)).json()
    assert answer["status"] == "success"


def test_a_body_at_the_bound_is_read_and_one_past_it_is_not(server: RunningServer) -> None:
    padding = HTTP_BODY_BYTES_MAX - len(OK)
    assert server.ask("POST", "/api/query", OK + " " * padding).json()["status"] == "success"
    assert server.ask("POST", "/api/query", OK + " " * (padding + 1)).refusal() == (413, "RequestTooLarge")


def test_the_bound_holds_without_a_stated_length(server: RunningServer) -> None:
    pieces = iter([OK.encode(), *[b" " * (1 << 20)] * (1 + HTTP_BODY_BYTES_MAX // (1 << 20))])
    # An iterator has no length, so http.client sends chunks.
    assert server.ask("POST", "/api/query", pieces).refusal() == (413, "RequestTooLarge")


@pytest.mark.parametrize(
    ("kind", "path", "args", "message"),
    [
        ("query", "probe:nope", {}, "Could not find public function for 'probe:nope'."),
        ("query", "nope:nope", {}, "Could not find public function for 'nope:nope'."),
        ("query", "probe:hidden", {}, "Could not find public function for 'probe:hidden'."),
        ("mutation", "probe:echo", {}, "Trying to execute probe.js:echo as Mutation, but it is defined as Query."),
        ("query", "messages:send", {}, "Trying to execute messages.js:send as Query, but it is defined as Mutation."),
        ("query", "probe:greet", {}, "ArgumentValidationError: "),
        ("query", "probe:greet", {"user": {"name": 1}}, "Path: .user.name"),
        ("query", "probe:echo", {"a": {"$integer": "AA=="}}, "$integer"),
        ("query", "probe:echo", {"a": {"$what": 1}}, "$what"),
        ("query", "probe:notAValue", {}, "is not a supported Convex type"),
    ],
)
def test_bad_call(server: RunningServer, kind: str, path: str, args: Any, message: str) -> None:
    answer = server.call(kind, path, args)
    assert answer["status"] == "error"
    assert message in answer["errorMessage"]
    assert answer["errorMessage"].startswith("[Request ID: ")


def test_an_admin_is_told_how_to_get_a_missing_function(server: RunningServer) -> None:
    message = server.call("function", "probe:nope", admin=True)["errorMessage"]
    assert "Could not find function for 'probe:nope'. Did you forget to run `npx convex dev`" in message


def encoded(data: object) -> str:
    return b64encode(json.dumps(data).encode()).decode()


UNKNOWN = "eyJhbGciOiJSUzI1NiIsImtpZCI6IjAifQ.eyJpc3MiOiJodHRwczovL2EuZXhhbXBsZS5jb20iLCJzdWIiOiJhIn0.AAAA"


@pytest.mark.parametrize(
    ("header", "status", "code"),
    [
        ("short", 400, "InvalidHeaderFailure"),
        ("Basic YTpi", 400, "InvalidAdminKey"),
        ("Convex ", 401, "BadAdminKey"),
        ("Convex local|wrong", 401, "BadAdminKey"),
        ("Convex KEYx", 401, "BadAdminKey"),
        ("Convex KEY:?", 400, "HeaderParseFailure"),
        ("Convex KEY:" + encoded([1]), 400, "HeaderParseFailure"),
        ("Convex KEY:" + encoded({"a": "x" * IDENTITY_JSON_BYTES_MAX}), 400, "HeaderParseFailure"),
        ("Bearer " + UNKNOWN, 401, "NoAuthProvider"),
        ("bearer " + UNKNOWN, 401, "NoAuthProvider"),
        ("Bearer a.b.c", 401, "InvalidAuthHeader"),
        ("Bearer nonsense", 401, "InvalidAuthHeader"),
        ("Bearer a..c", 401, "InvalidAuthHeader"),
    ],
)
def test_bad_credentials(server: RunningServer, header: str, status: int, code: str) -> None:
    headers = {"Authorization": header.replace("KEY", server.admin_key)}
    assert server.ask("POST", "/api/query", OK, headers).refusal() == (status, code)


@pytest.mark.parametrize("client", ["npm", "npm-1", "npm-1.2", "1.2.3", "npm-1.2.x", "", "npm-1.2.3-" + "x" * 100])
def test_bad_client_header(server: RunningServer, client: str) -> None:
    assert server.ask("POST", "/api/query", OK, {"Convex-Client": client}).refusal() == (400, "InvalidVersion")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nope", 404, "RouteNotFound"),
        ("POST", "/api/nope", 404, "RouteNotFound"),
        ("POST", "/api/query/", 404, "RouteNotFound"),
        ("GET", "/api/mutation", 405, "MethodNotAllowed"),
        ("DELETE", "/api/query", 405, "MethodNotAllowed"),
        ("POST", "/version", 405, "MethodNotAllowed"),
        ("POST", "/api/query_at_ts", 400, "BadTimestamp"),
        ("POST", "/api/function", 401, "BadAdminKey"),
        ("GET", "/metrics", 403, "BadDeployKey"),
        ("GET", "/api/check_admin_key", 403, "BadDeployKey"),
        ("GET", "/api/skerry/functions", 403, "BadDeployKey"),
        ("POST", "/api/skerry/deploy", 403, "BadDeployKey"),
        ("POST", "/api/run/probe", 400, "MissingIdentifier"),
        ("POST", "/api/run//echo", 400, "MissingIdentifier"),
        ("GET", "/api/query", 400, "BadJsonBody"),
        ("GET", "/api/query?path=probe:echo&args=%7B", 400, "BadJsonBody"),
        ("GET", "/api/query?path=probe:echo&args=" + "%5B" * (HTTP_BODY_NESTING_MAX + 1), 400, "RequestTooDeep"),
        ("GET", "/api/query?" + "x" * (HTTP_QUERY_STRING_BYTES_MAX + 1), 413, "RequestTooLarge"),
    ],
)
def test_bad_route(server: RunningServer, method: str, path: str, status: int, code: str) -> None:
    assert server.ask(method, path, OK if method == "POST" else None).refusal() == (status, code)


def test_a_wrong_method_is_told_the_right_ones(server: RunningServer) -> None:
    assert server.ask("PUT", "/api/query").headers["allow"] == "GET, POST"
    assert sorted(server.ask("PUT", "/version").headers["allow"].split(", ")) == ["GET", "HEAD"]


def test_a_query_string_at_the_bound_is_read(server: RunningServer) -> None:
    start = "path=probe:echo&args=%7B%7D&x="
    answer = server.ask("GET", f"/api/query?{start}" + "x" * (HTTP_QUERY_STRING_BYTES_MAX - len(start)))
    assert answer.json()["status"] == "success"


def test_a_component_path_is_refused(server: RunningServer) -> None:
    body = '{"path": "probe:echo", "args": {}, "componentPath": "billing"}'
    assert server.ask("POST", "/api/function", body, server.admin_header()).refusal() == (400, "InvalidComponentPath")


@pytest.mark.parametrize("path", ["/metrics", "/api/check_admin_key", "/api/skerry/functions"])
def test_a_wrong_key_on_the_routes_of_operators(server: RunningServer, path: str) -> None:
    assert server.ask("GET", path, headers={"Authorization": "Convex local|no"}).refusal() == (403, "BadDeployKey")
    assert server.ask("GET", path, headers=server.admin_header()).status == 200


@pytest.mark.parametrize(
    ("queries", "status", "code"),
    [
        (None, 400, "BadJsonBody"),
        ([1], 400, "BadJsonBody"),
        ([{"args": {}}], 400, "BadJsonBody"),
        ([{"path": "probe:echo", "format": "xml"}], 400, "BadFormat"),
        ([{"path": "probe:echo"}] * (HTTP_BATCH_QUERIES_MAX + 1), 413, "RequestTooLarge"),
    ],
)
def test_bad_batch(server: RunningServer, queries: object, status: int, code: str) -> None:
    assert server.ask("POST", "/api/query_batch", json.dumps({"queries": queries})).refusal() == (status, code)


def test_a_batch_at_the_bound_is_answered(server: RunningServer) -> None:
    queries = [{"path": "probe:echo"}] * HTTP_BATCH_QUERIES_MAX
    results = server.ask("POST", "/api/query_batch", json.dumps({"queries": queries})).json()["results"]
    assert len(results) == HTTP_BATCH_QUERIES_MAX


def test_echo_has_a_bound(server: RunningServer) -> None:
    body = b"x" * HTTP_ECHO_BYTES_MAX
    assert server.ask("POST", "/echo", body).body == body
    assert server.ask("POST", "/echo", body + b"x").refusal() == (413, "RequestTooLarge")


def raw_exchange(server: RunningServer, *pieces: bytes) -> bytes:
    """What comes back for bytes on the wire, until the server closes."""
    parts = urlsplit(server.url)
    with socket.create_connection((parts.hostname, parts.port), timeout=60) as connection:
        answer = b""
        try:
            for piece in pieces:
                connection.sendall(piece)
            connection.shutdown(socket.SHUT_WR)
            while piece := connection.recv(65536):
                answer += piece
        except (ConnectionResetError, BrokenPipeError):
            pass
        return answer


def test_what_is_no_http_is_refused(server: RunningServer) -> None:
    assert raw_exchange(server, b"\x16\x03\x01 hello\r\n\r\n").startswith(b"HTTP/1.1 400")


def test_an_endless_head_ends_with_its_connection(server: RunningServer) -> None:
    start = b"GET /version HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX: "
    assert raw_exchange(server, start + b"x" * (HTTP_HEAD_BYTES_MAX // 2) + b"\r\n\r\n").startswith(b"HTTP/1.1 200")
    assert raw_exchange(server, start, *[b"x" * 65536] * 64) == b""


def test_a_client_that_leaves_mid_request_hurts_nobody(server: RunningServer) -> None:
    head = b"POST /api/mutation HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n"
    assert raw_exchange(server, head + b'{"path": "mess') == b""
    assert server.ask("GET", "/health").json() == {"status": "ok"}
