"""What a search asks for, and the declared index that it asks.

A request is hostile input; it is checked in two steps, because an action's thread has no catalog: its shape first
(`parse_question`), then against the index (`Question.of`).

Source: protocol reference 9.2.
"""

from hashlib import blake2b
from math import isfinite
from typing import Any, Final, NamedTuple, cast

from skerry.database.catalog import Catalog, Table
from skerry.errors import DeveloperError
from skerry.limits import (
    FILTER_NESTING_MAX,
    VECTOR_DIMENSIONS_MAX,
    VECTOR_FILTER_VALUES_MAX,
    VECTOR_RESULTS_DEFAULT,
    VECTOR_RESULTS_MAX,
)
from skerry.value import UndefinedAt, decode, key_of
from skerry.value.kinds import kind_of

_HASH_BYTES: Final = 8


class Definition(NamedTuple):
    """A declared vector index. Shape: `space` is the number that the documents lie under, `table_number` the one
    that their ids carry; paths are split at their dots. Equal definitions share a copy, whatever their names.
    """

    space: int
    table_number: int
    path: tuple[str, ...]
    dimensions: int
    filters: tuple[tuple[str, ...], ...]


class Asked(NamedTuple):
    """A question to one index. Shape: `wanted` are pairs of a filter field's place and the hash of a value, any of
    which may hold; None where there is no filter.
    """

    vector: list[float]
    limit: int
    wanted: tuple[tuple[int, int], ...] | None


class Question(NamedTuple):
    """A request whose shape is right. Shape: `filters` are (field, key of the value), None without a filter."""

    index_name: str
    vector: list[float]
    limit: int
    filters: list[tuple[str, bytes]] | None

    def of(self, definition: Definition, secret: bytes) -> Asked:
        """The question to a declared index. Raises: DeveloperError `VectorDimensionsMismatch`,
        `IncorrectVectorFilterField`.
        """
        if len(self.vector) != definition.dimensions:
            raise DeveloperError(
                "VectorDimensionsMismatch",
                f"Expected a vector with dimensions {definition.dimensions}, received {len(self.vector)}.",
            )
        if self.filters is None:
            return Asked(self.vector, self.limit, None)
        places = {".".join(path): place for place, path in enumerate(definition.filters)}
        wanted: set[tuple[int, int]] = set()
        for field, key in self.filters:
            place = places.get(field)
            if place is None:
                raise DeveloperError(
                    "IncorrectVectorFilterField",
                    f"Vector query against {self.index_name} contains an equality filter on {field[:64]!r}, but that "
                    "field isn't indexed for filtering in `filterFields`.",
                )
            wanted.add((place, hash_of(key, secret)))
        return Asked(self.vector, self.limit, tuple(sorted(wanted)))


def hash_of(key: bytes, secret: bytes) -> int:
    """What stands for a filter field's value beside a vector; the secret keeps anybody from making two that agree."""
    return int.from_bytes(blake2b(key, digest_size=_HASH_BYTES, key=secret).digest(), "little")


def parse_question(query: Any) -> Question:
    """The question in a decoded `query` argument.

    Raises: DeveloperError `InvalidArgument`, `VectorLimitTooLargeError`, `InvalidVectorSearchFilter`,
    `TooManyElementsInVectorQueryError`.
    """
    if kind_of(query) is not dict:
        raise _invalid("query", "it must be an object")
    index: Any = query.get("indexName")
    if type(index) is not str:
        raise _invalid("indexName", "it must be a string")
    expressions = query.get("expressions")
    return Question(
        index,
        _vector(query.get("vector")),
        _limit(query.get("limit")),
        None if expressions is None else _filters(expressions),
    )


def find_definition(catalog: Catalog, name: str) -> Definition:
    """The vector index of a full name.

    Raises: DeveloperError `IndexNotFoundError`, `IndexStagedError`, `IndexNotAVectorIndexError`.
    """
    table_name, _, index_name = name.partition(".")
    table = catalog.tables.get(table_name)
    declared = _declared(catalog, table_name) if table is not None else {}
    for entry in declared.get("vectorIndexes", ()):
        if entry["indexDescriptor"] == index_name and table is not None:
            return _definition(table, entry)
    if any(entry["indexDescriptor"] == index_name for entry in declared.get("stagedVectorIndexes", ())):
        raise DeveloperError(
            "IndexStagedError", f"Index {name} is currently staged and not available to query until it is enabled."
        )
    if (table is not None and table.index(index_name) is not None) or name in catalog.search_indexes:
        raise DeveloperError(
            "IndexNotAVectorIndexError", f"Index {name} is not a vector index and cannot be used in `vectorSearch`."
        )
    raise DeveloperError("IndexNotFoundError", f"Index {name[:128]} not found.")


def definitions_of(catalog: Catalog) -> set[Definition]:
    """All that a catalog's schema declares and does not stage."""
    return {
        _definition(catalog.tables[table["tableName"]], entry)
        for table in _tables(catalog)
        for entry in table.get("vectorIndexes", ())
    }


def _tables(catalog: Catalog) -> list[dict[str, Any]]:
    return [] if catalog.schema is None else catalog.schema["tables"]


def _declared(catalog: Catalog, name: str) -> dict[str, Any]:
    for table in _tables(catalog):
        if table["tableName"] == name:
            return table
    return {}


def _definition(table: Table, entry: dict[str, Any]) -> Definition:
    filters = tuple([tuple(field.split(".")) for field in entry.get("filterFields", ())])
    return Definition(
        table.space, table.number, tuple(entry["vectorField"].split(".")), int(entry["dimensions"]), filters
    )


def _vector(given: Any) -> list[float]:
    if type(given) is not list:
        raise _invalid("vector", "it must be an array of numbers")
    numbers = cast("list[Any]", given)
    if len(numbers) > VECTOR_DIMENSIONS_MAX:
        raise DeveloperError(
            "VectorDimensionsMismatch",
            f"A vector has at most {VECTOR_DIMENSIONS_MAX} dimensions; this one has {len(numbers)}.",
        )
    vector = finite_numbers(numbers)
    if vector is None:
        raise _invalid("vector", "each of its elements must be a finite number")
    return vector


def finite_numbers(values: list[Any]) -> list[float] | None:
    """The values as floats, None where one of them is no finite float64."""
    kinds = set(map(type, values))
    if not kinds <= {float, int}:
        return None
    floats = values if kinds == {float} else [float(value) for value in values]
    return floats if all(map(isfinite, floats)) else None


def _limit(given: Any) -> int:
    if given is None:
        return VECTOR_RESULTS_DEFAULT
    if type(given) is float and given.is_integer():
        given = int(given)
    if type(given) is not int or given < 1:
        raise _invalid("limit", f"it must be a whole number from 1 to {VECTOR_RESULTS_MAX}")
    if given > VECTOR_RESULTS_MAX:
        raise DeveloperError(
            "VectorLimitTooLargeError",
            f"Vector queries can fetch at most {VECTOR_RESULTS_MAX} results, requested {given}.",
        )
    return given


def _filters(expression: Any) -> list[tuple[str, bytes]]:
    """The equalities of an expression, any of which may hold."""
    found: list[tuple[str, bytes]] = []
    open_parts: list[tuple[Any, int]] = [(expression, FILTER_NESTING_MAX)]
    while open_parts:
        part, room = open_parts.pop()
        fields: dict[str, Any] = part if kind_of(part) is dict else {}
        operand: Any = fields.get("$or")
        if len(fields) == 1 and type(operand) is list and room:
            open_parts += [(inner, room - 1) for inner in cast("list[Any]", operand)]
            continue
        found.append(_equality(fields))
        if len(found) > VECTOR_FILTER_VALUES_MAX:
            raise DeveloperError(
                "TooManyElementsInVectorQueryError",
                f"A vector query can filter by at most {VECTOR_FILTER_VALUES_MAX} values; this one has more.",
            )
    return found


def _equality(fields: dict[str, Any]) -> tuple[str, bytes]:
    operands: Any = fields.get("$eq")
    if len(fields) == 1 and type(operands) is list and len(cast("list[Any]", operands)) == 2:
        left, right = cast("list[Any]", operands)
        if kind_of(left) is dict and kind_of(right) is dict and set(left) == {"$field"} and set(right) == {"$literal"}:
            field: Any = left["$field"]
            if type(field) is str:
                return field, key_of(decode(right["$literal"], undefined=UndefinedAt.ROOT))
    raise DeveloperError(
        "InvalidVectorSearchFilter",
        "A vector query's filter is q.eq(field, value), or q.or of such, nested at most "
        f"{FILTER_NESTING_MAX} levels deep.",
    )


def _invalid(name: str, why: str) -> DeveloperError:
    return DeveloperError("InvalidArgument", f"Invalid argument `{name}` for `vectorSearch`: {why}.")
