"""The ground on which attacks are made: one real server, deployments to attack, and a neighbour that must not notice.

`script` and `neighbour` run the TypeScript functions of `script/`, `compiled` the C guest `attack.c`. Attacks on
time run in process (`sparring`), where a call gets a tenth of its time: the same code, less waiting.
"""

import json
import socket
from base64 import b64encode
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from skerry.bundle.build import build_app
from skerry.bundle.engine_build import build_c_guest
from skerry.isolate import build_runner_at
from tests.fixtures import shared
from tests.fixtures.bundles import CLOCK_MS, wrap_honestly
from tests.fixtures.world import World
from tests.hostile.case import Outcome
from tests.hostile.elsewhere import Elsewhere
from tests.http.serving import Answer, RunningServer, serve

FOLDER = Path(__file__).parent
SPARRING_CPU_MS = 500
WAIT_SECONDS_MAX = 60
ATTACKED = {"script": "alive:ping", "compiled": "x:alive", "neighbour": "alive:ping"}
SANE = [{"map": [["a", [2, 4, 6]]], "set": ["a", "b"], "rows": True}, [], "undefined", True]


def script_bundle(base: Path) -> bytes:
    """The attacks in TypeScript."""
    runner = build_runner_at(shared.module_cache(base))
    return build_app(FOLDER / "script", clock_ms=CLOCK_MS, instantiate_at=runner).to_bytes()


def compiled_bundle(base: Path) -> bytes:
    """The attacks in C."""
    return wrap_honestly(build_c_guest((FOLDER / "attack.c").read_text()), shared.module_cache(base))


class Ground:
    """A running server with the deployments, and how to reach them. Close it."""

    def __init__(self, base: Path, data: Path) -> None:
        self.base = base
        self.bundles = {"script": script_bundle(base), "compiled": compiled_bundle(base)}
        self.elsewhere = Elsewhere()
        try:
            self.server: RunningServer = serve(data, "--allow-egress", f"127.0.0.1:{self.elsewhere.port}")
        except BaseException:
            self.elsewhere.close()
            raise
        self.keys: dict[str, str] = {}
        self.credential = (data / "host.credential").read_text().strip()
        self._worlds: dict[str, World] = {}
        self._data = data.parent
        try:
            for name in ATTACKED:
                self.create(name)
                assert self.deploy(name, self.bundles.get(name) or self.bundles["script"]).status == 200
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Ground":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for world in self._worlds.values():
            world.close()
        self.elsewhere.close()
        code, said = self.server.stop()
        assert code == 0, said
        assert "Traceback" not in said, said

    # -- deployments ---------------------------------------------------------------------------------------------------

    def operate(self, method: str, path: str, fields: Any = None, credential: str | None = None) -> Answer:
        """A request of the host's operator."""
        headers = {"Authorization": f"Bearer {credential or self.credential}"}
        return self.server.ask(method, path, None if fields is None else json.dumps(fields), headers)

    def create(self, name: str) -> None:
        answer = self.operate("POST", "/host/deployments", {"name": name})
        assert answer.status == 200, answer
        self.keys[name] = answer.json()["adminKey"]

    def key(self, name: str, scope: str, **more: Any) -> tuple[str, str]:
        """A new key: its id and its text."""
        made = self.operate("POST", f"/host/deployments/{name}/keys", {"scope": scope, "label": "", **more}).json()
        return made["key"].partition("|")[2].partition(".")[0], made["key"]

    def deploy(self, name: str, raw: bytes, **headers: str) -> Answer:
        digest = b64encode(sha256(raw).digest()).decode()
        sent = {"Authorization": f"Convex {self.keys[name]}", "Content-Digest": f"sha-256=:{digest}:"}
        return self.ask(name, "POST", "/api/skerry/deploy", raw, {**sent, **headers})

    # -- requests ------------------------------------------------------------------------------------------------------

    def ask(
        self, name: str, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """One request to a deployment by its host name."""
        return self.server.ask(method, path, body, {"Host": f"{name}.localhost", **(headers or {})})

    def call(
        self, name: str, kind: str, path: str, args: Any = None, headers: Mapping[str, str] | None = None
    ) -> Outcome:
        """What became of a call over HTTP."""
        body = json.dumps({"path": path, "args": {} if args is None else args, "format": "convex_encoded_json"})
        return outcome_of(self.ask(name, "POST", f"/api/{kind}", body))

    def wire(self, *pieces: bytes) -> tuple[tuple[int, ...], bytes]:
        """Bytes on a connection of their own: the statuses that came back until the server closed, and all bytes."""
        parts = urlsplit(self.server.url)
        answer = b""
        with socket.create_connection((parts.hostname, parts.port), timeout=WAIT_SECONDS_MAX) as connection:
            try:
                for piece in pieces:
                    connection.sendall(piece)
                if b"Connection: close" not in pieces[-1]:
                    connection.shutdown(socket.SHUT_WR)
                while piece := connection.recv(65536):
                    answer += piece
            except (ConnectionResetError, BrokenPipeError):
                pass
        lines = answer.split(b"HTTP/1.1 ")[1:]
        return tuple(int(line[:3]) for line in lines), answer

    def sparring(self, name: str) -> World:
        """The same functions in process, with little time for each call."""
        if name not in self._worlds:
            world = self._worlds[name] = World(self._data / f"sparring-{name}", shared.compiled(self.base))
            world.activate(self.bundles[name])
            world.deployment.lane.cpu_ms_max = SPARRING_CPU_MS
        return self._worlds[name]

    # -- after an attack -----------------------------------------------------------------------------------------------

    def check_alive(self) -> None:
        """Every deployment answers, the attacked ones too, and nothing of an attack is left in them."""
        for name, path in ATTACKED.items():
            assert self.call(name, "query", path) == ("value", "pong"), name
        for name in ("script", "neighbour"):
            assert self.call(name, "query", "alive:sane") == ("value", SANE), name
        for name, world in self._worlds.items():
            assert world.query(ATTACKED[name]) == "pong"
            assert world.deployment.lane.in_flight == 0


def outcome_of(answer: Answer) -> Outcome:
    """An answer as the tables write it."""
    said = json.loads(answer.body)
    if answer.status != 200:
        assert set(said) >= {"code", "message"}, said
        return ("refused", answer.status, said["code"], said["message"])
    if said["status"] == "success":
        return ("value", said["value"])
    first, _, rest = said["errorMessage"].partition("\n")
    assert first.startswith("[Request ID: ") and first.endswith("] Server Error"), first
    return ("fails", rest)
