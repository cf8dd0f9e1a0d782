"""What a commit writes: current trees, history, the commit log entry; and how the entry is read back.

Shape of an entry, under the 8-byte big-endian commit timestamp: length of the call record (4 bytes), the call
record, then for each document its 20-byte key, the timestamp of the version it replaced (8 bytes, 0 for an insert)
and one byte: 1 where a version was written, 0 where the document was deleted.

The replaced versions themselves lie beside the log, in the same order, under the commit timestamp and the document
key: both trees grow at their end only, so the pages that a commit dirties there are few and shared by its group. Why
history costs what it costs is told in `history`.
"""

from collections.abc import Iterable
from struct import Struct
from typing import Final, NamedTuple

from skerry.database.catalog import CATALOG_INDEX, Table, creation_tail, number_key, table_key
from skerry.database.document_write import DocumentWrite
from skerry.database.overlay import IndexLayer, Overlay
from skerry.database.stored import HEADER_BYTES, is_before_milestone, parse_document, stored_form, timestamp_bytes
from skerry.errors import SystemFault
from skerry.storage import Tree, Write

_LENGTH: Final = Struct(">I")
_CHANGE: Final = Struct(">20sQB")
_DELETED: Final = b"\0"
_WRITTEN: Final = b"\1"
_TIMESTAMP_BYTES: Final = 8
_NO_TIMESTAMP: Final = bytes(_TIMESTAMP_BYTES)
# Local names: a member of an enumeration costs a look-up in the class, a global name does not.
_DOCUMENTS: Final = Tree.DOCUMENTS
_INDEXES: Final = Tree.INDEXES
_REPLACED: Final = Tree.REPLACED
_DOCUMENT_HISTORY: Final = Tree.DOCUMENT_HISTORY
_COMMIT_LOG: Final = Tree.COMMIT_LOG


class Change(NamedTuple):
    """One document in a commit log entry; `previous_ts` is 0 for an insert."""

    key: bytes
    previous_ts: int
    is_written: bool


class CommitRecord:
    """A commit as later transactions and subscriptions see it: its timestamp, its call record and what it wrote."""

    __slots__ = ("call_record", "commit_ts", "created", "size", "writes")

    def __init__(
        self, commit_ts: int, writes: list[DocumentWrite], created: list[Table], size: int, call_record: bytes = b""
    ) -> None:
        self.call_record = call_record
        self.commit_ts = commit_ts
        self.writes = writes
        self.created = created
        self.size = size

    @property
    def is_switch(self) -> bool:
        """Whether it put another catalog in place: what was read before may lie elsewhere now, under other numbers."""
        return not self.writes and not self.created

    def documents(self) -> list[bytes]:
        """The document keys it wrote."""
        return [write.table.prefix + write.internal_id for write in self.writes]

    def keys_in(self, numbers: "set[int]") -> list[tuple[int, bytes]]:
        """The index keys it touched in the indexes with these numbers; only those are worked out."""
        keys: list[tuple[int, bytes]] = []
        if CATALOG_INDEX in numbers:
            for table in self.created:
                keys.append((CATALOG_INDEX, table_key(table.name)))
                keys.append((CATALOG_INDEX, number_key(table.number)))
        for write in self.writes:
            table = write.table
            if table.by_id.number in numbers:
                keys.append((table.by_id.number, write.internal_id))
            indexes = [index for index in table.stored if index.number in numbers]
            if not indexes:
                continue
            for json in (None if write.before is None else write.before[HEADER_BYTES:], write.json):
                if json is not None:
                    document = parse_document(json)
                    tail = creation_tail(document["_creationTime"], write.internal_id)
                    keys += [(index.number, key) for index in indexes for key in index.keys(document, tail)]
        return keys


def commit_writes(
    out: list[Write],
    writes: dict[bytes, DocumentWrite],
    layers: dict[int, IndexLayer],
    commit_ts: int,
    call_record: bytes,
    overlay: Overlay,
) -> None:
    """Append the storage writes of one commit to `out`, and put the same changes into the overlay."""
    append = out.append
    log: list[bytes] = [_LENGTH.pack(len(call_record)), call_record]
    documents, stamps = overlay.documents, overlay.stamps
    stamp = commit_ts.to_bytes(_TIMESTAMP_BYTES, "big")
    for key, write in writes.items():
        before, json = write.before, write.json
        if before is not None:
            append((_REPLACED, stamp + key, before))
            change = key + timestamp_bytes(before)
        elif json is None:
            continue
        else:
            change = key + _NO_TIMESTAMP
        if json is None:
            append((_DOCUMENTS, key, None))
            append((_DOCUMENT_HISTORY, key + stamp, b""))
            documents[key] = None
            log.append(change + _DELETED)
        else:
            stored = stored_form(json, write.size, stamp, before)
            append((_DOCUMENTS, key, stored))
            if before is not None and is_before_milestone(before):
                append((_DOCUMENT_HISTORY, key + stamp, b""))
            documents[key] = stored
            log.append(change + _WRITTEN)
        stamps[key] = commit_ts
    for number, layer in layers.items():
        pending = overlay.indexes.get(number)
        if pending is None:
            pending = overlay.indexes[number] = IndexLayer(layer.is_stored)
        prefix = number.to_bytes(4, "big")
        put, is_stored = pending.put, layer.is_stored
        for key, mark in layer.entries.items():
            if mark > 0:
                put(key, commit_ts)
                if is_stored:
                    append((_INDEXES, prefix + key, b""))
            else:
                put(key, -commit_ts)
                if is_stored:
                    append((_INDEXES, prefix + key, None))
                    append((Tree.INDEX_HISTORY, prefix + key, stamp))
    append((_COMMIT_LOG, stamp, b"".join(log)))


def empty_entry(call_record: bytes) -> bytes:
    """An entry of a commit that wrote no document."""
    return _LENGTH.pack(len(call_record)) + call_record


def drop_from_overlay(overlay: Overlay, layers: dict[int, IndexLayer], keys: Iterable[bytes], commit_ts: int) -> None:
    """Take a durable commit out of the overlay, except where a later commit wrote over it."""
    documents, stamps = overlay.documents, overlay.stamps
    for key in keys:
        if stamps.get(key) == commit_ts:
            del stamps[key]
            del documents[key]
    for number, layer in layers.items():
        pending = overlay.indexes[number]
        entries = pending.entries
        for key in layer.entries:
            mark = entries.get(key)
            if mark == commit_ts or mark == -commit_ts:
                pending.drop(key)


def read_entry(raw: bytes) -> tuple[bytes, list[Change]]:
    """The call record and the changes of a commit log entry.

    Raises: SystemFault `CommitLogCorrupted` for bytes that no commit writes.
    """
    at = _LENGTH.size
    if len(raw) >= at:
        at += _LENGTH.unpack_from(raw)[0]
        if len(raw) >= at and not (len(raw) - at) % _CHANGE.size:
            rows = list(_CHANGE.iter_unpack(raw[at:]))
            if all(kind == 1 or (kind == 0 and previous) for _, previous, kind in rows):
                return raw[_LENGTH.size : at], [Change(key, previous, kind == 1) for key, previous, kind in rows]
    raise SystemFault("CommitLogCorrupted", "An entry of the commit log cannot be read; restore the deployment's data.")
