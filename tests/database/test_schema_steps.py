"""A schema applied in steps: ended anywhere, killed anywhere, and refused when something came between."""

import itertools
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import pytest

from skerry import limits
from skerry.database import Steps, schema_change
from skerry.database.catalog_store import unfinished_indexes
from skerry.errors import DeveloperError, SystemFault
from skerry.limits import MIB
from skerry.storage.address_space import AddressSpace
from skerry.storage.lmdb_engine import LmdbEngine
from tests.database.schema_writer import DOCUMENTS
from tests.database.test_growing import MAP_BYTES
from tests.database.test_schema import NAMED, entries, fails, names
from tests.database.world import World, memory_world, range_query, scan_query, schema_json, table_schema

BY_NAME = range_query("t.by_name", [])
COUNT = 40
NAMES = [f"{number:03}" for number in range(COUNT)]
INDEXED = schema_json(table_schema("t", {"by_name": ["name"]}, NAMED), validation=True)
BARE = schema_json(table_schema("t", {}))


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema_change, "SCHEMA_STEP_ITEMS", 4)
    monkeypatch.setattr(schema_change, "SCHEMA_CHANGE_BATCH_ITEMS", 8)


def filled(world: World) -> World:
    world.insert_all("t", [{"name": name} for name in reversed(NAMES)])
    return world


def drive(world: World, steps: Steps, most: int = 1_000_000) -> int:
    """Takes steps as a loop does; how many there were."""
    taken = 0
    for waited in steps:
        taken += 1
        while waited is not None and not waited.done():
            world.queue.get(timeout=20)()
        if taken == most:
            break
    return taken


def is_whole(world: World) -> bool:
    """Whether the index is there, with all of its entries; nothing else has entries."""
    table = world.database.catalog.tables["t"]
    numbers = {index.number for index in table.stored}
    snapshot = world.engine.snapshot()
    assert unfinished_indexes(snapshot) == []
    snapshot.close()
    if "by_name" not in table.indexes:
        assert entries(world) == {table.by_creation_time.number}
        return False
    assert entries(world) == numbers and names(world, BY_NAME) == NAMES
    return True


def test_steps_are_short_and_queries_answer_between_them(world: World) -> None:
    filled(world)
    steps = world.database.schema_steps(INDEXED)
    taken = 0
    for waited in steps:
        taken += 1
        assert names(world, scan_query("t")) == NAMES[::-1]
        while waited is not None and not waited.done():
            world.queue.get(timeout=20)()
    assert taken >= 2 * COUNT / 4, "one for each piece that is checked, one for each that is indexed"
    assert is_whole(world)


def test_a_change_that_ends_anywhere_leaves_the_old_schema_and_no_number_in_use() -> None:
    world = filled(memory_world())
    total = drive(world, world.database.schema_steps(INDEXED))
    ended = 0
    for most in range(1, total):
        world = filled(memory_world())
        steps = world.database.schema_steps(INDEXED)
        drive(world, steps, most)
        if "by_name" in world.database.catalog.tables["t"].indexes:
            steps.close()
            continue
        ended += 1
        steps.close()
        (other,) = world.insert_all("other", [{"name": "x"}])
        assert names(world, scan_query("other")) == ["x"], "a new table has the entries of the change that ended"
        reopened = World(world.engine)
        assert reopened.read(lambda t, i=other: t.get(i)) and names(reopened, scan_query("other")) == ["x"]
        drive(reopened, reopened.database.schema_steps(INDEXED))
        assert names(reopened, scan_query("other")) == ["x"] and names(reopened, BY_NAME) == NAMES
    assert ended > COUNT / 4


def test_a_storage_failure_anywhere_leaves_one_schema_or_the_other() -> None:
    outcomes: set[bool] = set()
    for writes in range(0, 2 * COUNT, 3):
        world = filled(memory_world())
        world.engine.fail_after(writes)
        try:
            drive(world, world.database.schema_steps(INDEXED))
        except SystemFault:
            world.settle()
            assert not world.database.catalog.tables["t"].indexes
        world.settle()
        world.engine.recover()
        reopened = World(world.engine)
        outcomes.add(is_whole(reopened))
        drive(reopened, reopened.database.schema_steps(INDEXED))
        assert is_whole(reopened)
    assert outcomes == {True, False}


def test_a_commit_that_came_between_refuses_the_switch(memory: World) -> None:
    filled(memory)
    steps = memory.database.schema_steps(INDEXED)
    drive(memory, steps, 5)
    memory.run(lambda t: t.insert("t", {"name": "x"}))
    with pytest.raises(SystemFault) as caught:
        drive(memory, steps)
    assert caught.value.code == "OptimisticConcurrencyControlFailure"
    assert not memory.database.catalog.tables["t"].indexes


def test_a_transaction_beside_the_change_conflicts_with_it(memory: World) -> None:
    filled(memory)
    beside = memory.begin(detached=True)
    beside.insert("t", {"name": 5})
    drive(memory, memory.database.schema_steps(INDEXED))
    with pytest.raises(SystemFault, match="schema changed"):
        memory.commit(beside)


def test_large_documents_and_long_checks_leave_the_thread(memory: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema_change, "SLICE_VALIDATION_STEPS_MAX", 50)
    body = {"fieldType": {"type": "any"}, "optional": True}
    tags = {"fieldType": {"type": "array", "value": {"type": "string"}}, "optional": True}
    judge = {"type": "object", "value": {**NAMED["value"], "body": body, "tags": tags}}
    large = "x" * 2 * schema_change.SCHEMA_STEP_BYTES
    memory.insert_all("t", [{"name": "a"}, {"name": "b", "tags": ["t"] * 60}, {"name": "c", "body": large}])
    threads: list[threading.Thread] = []

    def beside(job: Callable[[], None]) -> "Future[None]":
        done: Future[None] = Future()

        def run() -> None:
            try:
                job()
                done.set_result(None)
            except DeveloperError as error:
                done.set_exception(error)

        threads.append(threading.Thread(target=run))
        threads[-1].start()
        return done

    def change(*fields: str) -> Steps:
        raw = schema_json(table_schema("t", {"by_name": [*fields]}, judge), validation=True)
        return memory.database.schema_steps(raw, beside=beside)

    for waited in change("name"):
        if waited is not None:
            memory.turn()
            waited.exception(20)
    assert len(threads) == 3, "the long check, the large document's check, its index entry"
    assert names(memory, BY_NAME) == ["a", "b", "c"]
    memory.database.apply_schema(BARE)
    (wrong,) = memory.insert_all("t", [{"name": 5, "body": large}])
    with fails("SchemaEnforcementError", wrong) as caught:
        for waited in change("name"):
            if waited is not None:
                waited.exception(20)
    assert "Path: .name" in caught.value.message


def test_storage_that_grows_under_a_change_does_not_end_it(tmp_path: Path) -> None:
    world = World(LmdbEngine(tmp_path / "d", map_bytes=MAP_BYTES, address_space=AddressSpace(64 * MIB)))
    for _ in range(4):
        world.insert_all("t", [{"name": "n" * 700, "n": number} for number in range(500)])
    at_first = world.engine.usage.map_bytes
    drive(
        world,
        world.database.schema_steps(
            INDEXED.replace(b'"fields":["name"]', b'"fields":["name","n"]').replace(
                b'"schemaValidation":true', b'"schemaValidation":false'
            )
        ),
    )
    assert world.engine.usage.map_bytes > at_first
    assert len(names(world, BY_NAME)) == 2_000
    world.engine.close()


def test_a_kill_during_a_change_leaves_one_schema_or_the_other(tmp_path: Path, repository: Path) -> None:
    folder = tmp_path / "d"
    for steps in (1, 5, 9, 12, 14, 16, 40):
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.database.schema_writer", str(folder)],
            stdout=subprocess.PIPE,
            cwd=repository,
            env={**os.environ, "PYTHONPATH": f"{repository / 'host'}:{repository}"},
        )
        assert process.stdout is not None
        for _ in range(steps):
            assert process.stdout.readline() == b".\n"
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        world = World(LmdbEngine(folder))
        table = world.database.catalog.tables["t"]
        assert entries(world) == {index.number for index in table.stored}
        if table.indexes:
            assert names(world, BY_NAME) == [f"{number:04}" for number in range(DOCUMENTS)]
        world.engine.close()


def n_checks(world: World, monkeypatch: pytest.MonkeyPatch, clock_ns_each: int = 0) -> int:
    """How many steps judging the documents takes, where each look at the clock finds it so much later."""
    clock = itertools.count(0, clock_ns_each)
    monkeypatch.setattr(schema_change, "perf_counter_ns", clock.__next__)
    raw = schema_json(table_schema("t", {}, NAMED), validation=True)
    return drive(world, world.database.schema_steps(raw)) - 1  # the switch


def test_a_step_ends_at_its_bounds(memory: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema_change, "SCHEMA_STEP_ITEMS", limits.SCHEMA_STEP_ITEMS)
    memory.insert_all("t", [{"name": "a"}] * limits.SCHEMA_STEP_ITEMS)
    assert n_checks(memory, monkeypatch) == 1
    memory.run(lambda t: t.insert("t", {"name": "a"}))
    memory.database.apply_schema(BARE)
    assert n_checks(memory, monkeypatch) == 2
    memory.database.apply_schema(BARE)
    many = n_checks(memory, monkeypatch, limits.SCHEMA_STEP_US_MAX * 1_000)
    assert many == limits.SCHEMA_STEP_ITEMS + 1 + 2, "one more for each document at which its time was over"


def test_a_step_ends_with_the_document_that_fills_it(memory: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema_change, "SCHEMA_STEP_ITEMS", limits.SCHEMA_STEP_ITEMS)
    memory.insert_all("t", [{"name": "x" * (limits.SCHEMA_STEP_BYTES // 4)}] * 9)
    assert n_checks(memory, monkeypatch) == 3, "the keys and the other bytes count too: four fill a step"


def test_a_batch_ends_at_its_bytes(memory: World, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(memory)
    monkeypatch.setattr(schema_change, "SCHEMA_CHANGE_BATCH_ITEMS", limits.SCHEMA_CHANGE_BATCH_ITEMS)
    before = memory.engine.group
    drive(memory, memory.database.schema_steps(INDEXED))
    assert memory.engine.group - before == 3, "marks, all entries, the switch"
    memory.database.apply_schema(BARE)
    monkeypatch.setattr(schema_change, "SCHEMA_CHANGE_BATCH_BYTES", 1)
    before = memory.engine.group
    drive(memory, memory.database.schema_steps(INDEXED))
    assert memory.engine.group - before == 2 + COUNT / 4
