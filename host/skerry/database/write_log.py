"""The write log: the commits that a transaction beside the lane may conflict with, and the judgement whether it does.

A transaction that begins at T conflicts with a later commit that changed a document it read by its id, or that took an
entry out of, or put one into, an index range it read. What it only wrote conflicts with nothing. A conflict says who
wrote what, so that whoever reads of it can tell which read to narrow.
"""

from collections import deque
from typing import NamedTuple

from skerry.database.catalog import Catalog, Index, creation_tail, value_at
from skerry.database.commit_log import CommitRecord
from skerry.database.document_write import DocumentWrite
from skerry.database.read_set import ReadSet, WriteIndex
from skerry.database.stored import HEADER_BYTES, parse_document
from skerry.database.transaction import Transaction
from skerry.errors import SystemFault
from skerry.limits import CONFLICT_VALUE_CHARS_MAX, WRITE_LOG_BYTES_MAX, WRITE_LOG_COMMITS_MAX
from skerry.value import UNDEFINED, encode_document_id, render_value


class Touch(NamedTuple):
    """What a commit changed of what a transaction had read.

    Shape: `place` says by which read it was found: "by its id", or a range of an index with the entry in it;
    `call_record` is the commit's.
    """

    table: str
    document_id: str
    place: str
    call_record: bytes


class Conflict(SystemFault):
    """What a transaction has read was changed before it could commit; run it again.

    Shape: `touch` is the document that was, None where it was something else.
    """

    def __init__(self, message: str, touch: Touch | None = None) -> None:
        super().__init__("OptimisticConcurrencyControlFailure", message)
        self.touch = touch


class WriteLog:
    """The newest commits of a deployment. Limits: WRITE_LOG_COMMITS_MAX, WRITE_LOG_BYTES_MAX."""

    def __init__(self, last_ts: int) -> None:
        self._records: deque[CommitRecord] = deque()
        self._bytes = 0
        self._forgotten_ts = last_ts

    def __len__(self) -> int:
        return len(self._records)

    @property
    def n_bytes(self) -> int:
        """What the commits in it take."""
        return self._bytes

    def append(self, record: CommitRecord) -> None:
        """Takes note of a commit."""
        self._records.append(record)
        self._bytes += record.size

    def clear(self, last_ts: int) -> None:
        """Forgets all commits, up to and including this one."""
        self._records.clear()
        self._bytes = 0
        self._forgotten_ts = last_ts

    def trim(self, keep_after: int) -> None:
        """Forgets commits that no transaction can conflict with any more, and what is past the bounds."""
        records = self._records
        while records and (
            records[0].commit_ts <= keep_after
            or len(records) > WRITE_LOG_COMMITS_MAX
            or self._bytes > WRITE_LOG_BYTES_MAX
        ):
            record = records.popleft()
            self._bytes -= record.size
            self._forgotten_ts = record.commit_ts

    def has_touched(self, reads: ReadSet, since_ts: int, until_ts: int) -> bool:
        """Whether a commit after the one timestamp, up to the other, changed what was read, or may have."""
        if since_ts >= until_ts:
            return False
        if since_ts < self._forgotten_ts:
            return True
        numbers = {number for number, _, _ in reads.ranges}
        written = WriteIndex()
        for record in reversed(self._records):
            if record.commit_ts <= since_ts:
                break
            if record.commit_ts <= until_ts:
                written.add(record.documents(), record.keys_in(numbers))
        return reads.touched_by(written)

    def check(self, transaction: Transaction, now: Catalog) -> None:
        """Raises: Conflict, if a commit since the transaction's begin changed what it read, or the tables under it."""
        begin_ts = transaction.begin_ts
        if begin_ts < self._forgotten_ts:
            raise Conflict("The transaction ran for so long that the commits since its begin are no longer known.")
        then = transaction.base_catalog
        if now.schema_ts != then.schema_ts or (
            transaction.created and (now.next_table, now.next_index) != (then.next_table, then.next_index)
        ):
            raise Conflict("The tables or the schema changed while the transaction ran.")
        read_set = transaction.read_set
        numbers = {number for number, _, _ in read_set.ranges}
        written = WriteIndex()
        since: list[CommitRecord] = []
        for record in reversed(self._records):
            if record.commit_ts <= begin_ts:
                break
            since.append(record)
            written.add(record.documents(), record.keys_in(numbers))
        if read_set.touched_by(written):
            raise _conflict(read_set, since[::-1])


def _conflict(read_set: ReadSet, records: list[CommitRecord]) -> Conflict:
    """The conflict with the first of these commits that touched what was read."""
    numbers = {number for number, _, _ in read_set.ranges}
    for record in records:
        for write in record.writes:
            place = _place(read_set, write, numbers)
            if place is not None:
                table = write.table
                document_id = encode_document_id(table.number, write.internal_id)
                touch = Touch(table.name, document_id, place, record.call_record)
                return Conflict(f'Documents read from or written to the "{table.name}" table changed.', touch)
    return Conflict("The tables that the transaction looked for were created while it ran.")


def _place(read_set: ReadSet, write: DocumentWrite, numbers: set[int]) -> str | None:
    """By which of its reads a transaction had seen a document that was written, None where it had not."""
    table = write.table
    if table.prefix + write.internal_id in read_set.documents:
        return "by its id"
    if table.by_id.number in numbers and read_set.holds(table.by_id.number, write.internal_id):
        return f"in a range of index {table.name}.by_id"
    for json in (None if write.before is None else write.before[HEADER_BYTES:], write.json):
        if json is None:
            continue
        document = parse_document(json)
        tail = creation_tail(document["_creationTime"], write.internal_id)
        for index in table.stored:
            if index.number in numbers and any(read_set.holds(index.number, key) for key in index.keys(document, tail)):
                return f"in a range of index {table.name}.{index.name}{_entry(index, document)}"
    return None


def _entry(index: Index, document: dict[str, object]) -> str:
    """The values of a document in an index, for a reader; nothing for an index without fields of its own."""
    shown: list[str] = []
    for field in index.fields:
        value = value_at(document, tuple(field.split(".")))
        shown.append(
            f"{field}: {'undefined' if value is UNDEFINED else render_value(value, chars_max=CONFLICT_VALUE_CHARS_MAX)}"
        )
    return f" that holds {', '.join(shown)}" if shown else ""
