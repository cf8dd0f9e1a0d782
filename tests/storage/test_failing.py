"""The engine that fails when a test asks for it keeps the contract before, and as the contract says while it fails."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from skerry.errors import SystemFault
from skerry.storage import Tree
from skerry.storage.lmdb_engine import LmdbEngine
from skerry.storage.memory_engine import MemoryEngine
from tests.storage.contract import EngineContract
from tests.storage.failing import FailingEngine


class TestFailingEngine(EngineContract):
    @pytest.fixture
    def engine(self, tmp_path: Path) -> Iterator[FailingEngine]:
        engine = FailingEngine(LmdbEngine(tmp_path / "engine"))
        yield engine
        engine.close()

    def make_engine(self) -> FailingEngine:
        return FailingEngine(MemoryEngine())

    def break_writes(self, engine: FailingEngine, monkeypatch: pytest.MonkeyPatch) -> None:
        engine.break_next()


def test_after_the_bound_each_operation_fails_in_its_own_way_until_all_works_again() -> None:
    engine = FailingEngine(MemoryEngine(), after=2, failures=5)
    told: list[int] = []
    engine.on_group_durable = lambda: told.append(engine.durable_sequence)
    snapshot = engine.snapshot()
    assert engine.submit([(Tree.META, b"k", b"1")]) == 1
    with pytest.raises(SystemFault, check=lambda error: error.code == "SnapshotGone"):
        snapshot.get(Tree.META, b"k")
    with pytest.raises(SystemFault, check=lambda error: error.code == "TooManySnapshots"):
        engine.snapshot()
    with pytest.raises(SystemFault, check=lambda error: error.code == "StorageFull"):
        engine.grow()
    assert engine.submit([(Tree.META, b"k", b"2")]) == 2
    assert engine.failed is not None
    late = engine.commit([(Tree.META, b"k", b"3")])
    assert isinstance(late.exception(0), SystemFault)
    with pytest.raises(SystemFault, check=lambda error: error.code == "StorageFailed"):
        engine.recover()
    engine.recover()
    assert engine.failed is None and engine.has_failed
    assert engine.submit([(Tree.META, b"more", b"4")]) == 4
    assert told == [1, 1, 1, 4]
    assert engine.snapshot().get(Tree.META, b"k") == b"1"
