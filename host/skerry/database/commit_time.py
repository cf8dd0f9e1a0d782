"""Commit timestamps in documents: what stood for them while a mutation ran becomes the timestamp of its commit.

Within the mutation a document holds `COMMIT_TS`, in its text as `{"$commitTs":null}`, and is indexed under the largest
int64. When the commit gets its timestamp, the text and the index entries are made anew; nothing else of a commit
depends on the timestamp, and a key does not grow by it.
"""

from collections.abc import Iterable
from typing import Any, Final

from skerry.database.catalog import creation_tail
from skerry.database.document_write import DocumentWrite
from skerry.database.overlay import IndexLayer
from skerry.database.stored import HEADER_BYTES, parse_document
from skerry.value import COMMIT_TS, Int64, dumps
from skerry.value.kinds import kind_of

COMMIT_TS_MARK: Final = b'"$commitTs"'
"""Stands in the text of a document that may hold a commit timestamp; a string of its may be a false alarm."""


def resolve_commit_ts(
    writes: dict[bytes, DocumentWrite], layers: dict[int, IndexLayer], keys: Iterable[bytes], commit_ts: int
) -> None:
    """Puts the timestamp into those of the written documents that wait for it, and moves their index entries."""
    for key in keys:
        write = writes.get(key)
        if write is not None and write.json is not None and COMMIT_TS_MARK in write.json:
            _resolve(write, layers, Int64(commit_ts))


def _resolve(write: DocumentWrite, layers: dict[int, IndexLayer], timestamp: Int64) -> None:
    assert write.json is not None
    document = parse_document(write.json)
    resolved: dict[str, Any] = {name: _with(value, timestamp) for name, value in document.items()}
    before = None if write.before is None else parse_document(write.before[HEADER_BYTES:])
    tail = creation_tail(document["_creationTime"], write.internal_id)
    for index in write.table.stored:
        waiting, final = set(index.keys(document, tail)), set(index.keys(resolved, tail))
        if waiting == final:
            continue
        stored: set[bytes] = set() if before is None else set(index.keys(before, tail))
        layer = layers.setdefault(index.number, IndexLayer())
        for key in waiting - final:
            if key in stored:
                layer.put(key, -1)
            elif key in layer.entries:
                layer.drop(key)
        for key in final - waiting:
            if key not in stored:
                layer.put(key, 1)
            elif key in layer.entries:
                layer.drop(key)
    write.json = dumps(resolved)


def _with(value: Any, timestamp: Int64) -> Any:
    """The value with the timestamp where it waits for it."""
    if value is COMMIT_TS:
        return timestamp
    kind = kind_of(value)
    if kind is dict:
        return {name: _with(inner, timestamp) for name, inner in value.items()}
    if kind is list:
        return [_with(inner, timestamp) for inner in value]
    return value
