"""Calls that succeed or whose function fails: bodies, formats, headers, log lines, redaction."""

import json
from base64 import b64decode, b64encode
from pathlib import Path
from urllib.parse import urlencode

import pytest

from tests.http.serving import RunningServer, serve

ENCODED = {
    "bytes": {"$bytes": "AAH/"},
    "half": 0.5,
    "int": {"$integer": "AQAAAAAAIAA="},
    "nan": {"$float": "AAAAAAAA+H8="},
    "plain": [1, "a", None],
}
CLEAN = {"bytes": "AAH/", "half": 0.5, "int": "9007199254740993", "nan": "NaN", "plain": [1, "a", None]}
EXPORT = {**ENCODED, "int": 9007199254740993, "plain": [1.0, "a", None]}


def test_a_message_sent_is_listed(server: RunningServer) -> None:
    message = {"channel": "general", "author": "Ada", "body": "hello"}
    sent = server.call("mutation", "messages:send", message)
    assert sent["status"] == "success"
    listed = server.call("query", "messages:list", {"channel": "general"})
    assert [item["_id"] for item in listed["value"]] == [sent["value"]]
    assert {name: listed["value"][0][name] for name in message} == message


@pytest.mark.parametrize(
    "body",
    [
        {"path": "probe:echo", "args": {"a": 1}},
        {"path": "probe.js:echo", "args": [{"a": 1}]},
        {"path": "probe:echo", "args": {"a": 1}, "format": "convex_encoded_json", "unknown": [1]},
    ],
)
def test_forms_of_a_request(server: RunningServer, body: dict[str, object]) -> None:
    answer = server.ask("POST", "/api/query", json.dumps(body))
    assert answer.json() == {"status": "success", "value": {"a": 1}}
    assert answer.headers["content-type"] == "application/json"


def test_a_path_without_a_function_means_the_default_export(server: RunningServer) -> None:
    assert server.call("query", "probe")["value"] == "the default export"


def test_arguments_may_be_left_out(server: RunningServer) -> None:
    assert server.ask("POST", "/api/query", '{"path": "probe:echo"}').json()["value"] == {}


def test_a_query_by_get(server: RunningServer) -> None:
    asked = urlencode({"path": "probe:echo", "args": '{"a": {"$integer": "AQAAAAAAAAA="}}', "format": "json"})
    assert server.ask("GET", f"/api/query?{asked}").json() == {"status": "success", "value": {"a": "1"}}


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_the_content_type_does_not_matter(server: RunningServer, content_type: str) -> None:
    body = '{"path": "probe:echo", "args": {}}'
    assert server.ask("POST", "/api/query", body, {"Content-Type": content_type}).json()["status"] == "success"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("convex_encoded_json", ENCODED),
        ("convex_json", ENCODED),
        ("json", CLEAN),
        ("convex_clean_json", CLEAN),
        ("export_json", EXPORT),
        (None, CLEAN),
    ],
)
def test_formats(server: RunningServer, name: str | None, value: object) -> None:
    assert server.call("query", "probe:special", format=name)["value"] == value


@pytest.mark.parametrize(
    ("client", "value"),
    [
        ("npm-1.4.0", ENCODED),
        ("npm-1.4.1", CLEAN),
        ("npm-cli-1.4.0", ENCODED),
        ("python-0.4.9", ENCODED),
        ("python-0.5.0", CLEAN),
        ("npm-1.48.0", CLEAN),
        ("npm-1.48.0-alpha.1", CLEAN),
        ("rust-0.1.0", CLEAN),
    ],
)
def test_without_a_format_old_clients_get_encoded_json(server: RunningServer, client: str, value: object) -> None:
    answer = server.ask("POST", "/api/query", '{"path": "probe:special", "args": {}}', {"Convex-Client": client})
    assert answer.json()["value"] == value


def test_log_lines_come_along(server: RunningServer) -> None:
    answer = server.call("query", "probe:talk")
    assert answer == {"status": "success", "value": None, "logLines": ["[LOG] 'hello' 1", "[WARN] 'careful'"]}


def test_a_failure_names_its_request_and_its_line(server: RunningServer) -> None:
    headers = {"Convex-Request-Id": "00112233aabbccdd"}
    answer = server.ask("POST", "/api/query", '{"path": "probe:fail", "args": {}}', headers)
    failure = answer.json()
    assert answer.status == 200
    assert answer.headers["convex-request-id"] == "00112233aabbccdd"
    lines = failure["errorMessage"].split("\n")
    assert lines[:2] == ["[Request ID: 00112233aabbccdd] Server Error", "Uncaught Error: it broke"]
    assert "../convex/probe.ts:" in lines[2]
    assert failure == {"status": "error", "errorMessage": failure["errorMessage"], "logLines": ["[LOG] 'before'"]}


@pytest.mark.parametrize("name", ["", "x" * 65, "no spaces", "a/b"])
def test_a_malformed_request_id_is_replaced(server: RunningServer, name: str) -> None:
    made = server.ask("GET", "/version", headers={"Convex-Request-Id": name}).headers["convex-request-id"]
    assert len(made) == 16
    assert int(made, 16) >= 0


def test_a_request_id_of_64_characters_is_kept(server: RunningServer) -> None:
    name = "x" * 64
    assert server.ask("GET", "/version", headers={"Convex-Request-Id": name}).headers["convex-request-id"] == name


def test_error_data_is_written_in_the_format(server: RunningServer) -> None:
    encoded = server.call("query", "probe:refuse", format="convex_encoded_json")
    assert encoded["errorData"] == {"count": {"$integer": "BQAAAAAAAAA="}, "reason": "no"}
    assert server.call("query", "probe:refuse", format="json")["errorData"] == {"count": "5", "reason": "no"}


def test_null_is_error_data_too(server: RunningServer) -> None:
    answer = server.call("query", "probe:refuseNull")
    assert "errorData" in answer
    assert answer["errorData"] is None


def test_admins_may_call_internal_functions(server: RunningServer) -> None:
    for kind in ("query", "function"):
        assert server.call(kind, "probe:hidden", admin=True)["value"] == "seen by admins"


def test_an_admin_may_act_as_a_user(server: RunningServer) -> None:
    identity = b64encode(json.dumps({"subject": "u1", "issuer": "https://a"}).encode()).decode()
    headers = {"Authorization": f"convex prod:{server.admin_key}:{identity}"}
    body = '{"path": "probe:hidden", "args": {}}'
    assert server.ask("POST", "/api/query", body, headers).json()["value"] == "seen by admins"


def test_run_takes_the_function_from_the_address(server: RunningServer) -> None:
    answer = server.ask("POST", "/api/run/probe/echo", '{"args": {"a": {"$integer": "AQAAAAAAAAA="}}}')
    assert answer.json() == {"status": "success", "value": {"a": "1"}}
    assert server.ask("POST", "/api/run/messages/%6cist", '{"args": {"channel": "x"}}').json()["status"] == "success"


def test_a_batch_answers_in_order(server: RunningServer) -> None:
    queries = [{"path": "probe:echo", "args": {"n": n}} for n in range(3)] + [{"path": "probe:fail", "args": {}}]
    results = server.ask("POST", "/api/query_batch", json.dumps({"queries": queries})).json()["results"]
    assert [result.get("value") for result in results] == [{"n": 0}, {"n": 1}, {"n": 2}, None]
    assert results[3]["status"] == "error"


def test_a_query_at_a_timestamp_reads_what_was_then(server: RunningServer) -> None:
    def listed(**more: object) -> list[str]:
        fields = {"path": "messages:list", "args": {"channel": "past"}, **more}
        answer = server.ask("POST", "/api/query_at_ts" if more else "/api/query", json.dumps(fields))
        assert answer.status == 200, answer.body
        return [message["body"] for message in answer.json()["value"]]

    def send(body: str) -> str:
        server.call("mutation", "messages:send", {"channel": "past", "author": "Ada", "body": body})
        return server.ask("POST", "/api/query_ts").json()["ts"]

    first, second = send("one"), send("two")
    assert len(b64decode(first)) == 8
    assert listed(ts=first) == ["one"]
    assert listed(ts=second) == listed() == ["two", "one"]
    later = (int.from_bytes(b64decode(second), "little") + 10**18).to_bytes(8, "little")
    for ts, status, code in (
        (b64encode(later).decode(), 400, "TimestampInFuture"),
        ("", 400, "BadTimestamp"),
        ("AAAA", 400, "BadTimestamp"),
        (5, 400, "BadTimestamp"),
        (first + "!", 400, "BadTimestamp"),
    ):
        answer = server.ask("POST", "/api/query_at_ts", json.dumps({"path": "messages:list", "args": {}, "ts": ts}))
        assert (answer.status, answer.json()["code"]) == (status, code), ts
    fields = {"path": "messages:send", "args": {}, "ts": first}
    refused = server.ask("POST", "/api/query_at_ts", json.dumps(fields)).json()
    assert "defined as Mutation" in refused["errorMessage"]


def test_production_shows_callers_no_more_than_they_need(app_bundle: Path, tmp_path: Path) -> None:
    with serve(tmp_path / "data", "--production") as server:
        assert server.deploy(app_bundle.read_bytes()).status == 200
        headers = {"Convex-Request-Id": "0011223344556677"}
        answer = server.ask("POST", "/api/query", '{"path": "probe:fail", "args": {}}', headers).json()
        assert answer == {"status": "error", "errorMessage": "[Request ID: 0011223344556677] Server Error"}
        refused = server.call("query", "probe:refuse")
        assert refused["errorData"] == {"count": "5", "reason": "no"}
        assert "ConvexError" not in refused["errorMessage"]
        assert server.call("query", "probe:talk") == {"status": "success", "value": None}
