"""`tools/bench mixed`: how quick small calls stay while a mutation of a second runs, beside how quick they are alone.

The small calls come on a timetable and count from the moment they were due, so a server that stands still shows it.
"""

import threading
import time
from pathlib import Path

from bench.apps import BENCH_APP, bundle_of
from bench.effort import Effort
from bench.load import Load, run_loads
from bench.report import Row, Section
from bench.server import Server

_EVERY_MS = 20.0
_FIRST_ROUNDS = 200_000
_GROUPS_MIN = 200


def run_mixed(folder: Path, effort: Effort, seed: int) -> list[Section]:
    """The latencies of small queries and mutations, without and with a long mutation beside them."""
    connections = min(8, effort.connections)
    section = Section(f"Small calls, {2 * connections} of them every {_EVERY_MS:.0f} ms")
    accounts = min(effort.accounts, _GROUPS_MIN * 100)
    with Server(folder / "mixed") as server:
        server.deploy(bundle_of(BENCH_APP).read_bytes())
        server.seed(accounts)
        rounds = _rounds_for(server, 1.0 if effort.name != "smoke" else 0.1)
        loads = [
            Load(workload, accounts, connections, effort.warmup_s, effort.window_s, seed + number, every_ms=_EVERY_MS)
            for number, workload in enumerate(("add", "transfer"))
        ]
        for beside in (False, True):
            stop = threading.Event()
            taken: list[float] = []
            thread = threading.Thread(target=_think_on, args=(server, rounds, stop, taken))
            if beside:
                thread.start()
            try:
                reports = run_loads(server, loads)
            finally:
                stop.set()
                if beside:
                    thread.join()
            words = "beside a long mutation" if beside else "alone"
            for what, report in zip(("query", "mutation"), reports, strict=True):
                p50_ms, max_ms = report["p50_us"] / 1e3, report["max_us"] / 1e3
                note = f"p50 {p50_ms:.2f} ms, max {max_ms:.1f} ms, {report['errors']} errors"
                section.rows.append(Row(f"small {what} {words}, p99", report["p99_us"] / 1e3, "ms", note=note))
            if taken:
                section.lines.append(
                    f"- The long mutation took {min(taken):.2f} to {max(taken):.2f} s and ran {len(taken)} times."
                )
    return [section]


def _rounds_for(server: Server, seconds: float) -> int:
    """How many rounds of thinking take about that long here."""
    spent = 0.0
    for _ in range(3):  # the first ones find out that this function is slow, and move it off the lane
        begin = time.perf_counter()
        server.call("mutation", "micro:think", {"rounds": _FIRST_ROUNDS})
        spent = time.perf_counter() - begin
    return max(1, int(_FIRST_ROUNDS * seconds / spent))


def _think_on(server: Server, rounds: int, stop: threading.Event, taken: list[float]) -> None:
    while not stop.is_set():
        begin = time.perf_counter()
        server.call("mutation", "micro:think", {"rounds": rounds})
        taken.append(time.perf_counter() - begin)
