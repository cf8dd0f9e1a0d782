"""The load generator (load.c): built once into the cache, run as a process beside the server."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.apps import GROUP_SIZE, bench_folder
from bench.server import Server

_FOLDER = Path(__file__).parent
_SHARED = _FOLDER / "measure.h"
_FLAGS = ("-O2", "-Wall", "-Wextra", "-Werror", "-fno-sanitize=undefined")

# workload -> (route, function); one that load.c does not know looks to it like one of `_ALIKE`
_ALIKE = {"action": "add", "note": "add", "move-note": "add"}
_CALLS = {
    "action": ("/api/action", "app:fetchAndAdd"),
    "add": ("/api/query", "app:add"),
    "cached": ("/api/query", "bank:get"),
    "get": ("/api/query", "bank:get"),
    "list": ("/api/query", "bank:list"),
    "move-note": ("/api/mutation", "notes:move"),
    "note": ("/api/mutation", "notes:write"),
    "transfer": ("/api/mutation", "bank:transfer"),
    "transfer-by-id": ("/api/mutation", "bank:transferById"),
}


@dataclass(frozen=True)
class Load:
    """What is asked for. Shape: `alpha` 0 for uniform accounts; `every_ms` 0 for a closed loop, else a timetable."""

    workload: str
    accounts: int
    connections: int
    warmup_s: float
    window_s: float
    seed: int
    alpha: float = 0
    every_ms: float = 0
    ids: Path | None = None

    def arguments(self, port: int) -> list[str]:
        url, function = _CALLS[self.workload]
        pairs = {
            "port": port,
            "url": url,
            "function": function,
            "workload": _ALIKE.get(self.workload, self.workload),
            "accounts": self.accounts,
            "groups": self.accounts // GROUP_SIZE,
            "per-group": GROUP_SIZE,
            "alpha": self.alpha,
            "connections": self.connections,
            "warmup": self.warmup_s,
            "seconds": self.window_s,
            "every-ms": self.every_ms,
            "seed": self.seed,
        }
        if self.ids is not None:
            pairs["ids"] = str(self.ids)
        return [word for name, value in pairs.items() for word in (f"--{name}", str(value))]


def build_generator(name: str) -> Path:
    """A program beside this file, compiled for this machine where it is not there yet."""
    source = _FOLDER / name
    digest = hashlib.sha256(source.read_bytes() + _SHARED.read_bytes() + repr(_FLAGS).encode()).hexdigest()[:16]
    built = bench_folder() / f"{source.stem}-{digest}"
    if not built.is_file():
        scratch = built.with_suffix(".new")
        command = [sys.executable, "-m", "ziglang", "cc", *_FLAGS, str(source), "-o", str(scratch), "-lm"]
        subprocess.run(command, check=True)
        scratch.replace(built)
    return built


def run_loads(server: Server, loads: Sequence[Load]) -> list[dict[str, Any]]:
    """Runs loads at the same time; what each reports, with the workers' CPU over the first one's window.

    Raises: RuntimeError where a generator ends badly.
    """
    program = build_generator("load.c")
    running = [
        subprocess.Popen([str(program), *load.arguments(server.port)], stdout=subprocess.PIPE, text=True)
        for load in loads
    ]
    try:
        _expect(running[0], "begin\n")
        cpu_s = server.cpu_s()
        _expect(running[0], "end\n")
        cpu_s, pss_mb = server.cpu_s().since(cpu_s), server.pss_mb()
        reports = [_report(process) for process in running]
    finally:
        for process in running:
            if process.poll() is None:
                process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()
    for report, load in zip(reports, loads, strict=True):
        report["errors"] = sum(report[name] for name in ("failed", "refused", "broken", "lost"))
        report["supervisor_cpu_s"] = cpu_s.supervisor
        report["server_cores"] = cpu_s.workers / load.window_s
        report["server_cpu_us"] = cpu_s.workers * 1e6 / max(1, sum(other["requests"] for other in reports))
        report["pss_mb"] = pss_mb
    return reports


def _expect(process: "subprocess.Popen[str]", word: str) -> None:
    assert process.stdout is not None
    said = process.stdout.readline()
    if said != word:
        raise RuntimeError(f"the load generator said {said!r} in place of {word!r}, status {process.poll()}")


def _report(process: "subprocess.Popen[str]") -> dict[str, Any]:
    assert process.stdout is not None
    last = process.stdout.read().splitlines()[-1:]
    if process.wait() != 0 or not last:
        raise RuntimeError(f"the load generator ended with status {process.returncode}")
    report: dict[str, Any] = json.loads(last[0])
    return report
