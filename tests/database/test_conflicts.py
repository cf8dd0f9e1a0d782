"""Detached transactions against the lane: ranges to the key, and what is forgotten. The anomalies by their names are in
`tests/proof/test_hermitage.py`."""

from collections.abc import Callable

import pytest
from orjson import loads

from skerry.database import Conflict, Transaction, write_log
from skerry.database import database as database_module
from skerry.database.write_log import Touch
from skerry.errors import SystemFault
from skerry.limits import CONFLICT_VALUE_CHARS_MAX
from tests.database.world import World, documents, range_query, scan_query, table_schema


@pytest.fixture
def pair(world: World) -> tuple[str, str]:
    world.schema(table_schema("test", {"by_value": ["value"]}))
    first, second = world.insert_all("test", [{"value": 10}, {"value": 20}])
    return first, second


def values(world: World) -> list[int]:
    return [d["value"] for d in documents(world.read(lambda t: t.collect_query(scan_query("test"))))]


def value(transaction: Transaction, document_id: str) -> int:
    return loads(transaction.get(document_id) or b"")["value"]


def conflicts(world: World, transaction: Transaction) -> bool:
    try:
        world.commit(transaction)
    except Conflict as error:
        assert error.code == "OptimisticConcurrencyControlFailure" and error.spec.http_status == 503
        world.settle()
        return True
    world.settle()
    return False


def test_a_detached_transaction_conflicts_with_the_lane_also_while_it_is_pending(memory: World) -> None:
    (document_id,) = memory.insert_all("test", [{"value": 1}])
    memory.engine.hold()
    lane = memory.begin()
    lane.patch(document_id, {"value": 2})
    memory.commit(lane)
    late = memory.begin(detached=True)
    assert value(late, document_id) == 1
    late.patch(document_id, {"value": 3})
    with pytest.raises(Conflict):
        memory.commit(late)


def test_blind_inserts_and_disjoint_ranges_do_not_conflict(world: World, pair: tuple[str, str]) -> None:
    low = range_query("test.by_value", [("Lte", "value", 20)])
    first = range_query("test.by_value", [], None, [{"limit": 1}])
    blind, reader, taker = (world.begin(detached=True) for _ in range(3))
    blind.insert("test", {"value": 1})
    reader.collect_query(low)
    reader.insert("test", {"value": 2})
    taker.collect_query(first)
    taker.insert("test", {"value": 3})
    world.run(lambda t: t.insert("test", {"value": 21}))
    assert not conflicts(world, blind)
    assert conflicts(world, reader), "the blind insert of 1 lies in its range"
    assert conflicts(world, taker), "the blind insert of 1 comes first"
    again = world.begin(detached=True)
    again.collect_query(first)
    again.collect_query(low)
    again.insert("test", {"value": 4})
    world.run(lambda t: t.insert("test", {"value": 20.5}))
    assert not conflicts(world, again)


def test_a_changed_document_conflicts_with_a_range_whose_key_stays(world: World, pair: tuple[str, str]) -> None:
    reader = world.begin(detached=True)
    reader.collect_query(range_query("test.by_value", [("Eq", "value", 10)]))
    reader.insert("other", {})
    world.run(lambda t: t.patch(pair[0], {"note": "x"}))
    assert conflicts(world, reader)
    reader = world.begin(detached=True)
    reader.collect_query(range_query("test.by_id", [("Gte", "_id", pair[0])]))
    reader.insert("other", {})
    world.run(lambda t: t.patch(pair[0], {"note": "y"}))
    assert conflicts(world, reader)


def test_creating_a_table_conflicts_with_having_seen_that_it_is_not_there(world: World) -> None:
    reader, creator = world.begin(detached=True), world.begin(detached=True)
    reader.collect_query(scan_query("fresh"))
    reader.insert("reader", {})
    creator.insert("fresh", {})
    assert not conflicts(world, creator)
    assert conflicts(world, reader)


def test_a_lane_transaction_overtaken_by_another_is_checked(memory: World) -> None:
    (document_id,) = memory.insert_all("test", [{"value": 1}])
    slow, fast = memory.begin(), memory.begin()
    slow.get(document_id)
    slow.insert("test", {})
    fast.patch(document_id, {"value": 2})
    assert not conflicts(memory, fast)
    assert value(slow, document_id) == 1
    assert conflicts(memory, slow)


def test_a_change_of_schema_conflicts(memory: World) -> None:
    memory.insert_all("test", [{"value": 1}])
    writer = memory.begin(detached=True)
    writer.insert("test", {"value": 2})
    memory.schema(table_schema("test", {"by_value": ["value"]}))
    assert conflicts(memory, writer)


def test_what_is_forgotten_conflicts_and_the_log_is_bounded(memory: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_log, "WRITE_LOG_COMMITS_MAX", 5)
    old = memory.begin(detached=True)
    old.insert("a", {})
    for _ in range(5):
        memory.run(lambda t: t.insert("t", {}))
    assert len(memory.database._log) == 5
    memory.run(lambda t: t.insert("t", {}))
    assert len(memory.database._log) == 5
    assert conflicts(memory, old)
    memory.run(lambda t: t.insert("t", {}))
    assert len(memory.database._log) == 0, "nobody is left who could conflict"


def test_the_log_is_bounded_in_bytes(memory: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_log, "WRITE_LOG_BYTES_MAX", 1_000)
    old = memory.begin(detached=True)
    for _ in range(5):
        memory.run(lambda t: t.insert("t", {"x": "y" * 400}))
    assert 0 < memory.database._log.n_bytes <= 1_000
    old.abort()


def test_pending_commits_at_the_bound_and_one_past_it(memory: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_module, "COMMITS_PENDING_MAX", 3)
    memory.engine.hold()

    def insert() -> list[object]:
        t = memory.begin()
        t.insert("t", {})
        return memory.commit(t)

    answers = [insert() for _ in range(3)]
    with pytest.raises(SystemFault, check=lambda e: e.code == "CommitterFullError"):
        insert()
    memory.engine.release()
    memory.settle()
    assert all(len(answer) == 1 for answer in answers)
    insert()
    memory.settle()
    monkeypatch.setattr(database_module, "COMMITS_PENDING_BYTES_MAX", 1)
    memory.engine.hold()
    insert()
    with pytest.raises(SystemFault, check=lambda e: e.code == "CommitterFullError"):
        insert()
    memory.engine.release()


def test_open_queries_keep_their_snapshot_while_the_lane_moves_on(world: World, pair: tuple[str, str]) -> None:
    query, lane = world.begin(writable=False), world.begin()
    number = query.open_query(scan_query("test"))
    assert loads(query.next(number) or b"")["value"] == 10
    for n in range(5):
        world.run(lambda t, n=n: (t.patch(pair[1], {"value": n}), t.insert("test", {"value": 100 + n})))
    assert loads(query.next(number) or b"")["value"] == 20 and query.next(number) is None
    assert value(lane, pair[1]) == 20
    query.abort()
    query.abort()
    lane.abort()
    assert value(world.begin(writable=False), pair[1]) == 4


def test_overlapping_lane_transactions_keep_what_they_began_on(memory: World) -> None:
    (document_id,) = memory.insert_all("test", [{"value": 1}])
    memory.engine.hold()
    first = memory.begin()
    first.patch(document_id, {"value": 2})
    memory.commit(first)
    slow, fast = memory.begin(), memory.begin()
    fast.patch(document_id, {"value": 3})
    fast.insert("test", {"value": 4})
    memory.commit(fast)
    assert value(slow, document_id) == 2 and len(documents(slow.collect_query(scan_query("test")))) == 1
    memory.engine.release()
    memory.turn()
    assert value(slow, document_id) == 2 and len(documents(slow.collect_query(scan_query("test")))) == 1
    slow.insert("test", {"value": 5})
    assert conflicts(memory, slow) and values(memory) == [3, 4]


def test_a_conflict_names_what_was_changed(world: World, pair: tuple[str, str]) -> None:
    def touched(read: Callable[[Transaction], object], write: Callable[[Transaction], object]) -> Touch | None:
        reader = world.begin(detached=True)
        read(reader)
        reader.insert("reader", {})
        world.run(write)
        with pytest.raises(Conflict) as caught:
            world.commit(reader)
        return caught.value.touch

    ten = range_query("test.by_value", [("Eq", "value", 10)])
    by_id = touched(lambda t: t.get(pair[0]), lambda t: t.patch(pair[0], {"note": 1}))
    assert by_id == Touch("test", pair[0], "by its id", b"call")
    left = touched(lambda t: t.collect_query(ten), lambda t: t.patch(pair[0], {"value": 11}))
    assert left == Touch("test", pair[0], "in a range of index test.by_value that holds value: 10.0", b"call")
    came = touched(lambda t: t.collect_query(ten), lambda t: t.patch(pair[1], {"value": 10}))
    assert came == Touch("test", pair[1], "in a range of index test.by_value that holds value: 10.0", b"call")
    everything = touched(lambda t: t.collect_query(scan_query("test")), lambda t: t.delete(pair[1]))
    assert everything == Touch("test", pair[1], "in a range of index test.by_creation_time", b"call")
    ids = range_query("test.by_id", [])
    scanned = touched(lambda t: t.collect_query(ids), lambda t: t.patch(pair[0], {"value": 5}))
    assert scanned == Touch("test", pair[0], "in a range of index test.by_id", b"call")
    assert touched(lambda t: t.count("fresh"), lambda t: t.insert("fresh", {})) is None


@pytest.mark.parametrize("length", [CONFLICT_VALUE_CHARS_MAX // 2, CONFLICT_VALUE_CHARS_MAX * 3])
def test_a_conflict_shows_so_much_of_a_value(memory: World, length: int) -> None:
    memory.schema(table_schema("test", {"by_value": ["value"]}))
    reader = memory.begin(detached=True)
    reader.collect_query(range_query("test.by_value", []))
    reader.insert("reader", {})
    memory.insert_all("test", [{"value": "x" * length}])
    with pytest.raises(Conflict) as caught:
        memory.commit(reader)
    assert caught.value.touch is not None
    shown = caught.value.touch.place.removeprefix("in a range of index test.by_value that holds value: ")
    assert shown.count("x") == length if length < CONFLICT_VALUE_CHARS_MAX else len(shown) <= CONFLICT_VALUE_CHARS_MAX


@pytest.mark.parametrize("reverse", [False, True])
def test_a_range_conflicts_up_to_its_bounds_and_not_beyond(world: World, reverse: bool) -> None:
    """Writes just inside and just outside of each kind of range: what is read of it, and what is not."""
    world.schema(table_schema("test", {"by_value": ["value"]}))
    world.insert_all("test", [{"value": value} for value in (10, 20, 30, 40)])
    order = "desc" if reverse else "asc"
    first_two = [{"limit": 2}]
    cases = [
        ([("Gte", "value", 20), ("Lt", "value", 40)], [], (20, 39.9), (19.9, 40)),
        ([("Gt", "value", 20), ("Lte", "value", 40)], [], (20.1, 40), (20, 40.1)),
        ([("Eq", "value", 20)], [], (20,), (19.9, 20.1, None, "20")),
        ([("Eq", "value", 25)], [], (25,), (24.9, 25.1)),
        ([("Gt", "value", 30), ("Lt", "value", 30)], [], (), (30,)),
        # Read up to its last document, which is 20 from below and 30 from above.
        ([], first_two, (30, 31) if reverse else (19, 20 - 1e-9), (29,) if reverse else (21,)),
    ]
    for expressions, operators, inside, outside in cases:
        for value, expected in [*((value, True) for value in inside), *((value, False) for value in outside)]:
            reader = world.begin(detached=True)
            reader.collect_query(range_query("test.by_value", expressions, order, operators))
            reader.insert("reader", {})
            added = world.run(lambda t, value=value: t.insert("test", {"value": value}))
            assert conflicts(world, reader) is expected, (expressions, operators, value)
            world.run(lambda t, added=added: t.delete(added))
