"""What `skerry deploy` tells while the server works on it, and how it learns the end where the answer was lost."""

import socket
from base64 import b64encode
from hashlib import sha256
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from skerry.bundle.bundle_file import read_bundle
from skerry.cli.client import Server
from skerry.cli.deploy import outcome_of, progress_line
from skerry.errors import ClientError
from skerry.functions.pushes import Pushes, push_name
from skerry.limits import PUSH_NAME_CHARS_MAX, PUSH_OUTCOMES_KEPT_MAX
from tests.http.serving import RunningServer

LOST = ClientError("ServerUnreachable", "No answer: timed out.")


def test_a_push_is_told_of_by_what_it_does() -> None:
    built = {"table": "t", "index": "by_n", "state": "ready"}
    assert progress_line({"push": None, "indexes": [built]}) == ""
    assert progress_line({}) == ""
    judging = {"phase": "judging", "documentsJudged": 12_345}
    assert progress_line({"push": judging, "indexes": [built]}) == "checking documents: 12,345"
    placed = {**judging, "table": "t", "percent": 40}
    assert progress_line({"push": placed, "indexes": [built]}) == "checking documents: 12,345, t (about 40 %)"
    building = {"table": "t", "index": "by_x", "state": "building", "documents": 1_600, "percent": 3}
    told = {"push": judging, "indexes": [built, building]}
    assert progress_line(told) == "building t.by_x 1,600 documents (about 3 %)"


def send(server: RunningServer, raw: bytes, name: str) -> socket.socket:
    """A push whose answer nobody reads."""
    address = urlsplit(server.url)
    connection = socket.create_connection((address.hostname, address.port))
    head = [
        "POST /api/skerry/deploy HTTP/1.1",
        f"Host: {address.hostname}",
        f"Authorization: Convex {server.admin_key}",
        f"Content-Digest: sha-256=:{b64encode(sha256(raw).digest()).decode()}:",
        f"Content-Length: {len(raw)}",
        f"Skerry-Push: {name}",
    ]
    connection.sendall("\r\n".join([*head, "", ""]).encode() + raw)
    return connection


def test_a_push_whose_answer_was_lost_is_asked_for_until_it_is_live(server: RunningServer, app_bundle: Path) -> None:
    raw = app_bundle.read_bytes()
    with send(server, raw, "lost-1"):
        answer = outcome_of(Server(server.url, server.admin_key), "lost-1", LOST)
    assert answer["version"] == read_bundle(raw).digest and answer["functions"]


def test_a_push_whose_answer_was_lost_fails_as_it_failed(server: RunningServer) -> None:
    asking = Server(server.url, server.admin_key)
    with send(server, b"no bundle", "lost-2"), pytest.raises(ClientError) as refused:
        outcome_of(asking, "lost-2", LOST)
    assert refused.value.code == "BundleInvalid" and refused.value.message


def test_a_push_that_the_server_does_not_know_is_given_up(server: RunningServer) -> None:
    pauses: list[float] = []
    with pytest.raises(ClientError, check=lambda error: error.code == "PushOutcomeUnknown"):
        outcome_of(Server(server.url, server.admin_key), "never-sent", LOST, pauses.append)
    assert len(pauses) > 1


def test_a_server_that_is_not_there_is_not_waited_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(ClientError) as refused:
        outcome_of(Server(f"http://127.0.0.1:{port}", "k"), "name", LOST)
    assert refused.value is LOST


def test_the_last_outcomes_are_kept() -> None:
    pushes = Pushes()
    for number in range(PUSH_OUTCOMES_KEPT_MAX + 1):
        pushes.begun(f"p{number}")
    assert pushes.describe() == {"underWay": [f"p{n}" for n in range(PUSH_OUTCOMES_KEPT_MAX + 1)], "ended": []}
    for number in range(PUSH_OUTCOMES_KEPT_MAX + 1):
        pushes.ended(f"p{number}", f"v{number}")
    told = pushes.describe()
    assert told["underWay"] == []
    assert told["ended"] == [{"name": f"p{n}", "version": f"v{n}"} for n in range(PUSH_OUTCOMES_KEPT_MAX, 0, -1)]


def test_a_fault_nobody_foresaw_tells_nothing_of_the_inside() -> None:
    pushes = Pushes()
    pushes.ended("p", RuntimeError("secret"))
    pushes.ended("q", ClientError("SchemaRefused", "No."))
    refused, failed = pushes.describe()["ended"]
    assert refused == {"name": "q", "code": "SchemaRefused", "message": "No."}
    assert failed["code"] == "InternalServerError" and "secret" not in failed["message"]


def test_only_plain_names_are_kept() -> None:
    longest = "a" * PUSH_NAME_CHARS_MAX
    assert push_name(longest) == longest and push_name("A-z_0") == "A-z_0"
    for odd in ("", longest + "a", "a b", "a\n", "é"):
        assert push_name(odd) == ""
    pushes = Pushes()
    pushes.begun("")
    pushes.ended("", "v")
    assert pushes.describe() == {"underWay": [], "ended": []}
