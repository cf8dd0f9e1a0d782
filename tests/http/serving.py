"""A real server process for tests: started on free ports, waited for by its own word, and asked over real sockets."""

import http.client
import json
import os
import select
import signal
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.conftest import REPOSITORY

READY_SECONDS_MAX = 120
STOP_SECONDS_MAX = 60
ADMIN_KEY = "local|a-key-for-tests"


def environment(**changes: str | None) -> dict[str, str]:
    """The environment of a child process: ours, without what would lead it to another server."""
    child = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("CONVEX_", "SKERRY_ADMIN", "SKERRY_HOST"))
    }
    child["PYTHONPATH"] = str(REPOSITORY / "host")
    for name, value in changes.items():
        if value is None:
            child.pop(name, None)
        else:
            child[name] = value
    return child


@dataclass(frozen=True)
class Answer:
    """One HTTP answer."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)

    def json(self) -> Any:
        return json.loads(self.body)

    def refusal(self) -> tuple[int, str]:
        """Status and code of an error that reached no function."""
        parsed = self.json()
        assert set(parsed) == {"code", "message"}, parsed
        assert isinstance(parsed["message"], str)
        assert parsed["message"].rstrip()[-1:] in ".:)}", f"not a sentence: {parsed['message']!r}"
        return self.status, parsed["code"]


class RunningServer:
    """A `skerry serve` (or `dev`) process and how to talk to it."""

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        admin_key: str | None = ADMIN_KEY,
        python_path: Path | None = None,
        port: int = 0,
    ) -> None:
        changes: dict[str, str | None] = {"SKERRY_ADMIN_KEY": admin_key}
        if python_path is not None:
            changes["PYTHONPATH"] = f"{python_path}:{REPOSITORY / 'host'}"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "skerry", *arguments, "--port", str(port), "--site-port", "0", "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=REPOSITORY,
            env=environment(**changes),
        )
        try:
            self.ready = json.loads(self._first_line())
            assert "url" in self.ready, self.ready
        except BaseException:
            self.process.kill()
            self.process.communicate()
            raise
        self.url: str = self.ready["url"]
        self.site_url: str = self.ready["siteUrl"]
        self.admin_key: str = self.ready["adminKey"] or admin_key

    def _first_line(self) -> bytes:
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], READY_SECONDS_MAX)
        assert ready, "the server said nothing"
        line = self.process.stdout.readline()
        if not line:
            assert self.process.stderr is not None
            raise AssertionError(f"the server ended: {self.process.stderr.read().decode()}")
        return line

    def __enter__(self) -> "RunningServer":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Exit code and what it said on standard error."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            _, errors = self.process.communicate(timeout=STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
            raise
        except ValueError:  # the pipes were closed by an earlier stop
            return self.process.wait(), ""
        return self.process.returncode, errors.decode()

    # -- requests ----------------------------------------------------------------------------------------------------

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | str | Iterator[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        site: bool = False,
    ) -> Answer:
        """One request on a connection of its own."""
        parts = urlsplit(self.site_url if site else self.url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=READY_SECONDS_MAX)
        try:
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            return Answer(response.status, response.read(), {k.lower(): v for k, v in response.getheaders()})
        finally:
            connection.close()

    def call(self, kind: str, path: str, args: Any = None, *, admin: bool = False, **fields: Any) -> Any:
        """The parsed answer of a function call."""
        body = json.dumps({"path": path, "args": {} if args is None else args, **fields})
        answer = self.ask("POST", f"/api/{kind}", body, self.admin_header() if admin else None)
        assert answer.status == 200, answer
        return answer.json()

    def admin_header(self) -> dict[str, str]:
        return {"Authorization": f"Convex {self.admin_key}"}

    def deploy(self, bundle: bytes, **changes: str) -> Answer:
        """Uploads a bundle; `changes` replace headers."""
        digest = b64encode(sha256(bundle).digest()).decode()
        headers = {**self.admin_header(), "Content-Digest": f"sha-256=:{digest}:"}
        headers.update({name.replace("_", "-"): value for name, value in changes.items()})
        return self.ask("POST", "/api/skerry/deploy", bundle, headers)

    def metric(self, name: str) -> float:
        """One number of /metrics."""
        text = self.ask("GET", "/metrics", headers=self.admin_header()).body.decode()
        values = [line.rpartition(" ")[2] for line in text.splitlines() if line.rpartition(" ")[0] == name]
        assert len(values) == 1, text
        return float(values[0])


def serve(
    data: Path, *flags: str, admin_key: str | None = ADMIN_KEY, python_path: Path | None = None, port: int = 0
) -> RunningServer:
    """A server on the data folder, ready. Shape: modules in `python_path` come before all others; port 0 is any."""
    return RunningServer(
        ["serve", "--data", str(data), *flags], admin_key=admin_key, python_path=python_path, port=port
    )


def skerry(*arguments: str | Path, cwd: Path = REPOSITORY, **changes: str | None) -> subprocess.CompletedProcess[str]:
    """One run of the command, to its end; `changes` are made to its environment."""
    return subprocess.run(
        [sys.executable, "-m", "skerry", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment(**changes),
        cwd=cwd,
        timeout=READY_SECONDS_MAX,
    )
