"""Actions over HTTP against a real server, fetching from a real one on this machine."""

import http.client
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.http.serving import STOP_SECONDS_MAX, RunningServer, serve


class Peer(ThreadingHTTPServer):
    """What actions fetch from. `asked` and `go` are of /held."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.asked = threading.Event()
        self.go = threading.Event()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_port}"


class Answers(BaseHTTPRequestHandler):
    server: Peer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/moved":
            self._answer(302, b"", ("Location", "/hello"))
            return
        if self.path == "/held":
            self.server.asked.set()
            assert self.server.go.wait(STOP_SECONDS_MAX)
        self._answer(200, b"hello")

    def do_POST(self) -> None:
        self._answer(200, self.rfile.read(int(self.headers["Content-Length"])))

    def _answer(self, status: int, body: bytes, *headers: tuple[str, str]) -> None:
        self.send_response(status)
        for header in (*headers, ("Content-Length", str(len(body)))):
            self.send_header(*header)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def peer() -> Iterator[Peer]:
    with Peer() as made:
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def acting(app_bundle: Path, tmp_path_factory: pytest.TempPathFactory, peer: Peer) -> Iterator[RunningServer]:
    with serve(tmp_path_factory.mktemp("acting") / "data", "--allow-egress", peer.address) as running:
        assert running.deploy(app_bundle.read_bytes()).status == 200
        yield running


def test_an_action_by_each_route(acting: RunningServer) -> None:
    expected = {"status": "success", "value": [{"text": "a"}, "slept"], "logLines": ["[LOG] 'acting'"]}
    body = json.dumps({"path": "probe:act", "args": {"text": "a"}})
    for route in ("/api/action", "/api/function"):
        assert acting.ask("POST", route, body, acting.admin_header()).json() == expected
    assert acting.ask("POST", "/api/run/probe/act", body).json() == expected
    failed = acting.call("action", "probe:actAndFail")
    assert (failed["status"], failed["errorData"]) == ("error", {"count": "5", "reason": "no"})


def test_an_action_fetches_what_is_allowed_and_nothing_else_inside(acting: RunningServer, peer: Peer) -> None:
    url = f"http://{peer.address}"

    def fetch(path: str, **init: str) -> object:
        return acting.call("action", "probe:fetchText", {"url": url + path, "init": init})["value"]

    assert fetch("/hello") == {"status": 200, "redirected": False, "text": "hello"}
    assert fetch("/moved") == {"status": 200, "redirected": True, "text": "hello"}
    assert fetch("/moved", redirect="manual") == {"status": 302, "redirected": False, "text": ""}
    assert fetch("/back", method="POST", body="x" * 100_000) == {
        "status": 200,
        "redirected": False,
        "text": "x" * 100_000,
    }
    own = acting.call("action", "probe:fetchText", {"url": acting.url})
    assert own["status"] == "error" and "TypeError: fetch failed: " in own["errorMessage"]


def test_an_action_goes_on_when_its_caller_leaves(acting: RunningServer, peer: Peer) -> None:
    parts = urlsplit(acting.url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port)
    args = {"url": f"http://{peer.address}/held"}
    connection.request("POST", "/api/action", json.dumps({"path": "probe:fetchThenCount", "args": args}))
    assert peer.asked.wait(STOP_SECONDS_MAX)
    connection.close()
    peer.go.set()
    sent: list[object] = []
    while not sent:
        sent = acting.call("query", "messages:list", {"channel": "left"})["value"]
    assert len(sent) == 1
