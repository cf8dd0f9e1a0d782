"""A schema that becomes active while mutations run: driven by hand, ended, failed and killed anywhere."""

import itertools
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from skerry import limits
from skerry.database import SchemaChange, Steps, backfill, background_steps, index_clearing, judging, steps, verify
from skerry.database.backfill import BuildProgress, index_states, unbuilt
from skerry.database.catalog import SearchedIndex
from skerry.database.catalog_store import unfinished_indexes
from skerry.database.search_counts import read_counts
from skerry.errors import SystemFault
from skerry.limits import MIB
from skerry.storage.address_space import AddressSpace
from skerry.storage.lmdb_engine import LmdbEngine
from tests.database.schema_writer import DOCUMENTS
from tests.database.test_growing import MAP_BYTES
from tests.database.test_schema import NAMED, entries, fails, names
from tests.database.world import World, documents, memory_world, range_query, scan_query, schema_json, table_schema

BY_NAME = range_query("t.by_name", [])
COUNT = 40
NAMES = [f"{number:03}" for number in range(COUNT)]
INDEXED = schema_json(table_schema("t", {"by_name": ["name"]}, NAMED), validation=True)
UNJUDGED = schema_json(table_schema("t", {"by_name": ["name"]}))
BARE = schema_json(table_schema("t", {}))


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of a few documents, each with a turn of the loop behind it."""
    monkeypatch.setattr(backfill, "SCHEMA_STEP_ITEMS", 4)
    monkeypatch.setattr(judging, "SCHEMA_STEP_ITEMS", 4)
    monkeypatch.setattr(index_clearing, "SCHEMA_STEP_ITEMS", 4)
    monkeypatch.setattr(backfill, "BACKFILL_BATCH_ENTRIES", 8)
    monkeypatch.setattr(backfill, "BACKFILL_RUN_CHUNKS", 2)
    monkeypatch.setattr(steps, "STEP_NS", 0)


def filled(world: World) -> World:
    world.insert_all("t", [{"name": name} for name in reversed(NAMES)])
    return world


def whole(world: World, raw: bytes, change: SchemaChange | None = None) -> Iterator[None]:
    """A change with its background work, a step at a time."""
    made = change or SchemaChange(world.database, raw)

    def each(pieces: Steps) -> Iterator[None]:
        for waited in pieces:
            while waited is not None and not waited.done():
                world.queue.get(timeout=20)()
            world.turn()
            yield

    try:
        while True:
            yield from each(made.judge())
            world.take(made.catch_up())  # nobody writes: the lane is held
            if made.is_ready:
                break
            world.commit_of(made.register)
            yield
            yield from each(made.build())
        world.commit_of(lambda on_durable: made.switch((), on_durable))
        yield
    finally:
        made.close()
    yield from each(background_steps(world.database))


def is_whole(world: World) -> bool:
    """Whether the index is there, with all of its entries; nothing else has entries."""
    table = world.database.catalog.tables["t"]
    numbers = {index.number for table in world.database.catalog.tables.values() for index in table.stored}
    snapshot = world.engine.snapshot()
    assert unfinished_indexes(snapshot) == []
    snapshot.close()
    assert entries(world) <= numbers
    if "by_name" not in table.indexes:
        return False
    assert table.indexes["by_name"].number in entries(world) and names(world, BY_NAME) == NAMES
    return True


def test_queries_and_mutations_go_on_between_the_steps(world: World) -> None:
    filled(world)
    expected = sorted(NAMES)
    taken = 0
    ids = {}
    for taken, _ in enumerate(whole(world, INDEXED), 1):
        assert sorted(names(world, scan_query("t"))) == expected
        if "by_name" not in world.database.catalog.tables["t"].indexes:
            with fails("IndexBackfillingError" if world.database.catalog.tables["t"].hidden else "IndexNotFoundError"):
                names(world, BY_NAME)
        if taken > 3 * COUNT:  # a document a step, and no more to come than are looked at
            continue
        name = f"new{taken}"
        (ids[taken],) = world.insert_all("t", [{"name": name}])
        expected = sorted([*expected, name])
        if taken % 3 == 0:
            world.run(lambda t, n=taken: t.patch(ids[n - 1], {"name": f"moved{n}"}))
            expected = sorted([*[e for e in expected if e != f"new{taken - 1}"], f"moved{taken}"])
        if taken % 6 == 1:
            world.run(lambda t, n=taken: t.delete(ids[n]))
            expected.remove(name)
    assert taken >= 2 * COUNT / 4, "one for each piece that is judged, one for each that is indexed"
    assert names(world, BY_NAME) == expected
    snapshot = world.engine.snapshot()
    number = world.database.catalog.tables["t"].indexes["by_name"].number
    assert len(snapshot.scan_index_keys(number, b"", None, False, 10_000)) == len(expected)
    snapshot.close()


def test_a_change_that_ends_anywhere_leaves_the_old_schema_and_is_taken_over(memory: World) -> None:
    total = len(list(whole(filled(memory), INDEXED)))
    assert is_whole(memory)
    ended = set()
    for most in range(1, total + 1):
        world = filled(memory_world())
        pieces = whole(world, INDEXED)
        for _ in range(most):
            next(pieces)
        pieces.close()
        table = world.database.catalog.tables["t"]
        ended.add((bool(table.hidden), bool(table.indexes)))
        (other,) = world.insert_all("other", [{"name": "x"}])
        assert names(world, scan_query("other")) == ["x"]
        reopened = World(world.engine)
        assert reopened.read(lambda t, i=other: t.get(i))
        before = {index.number for index in reopened.database.catalog.tables["t"].hidden}
        for _ in whole(reopened, INDEXED):
            pass
        after = {index.number for index in reopened.database.catalog.tables["t"].indexes.values()}
        assert not before or before == after, "what was begun is taken over"
        assert is_whole(reopened) is True
    assert ended == {(False, False), (True, False), (False, True)}


def test_what_was_begun_is_built_on_without_a_push_and_dropped_by_one_that_does_not_want_it(memory: World) -> None:
    filled(memory)
    pieces = whole(memory, UNJUDGED)
    while not memory.database.catalog.tables["t"].hidden:
        next(pieces)
    pieces.close()
    reopened = World(memory.engine)
    (index,) = reopened.database.catalog.tables["t"].hidden
    assert unbuilt(reopened.database)[index.number].documents == 0
    (state,) = index_states(reopened.database, BuildProgress())
    assert (state["state"], state["documents"]) == ("building", 0)
    progress = BuildProgress()
    reopened.take(background_steps(reopened.database, progress=progress))
    assert progress.documents_total == COUNT and unbuilt(reopened.database) == {}
    assert index_states(reopened.database, progress)[0]["state"] == "waiting"
    renamed = schema_json(table_schema("t", {"other_name": ["name"]}))
    built_before = progress.documents_total
    change = SchemaChange(reopened.database, renamed, progress=progress)
    for _ in whole(reopened, renamed, change):
        pass
    assert reopened.database.catalog.tables["t"].indexes["other_name"].number == index.number
    assert progress.documents_total == built_before, "nothing was built twice"
    assert names(reopened, range_query("t.other_name", [])) == NAMES
    for _ in whole(reopened, BARE):
        pass
    assert entries(reopened) == {reopened.database.catalog.tables["t"].by_creation_time.number}


def test_an_unwanted_unfinished_index_is_dropped_by_the_next_push(memory: World) -> None:
    filled(memory)
    pieces = whole(memory, UNJUDGED)
    while not memory.database.catalog.tables["t"].hidden:
        next(pieces)
    next(pieces)
    pieces.close()
    for _ in whole(memory, schema_json(table_schema("t", {"by_x": ["x"]}))):
        pass
    table = memory.database.catalog.tables["t"]
    assert list(table.indexes) == ["by_x"] and table.hidden == ()
    assert entries(memory) == {index.number for index in table.stored} and unbuilt(memory.database) == {}


def test_staged_indexes_are_built_after_the_switch_and_cost_nothing_to_enable(memory: World) -> None:
    filled(memory)
    staged = table_schema("t", {})
    staged["stagedDbIndexes"] = [{"indexDescriptor": "by_name", "fields": ["name"]}]
    progress = BuildProgress()
    pieces = whole(memory, b"", SchemaChange(memory.database, schema_json(staged), progress=progress))
    seen = set()
    for _ in pieces:
        states = index_states(memory.database, progress)
        seen.update(state["state"] for state in states)
        if states:
            with fails(
                "IndexStagedError",
                "Index t.by_name is currently staged and not available to query until it is enabled.",
            ):
                names(memory, BY_NAME)
    seen.update(state["state"] for state in index_states(memory.database, progress))
    assert seen == {"building staged", "staged"}
    memory.insert_all("t", [{"name": "later"}])
    before = progress.documents_total
    change = SchemaChange(memory.database, UNJUDGED, progress=progress)
    assert change.is_ready
    for _ in whole(memory, UNJUDGED, change):
        pass
    assert names(memory, BY_NAME) == [*NAMES, "later"] and progress.documents_total == before
    for _ in whole(memory, schema_json(staged)):
        pass
    with fails("IndexStagedError"):
        names(memory, BY_NAME)
    assert unbuilt(memory.database) == {}, "an index that is staged again keeps its entries"


def test_a_staged_index_that_is_enabled_half_built_is_finished_first(memory: World) -> None:
    filled(memory)
    staged = table_schema("t", {})
    staged["stagedDbIndexes"] = [{"indexDescriptor": "by_name", "fields": ["name"]}]
    pieces = whole(memory, schema_json(staged))
    while not unbuilt(memory.database):
        next(pieces)
    pieces.close()
    for _ in whole(memory, UNJUDGED):
        pass
    assert is_whole(memory)


def test_indexes_of_one_table_that_stand_at_different_places_meet(memory: World) -> None:
    filled(memory)
    pieces = whole(memory, UNJUDGED)
    progress = BuildProgress()
    while not any(record.documents for record in unbuilt(memory.database).values()):
        next(pieces)
    pieces.close()
    both = schema_json(table_schema("t", {"by_name": ["name"], "by_x": ["x", "name"]}))
    for _ in whole(memory, both, SchemaChange(memory.database, both, progress=progress)):
        pass
    assert is_whole(memory) and names(memory, range_query("t.by_x", [])) == NAMES
    assert progress.documents_total == COUNT, "each document was read once more"


def test_a_storage_failure_anywhere_leaves_one_schema_or_the_other() -> None:
    outcomes: set[bool] = set()
    for writes in range(0, 2 * COUNT, 3):
        world = filled(memory_world())
        world.engine.fail_after(writes)
        try:
            for _ in whole(world, INDEXED):
                pass
        except (SystemFault, AssertionError):
            world.settle()
        world.settle()
        world.engine.recover()
        reopened = World(world.engine)
        reopened.take(background_steps(reopened.database))
        outcomes.add(is_whole(reopened))
        for _ in whole(reopened, INDEXED):
            pass
        assert is_whole(reopened)
    assert outcomes == {True, False}


def test_a_failure_of_storage_ends_a_change_even_where_it_has_nothing_under_way(memory: World) -> None:
    for pieces_before in (3, 15):
        world = filled(memory_world())
        pieces = whole(world, INDEXED)
        for _ in range(pieces_before):
            next(pieces)
        t = world.begin()
        t.insert("t", {"name": "x"})
        world.engine.fail_after(0)
        world.commit(t)
        world.settle()
        with pytest.raises(SystemFault) as caught:
            list(pieces)
        assert caught.value.code == "StorageFailed"


def test_a_transaction_that_began_before_a_commit_of_the_change_conflicts(memory: World) -> None:
    filled(memory)
    change = SchemaChange(memory.database, UNJUDGED)
    before = memory.begin(detached=True)
    before.insert("t", {"name": "lost"})
    memory.commit_of(change.register)
    with pytest.raises(SystemFault, match="schema changed"):
        memory.commit(before)
    between = memory.begin(detached=True)
    between.insert("t", {"name": "kept"})
    memory.take(change.build())
    memory.commit(between)
    memory.settle()
    across = memory.begin(detached=True)
    across.insert("t", {"name": "lost"})
    memory.commit_of(lambda on_durable: change.switch((), on_durable))
    with pytest.raises(SystemFault, match="schema changed"):
        memory.commit(across)
    change.close()
    assert names(memory, BY_NAME) == [*NAMES, "kept"]


def test_a_document_written_between_its_reading_and_its_batch_is_indexed_as_it_is(memory: World) -> None:
    ids = memory.insert_all("t", [{"name": name, "n": 0} for name in NAMES])
    change = SchemaChange(memory.database, UNJUDGED)
    memory.commit_of(change.register)
    build = change.build()
    for number, waited in enumerate(build):
        if waited is not None:
            memory.turn()
            waited.result(20)
            continue
        which = number % COUNT
        memory.run(lambda t, i=ids[which]: t.patch(i, {"n": 1}))  # the key stays, and nothing marks it
        if which % 4 == 1:
            memory.run(
                lambda t, i=ids[which]: t.patch(i, {"name": "~"}),
                lambda t, w=which: t.patch(ids[w], {"name": NAMES[w]}),
            )
        t = memory.begin()  # pending: not durable when the next step looks
        t.patch(ids[which], {"n": 2})
        memory.commit(t)
    memory.settle()
    memory.commit_of(lambda on_durable: change.switch((), on_durable))
    change.close()
    assert names(memory, BY_NAME) == NAMES


def test_a_write_that_breaks_the_coming_schema_succeeds_and_ends_the_push(memory: World) -> None:
    (first, *_) = ids = memory.insert_all("t", [{"name": name} for name in NAMES])
    for moment in (1, 4, 15, 18):
        pieces = whole(memory, INDEXED)
        for _ in range(moment):
            next(pieces)
        memory.run(lambda t: t.patch(first, {"name": 5}))
        memory.run(
            lambda t, m=moment: t.patch(ids[m], {"name": 5}), lambda t, m=moment: t.patch(ids[m], {"name": "ok"})
        )
        with fails("SchemaEnforcementError", f'Document with ID "{first}" in table "t" does not match the schema'):
            list(pieces)
        assert not memory.database.catalog.tables["t"].indexes
        memory.run(lambda t: t.patch(first, {"name": "000"}))
    broken = whole(memory, INDEXED)
    next(broken)
    memory.run(lambda t: t.patch(first, {"name": 5}))
    memory.run(lambda t: t.patch(first, {"name": "mended"}))
    list(broken)
    assert "by_name" in memory.database.catalog.tables["t"].indexes


def test_a_table_that_a_mutation_makes_meanwhile_gets_its_index(memory: World) -> None:
    raw = schema_json(table_schema("t", {"by_name": ["name"]}), table_schema("u", {"by_name": ["name"]}))
    filled(memory)
    pieces = whole(memory, raw)
    while not memory.database.catalog.tables["t"].hidden:
        next(pieces)
    memory.insert_all("u", [{"name": "b"}, {"name": "a"}])
    list(pieces)
    assert names(memory, range_query("u.by_name", [])) == ["a", "b"]


def test_the_first_offenders_are_named_and_counted(memory: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "SCHEMA_OFFENDERS_SHOWN_MAX", 2)
    bad = [memory.insert_all("t", [value])[0] for value in ({"name": 5}, {}, {"name": "a", "x": 1}, {"name": None})]
    with fails("SchemaEnforcementError") as caught:
        memory.database.apply_schema(INDEXED)
    lines = caught.value.message.split("\n")
    assert lines[0].startswith(f'Document with ID "{bad[0]}" in table "t" does not match the schema: Value does not')
    assert lines[-3:] == [
        "4 documents do not match the schema, the first of them:",
        f'- table "t", document "{bad[0]}", field .name',
        f'- table "t", document "{bad[1]}", field .name',
    ]
    assert memory.database.catalog.tables["t"].hidden == (), "nothing was registered"
    monkeypatch.setattr(judging, "SCHEMA_OFFENDERS_COUNTED_MAX", 3)
    with fails("SchemaEnforcementError", "At least 4 documents do not match"):
        memory.database.apply_schema(INDEXED)
    monkeypatch.setattr(judging, "SCHEMA_OFFENDERS_COUNTED_MAX", 1_000)
    memory.insert_all("t", [{"name": "fits"}] * 20)
    with fails("SchemaEnforcementError", "\n4 documents"):
        memory.database.apply_schema(INDEXED)
    monkeypatch.setattr(judging, "SCHEMA_OFFENDERS_SEARCH_DOCUMENTS", 8)
    with fails("SchemaEnforcementError", "At least 4 documents"):
        memory.database.apply_schema(INDEXED)


def test_large_documents_and_long_checks_leave_the_thread(memory: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "SLICE_VALIDATION_STEPS_MAX", 50)
    body = {"fieldType": {"type": "any"}, "optional": True}
    tags = {"fieldType": {"type": "array", "value": {"type": "string"}}, "optional": True}
    judge = {"type": "object", "value": {**NAMED["value"], "body": body, "tags": tags}}
    large = "x" * 2 * judging.SCHEMA_STEP_BYTES
    memory.insert_all("t", [{"name": "a"}, {"name": "b", "tags": ["t"] * 60}, {"name": "c", "body": large}])
    threads: list[threading.Thread] = []

    def beside(job: Callable[[], None]) -> "Future[None]":
        done: Future[None] = Future()

        def run() -> None:
            try:
                job()
                done.set_result(None)
            except Exception as error:
                done.set_exception(error)

        threads.append(threading.Thread(target=run))
        threads[-1].start()
        return done

    def take(*fields: str) -> None:
        raw = schema_json(table_schema("t", {"by_name": [*fields]}, judge), validation=True)
        change = SchemaChange(memory.database, raw, beside=beside)
        for waited in change.judge():
            if waited is not None:
                waited.exception(20)
        memory.commit_of(change.register)
        for waited in change.build():
            if waited is not None:
                memory.turn()
                waited.exception(20)
        memory.commit_of(lambda on_durable: change.switch((), on_durable))
        change.close()

    monkeypatch.setattr(backfill, "SCHEMA_STEP_ITEMS", 1)
    monkeypatch.setattr(judging, "SCHEMA_STEP_ITEMS", 1)
    take("name")
    assert len(threads) == 3, "the long check, the large document's check, its index entry"
    assert names(memory, BY_NAME) == ["a", "b", "c"]
    memory.database.apply_schema(BARE)
    (wrong,) = memory.insert_all("t", [{"name": 5, "body": large}])
    with fails("SchemaEnforcementError", wrong) as caught:
        take("name")
    assert "Path: .name" in caught.value.message


def test_a_large_document_that_is_mended_while_it_is_judged_is_no_offender(memory: World) -> None:
    (wrong,) = memory.insert_all("t", [{"name": 5, "x": "x" * 3 * judging.SCHEMA_STEP_BYTES}])

    def beside(job: Callable[[], None]) -> "Future[None]":
        memory.run(lambda t: t.replace(wrong, {"name": "mended"}))
        done: Future[None] = Future()
        job()
        done.set_result(None)
        return done

    change = SchemaChange(memory.database, INDEXED, beside=beside)
    memory.take(change.judge())
    memory.take(change.catch_up())
    change.close()


def test_storage_that_grows_under_a_change_does_not_end_it(tmp_path: Path) -> None:
    world = World(LmdbEngine(tmp_path / "d", map_bytes=MAP_BYTES, address_space=AddressSpace(64 * MIB)))
    for _ in range(4):
        world.insert_all("t", [{"name": "n" * 700, "n": number} for number in range(500)])
    at_first = world.engine.usage.map_bytes
    world.schema(table_schema("t", {"by_name": ["name", "n"]}))
    assert world.engine.usage.map_bytes > at_first
    assert len(names(world, BY_NAME)) == 2_000
    world.engine.close()


def test_a_kill_during_a_change_is_followed_by_the_rest_of_it(tmp_path: Path, repository: Path) -> None:
    folder = tmp_path / "d"
    resumed = 0
    for lines in (3, 5, 9, 14, 17, 23, 40, 60):
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.database.schema_writer", str(folder)],
            stdout=subprocess.PIPE,
            cwd=repository,
            env={**os.environ, "PYTHONPATH": f"{repository / 'host'}:{repository}"},
        )
        assert process.stdout is not None
        for _ in range(lines):
            assert process.stdout.readline() == b".\n"
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        world = World(LmdbEngine(folder))
        resumed += any(record.documents for record in unbuilt(world.database).values())
        world.take(background_steps(world.database))
        table = world.database.catalog.tables["t"]
        present = sorted(names(world, scan_query("t")))
        assert len(present) >= DOCUMENTS
        assert entries(world) == {index.number for index in table.stored}
        snapshot = world.engine.snapshot()
        for index in table.declared:
            assert len(snapshot.scan_index_keys(index.number, b"", None, False, 1 << 20)) == len(present)
        snapshot.close()
        if table.indexes:
            assert names(world, BY_NAME) == present
        world.engine.close()
    assert resumed, "some kill came in the middle of a build"


def n_checks(world: World, monkeypatch: pytest.MonkeyPatch, clock_ns_each: int = 0) -> int:
    """How many steps judging the documents takes, where each look at the clock finds it so much later."""
    clock = itertools.count(0, clock_ns_each)
    monkeypatch.setattr(steps, "perf_counter_ns", clock.__next__)
    monkeypatch.setattr(steps, "STEP_NS", limits.SCHEMA_STEP_US_MAX * 1_000)
    change = SchemaChange(world.database, schema_json(table_schema("t", {}, NAMED), validation=True))
    taken = world.take(change.judge())
    change.close()
    return taken


def test_a_step_ends_when_its_time_is_over(memory: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "SCHEMA_STEP_ITEMS", limits.SCHEMA_STEP_ITEMS)
    memory.insert_all("t", [{"name": "a"}] * limits.SCHEMA_STEP_ITEMS)
    assert n_checks(memory, monkeypatch) == 0, "no time passes"
    looks = limits.SCHEMA_STEP_ITEMS
    assert n_checks(memory, monkeypatch, limits.SCHEMA_STEP_US_MAX * 1_000) >= looks // 2


def test_a_piece_ends_at_its_documents_and_with_the_one_that_fills_it(memory: World) -> None:
    newest = memory.database.newest
    memory.insert_all("t", [{"name": "a"}] * (limits.SCHEMA_STEP_ITEMS + 1))
    table = memory.database.catalog.tables["t"]
    bounds = (table.prefix, table.end, limits.SCHEMA_STEP_ITEMS)
    newest = memory.database.newest
    items, resume, _ = newest.documents(*bounds, limits.SCHEMA_STEP_BYTES)
    assert len(items) == limits.SCHEMA_STEP_ITEMS and resume == items[-1][0]
    rest, at_end, _ = newest.documents(resume + b"\0", table.end, limits.SCHEMA_STEP_ITEMS, limits.SCHEMA_STEP_BYTES)
    assert len(rest) == 1 and at_end == b""
    two = newest.documents(*bounds[:2], 2, limits.SCHEMA_STEP_BYTES)[2]
    assert len(newest.documents(*bounds, two)[0]) == 2 and len(newest.documents(*bounds, two + 1)[0]) == 3


def groups_of(world: World, raw: bytes) -> int:
    before = world.engine.group
    change = SchemaChange(world.database, raw)
    world.commit_of(change.register)
    world.take(change.build())
    change.close()
    return world.engine.group - before


def test_batches_end_at_their_entries_and_bytes(memory: World, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(memory)
    monkeypatch.setattr(backfill, "BACKFILL_RUN_CHUNKS", limits.BACKFILL_RUN_CHUNKS)
    assert groups_of(memory, UNJUDGED) == 1 + COUNT // 8 + 1, "registered, five batches, the record at the end"
    monkeypatch.setattr(backfill, "BACKFILL_BATCH_BYTES", 1)
    assert groups_of(memory, schema_json(table_schema("t", {"by_x": ["x"]}))) == 1 + COUNT + 1
    monkeypatch.setattr(backfill, "BACKFILL_RUN_BYTES", 1)
    runs = COUNT // 4 + 1
    assert groups_of(memory, schema_json(table_schema("t", {"by_y": ["y"]}))) == 1 + COUNT + runs, "a record a run"


def test_mutations_wait_where_they_outrun_the_judging(memory: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "SCHEMA_WRITTEN_DOCUMENTS_MAX", 3)
    change = SchemaChange(memory.database, INDEXED)
    memory.insert_all("t", [{"name": "a"}] * 3)
    assert not change.is_behind
    memory.insert_all("t", [{"name": "a"}])
    assert change.is_behind
    memory.take(change.catch_up())
    assert not change.is_behind
    change.close()
    memory.insert_all("t", [{"name": "a"}] * 5)
    assert not change.is_behind, "what is closed notes nothing"


@pytest.mark.parametrize("ends", ["as it is", "written", "written back", "deleted"])
def test_a_large_document_that_is_written_again_and_again_while_its_index_is_built(memory: World, ends: str) -> None:
    """What is worked on beside is dropped where it was written meanwhile, and worked on once more."""
    document_id, *_ = memory.insert_all("t", [{"name": "first", "text": "x" * 200_000}, *[{"name": "s"}] * 100])
    beside_of: list[str] = []

    def beside(work: Callable[[], None]) -> "Future[None]":
        done = steps.at_once(work)
        beside_of.append("once")
        transaction = memory.begin()
        if len(beside_of) <= 2:
            transaction.patch(document_id, {"name": f"written {len(beside_of)}"})
        elif len(beside_of) == 3 and ends == "written":
            transaction.patch(document_id, {"name": "last"})
        elif len(beside_of) == 3 and ends == "written back":
            transaction.patch(document_id, {"name": "written 1"})
        elif len(beside_of) == 3 and ends == "deleted":
            transaction.delete(document_id)
        memory.commit(transaction)
        return done

    change = SchemaChange(memory.database, schema_json(table_schema("t", {"by_name": ["name"]})), beside=beside)
    memory.take(change.judge())
    beside_of.clear()
    memory.database.flush()
    change.register(lambda _: None)
    memory.database.flush()
    memory.take(change.build())
    memory.database.flush()
    memory.take(change.catch_up())
    change.switch((), lambda _: None)
    memory.database.flush()
    change.close()
    assert len(beside_of) >= 3
    snapshot = memory.engine.snapshot()
    found = verify(snapshot)
    snapshot.close()
    assert found.is_sound, found.differences
    last = {"as it is": "written 2", "written": "last", "written back": "written 1", "deleted": None}[ends]
    names_there = [d["name"] for d in documents(memory.read(lambda t: t.collect_query(range_query("t.by_name", []))))]
    assert [name for name in names_there if name != "s"] == ([] if last is None else [last])


def test_an_index_key_that_is_too_large_names_its_document(memory: World) -> None:
    nested: Any = "x" * 700_000
    for field in "fedcba":
        nested = {field: nested}
    (large,) = memory.insert_all("t", [nested])
    paths = [".".join("abcdef"[:length]) for length in range(1, 7)]
    with fails("IndexKeyTooLarge", f'Document with ID "{large}" in table "t": A key of index by_all'):
        memory.schema(table_schema("t", {"by_all": paths}))
    assert not memory.database.catalog.tables["t"].indexes


def test_an_index_key_that_is_too_large_fails_the_write_in_every_state_of_its_index(memory: World) -> None:
    """An index that is being built is as whole as one that is ready: what has no key in it cannot be written."""
    nested: Any = "x" * 700_000
    for field in "fedcba":
        nested = {field: nested}
    paths = [".".join("abcdef"[:length]) for length in range(1, 7)]
    memory.insert_all("t", [{"a": n} for n in range(10)])
    change = SchemaChange(memory.database, schema_json(table_schema("t", {"by_all": paths})))
    memory.take(change.judge())
    memory.database.flush()
    change.register(lambda _: None)
    memory.database.flush()
    for is_ready in (False, True):
        transaction = memory.begin()
        with fails("IndexKeyTooLarge", "A key of index by_all"):
            transaction.insert("t", nested)
        transaction.abort()
        if not is_ready:
            memory.take(change.build())
            memory.take(change.catch_up())
            assert change.is_ready
            change.switch((), lambda _: None)
            memory.database.flush()
            change.close()
    assert "by_all" in memory.database.catalog.tables["t"].indexes


def test_so_many_batches_are_on_their_way_and_no_more() -> None:
    submitted: list[Future[None]] = []

    def submit(_: list[Any]) -> "Future[None]":
        submitted.append(Future())
        return submitted[-1]

    batches = steps.Batches(submit)
    for _ in range(limits.SCHEMA_BATCHES_PENDING_MAX - 1):
        assert list(batches.add([])) == []
    waiting = batches.add([])
    assert next(waiting) is submitted[0], "the oldest is waited for"


def test_clearing_takes_batches_of_its_bounds(memory: World, monkeypatch: pytest.MonkeyPatch) -> None:
    bounds = (("SCHEMA_CHANGE_BATCH_ITEMS", 8, COUNT // 8), ("SCHEMA_CHANGE_BATCH_BYTES", 1, COUNT // 4))
    for bound, value, groups in bounds:
        world = filled(memory_world())
        world.schema(table_schema("t", {"by_name": ["name"]}))
        change = SchemaChange(world.database, BARE)
        world.commit_of(lambda on_durable, change=change: change.switch((), on_durable))
        change.close()
        monkeypatch.setattr(index_clearing, "SCHEMA_CHANGE_BATCH_ITEMS", limits.SCHEMA_CHANGE_BATCH_ITEMS)
        monkeypatch.setattr(index_clearing, "SCHEMA_CHANGE_BATCH_BYTES", limits.SCHEMA_CHANGE_BATCH_BYTES)
        monkeypatch.setattr(index_clearing, bound, value)
        before = world.engine.group
        world.take(background_steps(world.database))
        assert world.engine.group - before == groups + 1, "and the marks"


def test_a_search_index_is_built_and_counted_beside_writes(memory: World) -> None:
    table = table_schema("t", {})
    table["searchIndexes"] = [{"indexDescriptor": "by_text", "searchField": "text", "filterFields": ["n"]}]
    ids = memory.insert_all("t", [{"text": "one two three", "n": n} for n in range(COUNT)])
    change = SchemaChange(memory.database, schema_json(table))
    memory.commit_of(change.register)
    for taken, waited in enumerate(change.build()):
        while waited is not None and not waited.done():
            memory.queue.get(timeout=20)()
        if taken < COUNT // 2:
            pending = memory.begin()
            pending.insert("t", {"text": "four", "n": -1})
            memory.commit(pending)
            memory.run(lambda t, k=taken: t.patch(ids[k], {"text": "five five"}))
            if taken % 3 == 0:
                memory.run(lambda t, k=taken: t.delete(ids[-k - 1]) if k < COUNT // 3 else None)
    memory.settle()
    memory.commit_of(lambda on_durable: change.switch((), on_durable))
    change.close()
    index = memory.database.catalog.tables["t"].indexes["by_text"]
    assert isinstance(index, SearchedIndex)
    snapshot = memory.engine.snapshot()
    present = documents(memory.read(lambda q: q.collect_query(scan_query("t"))))
    lengths = [index.length(document) for document in present]
    assert read_counts(snapshot, index.number) == (len(present), sum(lengths))
    assert verify(snapshot).is_sound
    snapshot.close()


def test_how_far_a_change_is_only_grows(memory: World) -> None:
    filled(memory)
    progress = BuildProgress()
    change = SchemaChange(memory.database, INDEXED, progress=progress)
    judged: list[int] = []
    built: list[int] = []
    for _ in whole(memory, INDEXED, change):
        judging = change.judging()
        if "percent" in judging:
            assert judging["table"] == "t"
            judged.append(judging["percent"])
        built += [state["percent"] for state in index_states(memory.database, progress) if "percent" in state]
    for shares in (judged, built):
        assert shares == sorted(shares) and len(set(shares)) > 2, shares
        assert shares[0] >= 0 and shares[-1] <= 100, shares
