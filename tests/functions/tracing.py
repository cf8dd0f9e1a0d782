"""Everything that a call does, as plain data: what determinism tests compare.

Run as a program, it prints the traces of every fixture call for a language: `tracing NAME BUNDLE FOLDER COMPILED SEED`.
"""

import sys
import time
from pathlib import Path
from typing import Any

import orjson

from skerry import limits
from skerry.functions.execution import parse_arguments, run_function
from skerry.functions.failures import FunctionFailure
from skerry.functions.frame import Call
from skerry.isolate import CpuBudget, CpuSlice, linker_of_this_thread
from tests.fixtures.world import World, request

# Everything that may differ between two runs is drawn on: time, randomness, ids, scans, failures, called functions.
CALLS: list[tuple[str, dict[str, Any]]] = [
    ("f:echo", {"value": [1.5, "x", {"$integer": "AQAAAAAAAAA="}]}),
    ("f:add", {"x": 0.1, "y": 0.2}),
    ("f:clock", {}),
    ("f:random", {}),
    ("f:insert", {"n": 1, "body": "one"}),
    ("f:list", {"n": 1}),
    ("f:first", {"n": 1}),
    ("f:page", {"n": 1, "size": 2, "cursor": None}),
    ("f:caughtId", {}),
    ("f:refusedId", {}),
    ("f:fail", {}),
    ("f:failWithData", {}),
    ("f:log", {"text": "line"}),
    ("f:callTwo", {}),
    ("f:callMutation", {"n": 2}),
    ("f:catchSub", {"n": 3}),
    ("f:depth", {"n": 8}),
]


def trace(world: World, path: str, args: dict[str, Any], seed: bytes, now_ms: float, *, patient: bool) -> Any:
    """One call's result, log, reads and writes; nothing is committed."""
    version = world.deployment.version
    assert version is not None
    version.stacks.locate("    at f (app.js:1:1)")  # decoded already: a call does not leave its slice for that
    spec = version.functions[path]
    transaction = world.deployment.database.begin(
        writable=spec.kind == "mutation", now_ms=now_ms, seed=seed, detached=patient
    )
    linker = linker_of_this_thread()
    budget = (CpuBudget if patient else CpuSlice)(time.thread_time_ns, limits.GUEST_CPU_MS_MAX)
    call = Call(version, request(spec.kind, path), transaction, linker, seed, budget)
    try:
        try:
            outcome: Any = run_function(call, spec, parse_arguments(orjson.dumps(args)), 0).decode()
        except FunctionFailure as failure:
            outcome = [failure.text, (failure.data or b"").decode()]
        read_set = transaction.read_set
        return {
            "path": path,
            "outcome": outcome,
            "logs": call.log_lines,
            "steps": budget.steps,
            "documents": sorted(key.hex() for key in read_set.documents),
            "ranges": [[number, lower.hex(), upper and upper.hex()] for number, lower, upper in read_set.ranges],
            "writes": [[write.table.name, write.internal_id.hex(), (write.json or b"").decode()]
                       for write in transaction.write_set],
        }  # fmt: skip
    finally:
        transaction.abort()


def traces(world: World, seed: bytes, *, patient: bool) -> list[Any]:
    return [trace(world, path, args, seed, 1_760_000_000_123.0, patient=patient) for path, args in CALLS]


def main() -> None:
    name, bundle, folder, compiled, seed = sys.argv[1:]
    with World(Path(folder), Path(compiled), name=name) as world:
        world.activate(Path(bundle).read_bytes())
        sys.stdout.buffer.write(orjson.dumps(traces(world, bytes.fromhex(seed), patient=False)))


if __name__ == "__main__":
    main()
