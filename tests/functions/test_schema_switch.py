"""A schema that takes long to apply: everybody's queries go on, the deployment's own mutations wait."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from skerry import limits
from skerry.bundle.build import build_app
from skerry.database import schema_change
from skerry.errors import SkerryError
from skerry.functions.deployment import Deployment
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
    monkeypatch.setattr(schema_change, "SCHEMA_STEP_ITEMS", STEP_ITEMS)
    monkeypatch.setattr(schema_change, "SCHEMA_CHANGE_BATCH_ITEMS", 16)
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
    while not is_held(world):
        assert not task.done()
        await asyncio.sleep(0)
    return task


def test_queries_and_neighbours_are_answered_between_the_steps(
    filled: World, neighbour: Deployment, indexed: bytes
) -> None:
    async def both() -> tuple[int, dict[str, Any]]:
        task = await begin(filled, indexed)
        rounds = 0
        while is_held(filled):
            own = await filled.deployment.run(request("query", "f:list", {"n": 7}))
            if is_held(filled):  # what runs to its end in one turn has run beside the change
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
    assert rounds >= 2 * COUNT / STEP_ITEMS, "a turn of the loop for each step"
    assert told == filled.deployment.describe()
    assert filled.query("g:bodies") == [f"{number:04}" for number in range(COUNT)]


def test_mutations_wait_for_the_change_and_succeed(
    filled: World, indexed: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LANE_CALLS_WAITING_MAX", 2)

    async def both() -> list[Any]:
        before = filled.start("mutation", "f:insert", {"n": 1_000, "body": "first"})
        task = await begin(filled, indexed)
        waiting = [filled.start("mutation", "f:insert", {"n": 1_001 + n, "body": f"w{n}"}) for n in range(3)]
        assert waiting[2].done(), "one past the bound"
        while is_held(filled):
            assert not waiting[0].done() and not waiting[1].done()
            await asyncio.sleep(0)
        await task
        return await asyncio.gather(before, *waiting, return_exceptions=True)

    first, one, two, refused = filled.wait(both())
    assert first.ok and one.ok and two.ok, (one.error_message, two.error_message)
    assert isinstance(refused, SkerryError) and refused.code == "TooManyConcurrentRequests"
    assert filled.query("g:bodies")[-3:] == ["first", "w0", "w1"]


def test_a_patient_mutation_beside_the_change_runs_again_after_it(filled: World, indexed: bytes) -> None:
    version = filled.deployment.version
    assert version is not None
    version.functions["f:insert"].slowness = 8
    began = filled.deployment.lane.calls_patient

    async def both() -> Any:
        task = asyncio.ensure_future(filled.deployment.activate(indexed))
        futures: list[asyncio.Future[Any]] = []
        while not is_held(filled):
            if len(futures) < 5:
                futures.append(filled.start("mutation", "f:insert", {"n": 2_000, "body": f"x{len(futures)}"}))
            await asyncio.sleep(0)
        await task
        return await asyncio.gather(*futures)

    results = filled.wait(both())
    assert all(result.ok for result in results) and filled.deployment.lane.calls_patient - began >= len(results)
    assert len(filled.query("g:bodies")) == COUNT + len(results)


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


def test_one_at_a_time_also_while_documents_are_checked(filled: World, indexed: bytes, base: Path) -> None:
    async def both() -> tuple[Any, Any]:
        task = await begin(filled, indexed)
        (refused,) = await asyncio.gather(filled.deployment.activate(hostile_bundle(base)), return_exceptions=True)
        return refused, await task

    refused, told = filled.wait(both())
    assert isinstance(refused, SkerryError) and refused.code == "DeployInProgress"
    assert told == filled.deployment.describe()


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
