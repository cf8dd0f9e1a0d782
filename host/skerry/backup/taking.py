"""Taking a backup: one snapshot written down piece by piece, while the deployment serves.

An increment has what changed since the timestamp of another backup. It follows the commit log, so its cost is that of
the changes, and it can only be taken while the log goes back that far (the deployment's retention). A document is
written where its newest version stands in the log; a table that an import has filled anew is written whole.

Memory: one piece, one document, one entry of the log. Concurrency: any one thread, with a snapshot for it.
"""

from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson

from skerry.backup.file import CONTENTS, Head, Writer, dump_head
from skerry.database import read_entry, retained_ts
from skerry.database.catalog import Catalog, Table
from skerry.database.catalog_store import load_catalog
from skerry.database.pending import last_commit_ts
from skerry.database.stored import HEADER_BYTES, commit_ts_of
from skerry.database.walking import chunks
from skerry.errors import ClientError, SystemFault
from skerry.functions.kept_versions import kept_in
from skerry.functions.settings import SETTINGS_KEY
from skerry.limits import BACKUP_CHUNK_BYTES, BACKUP_PIECE_BYTES, VERIFY_STEP_ITEMS
from skerry.storage import StorageSnapshot, Tree
from skerry.value import encode_document_id

_TS_BYTES = 8
_NS_PER_MS = 1_000_000
_LOG_STEP_ITEMS = 16


class Taking:
    """One backup of a snapshot. Shape: `head` is what it will say of itself; `bundle` gives the path of a version.

    Raises: ClientError `BackupBaseUnknown` where the snapshot does not know all that changed since.
    """

    def __init__(
        self,
        snapshot: StorageSnapshot,
        bundle: Callable[[str], Path],
        *,
        name: str,
        now_ms: int,
        documents: int,
        since: int | None = None,
        previous: str | None = None,
    ) -> None:
        self._snapshot = snapshot
        self._bundle = bundle
        self._catalog: Catalog = load_catalog(snapshot)
        ts = last_commit_ts(snapshot)
        if since is not None:
            _check_base(snapshot, since, ts)
        settings = snapshot.get(Tree.META, SETTINGS_KEY)
        kept = kept_in(snapshot)
        self._tables = [table for table in self._catalog.tables.values() if not table.is_system]
        self.head = Head(
            deployment=name,
            ts=ts,
            since=since,
            previous=previous,
            created_ms=now_ms,
            documents=documents,
            tables=[(table.name, table.number) for table in self._tables],
            schema=self._catalog.schema,
            settings={} if settings is None else orjson.loads(settings),
            versions=[(entry.digest, entry.activated_ms, entry.size_bytes, entry.functions) for entry in kept],
            contents=list(CONTENTS),
        )

    def pieces(self) -> Iterator[bytes]:
        """The file, in pieces of some `BACKUP_PIECE_BYTES` of text; empty ones let the thread rest."""
        writer = Writer()
        writer.line(b"H", dump_head(self.head))
        since = self.head.since
        for digest, activated_ms, _, _ in self.head.versions:
            if since is None or (activated_ms + 1) * _NS_PER_MS > since:
                yield from self._version(writer, digest)
        if since is None:
            for table in self._tables:
                yield from self._documents(writer, table)
        else:
            replaced = [table for table in self._tables if table.since_ts > since]
            for table in replaced:
                writer.line(b"R", table.name.encode())
                yield from self._documents(writer, table)
            yield from self._changes(writer, since, {table.space for table in replaced})
        yield writer.end()

    def _version(self, writer: Writer, digest: str) -> Iterator[bytes]:
        try:
            with self._bundle(digest).open("rb") as file:
                writer.line(b"V", orjson.dumps({"digest": digest}))
                while chunk := file.read(BACKUP_CHUNK_BYTES):
                    writer.line(b"C", b64encode(chunk))
                    if writer.waiting_bytes >= BACKUP_PIECE_BYTES:
                        yield writer.take()
        except OSError as error:
            if digest == self.head.versions[0][0]:
                raise SystemFault(
                    "StorageFailed", f"The bundle {digest:.12} cannot be read: {error.strerror}."
                ) from error

    def _documents(self, writer: Writer, table: Table) -> Iterator[bytes]:
        for items in chunks(self._snapshot, Tree.DOCUMENTS, table.prefix, table.end, VERIFY_STEP_ITEMS):
            for _, stored in items:
                writer.line(b"D", stored[HEADER_BYTES:])
            yield writer.take() if writer.waiting_bytes >= BACKUP_PIECE_BYTES else b""

    def _changes(self, writer: Writer, since: int, replaced: set[int]) -> Iterator[bytes]:
        first = (since + 1).to_bytes(_TS_BYTES, "big")
        spaces = self._catalog.spaces
        for items in chunks(self._snapshot, Tree.COMMIT_LOG, first, None, _LOG_STEP_ITEMS):
            for stamp, raw in items:
                for change in read_entry(raw)[1]:
                    space = int.from_bytes(change.key[:4], "big")
                    table = spaces.get(space)
                    if table is None or space in replaced:
                        continue
                    stored = self._snapshot.get(Tree.DOCUMENTS, change.key)
                    if stored is None:
                        if not change.is_written:
                            writer.line(b"X", encode_document_id(table.number, change.key[4:]).encode())
                    elif change.is_written and commit_ts_of(stored) == int.from_bytes(stamp, "big"):
                        writer.line(b"D", stored[HEADER_BYTES:])
                    if writer.waiting_bytes >= BACKUP_PIECE_BYTES:
                        yield writer.take()
            yield b""


def _check_base(snapshot: StorageSnapshot, since: int, ts: int) -> None:
    retained = retained_ts(snapshot)
    known = since == retained or snapshot.get(Tree.COMMIT_LOG, since.to_bytes(_TS_BYTES, "big")) is not None
    if not retained <= since <= ts or not known:
        raise ClientError(
            "BackupBaseUnknown",
            "What changed since that backup is not known any more, or it is another deployment's: take a full backup.",
        )
