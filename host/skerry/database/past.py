"""A snapshot of the past: the durable state as of a timestamp, in the form in which transactions read storage.

A transaction over it needs to know nothing of history. A document is found by `history.version_at`. A range is read in
chunks: what is there now and what went away since are candidates, and a candidate counts if its document had it then.
So a range costs what it holds today and has lost since the timestamp, which retention bounds.

What is of the past is documents and index entries. Everything else is of today: code, schema, the names and numbers of
tables, and whatever else lies in the META tree.

An index can be read as of its own beginning at the earliest: of what changed before, it has no entries. The same holds
for a table whose contents an import put there.
"""

from collections.abc import Iterator
from typing import Final

from skerry.database.catalog import Catalog, Index, Table
from skerry.database.history import makes_key, must_be_retained, version_at
from skerry.database.stored import commit_ts_of
from skerry.database.usage import Usage
from skerry.errors import ClientError, SystemFault
from skerry.limits import PAST_CHUNK_KEYS
from skerry.storage import Charge, Item, StorageSnapshot, Tree
from skerry.storage.interface import index_end, index_prefix

_DOCUMENT_KEY_BYTES: Final = 20
_NUMBER_BYTES: Final = 4
_INTERNAL_ID_BYTES: Final = 16
_BEHIND_STAMPS: Final = b"\xff" * 9
"""Behind every timestamp that follows a document key in the history."""


def past_snapshot(snapshot: StorageSnapshot, catalog: Catalog, timestamp: int, newest_ts: int) -> StorageSnapshot:
    """The state as of a timestamp, above a snapshot that holds all commits up to `newest_ts`.

    Raises: ClientError `TimestampInFuture`; SystemFault `OutOfRetention`.
    """
    if timestamp == newest_ts:
        return snapshot
    if timestamp > newest_ts:
        raise ClientError(
            "TimestampInFuture", f"Timestamp {timestamp} lies behind {newest_ts}, the newest commit that is durable."
        )
    must_be_retained(snapshot, timestamp)
    return PastSnapshot(snapshot, catalog, timestamp)


def bound_past(snapshot: StorageSnapshot, usage: Usage) -> None:
    """Bounds the time of long scans of the past by what bounds a transaction's other long work."""
    if isinstance(snapshot, PastSnapshot):
        snapshot.usage = usage


class PastSnapshot:
    """A storage snapshot as of a timestamp.

    Shape: `usage` is that of the transaction, which bounds the time of long scans. Closing what lies below is
    another's business.
    """

    __slots__ = ("_catalog", "_indexes", "_snapshot", "_timestamp", "usage")

    def __init__(self, snapshot: StorageSnapshot, catalog: Catalog, timestamp: int) -> None:
        self._snapshot = snapshot
        self._catalog = catalog
        self._timestamp = timestamp
        self._indexes: dict[int, tuple[Table, Index]] | None = None
        self.usage = Usage()

    def get(self, tree: Tree, key: bytes) -> bytes | None:
        if tree is not Tree.DOCUMENTS:
            return self._snapshot.get(tree, key)
        self._must_reach(self._catalog.spaces.get(int.from_bytes(key[:_NUMBER_BYTES], "big")), None)
        return version_at(self._snapshot, key, self._timestamp)

    def scan_chunk(
        self, tree: Tree, lower: bytes, upper: bytes | None, reverse: bool, max_items: int, charge: Charge | None = None
    ) -> list[Item]:
        """As of a snapshot; documents and index entries of one table or index, other trees as they are today."""
        number = int.from_bytes(lower[:_NUMBER_BYTES], "big")
        if tree is Tree.INDEXES:
            end = None if upper is None or upper == index_end(number) else upper[_NUMBER_BYTES:]
            keys = self.scan_index_keys(number, lower[_NUMBER_BYTES:], end, reverse, max_items, charge)
            return [(lower[:_NUMBER_BYTES] + key, b"") for key in keys]
        if tree is not Tree.DOCUMENTS:
            return self._snapshot.scan_chunk(tree, lower, upper, reverse, max_items, charge)
        self._must_reach(self._catalog.spaces.get(number), None)
        items: list[Item] = []
        for key in self._candidates(_DocumentKeys(self._snapshot, self._timestamp), lower, upper, reverse):
            stored = version_at(self._snapshot, key, self._timestamp)
            if stored is not None:
                items.append((key, stored))
                if len(items) == max_items:
                    break
        return items

    def scan_index_keys(
        self,
        index_number: int,
        lower: bytes,
        upper: bytes | None,
        reverse: bool,
        max_items: int,
        charge: Charge | None = None,
    ) -> list[bytes]:
        indexes = self._indexes
        if indexes is None:
            indexes = self._indexes = {
                index.number: (table, index) for table in self._catalog.tables.values() for index in table.stored
            }
        found = indexes.get(index_number)
        if found is None:
            return []
        table, index = found
        self._must_reach(table, index)
        snapshot, timestamp, prefix = self._snapshot, self._timestamp, table.prefix
        keys: list[bytes] = []
        for key in self._candidates(_IndexKeys(snapshot, timestamp, index_number, charge), lower, upper, reverse):
            document_key = prefix + key[-_INTERNAL_ID_BYTES:]
            stored = snapshot.get(Tree.DOCUMENTS, document_key)
            if stored is None or commit_ts_of(stored) > timestamp:
                stored = version_at(snapshot, document_key, timestamp)
            if stored is not None and makes_key(index, stored, key):
                keys.append(key)
                if len(keys) == max_items:
                    break
        return keys

    def _candidates(
        self, source: "_DocumentKeys | _IndexKeys", lower: bytes, upper: bytes | None, reverse: bool
    ) -> Iterator[bytes]:
        """The keys in a range that are there now or were taken out since, each once, in order."""
        while upper is None or lower < upper:
            self.usage.look()
            now, now_end = source.present(lower, upper, reverse)
            gone, gone_end = source.gone(lower, upper, reverse)
            ends = [end for end in (now_end, gone_end) if end is not None]
            end = None if not ends else max(ends) if reverse else min(ends)
            keys = {*now, *gone}
            if end is not None:
                keys = {key for key in keys if (key >= end if reverse else key <= end)}
            yield from sorted(keys, reverse=reverse)
            if end is None:
                return
            if reverse:
                upper = end
            else:
                lower = end + b"\0"

    def _must_reach(self, table: Table | None, index: Index | None) -> None:
        """Raises: SystemFault `OutOfRetention`, where a table's or an index's own past does not go back so far."""
        if table is None:
            return
        since = table.since_ts
        if index is not None and index is not table.by_creation_time:
            since = max(since, index.since_ts or self._catalog.schema_ts)
        if self._timestamp < since:
            name = f"Index {table.name}.{index.name}" if index is not None else f"Table {table.name}"
            raise SystemFault(
                "OutOfRetention",
                f"{name} cannot be read as of {self._timestamp}: it is only kept since {since}. Read at a newer one.",
            )

    def scan(
        self, tree: Tree, lower: bytes, upper: bytes | None, reverse: bool, charge: Charge | None = None
    ) -> Iterator[Item]:
        raise NotImplementedError("the past is read in chunks")

    def scan_index(
        self, index_number: int, lower: bytes, upper: bytes | None, reverse: bool, charge: Charge | None = None
    ) -> Iterator[Item]:
        raise NotImplementedError("the past is read in chunks")

    def renew(self) -> None:
        raise NotImplementedError("the past does not move on")

    def close(self) -> None:
        """Nothing: what lies below is another's to close."""


Keys = tuple[list[bytes], bytes | None]
"""Keys of a chunk, and the last key that it covers, None where it covers all."""


class _IndexKeys:
    """Where the candidates of an index range come from."""

    def __init__(self, snapshot: StorageSnapshot, timestamp: int, number: int, charge: Charge | None) -> None:
        self._snapshot = snapshot
        self._timestamp = timestamp
        self._number = number
        self._charge = charge

    def present(self, lower: bytes, upper: bytes | None, reverse: bool) -> Keys:
        keys = self._snapshot.scan_index_keys(self._number, lower, upper, reverse, PAST_CHUNK_KEYS, self._charge)
        return keys, keys[-1] if len(keys) == PAST_CHUNK_KEYS else None

    def gone(self, lower: bytes, upper: bytes | None, reverse: bool) -> Keys:
        prefix = index_prefix(self._number)
        end = index_end(self._number) if upper is None else prefix + upper
        items = self._snapshot.scan_chunk(
            Tree.INDEX_HISTORY, prefix + lower, end, reverse, PAST_CHUNK_KEYS, self._charge
        )
        keys = [key[_NUMBER_BYTES:] for key, removed in items if int.from_bytes(removed, "big") > self._timestamp]
        return keys, items[-1][0][_NUMBER_BYTES:] if len(items) == PAST_CHUNK_KEYS else None


class _DocumentKeys:
    """Where the candidates of a range of document keys come from."""

    def __init__(self, snapshot: StorageSnapshot, timestamp: int) -> None:
        self._snapshot = snapshot
        self._stamp = timestamp.to_bytes(8, "big")

    def present(self, lower: bytes, upper: bytes | None, reverse: bool) -> Keys:
        items = self._snapshot.scan_chunk(Tree.DOCUMENTS, lower, upper, reverse, PAST_CHUNK_KEYS)
        keys = [key for key, _ in items]
        return keys, keys[-1] if len(keys) == PAST_CHUNK_KEYS else None

    def gone(self, lower: bytes, upper: bytes | None, reverse: bool) -> Keys:
        """From the milestones and deletions, which lie behind each document's key under their timestamps."""
        first = lower[:_DOCUMENT_KEY_BYTES]
        end = upper[:_DOCUMENT_KEY_BYTES] + _BEHIND_STAMPS if upper and len(upper) > _DOCUMENT_KEY_BYTES else upper
        if len(lower) > _DOCUMENT_KEY_BYTES:
            first += _BEHIND_STAMPS  # behind a document: what lies under its key is its own
        items = self._snapshot.scan_chunk(Tree.DOCUMENT_HISTORY, first, end, reverse, PAST_CHUNK_KEYS)
        keys = [key[:_DOCUMENT_KEY_BYTES] for key, _ in items if key[_DOCUMENT_KEY_BYTES:] > self._stamp]
        if len(items) < PAST_CHUNK_KEYS:
            return keys, None
        last = items[-1][0][:_DOCUMENT_KEY_BYTES]
        return [*keys, last], last  # what is left of its history lies behind the chunk, and may be newer
