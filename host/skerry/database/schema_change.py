"""Making a schema the deployment's, while the deployment serves.

    judge     every document there is, by the validators that are not in force yet; nothing is written       serving
    register  one commit: the catalog gets the new indexes as hidden ones, which every write maintains       lane held
    build     the entries of the documents that were there (`backfill`)                                      serving
    switch    what was written meanwhile is judged; one commit makes schema, indexes and bundle active       lane held
    after     staged indexes are built, dropped ones deleted (`background_steps`)                            serving

`SchemaChange` has a method for each; who drives them (a deployment, or `apply_schema`) holds the lane where it says so,
and repeats `register` and `build` until `is_ready`: tables may come into being meanwhile.

A change that fails before `register` leaves nothing. One that fails, is killed or given up behind it leaves hidden
indexes, which belong to the catalog and not to the change: they are built on in the background, and the next change
takes those over that it declares, under whatever name, and drops the others. So is every index with the definition of a
declared one, ready or staged: nothing is built twice. Index numbers are never used again.

Concurrency: the loop thread. Deliberately absent: remembering a change over a crash; whoever pushed pushes again.
"""

from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final

import orjson

from skerry.database.backfill import BuildProgress, backfill_steps, unbuilt
from skerry.database.catalog import Catalog, Index, Table
from skerry.database.catalog_store import (
    NEXT_INDEX_KEY,
    SCHEMA_KEY,
    TABLE_PREFIX,
    BuildRecord,
    build_write,
    unfinished_write,
)
from skerry.database.index_clearing import clearing_steps
from skerry.database.index_kinds import Declared, declared_indexes, dump_table, make_index, under_name
from skerry.database.judging import Judgement
from skerry.database.schema_rules import check_table_references, parse_schema, validators_of
from skerry.database.steps import Beside, Steps, at_once
from skerry.errors import SkerryError
from skerry.storage import Tree, Write

if TYPE_CHECKING:
    from skerry.database.database import Database, OnDurable

_TIMESTAMP_BYTES: Final = 8
_NUMBER_BYTES: Final = 4
CALL_RECORD: Final = b'{"kind":"schema"}'


class SchemaChange:
    """One change of the schema, from its text to its commit; `close` it, whatever became of it.

    Shape: `raw` is a schema export, JSON text. `beside` runs what is too long for the loop thread; without it that is
    done there.

    Raises: DeveloperError with the code of the rule that is broken.
    """

    def __init__(
        self, database: "Database", raw: bytes, *, beside: Beside | None = None, progress: BuildProgress | None = None
    ) -> None:
        self._database = database
        self._schema = parse_schema(raw)
        self._declared = {table["tableName"]: declared_indexes(table) for table in self._schema["tables"]}
        self._validators = validators_of(self._schema)
        check_table_references(self._schema, database.catalog)
        self._beside = beside or at_once
        self._progress = progress or BuildProgress()
        self._judgement = Judgement(database, self._validators, self._beside)

    def close(self) -> None:
        """Ends it; a second time is no error."""
        self._judgement.stop()

    def judging(self) -> dict[str, Any]:
        """How far the judging is: `documentsJudged`, and of which `table` how much, by an estimate in `percent`."""
        judgement = self._judgement
        told: dict[str, Any] = {"documentsJudged": judgement.documents}
        if judgement.place is not None:
            told |= {"table": judgement.place[0], "percent": judgement.place[1]}
        return told

    @property
    def is_behind(self) -> bool:
        """Whether mutations should wait until `catch_up` is through."""
        return self._judgement.is_behind

    def judge(self) -> Steps:
        """The documents there are. Raises: as `Judgement.walk`."""
        return self._judgement.walk()

    def catch_up(self) -> Steps:
        """The documents written since. Raises: as `Judgement.walk`."""
        return self._judgement.catch_up()

    def build(self) -> Steps:
        """The indexes that the schema needs; what is written meanwhile is judged. Raises: as `backfill_steps`."""
        needed = {
            (name, entry.definition)
            for name, declared in self._declared.items()
            for entry in declared
            if not entry.is_staged
        }
        steps = backfill_steps(
            self._database, self._progress, self._beside, lambda t, index: (t.name, index.definition) in needed
        )
        with closing(steps):
            for waited in steps:
                yield waited
                yield from self._judgement.catch_up_some()

    def register(self, on_durable: "OnDurable") -> bool:
        """Commit the hidden indexes that the schema needs and drop those that no schema does; False where there is
        nothing to commit. The lane is held, and nothing is pending.
        """
        tables: list[Table] = []
        added: list[Index] = []
        dropped: list[Index] = []
        before = self._database.catalog
        next_index = before.next_index
        for table in _user_tables(before):
            kept, gone = self._kept_hidden(table)
            known = {index.definition for index in table.declared}
            new = [
                make_index(next_index + number, entry.name, entry.definition)
                for number, entry in enumerate(
                    [e for e in self._declared.get(table.name, ()) if not e.is_staged and e.definition not in known]
                )
            ]
            next_index += len(new)
            if new or kept != list(table.hidden):
                tables.append(table.with_indexes(table.indexes, (*kept, *new), table.validator))
                added += new
                dropped += gone
        if not tables:
            return False
        after = Catalog(
            {**before.tables, **{table.name: table for table in tables}}, before.next_table, next_index, before.schema
        )
        self._commit(after, tables, added, added, dropped, (), on_durable)
        return True

    @property
    def is_ready(self) -> bool:
        """Whether every index that the schema needs is there, whole, and every document judged."""
        building = unbuilt(self._database)
        for name, declared in self._declared.items():
            table = self._database.catalog.tables.get(name)
            if table is None:
                continue
            whole = {index.definition for index in table.declared if index.number not in building}
            if any(not entry.is_staged and entry.definition not in whole for entry in declared):
                return False
        return self._judgement.is_done

    def switch(self, also: Sequence[Write], on_durable: "OnDurable") -> None:
        """Commit the schema, its indexes and `also`. The lane is held, nothing is pending, and `is_ready` says so."""
        before = self._database.catalog
        catalog = before
        for name in self._declared:
            if name not in catalog.tables:
                catalog, _ = catalog.with_table(name)
        next_index = catalog.next_index
        tables: dict[str, Table] = {}
        added: list[Index] = []
        to_build: list[Index] = []
        dropped: list[Index] = []
        for table in _user_tables(catalog):
            known: dict[Any, Index] = {index.definition: index for index in table.declared}
            indexes: dict[str, Index] = {}
            hidden: list[Index] = []
            for entry in self._declared.get(table.name, ()):
                index = known.pop(entry.definition, None)
                if index is None:
                    index = make_index(next_index, entry.name, entry.definition)
                    next_index += 1
                    added.append(index)
                    if table.name in before.tables:
                        assert entry.is_staged, "an index that is declared and not built"
                        to_build.append(index)
                index = under_name(index, entry.name, entry.is_staged)
                if entry.is_staged:
                    hidden.append(index)
                else:
                    indexes[entry.name] = index
            dropped += known.values()
            tables[table.name] = table.with_indexes(indexes, tuple(hidden), self._validators.get(table.name))
        after = Catalog({**catalog.tables, **tables}, catalog.next_table, next_index, self._schema)
        self._commit(after, list(tables.values()), added, to_build, dropped, also, on_durable)

    # -- inside ------------------------------------------------------------------------------------------------------

    def _kept_hidden(self, table: Table) -> tuple[list[Index], list[Index]]:
        """A table's hidden indexes: those that the active schema or this one declares, and those that neither does."""
        wanted: dict[Any, Declared] = {entry.definition: entry for entry in self._declared.get(table.name, ())}
        kept: list[Index] = []
        gone: list[Index] = []
        for index in table.hidden:
            entry = wanted.get(index.definition)
            if index.is_staged:
                kept.append(index)
            elif entry is not None:
                kept.append(under_name(index, entry.name, is_staged=False))
            else:
                gone.append(index)
        return kept, gone

    def _commit(
        self,
        after: Catalog,
        tables: list[Table],
        added: list[Index],
        to_build: list[Index],
        dropped: list[Index],
        also: Sequence[Write],
        on_durable: "OnDurable",
    ) -> None:
        """One commit of a catalog; `added` get its timestamp as the one since which they are maintained."""

        database = self._database

        def writes(commit_ts: int) -> list[Write]:
            for index in added:
                index.since_ts = commit_ts
            out: list[Write] = [(Tree.META, TABLE_PREFIX + table.name.encode(), dump_table(table)) for table in tables]
            if after.schema is not None:
                stamp = commit_ts.to_bytes(_TIMESTAMP_BYTES, "big")
                out.append((Tree.META, SCHEMA_KEY, stamp + orjson.dumps(after.schema)))
            out.append((Tree.META, NEXT_INDEX_KEY, after.next_index.to_bytes(_NUMBER_BYTES, "big")))
            for index in to_build:
                out.append(build_write(index.number, BuildRecord()))
                database.counted_up_to[index.number] = b""  # no document is in its counts yet
            for index in dropped:
                database.counted_up_to.pop(index.number, None)
                out += [build_write(index.number, None), unfinished_write(index.number, is_unfinished=True)]
            out += also
            return out

        database.switch_catalog(after, writes, CALL_RECORD, database.newest_ts, on_durable)


def background_steps(
    database: "Database", *, beside: Beside | None = None, progress: BuildProgress | None = None
) -> Steps:
    """What a change leaves to be done behind its switch, and what one that ended early left: indexes to build, entries
    of dropped ones to delete. Raises: as `backfill_steps`; what is left then is found again the next time."""
    yield from backfill_steps(database, progress or BuildProgress(), beside or at_once, lambda _table, _index: True)
    yield from clearing_steps(database.engine)


def apply_schema(database: "Database", raw: bytes, also: Sequence[Write] = ()) -> None:
    """A whole change at one go, its background work included, for whoever has no loop. Blocks until it is durable.

    Raises: as the change's methods.
    """
    database.flush()
    change = SchemaChange(database, raw)
    failures: list[BaseException] = []

    def on_durable(outcome: int | BaseException) -> None:
        if isinstance(outcome, BaseException):
            failures.append(outcome)

    def settle() -> None:
        database.flush()
        if failures:
            raise failures[0]

    try:
        while True:
            _drive(database, change.judge())
            _drive(database, change.catch_up())
            if change.register(on_durable):
                settle()
            _drive(database, change.build())
            if change.is_ready:
                break
        change.switch(also, on_durable)
        settle()
    finally:
        change.close()
    _drive(database, background_steps(database))


def _drive(database: "Database", steps: Steps) -> None:
    for waited in steps:
        if waited is None:
            continue
        try:
            database.flush()
        except SkerryError:
            pass  # the step that follows looks at what it waited for
        waited.exception()


def _user_tables(catalog: Catalog) -> list[Table]:
    return [table for table in catalog.tables.values() if not table.is_system]
