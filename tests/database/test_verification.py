"""Each tree is damaged on purpose, and the walk says what is wrong and exactly where."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import orjson
import pytest

from skerry import limits
from skerry.database import retain, verify
from skerry.database.catalog_store import TABLE_PREFIX
from skerry.database.search_counts import Counts, counts_write
from skerry.database.stored import HEADER_BYTES
from skerry.database.verification import DIFFERENCE_CODES, Verification
from skerry.storage import StorageSnapshot, Tree, Write, index_prefix
from skerry.value import decode_document_id
from tests.database.world import World, table_schema

_NUMBER = {"type": "object", "value": {"n": {"fieldType": {"type": "number"}, "optional": True}}}


class Sound(NamedTuple):
    """A world with every kind of thing in its trees."""

    world: World
    kept: bytes
    deleted: bytes


def _key(document_id: str) -> bytes:
    number, internal_id = decode_document_id(document_id)
    return number.to_bytes(4, "big") + internal_id


def _numbers() -> dict[str, Any]:
    find = {"indexDescriptor": "find", "searchField": "n", "filterFields": []}
    return {**table_schema("t", {"by_n": ["n"]}, _NUMBER), "searchIndexes": [find]}


@pytest.fixture
def sound(world: World) -> Iterator[Sound]:
    world.schema(_numbers(), table_schema("u", {}), validation=True)
    ids = world.insert_all("t", [{"n": n} for n in range(20)])
    world.insert_all("u", [{"text": "x" * 600, "at": n} for n in range(5)])
    for n in range(limits.HISTORY_MILESTONE_VERSIONS + 5):
        world.run(lambda t, n=n: t.patch(ids[0], {"n": 100.5 + n}))
    for document_id in ids[15:]:
        world.run(lambda t, document_id=document_id: t.delete(document_id))
    return Sound(world, _key(ids[0]), _key(ids[19]))


def walk(world: World) -> Verification:
    snapshot = world.engine.snapshot()
    try:
        return verify(snapshot)
    finally:
        snapshot.close()


def write(world: World, *writes: Write) -> None:
    world.engine.commit(writes).result(20)


def read(world: World, what: Callable[[StorageSnapshot], Any]) -> Any:
    snapshot = world.engine.snapshot()
    try:
        return what(snapshot)
    finally:
        snapshot.close()


def items(world: World, tree: Tree) -> list[tuple[bytes, bytes]]:
    return read(world, lambda snapshot: list(snapshot.scan(tree, b"", None, False)))


def codes(world: World) -> set[str]:
    return {difference.code for difference in walk(world).differences}


def test_a_sound_deployment_has_no_difference(sound: Sound) -> None:
    found = walk(sound.world)
    assert found.is_sound, found.differences
    assert found.counts["documents"] == 20 and found.counts["indexEntries"] == 15 * 2 + 5
    for name, tree in (
        ("commits", Tree.COMMIT_LOG),
        ("versions", Tree.REPLACED),
        ("milestones", Tree.DOCUMENT_HISTORY),
    ):
        assert found.counts[name] == len(items(sound.world, tree)) > 0
    assert found.counts["indexHistory"] == len(items(sound.world, Tree.INDEX_HISTORY)) > 0


def test_what_retention_leaves_is_sound_at_every_step(sound: Sound, monkeypatch: pytest.MonkeyPatch) -> None:
    world = sound.world
    for _ in range(2):
        world.run(*[lambda t, n=n: t.insert("t", {"n": n}) for n in range(10)])
    many = world.run(lambda t: [t.insert("t", {"n": n}) for n in range(30)])
    world.run(lambda t: [t.patch(document_id, {"n": -1}) for document_id in many])
    world.insert_all("t", [{"n": 7}])
    monkeypatch.setattr("skerry.database.history.RETENTION_CHUNK_CHANGES", 7)
    steps = 0
    while retain(world.database, world.database.durable_ts, limits.RETENTION_CHUNK_COMMITS):
        world.engine.commit([]).result(20)
        assert walk(world).is_sound, walk(world).differences
        steps += 1
    assert steps > 10 and walk(world).counts["versions"] == 0


def test_a_new_deployment_is_sound(world: World) -> None:
    assert walk(world).is_sound


def _damages(sound: Sound) -> dict[str, tuple[list[Write], str]]:
    """By the code that must be found: the writes that do the damage, and the place that must be named."""
    world, kept, deleted = sound
    table = world.database.catalog.tables["t"]
    stored = read(world, lambda snapshot: snapshot.get(Tree.DOCUMENTS, kept))
    document = orjson.loads(stored[HEADER_BYTES:])
    by_n = table.indexes["by_n"]
    entry = next(key for key, _ in items(world, Tree.INDEXES) if key.startswith(index_prefix(by_n.number)))
    newest = items(world, Tree.COMMIT_LOG)[-1][0]
    version, held = next(item for item in items(world, Tree.REPLACED) if item[0].endswith(kept))
    milestone = items(world, Tree.DOCUMENT_HISTORY)[0][0]
    future = (2**63).to_bytes(8, "big")
    elsewhere = kept[:4] + b"\7" * 16
    strange = (9999).to_bytes(4, "big")

    def at(tree: Tree, key: bytes) -> str:
        return f"{tree.name.lower()}/{key.hex()}"

    def put(tree: Tree, key: bytes, value: bytes | None, place: bytes | None = None) -> tuple[list[Write], str]:
        return [(tree, key, value)], at(tree, key if place is None else place)

    size = int.from_bytes(stored[:4], "big")
    text = orjson.dumps({**document, "n": "text"})
    return {
        "CatalogDamaged": put(Tree.META, TABLE_PREFIX + b"t", b"{}", b""),
        "DocumentOfNoTable": put(Tree.DOCUMENTS, strange + b"\1" * 16, stored),
        "DocumentUnreadable": put(Tree.DOCUMENTS, kept, stored[:-1]),
        "DocumentMisplaced": put(Tree.DOCUMENTS, elsewhere, stored),
        "DocumentSizeWrong": put(Tree.DOCUMENTS, kept, (size + 1).to_bytes(4, "big") + stored[4:]),
        "DocumentUnfit": put(Tree.DOCUMENTS, kept, stored[:HEADER_BYTES] + text),
        "DocumentNotInLog": put(Tree.DOCUMENTS, kept, stored[:4] + future + stored[HEADER_BYTES:]),
        "DocumentLost": put(Tree.DOCUMENTS, kept, None),
        "DocumentStale": put(Tree.DOCUMENTS, kept, held),
        "DocumentOfDeleted": put(Tree.DOCUMENTS, deleted, stored[:4] + (1).to_bytes(8, "big") + stored[HEADER_BYTES:]),
        "IndexEntryMissing": put(Tree.INDEXES, entry, None),
        "IndexEntryStray": put(Tree.INDEXES, entry[:-1] + bytes([entry[-1] ^ 1]), b""),
        "SearchCountsWrong": put(*counts_write(table.indexes["find"].number, Counts(1, 1))),
        "IndexOfNobody": put(Tree.INDEXES, strange + b"key", b"", strange),
        "IndexHistoryOfNobody": put(Tree.INDEX_HISTORY, strange + b"key", newest, strange),
        "IndexHistoryUnknownCommit": put(Tree.INDEX_HISTORY, entry, future),
        "CommitLogUnreadable": put(Tree.COMMIT_LOG, newest, b"\0\0\0"),
        "VersionMissing": put(Tree.REPLACED, version, None),
        "VersionWrong": put(Tree.REPLACED, version, held[:4] + future + held[HEADER_BYTES:]),
        "VersionStray": put(Tree.REPLACED, version[:-1] + bytes([version[-1] ^ 1]), held),
        "MilestoneMissing": put(Tree.DOCUMENT_HISTORY, milestone, None),
        "MilestoneStray": put(Tree.DOCUMENT_HISTORY, elsewhere + newest, b""),
    }


@pytest.mark.parametrize("code", DIFFERENCE_CODES)
def test_each_damage_is_found_where_it_is(sound: Sound, code: str) -> None:
    writes, place = _damages(sound)[code]
    write(sound.world, *writes)
    found = walk(sound.world)
    assert not found.is_sound
    assert (code, place) in {(difference.code, difference.place) for difference in found.differences}, found.differences


def test_differences_beyond_the_bound_are_counted(sound: Sound, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [key for key, _ in items(sound.world, Tree.INDEXES)]
    write(sound.world, *[(Tree.INDEXES, key, None) for key in entries])
    monkeypatch.setattr("skerry.database.verification.VERIFY_DIFFERENCES_MAX", len(entries) - 1)
    found = walk(sound.world)
    assert len(found.differences) == len(entries) - 1 and found.difference_count == len(entries)
    monkeypatch.setattr("skerry.database.verification.VERIFY_DIFFERENCES_MAX", len(entries))
    assert len(walk(sound.world).differences) == len(entries)


def test_long_index_keys_are_walked_too(world: World) -> None:
    world.schema(table_schema("t", {"by_text": ["text"]}))
    world.insert_all("t", [{"text": "y" * 900 + str(n)} for n in range(limits.VERIFY_STEP_ITEMS + 9)])
    found = walk(world)
    assert found.is_sound and found.counts["indexEntries"] == 2 * (limits.VERIFY_STEP_ITEMS + 9)
    long = next(item for item in items(world, Tree.INDEXES) if len(item[0]) > 900)[0]
    write(world, (Tree.INDEXES, long, None))
    assert codes(world) == {"IndexEntryMissing"}
