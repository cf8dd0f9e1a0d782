"""`tools/bench noisy`: what a deployment notices of a neighbour that does its worst.

The neighbour's small queries and mutations come on a timetable, about a hundred a second together, and count from the
moment they were due. The offender is another deployment of the same server, asked at its own rate whatever it
answers, by a process of lower priority; each offence lasts as long as a window.
"""

import asyncio
import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from bench.apps import BENCH_APP, build, bundle_of
from bench.effort import Effort
from bench.load import Load, run_loads
from bench.report import Row, Section
from bench.server import Server

_NOISY_APP = Path(__file__).parent / "noisy"
_NAME = "noisy"
_CONNECTIONS = 4
_EVERY_MS = 80.0  # of each connection: with four of each kind a hundred calls a second
_RATIO_MAX = 2.0
_DEEP_FUNCTIONS = 3_000  # of the module whose source map the deep stacks need
_UNION_LEVELS = 8
_UNION_VALUES = 100

# offence -> (function, calls a second, calls at once)
_OFFENCES: dict[str, tuple[str, int, int]] = {
    "floods": ("n:flood", 2_000, 64),
    "loops": ("n:loop", 20, 16),
    "hoards memory": ("n:hoard", 50, 16),
    "crashes its guests": ("n:crash", 100, 16),
    "sorts": ("n:sort", 50, 16),
    "logs": ("n:logs", 100, 16),
    "reads in a loop": ("n:ask", 20, 16),
    "logs in a loop, in an action": ("n:askInAction", 20, 16),
    "filters 32,000 documents with 200 operators": ("n:filter", 20, 16),
    "validates exponential unions": ("n:union", 100, 16),
    "throws deep stacks with a huge source map": ("deep:fail", 100, 16),
}


def run_noisy(folder: Path, effort: Effort, seed: int) -> list[Section]:
    """The neighbour's p99 quiet and beside each offence, and their ratio."""
    is_smoke = effort.name == "smoke"
    accounts = min(effort.accounts, 2_000)
    section = Section("A neighbour's small calls, a hundred a second, beside a deployment that does its worst")
    section.lines.append(
        "- The ratio is to the quieter of the windows before and after; p99 of queries and of mutations."
    )
    with Server(folder / "noisy") as server:
        server.deploy(bundle_of(BENCH_APP).read_bytes())
        server.seed(accounts)
        _deploy_offender(server, folder, 32_000 if effort.name == "full" else 200 if is_smoke else 8_000)
        loads = [
            Load(workload, accounts, _CONNECTIONS, effort.warmup_s, effort.window_s, seed + n, every_ms=_EVERY_MS)
            for n, workload in enumerate(("get", "transfer"))
        ]
        quiet = _p99s(server, loads)
        found = {
            offence: _beside(server, loads, offence, effort.warmup_s * 2 + effort.window_s) for offence in _OFFENCES
        }
        after = _p99s(server, loads)
        quiet = tuple(min(pair) for pair in zip(quiet, after, strict=True))
        for what, p99 in zip(("query", "mutation"), quiet, strict=True):
            section.rows.append(Row(f"small {what}, quiet, p99", p99, "ms"))
        for offence, (p99s, answers) in found.items():
            told = ", ".join(f"{count} x {status}" for status, count in sorted(answers.items())) or "nothing answered"
            for what, p99, alone in zip(("query", "mutation"), p99s, quiet, strict=True):
                goal = None if is_smoke else _RATIO_MAX
                row = Row(f"{what}, neighbour {offence}", p99 / alone, "x", at_most=goal, note=f"p99 {p99:.2f} ms")
                section.rows.append(row)
            section.lines.append(f"- {offence}: {told}")
    return [section]


def _p99s(server: Server, loads: list[Load]) -> tuple[float, ...]:
    reports = run_loads(server, loads)
    for report in reports:
        if report["errors"]:
            raise RuntimeError(f"the neighbour's own calls failed: {report}")
    return tuple(report["p99_us"] / 1e3 for report in reports)


def _beside(
    server: Server, loads: list[Load], offence: str, seconds: float
) -> tuple[tuple[float, ...], dict[str, int]]:
    function, rate, at_once = _OFFENCES[offence]
    words = [str(server.port), function, str(rate), str(at_once), str(seconds)]
    process = subprocess.Popen([sys.executable, "-m", "bench.noisy_bench", *words], stdout=subprocess.PIPE, text=True)
    try:
        p99s = _p99s(server, loads)
        told, _ = process.communicate(timeout=seconds + 60)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    return p99s, json.loads(told)


def _deploy_offender(server: Server, folder: Path, rows: int) -> None:
    app = folder / "offender"
    shutil.copytree(_NOISY_APP, app)
    lines = ['import { queryGeneric } from "convex/server";', 'import { v } from "convex/values";']
    lines += [
        f"const f{n} = (x: number): number => {{ if (x < 0) throw new Error('deep'); return f{n + 1}(x - {n % 7}); }};"
        for n in range(_DEEP_FUNCTIONS)
    ]
    lines.append(f"const f{_DEEP_FUNCTIONS} = (x: number): number => {{ throw new Error(`at the end of ${{x}}`); }};")
    begin = _DEEP_FUNCTIONS - 200
    lines.append(f"export const fail = queryGeneric({{ args: {{ a: v.any() }}, handler: async () => f{begin}(1e9) }});")
    (app / "convex" / "deep.ts").write_text("\n".join(lines))
    server.create(_NAME)
    server.deploy(build(app), _NAME)
    for _ in range(0, rows, 2_000):
        server.call("mutation", "n:fill", {"n": min(rows, 2_000)}, _NAME)


# -- the offender's process ------------------------------------------------------------------------------------------


def _request(port: int, function: str, number: int) -> bytes:
    """Shape: `number` is another for each request, so that none is told what was kept for another."""
    value: Any = {"a": "innermost"}
    for _ in range(_UNION_LEVELS):
        value = {"a": value, "b": "second"}
    args = {"a": [value] * _UNION_VALUES if function == "n:union" else number}
    body = json.dumps({"path": function, "args": args}).encode()
    kind = "action" if function.endswith("InAction") else "query"
    head = f"POST /d/{_NAME}/api/{kind} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def _offend(port: int, function: str, rate: int, at_once: int, seconds: float) -> Counter[str]:
    """Asks on a timetable, over as many connections as may wait at once; what is due while all wait is dropped."""
    answers, numbers = Counter[str](), itertools.count()
    end = time.monotonic() + seconds

    async def connection(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        due = time.monotonic() + number / rate
        while (now := time.monotonic()) < end:
            if now < due:
                await asyncio.sleep(due - now)
            due = max(due + at_once / rate, now)
            writer.write(_request(port, function, next(numbers)))
            head = await reader.readuntil(b"\r\n\r\n")
            answers[head[9:12].decode()] += 1
            length = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
            await reader.readexactly(int(length.partition(b":")[2]))
        writer.close()

    tasks = [asyncio.ensure_future(connection(number)) for number in range(at_once)]
    await asyncio.wait(tasks, timeout=seconds + 20)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return answers


if __name__ == "__main__":
    os.nice(10)
    given_port, given_function, *numbers = sys.argv[1:]
    found = asyncio.run(_offend(int(given_port), given_function, int(numbers[0]), int(numbers[1]), float(numbers[2])))
    print(json.dumps(found))
