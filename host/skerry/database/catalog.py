"""The table catalog: which tables and indexes a deployment has, and how an index key is made.

A catalog is immutable. A transaction that inserts into a new table derives a catalog of its own; the commit makes
it the deployment's. So every transaction sees one catalog from begin to end, and comparing catalogs is comparing
identities.

A table's documents lie under its *space*: the first bytes of their keys. It is the table's number until an import
puts other contents in its place: these were written into a space of their own, and one commit moved the table there.
So what a key begins with is `Table.prefix`, what an id begins with `Table.number`. Spaces and index numbers of imports
are counted from `IMPORTED_NUMBER_FIRST`, apart from the catalog's own. `since_ts` is when the present contents were put
there: history before it is not theirs.

Numbers are never reused. Each table takes two index numbers of its own: `by_creation_time`, whose entries are
stored, and `by_id`, whose entries are the documents tree itself and which only names ranges in read sets.

An index key is the keys of the indexed values, the key of `_creationTime` and the 16 raw bytes of the internal id.
The last bytes make it unique, order ties, and lead to the document.

A table's `indexes` answer queries. Its `hidden` ones are maintained by every write and refused to queries: those that a
push registered and that are built while the deployment serves, and the staged ones of the active schema. Whether a
hidden index has all its entries yet is not told here but by its build record (`catalog_store`).

Index number 0 stands for the catalog itself in read sets: looking for a table that is not there reads a point of
it, creating the table writes that point.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Protocol, cast

from skerry.errors import DeveloperError
from skerry.limits import INDEX_KEY_BYTES_MAX, TABLES_MAX, VALIDATOR_STEPS_MAX
from skerry.value import INTERNAL_ID_BYTES, UNDEFINED, check_table_name, index_key, key_of

CATALOG_INDEX: Final = 0
USER_TABLE_NUMBER_FIRST: Final = 10_001
_USER_INDEX_NUMBER_FIRST: Final = 64
IMPORTED_NUMBER_FIRST: Final = 1 << 31
_SYSTEM_TABLES: Final = (("_storage", 512, 1, 2), ("_scheduled_functions", 513, 3, 4), ("_crons", 514, 6, 7))
JOB_TABLE: Final = 513
CRON_TABLE: Final = 514
JOB_INDEX: Final = 5
_MICROSECONDS: Final = 1_000
CREATION_TIME: Final = "_creationTime"


class Validator(Protocol):
    """What judges a document of a table."""

    json: Any

    def check(
        self, value: Any, resolve_table: Callable[[int], str | None], *, steps_max: int = VALIDATOR_STEPS_MAX
    ) -> None: ...


class Index:
    """One index of a table: number, name and the paths of its fields.

    Shape: `definition` is what makes two indexes of a table the same but for their names; `since_ts` is the commit from
    which on writes have maintained it, so that the past before is not in its history; `is_staged` as the schema says.
    An index of another kind is a subclass with a `kind`, `definition` and `keys` of its own (`index_kinds` makes it).
    """

    __slots__ = ("definition", "fields", "is_staged", "name", "number", "paths", "range_fields", "roots", "since_ts")

    kind = "database"

    def __init__(
        self,
        number: int,
        name: str,
        fields: tuple[str, ...],
        range_fields: tuple[str, ...],
        *,
        is_staged: bool = False,
        since_ts: int = 0,
    ) -> None:
        self.number = number
        self.name = name
        self.fields = fields
        self.range_fields = range_fields
        self.is_staged = is_staged
        self.since_ts = since_ts
        self.definition: tuple[Any, ...] = (self.kind, fields)
        self.paths = tuple([tuple(field.split(".")) for field in fields])
        self.roots = frozenset(path[0] for path in self.paths)

    def keys(self, document: dict[str, Any], tail: bytes) -> Sequence[bytes]:
        """All keys of a document in this index. Raises: as `key`."""
        return (self.key(document, tail),)

    def moves(self, old: dict[str, Any], document: dict[str, Any], tail: bytes) -> list[tuple[bytes, int]]:
        """What changes where another version replaces a document: keys that go with -1, those that come with 1."""
        gone, come = self.keys(old, tail), self.keys(document, tail)
        if gone == come:
            return []
        before, after = set(gone), set(come)
        moved = [(key, -1) for key in gone if key not in after]
        moved += [(key, 1) for key in come if key not in before]
        return moved

    def key(self, document: dict[str, Any], tail: bytes) -> bytes:
        """The index key of a decoded document; `tail` is `creation_tail` of it.

        Raises: DeveloperError `IndexKeyTooLarge`.
        """
        values: list[Any] = []
        for path in self.paths:
            if len(path) == 1:
                values.append(document.get(path[0], UNDEFINED))
            else:
                values.append(value_at(document, path))
        key = index_key(values) + tail
        if len(key) > INDEX_KEY_BYTES_MAX:
            raise DeveloperError(
                "IndexKeyTooLarge",
                f"A key of index {self.name} has {len(key)} bytes, more than {INDEX_KEY_BYTES_MAX}; "
                "index smaller fields.",
            )
        return key


class SearchedIndex(Index):
    """What a transaction needs to know of a search index (`search_index`)."""

    __slots__ = ()

    def length(self, document: dict[str, Any]) -> int:
        """The number of tokens of a document; 0 where it has no term and so is not in the index."""
        raise NotImplementedError

    def text_chars(self, document: dict[str, Any]) -> int:
        """How long the text is that is taken apart."""
        raise NotImplementedError

    def has_same_text(self, old: dict[str, Any], document: dict[str, Any]) -> bool:
        """Whether two versions have one text."""
        raise NotImplementedError


class JobIndex(Index):
    """The scheduled functions in the order in which the host has to do with them: no query can name this index.

    A key is what is to be done (one byte), when (8 bytes: microseconds since 1970) and the internal id: `p` with the
    time from which on it may run, `r` of an action under way, `t` with the time at which it ended.
    """

    __slots__ = ()

    kind = "job"

    def keys(self, document: dict[str, Any], tail: bytes) -> Sequence[bytes]:
        state = document["state"]["kind"]
        if state == "pending":
            return (job_key(b"p", document["scheduledTime"]) + tail[-INTERNAL_ID_BYTES:],)
        if state == "inProgress":
            return (job_key(b"r", 0) + tail[-INTERNAL_ID_BYTES:],)
        return (job_key(b"t", document["completedTime"]) + tail[-INTERNAL_ID_BYTES:],)


def job_key(doing: bytes, time_ms: float) -> bytes:
    """Where the keys of a `JobIndex` begin for this and this time."""
    return doing + max(0, int(time_ms * _MICROSECONDS)).to_bytes(8, "big")


class Table:
    """One table: its number, its indexes and the validator its documents must pass, if any."""

    __slots__ = (
        "by_creation_time", "by_id", "declared", "end", "hidden", "indexes", "is_system", "name", "number", "prefix",
        "searches", "since_ts", "space", "stored", "validator",
    )  # fmt: skip

    def __init__(
        self,
        number: int,
        name: str,
        by_id: int,
        by_creation_time: int,
        indexes: dict[str, Index],
        validator: Validator | None,
        space: int | None = None,
        hidden: tuple[Index, ...] = (),
        since_ts: int = 0,
    ) -> None:
        self.number = number
        self.since_ts = since_ts
        self.name = name
        self.space = number if space is None else space
        self.prefix = self.space.to_bytes(4, "big")
        self.end = (self.space + 1).to_bytes(4, "big")
        self.is_system = name[0] == "_"
        self.by_id = Index(by_id, "by_id", ("_id",), ("_id",))
        self.by_creation_time = Index(by_creation_time, "by_creation_time", (), (CREATION_TIME,))
        self.indexes = indexes
        self.hidden = hidden
        self.declared = (*indexes.values(), *hidden)
        self.stored = (self.by_creation_time, *self.declared)
        self.searches = tuple([index for index in self.declared if isinstance(index, SearchedIndex)])
        self.validator = validator

    def is_same(self, other: "Table") -> bool:
        """Whether contents written for one are right for the other: the same indexes and validator."""
        own, others = self.validator, other.validator
        return (
            [index.number for index in self.stored] == [index.number for index in other.stored]
            and [index.name for index in self.declared] == [index.name for index in other.declared]
            and [index.number for index in self.hidden] == [index.number for index in other.hidden]
            and self.space == other.space
            and (None if own is None else own.json) == (None if others is None else others.json)
        )

    def index(self, name: str) -> Index | None:
        if name == "by_creation_time":
            return self.by_creation_time
        return self.by_id if name == "by_id" else self.indexes.get(name)

    def hidden_index(self, name: str) -> Index | None:
        """The hidden index of this name."""
        for index in self.hidden:
            if index.name == name:
                return index
        return None

    def with_indexes(
        self, indexes: dict[str, Index], hidden: tuple[Index, ...], validator: Validator | None
    ) -> "Table":
        """This table with other indexes and another validator."""
        return Table(
            self.number, self.name, self.by_id.number, self.by_creation_time.number, indexes, validator, self.space,
            hidden, self.since_ts,
        )  # fmt: skip


class Catalog:
    """All tables of a deployment by name and by number, and the schema they follow."""

    __slots__ = ("next_index", "next_table", "numbers", "schema", "schema_ts", "search_indexes", "spaces", "tables")

    def __init__(
        self,
        tables: dict[str, Table],
        next_table: int,
        next_index: int,
        schema: dict[str, Any] | None,
        schema_ts: int = 0,
    ) -> None:
        self.tables = tables
        self.numbers = {table.number: table for table in tables.values()}
        self.spaces = {table.space: table for table in tables.values()}
        self.next_table = next_table
        self.next_index = next_index
        self.schema = schema
        self.schema_ts = schema_ts
        self.search_indexes = _search_indexes(schema)

    def resolve(self, number: int) -> str | None:
        """The name of the table with this number, or None."""
        table = self.numbers.get(number)
        return None if table is None else table.name

    def with_table(self, name: str) -> "tuple[Catalog, Table]":
        """This catalog with one more, empty table.

        Raises: DeveloperError `InvalidTableName`, `TooManyTables`.
        """
        check_table_name(name)
        if len(self.tables) - len(_SYSTEM_TABLES) >= TABLES_MAX:
            raise DeveloperError(
                "TooManyTables", f"A deployment can have {TABLES_MAX} tables; table {name} is one more."
            )
        table = Table(self.next_table, name, self.next_index, self.next_index + 1, {}, None)
        catalog = Catalog(
            {**self.tables, name: table}, self.next_table + 1, self.next_index + 2, self.schema, self.schema_ts
        )
        return catalog, table

    def with_tables(self, tables: Iterable[Table]) -> "Catalog":
        """This catalog with these tables in the place of those of their names, or beside them."""
        changed = {**self.tables, **{table.name: table for table in tables}}
        next_table = max([self.next_table, *[table.number + 1 for table in changed.values()]])
        return Catalog(changed, next_table, self.next_index, self.schema, self.schema_ts)

    def with_numbers_reserved(self, tables: int) -> "Catalog":
        """This catalog, whose next table gets a number that leaves room for so many others."""
        return Catalog(self.tables, self.next_table + tables, self.next_index, self.schema, self.schema_ts)


def empty_catalog() -> Catalog:
    """The catalog of a new deployment: the virtual system tables, which hold nothing yet."""
    tables = {name: Table(number, name, by_id, by_time, {}, None) for name, number, by_id, by_time in _SYSTEM_TABLES}
    jobs = JobIndex(JOB_INDEX, "by_due_time", (), ())
    tables["_scheduled_functions"] = tables["_scheduled_functions"].with_indexes({}, (jobs,), None)
    return Catalog(tables, USER_TABLE_NUMBER_FIRST, _USER_INDEX_NUMBER_FIRST, None)


def table_key(table: str) -> bytes:
    """The catalog's point for a table name."""
    return b"n" + table.encode()


def number_key(number: int) -> bytes:
    """The catalog's point for a table number."""
    return b"#" + number.to_bytes(4, "big")


def value_at(document: Any, path: tuple[str, ...]) -> Any:
    """The value at a path of nested fields, `UNDEFINED` where it ends early."""
    for name in path:
        if type(document) is not dict:
            return UNDEFINED
        document = cast("dict[str, Any]", document).get(name, UNDEFINED)
    return document


def creation_tail(creation_time: int | float, internal_id: bytes) -> bytes:
    """The end of every index key of a document."""
    return key_of(creation_time) + internal_id


def _search_indexes(schema: dict[str, Any] | None) -> frozenset[str]:
    if schema is None:
        return frozenset()
    return frozenset(
        f"{table['tableName']}.{index['indexDescriptor']}"
        for table in schema["tables"]
        for kind in ("searchIndexes", "vectorIndexes")
        for index in table.get(kind, ())
    )
