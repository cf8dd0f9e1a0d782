"""A `skerry serve` of our own, supervisor and workers: started, deployed to, asked, watched, stopped by its pid."""

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import IO, Any
from urllib.parse import urlencode, urlsplit

from bench.apps import GROUP_SIZE
from skerry.value import Int64, decode

ADMIN_KEY = "local|bench"
_STOP_SECONDS_MAX = 30
_POLL_SECONDS = 0.05
_CALL_SECONDS_MAX = 600
# Documents of a seeding call are written in one transaction, which has bounds.
_SEED_STEP = 1000
_CHECK_STEP = 5000
_WORKER = b"skerry.http.worker"


def environment() -> dict[str, str]:
    """Ours, with the admin key, and without what would lead a command to another server."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CONVEX_")}
    return {**kept, "SKERRY_ADMIN_KEY": ADMIN_KEY}


class Server:
    """A serving process, ready when made. Shape: `started_s` from its start to its word that it is ready."""

    def __init__(self, data: Path, *flags: str, port: int = 0) -> None:
        command = [sys.executable, "-m", "skerry", "serve", "--data", str(data), "--json", *flags]
        self.data = data
        self._keys: dict[str | None, str] = {}
        begin = time.perf_counter()
        self.begun_at = begin
        log = data.with_name(data.name + ".log")
        with log.open("ab") as errors:
            self.process = subprocess.Popen(
                [*command, "--port", str(port), "--site-port", "0"],
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment(),
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if b'"url"' not in line:
            raise RuntimeError(
                f"the server ended with status {self.process.wait()} before it was ready: {line!r} {log.read_text()}"
            )
        self.started_s = time.perf_counter() - begin
        self.port: int = urlsplit(json.loads(line)["url"]).port or 0

    def __enter__(self) -> "Server":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Ends the process the way an operator does, and waits for it."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(_STOP_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()

    def call(self, kind: str, path: str, args: Mapping[str, Any], name: str | None = None) -> Any:
        """The value of one call. Raises: RuntimeError with the answer where it is no success."""
        body = json.dumps({"path": path, "args": args, "format": "json"}).encode()
        answer = self._post(f"{_place(name)}/api/{kind}", body, {"Content-Type": "application/json"})
        if answer.get("status") != "success":
            raise RuntimeError(f"{path}: {answer}")
        return answer["value"]

    def create(self, name: str) -> None:
        """Makes a deployment beside the default one."""
        credential = (self.data / "host.credential").read_text().strip()
        headers = {"Authorization": f"Bearer {credential}", "Content-Type": "application/json"}
        made = self._post("/host/deployments", json.dumps({"name": name}).encode(), headers)
        if "adminKey" not in made:
            raise RuntimeError(f"the deployment was refused: {made}")
        self._keys[name] = made["adminKey"]

    def deploy(self, bundle: bytes, name: str | None = None) -> dict[str, Any]:
        """Uploads a bundle and makes it live."""
        digest = b64encode(sha256(bundle).digest()).decode()
        key = self._keys.get(name, ADMIN_KEY)
        headers = {"Authorization": f"Convex {key}", "Content-Digest": f"sha-256=:{digest}:"}
        answer = self._post(f"{_place(name)}/api/skerry/deploy", bundle, headers)
        if "version" not in answer:
            raise RuntimeError(f"the bundle was refused: {answer}")
        return answer

    def get(self, url: str) -> dict[str, Any]:
        """What an operator's route tells."""
        return self._ask("GET", url, b"", {"Authorization": f"Convex {ADMIN_KEY}"})

    def post(self, url: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        """The same of one that is told something."""
        headers = {"Authorization": f"Convex {ADMIN_KEY}", "Content-Type": "application/json"}
        return self._post(url, json.dumps(fields).encode(), headers)

    def import_file(self, file: Path, query: Mapping[str, str]) -> int:
        """Imports a file in one request; how many documents. Raises: RuntimeError with the answer where it is none."""
        headers = {"Authorization": f"Convex {ADMIN_KEY}", "Content-Length": str(file.stat().st_size)}
        with file.open("rb") as body:
            answer = self._post(f"/api/import?{urlencode(query)}", body, headers)
        if "numWritten" not in answer:
            raise RuntimeError(f"{file.name}: {answer}")
        return int(answer["numWritten"])

    def upload(self, file: Path, order: Mapping[str, str]) -> str:
        """The id of an import of a file, sent in one part, that waits until it is told to begin."""
        token = self.post("/api/import/start_upload", {})["uploadToken"]
        headers = {"Authorization": f"Convex {ADMIN_KEY}", "Content-Length": str(file.stat().st_size)}
        with file.open("rb") as body:
            part = self._post(f"/api/import/upload_part?uploadToken={token}&partNumber=1", body, headers)
        finish = {"import": order, "uploadToken": token, "partTokens": [part]}
        return str(self.post("/api/import/finish_upload", finish)["importId"])

    def import_state(self, import_id: str) -> dict[str, Any]:
        """The state of an import, its numbers as numbers."""
        state = decode(self.get(f"/api/skerry/imports/{import_id}"))
        return {name: value.value if isinstance(value, Int64) else value for name, value in state.items()}

    def storage(self) -> dict[str, Any]:
        """What the storage takes, and the last job."""
        return self.get("/api/skerry/storage")

    def storage_job(self, kind: str) -> dict[str, Any]:
        """The same once a job has run. Raises: RuntimeError where it failed."""
        self.post("/api/skerry/storage/jobs", {"kind": kind})
        while True:
            seen = self.storage()
            if seen["job"]["state"] == "done":
                return seen
            if seen["job"]["state"] == "failed":
                raise RuntimeError(f"the job {kind} failed: {seen['job']}")
            time.sleep(_POLL_SECONDS)

    def _post(self, url: str, body: bytes | IO[bytes], headers: Mapping[str, str]) -> Any:
        return self._ask("POST", url, body, headers)

    def _ask(self, method: str, url: str, body: bytes | IO[bytes], headers: Mapping[str, str]) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=_CALL_SECONDS_MAX)
        try:
            connection.request(method, url, body, dict(headers))
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()

    # -- the bank ----------------------------------------------------------------------------------------------------

    def seed(self, accounts: int) -> None:
        """Makes the accounts, and as many documents in groups of `GROUP_SIZE`."""
        assert accounts % GROUP_SIZE == 0, "the last group would be short"
        for lo in range(0, accounts, _SEED_STEP):
            self.call("mutation", "bank:seed", {"lo": lo, "hi": min(lo + _SEED_STEP, accounts)})

    def ids(self, accounts: int) -> list[str]:
        """The accounts' document ids, in the order of their numbers."""
        found: list[str] = []
        for lo in range(0, accounts, _CHECK_STEP):
            found += self.call("query", "bank:ids", {"lo": lo, "hi": min(lo + _CHECK_STEP, accounts)})
        return found

    def books(self, accounts: int) -> tuple[int, int, int]:
        """How many accounts there are, the sum of their balances, and the sum of number * balance."""
        parts = [
            self.call("query", "bank:check", {"lo": lo, "hi": min(lo + _CHECK_STEP, accounts)})
            for lo in range(0, accounts, _CHECK_STEP)
        ]
        n, total, weighted = (sum(int(part[name]) for part in parts) for name in ("n", "sum", "wsum"))
        return n, total, weighted

    # -- the processes -----------------------------------------------------------------------------------------------

    def cpu_s(self) -> "Cpu":
        """CPU time so far, all threads."""
        supervisor = self.process.pid
        return Cpu(sum(map(_cpu_s, _workers(supervisor))), _cpu_s(supervisor))

    def metric(self, name: str) -> float:
        """A number of `/metrics` that has no labels."""
        credential = (self.data / "host.credential").read_text().strip()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=_CALL_SECONDS_MAX)
        try:
            connection.request("GET", "/metrics", headers={"Authorization": f"Bearer {credential}"})
            text = connection.getresponse().read().decode()
        finally:
            connection.close()
        for line in text.splitlines():
            told, _, value = line.partition(" ")
            if told == name:
                return float(value)
        raise RuntimeError(f"the server tells no {name}: {text[:500]}")

    def pss_mb(self) -> float:
        """Memory of the supervisor and its workers together, shared pages counted in part."""
        return sum(_pss_mb(pid) for pid in (self.process.pid, *_workers(self.process.pid)))

    def own_mb(self) -> float:
        """Memory of the workers that is no file's: what they hold beside the mapped storage."""
        return sum(map(_anonymous_mb, _workers(self.process.pid)))


class Memory:
    """Looks at the workers' own memory while it is entered. Shape: `grown_mb` the most above what it began with."""

    def __init__(self, server: Server) -> None:
        self.grown_mb = 0.0
        self._server = server
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> "Memory":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        begun_mb = self._server.own_mb()
        while not self._stop.wait(_POLL_SECONDS):
            self.grown_mb = max(self.grown_mb, self._server.own_mb() - begun_mb)


@dataclass(frozen=True)
class Cpu:
    """Seconds of CPU time. Shape: `workers` of all of them, which serve; `supervisor` of the one that watches them."""

    workers: float
    supervisor: float

    def since(self, before: "Cpu") -> "Cpu":
        """What was spent after `before`."""
        return Cpu(self.workers - before.workers, self.supervisor - before.supervisor)


def _workers(pid: int) -> list[int]:
    """A supervisor's workers, without other processes that it started (the jail's, which come and go).

    Raises: RuntimeError where there are none: then what a server costs is measured somewhere else than it is spent.
    """
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    found = [int(child) for child in children if _WORKER in Path(f"/proc/{child}/cmdline").read_bytes()]
    if not found:
        raise RuntimeError(f"the server (process {pid}) has no workers")
    return found


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _pss_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("the kernel does not tell the PSS of a process")


def _anonymous_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("the kernel does not tell the anonymous memory of a process")


def _place(name: str | None) -> str:
    """What stands in front of a deployment's routes."""
    return "" if name is None else f"/d/{name}"
