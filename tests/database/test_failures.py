"""Storage that fails: the group and what was built on it is lost, everybody is told, the deployment goes on."""

from pathlib import Path

import pytest
from orjson import loads

from skerry.database import Conflict
from skerry.errors import SystemFault
from skerry.limits import COMMITS_TOGETHER_BYTES_MAX, COMMITS_TOGETHER_MAX
from skerry.storage.interface import Tree
from tests.database.world import WAIT_SECONDS, World, documents, lmdb_world, range_query, scan_query, table_schema


def test_a_failed_group_takes_along_what_was_built_on_it(memory: World) -> None:
    memory.schema(table_schema("t", {"by_n": ["n"]}))
    (document_id,) = memory.insert_all("t", [{"n": 1}])
    memory.engine.hold()
    answers = []
    for n in range(2, 6):
        t = memory.begin()
        t.patch(document_id, {"n": n})
        t.insert("t", {"n": 10 * n})
        t.insert("fresh", {"n": n})
        answers.append(memory.commit(t))
        memory.turn()
    reader = memory.begin()
    assert loads(reader.get(document_id) or b"")["n"] == 5
    answers.append(memory.commit(reader))
    open_one = memory.begin()
    open_one.insert("t", {"n": 7})
    memory.engine.fail_after(3)
    memory.engine.release()
    memory.settle()
    assert [len(answer) for answer in answers] == [1] * 5
    assert all(isinstance(answer[0], SystemFault) and answer[0].code == "StorageFull" for answer in answers)
    with pytest.raises(Conflict):
        memory.commit(open_one)
    assert "fresh" not in memory.database.catalog.tables
    lane = memory.begin()
    assert [d["n"] for d in documents(lane.collect_query(range_query("t.by_n", [])))] == [1]
    assert lane.collect_query(scan_query("fresh")) == b"[]"
    lane.patch(document_id, {"n": 9})
    done = memory.commit(lane)
    memory.settle()
    assert done == [memory.database.durable_ts]
    assert [d["n"] for d in documents(memory.read(lambda q: q.collect_query(range_query("t.by_n", []))))] == [9]


def test_a_failure_after_a_success_fails_only_what_came_later(memory: World) -> None:
    memory.engine.hold()
    first = memory.begin()
    document_id = first.insert("t", {"n": 1})
    kept = memory.commit(first)
    memory.turn()
    memory.engine.release()
    memory.engine.hold()
    second = memory.begin()
    second.patch(document_id, {"n": 2})
    lost = memory.commit(second)
    memory.turn()
    memory.engine.fail_after(0)
    memory.engine.release()
    memory.settle()
    assert isinstance(kept[0], int) and isinstance(lost[0], SystemFault)
    assert loads(memory.read(lambda q: q.get(document_id)))["n"] == 1


def test_timestamps_are_not_used_twice_after_a_failure(memory: World) -> None:
    def insert() -> list[object]:
        t = memory.begin()
        t.insert("t", {})
        return memory.commit(t)

    memory.engine.fail_after(0)
    insert()
    given = memory.database._last_ts
    memory.settle()
    memory.now_ms -= 100
    answer = insert()
    memory.settle()
    assert isinstance(answer[0], int) and answer[0] > given


def test_one_callback_that_raises_does_not_keep_the_others_waiting(memory: World) -> None:
    memory.engine.hold()
    told: list[object] = []

    def broken(_: object) -> None:
        raise ValueError("bug")

    for callback in (broken, told.append):
        t = memory.begin()
        t.insert("t", {})
        memory.database.commit(t, b"", callback)
    memory.engine.release()
    with pytest.raises(ValueError, match="bug"):
        memory.settle()
    assert len(told) == 1


def test_commits_go_to_storage_together_up_to_the_bound(memory: World) -> None:
    (document_id,) = memory.insert_all("t", [{"n": 0}])
    group = memory.engine.group

    def patches(count: int) -> None:
        for n in range(count):
            t = memory.begin()
            t.patch(document_id, {"n": n})
            memory.commit(t)

    patches(COMMITS_TOGETHER_MAX - 1)
    assert memory.engine.group == group, "they wait for the loop's next turn"
    memory.settle()
    assert memory.engine.group == group + 1
    patches(COMMITS_TOGETHER_MAX)
    assert memory.engine.group == group + 2
    patches(1)
    memory.settle()
    assert memory.engine.group == group + 3
    t = memory.begin()
    for _ in range(2):
        t.insert("t", {"text": "x" * (COMMITS_TOGETHER_BYTES_MAX // 2)})
    memory.commit(t)
    assert memory.engine.group == group + 4
    memory.settle()


def test_commits_that_a_closed_engine_refuses_are_told_of(memory: World) -> None:
    t = memory.begin()
    t.insert("t", {})
    answers = memory.commit(t)
    memory.engine.close()
    memory.settle()
    assert isinstance(answers[0], SystemFault) and answers[0].code == "StorageFailed"


def test_a_schema_that_storage_cannot_take_changes_nothing(memory: World) -> None:
    memory.insert_all("t", [{"n": n} for n in range(5)])
    for writes in range(60):
        memory.engine.fail_after(writes)
        try:
            memory.schema(table_schema("t", {"by_n": ["n"]}))
        except SystemFault as error:
            assert error.code == "StorageFull"
            memory.settle()
            memory.database.drain()
            assert memory.database.catalog.tables["t"].index("by_n") is None
            assert len(documents(memory.read(lambda q: q.collect_query(scan_query("t"))))) == 5
        else:
            break
    assert writes >= 5
    reopened = World(memory.engine)
    assert len(documents(reopened.read(lambda q: q.collect_query(range_query("t.by_n", []))))) == 5
    assert reopened.begin().get("j57000820c20a1g7104gm2rc1m70ynr8") is None


def test_a_group_that_becomes_durable_leaves_later_commits_in_place(memory: World) -> None:
    memory.schema(table_schema("t", {"by_n": ["n"]}))
    (moved, deleted, again) = memory.insert_all("t", [{"n": 1}, {"n": 2}, {"n": 3}])

    def commit(*steps) -> None:
        t = memory.begin()
        for step in steps:
            step(t)
        memory.commit(t)

    commit(
        lambda t: t.patch(moved, {"n": 10}),
        lambda t: t.patch(deleted, {"n": 20}),
        lambda t: t.patch(again, {"n": 30}),
        lambda t: t.insert("t", {"n": 4}),
    )
    memory.database.flush()
    memory.engine.hold()
    commit(
        lambda t: t.patch(moved, {"n": 1}),
        lambda t: t.delete(deleted),
        lambda t: t.patch(again, {"n": 30, "more": 1}),
        lambda t: t.insert("t", {"n": 5}),
    )
    memory.turn()
    assert memory.database.n_pending == 1
    query = range_query("t.by_n", [])
    lane = memory.begin()
    assert [d["n"] for d in documents(lane.collect_query(query))] == [1, 4, 5, 30]
    assert lane.get(deleted) is None and loads(lane.get(again) or b"")["more"] == 1
    lane.abort()
    assert [d["n"] for d in documents(memory.read(lambda t: t.collect_query(query)))] == [4, 10, 20, 30]
    memory.engine.release()
    memory.settle()
    assert [d["n"] for d in documents(memory.read(lambda t: t.collect_query(query)))] == [1, 4, 5, 30]


def test_while_storage_cannot_be_reopened_callers_hear_it_and_later_it_goes_on(
    memory: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    (document_id,) = memory.insert_all("t", [{"n": 1}])
    memory.engine.fail_after(0)
    t = memory.begin()
    t.patch(document_id, {"n": 2})
    answers = memory.commit(t)

    def refuse() -> None:
        raise SystemFault("StorageFailed", "The disk is gone.")

    with monkeypatch.context() as patch:
        patch.setattr(memory.engine, "recover", refuse)
        memory.settle()
        assert len(answers) == 1 and isinstance(answers[0], SystemFault)
        for writable in (True, False):
            with pytest.raises(SystemFault, check=lambda e: e.code == "StorageFailed"):
                memory.begin(writable=writable)
    assert loads(memory.begin().get(document_id) or b"")["n"] == 1
    memory.run(lambda t: t.patch(document_id, {"n": 3}))
    assert loads(memory.read(lambda t: t.get(document_id)))["n"] == 3


def test_a_detached_transaction_ends_when_storage_is_reopened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = lmdb_world(tmp_path)
    (document_id, other_id) = world.insert_all("t", [{"n": 1}, {"n": 1}])
    detached = world.begin(detached=True)
    assert detached.get(document_id) is not None

    def fail(*_: object) -> SystemFault:
        world.engine._failed = SystemFault("StorageFailed", "A sync failed.")
        return world.engine._failed

    t = world.begin()
    t.patch(document_id, {"n": 2})
    with monkeypatch.context() as patch:
        patch.setattr(world.engine, "_write", fail)
        answers = world.commit(t)
        world.settle()
    assert isinstance(answers[0], SystemFault)
    with pytest.raises(SystemFault, check=lambda e: e.code == "SnapshotGone"):
        detached.get(other_id)
    detached.abort()
    assert loads(world.begin().get(document_id) or b"")["n"] == 1
    world.run(lambda t: t.patch(document_id, {"n": 4}))
    assert loads(world.read(lambda t: t.get(document_id)))["n"] == 4
    world.engine.close()


DAMAGED = {
    "a table that is no JSON": (b"table/t", b"\xff"),
    "a table without its fields": (b"table/t", b"{}"),
    "a table that is a list": (b"table/t", b"[]"),
    "a schema that is no JSON": (b"schema", bytes(8) + b"{"),
    "a schema that is a number": (b"schema", bytes(8) + b"1"),
    "a schema whose validator is none": (
        b"schema",
        bytes(8) + b'{"schemaValidation": true, "tables": [{"tableName": "t", "documentType": {"type": "none"}}]}',
    ),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_catalog_is_a_folder_of_no_known_format(memory: World, name: str) -> None:
    memory.insert_all("t", [{"n": 1}])
    memory.settle()
    memory.engine.commit([(Tree.META, *DAMAGED[name])]).result(WAIT_SECONDS)
    with pytest.raises(SystemFault) as caught:
        memory.open()
    assert caught.value.code == "DataFolderFormat"
