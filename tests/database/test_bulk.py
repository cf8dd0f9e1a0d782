"""Hidden tables: filled beside everything else, switched in by one commit, cleared away whatever became of them."""

from collections.abc import Callable
from concurrent.futures import Future
from errno import ENOSPC
from hashlib import blake2b
from tempfile import TemporaryFile
from typing import IO, Any

import orjson
import pytest

from skerry.database import Conflict, SchemaChange, Steps, sorted_runs, verify
from skerry.database.bulk import Fill, Fills, clear_imported, has_garbage
from skerry.database.search_counts import read_counts
from skerry.errors import ClientError, DeveloperError, SystemFault
from skerry.limits import BULK_BATCH_BYTES, BULK_BATCH_WRITES, BULK_BATCHES_PENDING_MAX, STEP_BUSY_BATCH_WRITES
from skerry.value import encode_document_id
from tests.database.world import World

USERS = {
    "tableName": "users",
    "indexes": [{"indexDescriptor": "by_name", "fields": ["name"]}],
    "documentType": {
        "type": "object",
        "value": {
            "name": {"fieldType": {"type": "string"}, "optional": False},
            "friend": {"fieldType": {"type": "id", "tableName": "users"}, "optional": True},
        },
    },
}
ALL = {"source": {"type": "FullTableScan", "tableName": "users", "order": None}, "operators": []}


class Importing:
    """An import driven by hand: what a step waits for is waited for, and the loop turned."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.chance = 0
        self.fills = Fills(world.database, lambda: world.now_ms, self.entropy)

    def entropy(self, n_bytes: int) -> bytes:
        self.chance += 1
        return blake2b(self.chance.to_bytes(8, "big"), digest_size=n_bytes).digest()

    def drive(self, steps: Steps, between: Callable[[], None] | None = None) -> None:
        for waited in steps:
            if between is not None:
                between()
            self.world.turn()
            if waited is not None:
                waited.exception()
                self.world.turn()

    def begin(self, name: str, number: int) -> Fill:
        self.drive(self.fills.begin({name: number}))
        return self.fills.fills[name]

    def add(self, fill: Fill, *documents: dict[str, Any]) -> None:
        for document in documents:
            fill.add(fill.judge(document))
            if fill.is_batch:
                self.drive(fill.send())
        self.drive(fill.finish())

    def switch(self) -> None:
        self.world.settle()
        self.drive(self.fills.switch(b'{"kind":"import"}'))
        self.fills.close()


def documents(world: World) -> list[dict[str, Any]]:
    return orjson.loads(world.read(lambda t: t.collect_query(ALL)))


def names(world: World) -> list[str]:
    return [document["name"] for document in documents(world)]


def by_name(world: World, name: str) -> list[dict[str, Any]]:
    equal = {"type": "Eq", "fieldPath": "name", "value": name}
    source = {"type": "IndexRange", "indexName": "users.by_name", "range": [equal], "order": None}
    return orjson.loads(world.read(lambda t: t.collect_query({"source": source, "operators": []})))


def assert_sound(world: World) -> None:
    world.settle()
    snapshot = world.engine.snapshot()
    try:
        walk = verify(snapshot)
    finally:
        snapshot.close()
    assert walk.is_sound, walk.differences


def start(world: World, *present: str) -> Importing:
    world.schema(USERS, validation=True)
    if present:
        world.insert_all("users", [{"name": name} for name in present])
    return Importing(world)


def test_nothing_is_seen_before_the_switch_and_all_of_it_after(world: World) -> None:
    importing = start(world, "old")
    fill = importing.begin("users", 10_001)
    given = encode_document_id(10_001, b"i" * 16)
    importing.add(fill, {"name": "a"}, {"_id": given, "_creationTime": 12.5, "name": "b", "friend": given})
    assert names(world) == ["old"]
    assert_sound(world)
    heard: list[bool] = []
    world.database.on_commit.append(lambda record: heard.append(record.is_switch))
    importing.switch()
    assert heard == [True], "whoever keeps read sets hears that they lead nowhere now"
    assert names(world) == ["b", "a"], "in the order of creation times"
    assert by_name(world, "b") == [{"_id": given, "_creationTime": 12.5, "name": "b", "friend": given}]
    assert by_name(world, "old") == []
    assert_sound(world)
    importing.drive(clear_imported(world.database))
    assert_sound(world)
    world.insert_all("users", [{"name": "c"}])
    assert names(world) == ["b", "a", "c"] and heard == [True, False]


def test_a_database_opened_anew_has_what_was_switched_in_and_nothing_else(world: World) -> None:
    importing = start(world)
    fill = importing.begin("users", 10_001)
    importing.add(fill, {"name": "a"})
    importing.switch()
    left = Importing(world)
    unfinished = left.begin("users", 10_001)
    left.add(unfinished, {"name": "never"})
    left.fills.close()
    world.settle()
    world.database = world.open()
    assert names(world) == ["a"]
    assert_sound(world)
    left.drive(clear_imported(world.database))
    snapshot = world.engine.snapshot()
    assert not has_garbage(snapshot)
    snapshot.close()
    assert_sound(world)
    again = Importing(world)
    other = again.begin("users", 10_001)
    assert other.table.space > unfinished.table.space, "a number is used once"
    again.fills.close()


def test_appending_keeps_what_is_written_meanwhile(world: World) -> None:
    importing = start(world, *[f"old {i}" for i in range(200)])
    ids = [document["_id"] for document in documents(world)]
    fill = importing.begin("users", 10_001)
    turn = iter(range(1_000))

    def write() -> None:
        i = next(turn)
        if i < 60:
            world.run(lambda t: t.patch(ids[3 * i], {"name": f"new {3 * i}"}))
            world.run(lambda t: t.delete(ids[3 * i + 1]))
            world.run(lambda t: t.insert("users", {"name": f"born {i}"}))

    importing.drive(fill.copy(), write)
    importing.add(fill, *[{"name": f"added {i}"} for i in range(50)])
    while next(turn) < 40:
        write()
    before = names(world)
    importing.switch()
    assert sorted(names(world)) == sorted([*before, *[f"added {i}" for i in range(50)]])
    assert fill.documents == 50
    assert_sound(world)
    importing.drive(clear_imported(world.database))
    assert_sound(world)


def test_the_same_id_twice_is_refused_wherever_the_other_is(world: World) -> None:
    importing = start(world, "old")
    present = documents(world)[0]["_id"]
    fill = importing.begin("users", 10_001)
    importing.drive(fill.copy())
    low, high = encode_document_id(10_001, b"\0" * 16), encode_document_id(10_001, b"\xff" * 16)
    fill.add(fill.judge({"_id": high, "name": "a"}))
    fill.add(fill.judge({"_id": low, "name": "b"}))
    for again in (low, high, present):
        with pytest.raises(DeveloperError) as refused:
            fill.add(fill.judge({"_id": again, "name": "c"}))
        assert refused.value.code == "DuplicateId"
    importing.drive(fill.send())
    with pytest.raises(DeveloperError):
        fill.add(fill.judge({"_id": low, "name": "c"}))
    importing.drive(fill.settle())
    with pytest.raises(DeveloperError):
        fill.add(fill.judge({"_id": low, "name": "c"}))
    importing.fills.close()


@pytest.mark.parametrize(
    ("document", "code"),
    [
        ({"name": 1}, "SchemaEnforcementError"),
        ({"name": "a", "_id": "nonsense"}, "InvalidDocumentId"),
        ({"name": "a", "_id": None}, "InvalidDocumentId"),
        ({"name": "a", "_id": encode_document_id(10_002, b"i" * 16)}, "InvalidDocumentId"),
        ({"name": "a", "_creationTime": "today"}, "InvalidValue"),
        ({"name": "a", "_creationTime": float("inf")}, "InvalidValue"),
        ({"name": "a", "_creationTime": True}, "InvalidValue"),
    ],
)
def test_what_may_not_be_stored(memory: World, document: dict[str, Any], code: str) -> None:
    importing = start(memory)
    fill = importing.begin("users", 10_001)
    with pytest.raises(DeveloperError) as refused:
        fill.judge(document)
    assert refused.value.code == code
    importing.fills.close()


def test_a_number_of_another_table_is_refused(memory: World) -> None:
    importing = start(memory)
    with pytest.raises(ClientError) as refused:
        importing.begin("others", 10_001)
    assert refused.value.code == "TableConflict"


def test_a_schema_or_a_table_that_came_between_refuses_the_switch(world: World) -> None:
    importing = start(world)
    importing.begin("users", 10_001)
    world.schema()
    with pytest.raises(ClientError) as refused:
        importing.switch()
    assert refused.value.code == "ImportOverlapped"
    importing.fills.close()
    other = Importing(world)
    number = world.database.reserve_table_number()
    other.begin("fresh", number)
    world.insert_all("fresh", [{"name": "a"}])
    assert world.database.catalog.tables["fresh"].number == number + 1
    with pytest.raises(ClientError):
        other.switch()
    other.fills.close()
    assert_sound(world)


def test_who_read_the_table_before_the_switch_conflicts(world: World) -> None:
    importing = start(world, "old")
    fill = importing.begin("users", 10_001)
    importing.add(fill, {"name": "a"})
    transaction = world.begin(detached=True)
    assert transaction.count("users") == 1
    transaction.insert("users", {"name": "late"})
    importing.switch()
    with pytest.raises(Conflict):
        world.commit(transaction)
    assert names(world) == ["a"]


STAGED = {**USERS, "indexes": [], "stagedDbIndexes": USERS["indexes"]}


def test_a_staged_index_gets_the_entries_of_what_is_imported(world: World) -> None:
    importing = start(world, "old")
    world.schema(STAGED, validation=True)
    fill = importing.begin("users", 10_001)
    importing.add(fill, {"name": "a"}, {"name": "b"})
    importing.switch()
    assert_sound(world)
    (staged,) = world.database.catalog.tables["users"].hidden
    assert staged.is_staged
    world.schema(USERS, validation=True)
    assert world.database.catalog.tables["users"].indexes["by_name"].number == staged.number, "nothing was built"
    assert [document["name"] for document in by_name(world, "b")] == ["b"]


def test_an_index_that_is_being_built_or_enabled_meanwhile_refuses_the_import(world: World) -> None:
    importing = start(world, "old")
    other = {**USERS, "indexes": [{"indexDescriptor": "other", "fields": ["friend"]}]}
    change = SchemaChange(world.database, orjson.dumps({"tables": [other], "schemaValidation": True}))
    world.commit_of(change.register)
    with pytest.raises(ClientError) as refused:
        importing.begin("users", 10_001)
    assert refused.value.code == "ImportOverlapped"
    change.close()
    world.schema(STAGED, validation=True)
    again = Importing(world)
    again.add(again.begin("users", 10_001), {"name": "a"})
    world.schema(USERS, validation=True)
    with pytest.raises(ClientError) as refused:
        again.switch()
    assert refused.value.code == "ImportOverlapped"
    again.fills.close()


def test_a_full_deployment_takes_no_more(world: World) -> None:
    importing = start(world)
    fill = importing.begin("users", 10_001)
    fill.add(fill.judge({"name": "a"}))
    world.database.storage_looked_at(100, 101)
    importing.drive(fill.send())
    importing.drive(fill.settle())
    fill.add(fill.judge({"name": "b"}))
    with pytest.raises(DeveloperError) as refused:
        importing.drive(fill.send())
    assert refused.value.code == "StorageQuotaReached"
    importing.fills.close()


def test_a_batch_is_bounded_in_writes_and_in_bytes(memory: World) -> None:
    importing = start(memory)
    fill = importing.begin("users", 10_001)
    while not fill.is_batch:
        fill.add(fill.judge({"name": "a"}))
    assert fill.documents == BULK_BATCH_WRITES
    importing.drive(fill.send())
    memory.database.is_busy = True
    while not fill.is_batch:
        fill.add(fill.judge({"name": "a"}))
    assert fill.documents == BULK_BATCH_WRITES + STEP_BUSY_BATCH_WRITES
    memory.database.is_busy = False
    importing.drive(fill.send())
    assert not fill.is_batch
    fill.add(fill.judge({"name": "x" * (BULK_BATCH_BYTES // 4)}))
    assert not fill.is_batch
    fill.add(fill.judge({"name": "x" * (BULK_BATCH_BYTES // 4)}))
    assert fill.is_batch, "two documents and their names as index keys, which are too long to be sorted"
    importing.fills.close()


def test_what_waits_to_be_sorted_counts_for_the_quota(world: World) -> None:
    importing = start(world)
    fill = importing.begin("users", 10_001)
    world.database.storage_looked_at(0, None)
    for _ in range(100):
        fill.add(fill.judge({"name": "a"}))
    importing.drive(fill.send())
    space = world.database.space
    waiting_bytes, used_bytes = space.waiting_bytes, space.used_bytes
    assert 0 < waiting_bytes < used_bytes
    world.database.storage_looked_at(50, None)
    assert space.used_bytes == 50 + waiting_bytes
    importing.drive(fill.finish())
    assert space.waiting_bytes == 0
    fill.add(fill.judge({"name": "b"}))
    importing.drive(fill.send())
    assert space.waiting_bytes > 0
    importing.fills.close()
    importing.fills.close()
    assert space.waiting_bytes == 0, "what is given up waits no more"


@pytest.mark.parametrize("is_full", [False, True])
def test_a_file_that_cannot_be_written_fails_the_import(
    world: World, monkeypatch: pytest.MonkeyPatch, is_full: bool
) -> None:
    def open_file() -> IO[bytes]:
        raise OSError(ENOSPC, "No space left on device")

    monkeypatch.setattr(sorted_runs, "SORT_CHUNK_KEYS", 4)
    monkeypatch.setattr(sorted_runs, "SORT_RUN_CHUNKS", 2)
    importing = start(world, "old")
    importing.fills = Fills(
        world.database, lambda: world.now_ms, importing.entropy, open_file if is_full else TemporaryFile
    )
    fill = importing.begin("users", 10_001)
    if is_full:
        with pytest.raises(OSError, match="No space left"):
            importing.add(fill, *[{"name": f"{n}"} for n in range(50)])
        importing.fills.close()
        importing.drive(clear_imported(world.database))
        assert names(world) == ["old"]
    else:
        importing.add(fill, *[{"name": f"{n}"} for n in range(50)])
        importing.switch()
        assert sorted(names(world), key=int) == [f"{n}" for n in range(50)]
    world.settle()
    snapshot = world.engine.snapshot()
    assert verify(snapshot).is_sound
    snapshot.close()


@pytest.mark.parametrize("is_busy", [False, True])
def test_few_batches_are_on_their_way_and_one_where_calls_are_made(
    memory: World, monkeypatch: pytest.MonkeyPatch, is_busy: bool
) -> None:
    importing = start(memory)
    fill = importing.begin("users", 10_001)
    memory.database.is_busy = is_busy
    sent: list[Future[None]] = []

    def commit(_: object) -> Future[None]:
        sent.append(Future())
        return sent[-1]

    monkeypatch.setattr(memory.database.engine, "commit", commit)
    for _ in range(1 if is_busy else BULK_BATCHES_PENDING_MAX):
        fill.add(fill.judge({"name": "a"}))
        assert list(fill.send()) == []
    fill.add(fill.judge({"name": "a"}))
    steps = fill.send()
    assert next(steps) is sent[0]
    sent[0].set_result(None)
    assert list(steps) == []
    assert len(sent) == (2 if is_busy else BULK_BATCHES_PENDING_MAX + 1)
    importing.fills.close()


def test_storage_that_fails_fails_the_import(memory: World) -> None:
    importing = start(memory, "old")
    fill = importing.begin("users", 10_001)
    importing.drive(fill.copy())
    memory.database._epoch += 1  # pyright: ignore[reportPrivateUsage]  # as after a failure that took mirrored writes along
    with pytest.raises(SystemFault):
        importing.switch()
    importing.fills.close()
    assert names(memory) == ["old"]


def test_search_indexes_count_what_was_imported_copied_and_written_meanwhile(world: World) -> None:
    world.schema({**USERS, "searchIndexes": [{"indexDescriptor": "find", "searchField": "name", "filterFields": []}]})
    ids = world.insert_all("users", [{"name": f"old word{i}"} for i in range(300)])
    importing = Importing(world)
    fill = importing.begin("users", 10_001)
    turn = iter(range(1_000))

    def write() -> None:
        i = next(turn)
        if i < 60:  # not waited for, so that copying meets commits that are not durable yet
            for step in (
                lambda t: t.patch(ids[4 * i], {"name": "new"}),
                lambda t: t.delete(ids[4 * i + 1]),
                lambda t: t.insert("users", {"name": f"born just now {i}"}),
                lambda t: t.patch(ids[-1 - i], {"name": ""}),
            ):
                transaction = world.begin()
                step(transaction)
                world.commit(transaction)

    importing.drive(fill.copy(), write)
    importing.add(fill, *[{"name": f"added {i}"} for i in range(50)])
    while next(turn) < 40:
        write()
    importing.switch()
    every = [name for name in names(world) if name]
    catalog = world.database.catalog.tables["users"]
    snapshot = world.engine.snapshot()
    counts = read_counts(snapshot, catalog.searches[0].number)
    snapshot.close()
    assert counts == (len(every), sum(len(name.split()) for name in every))
    source = {"type": "Search", "indexName": "users.find", "filters": [_word("added")]}
    found = orjson.loads(world.read(lambda t: t.collect_query({"source": source, "operators": []})))
    assert len(found) == 50
    importing.drive(clear_imported(world.database))
    assert_sound(world)


def _word(text: str) -> dict[str, Any]:
    return {"type": "Search", "fieldPath": "name", "value": text}
