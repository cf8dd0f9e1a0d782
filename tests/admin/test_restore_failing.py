"""Restores that end in the middle: the server is killed, or the disk takes no more."""

import http.client
import io
import os
import signal
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from skerry.errors import SystemFault
from tests.admin.test_restore import restore
from tests.admin.world import HostWorld
from tests.backup.test_backup import take
from tests.database.world import lmdb_world, table_schema
from tests.fixtures import shared
from tests.http.serving import RunningServer, serve
from tests.transfer.test_full_disk import files_of_at_most

PLACE = "/host/deployments/new/restore"


@pytest.fixture(scope="module")
def backup(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """One whose restore takes long enough to be killed in."""
    world = lmdb_world(tmp_path_factory.mktemp("source"))
    world.schema(table_schema("t", {"by_n": ["n"], "by_text": ["text"]}))
    for begin in range(0, 12_000, 2_000):
        world.insert_all("t", [{"n": n, "text": f"{n:07} " * 12} for n in range(begin, begin + 2_000)])
    raw = take(world)
    world.engine.close()
    return raw


def processes_of(server: RunningServer) -> list[int]:
    """The supervisor and its workers."""
    main = server.process.pid
    children = Path(f"/proc/{main}/task/{main}/children").read_text().split()
    return [main, *map(int, children)]


def kill(server: RunningServer) -> None:
    """All at once, as a machine that loses its power."""
    found = processes_of(server)
    for pid in found:
        os.kill(pid, signal.SIGSTOP)
    for pid in found:
        os.kill(pid, signal.SIGKILL)
    server.stop(signal.SIGKILL)


@pytest.mark.parametrize("phase", ["arriving", "building"])
def test_a_kill_leaves_nothing_behind_the_next_start(tmp_path: Path, backup: bytes, phase: str) -> None:
    data = tmp_path / "data"
    left = data / "deployments" / ".new.restoring"
    with serve(data) as server:
        credential = (data / "host.credential").read_text().strip()
        headers = {"Authorization": f"Bearer {credential}", "Content-Length": str(len(backup))}
        address = urlsplit(server.url)
        sending = http.client.HTTPConnection(address.hostname or "", address.port)
        sending.putrequest("POST", PLACE)
        for name, value in headers.items():
            sending.putheader(name, value)
        sending.endheaders()
        sending.send(backup[: len(backup) // 2])
        if phase == "arriving":
            awaited = left / "upload"
        else:
            sending.send(backup[len(backup) // 2 :])
            awaited = left / "deployment" / "bundles"
        while not awaited.exists():
            assert server.process.poll() is None
        kill(server)
        sending.close()
        assert awaited.exists(), "it was killed in time"
    with serve(data) as server:
        assert not left.exists()
        assert [entry.name for entry in (data / "deployments").iterdir()] == ["local"]
        listed = server.ask("GET", "/host/deployments", headers={"Authorization": f"Bearer {credential}"}).json()
        assert [each["name"] for each in listed["deployments"]] == ["local"]
        again = server.ask("POST", PLACE, backup, {"Authorization": f"Bearer {credential}"})
        assert again.status == 200 and again.json()["documents"] == 12_000, again


def test_a_full_disk_leaves_nothing(tmp_path: Path, backup: bytes, base: Path) -> None:
    with HostWorld(tmp_path / "host", shared.compiled(base)) as world:
        before = sorted(path.name for path in world.folder.deployments.iterdir())
        for n_bytes in (len(backup) // 2, len(backup) + 100_000, 1 << 20, 4 << 20):
            with files_of_at_most(n_bytes), pytest.raises(SystemFault) as full:
                begun = world.host.begin_restore("new")
                try:
                    source = io.BytesIO(backup)
                    while piece := source.read(1 << 16):
                        begun.write(piece)
                except SystemFault:
                    world.host.end_restore(begun)
                    raise
                world.wait(world.host.restore(begun))
            assert full.value.code == "StorageFull"
            assert sorted(path.name for path in world.folder.deployments.iterdir()) == before
            assert world.host.registry.find("new") is None
        restore(world, "new", backup)
        assert world.host.find("new") is not None
