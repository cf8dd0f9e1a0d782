"""`skerry serve` as several processes: who answers, what a crash costs, and that an upgrade costs nothing."""

import ctypes
import http.client
import json
import os
import platform
import re
import signal
import socket
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from skerry.limits import QUARANTINE_CRASHES_MAX, WORKERS_MAX
from skerry.supervisor.ownership import owner_of
from tests.http.serving import Answer, RunningServer, serve, skerry

NAMES = [next(f"n{n}" for n in range(100) if owner_of(f"n{n}", 2) == index) for index in range(2)]
SECONDS_MAX = 90
LOOP_ROUNDS = 1_000_000_000  # more than its CPU time allows
_TGKILL = {"x86_64": 234, "aarch64": 131}


class Workers:
    """A server of two workers with one deployment on each."""

    def __init__(self, running: RunningServer, data: Path, bundle: bytes) -> None:
        self.running = running
        credential = (data / "host.credential").read_text().strip()
        self.headers = {"Authorization": f"Bearer {credential}"}
        self.keys: dict[str, str] = {}
        for name in NAMES:
            made = running.ask("POST", "/host/deployments", json.dumps({"name": name}), self.headers)
            assert made.status == 200, made
            self.keys[name] = made.json()["adminKey"]
            assert self.deploy(name, bundle).status == 200

    def deploy(self, name: str, bundle: bytes) -> Answer:
        headers = {
            "Host": f"{name}.localhost",
            "Authorization": f"Convex {self.keys[name]}",
            "Content-Digest": f"sha-256=:{b64encode(sha256(bundle).digest()).decode()}:",
        }
        return self.running.ask("POST", "/api/skerry/deploy", bundle, headers)

    def pids(self) -> list[int]:
        return children(self.running.process.pid)

    def call(self, name: str, kind: str, path: str, args: Any = None) -> Answer:
        body = json.dumps({"path": path, "args": args or {}})
        return self.running.ask("POST", f"/api/{kind}", body, {"Host": f"{name}.localhost"})

    def connect(self) -> http.client.HTTPConnection:
        parts = urlsplit(self.running.url)
        return http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=SECONDS_MAX)


def ask(connection: http.client.HTTPConnection, name: str, kind: str, path: str, args: Any = None) -> Any:
    body = json.dumps({"path": path, "args": args or {}})
    connection.request("POST", f"/api/{kind}", body, {"Host": f"{name}.localhost"})
    answer = connection.getresponse()
    raw = answer.read()
    assert answer.status == 200, raw
    return json.loads(raw)


def children(pid: int) -> list[int]:
    return sorted(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def wait_for(condition: Callable[[], bool]) -> None:
    nothing, until = threading.Event(), time.monotonic() + SECONDS_MAX
    while not condition():
        assert time.monotonic() < until
        nothing.wait(0.005)


def cpu_ticks(pids: list[int]) -> dict[tuple[int, int], int]:
    """CPU time of every thread, by process and thread."""
    found: dict[tuple[int, int], int] = {}
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").glob("*/stat"):
            try:
                fields = task.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            found[pid, int(task.parent.name)] = int(fields[11]) + int(fields[12])
    return found


def fault_in_busy_thread(pids: list[int]) -> int:
    """Makes the thread that computes fault, as a broken engine would; the process it was in."""
    before = cpu_ticks(pids)

    def busy() -> list[tuple[int, int]]:
        return [thread for thread, ticks in cpu_ticks(pids).items() if ticks - before.get(thread, 0) >= 20]

    wait_for(lambda: bool(busy()))
    pid, thread = busy()[0]
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.syscall(_TGKILL[platform.machine()], pid, thread, signal.SIGSEGV) == 0
    return pid


@pytest.fixture
def workers(app_bundle: Path, tmp_path: Path) -> Iterator[Workers]:
    with serve(tmp_path / "data", "--workers", "2") as running:
        yield Workers(running, tmp_path / "data", app_bundle.read_bytes())


def test_the_supervisor_is_light_and_each_deployment_has_its_worker(workers: Workers) -> None:
    maps = Path(f"/proc/{workers.running.process.pid}/maps").read_text()
    assert not [word for word in ("wasmtime", "uvloop", "httptools", "lmdb") if word in maps]
    connections = [workers.connect() for _ in range(4)]
    for number in range(3):
        for connection in connections:
            for name in (*NAMES, *reversed(NAMES)):
                assert ask(connection, name, "query", "probe:echo", {"text": f"{name}{number}"})["status"] == "success"
    for connection in connections:
        connection.close()
    assert len(workers.pids()) == 2
    assert workers.running.call("query", "messages:list", {"channel": "x"})["errorMessage"]
    code, errors = workers.running.stop()
    assert code == 0
    assert "died" not in errors


def test_what_operators_do_is_seen_by_all_workers(workers: Workers) -> None:
    def listed() -> list[str]:
        answer = workers.running.ask("GET", "/host/deployments", headers=workers.headers)
        return [deployment["name"] for deployment in answer.json()["deployments"]]

    for _ in range(4):  # whichever worker takes it
        assert listed() == sorted([*NAMES, "local"])
    for name in NAMES:
        assert workers.running.ask("POST", f"/host/deployments/{name}/pause", "", workers.headers).status == 200
        assert workers.call(name, "query", "probe:slowCount").refusal()[1] == "DeploymentPaused"
        assert workers.running.ask("DELETE", f"/host/deployments/{name}", headers=workers.headers).status == 200
        assert workers.call(name, "query", "probe:slowCount").refusal() == (404, "DeploymentNotFound")
        again = workers.running.ask("POST", "/host/deployments", json.dumps({"name": name}), workers.headers)
        assert again.status == 200, again
        assert "Deploy an app first" in workers.call(name, "query", "probe:slowCount").json()["errorMessage"]


def test_a_module_that_keeps_crashing_is_quarantined_and_nobody_else_notices(
    workers: Workers, app_bundle: Path, tmp_path: Path
) -> None:
    culprit, neighbour = NAMES
    with_neighbour = workers.connect()
    # From here on it lies with its owner: who connects while a worker dies may meet that one.
    assert ask(with_neighbour, neighbour, "query", "probe:slowCount")["value"] == 0
    for crash in range(QUARANTINE_CRASHES_MAX):
        assert workers.call(culprit, "query", "probe:slowCount").json()["value"] == 0
        before = workers.pids()
        body = json.dumps({"path": "probe:slowWrite", "args": {"rounds": LOOP_ROUNDS}})
        with socket.create_connection(_address(workers), timeout=SECONDS_MAX) as looping:
            head = f"POST /api/mutation HTTP/1.1\r\nHost: {culprit}.localhost\r\nContent-Length: {len(body)}\r\n\r\n"
            looping.sendall((head + body).encode())
            crashed = fault_in_busy_thread(before)
            while crashed in workers.pids():
                assert ask(with_neighbour, neighbour, "query", "probe:slowCount")["value"] == crash
            assert looping.recv(1000) == b""
        assert ask(with_neighbour, neighbour, "mutation", "probe:slowWrite", {"rounds": 1})["status"] == "success"
    answer = workers.call(culprit, "query", "probe:slowCount")
    assert answer.refusal() == (503, "ModuleQuarantined")
    assert workers.deploy(culprit, app_bundle.read_bytes()).refusal() == (503, "ModuleQuarantined")
    for _ in range(4):  # whichever worker is asked
        listed = workers.running.ask("GET", "/host/quarantine", headers=workers.headers).json()["quarantined"]
        assert [entry["name"] for entry in listed] == [culprit]
    page = workers.running.ask("GET", "/metrics", headers=workers.headers).body.decode()
    assert re.search(rf'skerry_quarantined_versions{{worker="\d",deployment="{culprit}"}} 1.0', page)
    doctor = json.loads(skerry("doctor", "--data", tmp_path / "data", "--json").stdout)
    assert next(found["level"] for found in doctor["findings"] if found["name"] == "quarantine") == "note"
    credential = workers.headers["Authorization"].removeprefix("Bearer ")
    told = skerry(
        "quarantine", "lift", culprit, "--url", workers.running.url, "--host-credential", credential, "--json"
    )
    assert json.loads(told.stdout)["lifted"] == [listed[0]["version"]], told.stderr
    assert workers.call(culprit, "query", "probe:slowCount").json()["value"] == 0
    empty = skerry("quarantine", "list", "--url", workers.running.url, "--host-credential", credential, "--json")
    assert json.loads(empty.stdout)["quarantined"] == []
    (tmp_path / "app" / "convex").mkdir(parents=True)
    (tmp_path / "app" / "package.json").write_text("{}")
    source = "import { queryGeneric } from 'convex/server';\nexport const one = queryGeneric(async () => 1);\n"
    (tmp_path / "app" / "convex" / "numbers.ts").write_text(source)
    assert skerry("build", tmp_path / "app", "--out", tmp_path / "other.skerry").returncode == 0
    assert workers.deploy(culprit, (tmp_path / "other.skerry").read_bytes()).status == 200
    assert workers.call(culprit, "query", "numbers:one").json()["value"] == 1
    with_neighbour.close()
    errors = workers.running.stop()[1]
    # The engine aborts where a fault hits an instruction that may fault, at an address that it may not.
    assert len(re.findall(r"died of SIG(?:SEGV|ABRT)", errors)) == QUARANTINE_CRASHES_MAX
    assert f"deployment {culprit}: module" in errors
    assert f"deployment {neighbour}" not in errors


def test_the_metrics_of_all_workers_are_one_page(workers: Workers) -> None:
    for name in NAMES:
        assert workers.call(name, "query", "probe:slowCount").json()["value"] == 0
    for _ in range(4):  # whichever worker is asked
        page = workers.running.ask("GET", "/metrics", headers=workers.headers).body.decode()
        for worker, name in enumerate(NAMES):
            assert f'skerry_worker_up{{worker="{worker}"}} 1' in page
            assert f'skerry_deployment_calls_total{{worker="{worker}",deployment="{name}"}} 1.0' in page
            assert f'skerry_calls_total{{worker="{worker}",kind="query",outcome="success"}} 1.0' in page
        families = [line.split()[2] for line in page.splitlines() if line.startswith("# TYPE")]
        assert len(families) == len(set(families))
    own = workers.running.ask("GET", "/metrics/worker", headers=workers.headers).body.decode()
    assert "worker=" not in own and "skerry_calls_total" in own
    assert workers.running.ask("GET", "/metrics/worker").refusal() == (401, "BadHostCredential")


def _address(workers: Workers) -> tuple[str, int]:
    parts = urlsplit(workers.running.url)
    return parts.hostname or "", parts.port or 0


def test_acknowledged_writes_outlive_the_worker(workers: Workers) -> None:
    name, acknowledged = NAMES[1], 0
    for _ in range(3):
        stop = threading.Event()
        counts: list[int] = []
        writer = threading.Thread(target=lambda stop=stop, counts=counts: counts.append(_write(workers, name, stop)))
        writer.start()
        before = workers.pids()
        ticks = cpu_ticks(before)
        wait_for(lambda before=before, ticks=ticks: sum(cpu_ticks(before).values()) - sum(ticks.values()) >= 20)
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        wait_for(lambda before=before: len(set(workers.pids()) - set(before)) == 2)
        stop.set()
        writer.join(SECONDS_MAX)
        acknowledged += counts[0]
        found = workers.call(name, "query", "probe:slowCount").json()["value"]
        assert found >= acknowledged > 0
        acknowledged = found


def _write(workers: Workers, name: str, stop: threading.Event) -> int:
    """Writes until told to stop; how many writes were acknowledged."""
    acknowledged = 0
    while not stop.is_set():
        connection = workers.connect()
        try:
            while not stop.is_set():
                assert ask(connection, name, "mutation", "probe:slowWrite", {"rounds": 1})["status"] == "success"
                acknowledged += 1
        except (OSError, http.client.HTTPException):
            pass
        finally:
            connection.close()
    return acknowledged


@pytest.mark.parametrize("count", [1, 2])
def test_an_upgrade_fails_no_request(app_bundle: Path, tmp_path: Path, count: int) -> None:
    with serve(tmp_path / "data", "--workers", str(count)) as running:
        workers = Workers(running, tmp_path / "data", app_bundle.read_bytes())
        stop, failures, done = threading.Event(), [], [0, 0, 0]

        def steadily(number: int, fresh: bool) -> None:
            connection = workers.connect()
            try:
                while not stop.is_set():
                    name = NAMES[(done[number] + number) % 2]
                    assert ask(connection, name, "mutation", "probe:slowWrite", {"rounds": 1})["status"] == "success"
                    done[number] += 1
                    if fresh:
                        connection.close()
            except Exception as error:
                failures.append(error)
            finally:
                connection.close()

        threads = [threading.Thread(target=steadily, args=(number, number == 2)) for number in range(3)]
        for thread in threads:
            thread.start()
        for _ in range(2):
            before = workers.pids()
            running.process.send_signal(signal.SIGHUP)
            wait_for(lambda before=before: bool(failures) or not set(before) & set(workers.pids()))
            so_far = list(done)
            wait_for(lambda so_far=so_far: bool(failures) or all(a > b for a, b in zip(done, so_far, strict=True)))
        stop.set()
        for thread in threads:
            thread.join(SECONDS_MAX)
        assert not failures
        written = sum(workers.call(name, "query", "probe:slowCount").json()["value"] for name in NAMES)
        assert written == sum(done)
        code, errors = running.stop()
        assert (code, "killed" in errors) == (0, False)


@pytest.mark.parametrize("count", [0, WORKERS_MAX + 1])
def test_workers_have_a_bound(count: int) -> None:
    assert skerry("serve", "--workers", str(count)).returncode == 2
