"""Schemas: rules, validators on writes and on what is there already, indexes that come and go."""

from typing import Any

import pytest

from skerry import limits
from skerry.database import backfill, background_steps, schema_rules
from skerry.database.catalog_store import unfinished_indexes
from skerry.errors import DeveloperError
from skerry.storage import Tree
from tests.database.world import World, documents, range_query, scan_query, schema_json, table_schema

NAMED = {"type": "object", "value": {"name": {"fieldType": {"type": "string"}, "optional": False}}}


def fails(code: str, message: str | None = None):
    return pytest.raises(DeveloperError, check=lambda e: e.code == code and (message is None or message in e.message))


def names(world: World, query: Any) -> list[str]:
    return [d["name"] for d in documents(world.read(lambda t: t.collect_query(query)))]


def entries(world: World, tree: Tree = Tree.INDEXES) -> set[int]:
    """The index numbers that have entries."""
    snapshot = world.engine.snapshot()
    numbers = {int.from_bytes(key[:4], "big") for key, _ in snapshot.scan(tree, b"", None, False)}
    snapshot.close()
    return numbers


def test_indexes_are_built_over_existing_documents_and_dropped(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backfill, "BACKFILL_BATCH_ENTRIES", 4)
    world.insert_all("t", [{"name": name} for name in "cadbfe" * 3])
    world.schema(table_schema("t", {"by_name": ["name"]}))
    by_name = range_query("t.by_name", [])
    assert names(world, by_name) == sorted("cadbfe" * 3)
    table = world.database.catalog.tables["t"]
    first = table.indexes["by_name"].number
    world.run(lambda t: t.insert("t", {"name": "c"}))
    world.schema(table_schema("t", {"by_name": ["name"], "by_x": ["x"]}))
    assert world.database.catalog.tables["t"].indexes["by_name"].number == first, "an unchanged index is kept"
    world.schema(table_schema("t", {"by_name": ["x", "name"]}))
    changed = world.database.catalog.tables["t"].indexes["by_name"].number
    assert changed > first and names(world, by_name) == sorted("cadbfe" * 3 + "c")
    world.schema()
    with fails("IndexNotFoundError", "Index t.by_name not found."):
        names(world, by_name)
    assert entries(world) == {table.by_creation_time.number}
    snapshot = world.engine.snapshot()
    assert unfinished_indexes(snapshot) == []
    snapshot.close()


def test_tables_of_a_schema_exist_from_then_on(memory: World) -> None:
    memory.schema(table_schema("b", {}), table_schema("a", {"by_x": ["x"]}))
    assert [memory.database.catalog.tables[name].number for name in "ba"] == [10_001, 10_002]
    assert names(memory, range_query("a.by_x", [])) == []
    reopened = World(memory.engine)
    assert reopened.database.catalog.tables["a"].indexes["by_x"].fields == ("x",)
    assert reopened.database.catalog.next_index == memory.database.catalog.next_index


def test_writes_are_judged_when_the_schema_asks_for_it(world: World) -> None:
    world.schema(table_schema("t", {}, NAMED), validation=True)
    document_id = world.run(lambda t: t.insert("t", {"name": "a"}))
    t = world.begin()
    prefix = 'Failed to insert or update a document in table "t" because it does not match the schema: '
    for step in (
        lambda: t.insert("t", {"name": 1}),
        lambda: t.insert("t", {}),
        lambda: t.insert("t", {"name": "a", "more": 1}),
        lambda: t.patch(document_id, {"name": None}),
        lambda: t.replace(document_id, {"names": "a"}),
    ):
        with fails("SchemaEnforcementError", prefix):
            step()
    assert t.write_set == []
    t.patch(document_id, {"name": "b"})
    t.insert("free", {"anything": 1})
    t.abort()
    world.schema(table_schema("t", {}, NAMED), validation=False)
    world.run(lambda t: t.insert("t", {"name": 1}))


def test_documents_that_do_not_fit_stop_the_change(world: World) -> None:
    (document_id,) = world.insert_all("t", [{"name": 5}])
    before = world.database.catalog
    with fails(
        "SchemaEnforcementError", f'Document with ID "{document_id}" in table "t" does not match the schema: '
    ) as caught:
        world.schema(table_schema("t", {"by_name": ["name"]}, NAMED), table_schema("u", {}), validation=True)
    assert "Path: .name" in caught.value.message
    assert world.database.catalog is before and len(entries(world)) == 1
    world.run(lambda t: t.patch(document_id, {"name": "a"}))
    world.schema(table_schema("t", {"by_name": ["name"]}, NAMED), validation=True)
    assert names(world, range_query("t.by_name", [])) == ["a"]


def test_ids_in_validators_know_the_tables_of_the_same_schema(memory: World) -> None:
    (user,) = memory.insert_all("users", [{}])
    reference = {
        "type": "object",
        "value": {"user": {"fieldType": {"type": "id", "tableName": "users"}, "optional": False}},
    }
    memory.schema(table_schema("posts", {}, reference), validation=True)
    memory.run(lambda t: t.insert("posts", {"user": user}))
    with fails("SchemaEnforcementError"):
        memory.begin().insert("posts", {"user": "g02000820c20a1g7104gm2rc1m70zz7c"})


def test_entries_of_a_change_that_a_crash_cut_short_are_cleared(memory: World) -> None:
    memory.insert_all("t", [{"name": "a"}])
    memory.engine.commit([(Tree.META, b"unfinished/" + (900).to_bytes(4, "big"), b"")]).result()
    memory.engine.commit(
        [(tree, (900).to_bytes(4, "big") + b"%d" % n, b"") for n in range(9) for tree in (1, 3)]
    ).result()
    assert 900 in entries(memory)
    reopened = World(memory.engine)
    assert 900 in entries(memory), "opening does not wait for it"
    reopened.take(background_steps(reopened.database))
    assert 900 not in entries(memory) | entries(memory, Tree.INDEX_HISTORY)


def test_an_id_of_a_table_that_is_nowhere_is_refused_where_documents_are_judged(memory: World) -> None:
    def reference(table: str) -> dict[str, Any]:
        ids = {"type": "array", "value": {"type": "union", "value": [{"type": "id", "tableName": table}]}}
        record = {"type": "record", "keys": {"type": "string"}, "values": {"fieldType": ids, "optional": False}}
        return {"type": "object", "value": {"users": {"fieldType": record, "optional": True}}}

    with fails("UnknownTableInSchema", 'Table "posts" has `v.id("usrs")` at .users.values()[], and there is no table'):
        memory.schema(table_schema("posts", {}, reference("usrs")), table_schema("users", {}), validation=True)
    assert "posts" not in memory.database.catalog.tables
    memory.schema(table_schema("posts", {}, reference("usrs")), validation=False)
    for declared in ("users", "posts", "_storage"):
        memory.schema(table_schema("posts", {}, reference(declared)), table_schema("users", {}), validation=True)
    memory.insert_all("undeclared", [{}])
    memory.schema(table_schema("posts", {}, reference("undeclared")), validation=True)


def index(name: str, *fields: Any) -> dict[str, Any]:
    return {"indexDescriptor": name, "fields": list(fields)}


def search(name: str, field: Any, *filters: str) -> dict[str, Any]:
    return {"indexDescriptor": name, "searchField": field, "filterFields": list(filters)}


def vector(name: str, field: str, dimensions: Any = 8, *filters: str) -> dict[str, Any]:
    return {"indexDescriptor": name, "vectorField": field, "dimensions": dimensions, "filterFields": list(filters)}


RULES: list[tuple[str, dict[str, Any]]] = [
    ("InvalidTableName", {"tableName": "1a"}),
    ("TableNameReserved", {"tableName": "_a"}),
    ("InvalidSchema", {"tableName": None}),
    ("InvalidSchema", {"indexes": 5}),
    ("InvalidSchema", {"indexes": [5]}),
    ("InvalidSchema", {"indexes": [{"indexDescriptor": "a"}]}),
    ("InvalidSchema", {"indexes": [index("a", 5)]}),
    ("InvalidIndexName", {"indexes": [index("1a", "x")]}),
    ("IndexNameReserved", {"indexes": [index("by_id", "x")]}),
    ("IndexNameReserved", {"indexes": [index("_a", "x")]}),
    ("IndexNamesNotUnique", {"indexes": [index("a", "x"), index("a", "y")]}),
    ("IndexNamesNotUnique", {"indexes": [index("a", "x")], "searchIndexes": [search("a", "y")]}),
    ("EmptyIndex", {"indexes": [index("a")]}),
    ("FieldsNotUniqueWithinIndex", {"indexes": [index("a", "x", "x")]}),
    ("FieldsNotUniqueWithinIndex", {"searchIndexes": [search("a", "x", "y", "y")]}),
    ("IndexFieldsContainId", {"indexes": [index("a", "_id")]}),
    ("IndexFieldsContainCreationTime", {"indexes": [index("a", "x", "_creationTime")]}),
    ("IndexFieldNameReserved", {"indexes": [index("a", "_x")]}),
    ("InvalidIndexField", {"indexes": [index("a", "x..y")]}),
    ("IndexNotUnique", {"indexes": [index("a", "x"), index("b", "x")]}),
    ("SearchIndexFieldNotUnique", {"searchIndexes": [search("a", "x"), search("b", "x")]}),
    ("VectorIndexFieldNotUnique", {"vectorIndexes": [vector("a", "x"), vector("b", "x")]}),
    ("InvalidVectorDimensions", {"vectorIndexes": [vector("a", "x", limits.VECTOR_DIMENSIONS_MIN - 1)]}),
    ("InvalidVectorDimensions", {"vectorIndexes": [vector("a", "x", limits.VECTOR_DIMENSIONS_MAX + 1)]}),
    ("InvalidVectorDimensions", {"vectorIndexes": [vector("a", "x", None)]}),
    ("IndexTooManyFields", {"indexes": [index("a", *[f"f{n}" for n in range(limits.INDEX_FIELDS_MAX + 1)])]}),
    (
        "IndexTooManyFilterFields",
        {"searchIndexes": [search("a", "x", *[f"f{n}" for n in range(limits.INDEX_FILTER_FIELDS_MAX + 1)])]},
    ),
    ("TooManyIndexes", {"indexes": [index(f"i{n}", f"f{n}") for n in range(limits.INDEXES_PER_TABLE_MAX + 1)]}),
    ("InvalidValidator", {"documentType": {"type": "foo"}}),
]


@pytest.mark.parametrize(("code", "change"), RULES)
def test_rules_of_a_schema(memory: World, code: str, change: dict[str, Any]) -> None:
    with fails(code):
        memory.schema({**table_schema("t", {}), **change})
    assert "t" not in memory.database.catalog.tables


def test_bounds_of_a_schema_are_reached(memory: World) -> None:
    table = table_schema("t", {f"i{n}": [f"f{n}"] for n in range(limits.INDEXES_PER_TABLE_MAX - 4)})
    table["indexes"].append(index("wide", *[f"f{n}" for n in range(limits.INDEX_FIELDS_MAX)]))
    table["searchIndexes"].append(search("s", "x", *[f"f{n}" for n in range(limits.INDEX_FILTER_FIELDS_MAX)]))
    table["vectorIndexes"].append(vector("least", "v", limits.VECTOR_DIMENSIONS_MIN))
    table["vectorIndexes"].append(vector("most", "w", limits.VECTOR_DIMENSIONS_MAX))
    memory.schema(table)
    assert (
        len(memory.database.catalog.tables["t"].indexes) == limits.INDEXES_PER_TABLE_MAX - 2
    )  # all but the vector indexes


@pytest.mark.parametrize(
    "raw", [b"[]", b"{}", b'{"tables":1}', b'{"tables":[1]}', b'{"tables":[],"schemaValidation":1}']
)
def test_malformed_schemas(memory: World, raw: bytes) -> None:
    with fails("InvalidSchema"):
        memory.database.apply_schema(raw)


def test_sizes_of_a_schema_at_the_bound_and_one_past_it(memory: World, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = [table_schema("a", {}), table_schema("b", {})]
    raw = schema_json(*tables)
    monkeypatch.setattr(schema_rules, "SCHEMA_JSON_BYTES_MAX", len(raw))
    monkeypatch.setattr(schema_rules, "TABLES_MAX", 2)
    memory.database.apply_schema(raw)
    with fails("ValueTooLargeError"):
        memory.database.apply_schema(raw + b" ")
    monkeypatch.setattr(schema_rules, "TABLES_MAX", 1)
    with fails("TooManyTables"):
        memory.database.apply_schema(raw)


def test_a_table_is_named_once(memory: World) -> None:
    with fails("InvalidSchema", "twice"):
        memory.schema(table_schema("a", {}), table_schema("a", {}))


def test_a_schema_waits_for_pending_commits(world: World) -> None:
    t = world.begin()
    t.insert("t", {"name": "a"})
    answers = world.commit(t)
    world.schema(table_schema("t", {"by_name": ["name"]}))
    assert len(answers) == 1 and names(world, range_query("t.by_name", [])) == ["a"]
    assert names(world, scan_query("t")) == ["a"]
