"""Whether the documents that are there fit the validators of a schema that is about to become active.

Every document of the tables in question is looked at once, while the deployment serves. What is written meanwhile is
noted, by key, and looked at again as it is then: a write that breaks the coming schema is no failure of the write, it
is one of the push, unless a later write mends it. Once nothing noted is left and nobody can write, all documents fit.

Limits: SCHEMA_OFFENDERS_*; SCHEMA_WRITTEN_DOCUMENTS_MAX (`is_behind`). Concurrency: the loop thread; what is large or
long to judge is judged beside it.
"""

from collections.abc import Iterator
from re import compile as pattern
from typing import TYPE_CHECKING, Final

from skerry.database.catalog import Catalog, Table, Validator
from skerry.database.document_write import DocumentWrite
from skerry.database.steps import Beside, Steps, Turn, run_beside
from skerry.database.stored import HEADER_BYTES, parse_document
from skerry.database.walking import ends, percent_at
from skerry.errors import DeveloperError, SystemFault
from skerry.limits import (
    SCHEMA_OFFENDERS_COUNTED_MAX,
    SCHEMA_OFFENDERS_SEARCH_DOCUMENTS,
    SCHEMA_OFFENDERS_SHOWN_MAX,
    SCHEMA_STEP_BYTES,
    SCHEMA_STEP_ITEMS,
    SCHEMA_WRITTEN_DOCUMENTS_MAX,
    SLICE_VALIDATION_STEPS_MAX,
    VALIDATOR_STEPS_MAX,
)
from skerry.storage import Item, Tree
from skerry.value import Mismatch, encode_document_id, stored_document_error

if TYPE_CHECKING:
    from skerry.database.database import Database

_PATH: Final = pattern(r"(?:^|\n|\.)Path: ([^\n]+)")
_FIELD: Final = pattern(r"^Object [^`]*field `([^`]+)`")


class Judgement:
    """The judging of a deployment's documents by validators, by table; `stop` ends what the making of it began."""

    def __init__(self, database: "Database", validators: dict[str, Validator], beside: Beside) -> None:
        self._database = database
        self._beside = beside
        self._epoch = database.epoch
        self._validators = _changed(database.catalog, validators)
        self._written: dict[bytes, None] = {}
        self._offenders: list[str] = []
        self._first: DeveloperError | None = None
        self._offender_count = 0
        self._judged_at_first = 0
        self._turn = Turn()
        self._looked_at = 0
        self._walked: dict[str, int] = {}
        self.documents = 0
        self.place: tuple[str, int] | None = None
        database.watchers.append(self._watch)

    def stop(self) -> None:
        """Note no more writes; a second time is no error."""
        watchers = self._database.watchers
        if self._watch in watchers:
            watchers.remove(self._watch)

    @property
    def is_behind(self) -> bool:
        """Whether writes come faster than they are judged: mutations should wait."""
        return len(self._written) > SCHEMA_WRITTEN_DOCUMENTS_MAX

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to judge until the next commit."""
        return not self._written and not self._unwalked()

    def walk(self) -> Steps:
        """Judge every document there is; after that, those of tables that came into being, or were imported anew.

        Raises: DeveloperError `SchemaEnforcementError` naming the first offenders and how many there are; SystemFault
        of storage.
        """
        for table in self._unwalked():
            for items, n_bytes in self._pieces(table):
                yield from self._judge(table, items, n_bytes)
                yield from self.catch_up_some()
                if self._turn.is_over():
                    yield None
                    self._turn.begin()
                if self._has_counted_enough():
                    break
            self._walked[table.name] = table.space
            self.place = None
        self._raise()

    def catch_up(self) -> Steps:
        """Judge what was written up to now: everything, where nobody can write meanwhile. Raises: as `walk`."""
        end = self._looked_at + len(self._written)
        while self._written and self._looked_at < end:
            yield from self.catch_up_some()
            self._raise()
            if self._turn.is_over():
                yield None
                self._turn.begin()

    def catch_up_some(self) -> Steps:
        """Judge some of the documents that were written since, in one step mostly. Raises: SystemFault of storage."""
        self._must_be_same_epoch()
        database, written = self._database, self._written
        n_bytes = 0
        by_table: dict[int, list[Item]] = {}
        for _ in range(min(SCHEMA_STEP_ITEMS, len(written))):
            key = next(iter(written))
            del written[key]
            self._looked_at += 1
            stored = database.newest.document(key)
            if stored is not None:
                by_table.setdefault(int.from_bytes(key[:4], "big"), []).append((key, stored))
                n_bytes += len(stored)
                if n_bytes >= SCHEMA_STEP_BYTES:
                    break
        for space, items in by_table.items():
            table = database.catalog.spaces.get(space)
            if table is not None:
                yield from self._judge(table, items, n_bytes)

    # -- inside ------------------------------------------------------------------------------------------------------

    def _watch(self, writes: dict[bytes, DocumentWrite]) -> None:
        validators, written = self._validators, self._written
        for key, write in writes.items():
            if write.table.name in validators:
                written[key] = None

    def _unwalked(self) -> list[Table]:
        """The tables whose documents, as a whole, were not looked at yet."""
        tables = [self._database.catalog.tables.get(name) for name in self._validators]
        return [table for table in tables if table is not None and self._walked.get(table.name) != table.space]

    def _pieces(self, table: Table) -> Iterator[tuple[list[Item], int]]:
        lower = table.prefix
        snapshot = self._database.engine.snapshot()
        try:
            between = ends(snapshot, Tree.DOCUMENTS, lower, table.end)
        finally:
            snapshot.close()
        while True:
            self._must_be_same_epoch()
            items, resume, size = self._database.newest.documents(
                lower, table.end, SCHEMA_STEP_ITEMS, SCHEMA_STEP_BYTES
            )
            self.documents += len(items)
            yield items, size
            if not resume:
                return
            self.place = table.name, percent_at(between, resume)
            lower = resume + b"\0"

    def _judge(self, table: Table, items: list[Item], n_bytes: int) -> Steps:
        validator, catalog = self._validators[table.name], self._database.catalog
        if n_bytes > 2 * SCHEMA_STEP_BYTES:
            yield from self._judge_beside(table, validator, items, catalog)
            return
        for item in items:
            try:
                found = judge(table, validator, item, catalog, SLICE_VALIDATION_STEPS_MAX)
            except DeveloperError as error:
                if error.code != "ValidationTooExpensive":
                    raise
                yield from self._judge_beside(table, validator, [item], catalog)
                continue
            if found is not None:
                self._note(table, item[0], found)
            if self._turn.is_over():
                yield None
                self._turn.begin()

    def _judge_beside(self, table: Table, validator: Validator, items: list[Item], catalog: Catalog) -> Steps:
        """Judges on another thread. A document written meanwhile was noted, and is judged again."""
        found: list[tuple[bytes, Mismatch]] = []

        def work() -> None:
            for item in items:
                mismatch = judge(table, validator, item, catalog, VALIDATOR_STEPS_MAX)
                if mismatch is not None:
                    found.append((item[0], mismatch))

        yield from run_beside(self._beside, work)
        self._turn.begin()
        for key, mismatch in found:
            if key not in self._written:
                self._note(table, key, mismatch)

    def _note(self, table: Table, key: bytes, mismatch: Mismatch) -> None:
        document_id = encode_document_id(table.number, key[len(table.prefix) :])
        if self._first is None:
            self._first = stored_document_error(document_id, table.name, mismatch)
            self._judged_at_first = self.documents
        if len(self._offenders) < SCHEMA_OFFENDERS_SHOWN_MAX:
            self._offenders.append(f'- table "{table.name}", document "{document_id}", field {_path_of(mismatch)}')
        self._offender_count += 1

    def _has_counted_enough(self) -> bool:
        return self._first is not None and (
            self._offender_count >= SCHEMA_OFFENDERS_COUNTED_MAX
            or self.documents - self._judged_at_first >= SCHEMA_OFFENDERS_SEARCH_DOCUMENTS
        )

    def _raise(self) -> None:
        first = self._first
        if first is None:
            return
        if self._offender_count == 1 and not self._has_counted_enough():
            raise first
        least = "At least " if self._has_counted_enough() else ""
        count = f"{least}{self._offender_count} documents do not match the schema, the first of them:"
        raise DeveloperError(first.code, "\n".join([first.message, "", count, *self._offenders]))

    def _must_be_same_epoch(self) -> None:
        if self._database.epoch != self._epoch:
            raise SystemFault("StorageFailed", "The storage failed while the documents were being checked.")


def judge(table: Table, validator: Validator, item: Item, catalog: Catalog, steps_max: int) -> Mismatch | None:
    """Why a stored document does not fit, or None. Any thread. Raises: DeveloperError `ValidationTooExpensive`."""
    document = parse_document(item[1][HEADER_BYTES:])
    del document["_id"], document["_creationTime"]
    try:
        validator.check(document, catalog.resolve, steps_max=steps_max)
    except Mismatch as mismatch:
        return mismatch
    return None


def _changed(catalog: Catalog, validators: dict[str, Validator]) -> dict[str, Validator]:
    """The validators that are not in force already."""
    return {
        name: validator
        for name, validator in validators.items()
        if (table := catalog.tables.get(name)) is None
        or table.validator is None
        or table.validator.json != validator.json
    }


def _path_of(mismatch: Mismatch) -> str:
    """The path of the field that does not fit, as the text of the mismatch tells it."""
    text = str(mismatch)
    path = _PATH.search(text)
    field = _FIELD.search(text)
    return ("" if path is None else path[1]) + ("" if field is None else f".{field[1]}") or "(the whole document)"
