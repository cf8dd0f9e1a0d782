"""The in-memory engine keeps the contract, and fails when a test asks for it."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.errors import SystemFault
from skerry.storage import Tree
from skerry.storage.memory_engine import MemoryEngine
from tests.storage.contract import EngineContract


class TestMemoryEngine(EngineContract):
    @pytest.fixture
    def engine(self) -> Iterator[MemoryEngine]:
        engine = MemoryEngine()
        yield engine
        engine.close()

    def make_engine(self) -> MemoryEngine:
        return MemoryEngine()

    def break_writes(self, engine: MemoryEngine, monkeypatch: pytest.MonkeyPatch) -> None:
        engine.fail_after(0)


def test_held_commits_become_one_group() -> None:
    engine = MemoryEngine()
    engine.hold()
    futures = [engine.commit([(Tree.META, b"k", b"%d" % n)]) for n in range(3)]
    assert not any(future.done() for future in futures)
    assert engine.snapshot().get(Tree.META, b"k") is None
    engine.release()
    assert [future.result(0) for future in futures] == [None] * 3
    assert engine.snapshot().get(Tree.META, b"k") == b"2"


@given(batches=st.lists(st.integers(1, 4), min_size=1, max_size=12), n_writes=st.integers(0, 20))
def test_failing_after_n_writes_keeps_what_was_acknowledged_and_nothing_else(batches: list[int], n_writes: int) -> None:
    engine = MemoryEngine()
    engine.fail_after(n_writes)
    futures = [engine.commit([(Tree.META, b"%d-%d" % (i, j), b"") for j in range(n)]) for i, n in enumerate(batches)]
    kept = [i for i, future in enumerate(futures) if future.exception(0) is None]
    assert kept == list(range(len(kept)))
    assert sum(batches[: len(kept)]) <= n_writes
    assert len(kept) == len(batches) or sum(batches[: len(kept) + 1]) > n_writes
    engine.recover()
    there = [key for key, _ in engine.snapshot().scan(Tree.META, b"", None, False)]
    assert sorted(there) == sorted(b"%d-%d" % (i, j) for i in kept for j in range(batches[i]))
    assert engine.commit([(Tree.META, b"k", b"")]).result(0) is None


def test_a_failed_engine_refuses_until_recover() -> None:
    engine = MemoryEngine()
    engine.fail_after(0)
    for _ in range(2):
        with pytest.raises(SystemFault) as caught:
            engine.commit([(Tree.META, b"k", b"")]).result(0)
        assert caught.value.code == "StorageFull"
    engine.recover()
    assert engine.failed is None
