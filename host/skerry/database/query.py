"""Queries compiled to plans: the source resolved to a key range of one index, and the operators behind it.

A plan belongs to one catalog and holds no state of a call, so it can be kept: `plan_cache` does.

Range rule: equality on leading fields of the index in index order, then at most one lower and one upper bound on
the next field.

Source: protocol reference 4.4.
"""

from hashlib import blake2b
from typing import Any, Final, cast

import orjson

from skerry.database.catalog import CREATION_TIME, Catalog, Index, Table
from skerry.database.filters import Filter
from skerry.database.search_index import SearchIndex
from skerry.database.search_query import Search, compile_search
from skerry.errors import DeveloperError
from skerry.limits import (
    QUERY_FINGERPRINT_BYTES,
    QUERY_JSON_BYTES_MAX,
    QUERY_JSON_NESTING_MAX,
    QUERY_OPERATORS_MAX,
    SCAN_CHUNK_KEYS_FIRST,
)
from skerry.value import (
    UNDEFINED,
    UndefinedAt,
    after_prefix,
    decode,
    encode_document_id,
    key_of,
    parse_json,
    try_decode_document_id,
)
from skerry.value.kinds import kind_of

_INTERNAL_ID_BITS: Final = 128
_BEHIND_EVERY_ID: Final = b"\xff" * 17

_NEED_DECODING: Final = frozenset({dict, list, int})

Operator = tuple[Filter | None, int]
"""A filter and 0, or None and a limit."""


class Plan:
    """A compiled query: which range of which index, in which direction, and what happens to the documents.

    `few` is how many documents it gives at most, where it does nothing but read that many keys of a declared index
    or by creation time, else 0. `table` is None where the table does not exist: the result is empty, and what was read
    is the catalog's point for the name.
    """

    __slots__ = (
        "_fingerprint",
        "_moved_to",
        "catalog",
        "few",
        "first_limit",
        "index",
        "limits",
        "lower",
        "operators",
        "query",
        "reverse",
        "search",
        "table",
        "table_name",
        "upper",
    )

    def __init__(
        self,
        catalog: Catalog,
        query: dict[str, Any],
        table_name: str,
        table: Table | None,
        index: Index | None,
        bounds: tuple[bytes, bytes | None],
        reverse: bool,
        operators: tuple[Operator, ...],
        search: Search | None = None,
    ) -> None:
        self.query = query
        self.search = search
        self._fingerprint: bytes | None = None
        self._moved_to: tuple[Any] | None = None
        self.catalog = catalog
        self.table_name = table_name
        self.table = table
        self.index = index
        self.lower, self.upper = bounds
        self.reverse = reverse
        self.operators = operators
        self.limits = tuple([limit for filter_, limit in operators if filter_ is None])
        self.first_limit = operators[0][1] if operators and operators[0][0] is None else 0
        is_short = len(operators) == 1 and 0 < self.first_limit <= SCAN_CHUNK_KEYS_FIRST
        is_plain_index = table is not None and index is not None and index is not table.by_id and search is None
        self.few = self.first_limit if is_short and is_plain_index else 0

    def rebound(self, value: Any) -> "Plan":
        """The plan of a query that differs only in the value of its single equality, a scalar other than a large
        integer.

        Limits: not for the index `by_id`.
        """
        plan = Plan.__new__(Plan)
        index = self.index
        prefix = key_of(value)
        plan.lower = prefix
        plan.upper = _end(prefix, index is None or len(index.range_fields) == 1)
        plan.query = self.query
        plan._fingerprint = None
        plan._moved_to = (value,)
        plan.catalog = self.catalog
        plan.table_name = self.table_name
        plan.table = self.table
        plan.index = index
        plan.reverse = self.reverse
        plan.operators = self.operators
        plan.limits = self.limits
        plan.first_limit = self.first_limit
        plan.few = self.few
        plan.search = None
        return plan

    def fingerprint(self) -> bytes:
        """What binds a cursor to its query: equal for equal query JSON on an index that is defined equally."""
        if self._fingerprint is None:
            query = self.query
            if self._moved_to is not None:
                source = query["source"]
                moved = {**source["range"][0], "value": self._moved_to[0]}
                query = {**query, "source": {**source, "range": [moved]}}
            table, index = self.table, self.index
            is_declared = table is not None and index is not None and table.indexes.get(index.name) is index
            definition = index.definition if is_declared and index is not None else None
            text = orjson.dumps([query, definition], option=orjson.OPT_SORT_KEYS)
            self._fingerprint = blake2b(text, digest_size=QUERY_FINGERPRINT_BYTES).digest()
        return self._fingerprint


def compile_query(query: Any, catalog: Catalog) -> Plan:
    """The plan of a parsed query in encoded form.

    Raises: DeveloperError `InvalidQuery`, `IndexNotFoundError`, `InvalidIndexRange`, `FieldNotInIndex`,
    `AlreadyDefinedBound`, `BoundsOnMultipleFields`, `InvalidFilter`.
    """
    if type(query) is not dict:
        raise _invalid("A query must be an object.")
    fields = cast("dict[str, Any]", query)
    source = fields.get("source")
    if type(source) is not dict:
        raise _invalid("A query must have a source.")
    source = cast("dict[str, Any]", source)
    operators = _operators(fields.get("operators", []))
    kind = source.get("type")
    if kind == "FullTableScan":
        name = _text(source, "tableName")
        table = catalog.tables.get(name)
        index = None if table is None else table.by_creation_time
        return Plan(catalog, fields, name, table, index, (b"", None), _is_reverse(source), operators)
    if kind == "IndexRange":
        return _index_range(catalog, fields, source, operators)
    if kind == "Search":
        return _search(catalog, fields, source, operators)
    raise _invalid("The source of a query must be FullTableScan, IndexRange or Search.")


def parse_query_argument(argument: bytes) -> Any:
    """The query inside the JSON argument of a query operation."""
    parsed = parse_json(argument, depth_max=QUERY_JSON_NESTING_MAX, bytes_max=QUERY_JSON_BYTES_MAX)
    if type(parsed) is not dict or "query" not in parsed:
        raise _invalid("The argument of a query operation must hold a query.")
    return cast("dict[str, Any]", parsed)["query"]


def equality_value(query: Any) -> Any:
    """The one value of a query whose range is a single equality, `UNDEFINED` for every other query."""
    source: Any = query["source"]
    if source["type"] != "IndexRange":
        return UNDEFINED
    expressions = source.get("range", ())
    if len(expressions) != 1 or expressions[0]["type"] != "Eq":
        return UNDEFINED
    return expressions[0].get("value", UNDEFINED)


def _index_range(
    catalog: Catalog, query: dict[str, Any], source: dict[str, Any], operators: tuple[Operator, ...]
) -> Plan:
    full_name, table_name, index_name = _index_name(source)
    table = catalog.tables.get(table_name)
    index = None if table is None else table.index(index_name)
    if index is None and (table is not None or index_name not in _BUILT_IN):
        if full_name in catalog.search_indexes:
            raise _not_a_database_index(full_name)
        raise _no_such_index(full_name, table, index_name)
    if index is not None and index.kind != "database":
        raise _not_a_database_index(full_name)
    expressions = source.get("range", [])
    if type(expressions) is not list:
        raise _invalid("The range of a query must be an array.")
    range_fields = _BUILT_IN[index_name] if index is None else index.range_fields
    bounds = compile_range(full_name, range_fields, cast("list[Any]", expressions), table)
    return Plan(catalog, query, table_name, table, index, bounds, _is_reverse(source), operators)


def _search(catalog: Catalog, query: dict[str, Any], source: dict[str, Any], operators: tuple[Operator, ...]) -> Plan:
    full_name, table_name, index_name = _index_name(source)
    table = catalog.tables.get(table_name)
    index = None if table is None else table.index(index_name)
    if index is None:
        raise _no_such_index(full_name, table, index_name)
    if not isinstance(index, SearchIndex):
        raise DeveloperError(
            "IndexNotASearchIndexError",
            f"Index {full_name} is no search index and cannot be used in `withSearchIndex`.",
        )
    if source.get("order") is not None:
        raise _invalid("The results of a search come in the order of their relevance; leave the order out.")
    search = compile_search(full_name, index, source.get("filters"))
    return Plan(catalog, query, table_name, table, index, (b"", None), False, operators, search)


def _index_name(source: dict[str, Any]) -> tuple[str, str, str]:
    """The full name of a source's index, and its table's and its own."""
    full_name = _text(source, "indexName")
    table_name, dot, index_name = full_name.partition(".")
    if not dot or not index_name:
        raise _invalid(f"An index is named as table.index, not {full_name!r}.")
    return full_name, table_name, index_name


def _no_such_index(full_name: str, table: Table | None, index_name: str) -> DeveloperError:
    hidden = None if table is None else table.hidden_index(index_name)
    if hidden is None:
        return DeveloperError("IndexNotFoundError", f"Index {full_name} not found.")
    return index_is_hidden(full_name, hidden.is_staged)


def _not_a_database_index(full_name: str) -> DeveloperError:
    return DeveloperError(
        "IndexNotADatabaseIndexError", f"Index {full_name} is a search index and cannot be used in `withIndex`."
    )


def index_is_hidden(full_name: str, is_staged: bool) -> DeveloperError:
    """The refusal of a query over an index that is maintained and does not answer queries."""
    if is_staged:
        return DeveloperError(
            "IndexStagedError",
            f"Index {full_name} is currently staged and not available to query until it is enabled.",
        )
    return DeveloperError(
        "IndexBackfillingError", f"Index {full_name} is currently backfilling and not available to query yet."
    )


_BUILT_IN: Final = {"by_id": ("_id",), "by_creation_time": (CREATION_TIME,)}
_BOUNDS: Final = {"Gt": (True, False), "Gte": (True, True), "Lt": (False, False), "Lte": (False, True)}


def compile_range(
    name: str, fields: tuple[str, ...], expressions: list[Any], table: Table | None
) -> tuple[bytes, bytes | None]:
    """The key range `[lower, upper)` of range expressions over the fields of an index."""
    equal: list[Any] = []
    lower: tuple[Any, bool] | None = None
    upper: tuple[Any, bool] | None = None
    bounded: str | None = None
    for expression in expressions:
        kind, path, value = _range_expression(expression)
        if path not in fields:
            raise DeveloperError(
                "FieldNotInIndex",
                f"Index {name} has the fields {_names(fields)}; the range names {path}, which is none of them.",
            )
        if kind == "Eq":
            if path in fields[: len(equal)]:
                raise _already(name, path, "an equality")
            if bounded is not None or path != fields[len(equal)]:
                raise _disorder(name, fields, path)
            equal.append(value)
            continue
        is_lower, inclusive = _BOUNDS[kind]
        if path in fields[: len(equal)]:
            raise _already(name, path, "an equality")
        if bounded is not None and bounded != path:
            raise DeveloperError(
                "BoundsOnMultipleFields",
                f"A range over index {name} can bound one field only, not both {bounded} and {path}. "
                "Use a filter for the other.",
            )
        if path != fields[len(equal)]:
            raise _disorder(name, fields, path)
        bounded = path
        if (lower if is_lower else upper) is not None:
            raise _already(name, path, "a lower bound" if is_lower else "an upper bound")
        if is_lower:
            lower = (value, inclusive)
        else:
            upper = (value, inclusive)
    if fields == ("_id",):
        return _id_bounds(table, equal, lower, upper)
    return _key_bounds(len(fields), equal, lower, upper)


def _range_expression(expression: Any) -> tuple[str, str, Any]:
    if type(expression) is not dict:
        raise _invalid("A range expression must be an object.")
    fields = cast("dict[str, Any]", expression)
    kind, path = fields.get("type"), fields.get("fieldPath")
    if type(path) is not str or (kind != "Eq" and kind not in _BOUNDS):
        raise _invalid("A range expression must be Eq, Gt, Gte, Lt or Lte with a fieldPath.")
    value = fields.get("value")
    if value is not None and kind_of(value) in _NEED_DECODING:
        value = decode(value, undefined=UndefinedAt.ROOT)
    return cast("str", kind), path, value


def _key_bounds(
    count: int, equal: list[Any], lower: tuple[Any, bool] | None, upper: tuple[Any, bool] | None
) -> tuple[bytes, bytes | None]:
    prefix = b"".join([key_of(value) for value in equal])
    first: bytes = prefix
    behind: bytes | None = _end(prefix, len(equal) == count) if prefix else None
    last_field = len(equal) + 1 == count
    if lower is not None:
        key = prefix + key_of(lower[0])
        first = key if lower[1] else _end(key, last_field)
    if upper is not None:
        key = prefix + key_of(upper[0])
        behind = _end(key, last_field) if upper[1] else key
    return first, behind


def _end(prefix: bytes, complete: bool) -> bytes:
    """The bound behind every key that starts with these field keys; behind all of the fields comes the raw id."""
    return prefix + _BEHIND_EVERY_ID if complete else after_prefix(prefix)


def _id_bounds(
    table: Table | None, equal: list[Any], lower: tuple[Any, bool] | None, upper: tuple[Any, bool] | None
) -> tuple[bytes, bytes | None]:
    if table is None:
        return b"", None
    if equal:
        first = _id_position(table.number, equal[0], False)
        behind = _id_position(table.number, equal[0], True)
        return first, behind
    return (
        b"" if lower is None else _id_position(table.number, lower[0], not lower[1]),
        None if upper is None else _id_position(table.number, upper[0], upper[1]),
    )


def _id_position(number: int, value: Any, behind: bool) -> bytes:
    """Where a value stands among the internal ids of a table: in front of, or `behind` what equals it."""
    if type(value) is not str:
        return _BEHIND_EVERY_ID if type(value) in (bytes, list, dict) else b""
    decoded = try_decode_document_id(value)
    if decoded is not None and decoded[0] == number:
        return decoded[1] + b"\0" if behind else decoded[1]
    low, high = 0, 1 << _INTERNAL_ID_BITS
    while low < high:
        middle = (low + high) // 2
        if encode_document_id(number, middle.to_bytes(16, "big")) < value:
            low = middle + 1
        else:
            high = middle
    return low.to_bytes(16, "big") if low >> _INTERNAL_ID_BITS == 0 else _BEHIND_EVERY_ID


def _operators(operators: Any) -> tuple[Operator, ...]:
    if type(operators) is not list:
        raise _invalid("The operators of a query must be an array.")
    entries = cast("list[Any]", operators)
    if len(entries) > QUERY_OPERATORS_MAX:
        raise _invalid(f"A query has {len(entries)} operators, more than {QUERY_OPERATORS_MAX}.")
    return tuple([_operator(entry) for entry in entries])


def _operator(entry: Any) -> Operator:
    if type(entry) is dict and len(cast("dict[str, Any]", entry)) == 1:
        ((name, operand),) = cast("dict[str, Any]", entry).items()
        if name == "filter":
            return Filter(operand), 0
        if name == "limit":
            if type(operand) is float and operand.is_integer():
                operand = int(operand)
            if type(operand) is int and operand >= 0:
                return None, operand
            raise _invalid("A limit must be a whole number that is not negative.")
    raise _invalid("An operator must be a filter or a limit.")


def _is_reverse(source: dict[str, Any]) -> bool:
    order = source.get("order")
    if order is None or order == "asc":
        return False
    if order == "desc":
        return True
    raise _invalid("The order of a query must be asc or desc.")


def _text(source: dict[str, Any], field: str) -> str:
    value = source.get(field)
    if type(value) is not str:
        raise _invalid(f"The source of a query must have a {field}.")
    return value


def _names(fields: tuple[str, ...]) -> str:
    return "[" + ", ".join(fields) + "]"


def _already(name: str, path: str, what: str) -> DeveloperError:
    return DeveloperError("AlreadyDefinedBound", f"The range over index {name} already has {what} on {path}.")


def _disorder(name: str, fields: tuple[str, ...], path: str) -> DeveloperError:
    return DeveloperError(
        "InvalidIndexRange",
        f"The range over index {name} does not follow its fields in order: after equalities on leading fields of "
        f"{_names(fields)} it names {path}.",
    )


def _invalid(message: str) -> DeveloperError:
    return DeveloperError("InvalidQuery", message)
