"""Isolates driven without a deployment: one call, its outcome as (status, JSON), everything the guest said kept."""

import time
from collections.abc import Mapping
from typing import Any

import orjson

from skerry.isolate import CpuBudget, Hostcall, Isolate, ModuleCache, linker_of_this_thread
from skerry.isolate.build_runner import LOAD_OPERATIONS, LoadHost

CLOCK_MS = 1_760_000_000_123
CPU_MS_MAX = 20_000  # far more than any call here needs on a busy machine


def host() -> LoadHost:
    return LoadHost(CLOCK_MS, bytes(32))


def request(function: str, args: str = "[{}]", kind: int = 0) -> bytes:
    name, request_id, arguments = function.encode(), b"r1", args.encode()
    header = b"".join(number.to_bytes(4, "little") for number in (kind, len(name), len(request_id), len(arguments)))
    return header + name + request_id + arguments


def open_isolate(
    cache: ModuleCache,
    wasm: bytes,
    *,
    operations: Mapping[bytes, Hostcall] = LOAD_OPERATIONS,
    asked: LoadHost | None = None,
    cpu_ms_max: int = CPU_MS_MAX,
) -> Isolate:
    """A patient isolate on this thread. Close it."""
    budget = CpuBudget(time.thread_time_ns, cpu_ms_max)
    return Isolate(linker_of_this_thread(), cache.load(wasm), asked or host(), operations, budget)


def call(cache: ModuleCache, wasm: bytes, function: str, args: str = "[{}]", **more: Any) -> tuple[int, Any]:
    """One call in an isolate of its own."""
    isolate = open_isolate(cache, wasm, **more)
    try:
        status, payload = isolate.invoke(request(function, args))
        return status, orjson.loads(payload) if payload else None
    finally:
        isolate.close()
