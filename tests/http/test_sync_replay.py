"""Mutations that a client sends again take effect once, and only their own caller hears what they came to."""

import time
from base64 import b64decode
from pathlib import Path
from threading import Event

import pytest
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from tests.http.serving import RunningServer, serve
from tests.http.sync_client import SECONDS_MAX, SyncClient

KILLING = Path(__file__).parent / "killing"
SLOW_ROUNDS = 30_000_000
MESSAGE = {"channel": "replay", "author": "Ada", "body": "once"}


def bodies(server: RunningServer, channel: str) -> list[str]:
    return [message["body"] for message in server.call("query", "messages:list", {"channel": channel})["value"]]


def connect_again(server: RunningServer, session: str) -> SyncClient:
    """As soon as there is a worker again."""
    nothing, until = Event(), time.monotonic() + SECONDS_MAX
    while True:
        try:
            return SyncClient(server, session)
        except (OSError, InvalidHandshake, ConnectionClosed, EOFError):
            assert time.monotonic() < until
            nothing.wait(0.02)


def test_a_worker_killed_between_commit_and_answer(
    app_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path / "mark"
    monkeypatch.setenv("KILLED_ONCE", str(mark))
    with serve(tmp_path / "data", python_path=KILLING) as server:
        assert server.deploy(app_bundle.read_bytes()).status == 200
        with SyncClient(server) as client:
            client.mutate(7, "messages:send", MESSAGE)
            with pytest.raises(ConnectionClosed):
                client.answer()
        first_ts = int(mark.read_text())
        with connect_again(server, client.session) as client:
            client.mutate(7, "messages:send", MESSAGE)
            replayed = client.answer()
            client.mutate(8, "messages:send", {**MESSAGE, "body": "next"})
            following = client.answer()
        assert replayed["success"] and int.from_bytes(b64decode(replayed["ts"]), "little") == first_ts
        assert bodies(server, "replay") == ["next", "once"]
        assert replayed["result"] != following["result"]
        assert "SIGKILL" in server.stop()[1]


def test_a_replay_while_the_first_still_runs_is_answered_with_it(server: RunningServer) -> None:
    before = server.call("query", "probe:slowCount")["value"]
    with SyncClient(server) as client, SyncClient(server, client.session) as again:
        for each in (client, again):
            each.mutate(0, "probe:slowWrite", {"rounds": SLOW_ROUNDS})
        first, second = client.answer(), again.answer()
    assert first["success"] and first == second
    assert server.call("query", "probe:slowCount")["value"] == before + 1


def test_another_identity_is_not_answered_with_what_the_first_got(server: RunningServer) -> None:
    callers = [None, {}, {"issuer": "i", "subject": "a"}, {"issuer": "i", "subject": "b"}]
    message = {**MESSAGE, "channel": "callers"}
    answers = []
    with SyncClient(server) as client:
        session = client.session
    for caller in [*callers, *callers]:
        with SyncClient(server, session) as client:
            if caller is not None:
                client.be_admin(server.admin_key, caller or None)
            client.mutate(3, "messages:send", message)
            answers.append(client.answer())
    results = [answer["result"] for answer in answers]
    assert len(set(results)) == len(callers) and answers[: len(callers)] == answers[len(callers) :]
    assert len(bodies(server, "callers")) == len(callers)
