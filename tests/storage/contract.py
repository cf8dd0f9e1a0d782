"""The contract of a storage engine as tests: a mix-in that each engine's test class inherits."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from skerry.errors import SystemFault
from skerry.limits import STORAGE_KEY_BYTES_MAX, STORAGE_SHORT_KEY_BYTES_MAX
from skerry.storage import Tree, Write, index_prefix

P = STORAGE_SHORT_KEY_BYTES_MAX

# Keys around the length where the engine's own keys end: short ones, and ones that share a prefix longer than that and
# differ only behind it.
short_keys = st.binary(min_size=1, max_size=4)
bodies = st.sampled_from(
    [b"a" * (P - 4), b"a" * (P - 1), b"a" * P, b"a" * (P + 1), b"a" * 511, b"a" * 600, b"b" * 600, b"\xff" * 520]
)
long_keys = st.builds(lambda body, tail: body + tail, bodies, st.binary(max_size=3))
keys = st.one_of(short_keys, long_keys)
bounds = st.one_of(st.just(b""), keys)
values = st.binary(max_size=20)


def sliced(model: dict[bytes, bytes], lower: bytes, upper: bytes | None, reverse: bool) -> list[tuple[bytes, bytes]]:
    chosen = [item for item in model.items() if item[0] >= lower and (upper is None or item[0] < upper)]
    return sorted(chosen, reverse=reverse)


class EngineContract:
    """Subclasses give the fixture `engine`, `make_engine` for the model test, and `break_writes`."""

    @pytest.fixture
    def engine(self) -> Iterator[Any]:
        raise NotImplementedError

    def make_engine(self) -> Any:
        raise NotImplementedError

    def break_writes(self, engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """Lets the next group fail, and none behind it after `recover`."""
        raise NotImplementedError

    def test_a_snapshot_is_one_state_until_it_is_renewed(self, engine: Any) -> None:
        snapshot = engine.snapshot()
        engine.commit([(Tree.DOCUMENTS, b"k", b"1")]).result(30)
        assert snapshot.get(Tree.DOCUMENTS, b"k") is None
        assert list(snapshot.scan(Tree.DOCUMENTS, b"", None, False)) == []
        snapshot.renew()
        assert snapshot.get(Tree.DOCUMENTS, b"k") == b"1"
        engine.commit([(Tree.DOCUMENTS, b"k", None)]).result(30)
        assert snapshot.get(Tree.DOCUMENTS, b"k") == b"1"
        assert engine.snapshot().get(Tree.DOCUMENTS, b"k") is None

    def test_the_last_write_wins_in_a_batch_and_between_batches(self, engine: Any) -> None:
        for order in ((b"1", b"2"), (b"1", None), (None, b"2")):
            engine.commit([(Tree.META, b"in one", value) for value in order])
            for value in order:
                last = engine.commit([(Tree.META, b"between", value)])
            last.result(30)
            snapshot = engine.snapshot()
            assert snapshot.get(Tree.META, b"in one") == order[-1]
            assert snapshot.get(Tree.META, b"between") == order[-1]

    def test_trees_are_apart(self, engine: Any) -> None:
        engine.commit([(tree, b"k", tree.name.encode()) for tree in Tree]).result(30)
        snapshot = engine.snapshot()
        assert [snapshot.get(tree, b"k") for tree in Tree] == [tree.name.encode() for tree in Tree]

    def test_empty_values_and_absent_deletes(self, engine: Any) -> None:
        long_key = b"l" * (P + 1)
        engine.commit([(Tree.META, b"k", b""), (Tree.META, long_key, b""), (Tree.META, b"no", None)]).result(30)
        snapshot = engine.snapshot()
        assert snapshot.get(Tree.META, b"k") == b""
        assert snapshot.get(Tree.META, long_key) == b""
        assert snapshot.get(Tree.META, b"no") is None
        assert snapshot.get(Tree.META, b"") is None

    def test_key_length_at_the_bound_and_one_past_it(self, engine: Any) -> None:
        longest = b"k" * STORAGE_KEY_BYTES_MAX
        engine.commit([(Tree.META, longest, b"v")]).result(30)
        assert engine.snapshot().get(Tree.META, longest) == b"v"
        for wrong in (longest + b"k", b""):
            with pytest.raises(SystemFault) as caught:
                engine.commit([(Tree.META, wrong, b"v")])
            assert caught.value.code == "StorageKeyInvalid"
        engine.commit([(Tree.META, b"after", b"v")]).result(30)

    def test_numbers_of_batches(self, engine: Any) -> None:
        first = engine.submit([(Tree.META, b"k", b"1")])
        engine.commit([(Tree.META, b"k", b"2")]).result(30)
        assert first == 1
        assert engine.durable_sequence == 2
        assert engine.failed is None

    def test_the_hook_runs_once_the_group_is_durable(self, engine: Any) -> None:
        seen: list[int] = []
        called = threading.Event()

        def hook() -> None:
            seen.append(engine.durable_sequence)
            called.set()

        engine.on_group_durable = hook
        engine.submit([(Tree.META, b"k", b"1")])
        assert called.wait(30)
        assert seen == [1]

    def test_an_index_scan_stays_in_its_index(self, engine: Any) -> None:
        numbers = (0, 1, 2, 255, 256, 0xFFFFFFFE, 0xFFFFFFFF)
        writes = [(Tree.INDEXES, index_prefix(n) + b"x", str(n).encode()) for n in numbers]
        engine.commit(writes).result(30)
        snapshot = engine.snapshot()
        for n in numbers:
            for reverse in (False, True):
                assert list(snapshot.scan_index(n, b"", None, reverse)) == [(b"x", str(n).encode())]
                assert snapshot.scan_index_keys(n, b"", None, reverse, 10) == [b"x"]

    def test_every_pair_of_bounds_around_the_length_where_keys_become_long(self, engine: Any) -> None:
        """Keys and bounds of each length near the edge, in a tree and in an index (whose number takes four bytes)."""
        lengths = (P - 5, P - 4, P - 3, P - 1, P, P + 1, P + 2)
        there = [b"a" * n + tail for n in lengths for tail in (b"", b"b")]
        model = {key: b"%d" % n for n, key in enumerate(there)}
        writes: list[Write] = [(Tree.META, key, value) for key, value in model.items()]
        writes += [(Tree.INDEXES, index_prefix(3) + key, value) for key, value in model.items()]
        engine.commit(writes).result(30)
        snapshot = engine.snapshot()
        for lower in (b"", *there):
            for upper in (None, *there):
                for reverse in (False, True):
                    wanted = sliced(model, lower, upper, reverse)
                    assert list(snapshot.scan(Tree.META, lower, upper, reverse)) == wanted
                    assert snapshot.scan_chunk(Tree.META, lower, upper, reverse, 100) == wanted
                    assert snapshot.scan_chunk(Tree.META, lower, upper, reverse, 1) == wanted[:1]
                    assert list(snapshot.scan_index(3, lower, upper, reverse)) == wanted
                    assert snapshot.scan_index_keys(3, lower, upper, reverse, 3) == [key for key, _ in wanted[:3]]

    def test_a_snapshot_ends_with_recover_and_comes_back_with_renew(self, engine: Any) -> None:
        engine.commit([(Tree.META, b"k", b"1")]).result(30)
        snapshot = engine.snapshot()
        engine.recover()
        with pytest.raises(SystemFault) as caught:
            snapshot.get(Tree.META, b"k")
        assert caught.value.code == "SnapshotGone"
        with pytest.raises(SystemFault):
            list(snapshot.scan(Tree.META, b"", None, False))
        snapshot.renew()
        assert snapshot.get(Tree.META, b"k") == b"1"
        engine.commit([(Tree.META, b"k", b"2")]).result(30)

    def test_growing_ends_snapshots_and_loses_nothing(self, engine: Any) -> None:
        engine.submit([(Tree.META, b"k", b"1")])
        snapshot = engine.snapshot()
        engine.grow()
        with pytest.raises(SystemFault) as caught:
            snapshot.get(Tree.META, b"k")
        assert caught.value.code == "SnapshotGone"
        snapshot.renew()
        assert snapshot.get(Tree.META, b"k") == b"1"
        engine.commit([(Tree.META, b"k", b"2")]).result(30)
        assert engine.failed is None and engine.durable_sequence == 2

    def test_after_a_failure_each_batch_fails_until_recover(self, engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        engine.commit([(Tree.META, b"k", b"1")]).result(30)
        told = threading.Event()
        engine.on_group_durable = told.set
        snapshot = engine.snapshot()
        with monkeypatch.context() as patch:
            self.break_writes(engine, patch)
            failed = engine.commit([(Tree.META, b"k", b"2"), (Tree.META, b"l", b"2")])
            assert isinstance(failed.exception(30), SystemFault)
            assert failed.exception(0).code in ("StorageFull", "StorageFailed")
        assert told.wait(30), "whoever waits for a group hears of its failure too"
        late = engine.commit([(Tree.META, b"late", b"3")])
        assert isinstance(late.exception(30), SystemFault)
        lost = engine.submit([(Tree.META, b"late", b"4")])
        assert engine.failed is not None and engine.durable_sequence == 1 < lost
        assert snapshot.get(Tree.META, b"k") == b"1", "snapshots keep working"
        engine.recover()
        assert engine.failed is None
        snapshot.renew()
        assert list(snapshot.scan(Tree.META, b"", None, False)) == [(b"k", b"1")]
        engine.commit([(Tree.META, b"k", b"5")]).result(30)
        assert engine.durable_sequence > lost
        assert list(engine.snapshot().scan(Tree.META, b"", None, False)) == [(b"k", b"5")]

    def test_batches_of_several_threads_are_whole_and_in_one_order(self, engine: Any) -> None:
        numbers: list[tuple[int, bytes]] = []

        def write(name: bytes) -> None:
            for n in range(20):
                value = b"%b %d" % (name, n)
                number = engine.submit([(tree, key, value) for tree in Tree for key in (b"all", value)])
                numbers.append((number, value))

        threads = [threading.Thread(target=write, args=(b"%d" % n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        engine.commit([]).result(30)
        assert sorted(number for number, _ in numbers) == list(range(1, 81))
        snapshot = engine.snapshot()
        for tree in Tree:
            assert snapshot.get(tree, b"all") == max(numbers)[1], "the one with the highest number came last"
            assert all(snapshot.get(tree, value) == value for _, value in numbers)

    def test_a_scan_does_not_outlive_its_snapshot(self, engine: Any) -> None:
        engine.commit([(Tree.META, b"%d" % n, b"") for n in range(9)]).result(30)
        snapshot = engine.snapshot()
        for end in (snapshot.renew, snapshot.close):
            scan = snapshot.scan(Tree.META, b"", None, False)
            next(scan)
            end()
            with pytest.raises(SystemFault) as caught:
                list(scan)
            assert caught.value.code == "SnapshotGone"

    def test_a_closed_engine_takes_nothing(self, engine: Any) -> None:
        last = engine.commit([(Tree.META, b"k", b"1")])
        engine.close()
        engine.close()
        assert last.result(0) is None
        with pytest.raises(SystemFault) as caught:
            engine.commit([(Tree.META, b"k", b"2")])
        assert caught.value.code == "StorageFailed"

    def test_against_a_dict(self) -> None:
        make_engine = self.make_engine

        class Model(RuleBasedStateMachine):
            def __init__(self) -> None:
                super().__init__()
                self.engine = make_engine()
                self.model: dict[bytes, bytes] = {}
                self.old_model: dict[bytes, bytes] = {}
                self.old = self.engine.snapshot()

            @rule(batches=st.lists(st.lists(st.tuples(keys, st.none() | values), max_size=8), max_size=3))
            def commit(self, batches: list[list[tuple[bytes, bytes | None]]]) -> None:
                futures: list[Any] = []
                for batch in batches:
                    writes: list[Write] = []
                    for key, value in batch:
                        writes += [(Tree.DOCUMENT_HISTORY, key, value), (Tree.INDEXES, index_prefix(7) + key, value)]
                        if value is None:
                            self.model.pop(key, None)
                        else:
                            self.model[key] = value
                    futures.append(self.engine.commit(writes))
                for future in futures:
                    future.result(30)

            @rule()
            def renew(self) -> None:
                self.old.renew()
                self.old_model = dict(self.model)

            @rule()
            def recover(self) -> None:
                self.engine.recover()
                self.renew()

            @rule(
                lower=bounds,
                upper=st.none() | bounds,
                reverse=st.booleans(),
                n=st.integers(1, 5),
                use_old=st.booleans(),
            )
            def scan(self, lower: bytes, upper: bytes | None, reverse: bool, n: int, use_old: bool) -> None:
                snapshot, model = (self.old, self.old_model) if use_old else (self.engine.snapshot(), self.model)
                wanted = sliced(model, lower, upper, reverse)
                assert list(snapshot.scan(Tree.DOCUMENT_HISTORY, lower, upper, reverse)) == wanted
                assert snapshot.scan_chunk(Tree.DOCUMENT_HISTORY, lower, upper, reverse, n) == wanted[:n]
                assert list(snapshot.scan_index(7, lower, upper, reverse)) == wanted
                assert snapshot.scan_index_keys(7, lower, upper, reverse, n) == [key for key, _ in wanted[:n]]
                if not use_old:
                    snapshot.close()

            @rule(key=keys)
            def get(self, key: bytes) -> None:
                assert self.old.get(Tree.DOCUMENT_HISTORY, key) == self.old_model.get(key)

            @invariant()
            def all_there(self) -> None:
                snapshot = self.engine.snapshot()
                assert all(snapshot.get(Tree.DOCUMENT_HISTORY, key) == value for key, value in self.model.items())
                snapshot.close()

            def teardown(self) -> None:
                self.engine.close()

        run_state_machine_as_test(
            Model,
            settings=settings(
                max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
            ),
        )
