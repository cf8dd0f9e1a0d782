"""Restoring on a host: one place for a name, bounds, and nothing left where it fails or the host ends in between."""

from pathlib import Path

import pytest

from skerry import limits
from skerry.admin.registry import Quotas, State
from skerry.admin.restore import Restore
from skerry.errors import ClientError
from skerry.storage import Tree
from skerry.storage.folder import DeploymentFolder
from tests.admin.world import HostWorld
from tests.backup.test_backup import made, take
from tests.database.world import World, lmdb_world
from tests.fixtures import shared


def refuses(world: HostWorld, name: str) -> str:
    with pytest.raises(ClientError) as caught:
        world.host.begin_restore(name)
    return caught.value.code


def restore(world: HostWorld, name: str, raw: bytes) -> None:
    begun = world.host.begin_restore(name)
    begun.write(raw)
    world.wait(world.host.restore(begun))


def source(folder: Path) -> World:
    world = lmdb_world(folder)
    world.insert_all("t", [{"n": n} for n in range(20)])
    return world


def test_a_backup_becomes_a_deployment_that_opens(tmp_path: Path, base: Path) -> None:
    origin = source(tmp_path)
    with HostWorld(tmp_path / "host", shared.compiled(base)) as world:
        restore(world, "new", take(origin))
        assert world.host.find("new") is not None
        record = world.host.registry.find("new")
        assert record is not None and record.state is State.ACTIVE
    origin.engine.close()


def test_a_restore_gets_the_quotas_that_were_asked_for(tmp_path: Path, base: Path) -> None:
    origin = source(tmp_path)
    raw = take(origin)
    with HostWorld(tmp_path / "host", shared.compiled(base)) as world:
        for asked in ({"storage_bytes": 0}, {"storage_bytes": "x"}, {"disk": 1}):
            with pytest.raises(ClientError, check=lambda error: error.code == "InvalidQuotas"):
                world.host.begin_restore("new", asked)
        stored = documents_bytes(origin)
        for quota, fits in ((stored - 1, False), (stored, True)):
            begun = world.host.begin_restore("new", {"storage_bytes": quota})
            begun.write(raw)
            if fits:
                world.wait(world.host.restore(begun))
            else:
                with pytest.raises(ClientError, match="restore with a larger one"):
                    world.wait(world.host.restore(begun))
        record = world.host.registry.find("new")
        assert record is not None and record.quotas.storage_bytes == stored
    origin.engine.close()


def documents_bytes(world: World) -> int:
    """What the documents take as they are stored."""
    snapshot = world.engine.snapshot()
    n_bytes = sum(len(stored) for _, stored in snapshot.scan(Tree.DOCUMENTS, b"", None, False))
    snapshot.close()
    return n_bytes


def test_names_and_places_of_restores(tmp_path: Path, base: Path) -> None:
    with HostWorld(tmp_path / "host", shared.compiled(base)) as world:
        assert refuses(world, "local") == "DeploymentNameTaken"
        assert refuses(world, "../x") == "DeploymentNameInvalid"
        begun = [world.host.begin_restore(f"n{number}") for number in range(limits.RESTORES_MAX - 1)]
        assert refuses(world, "n0") == "RestoreInProgress"
        begun.append(world.host.begin_restore("last"))
        assert refuses(world, "more") == "TooManyRestores"
        world.host.end_restore(begun.pop())
        world.host.end_restore(world.host.begin_restore("more"))
        for one in begun:
            world.host.end_restore(one)


@pytest.mark.parametrize("past", [0, 1])
def test_an_upload_at_its_bound_and_one_past_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, past: int) -> None:
    monkeypatch.setattr(limits, "RESTORE_UPLOAD_BYTES_MAX", 10)
    begun = Restore("n", tmp_path, Quotas())
    begun.write(b"12345")
    if past:
        with pytest.raises(ClientError, check=lambda e: e.code == "RequestTooLarge"):
            begun.write(b"123456")
    else:
        begun.write(b"12345")
    begun.discard()
    assert not list(tmp_path.iterdir())


def test_what_is_refused_leaves_nothing(tmp_path: Path, base: Path) -> None:
    with HostWorld(tmp_path / "host", shared.compiled(base)) as world:
        for raw in (b"", b"nothing", made(version=7), made((b"D", b"{}"))):
            with pytest.raises(ClientError, check=lambda e: e.code == "BackupInvalid"):
                restore(world, "new", raw)
            assert world.host.registry.find("new") is None
            assert [path.name for path in world.folder.deployments.iterdir()] == ["local"]
        world.create("new")


def test_a_crash_after_the_rename_leaves_nothing(tmp_path: Path, base: Path) -> None:
    with HostWorld(tmp_path / "host", shared.compiled(base)) as world:
        world.wait(world.host.registry.create("new", 1, State.DELETING))
        DeploymentFolder(world.folder.deployments / "new").close()
        assert world.host.find("new") is None
    with HostWorld(tmp_path / "host", shared.compiled(base)) as world:
        assert world.host.registry.find("new") is None
        assert [path.name for path in world.folder.deployments.iterdir()] == ["local"]
