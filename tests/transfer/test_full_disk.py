"""A disk that takes no more: uploads, exports and imports say so, and leave nothing."""

import resource
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from errno import ENOSPC
from pathlib import Path

import pytest

from skerry.admin.transfer_files import Part, TransferFiles, Upload
from skerry.errors import SystemFault
from skerry.transfer.exporting import Export
from tests.database.world import World, lmdb_world
from tests.storage.failing import FailingEngine
from tests.transfer.moving import Mover, beside, contents, documents


@contextmanager
def files_of_at_most(n_bytes: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_an_upload(tmp_path: Path) -> None:
    files = TransferFiles(lambda: 0)
    upload = Upload("token", tmp_path, files, files.hold(None), part_bytes_max=1 << 20)
    for number in (1, 2):
        part = Part(upload, number)
        part.write(b"x" * 3_000)
        part.finish()
    last = Part(upload, 3)
    with files_of_at_most(5_000), pytest.raises(SystemFault) as full:
        last.write(b"x" * 6_000)
    assert full.value.code == "StorageFull"
    last.discard()
    assert files.bytes == 6_000
    with files_of_at_most(5_000), pytest.raises(SystemFault) as full:
        upload.joined(["token-1", "token-2"])
    assert full.value.code == "StorageFull"
    upload.discard()
    assert list(tmp_path.iterdir()) == []


def test_an_export_at_each_of_its_writes(tmp_path: Path) -> None:
    mover = Mover(lmdb_world(tmp_path), tmp_path)
    mover.world.insert_all("things", [{"text": "x" * 200} for _ in range(100)])
    mover.world.insert_all("others", [{"n": 1}])
    fails_at = 0
    while True:
        left = fails_at

        def full(job: Callable[[], None]) -> Future[None]:
            nonlocal left
            left -= 1
            if left >= 0:
                return beside(job)
            failed: Future[None] = Future()
            failed.set_exception(OSError(ENOSPC, "No space left on device"))
            return failed

        path = mover.folder / f"{fails_at}.zip"
        export = Export(mover.world.database, path, full, with_storage=True)
        try:
            mover.drive(export.steps())
        except SystemFault as fault:
            assert fault.code == "StorageFull"
            fails_at += 1
            continue
        finally:
            export.close()
        break
    assert fails_at == 7, "two entries, two for each table, one of storage"
    assert mover.world.database.kept_spaces == {}
    mover.world.engine.close()


@pytest.mark.parametrize("mode", ["replace", "append"])
def test_an_import_at_each_operation_of_storage(tmp_path: Path, mode: str) -> None:
    """All of it is there, or nothing, and the deployment goes on."""
    after, outcomes = 0, set[bool]()
    lines = b"".join(b'{"n":%d,"text":"%s"}\n' % (n, b"x" * 500) for n in range(1_200))
    while True:
        world = lmdb_world(tmp_path / f"{after}")
        engine = FailingEngine(world.engine, after, 1)
        engine.is_counting = False
        world.insert_all("things", [{"n": -1}])
        world = World(engine)
        folder = tmp_path / f"files {after}"
        folder.mkdir()
        mover = Mover(world, folder)
        file = mover.file("things.jsonl", lines)
        engine.is_counting = True
        try:
            mover.take(file, mode, "jsonLines", "things")
            was_told = True
        except SystemFault:
            was_told = False
        engine.is_counting = False
        if engine.failed is not None:
            world.read(lambda t: t.count("none"))
        found = len(documents(world, "things"))
        whole = 1_200 + (mode == "append")
        assert found in (1, whole), (after, found)
        assert found == whole or not was_told
        outcomes.add(found == whole)
        mover.assert_sound()
        world.insert_all("things", [{"n": -2}])
        assert len(contents(mover.export("a.zip"))) == 4
        has_failed = engine.has_failed
        engine.inner.close()
        if not has_failed:
            break
        after = after * 3 // 2 + 1
    assert outcomes == {True, False} and after > 12
