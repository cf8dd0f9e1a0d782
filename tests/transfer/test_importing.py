"""Imports: what each mode means, and that what is refused names its place and changes nothing."""

import os
from pathlib import Path
from zipfile import ZipFile

import orjson
import pytest

from skerry.errors import ClientError, DeveloperError, SkerryError
from skerry.limits import IMPORT_LARGE_TEXT_BYTES
from skerry.value import encode_document_id
from tests.database.world import lmdb_world
from tests.transfer.moving import Mover, contents, documents

USERS = {
    "tableName": "users",
    "indexes": [{"indexDescriptor": "by_name", "fields": ["name"]}],
    "documentType": {"type": "object", "value": {"name": {"fieldType": {"type": "string"}, "optional": False}}},
}
ID = encode_document_id(10_001, b"i" * 16)
OTHER = encode_document_id(10_777, b"i" * 16)


@pytest.fixture
def mover(tmp_path: Path) -> Mover:
    made = Mover(lmdb_world(tmp_path), tmp_path)
    made.world.schema(USERS, validation=True)
    return made


def names(mover: Mover) -> list[str]:
    return sorted(document["name"] for document in documents(mover.world, "users"))


def test_the_modes(mover: Mover) -> None:
    file = mover.file("users.jsonl", b'{"name":"a"}\n{"name":"b"}\n')
    assert mover.take(file, "requireEmpty", "jsonLines", "users") == 2
    assert mover.take(file, "append", "jsonLines", "users") == 2
    assert names(mover) == ["a", "a", "b", "b"]
    with pytest.raises(ClientError) as refused:
        mover.take(file, "requireEmpty", "jsonLines", "users")
    assert "Table users already exists" in refused.value.message
    mover.world.insert_all("notes", [{"text": "kept"}])
    assert mover.take(file, "replace", "jsonLines", "users") == 2
    assert names(mover) == ["a", "b"] and len(documents(mover.world, "notes")) == 1
    plan = mover.plan(file, "replaceAll", "jsonLines", "users")
    assert plan.emptied == ["notes"] and plan.is_destructive and "empty table notes" in plan.message
    mover.take(file, "replaceAll", "jsonLines", "users")
    assert names(mover) == ["a", "b"] and documents(mover.world, "notes") == []
    mover.world.insert_all("notes", [{"text": "later"}])
    mover.assert_sound()


def test_a_new_table_gets_the_number_of_its_ids_or_a_new_one(mover: Mover) -> None:
    mover.take(mover.file("a.jsonl", b'{"_id":"%s","x":1}' % OTHER.encode()), "requireEmpty", "jsonLines", "given")
    mover.take(mover.file("b.csv", b"x\n1\n"), "requireEmpty", "csv", "counted")
    tables = mover.world.database.catalog.tables
    assert tables["given"].number == 10_777 and tables["counted"].number == 10_778
    assert documents(mover.world, "given")[0]["_id"] == OTHER
    assert mover.world.read(lambda t: t.normalize_id("given", OTHER)) == OTHER
    assert mover.world.read(lambda t: t.get(OTHER, "given")) is not None


def test_an_empty_table_takes_over_the_number_of_the_ids(mover: Mover) -> None:
    mover.take(mover.file("a.jsonl", b'{"_id":"%s","name":"a"}' % OTHER.encode()), "replace", "jsonLines", "users")
    assert mover.world.database.catalog.tables["users"].number == 10_777
    assert documents(mover.world, "users")[0]["_id"] == OTHER
    mover.assert_sound()


REFUSED = [
    ("jsonLines", b'{"name":"a"}\n{"name":1}\n', 2),
    ("jsonLines", b'{"name":"a"}\n\n{"name":"b",}\n', 3),
    ("jsonLines", b'{"name":"a"}\n{"name":"\xff"}\n', 2),
    ("jsonLines", b'{"name":"a"}\n[]\n', 2),
    ("jsonLines", b'{"name":"a"}\n{"name":"b","$x":1}', 2),
    ("jsonLines", b'{"name":"a"}\n{"name":"b","_x":1}', 2),
    ("jsonLines", b'{"_id":"%s","name":"a"}\n{"_id":"%s","name":"b"}' % (ID.encode(), ID.encode()), 2),
    ("jsonLines", b'{"_id":"%s","name":"a"}\n{"_id":"%s","name":"b"}' % (ID.encode(), OTHER.encode()), 2),
    ("jsonLines", b'{"name":"a"}\n{"_id":"x","name":"b"}', 2),
    ("jsonLines", b'{"name":"a"}\n{"_creationTime":"x","name":"b"}', 2),
    ("jsonLines", b'{"name":"a"}\n{"name":"b","x":' + b"[" * 17 + b"]" * 17 + b"}", 2),
    ("jsonLines", b'{"name":"a"}\n{"name":"b","x":' + b"[" * 70 + b"]" * 70 + b"}", 2),
    ("jsonLines", b'{"name":"a"}\n{"name":"' + b"x" * 1_100_000 + b'"}', 2),
    ("jsonLines", b'{"name":"a"}\n{"name":{"$integer":"AQ=="}}', 2),
    ("jsonArray", b'[{"name":"a"},\n{"name":2}]', 2),
    ("jsonArray", b'[{"name":"a"}\n', 2),
    ("csv", b"name\na\n1\n", 3),
    ("csv", b"name\na,b\n", 2),
]


@pytest.mark.parametrize(("kind", "raw", "line"), REFUSED)
@pytest.mark.parametrize("mode", ["replace", "append"])
def test_a_refusal_names_its_line_and_changes_nothing(
    mover: Mover, kind: str, raw: bytes, line: int, mode: str
) -> None:
    mover.world.insert_all("users", [{"name": "old"}])
    before = contents(mover.export("before.zip"))
    file = mover.file("the file", raw)
    with pytest.raises(ClientError) as refused:
        mover.take(file, mode, kind, "users")
    assert refused.value.code == "ImportRefused"
    assert f"the file, line {line}: " in refused.value.message, refused.value.message
    assert contents(mover.export("after.zip")) == before
    mover.assert_sound()


def test_an_archive_names_its_entry(mover: Mover) -> None:
    with ZipFile(mover.folder / "s.zip", "w") as archive:
        archive.writestr("x/notes/documents.jsonl", '{"a":1}\n')
        archive.writestr("x/users/documents.jsonl", '{"name":"a"}\n{"name":2}\n')
    with pytest.raises(ClientError) as refused:
        mover.take(mover.folder / "s.zip", "requireEmpty", "zip")
    assert "x/users/documents.jsonl, line 2: " in refused.value.message
    assert documents(mover.world, "notes") == [] and "notes" not in mover.world.database.catalog.tables


def test_tables_that_swap_their_numbers(mover: Mover) -> None:
    mover.world.insert_all("notes", [{"text": "a"}])
    with ZipFile(mover.folder / "s.zip", "w") as archive:
        archive.writestr("_tables/documents.jsonl", '{"name":"notes","id":10001}\n{"name":"users","id":10002}\n')
        archive.writestr("notes/documents.jsonl", orjson.dumps({"_id": ID, "text": "b"}))
        archive.writestr("users/documents.jsonl", '{"name":"b"}')
    mover.take(mover.folder / "s.zip", "replace", "zip")
    assert documents(mover.world, "notes")[0]["_id"] == ID
    mover.assert_sound()
    one = mover.file("one.jsonl", orjson.dumps({"_id": ID, "name": "c"}))
    with pytest.raises(ClientError) as refused:
        mover.take(one, "replace", "jsonLines", "users")
    assert refused.value.code == "TableConflict"


def test_a_document_that_is_written_into_an_empty_table_meanwhile_is_kept(mover: Mover) -> None:
    file = mover.file("users.jsonl", b'{"name":"a"}\n')
    steps = iter(range(1_000))

    def write() -> None:
        if next(steps) == 0:
            mover.world.insert_all("users", [{"name": "mine"}])

    with pytest.raises(ClientError) as refused:
        mover.take(file, "requireEmpty", "jsonLines", "users", write)
    assert "already exists" in refused.value.message and names(mover) == ["mine"]


def test_large_documents_and_expensive_ones(mover: Mover) -> None:
    large = "x" * (2 * IMPORT_LARGE_TEXT_BYTES)
    lines = b"".join(orjson.dumps({"name": f"{n} {large}"}) + b"\n" for n in range(3))
    assert mover.take(mover.file("users.jsonl", lines), "replace", "jsonLines", "users") == 3
    assert [len(name) for name in names(mover)] == [2 + len(large)] * 3
    mover.assert_sound()


def test_many_documents_in_any_order_of_ids(mover: Mover) -> None:
    ids = [encode_document_id(10_001, os.urandom(16)) for _ in range(3_000)]
    lines = b"".join(orjson.dumps({"_id": i, "_creationTime": n, "name": f"{n}"}) + b"\n" for n, i in enumerate(ids))
    assert mover.take(mover.file("users.jsonl", lines), "replace", "jsonLines", "users") == 3_000
    assert [document["_id"] for document in documents(mover.world, "users")] == ids
    mover.assert_sound()
    twice = mover.file("twice.jsonl", lines + orjson.dumps({"_id": ids[5], "name": "again"}))
    with pytest.raises(ClientError) as refused:
        mover.take(twice, "replace", "jsonLines", "users")
    assert "line 3001" in refused.value.message and ids[5] in refused.value.message


def test_a_quota_ends_an_import(mover: Mover) -> None:
    mover.world.database.storage_looked_at(100, 200_000)
    file = mover.file("users.jsonl", b"".join(b'{"name":"%d"}\n' % n for n in range(20_000)))
    with pytest.raises(DeveloperError) as refused:
        mover.take(file, "replace", "jsonLines", "users")
    assert refused.value.code == "StorageQuotaReached" and names(mover) == []


@pytest.mark.parametrize(
    ("mode", "kind", "table"),
    [
        ("overwrite", "csv", "a"),
        (None, "csv", "a"),
        ("replace", "xml", "a"),
        ("replace", "zip", "a"),
        ("replace", "csv", None),
        ("replace", "csv", "_storage"),
        ("replace", "csv", "a b"),
        ("replace", "csv", 5),
    ],
)
def test_orders_that_are_none(mover: Mover, mode: str, kind: str, table: str) -> None:
    with pytest.raises(SkerryError) as refused:
        mover.take(mover.file("x", b""), mode, kind, table)
    assert refused.value.code == "ImportRefused"
