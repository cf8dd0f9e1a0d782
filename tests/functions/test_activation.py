"""Switching versions: atomic, one at a time, and kept across restarts."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from skerry import limits
from skerry.bundle.build import build_app
from skerry.bundle.bundle_file import MANIFEST, make_bundle, read_bundle
from skerry.database.catalog_store import TABLE_PREFIX
from skerry.errors import ClientError, SkerryError, SystemFault
from skerry.isolate import ModuleCache, build_runner_at
from skerry.storage.interface import Tree
from skerry.storage.lmdb_engine import LmdbEngine
from tests.fixtures import shared
from tests.fixtures.bundles import build, languages, wrap_honestly
from tests.fixtures.guests import c_guest
from tests.fixtures.hostile_bundle import hostile_bundle
from tests.fixtures.world import World


def kept(world: World) -> set[str]:
    return {path.name for path in world.deployment._kept.folder.iterdir()}


def with_clock(raw: bytes, clock_ms: int) -> bytes:
    """The same guest in a bundle of another digest."""
    bundle = read_bundle(raw)
    manifest = replace(bundle.manifest, clock_ms=clock_ms)
    return make_bundle({**bundle.entries, MANIFEST: manifest.to_json()}).to_bytes()


def test_a_bundle_becomes_the_version_that_answers(empty: World, base: Path) -> None:
    told = empty.activate(shared.bundle("javascript", base))
    assert told == empty.deployment.describe()
    assert {entry["name"] for entry in told["functions"]} >= {"f:add", "f:list"}
    assert kept(empty) == {told["version"]}
    assert empty.query("f:add", {"x": 1, "y": 1}) == 2
    other = empty.activate(hostile_bundle(base))
    assert other["version"] != told["version"]
    assert empty.query("h:ping") == "pong"
    assert empty.failure("query", "f:add", {}).startswith("Could not find public function")


def test_activating_the_same_bundle_again_changes_nothing(empty: World, base: Path) -> None:
    first = empty.activate(shared.bundle("c", base))
    assert empty.activate(shared.bundle("c", base)) == first
    assert kept(empty) == {first["version"]}


def test_the_active_version_is_there_after_reopening(tmp_path: Path, compiled: Path, base: Path) -> None:
    with World(tmp_path / "data", compiled) as world:
        told = world.activate(shared.bundle("javascript", base))
        made = world.mutation("f:insert", {"n": 1, "body": "x"})
    with World(tmp_path / "data", compiled) as world:
        assert world.deployment.describe() == told
        assert world.query("f:list", {"n": 1})[0]["_id"] == made


def test_a_bundle_that_went_missing_is_an_error_with_a_code(tmp_path: Path, compiled: Path, base: Path) -> None:
    with World(tmp_path / "data", compiled) as world:
        version = world.activate(shared.bundle("c", base))["version"]
    (tmp_path / "data" / "bundles" / version).unlink()
    (tmp_path / "data" / "checked" / version).unlink()
    with pytest.raises(SystemFault) as caught:
        World(tmp_path / "data", compiled)
    assert caught.value.code == "StorageFailed"
    assert version[:12] in caught.value.message


def test_a_schema_that_the_data_does_not_fit_is_refused_and_the_old_version_stays(
    empty: World, base: Path, tmp_path: Path
) -> None:
    told = empty.activate(shared.bundle("javascript", base))
    empty.mutation("f:insert", {"n": 1, "body": "text"})
    strict = tmp_path / "strict"
    (strict / "convex").mkdir(parents=True)
    (strict / "package.json").write_text('{"dependencies":{"convex":"1.48.0"}}')
    (strict / "convex" / "schema.ts").write_text(
        'import { defineSchema, defineTable } from "convex/server";\nimport { v } from "convex/values";\n'
        "export default defineSchema({ notes: defineTable({ n: v.string() }) });\n"
    )
    with pytest.raises(ClientError) as caught:
        empty.activate(_built(strict, base))
    assert caught.value.code == "SchemaRefused"
    assert "SchemaEnforcementError" in caught.value.message and '"notes"' in caught.value.message
    assert empty.deployment.describe() == told
    assert kept(empty) == {told["version"]}
    assert len(empty.query("f:list", {"n": 1})) == 1


def _built(folder: Path, base: Path) -> bytes:
    runner = build_runner_at(shared.module_cache(base))
    return build_app(folder, clock_ms=1_750_000_000_000, instantiate_at=runner).to_bytes()


def test_an_activation_whose_commit_fails_leaves_the_old_version(
    empty: World, base: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, compiled: Path
) -> None:
    told = empty.activate(shared.bundle("javascript", base))

    def fail(*_: Any) -> Any:
        raise SystemFault("StorageFull", "There is no space left.")

    monkeypatch.setattr("skerry.storage.lmdb_engine.merge", fail)
    with pytest.raises(SystemFault):
        empty.activate(hostile_bundle(base))
    monkeypatch.undo()
    assert empty.deployment.describe() == told
    assert empty.query("f:add", {"x": 1, "y": 1}) == 2
    empty.close()
    with World(tmp_path / "data", compiled) as again:
        assert again.deployment.describe() == told


def test_a_bundle_that_cannot_be_stored_is_an_error_with_a_code(
    empty: World, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("skerry.functions.kept_versions.os.fsync", full)
    with pytest.raises(SystemFault) as caught:
        empty.activate(shared.bundle("c", base))
    assert caught.value.code == "StorageFull"
    monkeypatch.undo()
    assert kept(empty) == set()
    assert empty.deployment.version is None


def test_two_activations_at_once_are_one_and_a_refusal(empty: World, base: Path) -> None:
    async def both() -> list[Any]:
        raws = (shared.bundle("c", base), shared.bundle("javascript", base))
        return await asyncio.gather(*map(empty.deployment.activate, raws), return_exceptions=True)

    first, second = empty.wait(both())
    assert isinstance(second, ClientError) and second.code == "DeployInProgress"
    assert first == empty.deployment.describe()


def test_an_activation_during_shutdown_is_refused(empty: World, base: Path) -> None:
    async def both() -> Any:
        activation = asyncio.ensure_future(empty.deployment.activate(shared.bundle("c", base)))
        await asyncio.sleep(0)
        await empty.deployment.close()
        return await asyncio.gather(activation, return_exceptions=True)

    (outcome,) = empty.wait(both())
    assert isinstance(outcome, SkerryError) and outcome.code == "ShuttingDown"
    empty.loop.run_until_complete(empty.loop.shutdown_default_executor())
    empty.loop.close()


def test_a_call_in_flight_ends_on_the_version_it_began_with(empty: World, base: Path) -> None:
    empty.activate(hostile_bundle(base))
    assert empty.deployment.version is not None
    empty.deployment.version.functions["h:count"].slowness = 8
    future = empty.start("mutation", "h:count", {"ms": 100})
    empty.activate(shared.bundle("c", base))
    result = empty.finish(future)
    assert result.ok and orjson.loads(result.value) == 1, result.error_message
    assert empty.query("f:add", {"x": 1, "y": 1}) == 2


def test_only_the_newest_bundles_are_kept(empty: World, base: Path) -> None:
    raw = wrap_honestly(c_guest("functions"), shared.module_cache(base))
    made = [empty.activate(with_clock(raw, clock_ms))["version"] for clock_ms in range(limits.BUNDLES_KEPT_MAX + 2)]
    assert kept(empty) == set(made[-limits.BUNDLES_KEPT_MAX :])


def test_what_a_crash_left_half_written_goes_with_the_next_activation(empty: World, base: Path) -> None:
    (empty.deployment._kept.folder / "abc.new").write_bytes(b"half")
    told = empty.activate(shared.bundle("c", base))
    assert kept(empty) == {told["version"]}


@pytest.mark.parametrize("language", languages())
def test_each_build_of_a_guest_gives_the_same_bytes(base: Path, cache: ModuleCache, language: str) -> None:
    assert build(language, cache) == shared.bundle(language, base)


def test_a_deployment_whose_catalog_cannot_be_read_is_locked_by_nobody(tmp_path: Path, compiled: Path) -> None:
    with World(tmp_path / "data", compiled):
        pass

    def write(value: bytes | None) -> None:
        engine = LmdbEngine(tmp_path / "data")
        engine.commit([(Tree.META, TABLE_PREFIX + b"t", value)]).result(20)
        engine.close()

    write(b"{nonsense")
    with pytest.raises(SystemFault) as caught:
        World(tmp_path / "data", compiled)
    assert caught.value.code == "DataFolderFormat"
    write(None)
    with World(tmp_path / "data", compiled) as world:
        assert world.deployment.describe()["version"] is None
