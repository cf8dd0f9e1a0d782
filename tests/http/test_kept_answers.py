"""Answers of queries that are kept, over HTTP and over sockets: the same bytes, as soon as it changes other ones."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.http.serving import RunningServer, serve
from tests.http.sync_client import SyncClient

CHANNEL = {"channel": "kept"}
CLIENT = {"Content-Type": "application/json"}


@pytest.fixture
def kept_server(app_bundle: Path, tmp_path: Path) -> Iterator[RunningServer]:
    with serve(tmp_path / "data") as server:
        assert server.deploy(app_bundle.read_bytes()).status == 200
        yield server


def ask(server: RunningServer, path: str, args: object, **fields: object) -> bytes:
    answer = server.ask("POST", "/api/query", json.dumps({"path": path, "args": args, **fields}).encode(), CLIENT)
    assert answer.status == 200
    return answer.body


def test_a_kept_answer_is_the_same_in_each_format_and_counts_as_a_call(kept_server: RunningServer) -> None:
    server = kept_server
    hits = server.metric("skerry_query_cache_hits_total")
    for form in ("json", "convex_encoded_json", "export_json"):
        first, *rest = [ask(server, "probe:special", {}, format=form) for _ in range(4)]
        assert rest == [first] * 3
    assert (
        json.loads(ask(server, "probe:talk", {}))["logLines"] == json.loads(ask(server, "probe:talk", {}))["logLines"]
    )
    assert len(json.loads(ask(server, "probe:talk", {}))["logLines"]) == 2
    assert server.metric("skerry_query_cache_hits_total") - hits == 12 - 2 + 3 - 2
    assert server.metric("skerry_query_cache_entries") == 2 and server.metric("skerry_query_cache_bytes") > 0
    assert server.metric('skerry_calls_total{kind="query",outcome="success"}') >= 15
    assert server.metric('skerry_deployment_calls_total{deployment="local"}') >= 15


def test_whoever_wrote_reads_what_was_written(kept_server: RunningServer) -> None:
    server = kept_server
    for number in range(10):
        server.call("mutation", "messages:send", {**CHANNEL, "author": "Ada", "body": str(number)})
        for _ in range(3):
            shown = json.loads(ask(server, "messages:list", CHANNEL))["value"]
            assert [message["body"] for message in shown] == [str(n) for n in range(number, -1, -1)]


def test_a_live_query_is_told_what_is_kept_and_hears_of_changes(kept_server: RunningServer) -> None:
    server = kept_server
    for _ in range(3):
        ask(server, "messages:list", CHANNEL)
    misses = server.metric("skerry_query_cache_misses_total")
    with SyncClient(server) as client:
        live = client.watch("messages:list", CHANNEL)
        assert client.hear_of(live)["value"] == []
        assert server.metric("skerry_query_cache_misses_total") == misses
        client.mutate(0, "messages:send", {**CHANNEL, "author": "Ada", "body": "new"})
        assert [message["body"] for message in client.hear_of(live)["value"]] == ["new"]
