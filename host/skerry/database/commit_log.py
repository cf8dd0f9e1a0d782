"""What a commit writes: current trees, history, the commit log entry; and how the entry is read back.

Shape of an entry, under the 8-byte big-endian commit timestamp: length of the call record (4 bytes), the call
record, then for each document its 20-byte key, the timestamp of the version it replaced (8 bytes, 0 for an insert)
and one byte: 1 where a version was written, 0 where the document was deleted.

Why history costs what it costs is told in `history`.
"""

from collections.abc import Iterable
from struct import Struct
from typing import TYPE_CHECKING, Final, NamedTuple

from skerry.database.catalog import CATALOG_INDEX, Table, creation_tail, number_key, table_key
from skerry.database.overlay import IndexLayer, Overlay
from skerry.database.stored import HEADER_BYTES, commit_ts_of, parse_document, stored_form
from skerry.limits import COMMIT_TS_MAX
from skerry.storage import Tree, Write

if TYPE_CHECKING:
    from skerry.database.transaction import DocumentWrite

_LENGTH: Final = Struct(">I")
_CHANGE: Final = Struct(">20sQB")
_TIMESTAMP_BYTES: Final = 8


class Change(NamedTuple):
    """One document in a commit log entry; `previous_ts` is 0 for an insert."""

    key: bytes
    previous_ts: int
    is_written: bool


class CommitRecord:
    """A commit as later transactions and subscriptions see it: its timestamp and what it wrote."""

    __slots__ = ("commit_ts", "created", "size", "writes")

    def __init__(self, commit_ts: int, writes: "list[DocumentWrite]", created: list[Table], size: int) -> None:
        self.commit_ts = commit_ts
        self.writes = writes
        self.created = created
        self.size = size

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
                    keys += [(index.number, index.key(document, tail)) for index in indexes]
        return keys


def commit_writes(
    writes: "dict[bytes, DocumentWrite]",
    layers: dict[int, IndexLayer],
    commit_ts: int,
    call_record: bytes,
    overlay: Overlay,
) -> list[Write]:
    """The storage writes of one commit; puts the same changes into the overlay."""
    out: list[Write] = []
    append = out.append
    log: list[bytes] = [_LENGTH.pack(len(call_record)), call_record]
    documents, stamps = overlay.documents, overlay.stamps
    for key, write in writes.items():
        before, json = write.before, write.json
        if before is not None:
            previous_ts = commit_ts_of(before)
            append((Tree.DOCUMENT_HISTORY, history_key(key, previous_ts), before))
        elif json is None:
            continue
        else:
            previous_ts = 0
        if json is None:
            append((Tree.DOCUMENTS, key, None))
            append((Tree.DOCUMENT_HISTORY, history_key(key, commit_ts), b""))
            documents[key] = None
            log.append(_CHANGE.pack(key, previous_ts, 0))
        else:
            stored = stored_form(json, write.size, commit_ts)
            append((Tree.DOCUMENTS, key, stored))
            documents[key] = stored
            log.append(_CHANGE.pack(key, previous_ts, 1))
        stamps[key] = commit_ts
    stamp = commit_ts.to_bytes(_TIMESTAMP_BYTES, "big")
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
                    append((Tree.INDEXES, prefix + key, b""))
            else:
                put(key, -commit_ts)
                if is_stored:
                    append((Tree.INDEXES, prefix + key, None))
                    append((Tree.INDEX_HISTORY, prefix + key, stamp))
    append((Tree.COMMIT_LOG, stamp, b"".join(log)))
    return out


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
    """The call record and the changes of a commit log entry."""
    (length,) = _LENGTH.unpack_from(raw)
    at = _LENGTH.size + length
    changes = [Change(key, previous, bool(kind)) for key, previous, kind in _CHANGE.iter_unpack(raw[at:])]
    return raw[_LENGTH.size : at], changes


def history_key(key: bytes, commit_ts: int) -> bytes:
    """Where a version of a document is kept in the history: newest first."""
    return key + (COMMIT_TS_MAX - commit_ts).to_bytes(_TIMESTAMP_BYTES, "big")
