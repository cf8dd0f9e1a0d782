"""Past states, the commit log, and retention: what is dropped, and that disk follows it."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from orjson import loads

from skerry.database import history
from skerry.database.commit_log import read_entry
from skerry.database.history import read_document_at, read_index_at, retain, retained_ts
from skerry.errors import SystemFault
from skerry.limits import COMMIT_TS_MAX, HISTORY_MILESTONE_VERSIONS, RETENTION_CHUNK_COMMITS
from skerry.storage import StorageSnapshot, Tree
from skerry.value import decode_document_id
from tests.database.world import World, memory_world, table_schema


def sizes(world: World) -> dict[Tree, int]:
    snapshot = world.engine.snapshot()
    counts = {tree: sum(1 for _ in snapshot.scan(tree, b"", None, False)) for tree in Tree}
    snapshot.close()
    return counts


def test_documents_as_of_a_timestamp(world: World) -> None:
    (document_id,) = world.insert_all("t", [{"n": 0}])
    stamps = [world.database.durable_ts]
    for n in range(1, 4):
        world.run(lambda t, n=n: t.patch(document_id, {"n": n}))
        stamps.append(world.database.durable_ts)
    world.run(lambda t: t.delete(document_id))
    gone = world.database.durable_ts
    table = world.database.catalog.tables["t"]
    internal_id = decode_document_id(document_id)[1]
    snapshot = world.engine.snapshot()
    for n, ts in enumerate(stamps):
        for at in (ts, ts + 1):
            raw = read_document_at(snapshot, table, internal_id, at)
            assert raw is not None and loads(raw)["n"] == n
    assert read_document_at(snapshot, table, internal_id, stamps[0] - 1) is None
    assert read_document_at(snapshot, table, internal_id, gone) is None
    snapshot.close()


def test_an_insert_writes_no_history_and_an_update_one_version(memory: World) -> None:
    memory.schema(table_schema("t", {"by_n": ["n"]}))
    before = sizes(memory)
    (document_id,) = memory.insert_all("t", [{"n": 0}])
    after = sizes(memory)
    grown = {tree: after[tree] - before[tree] for tree in Tree if after[tree] != before[tree]}
    assert grown == {Tree.DOCUMENTS: 1, Tree.INDEXES: 2, Tree.COMMIT_LOG: 1, Tree.META: 0} or grown == {
        Tree.DOCUMENTS: 1,
        Tree.INDEXES: 2,
        Tree.COMMIT_LOG: 1,
    }
    memory.run(lambda t: t.patch(document_id, {"other": 1}))
    assert sizes(memory) == {**after, Tree.REPLACED: 1, Tree.COMMIT_LOG: after[Tree.COMMIT_LOG] + 1}


class CountingSnapshot:
    """A snapshot that counts the look-ups."""

    def __init__(self, snapshot: StorageSnapshot) -> None:
        self._snapshot = snapshot
        self.lookups = 0

    def __getattr__(self, name: str) -> Any:
        self.lookups += 1
        return getattr(self._snapshot, name)


@pytest.mark.parametrize("count", [HISTORY_MILESTONE_VERSIONS, 4 * HISTORY_MILESTONE_VERSIONS + 9])
@pytest.mark.parametrize("deleted", [False, True])
def test_a_read_in_the_past_takes_a_bounded_number_of_steps(memory: World, count: int, deleted: bool) -> None:
    (document_id,) = memory.insert_all("t", [{"n": 0}])
    stamps = [memory.database.durable_ts]
    for n in range(1, count):
        memory.run(lambda t, n=n: t.patch(document_id, {"n": n}))
        stamps.append(memory.database.durable_ts)
    if deleted:
        memory.run(lambda t: t.delete(document_id))
    table = memory.database.catalog.tables["t"]
    internal_id = decode_document_id(document_id)[1]

    def check(first: int) -> int:
        most = 0
        snapshot = memory.engine.snapshot()
        for n, ts in list(enumerate(stamps))[first:]:
            counting = CountingSnapshot(snapshot)
            raw = read_document_at(counting, table, internal_id, ts)
            assert raw is not None and loads(raw)["n"] == n
            most = max(most, counting.lookups)
        assert read_document_at(snapshot, table, internal_id, COMMIT_TS_MAX) is None or not deleted
        snapshot.close()
        return most

    around = 3  # what is retained, the current version, the first milestone
    assert check(0) <= HISTORY_MILESTONE_VERSIONS + around
    middle = count // 2
    while retain(memory.database, stamps[middle], 50):
        memory.settle()
    check(middle)
    memory.insert_all("t", [{}])
    while retain(memory.database, memory.database.durable_ts, 50):
        memory.settle()
    left = sizes(memory)
    assert left[Tree.COMMIT_LOG] == 1 and not left[Tree.REPLACED] and not left[Tree.DOCUMENT_HISTORY]


@pytest.mark.parametrize("cut", range(1, 8))
def test_an_entry_that_no_commit_wrote_is_refused(memory: World, cut: int) -> None:
    memory.insert_all("t", [{"n": 0}])
    snapshot = memory.engine.snapshot()
    ((_, raw),) = snapshot.scan(Tree.COMMIT_LOG, b"", None, False)
    snapshot.close()
    assert read_entry(raw)[0] == b"call"
    for damaged in (raw[:-cut], raw[:cut], raw + b"\0" * cut, raw[:-1] + b"\0", b"\xff" * 4 + raw[4:]):
        with pytest.raises(SystemFault, check=lambda e: e.code == "CommitLogCorrupted"):
            read_entry(damaged)


def test_the_commit_log_holds_the_call_and_what_it_changed(memory: World) -> None:
    t = memory.begin()
    kept = t.insert("t", {"n": 0})
    t.delete(t.insert("t", {"n": 1}))
    memory.commit(t, b"first")
    memory.settle()
    t = memory.begin()
    t.patch(kept, {"n": 2})
    t.insert("t", {})
    memory.commit(t, b"second")
    t = memory.begin()
    t.delete(kept)
    memory.commit(t, b"")
    memory.settle()
    snapshot = memory.engine.snapshot()
    log = [
        (int.from_bytes(key, "big"), read_entry(raw)) for key, raw in snapshot.scan(Tree.COMMIT_LOG, b"", None, False)
    ]
    assert [entry[0] for _, entry in log] == [b"first", b"second", b""]
    shapes = [[(change.previous_ts, change.is_written) for change in entry[1]] for _, entry in log]
    one, two, _ = [ts for ts, _ in log]
    assert shapes == [[(0, True)], [(one, True), (0, True)], [(two, False)]]


@settings(max_examples=40)
@given(data=st.data())
def test_retention_keeps_every_state_it_promises_and_drops_the_rest(data: st.DataObject) -> None:
    world = memory_world()
    world.schema(table_schema("t", {"by_n": ["n"]}))
    (anchor,) = world.insert_all("t", [{"n": 0}])
    live = [anchor]
    table = world.database.catalog.tables["t"]
    index = table.indexes["by_n"]
    states: dict[int, list[bytes]] = {}

    def past(ts: int) -> list[bytes]:
        snapshot = world.engine.snapshot()
        try:
            return read_index_at(snapshot, table, index, b"", None, ts, 1_000)
        finally:
            snapshot.close()

    for _ in range(data.draw(st.integers(3, 15))):
        kind = data.draw(st.sampled_from(["insert", "patch", "patch", "delete"]))
        n = data.draw(st.integers(0, 3))
        if kind == "insert":
            live.append(world.run(lambda t, n=n: t.insert("t", {"n": n})))
        elif kind == "delete" and len(live) > 1:
            world.run(lambda t: t.delete(live.pop()))
        else:
            world.run(lambda t, n=n: t.patch(data.draw(st.sampled_from(live)), {"n": n}))
        states[world.database.durable_ts] = past(world.database.durable_ts)
    horizon = data.draw(st.sampled_from(sorted(states)))
    world.run(lambda t: [t.patch(document_id, {"n": 50 + n}) for n, document_id in enumerate(live)])
    states[world.database.durable_ts] = past(world.database.durable_ts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(history, "RETENTION_CHUNK_CHANGES", data.draw(st.integers(1, 3)))
        while retain(world.database, horizon, data.draw(st.integers(1, 4))):
            world.settle()
            for ts, state in states.items():
                if ts >= horizon:
                    assert past(ts) == state
    for ts, state in states.items():
        if ts >= horizon:
            assert past(ts) == state
    while retain(world.database, world.database.durable_ts, 100):
        world.settle()
    assert past(world.database.durable_ts) == states[world.database.durable_ts]
    world.run(lambda t: t.insert("u", {}))
    retain(world.database, world.database.durable_ts, 100)
    left = sizes(world)
    assert (
        left[Tree.COMMIT_LOG] == 1
        and left[Tree.DOCUMENT_HISTORY] == left[Tree.INDEX_HISTORY] == left[Tree.REPLACED] == 0
    )
    with pytest.raises(SystemFault, check=lambda e: e.code == "OutOfRetention"):
        past(min(states) - 1)
    reopened = World(world.engine)
    assert reopened.database.durable_ts == world.database.durable_ts
    world.engine.close()


def test_disk_follows_data_and_not_uptime(memory: World) -> None:
    memory.schema(table_schema("t", {"by_n": ["n"]}))
    (document_id,) = memory.insert_all("t", [{"n": 0}])
    sizes_seen = set()
    for round_ in range(5):
        for n in range(20):
            memory.run(lambda t, n=n: t.patch(document_id, {"n": n % 7}))
        while retain(memory.database, memory.database.durable_ts, 8):
            memory.settle()
        if round_:
            sizes_seen.add(tuple(sizes(memory).values()))
    assert len(sizes_seen) == 1


def test_retention_leaves_what_a_pending_commit_needs(memory: World) -> None:
    memory.schema(table_schema("t", {"by_n": ["n"]}))
    (document_id,) = memory.insert_all("t", [{"n": 1}])
    memory.run(lambda t: t.patch(document_id, {"n": 2}))
    memory.run(lambda t: t.patch(document_id, {"n": 1}))
    before = memory.database.durable_ts
    memory.run(lambda t: t.insert("u", {}))
    horizon = memory.database.durable_ts
    memory.engine.hold()
    t = memory.begin()
    t.patch(document_id, {"n": 3})
    memory.commit(t)
    assert retain(memory.database, horizon, 100) > 0
    memory.engine.release()
    memory.settle()
    table = memory.database.catalog.tables["t"]
    snapshot = memory.engine.snapshot()
    (raw,) = read_index_at(snapshot, table, table.indexes["by_n"], b"", None, horizon, 10)
    assert loads(raw)["n"] == 1 and retained_ts(snapshot) >= before


def test_one_retention_call_at_the_bound_and_one_past_it(memory: World) -> None:
    for _ in range(RETENTION_CHUNK_COMMITS + 2):
        memory.run(lambda t: t.insert("t", {}))
    assert retain(memory.database, memory.database.durable_ts, RETENTION_CHUNK_COMMITS + 1) == RETENTION_CHUNK_COMMITS
    memory.settle()
    assert retain(memory.database, memory.database.durable_ts, RETENTION_CHUNK_COMMITS + 1) == 1
    memory.settle()
    assert retain(memory.database, memory.database.durable_ts, 5) == 0


def test_a_large_commit_is_dropped_in_parts(memory: World, monkeypatch: pytest.MonkeyPatch) -> None:
    most = 4
    monkeypatch.setattr(history, "RETENTION_CHUNK_CHANGES", most)
    memory.schema(table_schema("t", {"by_n": ["n"]}))
    ids = memory.insert_all("t", [{"n": n} for n in range(2 * most + 1)])
    before = memory.database.durable_ts
    memory.run(lambda t: [t.patch(document_id, {"n": 100 + n}) for n, document_id in enumerate(ids)])
    patched = memory.database.durable_ts
    memory.run(*[lambda t, which=which: t.patch(which, {"n": 200}) for which in ids[:most]])  # at the bound
    memory.run(lambda t: t.insert("u", {}))

    def numbers(timestamp: int) -> list[float]:
        snapshot = memory.engine.snapshot()
        table = memory.database.catalog.tables["t"]
        found = read_index_at(snapshot, table, table.indexes["by_n"], b"", None, timestamp, 100)
        snapshot.close()
        return [loads(raw)["n"] for raw in found]

    def step() -> tuple[int, int]:
        """What the step answers, and how many replaced versions there are after it."""
        answer = retain(memory.database, memory.database.durable_ts, 50)
        memory.settle()
        return answer, sizes(memory)[Tree.REPLACED]

    every = len(ids) + most
    assert step() == (50, every - most)
    with pytest.raises(SystemFault, check=lambda e: e.code == "OutOfRetention"):
        numbers(before)
    assert numbers(patched) == [100 + n for n in range(len(ids))]
    assert step() == (50, every - 2 * most)
    assert numbers(patched) == [100 + n for n in range(len(ids))]
    reopened = World(memory.engine)
    assert retain(reopened.database, reopened.database.durable_ts, 50) == 50
    reopened.settle()
    assert step() == (1, 0)
    left = sizes(memory)
    assert (left[Tree.COMMIT_LOG], left[Tree.DOCUMENT_HISTORY], left[Tree.INDEX_HISTORY]) == (1, 0, 0)
    assert step() == (0, 0)


def test_one_step_reads_so_many_bytes(memory: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "RETENTION_CHUNK_BYTES", 3_000)
    ids = memory.insert_all("t", [{"text": "x" * 1_000} for _ in range(6)])
    memory.run(lambda t: [t.patch(document_id, {"text": ""}) for document_id in ids])
    memory.run(lambda t: t.insert("u", {}))
    left: list[int] = []
    while retain(memory.database, memory.database.durable_ts, 50) == 50:
        memory.settle()
        left.append(sizes(memory)[Tree.REPLACED])
    memory.settle()
    assert left == [3], left
    assert not sizes(memory)[Tree.REPLACED]
