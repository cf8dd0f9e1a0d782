"""Commit timestamps in documents: the timestamp of the commit wherever they stood, and indexes that agree with it."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from orjson import loads

from skerry.database import Transaction, verify
from skerry.value import COMMIT_TS, Int64, decode
from tests.database.world import World, memory_world, range_query, scan_query, table_schema

LARGEST = Int64(2**63 - 1)
AT = st.sampled_from([COMMIT_TS, COMMIT_TS, LARGEST, Int64(0), 1.5, None])
DOCUMENT = st.fixed_dictionaries(
    {"at": AT, "deep": st.fixed_dictionaries({"at": AT, "list": st.lists(AT, max_size=2)})}
)


def made_of(value: Any, timestamp: int) -> Any:
    if value is COMMIT_TS:
        return Int64(timestamp)
    if isinstance(value, dict):
        return {name: made_of(inner, timestamp) for name, inner in value.items()}
    return [made_of(inner, timestamp) for inner in value] if isinstance(value, list) else value


def rows(raw: bytes) -> list[dict[str, Any]]:
    return decode(loads(raw), commit_ts=True)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_documents_and_indexes_hold_the_timestamp_of_the_commit(data: st.DataObject) -> None:
    world = memory_world()
    world.schema(table_schema("t", {"by_at": ["at"], "by_deep": ["deep.at", "at"], "by_list": ["deep.list"]}))
    expected: dict[str, Any] = {}

    def step(t: Transaction, pending: dict[str, Any]) -> None:
        kind = data.draw(st.sampled_from(["insert", "insert", "patch", "replace", "delete", "undone"]))
        live = [document_id for document_id, document in pending.items() if document is not None]
        if kind == "insert" or not live:
            document = data.draw(DOCUMENT)
            pending[t.insert("t", document)] = document
            return
        document_id = data.draw(st.sampled_from(live))
        if kind == "patch":
            changed = {"at": data.draw(AT)}
            t.patch(document_id, changed)
            pending[document_id] = {**pending[document_id], **changed}
        elif kind == "replace":
            pending[document_id] = data.draw(DOCUMENT)
            t.replace(document_id, pending[document_id])
        elif kind == "delete":
            t.delete(document_id)
            pending[document_id] = None
        else:
            t.savepoint()
            t.patch(document_id, {"at": data.draw(AT)})
            t.rollback()

    for _ in range(data.draw(st.integers(1, 4))):
        world.now_ms += data.draw(st.integers(0, 2))
        t = world.begin(detached=data.draw(st.booleans()))
        pending = dict(expected)
        for _ in range(data.draw(st.integers(1, 5))):
            step(t, pending)
        seen = {row["_id"]: row for row in rows(t.collect_query(scan_query("t")))}
        assert {key: row["at"] for key, row in seen.items()} == {
            key: document["at"] for key, document in pending.items() if document is not None
        }
        answers = world.commit(t)
        world.settle()
        expected = {key: made_of(document, answers[0]) for key, document in pending.items() if document is not None}
        found = rows(world.read(lambda t: t.collect_query(scan_query("t"))))
        assert {row["_id"]: {"at": row["at"], "deep": row["deep"]} for row in found} == expected
        snapshot = world.engine.snapshot()
        walked = verify(snapshot)
        snapshot.close()
        assert walked.is_sound, walked.differences
    world.engine.close()


def test_before_its_commit_it_sorts_as_the_largest_int64(memory: World) -> None:
    memory.schema(table_schema("t", {"by_at": ["at"]}))
    memory.insert_all("t", [{"at": LARGEST, "n": 0}, {"at": 0.5, "n": 1}])
    t = memory.begin()
    t.insert("t", {"at": COMMIT_TS, "n": 2})
    assert [row["n"] for row in loads(t.collect_query(range_query("t.by_at", [])))] == [0, 2, 1]
    largest = range_query("t.by_at", [("Gte", "at", {"$integer": "/////////38="}), ("Lt", "at", -1)])
    assert [row["n"] for row in loads(t.collect_query(largest))] == [0, 2]
    above = {"filter": {"$gt": [{"$field": "at"}, {"$literal": {"$integer": "AAAAAAAAAAA="}}]}}
    assert [row["n"] for row in loads(t.collect_query(scan_query("t", None, [above])))] == [0, 1, 2]
    memory.commit(t)
    memory.settle()
    later = memory.read(lambda t: t.collect_query(range_query("t.by_at", [])))
    assert [row["n"] for row in loads(later)] == [2, 0, 1]


def test_the_lane_sees_timestamps_of_commits_that_are_not_durable(memory: World) -> None:
    memory.schema(table_schema("t", {"by_at": ["at"]}))
    memory.engine.hold()
    first = memory.begin()
    first.insert("t", {"at": COMMIT_TS})
    answers = memory.commit(first)
    second = memory.begin()
    (row,) = rows(second.collect_query(range_query("t.by_at", [])))
    assert row["at"] == Int64(second.begin_ts)
    second.insert("t", {"at": COMMIT_TS, "after": row["at"]})
    memory.commit(second)
    memory.engine.release()
    memory.settle()
    one, two = rows(memory.read(lambda t: t.collect_query(range_query("t.by_at", []))))
    assert one["at"] == two["after"] == Int64(answers[0]) and two["at"].value > one["at"].value
