"""Any interleaving of writes, steps, failures, crashes and pushes leaves indexes that are what the documents say."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from skerry.database import SchemaChange, Steps, backfill, background_steps, index_clearing, judging, steps, verify
from skerry.database.backfill import unbuilt
from skerry.database.catalog import creation_tail
from skerry.database.catalog_store import unfinished_indexes
from skerry.errors import DeveloperError, SystemFault
from skerry.storage.memory_engine import MemoryEngine
from skerry.value import try_decode_document_id
from tests.database.world import World, documents, range_query, scan_query, schema_json, table_schema

NEVER = 1 << 40
FIELDS = ("a", "b")
INDEXES: dict[str, list[str]] = {"by_a": ["a"], "by_b": ["b"], "by_both": ["a", "b"], "also_a": ["a"]}
TEXT = {"indexDescriptor": "text", "searchField": "a", "filterFields": ["b"]}
VALUES = st.sampled_from(["x", "y", "zzz", 1, None])
NAMES = st.sets(st.sampled_from(["by_a", "by_b", "by_both"]), max_size=3)
SCHEMAS = st.tuples(NAMES, NAMES, st.booleans(), st.booleans(), st.booleans())
PATCH = st.tuples(st.just("patch"), st.integers(0, 30), VALUES, st.booleans())
STEPS = st.tuples(st.just("steps"), st.integers(1, 6), st.just(None), st.booleans())
OPERATIONS = st.one_of(
    st.tuples(st.just("insert"), VALUES, VALUES, st.booleans()),
    *[PATCH] * 3,
    st.tuples(st.just("delete"), st.integers(0, 30), st.just(None), st.booleans()),
    st.tuples(st.just("push"), SCHEMAS, st.just(None), st.booleans()),
    *[STEPS] * 6,
    st.tuples(st.just("crash"), st.just(None), st.just(None), st.booleans()),
    st.tuples(st.just("fail"), st.integers(0, 2), st.just(None), st.booleans()),
)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (backfill, judging, index_clearing):
        monkeypatch.setattr(module, "SCHEMA_STEP_ITEMS", 2)
    monkeypatch.setattr(backfill, "BACKFILL_BATCH_ENTRIES", 3)
    monkeypatch.setattr(backfill, "BACKFILL_RUN_CHUNKS", 2)
    monkeypatch.setattr(steps, "STEP_NS", 0)


def schema_of(enabled: set[str], staged: set[str], is_renamed: bool, is_judged: bool, is_searched: bool) -> bytes:
    table = table_schema("t", {name: INDEXES[name] for name in enabled})
    table["stagedDbIndexes"] = [{"indexDescriptor": name, "fields": INDEXES[name]} for name in sorted(staged - enabled)]
    if is_renamed:
        for index in (*table["indexes"], *table["stagedDbIndexes"]):
            if index["indexDescriptor"] == "by_a":
                index["indexDescriptor"] = "also_a"
    table["searchIndexes" if is_judged else "stagedSearchIndexes"] = [TEXT] if is_searched else []
    either = {"type": "union", "value": [{"type": "string"}, {"type": "null"}]}
    anything = {"fieldType": {"type": "any"}, "optional": True}
    table["documentType"] = {"type": "object", "value": {"a": {"fieldType": either, "optional": False}, "b": anything}}
    return schema_json(table, validation=is_judged)


class Model:
    """A world with at most one push under way, each part of which can be ended anywhere."""

    def __init__(self) -> None:
        self.world = World(MemoryEngine())
        self.ids: list[str] = []
        self.work: Iterator[None] | None = None

    def reopen(self) -> None:
        """A new process over the same data; time and seeds go on."""
        before = self.world
        self.world = World(before.engine)
        self.world.now_ms, self.world.seeds = before.now_ms, before.seeds

    def push(self, raw: bytes) -> Iterator[None]:
        world = self.world
        change = SchemaChange(world.database, raw)
        try:
            while True:
                yield from self.each(change.judge())
                world.settle()
                world.take(change.catch_up())
                if change.is_ready:
                    break
                world.commit_of(change.register)
                yield
                yield from self.each(change.build())
            world.commit_of(lambda on_durable: change.switch((), on_durable))
        finally:
            change.close()
        yield from self.each(background_steps(world.database))

    def each(self, pieces: Steps) -> Iterator[None]:
        for waited in pieces:
            while waited is not None and not waited.done():
                self.world.queue.get(timeout=20)()
            yield

    def end_work(self) -> None:
        if self.work is not None:
            self.work.close()  # pyright: ignore[reportAttributeAccessIssue]  # a generator
            self.work = None

    def write(self, kind: str, which: Any, value: Any, is_settled: bool) -> None:
        world = self.world
        transaction = world.begin()
        try:
            if kind == "insert":
                self.ids.append(transaction.insert("t", {"a": which, "b": value}))
            elif self.ids and kind == "patch":
                transaction.patch(self.ids[which % len(self.ids)], {FIELDS[which % 2]: value})
            elif self.ids:
                transaction.delete(self.ids[which % len(self.ids)])
        except DeveloperError:
            transaction.abort()
            return
        world.commit(transaction)
        if is_settled:
            world.settle()

    def do(self, kind: str, first: Any, second: Any, is_settled: bool) -> None:
        if kind in ("insert", "patch", "delete"):
            self.write(kind, first, second, is_settled)
        elif kind == "push":
            self.end_work()
            self.work = self.push(schema_of(*first))
        elif kind == "crash":
            self.end_work()
            if not is_settled:
                self.world.engine.fail_after(0)  # what is pending is lost
            self.world.settle()
            self.world.engine.fail_after(NEVER)
            if self.world.engine.failed is not None:
                self.world.engine.recover()
            self.reopen()
        elif kind == "fail":
            self.world.engine.fail_after(first)
            self.step(4)
            self.world.engine.fail_after(NEVER)
        else:
            self.step(first)

    def step(self, count: int) -> None:
        for _ in range(count):
            if self.work is None:
                return
            try:
                next(self.work)
            except (StopIteration, DeveloperError, SystemFault, AssertionError):
                self.end_work()

    def check(self) -> None:
        """Every index, whole or being built, has what the documents say and nothing else."""
        world = self.world
        world.settle()
        snapshot = world.engine.snapshot()
        walk = verify(snapshot)
        assert walk.is_sound, walk.differences
        building = unbuilt(world.database)
        table = world.database.catalog.tables.get("t")
        if table is not None:
            present = documents(world.read(lambda q: q.collect_query(scan_query("t"))))
            for index in table.declared:
                if index.number not in building:
                    expected = sorted(
                        key
                        for stored in present
                        for key in index.keys(
                            stored, creation_tail(stored["_creationTime"], raw_id(world, stored["_id"]))
                        )
                    )
                    assert snapshot.scan_index_keys(index.number, b"", None, False, 1_000) == expected, index.name
            for name, index in table.indexes.items():
                assert index.number not in building, "what answers queries is whole"
                if index.kind == "database":
                    assert len(
                        documents(world.read(lambda q, n=name: q.collect_query(range_query(f"t.{n}", []))))
                    ) == len(present)
        snapshot.close()


def raw_id(world: World, document_id: str) -> bytes:
    decoded = try_decode_document_id(document_id)
    assert decoded is not None
    return decoded[1]


@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(OPERATIONS, min_size=30, max_size=90))
def test_indexes_are_what_the_documents_say_whatever_came_between(operations: list[Any]) -> None:
    model = Model()
    for number in range(9):
        model.write("insert", "xyz"[number % 3], number, False)
    for operation in operations:
        model.do(*operation)
    model.check()
    model.end_work()
    model.reopen()
    model.world.take(background_steps(model.world.database))
    model.check()
    assert unbuilt(model.world.database) == {}
    snapshot = model.world.engine.snapshot()
    assert unfinished_indexes(snapshot) == []
    snapshot.close()
