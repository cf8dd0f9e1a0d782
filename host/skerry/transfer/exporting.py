"""One export as steps: a snapshot of a deployment that goes on serving, written as a ZIP archive.

The snapshot is a timestamp, not a storage snapshot held open for minutes, which would keep every page that is written
meanwhile from being used again. Each step reads a piece of a table from a renewed storage snapshot; what changed since
the timestamp is read from history. So an export must end within the retention, and says so where it does not.

    README.md
    _tables/documents.jsonl               {"name", "id"} of each table, by number
    TABLE/documents.jsonl                 documents in the order of their ids
    TABLE/generated_schema.jsonl          "uniform"
    _storage/documents.jsonl              where files were asked for; there are none yet

The same contents give the same bytes: entries carry no time.

Concurrency: the loop thread; compressing and writing happen beside it. Source: protocol reference 5.14.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import IO, Any, Final
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import orjson

from skerry.database import Database, Steps, read_document_at, retained_ts
from skerry.database.bulk import keep_space, leave_space
from skerry.database.catalog import Table
from skerry.database.stored import HEADER_BYTES, commit_ts_of
from skerry.errors import DeveloperError, SystemFault
from skerry.limits import EXPORT_PIECE_BYTES, EXPORT_STEP_ITEMS
from skerry.storage import StorageSnapshot, Tree
from skerry.storage.full_disk import file_fault
from skerry.value import decode, dumps_export, is_plain
from skerry.value.kinds import kind_of

Beside = Callable[[Callable[[], None]], Future[None]]

_README: Final = b"""# Snapshot

The documents of a deployment as of one moment, table by table: TABLE/documents.jsonl has one document on each line.
A number with a point or an exponent is a float64, one without is an int64; {"$float": ...} and {"$bytes": ...} hold
what JSON cannot carry. _tables/documents.jsonl has the tables' names and the numbers that their ids carry.

To bring it into a deployment: skerry import this.zip
"""
_SCHEMA: Final = b'"uniform"\n'
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)
_MODE: Final = 0o644 << 16
_BEHIND: Final = b"\xff" * 9
_DOCUMENT_KEY_BYTES: Final = 20


class Export:
    """An export being done. Shape: `ts` is its timestamp, `documents` counts, `table` is being written."""

    def __init__(self, database: Database, path: Path, beside: Beside, *, with_storage: bool) -> None:
        self.ts = database.durable_ts
        self.documents = 0
        self.table = ""
        self._database = database
        self._path = path
        self._beside = beside
        self._with_storage = with_storage
        self._tables = sorted(
            [table for table in database.durable_catalog.tables.values() if not table.is_system],
            key=lambda table: table.number,
        )
        for table in self._tables:
            keep_space(database, table.space)

    def close(self) -> None:
        """Lets go of what the export kept from being cleared away."""
        for table in self._tables:
            leave_space(self._database, table.space)
        self._tables = []

    def steps(self) -> Steps:
        """All of it. Raises: SystemFault `StorageFull`; DeveloperError `OutOfRetention`."""
        try:
            archive = ZipFile(self._path, "x", ZIP_DEFLATED)
        except OSError as error:
            raise _unwritable(error) from error
        try:
            tables = b"".join(
                [orjson.dumps({"name": table.name, "id": table.number}) + b"\n" for table in self._tables]
            )
            yield from self._entry(archive, "README.md", iter([_README]))
            yield from self._entry(archive, "_tables/documents.jsonl", iter([tables]))
            for table in self._tables:
                self.table = table.name
                yield from self._entry(archive, f"{table.name}/documents.jsonl", self._lines(table))
                yield from self._entry(archive, f"{table.name}/generated_schema.jsonl", iter([_SCHEMA]))
            if self._with_storage:
                yield from self._entry(archive, "_storage/documents.jsonl", iter(()))
        finally:
            try:
                archive.close()
            except (OSError, ValueError) as error:
                raise _unwritable(error) from error

    def _entry(self, archive: ZipFile, name: str, texts: Iterator[bytes]) -> Steps:
        info = ZipInfo(name, _EPOCH)
        info.compress_type = ZIP_DEFLATED
        info.external_attr = _MODE
        info.create_system = 3
        with archive.open(info, "w", force_zip64=True) as stream:
            gathered: list[bytes] = []
            n_bytes = 0
            for text in texts:
                gathered.append(text)
                n_bytes += len(text)
                if n_bytes >= EXPORT_PIECE_BYTES:
                    yield from self._write(stream, b"".join(gathered))
                    gathered, n_bytes = [], 0
                yield None
            yield from self._write(stream, b"".join(gathered))

    def _write(self, stream: IO[bytes], text: bytes) -> Steps:
        def write() -> None:
            stream.write(text)

        written = self._beside(write)
        yield written
        try:
            written.result()
        except OSError as error:
            raise _unwritable(error) from error

    def _lines(self, table: Table) -> Iterator[bytes]:
        """The table's documents as of the timestamp, some lines at a time."""
        snapshot = self._database.engine.snapshot()
        try:
            lower: bytes | None = table.prefix
            while lower is not None:
                snapshot.renew()
                if retained_ts(snapshot) > self.ts:
                    raise DeveloperError(
                        "OutOfRetention", "The export took longer than history is kept; raise the retention."
                    )
                text, lower = self._piece(snapshot, table, lower)
                yield text
        finally:
            snapshot.close()

    def _piece(self, snapshot: StorageSnapshot, table: Table, lower: bytes) -> tuple[bytes, bytes | None]:
        """A piece of the table from a key on, and where the next one begins."""
        count, end, ts = EXPORT_STEP_ITEMS, table.end, self.ts
        items = snapshot.scan_chunk(Tree.DOCUMENTS, lower, end, False, count)
        past = snapshot.scan_chunk(Tree.DOCUMENT_HISTORY, lower, end, False, count)
        lasts = [found[-1][0][:_DOCUMENT_KEY_BYTES] for found in (items, past) if len(found) == count]
        last = min(lasts, default=end)
        present = dict(items)
        lines: list[bytes] = []
        for key in sorted({*present, *[key[:_DOCUMENT_KEY_BYTES] for key, _ in past]}):
            if key > last:
                break
            stored = present.get(key)
            if stored is not None and commit_ts_of(stored) <= ts:
                json: bytes | None = stored[HEADER_BYTES:]
            else:
                json = read_document_at(snapshot, table, key[len(table.prefix) :], ts)
            if json is not None:
                lines.append(export_line(json))
        self.documents += len(lines)
        return b"".join(lines), last + _BEHIND if lasts else None


def export_line(json: bytes) -> bytes:
    """A stored document as a line of an export."""
    parsed: dict[str, Any] = orjson.loads(json)
    if is_plain(json):
        for name, value in parsed.items():
            kind = kind_of(value)
            if kind is int:
                parsed[name] = float(value)
            elif kind is dict or kind is list:
                break
        else:
            return orjson.dumps(parsed) + b"\n"
    return dumps_export(decode(parsed)) + b"\n"


def _unwritable(error: OSError | ValueError) -> SystemFault:
    if isinstance(error, OSError):
        return file_fault(error, "The export")
    return SystemFault("StorageFailed", f"The export could not be written: {error}.")


__all__ = ["Export", "export_line"]
