"""The LMDB engine keeps the contract; its map, its readers and its bounds."""

import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from skerry.errors import SystemFault
from skerry.limits import (
    KIB,
    MIB,
    STORAGE_ADDRESS_SPACE_BYTES_MAX,
    STORAGE_GROUP_BATCHES_MAX,
    STORAGE_GROUP_BYTES_MAX,
    STORAGE_MAP_BYTES_MAX,
    STORAGE_READERS_MAX,
    STORAGE_SHORT_KEY_BYTES_MAX,
    STORAGE_WRITES_PER_SLICE,
)
from skerry.storage import Tree, Write, lmdb_engine
from skerry.storage.address_space import AddressSpace
from skerry.storage.lmdb_engine import LmdbEngine, LmdbSnapshot
from tests.storage.contract import EngineContract


class TestLmdbEngine(EngineContract):
    @pytest.fixture
    def engine(self, tmp_path: Path) -> Iterator[LmdbEngine]:
        engine = LmdbEngine(tmp_path / "deployment", map_bytes=64 * MIB)
        yield engine
        engine.close()

    @pytest.fixture(autouse=True)
    def keep_root(self, tmp_path: Path) -> None:
        self.root = tmp_path

    def make_engine(self) -> LmdbEngine:
        return LmdbEngine(Path(tempfile.mkdtemp(dir=self.root)) / "deployment", map_bytes=64 * MIB)

    def break_writes(self, engine: LmdbEngine, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(*_: object) -> None:
            raise OSError("The test lets this fail.")

        monkeypatch.setattr(lmdb_engine, "slices", broken)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "deployment"


def test_what_was_durable_is_there_after_reopening(folder: Path) -> None:
    engine = LmdbEngine(folder, map_bytes=MIB)
    engine.commit([(Tree.DOCUMENTS, b"k", b"v")]).result(30)
    engine.close()
    engine = LmdbEngine(folder, map_bytes=MIB)
    assert engine.snapshot().get(Tree.DOCUMENTS, b"k") == b"v"
    engine.close()


def test_a_second_opening_is_refused(folder: Path) -> None:
    engine = LmdbEngine(folder, map_bytes=MIB)
    with pytest.raises(SystemFault) as caught:
        LmdbEngine(folder, map_bytes=MIB)
    assert caught.value.code == "DataFolderInUse"
    engine.close()
    LmdbEngine(folder, map_bytes=MIB).close()


def test_a_full_map_fails_the_group_and_recover_doubles_it(folder: Path) -> None:
    engine = LmdbEngine(folder, map_bytes=256 * KIB, map_bytes_max=512 * KIB)
    engine.commit([(Tree.META, b"before", b"v")]).result(30)
    big = [(Tree.DOCUMENTS, b"big", b"x" * (300 * KIB)), (Tree.META, b"with it", b"v")]
    for _ in range(2):
        with pytest.raises(SystemFault) as caught:
            engine.commit(big).result(30)
        assert caught.value.code == "StorageFull"
    assert engine.failed is not None
    engine.recover()
    assert engine.usage.map_bytes == 512 * KIB
    snapshot = engine.snapshot()
    assert snapshot.get(Tree.META, b"before") == b"v"
    assert snapshot.get(Tree.META, b"with it") is None
    engine.commit(big).result(30)
    snapshot.renew()
    assert snapshot.get(Tree.META, b"with it") == b"v"
    engine.close()


def test_grow_ends_snapshots_and_stops_at_the_largest_map(folder: Path) -> None:
    engine = LmdbEngine(folder, map_bytes=256 * KIB, map_bytes_max=512 * KIB)
    engine.commit([(Tree.META, b"k", b"v")]).result(30)
    snapshot = engine.snapshot()
    engine.grow()
    with pytest.raises(SystemFault) as caught:
        snapshot.get(Tree.META, b"k")
    assert caught.value.code == "SnapshotGone"
    snapshot.renew()
    assert snapshot.get(Tree.META, b"k") == b"v"
    with pytest.raises(SystemFault) as caught:
        engine.grow()
    assert caught.value.code == "StorageFull"
    assert snapshot.get(Tree.META, b"k") == b"v"
    engine.commit([(Tree.META, b"big", b"x" * (300 * KIB))]).result(30)
    engine.close()


def test_a_map_is_opened_larger_than_its_file(folder: Path) -> None:
    engine = LmdbEngine(folder, map_bytes=4 * MIB)
    engine.commit([(Tree.META, b"big", b"x" * (3 * MIB))]).result(30)
    engine.close()
    engine = LmdbEngine(folder, map_bytes=MIB)
    assert engine.usage.map_bytes >= 2 * 3 * MIB
    engine.close()


def test_address_space_at_the_budget_and_one_past_it(tmp_path: Path) -> None:
    space = AddressSpace(3 * MIB)
    first = LmdbEngine(tmp_path / "a", map_bytes=MIB, address_space=space)
    second = LmdbEngine(tmp_path / "b", map_bytes=2 * MIB, address_space=space)
    assert space.bytes_used == 3 * MIB
    with pytest.raises(SystemFault) as caught:
        LmdbEngine(tmp_path / "c", map_bytes=4 * KIB, address_space=space)
    assert caught.value.code == "StorageFull"
    with pytest.raises(SystemFault):
        first.grow()
    first.commit([(Tree.META, b"k", b"v")]).result(30)
    second.close()
    first.grow()
    first.close()
    assert space.bytes_used == 0
    whole = AddressSpace()
    whole.reserve(STORAGE_ADDRESS_SPACE_BYTES_MAX)
    with pytest.raises(SystemFault):
        whole.reserve(1)


def test_readers_at_the_bound_and_one_past_it(folder: Path) -> None:
    engine = LmdbEngine(folder, map_bytes=MIB)
    snapshots: list[LmdbSnapshot] = [engine.snapshot() for _ in range(STORAGE_READERS_MAX)]
    with pytest.raises(SystemFault) as caught:
        engine.snapshot()
    assert caught.value.code == "TooManySnapshots"
    for snapshot in snapshots:
        snapshot.close()
    engine.snapshot().close()
    assert engine.usage.readers == 0
    engine.close()


def test_a_map_grows_to_its_bound_and_no_further(folder: Path) -> None:
    engine = LmdbEngine(folder, map_bytes=STORAGE_MAP_BYTES_MAX // 2)
    engine.grow()
    assert engine.usage.map_bytes == STORAGE_MAP_BYTES_MAX
    with pytest.raises(SystemFault) as caught:
        engine.grow()
    assert caught.value.code == "StorageFull"
    engine.close()


class Groups:
    """Sizes of the groups that an engine makes of what is queued while it is kept waiting."""

    def __init__(self, engine: LmdbEngine) -> None:
        self.sizes: list[int] = []
        self._engine = engine
        self._last = 0
        self._waits = threading.Event()
        self._may_go = threading.Event()
        engine.on_group_durable = self._hook

    def of(self, batches: list[list[Write]]) -> list[int]:
        self._engine.submit([(Tree.META, b"first", b"")])
        assert self._waits.wait(30)
        self.sizes.clear()
        for batch in batches:
            done = self._engine.commit(batch)
        self._may_go.set()
        done.result(30)
        self._engine.close()
        return self.sizes

    def _hook(self) -> None:
        self.sizes.append(self._engine.durable_sequence - self._last)
        self._last = self._engine.durable_sequence
        self._waits.set()
        assert self._may_go.wait(30)


@pytest.mark.parametrize(("past", "sizes"), [(0, [STORAGE_GROUP_BATCHES_MAX]), (1, [STORAGE_GROUP_BATCHES_MAX, 1])])
def test_batches_of_a_group_at_the_bound_and_one_past_it(folder: Path, past: int, sizes: list[int]) -> None:
    engine = LmdbEngine(folder, map_bytes=64 * MIB)
    batches: list[list[Write]] = [[(Tree.META, b"%d" % n, b"v")] for n in range(STORAGE_GROUP_BATCHES_MAX + past)]
    assert Groups(engine).of(batches) == sizes


@pytest.mark.parametrize(("past", "sizes"), [(0, [4]), (1, [3, 1])])
def test_bytes_of_a_group_at_the_bound_and_one_past_it(folder: Path, past: int, sizes: list[int]) -> None:
    engine = LmdbEngine(folder, map_bytes=256 * MIB)
    key = b"k" * 24
    value = bytes(STORAGE_GROUP_BYTES_MAX // 4 - len(key))
    batches: list[list[Write]] = [[(Tree.META, key, value)] for _ in range(3)]
    batches.append([(Tree.META, key, value + bytes(past))])
    assert Groups(engine).of(batches) == sizes


def test_a_batch_larger_than_a_group_goes_alone(folder: Path) -> None:
    engine = LmdbEngine(folder, map_bytes=64 * MIB, group_bytes_max=KIB)
    assert Groups(engine).of([[(Tree.META, b"k", b"v" * (2 * KIB))]] * 2) == [1, 1]


def test_the_writer_pauses_between_slices_only(folder: Path) -> None:
    pauses: list[float] = []
    engine = LmdbEngine(folder, map_bytes=64 * MIB, pause=pauses.append)
    for n, expected in ((STORAGE_WRITES_PER_SLICE, 0), (STORAGE_WRITES_PER_SLICE + 1, 1)):
        pauses.clear()
        engine.commit([(Tree.META, b"%d" % k, b"v") for k in range(n)]).result(30)
        assert len(pauses) == expected
        pauses.clear()
        engine.commit([(Tree.META, b"%d" % k, None) for k in range(n)]).result(30)
        assert len(pauses) == expected
    engine.close()


def test_a_run_of_long_keys_is_charged_before_it_is_gathered(folder: Path) -> None:
    engine = LmdbEngine(folder, map_bytes=64 * MIB)
    shared = b"k" * (STORAGE_SHORT_KEY_BYTES_MAX + 100)
    engine.commit([(Tree.META, shared + b"%03d" % n, b"v" * 50) for n in range(200)]).result(30)

    class TooMuch(Exception):
        pass

    spent: list[int] = []

    def charge(n_bytes: int) -> None:
        spent.append(n_bytes)
        if len(spent) > 10:
            raise TooMuch

    snapshot = engine.snapshot()
    with pytest.raises(TooMuch):
        snapshot.scan_chunk(Tree.META, b"", None, False, 1, charge)
    assert len(spent) == 11
    assert all(n_bytes > 600 for n_bytes in spent)
    engine.close()


def test_any_error_of_the_writer_fails_the_engine_and_not_the_thread(folder: Path) -> None:
    engine = LmdbEngine(folder, map_bytes=MIB)
    engine.commit([(Tree.META, b"k", b"v")]).result(30)
    not_bytes: str = "text"
    with pytest.raises(TypeError):
        engine.commit([(Tree.META, b"k", 5)])  # type: ignore[list-item]  # what has no length is refused at once
    with pytest.raises(SystemFault) as caught:
        engine.commit([(Tree.META, b"k", not_bytes)]).result(30)  # type: ignore[list-item]  # the error under test
    assert caught.value.code == "StorageFailed"
    engine.recover()
    assert engine.snapshot().get(Tree.META, b"k") == b"v"
    engine.close()


def test_a_hook_that_raises_does_not_stop_the_writer(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    engine = LmdbEngine(folder, map_bytes=MIB)

    def hook() -> None:
        raise RuntimeError("the loop is closed")

    engine.on_group_durable = hook
    for n in range(2):
        engine.commit([(Tree.META, b"k", b"%d" % n)]).result(30)
    engine.close()
    assert engine.durable_sequence == 2
    assert "the loop is closed" in caplog.text


def test_a_cancelled_future_takes_nobody_with_it(folder: Path) -> None:
    engine = LmdbEngine(folder, map_bytes=MIB)
    futures = [engine.commit([(Tree.META, b"%d" % n, b"v")]) for n in range(50)]
    cancelled = [future.cancel() for future in futures[::2]]
    futures[-1].result(30)
    snapshot = engine.snapshot()
    assert len(cancelled) == 25
    assert all(snapshot.get(Tree.META, b"%d" % n) == b"v" for n in range(50)), "cancelling a future undoes nothing"
    engine.close()


def test_a_snapshot_that_is_dropped_holds_nothing(tmp_path: Path) -> None:
    engine = LmdbEngine(tmp_path / "d")
    home = engine.home()
    engine.snapshot()
    kept = engine.snapshot()
    assert home._readers == 2, "this one, and the one that is kept"
    kept.close()
    home.leave()
    assert home._readers == 0
    engine.close()
