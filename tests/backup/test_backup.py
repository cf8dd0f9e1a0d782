"""A backup and its increments make the same deployment again, and nothing else that a file says makes any."""

import io
import zlib
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import orjson
import pytest

from skerry import limits
from skerry.backup.file import Lines, Writer, dump_head, load_head
from skerry.backup.restoring import Restoring
from skerry.backup.taking import Taking
from skerry.database import retain, verify
from skerry.errors import ClientError, SkerryError
from skerry.storage import Tree
from skerry.storage.lmdb_engine import LmdbEngine
from skerry.value import Int64
from tests.database.search_world import search_query, search_schema
from tests.database.world import START_MS, World, table_schema
from tests.vectors.world import VectorWorld, vector_schema

NUMBER = {"type": "object", "value": {"n": {"fieldType": {"type": "number"}, "optional": True}}}
BYTES_MAX = limits.QUOTA_STORAGE_BYTES


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(LmdbEngine(tmp_path / "source"))
    yield world
    world.engine.close()


def take(world: World, since: int | None = None, previous: str | None = None) -> bytes:
    snapshot = world.engine.snapshot()
    try:
        taking = Taking(
            snapshot, lambda digest: Path("/nowhere") / digest, name="source", now_ms=START_MS, documents=3,
            since=since, previous=previous,
        )  # fmt: skip
        return b"".join(taking.pieces())
    finally:
        snapshot.close()


def read(raw: bytes) -> tuple[list[tuple[bytes, bytes]], str]:
    lines = Lines(io.BytesIO(raw).read)
    return list(lines), lines.digest


def increment(world: World, *before: bytes) -> bytes:
    head = load_head(read(before[-1])[0][0][1])
    return take(world, head.ts, read(before[-1])[1])


def restore(folder: Path, *files: bytes, bytes_max: int = BYTES_MAX) -> World:
    restoring = Restoring(folder, lambda: (START_MS + 10**9) * 10**6, bytes_max)
    restoring.run(io.BytesIO(b"".join(files)).read)
    return World(LmdbEngine(folder))


def refusal(folder: Path, *files: bytes, **more: Any) -> str:
    with pytest.raises(ClientError, check=lambda e: e.code == "BackupInvalid") as caught:
        restore(folder, *files, **more)
    return caught.value.message


def documents(world: World) -> dict[str, dict[str, Any]]:
    snapshot = world.engine.snapshot()
    try:
        found = [orjson.loads(stored[12:]) for _, stored in snapshot.scan(Tree.DOCUMENTS, b"", None, False)]
        walk = verify(snapshot)
        assert walk.is_sound, walk.differences
    finally:
        snapshot.close()
    return {document["_id"]: document for document in found}


def fill(world: World) -> list[str]:
    world.schema(table_schema("t", {"by_n": ["n"]}, NUMBER), table_schema("u", {}), validation=True)
    world.insert_all("u", [{"text": 'é"\\\n\u2028', "big": Int64(1)} for _ in range(3)])
    return world.insert_all("t", [{"n": n} for n in range(300)])


def test_a_full_backup_makes_the_same_deployment_again(world: World, tmp_path: Path) -> None:
    fill(world)
    again = restore(tmp_path / "again", take(world))
    assert documents(again) == documents(world) and len(documents(again)) == 303
    assert {name: table.number for name, table in again.database.catalog.tables.items()} == {
        name: table.number for name, table in world.database.catalog.tables.items()
    }
    assert "by_n" in again.database.catalog.tables["t"].indexes
    assert again.database.catalog.schema == world.database.catalog.schema
    again.run(lambda t: t.insert("t", {"n": 5}))
    assert len(documents(again)) == 304
    again.engine.close()


def test_an_empty_deployment(world: World, tmp_path: Path) -> None:
    again = restore(tmp_path / "again", take(world))
    assert documents(again) == {}
    again.engine.close()


def test_increments_are_put_on_top(world: World, tmp_path: Path) -> None:
    ids = fill(world)
    files = [take(world)]
    states = [documents(world)]
    world.run(lambda t: [t.patch(one, {"n": -1}) for one in ids[:10]], lambda t: t.delete(ids[20]))
    world.run(lambda t: t.patch(ids[0], {"n": -2}), lambda t: t.delete(ids[1]))
    files.append(increment(world, *files))
    states.append(documents(world))
    world.schema(table_schema("t", {"by_n": ["n"]}), table_schema("v", {"by_x": ["x"]}))
    world.insert_all("v", [{"x": n} for n in range(5)])
    files.append(increment(world, *files))
    states.append(documents(world))
    files.append(increment(world, *files))
    states.append(documents(world))
    for count in range(1, 5):
        again = restore(tmp_path / f"again{count}", *files[:count])
        assert documents(again) == states[count - 1]
        again.engine.close()
    kinds = [kind for kind, _ in read(files[1])[0]]
    assert (kinds.count(b"D"), kinds.count(b"X")) == (9, 2), "what was written twice stands there once"
    assert len(files[3]) < 1_000 and [kind for kind, _ in read(files[3])[0]] == [b"H"]
    assert "begin with the full backup" in refusal(tmp_path / "a", files[1])
    assert "give them in their order" in refusal(tmp_path / "b", files[0], files[2])
    assert "give them in their order" in refusal(tmp_path / "c", files[0], files[1], files[1])
    assert "give them in their order" in refusal(tmp_path / "d", files[0], files[0])


def test_an_increment_needs_history_back_to_its_base(world: World) -> None:
    fill(world)
    first = take(world)
    world.insert_all("t", [{"n": 1}])
    base = load_head(read(first)[0][0][1]).ts
    increment(world, first)
    world.insert_all("t", [{"n": 2}])
    while retain(world.database, base, 100):
        world.engine.commit([]).result(20)
    increment(world, first)
    while retain(world.database, world.database.durable_ts, 100):
        world.engine.commit([]).result(20)
    for since in (base, base + 1, 2**63):
        with pytest.raises(ClientError, check=lambda e: e.code == "BackupBaseUnknown"):
            take(world, since, "x")


def test_a_restored_deployment_can_be_backed_up(world: World, tmp_path: Path) -> None:
    ids = fill(world)
    again = restore(tmp_path / "again", take(world))
    full = take(again)
    again.run(lambda t: t.delete(ids[3]))
    third = restore(tmp_path / "third", full, increment(again, full))
    assert documents(third) == documents(again) and ids[3] not in documents(third)
    again.engine.close()
    third.engine.close()


def test_search_and_vector_indexes_are_built_again(world: World, tmp_path: Path) -> None:
    declared = search_schema("docs")
    world.schema({**declared, "vectorIndexes": vector_schema(2, "channel")["vectorIndexes"]})
    texts = ["red boat", "blue boat", "red sky"]
    ids = world.insert_all("docs", [{"body": text, "channel": "a", "v": [1.0, n]} for n, text in enumerate(texts)])
    files = [take(world)]
    world.run(lambda t: t.patch(ids[0], {"body": "green boat", "v": [0.0, -1.0]}))
    files.append(increment(world, *files))
    query = search_query("boat", {"channel": "a"})
    query["source"]["indexName"] = "docs.find"
    again = restore(tmp_path / "again", *files)
    answers = [one.read(lambda t: orjson.loads(t.collect_query(query))) for one in (world, again)]
    assert answers[0] == answers[1] and {found["body"] for found in answers[1]} == {"blue boat", "green boat"}
    nearest = [VectorWorld(one).search([0.0, -1.0], limit=1) for one in (world, again)]
    assert nearest[0] == nearest[1] and nearest[1][0]["_id"] == ids[0]
    again.engine.close()


# -- hostile files -----------------------------------------------------------------------------------------------------


def head(**changes: Any) -> dict[str, Any]:
    fields = {
        "deployment": "d", "ts": 5, "since": None, "previous": None, "created_ms": 1, "documents": 1,
        "tables": [["t", 10_001]], "schema": None, "settings": {}, "versions": [], "contents": [],
        "format": "skerry backup", "version": 1,
    }  # fmt: skip
    return {**fields, **changes}


def packed(*lines: tuple[bytes, bytes]) -> bytes:
    writer = Writer()
    for kind, text in lines:
        writer.line(kind, text)
    return writer.end()


def made(*lines: tuple[bytes, bytes], **changes: Any) -> bytes:
    return packed((b"H", orjson.dumps(head(**changes))), *lines)


def document(world: World) -> dict[str, Any]:
    (one,) = world.insert_all("t", [{"n": 1}])
    return documents(world)[one]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"format": "other"}, "this is no backup"),
        ({"version": 2}, "version 2"),
        ({"contents": ["documents", "environment"]}, "it holds environment, which this server does not know"),
        ({"contents": [1]}, "another kind"),
        ({"ts": -1}, "another kind"),
        ({"ts": 2**64}, "no JSON"),
        ({"tables": [["t"]]}, "another kind"),
        ({"tables": [["t", 10_001], ["t", 10_002]]}, "twice"),
        ({"tables": [["t", 10_001], ["u", 10_001]]}, "twice"),
        ({"tables": [["_storage", 10_001]]}, "no table can have"),
        ({"tables": [["t", 512]]}, "no table can have"),
        ({"tables": [["t", 0]]}, "no table can have"),
        ({"tables": [["t", limits.RESTORE_TABLE_NUMBER_MAX + 1]]}, "no table can have"),
        ({"tables": [["../t", 10_001]]}, "is invalid"),
        ({"settings": {"other": 1}}, "other"),
        ({"settings": {"historyRetentionSeconds": 1}}, "whole number"),
        ({"schema": {"tables": 1}}, "schema"),
        ({"versions": [["0" * 64, 1, 1, 1]]}, "live version is missing"),
        ({"versions": [["../../etc", 1, 1, 1]]}, "live version is missing"),
        ({"versions": [["0" * 64, 1, 1, 1]] * (limits.BUNDLES_KEPT_MAX + 1)}, "more tables or versions"),
        ({"since": 1}, "another kind"),
        ({"since": 1, "previous": "x"}, "begin with the full"),
    ],
)
def test_heads_that_are_refused(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    fields = head(**changes)
    raw = orjson.dumps(fields) if fields["ts"] < 2**64 else orjson.dumps(head()).replace(b'"ts":5', b'"ts":1e999')
    assert says in refusal(tmp_path / "d", packed((b"H", raw)))


def test_a_version_is_no_path(tmp_path: Path) -> None:
    (tmp_path / "code").write_bytes(b"of somebody else")
    assert "live version is missing" in refusal(tmp_path / "again", made(versions=[["../../code", 1, 1, 1]]))


def test_documents_that_are_refused(world: World, tmp_path: Path) -> None:
    good = document(world)
    assert len(documents(restore(tmp_path / "good", made((b"D", orjson.dumps(good)))))) == 1

    def says(number: int, *lines: tuple[bytes, bytes], **more: Any) -> str:
        return refusal(tmp_path / str(number), made(*lines), **more)

    def changed(**changes: Any) -> tuple[bytes, bytes]:
        return b"D", orjson.dumps({**good, **changes})

    plain = (b"D", orjson.dumps(good))
    assert "there twice" in says(1, plain, plain)
    assert "none of the tables" in says(2, changed(_id="x"))
    assert "none of the tables" in says(3, changed(_id=7))
    assert "no number" in says(4, changed(_creationTime="x"))
    assert "file 1, line 2" in says(5, changed(**{"$bad": 1}))
    assert "file 1, line 2" in says(6, (b"D", b"[1]"))
    assert "file 1, line 3" in says(7, plain, (b"D", b"{"))
    assert "file 1, line 2" in says(8, changed(deep=orjson.loads("[" * 40 + "]" * 40)))
    assert "file 1, line 2" in says(9, changed(text="x" * limits.DOCUMENT_BYTES_MAX))
    assert "storage quota" in says(10, plain, bytes_max=20)
    assert "of the kind b'Q'" in says(11, (b"Q", b""))
    assert "belongs to no version" in says(12, (b"C", b"AAAA"))
    assert "does not name" in says(13, (b"V", b'{"digest":"../../x"}'))


def test_a_schema_that_the_documents_do_not_fit(world: World, tmp_path: Path) -> None:
    good = document(world)
    schema = {"tables": [table_schema("t", {}, {"type": "object", "value": {}})], "schemaValidation": True}
    assert "SchemaEnforcementError" in refusal(tmp_path / "d", made((b"D", orjson.dumps(good)), schema=schema))


def test_code_is_what_its_digest_says(tmp_path: Path) -> None:
    digest = sha256(b"x").hexdigest()
    lines = [(b"V", orjson.dumps({"digest": digest})), (b"C", b"eHh4")]
    message = refusal(tmp_path / "d", made(*lines, versions=[[digest, 1, 1, 1]]))
    assert message.startswith("The backup cannot be restored:")
    assert "no base64" in refusal(tmp_path / "e", made(lines[0], (b"C", b"*"), versions=[[digest, 1, 1, 1]]))


def test_a_file_counts_only_whole(world: World, tmp_path: Path) -> None:
    fill(world)
    whole = take(world)
    for number, damaged in enumerate(
        [
            b"",
            whole[:-1],
            whole[: len(whole) // 2],
            whole[:10],
            whole + b"more",
            whole[:-12] + bytes([whole[-12] ^ 1]) + whole[-11:],
            zlib.compress(b"H {}\n", wbits=31),
            zlib.compress(b"nothing", wbits=31),
            zlib.compress(b"H " + dump_head(load_head(read(whole)[0][0][1])) + b"\nE {}\n", wbits=31),
        ]
    ):
        refusal(tmp_path / str(number), damaged)


@pytest.mark.parametrize("past", [0, 1])
def test_a_line_at_its_bound_and_one_past_it(past: int) -> None:
    text = b"x" * (limits.BACKUP_LINE_BYTES_MAX - 2 + past)
    raw = packed((b"H", b"{}"), (b"D", text))
    if past:
        with pytest.raises(ClientError, match="too long"):
            read(raw)
    else:
        assert read(raw)[0][1] == (b"D", text)


def test_a_bomb_is_unpacked_no_further_than_a_line() -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    pieces = [packer.compress(b"\0" * 10**6) for _ in range(200)]
    raw = b"".join(pieces) + packer.flush()
    given = io.BytesIO(raw)
    with pytest.raises(SkerryError, match="too long"):
        list(Lines(given.read))
    assert len(raw) < limits.MIB
