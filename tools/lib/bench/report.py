"""What a run found: rows with their targets, the machine they were measured on, as Markdown and as JSON."""

import json
import math
import os
import platform
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Row:
    """One measured number. Shape: `at_most` or `at_least` where there is a target; `note` belongs beside the number."""

    what: str
    value: float
    unit: str
    at_most: float | None = None
    at_least: float | None = None
    note: str = ""

    def verdict(self) -> str:
        """Whether the target was met on this machine; empty without a target."""
        if self.at_most is not None:
            return "yes" if self.value <= self.at_most else "NO"
        if self.at_least is not None:
            return "yes" if self.value >= self.at_least else "NO"
        return ""

    def target(self) -> str:
        if self.at_most is not None:
            return f"<= {_number(self.at_most)}"
        return "" if self.at_least is None else f">= {_number(self.at_least)}"


@dataclass
class Section:
    """One table. Shape: `rows`, and `lines` of plain words below them."""

    title: str
    rows: list[Row] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    def markdown(self) -> str:
        head = ["| what | measured | target | met | note |", "|---|--:|--:|---|---|"]
        body = [
            f"| {row.what} | {_number(row.value)} {row.unit} | {row.target()} | {row.verdict()} | {row.note} |"
            for row in self.rows
        ]
        table = [*head, *body, ""] if self.rows else []
        return "\n".join([f"### {self.title}", "", *table, *self.lines])


def percentile(samples: Sequence[float], share: float) -> float:
    """The smallest sample that `share` of all samples do not exceed."""
    assert samples, "nothing was measured"
    return sorted(samples)[max(1, math.ceil(share * len(samples))) - 1]


def slope(points: Sequence[tuple[float, float]]) -> float:
    """How much y grows when x grows by one (least squares)."""
    return statistics.linear_regression([x for x, _ in points], [y for _, y in points]).slope


def machine(folder: Path) -> dict[str, Any]:
    """Where the numbers come from, and how fast that machine is right now, beside whatever else runs on it."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "cpu": _cpu_model(),
        "python": platform.python_version(),
        "kernel": platform.release(),
        **{name: version(name) for name in ("wasmtime", "lmdb", "orjson", "uvicorn", "uvloop", "httptools")},
        "load_average": os.getloadavg()[0],
        "python_loop_ms": round(_python_loop_ms(), 2),
        "fdatasync_us": round(_fdatasync_us(folder)),
    }


def machine_line(facts: dict[str, Any]) -> str:
    """The facts in a sentence."""
    packages = ", ".join(
        f"{name} {facts[name]}" for name in ("wasmtime", "lmdb", "orjson", "uvicorn", "uvloop", "httptools")
    )
    return (
        f"{facts['cores']} cores of {facts['cpu']}, Linux {facts['kernel']}, Python {facts['python']}, {packages}. "
        f"Load average {facts['load_average']:.1f}; a fixed Python loop takes {facts['python_loop_ms']} ms, "
        f"fdatasync of a 4 KiB page {facts['fdatasync_us']} us."
    )


def write_json(path: Path, facts: dict[str, Any], seed: int, effort: str, sections: Sequence[Section]) -> None:
    """Everything, for machines."""
    tables = [
        {"title": s.title, "rows": [{**asdict(row), "met": row.verdict() or None} for row in s.rows], "lines": s.lines}
        for s in sections
    ]
    path.write_text(json.dumps({"machine": facts, "seed": seed, "effort": effort, "sections": tables}, indent=1) + "\n")


def _number(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _python_loop_ms() -> float:
    begin = time.perf_counter()
    total = 0
    for i in range(300_000):
        total += i * i
    return (time.perf_counter() - begin) * 1e3


def _fdatasync_us(folder: Path) -> float:
    """What making one page durable costs: the floor under every mutation that is answered alone."""
    path = folder / "fdatasync.page"
    samples: list[float] = []
    handle = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        os.pwrite(handle, bytes(4096), 0)
        os.fsync(handle)
        for i in range(60):
            os.pwrite(handle, bytes([i]) * 4096, 0)
            begin = time.perf_counter()
            os.fdatasync(handle)
            samples.append((time.perf_counter() - begin) * 1e6)
    finally:
        os.close(handle)
        path.unlink()
    return statistics.median(samples)
