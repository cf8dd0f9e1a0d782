"""Open queries: a scan, the documents behind its keys, and the operators they pass.

A query stops reading as soon as one of its limits is spent, so `first()` reads one document. A filtered document
counts as read.
"""

from typing import TYPE_CHECKING, Any, Final, Literal

from skerry.database.catalog import Index
from skerry.database.query import Plan
from skerry.database.scan import IndexScan
from skerry.database.stored import HEADER_BYTES, SIZE_MASK, parse_document
from skerry.errors import SystemFault
from skerry.limits import SCAN_CHUNK_KEYS_FIRST, SCAN_CHUNK_KEYS_MAX

if TYPE_CHECKING:
    from skerry.database.transaction import Transaction

_INTERNAL_ID_BYTES: Final = 16
_ROWS_PER_LOOK_MASK: Final = 127
_NO_DOCUMENT: Final = "An index entry leads to no document."


class QueryStream:
    """One open query of a transaction; `scan` is None where the table does not exist."""

    __slots__ = ("_has_filter", "_limits", "_operators", "_prefix", "_transaction", "bytes_read", "rows_read", "scan")

    def __init__(
        self, transaction: "Transaction", plan: Plan, lower: bytes, upper: bytes | None, first_chunk: int
    ) -> None:
        table, index = plan.table, plan.index
        if table is None or index is None:
            transaction.note_absent_table(plan.table_name)
            self._start(transaction, plan, b"")
        else:
            self._start(transaction, plan, table.prefix)
            self.scan = IndexScan(
                transaction.snapshot,
                transaction.overlay,
                transaction.layers,
                table,
                index,
                lower,
                upper,
                plan.reverse,
                transaction.usage.gather,
                first_chunk,
            )
            transaction.note_scan(self.scan)

    def _start(self, transaction: "Transaction", plan: Plan, prefix: bytes) -> None:
        self._transaction = transaction
        self._prefix = prefix
        self.scan: IndexScan | None = None
        self._operators = plan.operators
        self._limits = list(plan.limits)
        self._has_filter = len(plan.limits) < len(plan.operators)
        self.rows_read = 0
        self.bytes_read = 0

    @property
    def position(self) -> bytes | None:
        """Where the last document read stands in the result; None before there was one."""
        return None if self.scan is None else self.scan.after

    def next(self) -> bytes | None:
        """The JSON of the next document that passes the operators, or None at the end."""
        step = self.step
        while True:
            document = step()
            if document is not True:
                return document

    def step(self) -> bytes | Literal[True] | None:
        """Read one document: its JSON if it passes the operators, True if it does not, None at the end."""
        scan = self.scan
        if scan is None:
            return None
        limits = self._limits
        if limits and not min(limits):
            return None
        key = scan.next_key()
        if key is None:
            return None
        transaction = self._transaction
        document_key = self._prefix + key[-_INTERNAL_ID_BYTES:]
        writes = transaction.writes
        write = writes.get(document_key) if writes else None
        if write is not None and write.json is not None:
            json, size = write.json, write.size
        else:
            stored = transaction.base(document_key)
            if stored is None:
                raise SystemFault("IndexCorrupted", _NO_DOCUMENT)
            json, size = stored[HEADER_BYTES:], int.from_bytes(stored[:4], "big") & SIZE_MASK
        transaction.usage.read_document(size)
        self.rows_read += 1
        if not self.rows_read & _ROWS_PER_LOOK_MASK:
            transaction.usage.look()
        self.bytes_read += size
        return json if not self._operators or self._passes(json, size) else True

    def collect(self) -> bytes:
        """All that is left, as a JSON array."""
        documents: list[bytes] = []
        if not self._has_filter:
            self._gather(documents)
            return b"[" + b",".join(documents) + b"]"
        append, step = documents.append, self.step
        while True:
            document = step()
            if document is None:
                return b"[" + b",".join(documents) + b"]"
            if document is not True:
                append(document)

    def _gather(self, documents: list[bytes]) -> None:
        """As `step` to the end, for a query without filters: keys by the handful, counters in local variables."""
        scan, transaction = self.scan, self._transaction
        if scan is None:
            return
        room = min(self._limits) if self._limits else SCAN_CHUNK_KEYS_MAX
        prefix, writes, usage = self._prefix, transaction.writes, transaction.usage
        base, read_document = transaction.base_reader(), usage.read_document
        append, size_of = documents.append, int.from_bytes
        while room:
            keys = scan.next_keys(room)
            if not keys:
                return
            usage.look()
            for key in keys:
                document_key = prefix + key[-_INTERNAL_ID_BYTES:]
                if writes:
                    write = writes.get(document_key)
                    if write is not None and write.json is not None:
                        read_document(write.size)
                        append(write.json)
                        continue
                stored = base(document_key)
                if stored is None:
                    raise SystemFault("IndexCorrupted", _NO_DOCUMENT)
                read_document(size_of(stored[:4], "big") & SIZE_MASK)
                append(stored[HEADER_BYTES:])
            if self._limits:
                room -= len(keys)

    def _passes(self, json: bytes, size: int) -> bool:
        """Whether the document passes each operator in turn; spends the limits on its way."""
        limits = self._limits
        at_limit = 0
        document: dict[str, Any] = parse_document(json) if self._has_filter else {}
        for filter_, _ in self._operators:
            if filter_ is None:
                limits[at_limit] -= 1
                at_limit += 1
            else:
                self._transaction.usage.filter(filter_.cost(size))
                if not filter_.keeps(document):
                    return False
        return True


def collect_plan(transaction: "Transaction", plan: Plan) -> bytes:
    """All documents of a plan, as a JSON array."""
    index = plan.index
    if plan.few and index is not None and index.number not in transaction.layers:
        overlay = transaction.overlay
        pending = None if overlay is None else overlay.indexes.get(index.number)
        if pending is None or not pending.entries:
            return _collect_few(transaction, plan, index)
    return open_stream(transaction, plan).collect()


def _collect_few(transaction: "Transaction", plan: Plan, index: Index) -> bytes:
    """What `open_stream(transaction, plan).collect()` gives, for a plan with `few` over an index that nothing pending
    has changed: one read of storage, no scan that could go on."""
    transaction.usage.read_range()
    table, few = plan.table, plan.few
    assert table is not None
    number, lower, upper, reverse = index.number, plan.lower, plan.upper, plan.reverse
    if upper is not None and lower >= upper:
        return b"[]"
    keys = transaction.snapshot.scan_index_keys(number, lower, upper, reverse, few, transaction.usage.gather)
    if len(keys) < few:
        transaction.note_range((number, lower, upper))
    elif reverse:
        transaction.note_range((number, keys[-1], upper))
    else:
        transaction.note_range((number, lower, keys[-1] + b"\0"))
    documents: list[bytes] = []
    prefix, writes, usage = table.prefix, transaction.writes, transaction.usage
    for key in keys:
        document_key = prefix + key[-_INTERNAL_ID_BYTES:]
        write = writes.get(document_key) if writes else None
        if write is not None and write.json is not None:
            json, size = write.json, write.size
        else:
            stored = transaction.base(document_key)
            if stored is None:
                raise SystemFault("IndexCorrupted", _NO_DOCUMENT)
            json, size = stored[HEADER_BYTES:], int.from_bytes(stored[:4], "big") & SIZE_MASK
        usage.read_document(size)
        documents.append(json)
    return b"[" + b",".join(documents) + b"]"


def open_stream(transaction: "Transaction", plan: Plan) -> QueryStream:
    """Open a plan over its whole range."""
    transaction.usage.read_range()
    limit = plan.first_limit
    chunk = limit if 0 < limit < SCAN_CHUNK_KEYS_MAX else SCAN_CHUNK_KEYS_FIRST
    return QueryStream(transaction, plan, plan.lower, plan.upper, chunk)
