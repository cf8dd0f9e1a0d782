"""A transaction: reads over (own writes) over (pending commits) over (a storage snapshot), and the writes themselves.

Documents are found under a 20-byte document key: table number and internal id. What was read is kept as a set of
document keys and a list of index ranges, each cut to what was really consumed; what is written as one
`DocumentWrite` for each document with its version before, and as marks on index keys. Nothing reaches the
deployment before `Database.commit`.

Invariants. A read of one document is one dictionary lookup for each layer and at most one storage lookup. A blind
insert reads nothing. Writes inside a savepoint leave an undo entry each; rolling back replays them backwards and
keeps the read set.

Concurrency: one thread at a time. Deliberately absent: clocks and chance (both are arguments), and any knowledge of
functions.
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

from skerry.database.birth import Birth
from skerry.database.catalog import CATALOG_INDEX, Catalog, Table, creation_tail, number_key, table_key
from skerry.database.commit_time import COMMIT_TS_MARK
from skerry.database.document_write import DocumentWrite
from skerry.database.overlay import IndexLayer, Overlay
from skerry.database.page import PageRequest, read_page
from skerry.database.plan_cache import PlanCache
from skerry.database.query import Plan, compile_query
from skerry.database.read_set import ReadSet
from skerry.database.refusals import bad_argument, id_of_other_table, nonexistent, undecodable_id
from skerry.database.scan import Range
from skerry.database.search_counts import Lengths, measure
from skerry.database.search_stream import collect_plan, open_plan
from skerry.database.stored import HEADER_BYTES, SIZE_MASK, parse_document
from skerry.database.stream import QueryStream
from skerry.database.usage import Usage
from skerry.errors import DeveloperError
from skerry.limits import OPEN_QUERIES_MAX, SAVEPOINT_DEPTH_MAX, VALIDATOR_STEPS_MAX
from skerry.storage import StorageSnapshot, Tree
from skerry.value import (
    UNDEFINED,
    Mismatch,
    check_document,
    dumps,
    encode_document_id,
    try_decode_document_id,
    write_error,
)

if TYPE_CHECKING:
    from skerry.database.view import View

_READ_ONLY: Final = "System tables (prefixed with `_`) are read-only."
_DOCUMENTS: Final = Tree.DOCUMENTS
_MISSING: Final = object()

Undo = Callable[[], None]
FunctionState = tuple[bool, str | None, str | None, dict[int, QueryStream]]
"""What a called function must not disturb: pagination, query journal, open queries of its caller."""


class Transaction:
    """One transaction of a deployment; `Database.begin` makes it, `Database.commit` or `abort` ends it."""

    __slots__ = (
        "_known", "_next_query", "_overlay_documents", "_plans", "_points", "_ranges", "_savepoints",
        "_scans", "_streams", "base_catalog", "begin_ts", "birth", "catalog", "created", "detached", "ended", "epoch",
        "journal", "journal_out", "layers", "lengths", "now_ms", "overlay", "page_key", "paginated", "snapshot",
        "snapshot_ts", "stamped", "undo", "usage", "view", "writable", "writes",
    )  # fmt: skip

    def __init__(
        self,
        view: "View",
        snapshot: StorageSnapshot,
        overlay: Overlay | None,
        catalog: Catalog,
        plans: PlanCache,
        *,
        writable: bool,
        detached: bool,
        now_ms: float,
        seed: bytes,
        begin_ts: int,
        epoch: int,
        page_key: bytes,
        journal: str | None,
    ) -> None:
        self.view = view
        self.snapshot = snapshot
        self.overlay = overlay
        self.catalog = catalog
        self.base_catalog = catalog
        self.epoch = epoch
        self.ended = False
        self.writable = writable
        self.detached = detached
        self.now_ms = now_ms
        self.begin_ts = begin_ts
        self.snapshot_ts = begin_ts
        self.page_key = page_key
        self.usage = Usage()
        self.writes: dict[bytes, DocumentWrite] = {}
        self.layers: dict[int, IndexLayer] = {}
        self.lengths: Lengths = {}
        self.created: list[Table] = []
        self.stamped: set[bytes] = set()
        self.paginated = False
        self.journal = journal
        self.journal_out: str | None = None
        self._overlay_documents = None if overlay is None else overlay.documents
        self._plans = plans
        self._known: dict[bytes, bytes] | None = {} if writable else None
        self._points: set[bytes] = set()
        self._ranges: list[Range] = []
        self._scans: list[Any] = []
        self._streams: dict[int, QueryStream] = {}
        self._next_query = 0
        self.undo: list[Undo] | None = None
        self._savepoints: list[tuple[int, tuple[Any, ...]]] = []
        self.birth = Birth(now_ms, seed)

    # -- single documents --------------------------------------------------------------------------------------------

    def get(self, document_id: str, table: str | None = None, system: bool = False) -> bytes | None:
        """The document's canonical JSON, or None.

        Raises: DeveloperError `InvalidArgument` for what is no id or an id of another table, `SystemTableAccess`,
        `TooManyReads`, `TooManyDocumentsRead`, `TooManyBytesRead`.
        """
        usage = self.usage
        usage.read_range()
        decoded = try_decode_document_id(document_id) if type(document_id) is str else None
        if decoded is None:
            raise undecodable_id("get", document_id)
        number, internal_id = decoded
        found = self.catalog.numbers.get(number)
        if found is None:
            self._ranges.append(_point(number_key(number)))
            return None
        if table is not None and found.name != table:
            raise id_of_other_table("get", document_id, table, found.name)
        if found.is_system is not system:
            raise DeveloperError(
                "SystemTableAccess",
                "User tables cannot be accessed with db.system."
                if system
                else "System tables can only be accessed with db.system.",
            )
        key = found.prefix + internal_id
        self._points.add(key)
        write = self.writes.get(key)
        if write is not None:
            json = write.json
            if json is not None:
                usage.read_document(write.size)
            return json
        stored = self.base(key)
        if stored is None:
            return None
        usage.read_document(int.from_bytes(stored[:4], "big") & SIZE_MASK)
        return stored[HEADER_BYTES:]

    def base(self, key: bytes) -> bytes | None:
        """The stored form under a document key, below the transaction's own writes; charges nothing.

        A transaction that can write keeps what it has read: what it reads, it mostly writes next.
        """
        documents = self._overlay_documents
        if documents:
            stored = documents.get(key, _MISSING)
            if stored is not _MISSING:
                return cast("bytes | None", stored)
        known = self._known
        if known is None:
            return self.snapshot.get(_DOCUMENTS, key)
        stored = known.get(key)
        if stored is None:
            stored = self.snapshot.get(_DOCUMENTS, key)
            if stored is not None:
                known[key] = stored
        return stored

    def base_reader(self) -> Callable[[bytes], bytes | None]:
        """`base`, for a run of reads with no write between them."""
        return self.base if self._overlay_documents else partial(self.snapshot.get, _DOCUMENTS)

    def normalize_id(self, table: str, text: str) -> str | None:
        """The id string if it is an id of `table`, else None."""
        decoded = try_decode_document_id(text) if type(text) is str else None
        if decoded is None:
            return None
        found = self.catalog.numbers.get(decoded[0])
        if found is None:
            self._ranges.append(_point(number_key(decoded[0])))
            return None
        return text if found.name == table else None

    def count(self, table: str) -> int:
        """How many documents a table has; each counts as read."""
        query: dict[str, Any] = {
            "source": {"type": "FullTableScan", "tableName": table, "order": None},
            "operators": [],
        }
        stream = open_plan(self, self._plan(query))
        count = 0
        while stream.next() is not None:
            count += 1
        return count

    def read_table(self, number: int) -> None:
        """Put all of a table into the read set, for who looks at it elsewhere. Raises: `TooManyReads`."""
        self.usage.read_range()
        self._ranges.append((self.catalog.numbers[number].by_id.number, b"", None))

    def insert(self, table: str, value: dict[str, Any]) -> str:
        """Store a new document and give its id; `value` is decoded. The table comes into existence with its first
        document.

        Raises: DeveloperError of `check_document`, `ReadOnlyTransaction`, `SystemTableReadOnly`, `InvalidArgument`,
        `SchemaEnforcementError`, `TooManyTables`, `IndexKeyTooLarge`, `TooManyWrites`, `TooManyBytesWritten`.
        """
        if type(table) is not str or type(value) is not dict:
            raise DeveloperError("InvalidArgument", "`db.insert` takes the name of a table and an object.")
        found = self.catalog.tables.get(table)
        if found is None or found.is_system or not self.writable:
            found = self._insert_table(table, found)
        if "_id" in value:
            raise bad_argument("insert", f"Provided document ID {value['_id']} doesn't match '_id' field")
        if "_creationTime" in value:
            raise bad_argument(
                "insert", f"Provided creation time {value['_creationTime']} doesn't match '_creationTime' field"
            )
        internal_id = self.birth.internal_id()
        document_id = encode_document_id(found.number, internal_id)
        creation_time = self.birth.creation_time()
        document = {**value, "_creationTime": creation_time, "_id": document_id}
        size = check_document(document)
        if found.validator is not None:
            self._validate(found, value)
        usage = self.usage
        if usage.is_full:
            usage.grow(size)
        usage.write_document(size)
        json = dumps(document)
        key = found.prefix + internal_id
        if found.searches:
            measure(self, found.searches, key, None, document)
        tail = creation_tail(creation_time, internal_id)
        for index in found.stored:
            for entry in index.keys(document, tail):
                self.mark(index.number, entry, 1)
        self.mark(found.by_id.number, internal_id, 1, is_stored=False)
        self.put(key, DocumentWrite(found, internal_id, None, json, size))
        return document_id

    def patch(self, document_id: str, value: dict[str, Any], table: str | None = None) -> bytes:
        """Change the given fields of a document, remove those that are `UNDEFINED`; the new document's JSON.

        Raises: as `insert`, and DeveloperError `DocumentNotFound`, `TableNotFound`.
        """
        if type(value) is not dict:
            raise DeveloperError("InvalidArgument", "Invalid argument `value` for `db.patch`: Value must be an Object")
        found, key, before, json = self._existing("patch", "Update", document_id, table)
        old = parse_document(json)
        document = {**old, **value}
        for name, field in value.items():
            if field is UNDEFINED:
                del document[name]
        return self._rewrite("patch", found, key, before, old, document, document_id)

    def replace(self, document_id: str, value: dict[str, Any], table: str | None = None) -> bytes:
        """Replace a document but for `_id` and `_creationTime`; the new document's JSON. Raises: as `patch`."""
        if type(value) is not dict:
            raise DeveloperError(
                "InvalidArgument", "Invalid argument `value` for `db.replace`: Value must be an Object"
            )
        found, key, before, json = self._existing("replace", "Replace", document_id, table)
        old = parse_document(json)
        document = {"_creationTime": old["_creationTime"], "_id": document_id, **value}
        return self._rewrite("replace", found, key, before, old, document, document_id)

    def delete(self, document_id: str, table: str | None = None) -> bytes:
        """Remove a document and give its last JSON. Raises: as `patch`."""
        found, key, before, json = self._existing("delete", "Delete", document_id, table)
        old = parse_document(json)
        self.usage.write_document(0)
        internal_id = key[4:]
        if found.searches:
            measure(self, found.searches, key, old, None)
        tail = creation_tail(old["_creationTime"], internal_id)
        for index in found.stored:
            for entry in index.keys(old, tail):
                self.mark(index.number, entry, -1)
        self.mark(found.by_id.number, internal_id, -1, is_stored=False)
        self.put(key, DocumentWrite(found, internal_id, before, None, 0))
        return json

    # -- queries -----------------------------------------------------------------------------------------------------

    def open_query(self, query: Any) -> int:
        """Open a query and give its number for `next`, `collect` and `close_query`.

        Shape: the query's JSON object in encoded form, or the JSON text (bytes) of an object with it under `query`,
        which is the argument of `1.0/queryStream`; plans are cached by that text.
        """
        if len(self._streams) >= OPEN_QUERIES_MAX:
            raise DeveloperError(
                "TooManyOpenQueries", f"A function can hold {OPEN_QUERIES_MAX} queries open at a time."
            )
        number = self._next_query
        self._streams[number] = open_plan(self, self._plan(query))
        self._next_query = number + 1
        return number

    def next(self, query_id: int) -> bytes | None:
        """The JSON of the query's next document, or None at its end."""
        stream = self._streams.get(query_id)
        if stream is None:
            raise DeveloperError("QueryNotFound", f"There is no open query {query_id}.")
        return stream.next()

    def collect(self, query_id: int) -> bytes:
        """All that is left of an open query as a JSON array, and close it."""
        stream = self._streams.pop(query_id, None)
        if stream is None:
            raise DeveloperError("QueryNotFound", f"There is no open query {query_id}.")
        return stream.collect()

    def collect_query(self, query: Any) -> bytes:
        """Open, collect and close in one; `query` as for `open_query`."""
        return collect_plan(self, self._plan(query))

    def close_query(self, query_id: int) -> bool:
        """Forget an open query; whether there was one."""
        return self._streams.pop(query_id, None) is not None

    def page(
        self,
        query: Any,
        cursor: str | None,
        end_cursor: str | None,
        page_size: int,
        maximum_rows_read: int | None = None,
        maximum_bytes_read: int | None = None,
        function: bytes = b"",
    ) -> bytes:
        """One page of a query of a function, as the JSON that `1.0/queryPage` answers; `query` as for `open_query`.

        Where `end_cursor` is None, the `journal` of the run before takes its place; `journal_out` is this run's.

        Raises: DeveloperError `InvalidCursor`, `InvalidPageSize`, `MultiplePaginatedQueries`, and as `next`.
        """
        if self.paginated:
            raise DeveloperError(
                "MultiplePaginatedQueries",
                "This query or mutation function ran multiple paginated queries. Convex only supports a single "
                "paginated query in each function.",
            )
        self.paginated = True
        if end_cursor is None:
            end_cursor = self.journal
        request = PageRequest(cursor, end_cursor, page_size, maximum_rows_read, maximum_bytes_read, function)
        return read_page(self, self._plan(query), request)

    def enter_function(self) -> "FunctionState":
        """Begin a function called by the running one: it may paginate for itself. Ends with `leave_function`."""
        state = (self.paginated, self.journal, self.journal_out, self._streams)
        self.paginated, self.journal, self.journal_out, self._streams = False, None, None, {}
        return state

    def leave_function(self, state: "FunctionState") -> None:
        """End a called function; its open queries are gone."""
        self.paginated, self.journal, self.journal_out, self._streams = state

    def _plan(self, query: Any) -> Plan:
        return self._plans.plan(query, self.catalog) if type(query) is bytes else compile_query(query, self.catalog)

    def note_document(self, key: bytes) -> None:
        """Record a document that was read."""
        self._points.add(key)

    def note_absent_table(self, name: str) -> None:
        """Record that the function saw that a table does not exist."""
        self._ranges.append(_point(table_key(name)))

    def note_range(self, read: Range) -> None:
        """Record an index range that was read."""
        self._ranges.append(read)

    def note_scan(self, scan: Any) -> None:
        """Keep a scan whose `read_range()` belongs to the read set."""
        self._scans.append(scan)

    # -- sub-transactions --------------------------------------------------------------------------------------------

    def savepoint(self) -> None:
        """Begin a sub-transaction; `release` keeps its writes, `rollback` undoes them. Reads stay either way."""
        if len(self._savepoints) >= SAVEPOINT_DEPTH_MAX:
            raise DeveloperError("TooManySavepoints", f"Sub-transactions nest at most {SAVEPOINT_DEPTH_MAX} deep.")
        if self.undo is None:
            self.undo = []
        self._savepoints.append((len(self.undo), self.usage.snapshot_writes()))

    def release(self) -> None:
        """End the innermost sub-transaction and keep what it wrote."""
        self._savepoints.pop()
        if not self._savepoints:
            self.undo = None

    def rollback(self) -> None:
        """End the innermost sub-transaction and undo what it wrote."""
        mark, counters = self._savepoints.pop()
        undo = self.undo
        assert undo is not None
        while len(undo) > mark:
            undo.pop()()
        self.usage.restore_writes(counters)
        if not self._savepoints:
            self.undo = None

    def abort(self) -> None:
        """Give up: nothing is written, the snapshot is let go. Ending twice is no error."""
        self.view.leave(self)

    # -- what it did -------------------------------------------------------------------------------------------------

    @property
    def last_creation(self) -> float:
        """The newest creation time it gave out, 0 where there is none."""
        return self.birth.last

    @property
    def read_set(self) -> ReadSet:
        """The documents and index ranges read so far."""
        ranges = list(self._ranges)
        for scan in self._scans:
            read = scan.read_range()
            if read[2] is None or read[1] < read[2]:
                ranges.append(read)
        return ReadSet(self._points, ranges)

    @property
    def write_set(self) -> list[DocumentWrite]:
        """The pending version of each document written."""
        return [write for write in self.writes.values() if write.json is not None or write.before is not None]

    # -- internals ---------------------------------------------------------------------------------------------------

    def _insert_table(self, name: str, found: Table | None) -> Table:
        """The table an insert may go to: checks the right to write, creates the table where there is none."""
        self._must_be_writable("insert")
        if found is not None:
            if found.is_system:
                raise DeveloperError("SystemTableReadOnly", _READ_ONLY)
            return found
        if name[:1] == "_":
            raise DeveloperError("SystemTableReadOnly", _READ_ONLY)
        previous = self.catalog
        self.catalog, table = previous.with_table(name)
        self.note_absent_table(name)
        self.created.append(table)
        if self.undo is not None:
            self.undo.append(lambda: self._forget_table(previous))
        return table

    def _forget_table(self, previous: Catalog) -> None:
        self.catalog = previous
        self.created.pop()

    def _must_be_writable(self, operation: str) -> None:
        if not self.writable:
            raise DeveloperError("ReadOnlyTransaction", f"A query cannot write: `db.{operation}` needs a mutation.")

    def _existing(
        self, operation: str, verb: str, document_id: str, table: str | None
    ) -> tuple[Table, bytes, bytes | None, bytes]:
        """The table, key, stored form below own writes, and JSON of a document that is about to be written."""
        self._must_be_writable(operation)
        decoded = try_decode_document_id(document_id) if type(document_id) is str else None
        if decoded is None:
            raise undecodable_id(operation, document_id)
        number, internal_id = decoded
        found = self.catalog.numbers.get(number)
        if found is None:
            self._ranges.append(_point(number_key(number)))
            raise DeveloperError("TableNotFound", f'Table for ID "{document_id}" not found')
        if found.is_system:
            raise DeveloperError("SystemTableReadOnly", _READ_ONLY)
        if table is not None and found.name != table:
            raise id_of_other_table(operation, document_id, table, found.name)
        key = found.prefix + internal_id
        self._points.add(key)
        write = self.writes.get(key)
        if write is None:
            before = self.base(key)
            if before is None:
                raise nonexistent(verb, document_id)
            self.usage.read_document(int.from_bytes(before[:4], "big") & SIZE_MASK)
            return found, key, before, before[HEADER_BYTES:]
        if write.json is None:
            raise nonexistent(verb, document_id)
        self.usage.read_document(write.size)
        return found, key, write.before, write.json

    def _rewrite(
        self,
        operation: str,
        table: Table,
        key: bytes,
        before: bytes | None,
        old: dict[str, Any],
        document: dict[str, Any],
        document_id: str,
    ) -> bytes:
        """Put a new version of an existing document, moving the index keys that change."""
        creation_time = old["_creationTime"]
        if document.get("_id") != document_id:
            raise bad_argument(operation, f"Provided document ID {document.get('_id')} doesn't match '_id' field")
        if document.get("_creationTime") != creation_time:
            raise bad_argument(
                operation, f"Provided creation time {document.get('_creationTime')} doesn't match '_creationTime' field"
            )
        document["_creationTime"] = creation_time
        size = check_document(document)
        if table.validator is not None:
            fields = document.copy()
            del fields["_id"], fields["_creationTime"]
            self._validate(table, fields)
        if self.usage.is_full:
            self.usage.grow(size if before is None else size - (int.from_bytes(before[:4], "big") & SIZE_MASK))
        self.usage.write_document(size)
        internal_id = key[4:]
        if table.searches:
            measure(self, table.searches, key, old, document)
        tail = None
        for index in table.declared:
            for root in index.roots:
                if old.get(root, UNDEFINED) is not document.get(root, UNDEFINED):
                    if tail is None:
                        tail = creation_tail(creation_time, internal_id)
                    for entry, mark in index.moves(old, document, tail):
                        self.mark(index.number, entry, mark)
                    break
        json = dumps(document)
        self.put(key, DocumentWrite(table, internal_id, before, json, size))
        return json

    def _validate(self, table: Table, fields: dict[str, Any]) -> None:
        """Judge a document without its system fields."""
        assert table.validator is not None
        usage = self.usage
        steps_max = usage.validation_steps_max or VALIDATOR_STEPS_MAX
        try:
            table.validator.check(fields, self.catalog.resolve, steps_max=steps_max)
        except DeveloperError as error:
            if error.code == "ValidationTooExpensive" and usage.validation_steps_max is not None:
                usage.leave_slice()
            raise
        except Mismatch as mismatch:
            raise write_error(table.name, mismatch) from None

    def mark(self, number: int, key: bytes, mark: int, is_stored: bool = True) -> None:
        """Mark an index key as added or removed by this transaction."""
        layer = self.layers.get(number)
        if layer is None:
            layer = self.layers[number] = IndexLayer(is_stored)
        self.usage.write_index(len(key))
        undo = self.undo
        if undo is not None:
            previous = layer.entries.get(key)
            undo.append((lambda: layer.drop(key)) if previous is None else (lambda: layer.put(key, previous)))
        layer.put(key, mark)

    def put(self, key: bytes, write: DocumentWrite) -> None:
        """Make this the pending version of a document."""
        writes = self.writes
        undo = self.undo
        if undo is not None:
            previous = writes.get(key)
            if previous is None:
                undo.append(lambda: writes.pop(key) and None)
            else:
                undo.append(lambda: writes.__setitem__(key, previous))
        writes[key] = write
        if write.json is not None and COMMIT_TS_MARK in write.json:
            self.stamped.add(key)


def _point(key: bytes) -> Range:
    return (CATALOG_INDEX, key, key + b"\0")
