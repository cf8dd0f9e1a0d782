"""Reads and writes of single documents, savepoints, limits, creation times."""

import pytest
from orjson import loads

from skerry import limits
from skerry.database import usage as usage_module
from skerry.errors import DeveloperError
from skerry.value import UNDEFINED, Int64
from tests.database.world import World, documents, range_query, scan_query, table_schema

STORAGE_ID = "g02000820c20a1g7104gm2rc1m70zz7c"
UNKNOWN_ID = "zzzzzzrfzzzzzzzzzzzzzzzzzzzzzzzzzzxjj"


def fails(code: str, message: str | None = None):
    return pytest.raises(DeveloperError, check=lambda e: e.code == code and (message is None or message in e.message))


def test_insert_gives_a_document_that_every_later_read_sees(world: World) -> None:
    transaction = world.begin()
    document_id = transaction.insert("messages", {"body": "hi", "n": 1, "big": Int64(5), "raw": b"\0"})
    own = transaction.get(document_id)
    answers = world.commit(transaction)
    following = world.begin()
    assert following.get(document_id) == own
    following.abort()
    if not answers:
        assert world.read(lambda t: t.get(document_id)) is None
    world.settle()
    assert len(answers) == 1 and answers[0] == world.database.durable_ts
    stored = world.read(lambda t: t.get(document_id))
    assert stored == own
    assert loads(stored) == {
        "_creationTime": transaction.now_ms,
        "_id": document_id,
        "big": {"$integer": "BQAAAAAAAAA="},
        "body": "hi",
        "n": 1,
        "raw": {"$bytes": "AA=="},
    }


def test_documents_survive_reopening(tmp_path) -> None:
    from skerry.storage.lmdb_engine import LmdbEngine

    world = World(LmdbEngine(tmp_path / "d"))
    world.schema(table_schema("t", {"by_n": ["n"]}))
    (first, second) = world.insert_all("t", [{"n": 1}, {"n": 2}])
    ts = world.database.durable_ts
    world.engine.close()
    world = World(LmdbEngine(tmp_path / "d"))
    assert world.database.durable_ts == ts
    assert [
        d["_id"] for d in documents(world.read(lambda t: t.collect_query(range_query("t.by_n", [("Gte", "n", 2)]))))
    ] == [second]
    world.insert_all("u", [{"n": 3}])
    numbers = [table.number for name, table in world.database.catalog.tables.items() if name in "tu"]
    assert numbers == [10_001, 10_002] and world.read(lambda t: t.get(first)) is not None
    assert world.database.durable_ts > ts
    world.engine.close()


def test_patch_replace_delete(world: World) -> None:
    (document_id,) = world.insert_all("t", [{"a": 1, "b": {"c": [1]}}])
    created = loads(world.read(lambda t: t.get(document_id)))["_creationTime"]
    base = {"_id": document_id, "_creationTime": created}
    patched = world.run(lambda t: t.patch(document_id, {"a": UNDEFINED, "d": "x", "_id": document_id}))
    assert loads(patched) == {**base, "b": {"c": [1]}, "d": "x"}
    replaced = world.run(lambda t: t.replace(document_id, {"e": None}))
    assert loads(replaced) == {**base, "e": None} == loads(world.read(lambda t: t.get(document_id, "t")))
    assert world.run(lambda t: t.delete(document_id)) == replaced
    assert world.read(lambda t: t.get(document_id)) is None
    assert world.read(lambda t: t.collect_query(scan_query("t"))) == b"[]"


@pytest.mark.parametrize("verb", ["patch", "replace", "delete"])
def test_errors_of_writes(memory: World, verb: str) -> None:
    (here, gone) = memory.insert_all("t", [{}, {}])
    memory.run(lambda t: t.delete(gone))
    t = memory.begin()

    def call(document_id, table=None, value=None):
        return getattr(t, verb)(document_id, *(() if verb == "delete" else (value or {},)), table)

    with fails("DocumentNotFound", f"{verb.capitalize().replace('Patch', 'Update')} on nonexistent document ID {gone}"):
        call(gone)
    with fails("InvalidArgument", f"Invalid argument `id` for `db.{verb}`: Unable to decode ID: "):
        call("abc")
    with fails("TableNotFound", f'Table for ID "{UNKNOWN_ID}" not found'):
        call(UNKNOWN_ID)
    with fails("SystemTableReadOnly", "System tables (prefixed with `_`) are read-only."):
        call(STORAGE_ID)
    with fails("InvalidArgument", 'Id<"t">'):
        call(here, "u")
    if verb != "delete":
        with fails("InvalidArgument", "doesn't match '_id' field"):
            call(here, None, {"_id": gone})
        with fails("InvalidArgument", "doesn't match '_creationTime' field"):
            call(here, None, {"_creationTime": 5})
        with fails("InvalidArgument", "Value must be an Object"):
            getattr(t, verb)(here, [1])
    t.delete(here)
    with fails("DocumentNotFound"):
        call(here)
    t.abort()
    q = memory.begin(writable=False)
    with fails("ReadOnlyTransaction"):
        getattr(q, verb)(here, *(() if verb == "delete" else ({},)))
    with fails("ReadOnlyTransaction"):
        q.insert("t", {})


def test_errors_of_insert(memory: World) -> None:
    t = memory.begin()
    for table, value, code in (
        ("_storage", {}, "SystemTableReadOnly"),
        ("_mine", {}, "SystemTableReadOnly"),
        ("1t", {}, "InvalidTableName"),
        ("t", {"_id": "x"}, "InvalidArgument"),
        ("t", {"_creationTime": 1}, "InvalidArgument"),
        ("t", {"_x": 1}, "InvalidFieldName"),
        ("t", {"a": UNDEFINED}, "InvalidValue"),
        ("t", {"a": "x" * limits.MIB}, "ValueTooLargeError"),
        ("t", [], "InvalidArgument"),
        (5, {}, "InvalidArgument"),
    ):
        with fails(code):
            t.insert(table, value)
    assert t.write_set == []


def test_get_knows_system_tables_and_other_tables(memory: World) -> None:
    (here,) = memory.insert_all("t", [{}])
    t = memory.begin(writable=False)
    with fails("InvalidArgument", "Invalid argument `id` for `db.get`: Unable to decode ID: "):
        t.get("abc")
    with fails("InvalidArgument"):
        t.get(None)
    with fails("SystemTableAccess", "System tables can only be accessed with db.system."):
        t.get(STORAGE_ID)
    with fails("SystemTableAccess", "User tables cannot be accessed with db.system."):
        t.get(here, system=True)
    with fails("InvalidArgument", 'expected an Id<"u">'):
        t.get(here, "u")
    assert t.get(STORAGE_ID, system=True) is None
    assert t.get(UNKNOWN_ID) is None
    assert t.normalize_id("t", here) == here
    assert [t.normalize_id(*pair) for pair in (("u", here), ("t", "abc"), ("t", UNKNOWN_ID), ("_storage", here))] == [
        None
    ] * 4
    assert t.normalize_id("_storage", STORAGE_ID) == STORAGE_ID
    assert t.collect_query(scan_query("_storage")) == t.collect_query(scan_query("_private")) == b"[]"


def test_rollback_restores_writes_and_keeps_reads(memory: World) -> None:
    memory.schema(table_schema("t", {"by_n": ["n"]}))
    (kept, patched, deleted) = memory.insert_all("t", [{"n": 1}, {"n": 2}, {"n": 3}])
    t = memory.begin()
    everything = scan_query("t")
    t.patch(kept, {"n": 10})
    before = t.collect_query(everything)
    written = t.usage.documents_written
    t.savepoint()
    t.patch(kept, {"n": 11})
    t.patch(patched, {"n": 12})
    t.delete(deleted)
    t.savepoint()
    t.insert("t", {"n": 13})
    t.insert("fresh", {"n": 14})
    assert [d["n"] for d in documents(t.collect_query(range_query("t.by_n", [])))] == [11, 12, 13]
    t.release()
    t.rollback()
    assert t.collect_query(everything) == before
    assert [d["n"] for d in documents(t.collect_query(range_query("t.by_n", [])))] == [2, 3, 10]
    assert t.usage.documents_written == written
    assert len(t.read_set.documents) == 3 and t.usage.documents_read > 9
    memory.commit(t)
    memory.settle()
    assert "fresh" not in memory.database.catalog.tables
    assert [d["n"] for d in documents(memory.read(lambda q: q.collect_query(range_query("t.by_n", []))))] == [2, 3, 10]


def test_savepoints_at_the_bound_and_one_past_it(memory: World) -> None:
    t = memory.begin()
    for _ in range(limits.SAVEPOINT_DEPTH_MAX):
        t.savepoint()
    with fails("TooManySavepoints"):
        t.savepoint()


def test_creation_times_ascend_in_a_transaction_and_never_go_back(memory: World) -> None:
    t = memory.begin()
    ids = [t.insert("t", {}) for _ in range(50)]
    times = [loads(t.get(i))["_creationTime"] for i in ids]
    assert times[0] == t.now_ms and times == sorted(set(times)) and times[-1] < times[0] + 1
    memory.commit(t)
    memory.settle()
    memory.now_ms -= 5_000
    later = memory.begin()
    assert later.now_ms >= times[-1]
    assert loads(later.get(later.insert("t", {})))["_creationTime"] >= times[-1]


def test_the_same_seed_and_time_give_the_same_ids(memory: World) -> None:
    def ids(seed: bytes) -> list[str]:
        t = memory.database.begin(writable=True, now_ms=memory.now_ms + 1, seed=seed)
        made = [t.insert("t", {}) for _ in range(20)]
        t.abort()
        return made

    assert ids(b"a" * 16) == ids(b"a" * 16) and not set(ids(b"a" * 16)) & set(ids(b"b" * 16))


def test_a_transaction_that_writes_nothing_writes_nothing(memory: World) -> None:
    (document_id,) = memory.insert_all("t", [{}])
    ts = memory.database.durable_ts
    t = memory.begin()
    gone = t.insert("t", {})
    t.delete(gone)
    t.get(document_id)
    assert t.write_set == [] and memory.commit(t) == [ts]
    assert memory.commit(memory.begin()) == [ts]
    q = memory.begin(writable=False)
    assert memory.commit(q) == [ts]


def test_a_mutation_that_only_read_waits_for_what_it_looked_at(memory: World) -> None:
    memory.engine.hold()
    writer = memory.begin()
    document_id = writer.insert("t", {})
    first = memory.commit(writer)
    reader = memory.begin()
    assert reader.get(document_id) is not None
    second = memory.commit(reader)
    memory.turn()
    assert first == second == []
    memory.engine.release()
    memory.settle()
    assert first == second == [memory.database.durable_ts]


LIMITED = [
    ("TRANSACTION_DOCUMENTS_READ_MAX", 5, "TooManyDocumentsRead"),
    ("TRANSACTION_BYTES_READ_MAX", None, "TooManyBytesRead"),
    ("TRANSACTION_RANGES_READ_MAX", 5, "TooManyReads"),
    ("TRANSACTION_DOCUMENTS_WRITTEN_MAX", 5, "TooManyWrites"),
    ("TRANSACTION_BYTES_WRITTEN_MAX", None, "TooManyBytesWritten"),
    ("TRANSACTION_INDEX_BYTES_MAX", None, "TooManyIndexBytesWritten"),
]


@pytest.mark.parametrize(("name", "bound", "code"), LIMITED)
def test_usage_at_the_limit_and_one_past_it(
    memory: World, monkeypatch: pytest.MonkeyPatch, name: str, bound: int | None, code: str
) -> None:
    (document_id,) = memory.insert_all("t", [{"a": "x"}])
    writes = "WRITTEN" in name or "INDEX" in name

    def step(t) -> None:
        if writes:
            t.insert("t", {"a": "x"})
        else:
            t.get(document_id)

    if bound is None:
        t = memory.begin()
        step(t)
        bound = 5 * {"TooManyBytesRead": t.usage.bytes_read, "TooManyBytesWritten": t.usage.bytes_written}.get(
            code, t.usage.index_bytes
        )
        t.abort()
    monkeypatch.setattr(usage_module, name, bound)
    for few in ("_FEW", "_FEW_BYTES"):  # what lies far below the true bounds is near these
        monkeypatch.setattr(usage_module, few, 0)
    t = memory.begin()
    for _ in range(5):
        step(t)
    assert any("limit" in line for line in t.usage.warnings()) or "INDEX" in name
    with fails(code):
        step(t)


def test_metrics_name_every_counter(memory: World) -> None:
    (document_id,) = memory.insert_all("t", [{"a": "x"}])
    t = memory.begin()
    t.get(document_id)
    metrics = t.usage.metrics()
    assert metrics["documentsRead"] == {"used": 1, "remaining": limits.TRANSACTION_DOCUMENTS_READ_MAX - 1}
    assert set(metrics) == {
        "bytesRead",
        "bytesWritten",
        "databaseQueries",
        "documentsRead",
        "documentsWritten",
        "fileReadBytes",
        "fileWriteBytes",
        "filesRead",
        "filesWritten",
        "functionsScheduled",
        "scheduledFunctionArgsBytes",
    }
    assert t.usage.warnings() == []


def test_open_queries_at_the_bound_and_one_past_it(memory: World, monkeypatch: pytest.MonkeyPatch) -> None:
    import skerry.database.transaction as module

    monkeypatch.setattr(module, "OPEN_QUERIES_MAX", 3)
    t = memory.begin()
    numbers = [t.open_query(scan_query("t")) for _ in range(3)]
    with fails("TooManyOpenQueries"):
        t.open_query(scan_query("t"))
    assert t.close_query(numbers[0]) is True and t.close_query(numbers[0]) is False
    t.open_query(scan_query("t"))
    with fails("QueryNotFound"):
        t.next(numbers[0])
    with fails("QueryNotFound"):
        t.collect(numbers[0])


def test_tables_at_the_bound_and_one_past_it(memory: World, monkeypatch: pytest.MonkeyPatch) -> None:
    import skerry.database.catalog as module

    monkeypatch.setattr(module, "TABLES_MAX", 2)
    t = memory.begin()
    t.insert("a", {})
    t.insert("b", {})
    with fails("TooManyTables"):
        t.insert("c", {})


def test_index_keys_at_the_bound_and_one_past_it(memory: World, monkeypatch: pytest.MonkeyPatch) -> None:
    import skerry.database.catalog as module

    memory.schema(table_schema("t", {"by_a": ["a"]}))
    overhead = 2 + 9 + 16
    monkeypatch.setattr(module, "INDEX_KEY_BYTES_MAX", overhead + 100)
    t = memory.begin()
    t.insert("t", {"a": "x" * 100})
    with fails("IndexKeyTooLarge"):
        t.insert("t", {"a": "x" * 101})


def test_steps_of_a_query_see_the_writes_made_between_them(world: World) -> None:
    world.schema(table_schema("t", {"by_n": ["n"]}))
    ids = world.insert_all("t", [{"n": n} for n in range(0, 60, 2)])
    t = world.begin()
    query = t.open_query(range_query("t.by_n", []))
    seen = [loads(t.next(query))["n"], loads(t.next(query))["n"]]
    t.insert("t", {"n": 3})
    t.insert("t", {"n": 1})
    t.delete(ids[2])
    t.patch(ids[4], {"n": 99})
    while (raw := t.next(query)) is not None:
        seen.append(loads(raw)["n"])
    assert seen == [0, 2, 3, 6, *range(10, 60, 2), 99]
    t.abort()


def test_deleting_while_iterating_visits_every_document_once(world: World) -> None:
    ids = world.insert_all("t", [{"n": n} for n in range(70)])
    for order in ("asc", "desc"):
        t = world.begin()
        query = t.open_query(scan_query("t", order))
        seen = []
        while (raw := t.next(query)) is not None:
            seen.append(loads(raw)["_id"])
            t.delete(seen[-1])
        assert seen == (ids if order == "asc" else ids[::-1])
        assert t.collect_query(scan_query("t")) == b"[]" and t.count("t") == 0
        t.abort()
