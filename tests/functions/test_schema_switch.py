"""A schema that takes long to apply: everybody's calls go on, queries and mutations, inline and patient."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from skerry import limits
from skerry.bundle.build import build_app
from skerry.database import backfill, judging, steps
from skerry.errors import SkerryError, SystemFault
from skerry.functions import stepping
from skerry.functions.deployment import Deployment
from skerry.functions.stepping import Room
from skerry.isolate import build_runner_at
from skerry.storage import lmdb_engine
from tests.fixtures import shared
from tests.fixtures.hostile_bundle import hostile_bundle
from tests.fixtures.world import HOST_KEY, World, request

COUNT = 200
STEP_ITEMS = 4


@pytest.fixture(scope="module")
def indexed(base: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An app with a validator and an index for what the TypeScript guest has written."""
    folder = tmp_path_factory.mktemp("indexed")
    (folder / "convex").mkdir()
    (folder / "package.json").write_text('{"dependencies":{"convex":"1.48.0"}}')
    (folder / "convex" / "schema.ts").write_text(
        'import { defineSchema, defineTable } from "convex/server";\nimport { v } from "convex/values";\n'
        "const notes = defineTable({ n: v.number(), body: v.string() });\n"
        'export default defineSchema({ notes: notes.index("by_n", ["n"]).index("by_body", ["body"]) });\n'
    )
    (folder / "convex" / "g.ts").write_text(
        'import { queryGeneric } from "convex/server";\n'
        "export const bodies = queryGeneric({ handler: async (ctx: any) =>\n"
        '  (await ctx.db.query("notes").withIndex("by_body").collect()).map((note: any) => note.body) });\n'
    )
    runner = build_runner_at(shared.module_cache(base))
    return build_app(folder, clock_ms=1_750_000_000_000, instantiate_at=runner).to_bytes()


@pytest.fixture
def filled(scripted: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """Many documents, and small steps."""
    monkeypatch.setattr(judging, "SCHEMA_STEP_ITEMS", STEP_ITEMS)
    monkeypatch.setattr(backfill, "SCHEMA_STEP_ITEMS", STEP_ITEMS)
    monkeypatch.setattr(backfill, "BACKFILL_BATCH_ENTRIES", 16)
    monkeypatch.setattr(steps, "STEP_NS", 0)
    database = scripted.deployment.database
    transaction = database.begin(writable=True, now_ms=scripted.now_ns / 1e6, seed=bytes(32))
    for number in range(COUNT):
        transaction.insert("notes", {"n": number, "body": f"{number:04}"})
    database.commit(transaction, b"call", lambda _: None)
    database.flush()
    return scripted


@pytest.fixture
def neighbour(filled: World, base: Path, tmp_path: Path) -> Iterator[Deployment]:
    """Another deployment on the same loop."""
    made = Deployment(
        tmp_path / "neighbour",
        name="neighbour",
        clock_ns=lambda: filled.now_ns,
        entropy=filled._entropy,
        host_key=HOST_KEY,
        loop=filled.loop,
        compiled_cache=shared.compiled(base),
        production=False,
    )
    filled.wait(made.activate(hostile_bundle(base)))
    yield made
    filled.wait(made.close())


def is_held(world: World) -> bool:
    return world.deployment.lane._holder is world.deployment.lane


async def begin(world: World, raw: bytes) -> "asyncio.Task[dict[str, Any]]":
    """An activation whose schema is being applied."""
    task = asyncio.ensure_future(world.deployment.activate(raw))
    while not world.deployment._schema.gives_way:
        assert not task.done()
        await asyncio.sleep(0)
    return task


def test_queries_and_neighbours_are_answered_between_the_steps(
    filled: World, neighbour: Deployment, indexed: bytes
) -> None:
    async def both() -> tuple[int, dict[str, Any]]:
        task = await begin(filled, indexed)
        rounds = 0
        while filled.deployment.schema_progress()["push"] is not None:
            own = await filled.deployment.run(request("query", "f:list", {"n": 7}))
            if not own.ok:  # the other version is live, which has no such function
                break
            assert [note["body"] for note in orjson.loads(own.value)] == ["0007"]
            assert orjson.loads((await neighbour.run(request("query", "h:ping", {}))).value) == "pong"
            rounds += 1
            await asyncio.sleep(0)
        counted = await neighbour.run(request("mutation", "h:count", {}))
        assert counted.ok
        return rounds, await task

    before_ns = filled.deployment.meter.loop_ns
    rounds, told = filled.wait(both())
    assert filled.deployment.meter.loop_ns > before_ns, "the deployment pays for its steps"
    assert rounds >= COUNT / STEP_ITEMS, "a turn of the loop for each step, while calls are served"
    assert told == filled.deployment.describe()
    assert filled.query("g:bodies") == [f"{number:04}" for number in range(COUNT)]


def test_mutations_are_answered_while_a_change_is_under_way(filled: World, indexed: bytes) -> None:
    version = filled.deployment.version
    assert version is not None

    async def both() -> tuple[int, dict[str, Any]]:
        task = await begin(filled, indexed)
        count = patient = 0
        phases: set[str] = set()
        while not task.done():
            is_patient = count % 3 == 2
            version.functions["f:insert"].slowness = 8 if is_patient else 0
            progress = filled.deployment.schema_progress()
            mutation = filled.start("mutation", "f:insert", {"n": 1_000 + count, "body": f"w{count:04}"})
            assert (await mutation).ok
            if progress["push"] is not None and filled.deployment.schema_progress()["push"] is not None:
                phases.add(progress["push"]["phase"])
                patient += is_patient
            count += 1
        await task
        assert {"judging", "building"} <= phases and patient, (phases, patient)
        return count, filled.deployment.describe()

    count, _ = filled.wait(both())
    bodies = [f"{number:04}" for number in range(COUNT)] + [f"w{number:04}" for number in range(count)]
    assert filled.query("g:bodies") == bodies


def test_a_write_that_breaks_the_coming_schema_is_answered_and_refuses_the_push(filled: World, indexed: bytes) -> None:
    told = filled.deployment.describe()

    async def both() -> Any:
        task = await begin(filled, indexed)
        assert (await filled.start("mutation", "f:insert", {"n": "text", "body": "wrong"})).ok
        return (await asyncio.gather(task, return_exceptions=True))[0]

    refused = filled.wait(both())
    assert isinstance(refused, SkerryError) and refused.code == "SchemaRefused"
    assert "SchemaEnforcementError: Document with ID" in refused.message and "Path: .n" in refused.message
    assert filled.deployment.describe() == told


def test_a_newer_push_takes_the_place_of_one_that_builds(filled: World, indexed: bytes, base: Path) -> None:
    async def both() -> tuple[Any, Any]:
        task = await begin(filled, indexed)
        newer = await filled.deployment.activate(hostile_bundle(base))
        return (await asyncio.gather(task, return_exceptions=True))[0], newer

    refused, told = filled.wait(both())
    assert isinstance(refused, SkerryError) and refused.code == "PushSuperseded"
    assert told == filled.deployment.describe()


def test_a_push_that_ended_is_built_on_after_a_restart_and_costs_nothing_again(
    filled: World, indexed: bytes, tmp_path: Path, compiled: Path
) -> None:
    async def close() -> None:
        task = await begin(filled, indexed)
        while filled.deployment.schema_progress()["push"]["phase"] != "building":  # noqa: ASYNC110 - turns the loop
            await asyncio.sleep(0)
        await filled.deployment.close()
        await asyncio.gather(task, return_exceptions=True)

    filled.wait(close())
    filled.loop.run_until_complete(filled.loop.shutdown_default_executor())
    filled.loop.close()
    with World(tmp_path / "data", compiled, stream=b"again") as again:
        again.until(lambda: again.deployment.schema_progress()["indexes"][1]["state"] == "waiting")
        again.until(lambda: again.deployment.is_idle)
        built = again.deployment._schema.progress.documents_total
        again.activate(indexed)
        assert again.deployment._schema.progress.documents_total == built
        assert len(again.query("g:bodies")) == COUNT
        again.until(lambda: again.deployment.is_idle)


def test_a_step_waits_where_others_use_the_loop(filled: World, monkeypatch: pytest.MonkeyPatch) -> None:
    database, lane = filled.deployment.database, filled.deployment.lane
    slept: list[float] = []
    sleep = asyncio.sleep

    async def noted(seconds: float) -> None:
        slept.append(seconds)
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", noted)
    monkeypatch.setattr(stepping, "_BUSY_NS", 10**12)
    room = Room(database, lane)
    filled.wait(room.make())
    assert slept == [0] and not database.is_busy
    lane.calls_inline += 1
    filled.wait(room.make())
    assert slept == [0, 0, limits.STEP_BUSY_PAUSE_SECONDS] and database.is_busy
    for turn in range(limits.STEP_BUSY_TURNS):
        assert database.is_busy, turn
        filled.wait(room.make())
    assert slept[3:] == [0] * limits.STEP_BUSY_TURNS and not database.is_busy
    monkeypatch.setattr(stepping, "_BUSY_NS", -1)
    filled.wait(room.make())
    assert slept[-2:] == [0, limits.STEP_BUSY_PAUSE_SECONDS] and database.is_busy


def test_background_work_that_storage_fails_is_tried_again(
    filled: World, indexed: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled.activate(indexed)
    filled.until(lambda: filled.deployment.is_idle)
    monkeypatch.setattr(limits, "SCHEMA_RETRY_SECONDS", 0.0)
    work = filled.deployment._schema
    failures: list[str] = []

    def failing(*_: Any, **__: Any) -> Any:
        failures.append("once")
        if len(failures) == 1:
            raise SystemFault("StorageFull", "no room")
        return iter(())

    def steps(*arguments: Any, **named: Any) -> Any:
        yield from failing(*arguments, **named)

    monkeypatch.setattr("skerry.functions.schema_work.background_steps", steps)
    filled.loop.call_soon(work.wake)
    filled.until(lambda: len(failures) == 2 and work.is_idle)
    assert filled.deployment.schema_progress()["failure"] is None


def test_a_change_that_holds_behind_a_mutation_that_holds(filled: World, indexed: bytes) -> None:
    lane = filled.deployment.lane

    async def both() -> None:
        await lane.hold()
        lane._holder = first = object()  # a mutation that conflicted too often
        second = asyncio.ensure_future(lane.hold())
        await asyncio.sleep(0)
        assert not second.done() and lane._holder is first
        waiting = filled.start("mutation", "f:insert", {"n": 1, "body": "x"})
        lane._release_lane()
        await second
        assert lane._holder is lane and not waiting.done()
        lane.release()
        lane.release()
        assert (await waiting).ok

    filled.wait(both())


def test_a_refused_change_frees_the_lane(filled: World, indexed: bytes) -> None:
    filled.mutation("f:insert", {"n": "text", "body": "wrong"})
    told = filled.deployment.describe()
    with pytest.raises(SkerryError, match="SchemaEnforcementError"):
        filled.activate(indexed)
    assert filled.deployment.describe() == told and not is_held(filled)
    filled.mutation("f:insert", {"n": 1, "body": "x"})


def test_a_failure_of_storage_in_the_middle_leaves_the_old_version(
    filled: World, indexed: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = filled.deployment.describe()
    groups: list[int] = []
    merge = lmdb_engine.merge

    def fail_later(batches: Any) -> Any:
        groups.append(1)
        if len(groups) == 5:
            raise OSError(28, "No space left on device")
        return merge(batches)

    monkeypatch.setattr("skerry.storage.lmdb_engine.merge", fail_later)
    with pytest.raises(SkerryError):
        filled.activate(indexed)
    assert filled.deployment.describe() == told and not is_held(filled)
    filled.mutation("f:insert", {"n": COUNT, "body": f"{COUNT:04}"})
    assert filled.activate(indexed) == filled.deployment.describe()
    assert filled.query("g:bodies") == [f"{number:04}" for number in range(COUNT + 1)]


def test_a_change_goes_on_though_whoever_asked_has_left(filled: World, indexed: bytes) -> None:
    async def leave() -> None:
        task = await begin(filled, indexed)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        while filled.deployment._activating.locked():  # noqa: ASYNC110 - turns the loop
            await asyncio.sleep(0)

    filled.wait(leave())
    assert filled.query("g:bodies")[:2] == ["0000", "0001"]


def test_closing_ends_a_change_before_its_switch(filled: World, indexed: bytes, tmp_path: Path, compiled: Path) -> None:
    told = filled.deployment.describe()

    async def close() -> Any:
        task = await begin(filled, indexed)
        await filled.deployment.close()
        return (await asyncio.gather(task, return_exceptions=True))[0]

    refused = filled.wait(close())
    assert isinstance(refused, SkerryError) and refused.code == "ShuttingDown"
    filled.loop.run_until_complete(filled.loop.shutdown_default_executor())
    filled.loop.close()
    with World(tmp_path / "data", compiled, stream=b"again") as again:
        assert again.deployment.describe() == told
        again.activate(indexed)
        assert len(again.query("g:bodies")) == COUNT
