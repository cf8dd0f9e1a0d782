"""Versions that are kept: listed, gone back to after the same checks, and made from sources."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from skerry import limits
from skerry.bundle.build import build_app
from skerry.bundle.bundle_file import DIGEST, IMAGE, MANIFEST, SCRIPT, make_bundle, read_bundle, sources_of
from skerry.errors import ClientError, SystemFault
from skerry.isolate import build_runner_at
from skerry.storage.folder import sync_folder
from tests.fixtures import shared
from tests.fixtures.bundles import wrap
from tests.fixtures.guests import c_guest
from tests.fixtures.hostile_bundle import hostile_bundle
from tests.fixtures.world import World


def code_of(attempt: Callable[[], Any]) -> str:
    with pytest.raises(ClientError) as caught:
        attempt()
    return caught.value.code


def rollback(world: World, version: str | None = None) -> dict[str, Any]:
    return world.wait(world.deployment.rollback(version))


def digests(world: World) -> list[str]:
    listed = world.deployment.versions()
    assert [entry["active"] for entry in listed] == [True] + [False] * (len(listed) - 1)
    return [entry["version"] for entry in listed]


def test_going_back_and_forth(empty: World, base: Path) -> None:
    assert empty.deployment.versions() == []
    assert code_of(lambda: rollback(empty)) == "VersionNotFound"
    first = empty.activate(shared.bundle("c", base))
    assert code_of(lambda: rollback(empty)) == "VersionNotFound"
    second = empty.activate(hostile_bundle(base))
    assert digests(empty) == [second["version"], first["version"]]
    assert rollback(empty) == first
    assert empty.query("f:add", {"x": 1, "y": 1}) == 2
    assert digests(empty) == [first["version"], second["version"]]
    assert rollback(empty, second["version"][: limits.VERSION_PREFIX_CHARS_MIN]) == second
    assert empty.query("h:ping") == "pong"
    entry = empty.deployment.versions()[0]
    assert entry["functions"] == len(second["functions"])
    assert entry["bytes"] == len(hostile_bundle(base))
    assert entry["activatedMs"] == empty.now_ns // 1_000_000


def test_a_rollback_survives_reopening(tmp_path: Path, compiled: Path, base: Path) -> None:
    with World(tmp_path / "data", compiled) as world:
        first = world.activate(shared.bundle("c", base))
        world.activate(hostile_bundle(base))
        rollback(world)
        listed = world.deployment.versions()
    with World(tmp_path / "data", compiled) as world:
        assert world.deployment.describe() == first
        assert world.deployment.versions() == listed


def test_names_of_versions(empty: World, base: Path) -> None:
    version = empty.activate(shared.bundle("c", base))["version"]
    short = version[: limits.VERSION_PREFIX_CHARS_MIN - 1]
    for name in ("", short, "0" * 64, version + "0", "../../etc/passwd", version.upper() + "x"):
        assert code_of(lambda name=name: rollback(empty, name)) == "VersionNotFound", name
    assert rollback(empty, version)["version"] == version


def test_a_version_that_the_data_no_longer_fit_is_refused_and_kept(empty: World, base: Path, tmp_path: Path) -> None:
    strict = _strict(tmp_path / "strict", base)
    kept = empty.activate(strict)["version"]
    empty.activate(shared.bundle("javascript", base))
    empty.mutation("f:insert", {"n": 1, "body": "text"})
    assert code_of(lambda: empty.activate(strict)) == "SchemaRefused"
    assert code_of(lambda: rollback(empty, kept)) == "SchemaRefused"
    assert (empty.deployment._kept.folder / kept).exists()
    assert kept in digests(empty)
    assert empty.query("f:add", {"x": 1, "y": 1}) == 2


def _strict(folder: Path, base: Path) -> bytes:
    """An app without functions whose schema wants other notes than the fixture's functions write."""
    (folder / "convex").mkdir(parents=True)
    (folder / "package.json").write_text('{"dependencies":{"convex":"1.48.0"}}')
    (folder / "convex" / "schema.ts").write_text(
        'import { defineSchema, defineTable } from "convex/server";\nimport { v } from "convex/values";\n'
        "export default defineSchema({ notes: defineTable({ n: v.string() }) });\n"
    )
    runner = build_runner_at(shared.module_cache(base))
    return build_app(folder, clock_ms=1_750_000_000_000, instantiate_at=runner).to_bytes()


def test_a_kept_bundle_that_was_damaged_is_refused(empty: World, base: Path) -> None:
    version = empty.activate(shared.bundle("c", base))["version"]
    empty.activate(hostile_bundle(base))
    file = empty.deployment._kept.folder / version
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 1
    file.write_bytes(bytes(raw))
    assert code_of(lambda: rollback(empty)) in ("BundleInvalid", "BundleDigestMismatch")
    assert empty.query("h:ping") == "pong"


def test_an_upload_is_digested_as_it_arrives_and_one_at_a_time(empty: World, base: Path) -> None:
    raw = shared.bundle("c", base)
    upload = empty.deployment.begin_upload()
    assert not empty.deployment.is_idle
    assert code_of(empty.deployment.begin_upload) == "DeployInProgress"
    for at in range(0, len(raw), 10_000):
        upload.write(raw[at : at + 10_000])
    assert upload.finish() == sha256(raw).digest()
    told = empty.wait(empty.deployment.activate(upload.path))
    upload.discard()
    assert empty.deployment.is_idle
    assert {path.name for path in empty.deployment._kept.folder.iterdir()} == {told["version"]}
    empty.deployment.begin_upload().discard()


def test_the_bytes_of_an_upload_at_the_bound_and_one_past_it(empty: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skerry.limits.BUNDLE_FILE_BYTES_MAX", 1_000)
    upload = empty.deployment.begin_upload()
    upload.write(bytes(999))
    upload.write(b"1")
    assert code_of(lambda: upload.write(b"2")) == "BundleTooLarge"
    upload.discard()
    assert list(empty.deployment._kept.folder.iterdir()) == []


def test_an_upload_for_which_there_is_no_space(empty: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    upload = empty.deployment.begin_upload()
    monkeypatch.setattr("skerry.functions.kept_versions.os.write", full)
    with pytest.raises(SystemFault) as caught:
        upload.write(b"x")
    monkeypatch.undo()
    upload.discard()
    assert caught.value.code == "StorageFull"


def test_the_name_of_a_bundle_that_is_there_already_is_made_durable_too(
    empty: World, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = shared.bundle("c", base)
    version = empty.activate(raw)["version"]
    synced: list[Path] = []

    def noted(folder: Path) -> None:
        synced.append(folder)
        sync_folder(folder)

    monkeypatch.setattr("skerry.functions.kept_versions.sync_folder", noted)
    empty.deployment._kept.store(version, raw)
    assert synced == [empty.deployment._kept.folder]


def test_what_cannot_be_removed_keeps_no_version_from_going_live(
    empty: World, base: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (empty.deployment._kept.folder / "a folder").mkdir()
    told = empty.activate(shared.bundle("c", base))
    assert told == empty.deployment.describe()
    assert "could not be removed" in caplog.text


def test_a_rollback_beside_an_activation_is_refused(empty: World, base: Path) -> None:
    empty.activate(shared.bundle("c", base))
    empty.activate(hostile_bundle(base))

    async def both() -> list[Any]:
        activation = empty.deployment.activate(shared.bundle("javascript", base))
        return await asyncio.gather(activation, empty.deployment.rollback(None), return_exceptions=True)

    activated, refused = empty.wait(both())
    assert isinstance(refused, ClientError) and refused.code == "DeployInProgress"
    assert activated == empty.deployment.describe()


# -- sources -----------------------------------------------------------------------------------------------------------


def test_sources_become_the_bundle_that_they_were_built_into(empty: World, base: Path) -> None:
    whole = read_bundle(shared.bundle("javascript", base))
    sources = sources_of(whole)
    raw = sources.to_bytes()
    assert len(raw) < len(whole.to_bytes()) and not sources.has_image
    assert empty.activate(raw)["version"] == whole.digest
    assert empty.query("f:add", {"x": 1, "y": 1}) == 2
    assert (empty.deployment._kept.folder / whole.digest).read_bytes() == whole.to_bytes()


def test_only_uploads_may_be_sources(base: Path) -> None:
    raw = sources_of(read_bundle(shared.bundle("javascript", base))).to_bytes()
    assert code_of(lambda: read_bundle(raw)) == "BundleInvalid"


def test_sources_that_lack_their_script(empty: World, base: Path) -> None:
    bundle = read_bundle(shared.bundle("javascript", base))
    assert code_of(lambda: sources_of(read_bundle(wrap(c_guest("functions"))))) == "BundleInvalid"
    entries = {name: data for name, data in bundle.entries.items() if name != SCRIPT}
    without = make_bundle(entries)
    bare = replace(without, entries={name: data for name, data in entries.items() if name != IMAGE})
    assert code_of(lambda: empty.activate(bare.to_bytes())) == "BundleInvalid"


def test_sources_whose_modules_do_not_load(empty: World, base: Path) -> None:
    told = empty.activate(shared.bundle("c", base))
    bundle = read_bundle(shared.bundle("javascript", base))
    broken = make_bundle({**bundle.entries, SCRIPT: b'throw new Error("not today");'})
    with pytest.raises(ClientError) as caught:
        empty.activate(sources_of(broken).to_bytes())
    assert caught.value.code == "ModuleLoadFailed"
    assert "not today" in caught.value.message
    assert empty.deployment.describe() == told
    assert {path.name for path in empty.deployment._kept.folder.iterdir()} == {told["version"]}


def test_sources_are_judged_by_what_their_image_says(empty: World, base: Path) -> None:
    bundle = read_bundle(shared.bundle("javascript", base))
    lying = replace(bundle.manifest, functions=[])
    claimed = make_bundle({**bundle.entries, MANIFEST: lying.to_json()})
    assert code_of(lambda: empty.activate(sources_of(claimed).to_bytes())) == "ManifestMismatch"
    assert DIGEST not in bundle.entries
