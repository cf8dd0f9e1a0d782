"""The documents of system tables, which functions read and only the host writes, within a function's transaction.

They are documents like all others: they are read, live and in the past, roll back with their transaction or its
savepoint, conflict, and are verified. What differs is who writes them: no validator, no bound of a user's document, and
nothing counted against what a function may read and write; what makes them has bounds of its own.
"""

from typing import TYPE_CHECKING, Any

from skerry.database.catalog import Table, creation_tail
from skerry.database.document_write import DocumentWrite
from skerry.database.stored import HEADER_BYTES, SIZE_MASK, parse_document
from skerry.value import decode_document_id, dumps, encode_document_id, size_of

if TYPE_CHECKING:
    from skerry.database.transaction import Transaction


def insert_system(transaction: "Transaction", table: Table, fields: dict[str, Any]) -> str:
    """Store a new document, and give its id. Raises: DeveloperError `StorageQuotaReached`."""
    internal_id = transaction.birth.internal_id()
    document_id = encode_document_id(table.number, internal_id)
    creation_time = transaction.birth.creation_time()
    document = {**fields, "_creationTime": creation_time, "_id": document_id}
    if transaction.usage.is_full:
        transaction.usage.grow(size_of(document))
    tail = creation_tail(creation_time, internal_id)
    for index in table.stored:
        for entry in index.keys(document, tail):
            transaction.mark(index.number, entry, 1)
    transaction.mark(table.by_id.number, internal_id, 1, is_stored=False)
    _put(transaction, table, internal_id, None, document)
    return document_id


def find_system(transaction: "Transaction", table: Table, internal_id: bytes) -> dict[str, Any] | None:
    """A document, decoded; it counts as read, so that the transaction conflicts with whoever changes it."""
    key = table.prefix + internal_id
    transaction.note_document(key)
    write = transaction.writes.get(key)
    if write is not None:
        json = write.json
    else:
        stored = transaction.base(key)
        json = None if stored is None else stored[HEADER_BYTES:]
    return None if json is None else parse_document(json)


def change_system(transaction: "Transaction", table: Table, old: dict[str, Any], fields: dict[str, Any]) -> None:
    """Change fields of a document that was found."""
    internal_id, before = _before(transaction, table, old)
    document = {**old, **fields}
    tail = creation_tail(old["_creationTime"], internal_id)
    for index in table.declared:
        for entry, mark in index.moves(old, document, tail):
            transaction.mark(index.number, entry, mark)
    _put(transaction, table, internal_id, before, document)


def remove_system(transaction: "Transaction", table: Table, old: dict[str, Any]) -> None:
    """Remove a document that was found."""
    internal_id, before = _before(transaction, table, old)
    tail = creation_tail(old["_creationTime"], internal_id)
    for index in table.stored:
        for entry in index.keys(old, tail):
            transaction.mark(index.number, entry, -1)
    transaction.mark(table.by_id.number, internal_id, -1, is_stored=False)
    transaction.put(table.prefix + internal_id, DocumentWrite(table, internal_id, before, None, 0))


def _before(transaction: "Transaction", table: Table, old: dict[str, Any]) -> tuple[bytes, bytes | None]:
    decoded = decode_document_id(old["_id"])
    write = transaction.writes.get(table.prefix + decoded[1])
    return decoded[1], transaction.base(table.prefix + decoded[1]) if write is None else write.before


def _put(
    transaction: "Transaction", table: Table, internal_id: bytes, before: bytes | None, document: dict[str, Any]
) -> None:
    json = dumps(document)
    transaction.usage.index_bytes += len(json)  # what a commit weighs while it waits
    size = min(size_of(document), SIZE_MASK)
    transaction.put(table.prefix + internal_id, DocumentWrite(table, internal_id, before, json, size))
