"""Every bench runs to its end with tiny counts and prints its rows; how long anything took is not looked at."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REPOSITORY

_BENCH = [sys.executable, "-m", "bench"]
_ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join((str(REPOSITORY / "host"), str(REPOSITORY / "tools" / "lib"))),
}
_SECONDS_MAX = 240
EXPECTED = {
    "database": [
        "get among 800, p50",
        "documents, indexes, commit log with call records",
        "when the history has been dropped",
        "JSON lines, 800 documents",
        "snapshot archive, 800 documents",
        "deployment idle",
        "p99, beside the backfill",
        "p99, beside the import",
    ],
    "micro": ["TypeScript guest, p50", "C guest, p50", "trivial query, p50", "ctx.db.get of a 200-byte document"],
    "http": [
        "stateless query",
        "query whose answer is kept",
        "transfer by document id",
        "transfer by unique index, zipf 1.5",
        "100 documents of 200 bytes by index",
    ],
    "live": [
        "queries run for each commit",
        "first results of all subscriptions",
        "connected and answered",
        "on one socket",
    ],
    "mixed": ["small query alone, p99", "small mutation beside a long mutation, p99"],
    "noisy": ["small query, quiet, p99", "query, neighbour floods", "mutation, neighbour loops"],
    "search": ["insert with it, loop thread", "two common words, p50", "two common words, keys read, p50"],
    "vectors": ["exact, p50", "found of the nearest", "memory", "take in an insert"],
    "start": ["idle server, one app deployed", "first answer after restart", "edit to first answer of the new version"],
}


@pytest.mark.parametrize("name", EXPECTED)
def test_bench_prints_its_rows(name: str, tmp_path: Path) -> None:
    found = tmp_path / "found.json"
    command = [*_BENCH, name, "--effort", "smoke", "--seed", "7", "--json", str(found), "--scratch", str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, env=_ENVIRONMENT, timeout=_SECONDS_MAX)
    assert ran.returncode == 0, ran.stderr
    assert "Seed 7, effort smoke." in ran.stdout
    report: dict[str, Any] = json.loads(found.read_text())
    rows = {row["what"]: row for section in report["sections"] for row in section["rows"]}
    for what in EXPECTED[name]:
        assert f"| {what} |" in ran.stdout
        assert rows[what]["value"] > 0
    assert report["machine"]["wasmtime"] in ran.stdout
    assert not any("did not succeed" in line for section in report["sections"] for line in section["lines"]), ran.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["found.json"], "data folders were left behind"


def test_a_server_is_measured_where_it_spends(tmp_path: Path) -> None:
    """Workers serve, so theirs are most of the CPU time and of the memory; a supervisor holds about 20 MB."""
    script = """
import sys
from pathlib import Path
from bench.server import Server
with Server(Path(sys.argv[1]) / "data") as server:
    cpu = server.cpu_s()
    print(cpu.workers, cpu.supervisor, server.pss_mb())
"""
    ran = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, env=_ENVIRONMENT, timeout=60
    )
    assert ran.returncode == 0, ran.stderr
    workers, supervisor, whole = map(float, ran.stdout.split())
    assert workers > 0 and supervisor > 0
    assert whole > 45, "MB: the engine and the framework alone are more than that"


def test_micro_charges_every_part_of_a_transfer() -> None:
    """The probes still sit where the work is: no part of a call has become empty in every column."""
    ran = subprocess.run(
        [*_BENCH, "micro", "--effort", "smoke", "--seed", "7"],
        capture_output=True,
        text=True,
        env=_ENVIRONMENT,
        timeout=_SECONDS_MAX,
    )
    assert ran.returncode == 0, ran.stderr
    parts = ran.stdout.partition("Where each microsecond goes")[2].splitlines()
    table = {cells[1].strip(): cells[2:-1] for line in parts if (cells := line.split("|"))[0] == "" and len(cells) > 3}
    for part in (
        "guest code",
        "instantiate",
        "hostcalls: database",
        "commit: hand to the writer",
        "drop the isolate",
        "prepare the request",
    ):
        assert any(cell.strip() not in ("", "-") for cell in table[part]), (part, table[part])


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """The address of `tools/bench serve` on a port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
    process = subprocess.Popen(
        [*_BENCH, "serve", "--port", str(port), "--data", str(tmp_path / "data")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=_ENVIRONMENT,
    )
    try:
        _wait_for_port(port, process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=_SECONDS_MAX)


def test_serve_answers_as_other_benches_ask(served: str) -> None:
    """Its very first answer is a good one, and the functions are those of peers.json."""
    described = json.loads((REPOSITORY / "tools" / "lib" / "bench" / "peers.json").read_text())["skerry"]

    def call(name: str, args: dict[str, Any]) -> Any:
        body = json.dumps({"path": described["funcs"][name], "args": args, "format": "json"}).encode()
        request = urllib.request.Request(served + described["urls"][name], body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=_SECONDS_MAX) as answer:
            parsed = json.load(answer)
        assert parsed["status"] == "success", parsed
        return parsed["value"]

    assert call("add", {"x": 1, "y": 2}) == 3
    assert call("seed", {"lo": 0, "hi": 100}) is None
    assert call("transfer", {"from": 3, "to": 8, "amount": 5}) is None
    assert call("get", {"id": 8}) == {"id": 8, "balance": 1_000_005}
    listed = call("list", {"grp": 0})
    assert [document["seq"] for document in listed] == list(range(100))
    assert 195 <= len(json.dumps(listed[50], separators=(",", ":"))) <= 215
    assert call("check", {"lo": 0, "hi": 100}) == {"n": 100, "sum": 100_000_000, "wsum": 1_000_000 * 4950 + 5 * (8 - 3)}


def _wait_for_port(port: int, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + _SECONDS_MAX
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=_SECONDS_MAX).close()
            return
        except (urllib.error.URLError, ConnectionError):
            assert process.poll() is None, process.stderr.read().decode() if process.stderr else ""
    raise AssertionError("nothing answered")
