"""One import as steps: files in, hidden tables filled, one switch.

    judge what the file says of itself -> `Plan`     what would happen, to be confirmed
    fill, batch by batch                             the deployment serves
    switch                                           whoever drives holds the lane for it

A document that is large or long to judge is worked on beside the loop thread, like a schema change's. Every refusal
names the file and the line, and leaves nothing behind that anybody sees.

Concurrency: the loop thread. Source: protocol reference 5.13.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from time import perf_counter_ns
from types import TracebackType
from typing import IO, Any, Final

import orjson

from skerry.database import Database, Steps
from skerry.database.bulk import Fill, Fills, Judged
from skerry.database.catalog import Table
from skerry.errors import ClientError, DeveloperError, SystemFault
from skerry.limits import IMPORT_LARGE_TEXT_BYTES, IMPORT_STEP_US
from skerry.storage import StorageSnapshot, Tree
from skerry.transfer.archive import Archive, refused
from skerry.transfer.pieces import Unreadable
from skerry.transfer.rows import FORMATS, Row, fields_of, rows_of
from skerry.value import check_table_name, try_decode_document_id

Beside = Callable[[Callable[[], None]], Future[None]]
LAST_KEY: Final = b"last import"
"""In META: the name of the last import that was completed, and how many rows it wrote."""

MODES: Final = ("requireEmpty", "append", "replace", "replaceAll")
_STEP_NS: Final = IMPORT_STEP_US * 1_000


@dataclass(frozen=True, slots=True)
class Order:
    """What was asked for. Shape: `table` None for a snapshot archive; `name` is what messages call the file."""

    mode: str
    format: str
    table: str | None
    name: str = ""


def order_of(mode: Any, kind: Any, table: Any, name: str = "") -> Order:
    """A checked order. Raises: ClientError `ImportRefused`."""
    if mode not in MODES:
        raise refused("", f"The mode is one of {', '.join(MODES)}.")
    if kind not in FORMATS:
        raise refused("", f"The format is one of {', '.join(FORMATS)}.")
    if (kind == "zip") != (table is None):
        raise refused("", "A table is named for every format but zip, whose entries name theirs.")
    if table is not None:
        try:
            check_table_name(table)
        except (DeveloperError, TypeError, AttributeError) as error:
            raise refused("", getattr(error, "message", "The name of a table is text.")) from None
    return Order(mode, kind, table, name)


class Source:
    """The file of an import, opened: not on the loop thread, for it looks at each table's first document.

    Shape: a context; `bytes_total` of text; `numbers` what table number the ids of a table have, by the archive or by
    its first document, None where they have none.
    """

    def __init__(self, order: Order, path: Path) -> None:
        self.order = order
        self._path = path
        self._file: IO[bytes] | None = None
        self._archive = Archive(path) if order.format == "zip" else None
        self.bytes_total = path.stat().st_size if self._archive is None else self._archive.unpacked_bytes
        self.tables = [order.table] if order.table is not None else self._archive.tables if self._archive else []
        try:
            self.numbers = {name: self._number(name) for name in self.tables}
        except BaseException:
            self.__exit__(None, None, None)
            raise

    def __enter__(self) -> "Source":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._archive is not None:
            self._archive.__exit__(kind, error, at)
        if self._file is not None:
            self._file.close()

    def rows(self, table: str) -> Iterator[tuple[int, Row]]:
        """The rows of a table, from the first one."""
        if self._archive is not None:
            return self._archive.rows(table)
        if self._file is not None:
            self._file.close()
        file = self._file = self._path.open("rb")
        return rows_of(self.order.format, file.read)

    def scratch(self) -> IO[bytes]:
        """A new file without a name, where this one lies. Raises: OSError."""
        return TemporaryFile(dir=self._path.parent)

    def is_export(self, table: str) -> bool:
        return self._archive is not None and self._archive.is_export(table)

    def place(self, table: str) -> str:
        """What messages call the file of a table."""
        return self.order.name if self._archive is None else self._archive.entry_name(table)

    def _number(self, table: str) -> int | None:
        if self._archive is not None and table in self._archive.numbers:
            return self._archive.numbers[table]
        try:
            for _, row in self.rows(table):
                if row is not None:
                    given = fields_of(row, self.is_export(table)).get("_id")
                    decoded = try_decode_document_id(given) if type(given) is str else None
                    return None if decoded is None else decoded[0]
        except (Unreadable, DeveloperError):
            pass  # filling comes to the same place, and says what is wrong and where
        return None


@dataclass(frozen=True, slots=True)
class Plan:
    """What an import would do. Shape: `numbers` of the tables it fills, None for a new table without ids; `emptied`
    those that replaceAll leaves without documents; `appended` those whose documents stay."""

    numbers: dict[str, int | None]
    emptied: list[str]
    appended: list[str]
    replaced: list[str]

    @property
    def message(self) -> str:
        """What is to be confirmed, for people."""
        said: list[str] = []
        for name in self.numbers:
            what = (
                "add to" if name in self.appended else "replace the contents of" if name in self.replaced else "create"
            )
            said.append(f"  {what} table {name}")
        said += [f"  empty table {name}" for name in self.emptied]
        return "This import will\n" + "\n".join(said)

    @property
    def is_destructive(self) -> bool:
        return bool(self.emptied or self.replaced)


def plan_of(database: Database, source: Source) -> Plan:
    """What the import would do now. Raises: ClientError `ImportRefused`."""
    mode, catalog = source.order.mode, database.catalog
    numbers: dict[str, int | None] = {}
    appended: list[str] = []
    replaced: list[str] = []
    snapshot = database.engine.snapshot()
    try:
        for name in source.tables:
            table = catalog.tables.get(name)
            number = source.numbers[name]
            if table is not None and mode == "append":
                appended.append(name)
                number = table.number
            elif table is not None and _has_documents(snapshot, table):
                if mode == "requireEmpty":
                    raise _exists(name)
                replaced.append(name)
            numbers[name] = number if number is not None or table is None else table.number
        emptied = [
            table.name
            for table in catalog.tables.values()
            if mode == "replaceAll" and not table.is_system and table.name not in numbers
            and _has_documents(snapshot, table)
        ]  # fmt: skip
    finally:
        snapshot.close()
    return Plan(numbers, emptied, appended, replaced)


class Import:
    """One import being done. Shape: `rows_written` so far; `table` is being filled."""

    def __init__(
        self,
        database: Database,
        source: Source,
        clock_ms: Callable[[], float],
        entropy: Callable[[int], bytes],
        beside: Beside,
        name: str = "",
    ) -> None:
        self.rows_written = 0
        self.rows_of: dict[str, int] = {}
        self.table = ""
        self.bytes_read = 0
        self._database = database
        self._source = source
        self._beside = beside
        self._name = name
        self._plan = plan_of(database, source)
        self._fills = Fills(database, clock_ms, entropy, source.scratch, beside)

    def fill(self) -> Steps:
        """All of the files into hidden tables. Raises: ClientError; SystemFault of storage."""
        database, plan = self._database, self._plan
        numbers = {name: number or database.reserve_table_number() for name, number in plan.numbers.items()}
        numbers.update({name: database.catalog.tables[name].number for name in plan.emptied})
        yield from self._fills.begin(numbers)
        for name in plan.numbers:
            self.table = name
            fill = self._fills.fills[name]
            if name in plan.appended:
                yield from fill.copy()
            yield from self._fill(fill, name)
            self.rows_of[name] = fill.documents

    def switch(self) -> Steps:
        """The one commit. Whoever drives it holds the lane. Raises: as `Fills.switch`; ClientError `ImportRefused`."""
        if self._source.order.mode == "requireEmpty":
            self._must_be_empty()
        record = {"kind": "import", "tables": self.rows_of, "mode": self._source.order.mode}
        said = orjson.dumps({"id": self._name, "rows": self.rows_written})
        return self._fills.switch(orjson.dumps(record), [(Tree.META, LAST_KEY, said)])

    def _must_be_empty(self) -> None:
        """What was written into a table meanwhile would be lost."""
        snapshot = self._database.engine.snapshot()
        try:
            for name in self._plan.numbers:
                table = self._database.catalog.tables.get(name)
                if table is not None and _has_documents(snapshot, table):
                    raise _exists(name)
        finally:
            snapshot.close()

    def settle(self) -> Steps:
        """Wait for what is on its way to storage, whatever becomes of it; before what is left is cleared away."""
        for fill in self._fills.fills.values():
            with suppress(SystemFault):
                yield from fill.settle()

    def close(self) -> None:
        """The end, whatever became of it."""
        self._fills.close()

    def _fill(self, fill: Fill, table: str) -> Steps:
        is_export = self._source.is_export(table)
        at = 0
        end_ns = perf_counter_ns() + _STEP_NS
        try:
            for line, row in self._source.rows(table):
                at = line
                if row is not None:
                    size = len(row) if isinstance(row, bytes) else 0
                    self.bytes_read += size
                    judged: list[Judged] = []
                    if size > IMPORT_LARGE_TEXT_BYTES:
                        yield from self._judge_beside(fill, row, is_export, judged)
                        fill.refresh()
                    else:
                        try:
                            judged.append(fill.judge(fields_of(row, is_export)))
                        except DeveloperError as error:
                            if error.code != "ValidationTooExpensive":
                                raise
                            yield from self._judge_beside(fill, row, is_export, judged)
                            fill.refresh()
                    fill.add(judged[0])
                    self.rows_written += 1
                    if fill.is_batch:
                        yield from fill.send()
                        fill.refresh()
                if perf_counter_ns() >= end_ns:
                    yield None
                    fill.refresh()
                    end_ns = perf_counter_ns() + _STEP_NS
        except Unreadable as error:
            raise refused(self._source.place(table), error.message, error.line) from None
        except DeveloperError as error:
            if error.code == "StorageQuotaReached":
                raise
            raise refused(self._source.place(table), error.message, at) from None
        yield from fill.finish()

    def _judge_beside(self, fill: Fill, row: bytes | dict[str, Any], is_export: bool, judged: list[Judged]) -> Steps:
        done = self._beside(lambda: judged.append(fill.judge_long(fields_of(row, is_export))))
        yield done
        done.result()


def completed_rows(database: Database, name: str) -> int | None:
    """How many rows an import of this name wrote, where it was the last one that was completed."""
    snapshot = database.engine.snapshot()
    try:
        raw = snapshot.get(Tree.META, LAST_KEY)
    finally:
        snapshot.close()
    last: dict[str, Any] = {} if raw is None else orjson.loads(raw)
    return last["rows"] if last.get("id") == name else None


def _exists(name: str) -> ClientError:
    return refused("", f"Table {name} already exists. Please choose a new table name or use replace/append modes.")


def _has_documents(snapshot: StorageSnapshot, table: Table) -> bool:
    return bool(snapshot.scan_chunk(Tree.DOCUMENTS, table.prefix, table.end, False, 1))


__all__ = ["ClientError", "Import", "Order", "Plan", "Source", "completed_rows", "order_of", "plan_of"]
