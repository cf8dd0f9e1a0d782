"""The storage fails at every operation of a workload in turn: of commits, changes of the schema, imports, and dropping
the past.

Whatever it fails at, callers hear a stable code, and the database that is opened next holds what was acknowledged: the
state behind the last step that ended well, or behind the one that was under way, and never a part of one; all trees
agree. Where it fails only once or twice, the same database goes on.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from skerry.database import Steps, Transaction, retain, verify
from skerry.database.bulk import Fills, clear_imported
from skerry.errors import ERRORS, SystemFault
from skerry.storage import StorageEngine
from skerry.storage.lmdb_engine import LmdbEngine
from skerry.storage.memory_engine import MemoryEngine
from tests.database.world import World, scan_query, table_schema
from tests.fixtures.effort import TIMES
from tests.storage.failing import FailingEngine

CODES = {"StorageFull", "StorageFailed", "SnapshotGone", "TooManySnapshots", "OptimisticConcurrencyControlFailure"}
IMPORTED_NUMBER = 10_500
State = dict[str, Any]
Step = Callable[[World], None]


def commit(*writes: tuple[str, int, Any]) -> Step:
    """A mutation that puts documents by (table, n): of a value None it deletes. It may be done twice."""

    def step(world: World) -> None:
        transaction = world.begin()
        try:
            for table, n, value in writes:
                put(transaction, table, n, value)
        except BaseException:
            transaction.abort()
            raise
        answers = world.commit(transaction)
        world.settle()
        if isinstance(answers[0], BaseException):
            raise answers[0]

    return step


def put(transaction: Transaction, table: str, n: int, value: Any) -> None:
    found = [d for d in orjson.loads(transaction.collect_query(scan_query(table))) if d["n"] == n]
    if value is None:
        for document in found:
            transaction.delete(document["_id"])
    elif found:
        transaction.replace(found[0]["_id"], {"n": n, "value": value})
    else:
        transaction.insert(table, {"n": n, "value": value})


def schema(*fields: str) -> Step:
    return lambda world: world.schema(table_schema("t", {f"by_{field}": [field] for field in fields}))


def imported(count: int) -> Step:
    """An import of so many documents in the place of what the table `i` holds."""

    def step(world: World) -> None:
        fills = Fills(world.database, lambda: world.now_ms, lambda n: world.entropy(n))
        try:
            drive(world, fills.begin({"i": IMPORTED_NUMBER}))
            fill = fills.fills["i"]
            for n in range(count):
                fill.add(fill.judge({"n": n, "value": "x" * 700}))
            drive(world, fill.finish())
            drive(world, fills.switch(b"import"))
        finally:
            fills.close()
        drive(world, clear_imported(world.database))

    return step


def drive(world: World, steps: Steps) -> None:
    for waited in steps:
        world.turn()
        if waited is not None:
            waited.exception()
            world.turn()


def forget(world: World) -> None:
    """Drops the past."""
    while retain(world.database, world.database.durable_ts, 4) == 4:
        world.database.engine.commit([]).result()
    world.database.engine.commit([]).result()


WORKLOAD: list[Step] = [
    commit(("t", 1, "a"), ("t", 2, "b"), ("u", 1, "c")),
    schema("n"),
    commit(("t", 1, "d"), ("t", 2, None), ("u", 2, "e" * 2000)),
    imported(3),
    commit(("t", 3, "f"), ("i", 1, "g")),
    *[commit(("u", 1, n)) for n in range(3)],
    schema("n", "value"),
    forget,
    imported(2),
    commit(("new", 1, "h"), ("t", 1, None)),
    schema("value"),
    commit(("t", 4, "i"), ("u", 1, None)),
    forget,
]


class FailingWorld(World):
    """A world over a storage that fails, with randomness for imports."""

    def entropy(self, length: int) -> bytes:
        self.seeds += 1
        return self.seeds.to_bytes(8, "big").rjust(length, b"\0")


def state_of(world: World) -> State:
    """What users see: the documents of each table without ids and times, and the indexes; checked to be sound."""
    world.settle()
    snapshot = world.engine.snapshot()
    found = verify(snapshot)
    snapshot.close()
    assert found.is_sound, found.differences
    state: State = {}
    for name, table in world.database.catalog.tables.items():
        if table.is_system:
            continue
        raw = world.read(lambda t, name=name: t.collect_query(scan_query(name)))
        rows = sorted((d["n"], d["value"]) for d in orjson.loads(raw))
        if rows or table.indexes:
            state[name] = (rows, sorted(table.indexes))
    return state


@functools.cache
def reference() -> tuple[list[State], int]:
    """The state behind each number of steps, where nothing fails; and how many operations all of them ask for."""
    engine = FailingEngine(MemoryEngine())
    world = FailingWorld(engine)
    states: list[State] = [{}]
    for step in WORKLOAD:
        step(world)
        states.append(looked_at(engine, world))
    return states, engine.operations


def looked_at(engine: FailingEngine, world: World) -> State:
    """The state of a world whose storage may fail, which it does not meanwhile."""
    engine.is_counting = False
    try:
        return state_of(world)
    finally:
        engine.is_counting = True


def check_code(error: SystemFault) -> None:
    assert error.code in CODES and error.code in ERRORS, error


def played_until_failure(engine: FailingEngine) -> int:
    """How many steps of the workload ended well."""
    done = 0
    try:
        world = FailingWorld(engine)
        for step in WORKLOAD:
            step(world)
            done += 1
    except SystemFault as error:
        check_code(error)
    return done


def check_reopened(inner: StorageEngine, done: int, at: int) -> None:
    state, states = state_of(World(inner)), reference()[0]
    assert state in states[done : done + 2], f"storage failed at operation {at}, {done} steps were acknowledged"


def test_where_it_fails_for_good_what_was_acknowledged_is_there() -> None:
    failed, operations = 0, reference()[1]
    for at in range(operations):
        inner = MemoryEngine()
        engine = FailingEngine(inner, after=at)
        done = played_until_failure(engine)
        failed += done < len(WORKLOAD)
        check_reopened(inner, done, at)
    assert failed > operations * 0.9


@pytest.mark.parametrize("failures", [1, 2])
def test_where_it_fails_once_or_twice_the_same_database_goes_on(failures: int) -> None:
    states, operations = reference()
    for at in range(1, operations):
        inner = MemoryEngine()
        engine = FailingEngine(inner, after=at, failures=failures)
        try:
            world = FailingWorld(engine)
        except SystemFault as error:
            check_code(error)
            continue
        for done, step in enumerate(WORKLOAD, 1):
            for _ in range(failures + 2):
                try:
                    step(world)
                    break
                except SystemFault as error:
                    check_code(error)
                    world.turn()
            else:
                pytest.fail(f"storage failed at operation {at} and works again, but step {done} still fails")
            assert looked_at(engine, world) == states[done], f"storage failed at operation {at}"
        assert state_of(World(inner)) == states[-1]


def test_on_disk(tmp_path: Path) -> None:
    """The same over LMDB, at a few of the operations."""
    operations = reference()[1]
    for at in range(7, operations, max(1, operations // (12 * TIMES))):
        folder = tmp_path / str(at)
        engine = FailingEngine(LmdbEngine(folder), after=at)
        done = played_until_failure(engine)
        engine.close()
        inner = LmdbEngine(folder)
        check_reopened(inner, done, at)
        inner.close()
