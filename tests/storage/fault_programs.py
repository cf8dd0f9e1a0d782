"""Programs that run in a process of their own, some behind `interpose.c`: `python fault_programs.py <name> <folder>`.

Each prints "ok" at its end; an assertion that fails ends it with a trace.
"""

import ctypes
import errno
import itertools
import os
import sys
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from skerry.errors import SystemFault
from skerry.limits import MIB
from skerry.storage import Tree, Write
from skerry.storage.compaction import COPY_FOLDER
from skerry.storage.lmdb_engine import LmdbEngine

disk = ctypes.CDLL(None)


def batch(number: int, size: int = 100) -> list[Write]:
    """One batch that can be seen to be torn: the same number in three trees, with values over several pages."""
    key = b"%08d" % number
    trees = (Tree.DOCUMENTS, Tree.INDEXES, Tree.COMMIT_LOG)
    return [*((tree, key, key * size) for tree in trees), (Tree.META, b"last", key)]


def numbers_there(engine: LmdbEngine) -> set[int]:
    """The batches that are there, each checked to be whole."""
    snapshot = engine.snapshot()
    found = [dict(snapshot.scan(tree, b"", None, False)) for tree in (Tree.DOCUMENTS, Tree.INDEXES, Tree.COMMIT_LOG)]
    assert found[0] == found[1] == found[2], "a batch is torn"
    assert all(value == key * (len(value) // 8) for key, value in found[0].items())
    last = snapshot.get(Tree.META, b"last")
    snapshot.close()
    assert last == max(found[0], default=None), "the last batch and the newest value do not agree"
    return {int(key) for key in found[0]}


def code_of(future: Future[None]) -> str | None:
    fault = future.exception(30)
    assert fault is None or isinstance(fault, SystemFault)
    return fault.code if fault else None


def reopened(engine: LmdbEngine, folder: Path) -> LmdbEngine:
    engine.close()
    return LmdbEngine(folder, map_bytes=64 * MIB)


def held_sync(folder: Path) -> None:
    engine = LmdbEngine(folder, map_bytes=64 * MIB)
    disk.interpose_hold(1)
    first = engine.commit(batch(1))
    disk.interpose_await_held()
    others = [engine.commit(batch(n)) for n in (2, 3, 4)]
    assert not first.done()
    assert engine.durable_sequence == 0
    assert numbers_there(engine) == set(), "a reader sees what is not durable"
    before = disk.interpose_syncs()
    disk.interpose_hold(0)
    assert [code_of(future) for future in (first, *others)] == [None] * 4
    assert disk.interpose_syncs() == before + 1, "what was queued behind a sync shares the next one"
    assert numbers_there(engine) == {1, 2, 3, 4}
    engine.close()


def failed_sync(folder: Path) -> None:
    engine = LmdbEngine(folder, map_bytes=64 * MIB)
    assert code_of(engine.commit(batch(1))) is None
    disk.interpose_hold(1)
    group = [engine.commit(batch(2))]
    disk.interpose_await_held()
    group.append(engine.commit(batch(3)))
    disk.interpose_fail_syncs(errno.EIO)
    disk.interpose_hold(0)
    assert [code_of(future) for future in group] == ["StorageFailed"] * 2
    disk.interpose_fail_syncs(0)
    assert code_of(engine.commit(batch(4))) == "StorageFailed", "a failed engine takes commits before recover()"
    assert engine.failed is not None
    assert numbers_there(engine) == {1}
    engine.recover()
    assert engine.failed is None
    assert numbers_there(engine) == {1}
    assert code_of(engine.commit(batch(5))) is None
    engine = reopened(engine, folder)
    assert numbers_there(engine) == {1, 5}
    engine.close()


def failed_writes(folder: Path) -> None:
    """Fail every write from the Nth on, for each N until the commits get through."""
    engine = LmdbEngine(folder, map_bytes=64 * MIB)
    numbers = itertools.count(1)
    acknowledged: set[int] = set()
    for code, error in (("StorageFull", errno.ENOSPC), ("StorageFailed", errno.EIO)):
        for n_writes in itertools.count():
            tried = [next(numbers) for _ in range(3)]
            disk.interpose_fail_writes(n_writes, error)
            futures = [engine.commit(batch(number, 2000)) for number in tried]
            codes = [code_of(future) for future in futures]
            disk.interpose_fail_writes(-1, 0)
            assert set(codes) <= {None, code}
            acknowledged |= {number for number, got in zip(tried, codes, strict=True) if got is None}
            if codes == [None] * 3:
                break
            engine.recover()
            assert numbers_there(engine) == acknowledged
            probe = next(numbers)
            assert code_of(engine.commit(batch(probe))) is None
            acknowledged.add(probe)
        assert n_writes > 3, "the writes do not pass the interposer"
        engine = reopened(engine, folder)
        assert numbers_there(engine) == acknowledged
    engine.close()


def file_size_limit(folder: Path) -> None:
    """The real thing without an interposer: the kernel refuses to let the file grow."""
    import resource

    engine = LmdbEngine(folder, map_bytes=64 * MIB)
    assert code_of(engine.commit(batch(1, 1000))) is None
    size = (folder / "trees" / "data.mdb").stat().st_size
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + MIB, hard))
    acknowledged = {1}
    for number in itertools.count(2):
        code = code_of(engine.commit(batch(number, 1000)))
        if code is not None:
            assert code == "StorageFull", "also where the disk took a part of a write, which is an I/O error to LMDB"
            break
        acknowledged.add(number)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    engine.recover()
    assert numbers_there(engine) == acknowledged
    assert code_of(engine.commit(batch(10_000, 1000))) is None
    engine = reopened(engine, folder)
    assert numbers_there(engine) == acknowledged | {10_000}
    engine.close()


def commit_for_ever(folder: Path) -> None:
    """Commit until killed, printing the number of each acknowledged batch."""
    engine = LmdbEngine(folder, map_bytes=64 * MIB)
    first = max(numbers_there(engine), default=0) + 1
    pending: list[tuple[int, Future[None]]] = []
    for number in itertools.count(first):
        pending.append((number, engine.commit(batch(number, 10))))
        if len(pending) >= 8:
            oldest, future = pending.pop(0)
            future.result(30)
            os.write(1, b"%d\n" % oldest)


def mostly_free(folder: Path, keep: int = 3, **options: Any) -> LmdbEngine:
    """An engine with a file of which most is of no use, and the first batches."""
    engine = LmdbEngine(folder, map_bytes=64 * MIB, **options)
    for number in range(1, 60):
        assert code_of(engine.commit(batch(number, 8_000))) is None
    trees = (Tree.DOCUMENTS, Tree.INDEXES, Tree.COMMIT_LOG)
    gone: list[Write] = [(tree, b"%08d" % number, None) for tree in trees for number in range(keep + 1, 60)]
    assert code_of(engine.commit([*gone, (Tree.META, b"last", b"%08d" % keep)])) is None
    return engine


def compaction_code(engine: LmdbEngine) -> str | None:
    try:
        engine.compact()
    except SystemFault as fault:
        return fault.code
    return None


def full_disk_in_a_copy(folder: Path) -> None:
    """The kernel refuses to let the copy grow to its size."""
    import resource

    engine = mostly_free(folder)
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, hard))
    assert compaction_code(engine) == "StorageFull"
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert engine.failed is None and numbers_there(engine) == {1, 2, 3}
    assert not (folder / COPY_FOLDER).exists()
    assert code_of(engine.commit(batch(4))) is None
    assert compaction_code(engine) is None
    engine = reopened(engine, folder)
    assert numbers_there(engine) == {1, 2, 3, 4}
    engine.close()


def full_disk_while_catching_up(folder: Path) -> None:
    """Writes into the copy fail, those of the deployment do not."""
    keep = 10
    numbers = iter(range(keep + 1, 60))
    engines: list[LmdbEngine] = []

    def pause(_: float) -> None:
        copy = engines[0]._copy if engines else None
        if copy is None or threading.current_thread() is not threading.main_thread():
            return
        if copy.home is None:
            assert code_of(engines[0].commit(batch(next(numbers), 20_000))) is None
        else:
            disk.interpose_fail_writes(0, errno.ENOSPC)

    engine = mostly_free(folder, keep, pause=pause)
    engines.append(engine)
    assert compaction_code(engine) in ("StorageFull", "CompactionFailed")
    disk.interpose_fail_writes(-1, 0)
    assert engine.failed is None
    there = numbers_there(engine)
    assert there > set(range(1, keep + 1))
    engines.clear()
    assert compaction_code(engine) is None
    engine = reopened(engine, folder)
    assert numbers_there(engine) == there
    engine.close()


def failed_sync_in_a_switch(folder: Path) -> None:
    """The copy is in place and its name is not durable: nothing is acknowledged until the file is opened anew."""
    engines: list[LmdbEngine] = []

    def seconds() -> float:
        copy = engines[0]._copy if engines else None
        if copy is not None and copy.home is not None:
            disk.interpose_fail_syncs(errno.EIO)
        return 0.0

    engine = mostly_free(folder, seconds=seconds)
    engines.append(engine)
    assert compaction_code(engine) == "StorageFailed"
    assert engine.failed is not None
    assert code_of(engine.commit(batch(4))) == "StorageFailed"
    disk.interpose_fail_syncs(0)
    engine.recover()
    assert numbers_there(engine) == {1, 2, 3}
    assert code_of(engine.commit(batch(5))) is None
    engine = reopened(engine, folder)
    assert numbers_there(engine) == {1, 2, 3, 5}
    engine.close()


def commit_and_compact(folder: Path) -> None:
    """Commit and compact until killed, printing the number of each acknowledged batch, and each switch."""
    engine = LmdbEngine(folder, map_bytes=64 * MIB)

    def shrink() -> None:
        while True:
            engine.compact()
            os.write(1, b"switched\n")

    threading.Thread(target=shrink, daemon=True).start()
    first = max(numbers_there(engine), default=0) + 1
    for number in itertools.count(first):
        engine.commit(batch(number, 10)).result(30)
        os.write(1, b"%d\n" % number)


if __name__ == "__main__":
    globals()[sys.argv[1]](Path(sys.argv[2]))
    sys.stdout.write("ok\n")
