"""A deployment that fills the space it has reserved gets more, instead of failing."""

from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from skerry.database import Transaction
from skerry.errors import SystemFault
from skerry.limits import MIB, STORAGE_MAP_FILLING_PERCENT, STORAGE_MAP_URGENT_PERCENT
from skerry.storage.address_space import AddressSpace
from skerry.storage.lmdb_engine import LmdbEngine
from tests.database.world import WAIT_SECONDS, World, documents, scan_query

MAP_BYTES = 4 * MIB
BODY = "x" * 100_000


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[LmdbEngine]:
    made = LmdbEngine(tmp_path / "d", map_bytes=MAP_BYTES, address_space=AddressSpace(64 * MIB))
    yield made
    made.close()


def insert(world: World) -> None:
    world.run(lambda transaction: transaction.insert("notes", {"body": BODY}))


def count(transaction: Transaction) -> int:
    query = transaction.open_query(scan_query("notes"))
    return len(documents(transaction.collect(query)))


def test_commits_go_on_past_the_first_map(engine: LmdbEngine) -> None:
    world = World(engine)
    for _ in range(120):  # 12 MB, three times the map
        insert(world)
    assert engine.usage.map_bytes > 4 * MAP_BYTES
    assert engine.filling_percent < STORAGE_MAP_FILLING_PERCENT
    assert world.read(count) == 120


def test_growing_waits_for_calls_beside_the_lane_until_it_is_urgent(engine: LmdbEngine) -> None:
    world = World(engine)
    insert(world)
    beside = world.begin(detached=True)
    while engine.filling_percent < STORAGE_MAP_FILLING_PERCENT:
        insert(world)
    assert engine.usage.map_bytes == MAP_BYTES
    assert count(beside) == 1
    seen = 0
    while engine.usage.map_bytes == MAP_BYTES:
        seen = engine.filling_percent
        insert(world)
    assert seen < STORAGE_MAP_URGENT_PERCENT
    with pytest.raises(SystemFault) as caught:
        count(beside)
    assert caught.value.code == "SnapshotGone"
    beside.abort()


def test_growing_under_pending_commits_takes_in_what_its_new_snapshot_shows(engine: LmdbEngine) -> None:
    world = World(engine)
    beside = world.begin(detached=True)  # until it is urgent, nothing grows beside it
    while engine.filling_percent < STORAGE_MAP_FILLING_PERCENT:
        insert(world)
    committed = world.read(count)
    answers: list[list[object]] = []
    while engine.filling_percent < STORAGE_MAP_URGENT_PERCENT:
        transaction = world.begin()
        transaction.insert("notes", {"body": BODY})
        answers.append(world.commit(transaction))
        world.turn()
        world.engine.commit([]).result(WAIT_SECONDS)  # the commit is durable, and the loop has not heard of it
    assert world.database.n_pending and not answers[-1]
    assert world.database.make_room()
    assert world.database.n_pending == 0
    assert [type(waiting[0]) for waiting in answers] == [int] * len(answers)
    query = world.begin(writable=False)
    assert (count(query), query.begin_ts) == (committed + len(answers), world.database.durable_ts)
    query.abort()
    beside.abort()


def test_an_index_is_built_past_the_map(engine: LmdbEngine) -> None:
    world = World(engine)
    values = [{"n": number, "words": "w" * 800} for number in range(4_500)]
    for first in range(0, len(values), 500):
        world.insert_all("notes", values[first : first + 500])
    at_first = engine.usage.map_bytes
    fields = {"indexes": [{"indexDescriptor": "by_words", "fields": ["words", "n"]}], "documentType": {"type": "any"}}
    table = {"tableName": "notes", "searchIndexes": [], "vectorIndexes": [], **fields}
    world.database.apply_schema(orjson.dumps({"tables": [table], "schemaValidation": False}))
    assert engine.usage.map_bytes > at_first
    assert world.read(count) == 4_500


def test_a_deployment_that_may_not_grow_serves_on_until_it_is_full(tmp_path: Path) -> None:
    engine = LmdbEngine(tmp_path / "d", map_bytes=MAP_BYTES, address_space=AddressSpace(MAP_BYTES))
    world = World(engine)
    answers: list[object] = [0]
    while isinstance(answers[-1], int):
        transaction = world.begin()
        transaction.insert("notes", {"body": BODY})
        waiting = world.commit(transaction)
        world.settle()
        answers += waiting
    assert len(answers) > 20
    assert isinstance(answers[-1], SystemFault) and answers[-1].code == "StorageFull"
    assert world.read(count) == len(answers) - 2
    engine.close()
