"""The kinds of indexes: which lists of a schema declare them, how one is made of its definition, and how a table with
its indexes is written down.

A *definition* is a tuple of a kind's name and what else makes two indexes of a table the same but for their names: two
with equal definitions have equal entries, so one can be taken over as the other. A kind that has entries in the index
tree is a row in `_MAKERS` and two rows in `_LISTS`; building, taking over, staging and dropping follow from that.
"""

from collections.abc import Callable
from typing import Any, Final, NamedTuple, cast

import orjson

from skerry.database.catalog import CREATION_TIME, Index, Table, Validator
from skerry.database.search_index import SearchIndex

Definition = tuple[Any, ...]


class Declared(NamedTuple):
    """An index as a schema declares it."""

    name: str
    definition: Definition
    is_staged: bool


def declared_indexes(table: dict[str, Any]) -> list[Declared]:
    """The indexes with entries that a table of a checked schema declares."""
    return [
        Declared(entry["indexDescriptor"], define(entry), is_staged)
        for name, define, is_staged in _LISTS
        for entry in table.get(name, ())
    ]


def make_index(number: int, name: str, definition: Definition, *, is_staged: bool = False, since_ts: int = 0) -> Index:
    """The index of a definition."""
    index = _MAKERS[definition[0]](number, name, definition)
    index.is_staged = is_staged
    index.since_ts = since_ts
    return index


def under_name(index: Index, name: str, is_staged: bool) -> Index:
    """The same index, entries and all, under a name of the schema's choice."""
    if index.name == name and index.is_staged is is_staged:
        return index
    return make_index(index.number, name, index.definition, is_staged=is_staged, since_ts=index.since_ts)


def moved_table(table: Table, number: int, space: int, next_number: Callable[[], int]) -> Table:
    """This table for other contents: another space, new numbers for its indexes, ids with `number` in them."""
    by_id, by_creation_time = next_number(), next_number()
    indexes = {
        name: make_index(next_number(), name, index.definition, is_staged=index.is_staged)
        for name, index in table.indexes.items()
    }
    hidden = tuple(
        [make_index(next_number(), index.name, index.definition, is_staged=index.is_staged) for index in table.hidden]
    )
    return Table(number, table.name, by_id, by_creation_time, indexes, table.validator, space, hidden)


def dump_table(table: Table) -> bytes:
    """The stored form of a table; its validator lives in the schema."""
    return orjson.dumps(
        {
            "name": table.name,
            "number": table.number,
            "space": table.space,
            "since": table.since_ts,
            "by_id": table.by_id.number,
            "by_creation_time": table.by_creation_time.number,
            "indexes": [_dumped(index) for index in table.indexes.values()],
            "hidden": [_dumped(index) for index in table.hidden],
        }
    )


def load_table(raw: bytes, validators: dict[str, Validator]) -> Table:
    """The table of a stored form."""
    stored = orjson.loads(raw)
    indexes = {entry["name"]: _loaded(entry) for entry in stored["indexes"]}
    name = stored["name"]
    return Table(
        stored["number"],
        name,
        stored["by_id"],
        stored["by_creation_time"],
        indexes,
        validators.get(name),
        stored.get("space"),
        tuple([_loaded(entry) for entry in stored.get("hidden", ())]),
        stored.get("since", 0),
    )


def _dumped(index: Index) -> dict[str, Any]:
    return {
        "name": index.name,
        "number": index.number,
        "definition": index.definition,
        "staged": index.is_staged,
        "since": index.since_ts,
    }


def _loaded(entry: dict[str, Any]) -> Index:
    definition = entry.get("definition")
    return make_index(
        entry["number"],
        entry["name"],
        ("database", tuple(entry["fields"]))
        if definition is None
        else _tuple(definition),  # of before there were kinds
        is_staged=entry.get("staged", False),
        since_ts=entry.get("since", 0),
    )


def _tuple(value: Any) -> Any:
    return tuple([_tuple(part) for part in cast("list[Any]", value)]) if type(value) is list else value


def _database_definition(entry: dict[str, Any]) -> Definition:
    return ("database", tuple(entry["fields"]))


def _database_index(number: int, name: str, definition: Definition) -> Index:
    fields: tuple[str, ...] = definition[1]
    return Index(number, name, fields, (*fields, CREATION_TIME))


def _search_definition(entry: dict[str, Any]) -> Definition:
    return ("search", entry["searchField"], tuple(entry.get("filterFields", ())))


def _search_index(number: int, name: str, definition: Definition) -> Index:
    return SearchIndex(number, name, definition[1], definition[2])


_MAKERS: Final[dict[str, Callable[[int, str, Definition], Index]]] = {
    "database": _database_index,
    "search": _search_index,
}
_LISTS: Final[tuple[tuple[str, Callable[[dict[str, Any]], Definition], bool], ...]] = (
    ("indexes", _database_definition, False),
    ("stagedDbIndexes", _database_definition, True),
    ("searchIndexes", _search_definition, False),
    ("stagedSearchIndexes", _search_definition, True),
)
