"""The rules a schema must keep before it is applied, and the validators it asks for.

Source: protocol reference 4.10 (the export's shape), 5.7 (rules and codes).
"""

from collections.abc import Iterator
from typing import Any, cast

from skerry.database.catalog import CREATION_TIME, Catalog, Validator
from skerry.errors import DeveloperError
from skerry.limits import (
    INDEX_FIELDS_MAX,
    INDEX_FILTER_FIELDS_MAX,
    INDEXES_PER_TABLE_MAX,
    SCHEMA_JSON_BYTES_MAX,
    TABLES_MAX,
    VALUE_JSON_NESTING_MAX,
    VECTOR_DIMENSIONS_MAX,
    VECTOR_DIMENSIONS_MIN,
)
from skerry.value import (
    RESERVED_INDEXES,
    check_index_name,
    check_table_name,
    compile_validator,
    is_identifier,
    parse_json,
)
from skerry.value.kinds import kind_of

_INDEX_LISTS = (
    "indexes",
    "stagedDbIndexes",
    "searchIndexes",
    "stagedSearchIndexes",
    "vectorIndexes",
    "stagedVectorIndexes",
)


def parse_schema(raw: bytes) -> dict[str, Any]:
    """The checked schema of a schema export.

    Raises: DeveloperError `InvalidSchema`, `InvalidValidator`, and the codes of section 5.7.
    """
    schema: Any = parse_json(raw, depth_max=VALUE_JSON_NESTING_MAX * 4, bytes_max=SCHEMA_JSON_BYTES_MAX)
    if kind_of(schema) is not dict or kind_of(schema.get("tables")) is not list:
        raise _malformed("a schema must be an object with a list of tables")
    checked: dict[str, Any] = schema
    if type(checked.setdefault("schemaValidation", True)) is not bool:
        raise _malformed("schemaValidation must be true or false")
    tables: list[Any] = checked["tables"]
    if len(tables) > TABLES_MAX:
        raise DeveloperError("TooManyTables", f"The schema has {len(tables)} tables, more than {TABLES_MAX}.")
    names: set[str] = set()
    for table in tables:
        name = _check_table(table)
        if name in names:
            raise _malformed(f"table {name} is there twice")
        names.add(name)
    return checked


def validators_of(schema: dict[str, Any] | None) -> dict[str, Validator]:
    """The validators to enforce, by table; none where the schema does not ask for validation."""
    if schema is None or not schema.get("schemaValidation", False):
        return {}
    return {
        table["tableName"]: compile_validator(table["documentType"])
        for table in schema["tables"]
        if table.get("documentType") is not None
    }


def check_table_references(schema: dict[str, Any], catalog: Catalog) -> None:
    """That every `v.id` of a schema that is enforced names a table that is declared or there.

    Raises: DeveloperError `UnknownTableInSchema`.
    """
    if not schema["schemaValidation"]:
        return
    known = {*catalog.tables, *[table["tableName"] for table in schema["tables"]]}
    for table in schema["tables"]:
        for path, named in _named_tables(table.get("documentType")):
            if named not in known:
                raise DeveloperError(
                    "UnknownTableInSchema",
                    f'Table "{table["tableName"]}" has `v.id("{named}")` at {path or "its top"}, and there is no table '
                    f'"{named}": declare it in the schema, or correct its name.',
                )


def _named_tables(validator: Any) -> Iterator[tuple[str, str]]:
    """The path and table of each `v.id` in a validator that was compiled before."""
    waiting: list[tuple[str, Any]] = [("", validator)]
    while waiting:
        path, part = waiting.pop()
        if part is None:
            continue
        spec: dict[str, Any] = part
        kind = spec["type"]
        if kind == "id":
            yield path, spec["tableName"]
        elif kind == "array":
            waiting.append((f"{path}[]", spec["value"]))
        elif kind == "union":
            waiting += [(path, member) for member in reversed(spec["value"])]
        elif kind == "record":
            waiting.append((f"{path}.values()", spec["values"]["fieldType"]))
            waiting.append((f"{path}.keys()", spec["keys"]))
        elif kind == "object":
            waiting += [(f"{path}.{name}", field["fieldType"]) for name, field in reversed(spec["value"].items())]


def _check_table(table: Any) -> str:
    if type(table) is not dict:
        raise _malformed("a table must be an object")
    fields = cast("dict[str, Any]", table)
    name = fields.get("tableName")
    if type(name) is not str:
        raise _malformed("a table must have a tableName")
    if name[:1] == "_":
        raise DeveloperError(
            "TableNameReserved", f"Table name {name[:64]!r} is reserved: it starts with an underscore."
        )
    check_table_name(name)
    if fields.get("documentType") is not None:
        compile_validator(fields["documentType"])
    names: set[str] = set()
    count = 0
    for kind in _INDEX_LISTS:
        entries = fields.get(kind, [])
        if type(entries) is not list:
            raise _malformed(f"{kind} of table {name} must be a list")
        for entry in cast("list[Any]", entries):
            count += 1
            _check_name(name, entry, names)
    if count > INDEXES_PER_TABLE_MAX:
        raise DeveloperError("TooManyIndexes", f"Table {name} has {count} indexes, more than {INDEXES_PER_TABLE_MAX}.")
    _check_database_indexes(name, [*fields.get("indexes", []), *fields.get("stagedDbIndexes", [])])
    _check_search_indexes(name, [*fields.get("searchIndexes", []), *fields.get("stagedSearchIndexes", [])])
    _check_vector_indexes(name, [*fields.get("vectorIndexes", []), *fields.get("stagedVectorIndexes", [])])
    return name


def _check_name(table: str, entry: Any, names: set[str]) -> None:
    name = cast("dict[str, Any]", entry).get("indexDescriptor") if type(entry) is dict else None
    if type(name) is not str:
        raise _malformed(f"an index of table {table} must be an object with an indexDescriptor")
    if name in RESERVED_INDEXES or name[:1] == "_":
        raise DeveloperError("IndexNameReserved", f"Index name {table}.{name[:64]} is reserved.")
    check_index_name(name)
    if name in names:
        raise DeveloperError("IndexNamesNotUnique", f"Table {table} has two indexes named {name}.")
    names.add(name)


def _check_database_indexes(table: str, entries: list[dict[str, Any]]) -> None:
    seen: dict[tuple[str, ...], str] = {}
    for entry in entries:
        name = f"{table}.{entry['indexDescriptor']}"
        fields = tuple(_paths(name, entry.get("fields")))
        if not fields:
            raise DeveloperError("EmptyIndex", f"Index {name} has no fields.")
        if len(fields) > INDEX_FIELDS_MAX:
            raise DeveloperError(
                "IndexTooManyFields", f"Index {name} has {len(fields)} fields, more than {INDEX_FIELDS_MAX}."
            )
        if len(set(fields)) < len(fields):
            raise DeveloperError("FieldsNotUniqueWithinIndex", f"Index {name} names a field twice.")
        if fields in seen:
            raise DeveloperError("IndexNotUnique", f"Indexes {name} and {seen[fields]} have the same fields.")
        seen[fields] = name


def _check_search_indexes(table: str, entries: list[dict[str, Any]]) -> None:
    seen: set[str] = set()
    for entry in entries:
        name = f"{table}.{entry['indexDescriptor']}"
        (field,) = _paths(name, [entry.get("searchField")])
        if field in seen:
            raise DeveloperError("SearchIndexFieldNotUnique", f"Table {table} has two search indexes on {field}.")
        seen.add(field)
        _check_filter_fields(name, entry)


def _check_vector_indexes(table: str, entries: list[dict[str, Any]]) -> None:
    seen: set[str] = set()
    for entry in entries:
        name = f"{table}.{entry['indexDescriptor']}"
        (field,) = _paths(name, [entry.get("vectorField")])
        if field in seen:
            raise DeveloperError("VectorIndexFieldNotUnique", f"Table {table} has two vector indexes on {field}.")
        seen.add(field)
        _check_filter_fields(name, entry)
        dimensions: Any = entry.get("dimensions")
        if kind_of(dimensions) not in (int, float) or not VECTOR_DIMENSIONS_MIN <= dimensions <= VECTOR_DIMENSIONS_MAX:
            raise DeveloperError(
                "InvalidVectorDimensions",
                f"Index {name} must have {VECTOR_DIMENSIONS_MIN} to {VECTOR_DIMENSIONS_MAX} dimensions.",
            )


def _check_filter_fields(name: str, entry: dict[str, Any]) -> None:
    fields = _paths(name, entry.get("filterFields", []))
    if len(fields) > INDEX_FILTER_FIELDS_MAX:
        raise DeveloperError(
            "IndexTooManyFilterFields",
            f"Index {name} has {len(fields)} filter fields, more than {INDEX_FILTER_FIELDS_MAX}.",
        )
    if len(set(fields)) < len(fields):
        raise DeveloperError("FieldsNotUniqueWithinIndex", f"Index {name} names a filter field twice.")


def _paths(name: str, fields: Any) -> list[str]:
    """The field paths of an index, each checked."""
    if type(fields) is not list:
        raise _malformed(f"the fields of index {name} must be a list")
    for field in cast("list[Any]", fields):
        if type(field) is not str:
            raise _malformed(f"a field of index {name} must be a text")
        if field == "_id":
            raise DeveloperError("IndexFieldsContainId", f"Index {name} names _id, which every index ends with.")
        if field == CREATION_TIME:
            raise DeveloperError(
                "IndexFieldsContainCreationTime", f"Index {name} names {CREATION_TIME}, which every index ends with."
            )
        if field[:1] == "_":
            raise DeveloperError("IndexFieldNameReserved", f"Index {name} names {field[:64]!r}, which is reserved.")
        if not all(is_identifier(part) for part in field.split(".")):
            raise DeveloperError(
                "InvalidIndexField", f"Index {name} names {field[:64]!r}, which is no path of identifiers."
            )
    return cast("list[str]", fields)


def _malformed(why: str) -> DeveloperError:
    return DeveloperError("InvalidSchema", f"The schema is malformed: {why}.")
