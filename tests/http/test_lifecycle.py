"""Deploying, stopping and starting again: what is answered, what is refused, what is kept."""

import json
import signal
import socket
import stat
import threading
from base64 import b64encode
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from skerry.limits import ADMIN_KEY_CHARS_MAX, ADMIN_KEY_CHARS_WANTED
from tests.http.serving import Answer, RunningServer, serve, skerry

SLOW_ROUNDS = 8_000_000  # about a second of the function's time


@pytest.fixture(scope="module")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server of this file's own, with nothing deployed."""
    with serve(tmp_path_factory.mktemp("own") / "data") as running:
        yield running


def test_before_the_first_deploy_no_function_is_found(own_server: RunningServer) -> None:
    answer = own_server.call("query", "messages:list")
    assert "Could not find public function for 'messages:list'." in answer["errorMessage"]


def test_bad_uploads_change_nothing(own_server: RunningServer, app_bundle: Path) -> None:
    raw = app_bundle.read_bytes()
    damaged = raw[:1000] + bytes([raw[1000] ^ 1]) + raw[1001:]
    other_digest = b64encode(sha256(damaged).digest()).decode()
    for upload, headers, expected in (
        (raw, {"Content_Digest": f"sha-256=:{other_digest}:"}, (400, "DigestMismatch")),
        (raw, {"Content_Digest": "sha-256=:?:"}, (400, "DigestRequired")),
        (raw, {"Content_Digest": ""}, (400, "DigestRequired")),
        (raw, {"Authorization": "Convex local|no"}, (403, "BadDeployKey")),
        (b"", {}, (400, "BundleInvalid")),
        (raw[:-10], {}, (400, "BundleInvalid")),
        (raw + b" ", {}, (400, "BundleInvalid")),
        (damaged, {}, (400, "BundleInvalid")),
    ):
        answer = own_server.deploy(upload, **headers)
        status, code = answer.refusal()
        assert (status, code) == expected or (upload is damaged and code == "BundleDigestMismatch"), answer
    described = own_server.ask("GET", "/api/skerry/functions", headers=own_server.admin_header()).json()
    assert described["functions"] == []


def test_a_deployed_bundle_outlives_the_server(app_bundle: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    with serve(data, admin_key=None) as first:
        deployed = first.deploy(app_bundle.read_bytes()).json()
        first.call("mutation", "messages:send", {"channel": "a", "author": "Ada", "body": "kept"})
        key = first.admin_key
        assert first.stop()[0] == 0
    assert stat.S_IMODE((data / "admin.key").stat().st_mode) == 0o600
    assert stat.S_IMODE((data / "host.key").stat().st_mode) == 0o600
    with serve(data, admin_key=None) as second:
        assert second.admin_key == key
        described = second.ask("GET", "/api/skerry/functions", headers=second.admin_header()).json()
        assert described["version"] == deployed["version"]
        listed = second.call("query", "messages:list", {"channel": "a"})
        assert [message["body"] for message in listed["value"]] == ["kept"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_call_under_way_is_answered_before_the_end(app_bundle: Path, tmp_path: Path, number: signal.Signals) -> None:
    answers: list[Answer] = []
    with serve(tmp_path / "data") as server:
        assert server.deploy(app_bundle.read_bytes()).status == 200
        body = json.dumps({"path": "probe:slowWrite", "args": {"rounds": SLOW_ROUNDS}})
        caller = threading.Thread(target=lambda: answers.append(server.ask("POST", "/api/mutation", body)))
        caller.start()
        while server.metric("skerry_calls_in_flight") < 1:
            assert caller.is_alive(), "the call ended before the server was told to stop: make it slower"
        code, errors = server.stop(number)
        caller.join()
    assert code == 0, errors
    assert answers[0].json()["status"] == "success"
    with serve(tmp_path / "data") as again:
        assert again.call("query", "probe:slowCount")["value"] == 1


def test_a_data_folder_is_served_once(own_server: RunningServer, tmp_path: Path) -> None:
    data = own_server.process.args[own_server.process.args.index("--data") + 1]
    second = skerry("serve", "--data", data, "--port", "0", "--site-port", "0", "--json")
    assert second.returncode == 4
    assert json.loads(second.stdout)["error"]["code"] == "DataFolderInUse"
    assert "Traceback" not in second.stderr


def test_a_port_in_use_is_named(own_server: RunningServer, tmp_path: Path) -> None:
    port = own_server.url.rpartition(":")[2]
    done = skerry("serve", "--data", tmp_path / "data", "--port", port, "--site-port", "0", "--json")
    assert done.returncode == 4
    error = json.loads(done.stdout)["error"]
    assert error["code"] == "PortInUse"
    assert port in error["message"]


def test_a_folder_that_is_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    done = skerry("serve", "--data", tmp_path, "--port", "0", "--site-port", "0", "--json")
    assert done.returncode == 4
    assert json.loads(done.stdout)["error"]["code"] == "DataFolderFormat"


@pytest.mark.parametrize("key", ["has space", "has:colon", "ümlaut", "x" * (ADMIN_KEY_CHARS_MAX + 1)])
def test_an_admin_key_that_cannot_travel_is_refused(tmp_path: Path, key: str) -> None:
    done = skerry("serve", "--data", tmp_path / "d", "--port", "0", "--site-port", "0", "--json", SKERRY_ADMIN_KEY=key)
    assert done.returncode == 3
    assert json.loads(done.stdout)["error"]["code"] == "InvalidAdminKey"


def test_the_longest_admin_key_works(tmp_path: Path) -> None:
    key = "local|".ljust(ADMIN_KEY_CHARS_MAX, "k")
    with serve(tmp_path / "data", admin_key=key) as server:
        assert server.ask("GET", "/api/check_admin_key", headers=server.admin_header()).status == 200


@pytest.mark.parametrize(
    ("characters", "warned"), [(ADMIN_KEY_CHARS_WANTED - 1, True), (ADMIN_KEY_CHARS_WANTED, False)]
)
def test_a_given_key_that_can_be_guessed_works_with_a_warning(tmp_path: Path, characters: int, warned: bool) -> None:
    with serve(tmp_path / "data", admin_key="k" * characters) as server:
        assert server.ask("GET", "/api/check_admin_key", headers=server.admin_header()).status == 200
        _, said = server.stop()
    assert ("SKERRY_ADMIN_KEY is so short that it can be guessed" in said) == warned


def test_one_deploy_is_taken_at_a_time(own_server: RunningServer, app_bundle: Path) -> None:
    raw = app_bundle.read_bytes()
    digest = b64encode(sha256(raw).digest()).decode()
    parts = urlsplit(own_server.url)
    head = (
        f"POST /api/skerry/deploy HTTP/1.1\r\nHost: a\r\nContent-Length: {len(raw)}\r\nConnection: close\r\n"
        f"Authorization: Convex {own_server.admin_key}\r\nContent-Digest: sha-256=:{digest}:\r\n\r\n"
    )
    with socket.create_connection((parts.hostname, parts.port), timeout=60) as first:
        first.sendall(head.encode())
        # An upload that is never made live, tried until the first one is being read.
        while (refusal := own_server.deploy(b"", Content_Digest=f"sha-256=:{digest}:").refusal())[0] != 409:
            assert refusal == (400, "DigestMismatch")
        assert refusal[1] == "DeployInProgress"
        first.sendall(raw)
        answer = first.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 200")
