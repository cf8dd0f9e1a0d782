"""Live queries hear of what changes beside mutations: imports, new tables, other code and other schemas."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.http.apps import build, make_app
from tests.http.serving import RunningServer, serve
from tests.http.sync_client import SyncClient

CHANNEL = {"channel": "c"}


@pytest.fixture
def own(app_bundle: Path, tmp_path: Path) -> Iterator[RunningServer]:
    with serve(tmp_path / "data") as running:
        assert running.deploy(app_bundle.read_bytes()).status == 200
        yield running


def bodies(change: dict[str, Any]) -> list[str]:
    return sorted(message["body"] for message in change["value"])


def load(server: RunningServer, mode: str, *texts: str) -> None:
    raw = b"".join(orjson.dumps({**CHANNEL, "author": "Ada", "body": text}) + b"\n" for text in texts)
    path = f"/api/import?tableName=messages&mode={mode}&format=jsonLines"
    assert server.ask("POST", path, raw, server.admin_header()).json() == {"numWritten": len(texts)}


def test_an_import_shows_when_it_is_switched_in(own: RunningServer) -> None:
    with SyncClient(own) as client:
        live = client.watch("messages:list", CHANNEL)
        assert bodies(client.hear_of(live)) == []
        client.mutate(0, "messages:send", {**CHANNEL, "author": "Ada", "body": "sent"})
        assert bodies(client.hear_of(live)) == ["sent"]
        load(own, "append", "a", "b")
        assert bodies(client.hear_of(live)) == ["a", "b", "sent"]
        load(own, "replace", "only")
        assert bodies(client.hear_of(live)) == ["only"]
        client.mutate(1, "messages:send", {**CHANNEL, "author": "Ada", "body": "after"})
        assert bodies(client.hear_of(live)) == ["after", "only"], "it reads the table that is there now"


def test_a_table_shows_once_there_is_one(own: RunningServer) -> None:
    with SyncClient(own) as client:
        live = client.watch("probe:slowCount")
        assert client.hear_of(live)["value"] == 0
        client.mutate(0, "probe:slowWrite", {"rounds": 1})
        assert client.hear_of(live)["value"] == 1


def test_other_code_and_another_schema_show(own: RunningServer, tmp_path: Path) -> None:
    app = make_app(tmp_path / "app")
    source = app / "convex" / "messages.ts"
    source.write_text(source.read_text().replace('.order("desc")', '.order("asc")'))
    schema = app / "convex" / "schema.ts"
    schema.write_text(schema.read_text().replace(".index(", '.index("by_author", ["author"]).index(', 1))
    with SyncClient(own) as client:
        live = client.watch("messages:list", CHANNEL)
        assert bodies(client.hear_of(live)) == []
        for number, text in enumerate("ab"):
            client.mutate(number, "messages:send", {**CHANNEL, "author": "Ada", "body": text})
            change = client.hear_of(live)
        assert [message["body"] for message in change["value"]] == ["b", "a"]
        assert own.deploy(build(app, tmp_path / "other.skerry").read_bytes()).status == 200
        assert [message["body"] for message in client.hear_of(live)["value"]] == ["a", "b"]
        client.mutate(2, "messages:send", {**CHANNEL, "author": "Ada", "body": "c"})
        assert [message["body"] for message in client.hear_of(live)["value"]] == ["a", "b", "c"]
