"""Transactions over the past: they read exactly what a query read at that time, by every way there is to read."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from orjson import loads

from skerry.database import Transaction, past
from skerry.database.history import retain
from skerry.errors import ClientError, SystemFault
from skerry.limits import HISTORY_MILESTONE_VERSIONS, PAST_CHUNK_KEYS
from tests.database.search_world import bodies, found, search_schema
from tests.database.world import World, memory_world, range_query, scan_query, table_schema


def numbers(raw: bytes) -> list[Any]:
    return [row.get("n") for row in loads(raw)]


def everything(t: Transaction, ids: list[str]) -> list[Any]:
    """What a transaction sees, by every source, in both orders, by pages, and document by document."""
    seen: list[Any] = [t.get(document_id) for document_id in ids]
    for order in ("asc", "desc"):
        for query in (
            scan_query("t", order),
            scan_query("t", order, [{"limit": 2}]),
            range_query("t.by_n", [], order),
            range_query("t.by_n", [("Gt", "n", 0), ("Lte", "n", 2)], order),
            range_query("t.by_n", [("Eq", "n", 1)], order, [{"limit": 1}]),
            range_query("t.by_id", [], order),
            range_query("t.by_id", [("Gte", "_id", ids[0])], order, [{"limit": 3}]),
            range_query("t.by_id", [("Lte", "_id", ids[-1])], order),
        ):
            seen.append(t.collect_query(query))
            t.paginated = False
            page = loads(t.page(query, None, None, 2))
            t.paginated = False
            rest = loads(t.page(query, page["continueCursor"], None, 50))
            seen.append((page["page"], rest["page"]))
    return [*seen, t.count("t"), t.count("absent")]


def at(world: World, ts: int, ids: list[str], *, detached: bool = False) -> list[Any]:
    t = world.begin(writable=False, at_ts=ts, detached=detached)
    assert t.snapshot_ts == ts
    try:
        return everything(t, ids)
    finally:
        t.abort()


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_the_past_is_what_it_was(data: st.DataObject) -> None:
    world = memory_world()
    world.schema(table_schema("t", {"by_n": ["n"]}))
    ids = world.insert_all("t", [{"n": n % 4} for n in range(data.draw(st.integers(1, 6)))])
    live = list(ids)
    states: dict[int, list[Any]] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(past, "PAST_CHUNK_KEYS", data.draw(st.integers(1, 4)))
        for _ in range(data.draw(st.integers(1, 12))):
            kind = data.draw(st.sampled_from(["insert", "patch", "patch", "delete"]))
            n = data.draw(st.integers(0, 3))
            if kind == "insert":
                live.append(world.run(lambda t, n=n: t.insert("t", {"n": n})))
            elif kind == "delete" and live:
                gone = live.pop(data.draw(st.integers(0, len(live) - 1)))
                world.run(lambda t, gone=gone: t.delete(gone))
            elif live:
                which = data.draw(st.sampled_from(live))
                world.run(lambda t, n=n, which=which: t.patch(which, {"n": n}))
            states[world.database.durable_ts] = at(world, world.database.durable_ts, ids)
        for ts, state in states.items():
            assert at(world, ts, ids) == at(world, ts, ids, detached=True) == state
            between = ts + 1
            if between < world.database.durable_ts and between not in states:
                assert at(world, between, ids) == state
    world.engine.close()


def test_a_past_with_more_versions_than_a_chunk(world: World) -> None:
    """Deletions and milestones of many documents and of one, beyond what one chunk of the history holds."""
    world.schema(table_schema("t", {"by_n": ["n"]}))
    count = PAST_CHUNK_KEYS + 9
    ids = sorted(world.insert_all("t", [{"n": n} for n in range(count)]))
    then = world.database.durable_ts
    before = at(world, then, ids)
    for n in range(2 * HISTORY_MILESTONE_VERSIONS):
        world.run(lambda t, n=n: t.patch(ids[3], {"n": -n}))
    world.run(lambda t: [t.delete(document_id) for document_id in ids[5:]])
    world.run(lambda t: [t.insert("t", {"n": n}) for n in range(count)])
    assert at(world, then, ids) == at(world, then, ids, detached=True) == before
    assert len(loads(before[len(ids)])) == count


def test_bounds_by_id_that_are_no_id(memory: World) -> None:
    ids = sorted(memory.insert_all("t", [{"n": n} for n in range(5)]))
    then = memory.database.durable_ts
    memory.run(lambda t: [t.delete(document_id) for document_id in ids])
    for kind, value, expected in (
        ("Gt", ids[1], ids[2:]),
        ("Lt", ids[1], ids[:1]),
        ("Lte", ids[1], ids[:2]),
        ("Gt", "zzzz", []),
        ("Lte", "zzzz", ids),
        ("Gte", None, ids),
    ):
        for order in ("asc", "desc"):
            t = memory.begin(writable=False, at_ts=then)
            rows = loads(t.collect_query(range_query("t.by_id", [(kind, "_id", value)], order)))
            assert [row["_id"] for row in rows] == (expected if order == "asc" else expected[::-1]), (kind, order)
            t.abort()


def test_the_past_does_not_go_beyond_what_is_there(world: World) -> None:
    (document_id,) = world.insert_all("t", [{"n": 1}])
    first = world.database.durable_ts
    world.run(lambda t: t.patch(document_id, {"n": 2}))
    newest = world.database.durable_ts
    for detached in (False, True):
        with pytest.raises(ClientError, check=lambda e: e.code == "TimestampInFuture"):
            world.begin(writable=False, at_ts=newest + 1, detached=detached)
    t = world.begin(writable=False, at_ts=0)
    assert t.get(document_id) is None and t.collect_query(scan_query("t")) == b"[]"
    t.abort()
    world.run(lambda t: t.patch(document_id, {"n": 3}))
    assert retain(world.database, newest, 2) == 2
    world.run(lambda t: t.insert("t", {}))  # what was dropped shows with the next group
    t = world.begin(writable=False, at_ts=newest)
    assert loads(t.get(document_id) or b"")["n"] == 2
    t.abort()
    for detached in (False, True):
        for ts in (first, newest - 1):
            with pytest.raises(SystemFault, check=lambda e: e.code == "OutOfRetention") as caught:
                world.begin(writable=False, at_ts=ts, detached=detached)
            assert caught.value.spec.http_status == 503
    assert not world.database._detached  # pyright: ignore[reportPrivateUsage] - nothing is left of those refused


def test_an_index_is_read_as_of_its_beginning_at_the_earliest(memory: World) -> None:
    ids = memory.insert_all("t", [{"n": 1}])
    before = memory.database.durable_ts
    memory.run(lambda t: t.patch(ids[0], {"n": 2}))
    memory.schema(table_schema("t", {"by_n": ["n"]}))
    since = memory.database.durable_ts
    memory.run(lambda t: t.patch(ids[0], {"n": 3}))
    t = memory.begin(writable=False, at_ts=before)
    assert numbers(t.collect_query(scan_query("t"))) == [1]
    with pytest.raises(SystemFault, check=lambda e: e.code == "OutOfRetention" and "t.by_n" in e.message):
        t.collect_query(range_query("t.by_n", []))
    t.abort()
    memory.schema(table_schema("t", {"by_n": ["n"], "by_m": ["m"]}))
    t = memory.begin(writable=False, at_ts=since)
    assert numbers(t.collect_query(range_query("t.by_n", []))) == [2], "a later deploy does not make it younger"
    t.abort()


def test_long_scans_of_the_past_look_at_the_time(memory: World) -> None:
    class Spent(Exception):
        pass

    memory.insert_all("t", [{"n": n} for n in range(3 * PAST_CHUNK_KEYS)])
    then = memory.database.durable_ts
    rows = loads(memory.read(lambda t: t.collect_query(scan_query("t"))))
    memory.run(lambda t: [t.delete(row["_id"]) for row in rows])
    looks = 0

    def look() -> None:
        nonlocal looks
        looks += 1
        if looks == 3:
            raise Spent

    for detached in (False, True):
        looks = 0
        t = memory.begin(writable=False, at_ts=then, detached=detached)
        t.usage.look = look
        with pytest.raises(Spent):
            t.count("t")
        t.abort()


def test_long_keys_in_the_past(world: World) -> None:
    world.schema(table_schema("t", {"by_n": ["n"]}))
    ids = world.insert_all("t", [{"n": "x" * 2_000 + str(n)} for n in range(5)])
    then = world.database.durable_ts
    before = at(world, then, ids)
    world.run(lambda t: [t.patch(document_id, {"n": "x" * 1_999 + "y"}) for document_id in ids[:3]])
    assert at(world, then, ids) == before


def test_a_search_of_the_past_finds_what_was_there(memory: World) -> None:
    memory.schema(search_schema())
    ids = memory.insert_all("m", [{"body": body, "channel": "a"} for body in ("red sun", "red moon", "blue sky")])
    then = memory.database.durable_ts
    memory.run(lambda t: (t.patch(ids[0], {"body": "green sun"}), t.delete(ids[1]), t.insert("m", {"body": "red sea"})))
    assert bodies(memory, "red") == ["red sea"]
    t = memory.begin(writable=False, at_ts=then)
    assert {row["body"] for row in found(t, "red")} == {"red sun", "red moon"}
    assert [row["body"] for row in found(t, "red", {"channel": "b"})] == []
    assert {row["body"] for row in found(t, "su", {"channel": "a"})} == {"red sun"}
    t.abort()
