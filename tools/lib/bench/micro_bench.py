"""`tools/bench micro`: what one call costs inside the process, and where each of its microseconds goes."""

import asyncio
import os
import random
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import uvloop

from bench.apps import BENCH_APP, GROUP_SIZE, bundle_of
from bench.effort import Effort
from bench.probes import PART_NAMES, Probes
from bench.report import Row, Section, percentile, slope
from skerry.bundle.bundle_file import read_bundle
from skerry.bundle.engine_build import build_c_guest
from skerry.bundle.folders import cache_folder
from skerry.errors import SkerryError
from skerry.functions.deployment import Deployment
from skerry.functions.request import CallRequest, CallResult
from skerry.isolate import CompiledModule, CpuBudget, Isolate, ModuleCache, get_engine, linker_of_this_thread

_GROUPS = 10
_TIMES = (0, 10, 20, 40)
_SEED_STEP = 500
_CPU_MS_MAX = 1000
_IN_FLIGHT = 64


def run_micro(folder: Path, effort: Effort, seed: int) -> list[Section]:
    """Isolates alone, then whole calls, then the parts of whole calls."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run(folder, effort, random.Random(seed)))


async def _run(folder: Path, effort: Effort, chance: random.Random) -> list[Section]:
    sections = [_isolates(effort)]
    deployment = Deployment(
        folder / "micro",
        name="local",
        clock_ns=time.time_ns,
        entropy=os.urandom,
        host_key=b"b" * 32,
        loop=asyncio.get_running_loop(),
        compiled_cache=None,
        production=False,
    )
    try:
        await deployment.activate(bundle_of(BENCH_APP).read_bytes())
        calls = Calls(deployment)
        for lo in range(0, _GROUPS * GROUP_SIZE, _SEED_STEP):
            await calls.result("mutation", "bank:seed", {"lo": lo, "hi": lo + _SEED_STEP})
        sections.append(await _whole_calls(calls, effort, chance))
        sections += await _parts(calls, effort, chance)
    finally:
        await deployment.close()
    return sections


# -- isolates alone ------------------------------------------------------------------------------------------------


class _NoData:
    """A host for functions that ask for nothing."""

    def clock_ns(self) -> int:
        return 0

    def entropy(self, length: int) -> bytes:
        return bytes(length)

    def output(self, level: str, data: bytes) -> None:
        raise AssertionError("the bench's functions print nothing")


def _isolates(effort: Effort) -> Section:
    section = Section("A fresh isolate and one trivial query, in process")
    modules = ModuleCache(get_engine(), None, b"bench")
    typescript = modules.load(read_bundle(bundle_of(BENCH_APP).read_bytes()).image)
    guest = modules.load(build_c_guest(Path(__file__).with_name("guest.c").read_text(), cache_folder()))
    for name, module, p50, p99 in (("TypeScript", typescript, 100, 300), ("C", guest, 50, None)):
        samples, faults, kernel_us = _time_isolates(module, effort.calls)
        phases = zip(("start", "run", "drop"), zip(*samples, strict=True), strict=True)
        note = ", ".join(f"{phase} {percentile(times, 0.5):.1f}" for phase, times in phases)
        whole = [sum(sample) for sample in samples]
        section.rows += [
            Row(
                f"{name} guest, p50",
                percentile(whole, 0.5),
                "us",
                at_most=p50,
                note=f"{note}; {faults:.0f} minor faults, {kernel_us:.0f} us in the kernel",
            ),
            Row(f"{name} guest, p99", percentile(whole, 0.99), "us", at_most=p99),
        ]
    return section


def _time_isolates(module: CompiledModule, calls: int) -> tuple[list[tuple[float, float, float]], float, float]:
    """Microseconds to start, run and drop, for each call; on average: minor faults, and microseconds in the kernel."""
    name, arguments = b"app:add", b'[{"x":1,"y":2}]'
    request = b"".join((*(n.to_bytes(4, "little") for n in (0, len(name), 0, len(arguments))), name, arguments))
    linker, host, now = linker_of_this_thread(), _NoData(), time.perf_counter_ns
    samples: list[tuple[float, float, float]] = []
    for _ in range(calls // 5 + 1):
        Isolate(linker, module, host, {}, CpuBudget(time.thread_time_ns, _CPU_MS_MAX)).close()
    before = resource.getrusage(resource.RUSAGE_THREAD)
    for _ in range(calls):
        begin = now()
        isolate = Isolate(linker, module, host, {}, CpuBudget(time.thread_time_ns, _CPU_MS_MAX))
        started = now()
        outcome = isolate.invoke(request)
        ran = now()
        isolate.close()
        dropped = now()
        assert outcome == (0, b"3"), outcome
        samples.append(((started - begin) / 1e3, (ran - started) / 1e3, (dropped - ran) / 1e3))
    after = resource.getrusage(resource.RUSAGE_THREAD)
    return samples, (after.ru_minflt - before.ru_minflt) / calls, (after.ru_stime - before.ru_stime) * 1e6 / calls


def _minor_faults() -> int:
    return resource.getrusage(resource.RUSAGE_THREAD).ru_minflt


# -- whole calls ---------------------------------------------------------------------------------------------------


class Calls:
    """Calls of a deployment, timed on the loop thread.

    A call that outran its inline slice (the machine is shared) ran elsewhere: it is waited for and not counted, and its
    function is taken for quick again.
    """

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        self.outran = 0

    async def result(self, kind: str, path: str, args: dict[str, Any]) -> Any:
        """The value of one call."""
        outcome = await self.deployment.run(_request(kind, path, args))
        assert outcome.ok, outcome.error_message
        return orjson.loads(outcome.value)

    async def sample(self, kind: str, path: str, args: dict[str, Any]) -> tuple[float, float] | None:
        """Microseconds on the loop thread, and until the answer may leave; None where it did not stay inline."""
        version, lane = self.deployment.version, self.deployment.lane
        assert version is not None
        request = _request(kind, path, args)
        answered: asyncio.Future[CallResult | SkerryError] = asyncio.get_running_loop().create_future()
        patient = lane.calls_patient
        await asyncio.sleep(0)
        begin = time.perf_counter_ns()
        self.deployment.call(request, answered.set_result)
        returned = time.perf_counter_ns()
        outcome = await answered
        done = time.perf_counter_ns()
        assert isinstance(outcome, CallResult) and outcome.ok, getattr(outcome, "error_message", outcome)
        if lane.calls_patient != patient:
            self.outran += 1
            version.functions[path].slowness = 0
            return None
        return (returned - begin) / 1e3, (done - begin) / 1e3

    async def samples(
        self, count: int, kind: str, path: str, args: Callable[[], dict[str, Any]]
    ) -> list[tuple[float, float]]:
        """That many calls that stayed inline."""
        for _ in range(count // 5 + 1):
            await self.sample(kind, path, args())
        found: list[tuple[float, float]] = []
        for _ in range(4 * count):
            taken = await self.sample(kind, path, args())
            if taken is not None:
                found.append(taken)
            if len(found) == count:
                return found
        raise RuntimeError(f"{path} does not stay within its inline slice on this machine")


def _request(kind: str, path: str, args: dict[str, Any]) -> CallRequest:
    request = CallRequest(kind=kind, path=path, args=orjson.dumps(args), request_id="0123456789abcdef")
    request.is_repeated = True  # each call is to run, and no answer to be kept
    return request


async def _whole_calls(calls: Calls, effort: Effort, chance: random.Random) -> Section:
    section = Section("A whole call, in process")
    count = effort.calls
    faults = _minor_faults()
    add = await calls.samples(count, "query", "app:add", lambda: {"x": 1, "y": 2})
    faults_each = (_minor_faults() - faults) / (len(add) * 1.2)  # the warm-up's calls fault too
    section.rows += [
        Row(
            "trivial query, p50",
            percentile([us for us, _ in add], 0.5),
            "us",
            at_most=150,
            note=f"{faults_each:.0f} minor faults a call",
        ),
        Row("trivial query, p99", percentile([us for us, _ in add], 0.99), "us"),
    ]
    document = await calls.result("query", "micro:anId", {"grp": 3})
    for name, path, args, limit in (
        ("ctx.db.get of a 200-byte document", "micro:gets", {"id": document}, 40.0),
        ("ctx.db.insert of a 200-byte document", "micro:inserts", {}, None),
        ("ctx.db.patch of a 200-byte document", "micro:patches", {"id": document}, None),
    ):
        section.rows.append(await _marginal(calls, count // 4 + 5, name, path, args, limit))
    groups = lambda: {"grp": chance.randrange(_GROUPS)}  # noqa: E731 - an argument maker like its neighbours below
    for name, path in (
        ("collect of 100 documents of 200 bytes", "micro:count"),
        ("the same, returned to the caller", "bank:list"),
    ):
        listed = await calls.samples(count // 4 + 5, "query", path, groups)
        section.rows.append(Row(f"{name}, p50", percentile([us for us, _ in listed], 0.5), "us"))
    for name, path, args in await _transfers(calls, chance):
        moved = await calls.samples(count // 2 + 5, "mutation", path, args)
        durable = percentile([us for _, us in moved], 0.5)
        section.rows.append(
            Row(
                f"{name}, p50 on the lane",
                percentile([us for us, _ in moved], 0.5),
                "us",
                note=f"{durable:.0f} us until durable, one at a time",
            )
        )
    for name, kind, path, args in await _watched(calls, chance):
        cpu_us = await _busy(calls, count, kind, path, args)
        section.rows.append(
            Row(f"{name}, {_IN_FLIGHT} in flight, CPU", cpu_us, "us", note="of the loop thread, for each call")
        )
    if calls.outran:
        section.lines.append(f"- {calls.outran} calls outran their inline slice and are not counted.")
    return section


async def _watched(calls: Calls, chance: random.Random) -> list[tuple[str, str, str, Callable[[], dict[str, Any]]]]:
    """The four calls that are looked at in detail: name, kind, path, and what makes their arguments."""
    return [
        ("trivial query", "query", "app:add", lambda: {"x": 1, "y": 2}),
        ("list of 100", "query", "bank:list", lambda: {"grp": chance.randrange(_GROUPS)}),
        *((name, "mutation", path, args) for name, path, args in await _transfers(calls, chance)),
    ]


async def _busy(calls: Calls, count: int, kind: str, path: str, args: Callable[[], dict[str, Any]]) -> float:
    """Microseconds of the loop thread's CPU for each call while commits share their syncs, as they do under load.

    CPU time is the number that a busy machine disturbs least, and its inverse bounds the calls of a second.
    """
    requests = [_request(kind, path, args()) for _ in range(max(count, _IN_FLIGHT))]
    all_done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    left, todo = len(requests), iter(requests)

    def done(outcome: CallResult | SkerryError) -> None:
        nonlocal left
        assert isinstance(outcome, CallResult) and outcome.ok, getattr(outcome, "error_message", outcome)
        left -= 1
        following = next(todo, None)
        if following is not None:
            asyncio.get_running_loop().call_soon(calls.deployment.call, following, done)
        elif left == 0:
            all_done.set_result(None)

    begin = time.thread_time_ns()
    for request in [next(todo) for _ in range(_IN_FLIGHT)]:
        calls.deployment.call(request, done)
    await all_done
    return (time.thread_time_ns() - begin) / 1e3 / len(requests)


async def _marginal(calls: Calls, count: int, name: str, path: str, args: dict[str, Any], limit: float | None) -> Row:
    points: list[tuple[float, float]] = []
    kind = "query" if path == "micro:gets" else "mutation"
    for times in _TIMES:
        taken = await calls.samples(count, kind, path, lambda times=times: {**args, "times": times})
        points.append((times, percentile([us for us, _ in taken], 0.5)))
    return Row(
        name,
        slope(points),
        "us",
        at_most=limit,
        note=f"slope over {_TIMES} in one call, p50; {points[0][1]:.0f} us without any",
    )


async def _transfers(calls: Calls, chance: random.Random) -> list[tuple[str, str, Callable[[], dict[str, Any]]]]:
    accounts = _GROUPS * GROUP_SIZE
    ids: list[str] = await calls.result("query", "bank:ids", {"lo": 0, "hi": accounts})

    def by_id() -> dict[str, Any]:
        payer, payee = chance.sample(ids, 2)
        return {"from": payer, "to": payee, "amount": 1}

    def by_number() -> dict[str, Any]:
        payer, payee = chance.sample(range(accounts), 2)
        return {"from": payer, "to": payee, "amount": 1}

    return [
        ("transfer by document id", "bank:transferById", by_id),
        ("transfer by unique index", "bank:transfer", by_number),
    ]


# -- the parts of a call -------------------------------------------------------------------------------------------


async def _parts(calls: Calls, effort: Effort, chance: random.Random) -> list[Section]:
    """Where the microseconds of four calls go, one column each; one call at a time."""
    watched = await _watched(calls, chance)
    columns: list[list[float]] = []
    with Probes() as probes:
        lane = calls.deployment.lane
        kept, lane._linker = lane._linker, None  # the lane takes the thread's linker anew, with its probes
        try:
            for _, kind, path, args in watched:
                columns.append(await _profile(calls, probes, effort.calls // 4 + 5, kind, path, args))
        finally:
            lane._linker = kept
    section = Section("Where each microsecond goes (mean, on the loop thread, the timers' own cost taken off)")
    section.lines = ["| part | " + " | ".join(name for name, *_ in watched) + " |", "|---|" + "--:|" * len(watched)]
    for part, values in zip(
        (*PART_NAMES, "**together**"), zip(*([*c, sum(c)] for c in columns), strict=True), strict=True
    ):
        section.lines.append(f"| {part} | " + " | ".join(f"{value:.1f}" if value else "-" for value in values) + " |")
    return [section]


async def _profile(
    calls: Calls, probes: Probes, count: int, kind: str, path: str, args: Callable[[], dict[str, Any]]
) -> list[float]:
    """Microseconds in each part: the mean of the middle half of the calls, so that no pause counts."""
    taken: list[list[float]] = []
    for number in range(count + count // 5):
        probes.reset()
        inline = await calls.sample(kind, path, args())
        parts = probes.take()
        if inline is not None and number >= count // 5:
            taken.append(parts)
    taken.sort(key=sum)
    middle = taken[len(taken) // 4 : max(len(taken) // 4 + 1, 3 * len(taken) // 4)]
    return [statistics.mean(part) for part in zip(*middle, strict=True)]
