"""Making a new deployment's folder out of a full backup and its increments, read as the input of a stranger.

The folder is one that nobody serves; whoever calls puts it in its place once this has ended well, and removes it
otherwise. Documents are decoded, checked and written anew, never taken over as bytes; bundles are kept under the digest
of their own contents and checked like an upload when the deployment opens. Once all files are read, the schema is
applied as a deploy applies it, which judges documents and builds indexes, and everything is verified. History begins
at the backup's timestamp.

Memory: one batch, one document, one bundle. Concurrency: one thread, which it blocks.
"""

import os
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Callable
from math import isfinite
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final, cast

import orjson

from skerry.backup.file import Head, Lines, Read, at, invalid, load_head, parse
from skerry.bundle.bundle_file import read_bundle
from skerry.database import Database, verify
from skerry.database.catalog import Table, creation_tail, empty_catalog
from skerry.database.catalog_store import TABLE_PREFIX
from skerry.database.commit_log import empty_entry
from skerry.database.history import RETAINED_KEY
from skerry.database.index_kinds import dump_table
from skerry.database.stored import HEADER_BYTES, parse_document, stored_form
from skerry.database.walking import chunks
from skerry.errors import ClientError, DeveloperError
from skerry.functions.kept_versions import BUNDLES_FOLDER, KeptVersion, is_digest, kept_writes
from skerry.functions.settings import SETTINGS_KEY, checked_settings
from skerry.limits import (
    BUNDLE_FILE_BYTES_MAX,
    BUNDLES_KEPT_MAX,
    DOCUMENT_BYTES_MAX,
    RESTORE_BATCH_BYTES,
    RESTORE_TABLE_NUMBER_MAX,
    TABLES_MAX,
    VERIFY_STEP_ITEMS,
)
from skerry.storage import Tree, Write, index_prefix
from skerry.storage.folder import sync_folder
from skerry.storage.lmdb_engine import LmdbEngine
from skerry.value import check_document, check_table_name, dumps, loads, try_decode_document_id

_TS_BYTES: Final = 8
_ESCAPED: Final = 6  # bytes of text that one byte of a document takes at most
_RECORD: Final = b'{"kind":"restore"}'


class Restoring:
    """One restore into `folder`, which is made. Shape: `documents` counts the lines that were taken in.

    `is_over` is asked now and then whether to stop; `bytes_max` bounds what the documents take.
    Raises: ClientError `BackupInvalid`; SystemFault of storage.
    """

    def __init__(
        self, folder: Path, clock_ns: Callable[[], int], bytes_max: int, check: Callable[[], None] | None = None
    ) -> None:
        self.documents = 0
        self.head: Head | None = None
        self._check = check or _go_on
        self._clock_ns = clock_ns
        self._bytes_max = bytes_max
        self._bytes = 0
        self._tables: dict[int, Table] = {}
        self._next_index = 0
        self._digest = ""
        self._stamp = b""
        self._writes: list[Write] = []
        self._batch: dict[bytes, bytes | None] = {}
        self._batch_bytes = 0
        self._version: str | None = None
        self._version_bytes = 0
        self._engine = LmdbEngine(folder)
        self._snapshot = self._engine.snapshot()
        self._bundles = folder / BUNDLES_FOLDER
        self._bundles.mkdir(0o700)

    def run(self, read: Read) -> None:
        """All of it."""
        try:
            lines = Lines(read)
            for kind, text in lines:
                try:
                    self._take(kind, text, lines)
                except (ClientError, DeveloperError) as error:
                    raise at(error, f"file {lines.files}, line {lines.line}: ") from error
            try:
                if self.head is None:
                    raise invalid("the file is empty.")
                self._end_version()
                self._finish(self.head)
            except (ClientError, DeveloperError) as error:
                raise at(error, "") from error
        finally:
            self._snapshot.close()
            self._engine.close()

    def _take(self, kind: bytes, text: bytes, lines: Lines) -> None:
        if kind == b"H":
            self._begin(load_head(text), lines)
        elif kind == b"D":
            self._document(text)
        elif kind == b"X":
            self._gone(text)
        elif kind == b"C":
            self._chunk(text)
        elif kind == b"V":
            self._end_version()
            self._begin_version(parse(text))
        elif kind == b"R":
            self._clear([table for table in self._tables.values() if table.name.encode() == text])
        else:
            raise invalid(f"a line is of the kind {kind!r}, which this server does not know.")

    # -- files of the chain ------------------------------------------------------------------------------------------

    def _begin(self, head: Head, lines: Lines) -> None:
        self._end_version()
        before = self.head
        if before is None and head.since is not None:
            raise invalid("the first file is an increment: begin with the full backup.")
        if before is not None and (head.since != before.ts or head.previous != lines.digest or head.ts < before.ts):
            raise invalid(f"file {lines.files} does not continue the one before: give them in their order.")
        if len(head.tables) > TABLES_MAX or len(head.versions) > BUNDLES_KEPT_MAX:
            raise invalid("its head names more tables or versions than there can be.")
        numbers = {number for _, number in head.tables}
        if len({name for name, _ in head.tables}) != len(head.tables) or len(numbers) != len(head.tables):
            raise invalid("its head names a table or a number twice.")
        self._stamp = max(head.ts, 1).to_bytes(_TS_BYTES, "big")
        present = {(table.name, table.number) for table in self._tables.values()}
        wanted = {(name, number) for name, number in head.tables}
        self._clear([table for table in self._tables.values() if (table.name, table.number) not in wanted], drop=True)
        for name, number in wanted - present:
            self._add_table(name, number)
        self.head = head

    def _add_table(self, name: str, number: int) -> None:
        first = empty_catalog()
        if not 0 < number <= RESTORE_TABLE_NUMBER_MAX or number in first.numbers or name[:1] == "_":
            raise invalid(f"the table {name[:64]!r} has a name or a number that no table can have.")
        check_table_name(name)
        index = first.next_index + self._next_index
        self._next_index += 2
        self._tables[number] = Table(number, name, index, index + 1, {}, None)

    def _clear(self, tables: list[Table], *, drop: bool = False) -> None:
        """Deletes all documents of tables that an increment fills anew, or does not have any more."""
        self._send()
        for table in tables:
            for items in chunks(self._snapshot, Tree.DOCUMENTS, table.prefix, table.end, VERIFY_STEP_ITEMS):
                for key, stored in items:
                    self._writes += [(Tree.DOCUMENTS, key, None), self._entry(table, key, stored, False)]
                self._send(renew=False)
            self._snapshot.renew()
            if drop:
                del self._tables[table.number]

    # -- documents -----------------------------------------------------------------------------------------------------

    def _document(self, text: bytes) -> None:
        document: Any = loads(text, bytes_max=_ESCAPED * DOCUMENT_BYTES_MAX)
        if type(document) is not dict:
            raise invalid("a document is no object.")
        fields = cast("dict[str, Any]", document)
        time = fields.get("_creationTime")
        if (type(time) is not int and type(time) is not float) or not isfinite(time):
            raise invalid("a document's _creationTime is no number.")
        table, key = self._place(fields.get("_id"))
        size = check_document(fields)
        self._forget(table, key)
        stored = stored_form(dumps(fields), size, self._stamp, None)
        self._bytes += len(stored)
        if self._bytes > self._bytes_max:
            raise invalid(
                f"its documents take more than {self._bytes_max} bytes, the storage quota: restore with a larger one."
            )
        self._writes += [(Tree.DOCUMENTS, key, stored), self._entry(table, key, stored, True)]
        self._batch[key] = stored
        self._batch_bytes += 2 * len(key) + len(stored)
        self.documents += 1
        if self._batch_bytes >= RESTORE_BATCH_BYTES:
            self._send()

    def _gone(self, text: bytes) -> None:
        table, key = self._place(text.decode("ascii", errors="replace"))
        self._forget(table, key)
        self._writes.append((Tree.DOCUMENTS, key, None))
        self._batch[key] = None
        self._batch_bytes += 2 * len(key)
        if self._batch_bytes >= RESTORE_BATCH_BYTES:
            self._send()

    def _place(self, document_id: Any) -> tuple[Table, bytes]:
        decoded = try_decode_document_id(document_id) if type(document_id) is str else None
        table = None if decoded is None else self._tables.get(decoded[0])
        if decoded is None or table is None:
            raise invalid("a document's _id is none of the tables of its backup.")
        return table, table.prefix + decoded[1]

    def _forget(self, table: Table, key: bytes) -> None:
        """Takes the entry of the version before out, which only an increment can replace."""
        head = self.head
        before = self._batch[key] if key in self._batch else self._snapshot.get(Tree.DOCUMENTS, key)
        if before is None:
            return
        if head is None or head.since is None:
            raise invalid("a document is there twice.")
        self._bytes -= len(before)
        self._writes.append(self._entry(table, key, before, False))

    def _entry(self, table: Table, key: bytes, stored: bytes, is_there: bool) -> Write:
        tail = creation_tail(parse_document(stored[HEADER_BYTES:])["_creationTime"], key[4:])
        return (Tree.INDEXES, index_prefix(table.by_creation_time.number) + tail, b"" if is_there else None)

    def _send(self, *, renew: bool = True) -> None:
        self._check()
        if self._writes:
            self._engine.commit(self._writes).result()
            self._writes = []
        self._batch.clear()
        self._batch_bytes = 0
        if renew:
            self._snapshot.renew()

    # -- code ----------------------------------------------------------------------------------------------------------

    def _begin_version(self, fields: dict[str, Any]) -> None:
        digest = fields.get("digest")
        if not is_digest(digest) or self.head is None or all(digest != entry[0] for entry in self.head.versions):
            raise invalid("a version of code has a digest that its head does not name.")
        self._version, self._version_bytes = digest, 0
        (self._bundles / f"{digest}.new").unlink(missing_ok=True)

    def _chunk(self, text: bytes) -> None:
        if self._version is None:
            raise invalid("a piece of code belongs to no version.")
        try:
            chunk = b64decode(text, validate=True)
        except (Base64Error, ValueError):
            raise invalid("a piece of code is no base64.") from None
        self._version_bytes += len(chunk)
        if self._version_bytes > BUNDLE_FILE_BYTES_MAX:
            raise invalid(f"a version of code has more than {BUNDLE_FILE_BYTES_MAX} bytes.")
        with (self._bundles / f"{self._version}.new").open("ab") as file:
            file.write(chunk)

    def _end_version(self) -> None:
        """Keeps the bundle that has arrived, under the digest that its contents have."""
        digest, self._version = self._version, None
        if digest is None:
            return
        arrived = self._bundles / f"{digest}.new"
        raw = arrived.read_bytes() if self._version_bytes else b""
        if read_bundle(raw).digest != digest:
            raise invalid("a version of code is another one than its digest says.")
        with arrived.open("rb") as file:
            os.fsync(file.fileno())
        arrived.rename(self._bundles / digest)

    # -- the end -------------------------------------------------------------------------------------------------------

    def _finish(self, head: Head) -> None:
        """What the last file says of schema, code and settings; then everything is judged."""
        self._send()
        versions = [
            KeptVersion(*each) for each in head.versions if is_digest(each[0]) and (self._bundles / each[0]).exists()
        ]
        if head.versions and (not versions or versions[0].digest != head.versions[0][0]):
            raise invalid("the code of its live version is missing.")
        sync_folder(self._bundles)
        writes: list[Write] = [
            (Tree.META, TABLE_PREFIX + t.name.encode(), dump_table(t)) for t in self._tables.values()
        ]
        writes += [(Tree.COMMIT_LOG, self._stamp, empty_entry(_RECORD)), (Tree.META, RETAINED_KEY, self._stamp)]
        writes.append((Tree.META, SETTINGS_KEY, orjson.dumps(checked_settings(head.settings))))
        if versions:
            writes += kept_writes(versions)
        self._engine.commit(writes).result()
        if head.schema is not None:
            self._apply(head.schema)
        snapshot = self._engine.snapshot()
        try:
            found = verify(snapshot)
        finally:
            snapshot.close()
        if not found.is_sound:
            first = found.differences[0]
            raise invalid(f"what it makes does not hold together: {first.code} at {first.place}, {first.says}.")

    def _apply(self, schema: dict[str, Any]) -> None:
        turns: SimpleQueue[Callable[[], None]] = SimpleQueue()
        database = Database(
            self._engine, clock_ns=self._clock_ns, call_soon_threadsafe=turns.put, cursor_key=b"nobody pages here"
        )
        try:
            database.apply_schema(orjson.dumps(schema))
        except DeveloperError as error:
            raise invalid(f"its schema is refused: {error.code}: {error.message}") from error
        finally:
            self._engine.on_group_durable = None


def _go_on() -> None:
    return
