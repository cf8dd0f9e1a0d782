"""Random operations against plain dictionaries: lane transactions over commits that become durable at random, over
both engines.

What the lane sees must be the newest state, what queries see the durable state, to the byte: through every index, over
values of every type, with filters and limits, step by step while the lane writes on. A pagination that goes on while
documents come, go and move must give, page by page, what is behind its last document at that time; and the past must
stay what it was.

Always the same cases, unless others or more are asked for (`tests/fixtures/effort.py`).
"""

import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from orjson import loads

from skerry.database import Transaction
from skerry.database.history import read_index_at
from skerry.errors import DeveloperError
from skerry.value import UNDEFINED, dumps
from skerry.value import loads as decoded
from tests.database.model import (
    Operator,
    Refused,
    expressions,
    in_range,
    operators,
    ordered,
    passes,
    position,
    queried,
    ranges,
    small_values,
    spelled,
    spelled_operators,
    values,
)
from tests.database.world import World, lmdb_world, memory_world, range_query, scan_query, table_schema
from tests.fixtures.effort import drawn

INDEXES = {"by_a": ["a"], "by_a_b": ["a", "b"], "by_deep": ["o.x"]}
SOURCES = {**INDEXES, "by_creation_time": ["_creationTime"], "by_id": ["_id"]}
State = dict[str, dict[str, Any]]
Range = list[tuple[str, str, Any]]
mixed = st.one_of(small_values, small_values, values)
fields = st.fixed_dictionaries(
    {}, optional={"a": mixed, "b": mixed, "o": st.one_of(st.fixed_dictionaries({"x": mixed}), mixed)}
)


def clean(value: dict[str, Any]) -> dict[str, Any]:
    kept = {name: field for name, field in value.items() if field is not UNDEFINED}
    if isinstance(kept.get("o"), dict):
        kept["o"] = {name: field for name, field in kept["o"].items() if field is not UNDEFINED}
    return kept


class Source:
    """What a query reads: an index, a range of it and a direction."""

    def __init__(self, name: str, expressions: Range, descending: bool) -> None:
        self.name = name
        self.expressions = expressions
        self.descending = descending
        self.fields = SOURCES[name]

    def __repr__(self) -> str:
        return f"Source({self.name!r}, {self.expressions!r}, {self.descending})"

    def query(self, operators: list[Operator] | None = None) -> dict[str, Any]:
        order, chosen = "desc" if self.descending else "asc", spelled_operators(operators or [])
        if self.name == "by_creation_time" and not self.expressions:
            return scan_query("t", order, chosen)
        written = [(kind, path, spelled(value)) for kind, path, value in self.expressions]
        return range_query(f"t.{self.name}", written, order, chosen)

    def of(self, state: State) -> list[dict[str, Any]]:
        """The documents it gives of a state, in its order."""
        documents = ordered(list(state.values()), self.fields, self.descending)
        return [document for document in documents if in_range(document, self.expressions)]

    def behind(self, state: State, last: tuple[Any, ...] | None) -> list[dict[str, Any]]:
        """Those of its documents that stand behind a position, in its direction."""
        if last is None:
            return self.of(state)
        return [
            document
            for document in self.of(state)
            if (position(document, self.fields) < last if self.descending else position(document, self.fields) > last)
        ]


@st.composite
def sources(draw: st.DrawFn, state: State) -> Source:
    """A source over documents like those of a state."""
    name = draw(st.sampled_from(sorted(SOURCES)))
    there = [(document["_id"], document["_creationTime"]) for document in state.values()] or [("no id", 0)]
    ids = st.one_of(st.sampled_from([each[0] for each in there]), values)
    times = st.one_of(st.sampled_from([each[1] for each in there]), values)
    return Source(name, draw(ranges(SOURCES[name], mixed, _id=ids, _creationTime=times)), draw(st.booleans()))


class Pagination:
    """A query that is read page by page. Shape: `last` is where its last page ended, `page` how to read that again."""

    def __init__(self, source: Source, filters: list[Operator]) -> None:
        self.source = source
        self.filters = filters
        self.cursor: str | None = None
        self.last: tuple[Any, ...] | None = None
        self.is_done = False
        self.page: tuple[str | None, tuple[Any, ...] | None, str, tuple[Any, ...] | None] | None = None

    def expected(self, state: State, size: int, rows_max: int) -> tuple[list[bytes], tuple[Any, ...] | None]:
        """The documents of its next page, and where that ends: None at the end of all."""
        rows: list[bytes] = []
        read = 0
        last = self.last
        for document in [] if self.is_done else self.source.behind(state, last):
            if read == rows_max or len(rows) == size:
                return rows, last
            read += 1
            last = position(document, self.source.fields)
            if passes(document, self.filters, []):
                rows.append(dumps(document))
        return rows, last if len(rows) == size or (read == rows_max and rows_max) else None


class DatabaseMachine(RuleBasedStateMachine):
    world: World

    def make_world(self) -> World:
        return memory_world()

    @initialize()
    def start(self) -> None:
        self.world = self.make_world()
        self.world.schema(table_schema("t", INDEXES))
        self.newest: State = {}
        self.states: dict[int, State] = {self.world.database.durable_ts: {}}
        self.transaction: Transaction | None = None
        self.own: State = {}
        self.stack: list[State] = []
        self.answers: list[tuple[list[Any], int]] = []
        self.streams: list[tuple[int, Source, tuple[Any, ...] | None]] = []
        self.pagination: Pagination | None = None

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.engine.close()

    def lane(self) -> Transaction:
        if self.transaction is None:
            self.transaction = self.world.begin()
            self.own = dict(self.newest)
            self.stack = []
            self.streams = []
        return self.transaction

    @rule(value=fields)
    def insert(self, value: dict[str, Any]) -> None:
        transaction = self.lane()
        document_id = transaction.insert("t", clean(value))
        document = decoded(transaction.get(document_id) or b"")
        assert dumps({name: field for name, field in document.items() if name[0] != "_"}) == dumps(clean(value))
        self.own[document_id] = document

    @rule(data=st.data(), value=fields)
    def patch(self, data: st.DataObject, value: dict[str, Any]) -> None:
        transaction = self.lane()
        if self.own:
            document_id = data.draw(st.sampled_from(sorted(self.own)))
            value = {**clean(value), **{name: UNDEFINED for name, field in value.items() if field is UNDEFINED}}
            self.own[document_id] = {
                name: field for name, field in {**self.own[document_id], **value}.items() if field is not UNDEFINED
            }
            assert transaction.patch(document_id, value) == dumps(self.own[document_id])

    @rule(data=st.data(), value=fields)
    def replace(self, data: st.DataObject, value: dict[str, Any]) -> None:
        transaction = self.lane()
        if self.own:
            document_id = data.draw(st.sampled_from(sorted(self.own)))
            kept = {name: self.own[document_id][name] for name in ("_id", "_creationTime")}
            self.own[document_id] = {**kept, **clean(value)}
            assert transaction.replace(document_id, clean(value)) == dumps(self.own[document_id])

    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        transaction = self.lane()
        if self.own:
            document_id = data.draw(st.sampled_from(sorted(self.own)))
            assert transaction.delete(document_id) == dumps(self.own.pop(document_id))
            assert transaction.get(document_id) is None

    @precondition(lambda self: self.transaction is not None and len(self.stack) < 3)
    @rule()
    def savepoint(self) -> None:
        self.lane().savepoint()
        self.stack.append(dict(self.own))

    @precondition(lambda self: self.stack)
    @rule(keep=st.booleans())
    def end_savepoint(self, keep: bool) -> None:
        state = self.stack.pop()
        if keep:
            self.lane().release()
        else:
            self.lane().rollback()
            self.own = state

    @precondition(lambda self: self.transaction is not None and not self.stack)
    @rule(keep=st.booleans())
    def finish(self, keep: bool) -> None:
        transaction = self.lane()
        self.transaction = None
        if not keep:
            transaction.abort()
            return
        answers = self.world.commit(transaction)
        record = self.world.database._last_ts  # pyright: ignore[reportPrivateUsage]  # what the commit must be told
        self.answers.append((answers, record))
        self.newest = self.own
        self.states[record] = self.own

    @rule()
    def turn(self) -> None:
        self.world.turn()

    @rule()
    def settle(self) -> None:
        self.world.settle()
        for answers, expected in self.answers:
            assert len(answers) == 1 and answers[0] <= expected
        self.answers.clear()

    def reader(self, query: bool) -> tuple[Transaction, State]:
        """A transaction that reads, and what it must see: a query, which the caller ends, or the lane."""
        if not query:
            transaction = self.lane()
            # Only what is read is looked at here, not how much of it a transaction may read.
            transaction.usage.ranges_read = transaction.usage.documents_read = 0
            return transaction, self.own
        transaction = self.world.begin(writable=False)
        return transaction, self.states[self.durable_state_ts(transaction)]

    @rule(data=st.data(), query=st.booleans(), chosen=operators(mixed))
    def read(self, data: st.DataObject, query: bool, chosen: list[Operator]) -> None:
        """A query of any kind: whole, and document by document."""
        transaction, state = self.reader(query)
        source = data.draw(sources(state))
        json = source.query(chosen)
        try:
            expected = [dumps(document) for document in queried(source.of(state), chosen)]
        except Refused:
            with pytest.raises(DeveloperError, check=lambda error: error.code == "InvalidFilter"):
                transaction.collect_query(json)
        else:
            assert transaction.collect_query(json) == b"[" + b",".join(expected) + b"]"
            number = transaction.open_query(json)
            assert [transaction.next(number) for _ in range(len(expected) + 1)] == [*expected, None]
            transaction.close_query(number)
        if query:
            transaction.abort()

    @rule(data=st.data(), query=st.booleans())
    def read_in_pages(self, data: st.DataObject, query: bool) -> None:
        transaction, state = self.reader(query)
        source, size = data.draw(sources(state)), data.draw(st.integers(1, 4))
        rows: list[Any] = []
        cursor = None
        while True:
            page = self.page(transaction, source.query(), cursor, None, size, None)
            rows += page["page"]
            cursor = page["continueCursor"]
            if page["isDone"]:
                break
        assert rows == [loads(dumps(document)) for document in source.of(state)]
        if query:
            transaction.abort()

    def page(self, transaction: Transaction, *how: Any) -> dict[str, Any]:
        state = transaction.enter_function()
        try:
            return loads(transaction.page(*how))
        finally:
            transaction.leave_function(state)

    @precondition(lambda self: self.transaction is not None and len(self.streams) < 4)
    @rule(data=st.data())
    def open_stream(self, data: st.DataObject) -> None:
        source = data.draw(sources(self.own))
        self.streams.append((self.lane().open_query(source.query()), source, None))

    @precondition(lambda self: self.transaction is not None and self.streams)
    @rule(data=st.data(), count=st.integers(1, 3))
    def go_on_with_a_stream(self, data: st.DataObject, count: int) -> None:
        """An open query sees what the transaction has written since, behind the place where it stands."""
        at = data.draw(st.integers(0, len(self.streams) - 1))
        number, source, last = self.streams[at]
        expected = source.behind(self.own, last)[:count]
        for document in expected:
            assert self.lane().next(number) == dumps(document)
            last = position(document, source.fields)
        self.streams[at] = (number, source, last)
        if len(expected) < count:
            assert self.lane().next(number) is None
            assert self.lane().close_query(number)
            del self.streams[at]

    @precondition(lambda self: self.pagination is None)
    @rule(data=st.data(), condition=st.none() | expressions(mixed, 2))
    def paginate(self, data: st.DataObject, condition: dict[str, Any] | None) -> None:
        filters: list[Operator] = [] if condition is None else [("filter", condition)]
        self.pagination = Pagination(data.draw(sources(self.newest)), filters)

    @precondition(lambda self: self.pagination is not None)
    @rule(query=st.booleans(), size=st.integers(1, 4), rows_max=st.none() | st.integers(1, 5))
    def next_page(self, query: bool, size: int, rows_max: int | None) -> None:
        """The page behind the last one, of the state as it is now; where it is done, that one again at its bounds."""
        transaction, state = self.reader(query)
        pagination = self.pagination
        assert pagination is not None
        json = pagination.source.query(pagination.filters)
        cursor, last = pagination.cursor, pagination.last
        try:
            rows, end = pagination.expected(state, size, rows_max or 1 << 30)
        except Refused:
            with pytest.raises(DeveloperError, check=lambda error: error.code == "InvalidFilter"):
                self.page(transaction, json, cursor, None, size, rows_max)
            self.pagination = None
        else:
            page = self.page(transaction, json, cursor, None, size, rows_max)
            assert page["page"] == [loads(row) for row in rows]
            assert page["isDone"] == (end is None)
            if not pagination.is_done:
                pagination.page = (cursor, last, page["continueCursor"], end)
            pagination.cursor, pagination.last = page["continueCursor"], end
            if pagination.is_done and query:
                self.pagination = None
            pagination.is_done = end is None
        if query:
            transaction.abort()

    @precondition(lambda self: self.pagination is not None and self.pagination.page is not None)
    @rule(query=st.booleans())
    def page_again(self, query: bool) -> None:
        """A page that is read again keeps its bounds, whatever has come between them or gone."""
        transaction, state = self.reader(query)
        pagination = self.pagination
        assert pagination is not None and pagination.page is not None
        cursor, first, end_cursor, last = pagination.page
        source = pagination.source
        behind_last = source.behind(state, last) if last is not None else []
        json = source.query(pagination.filters)
        try:
            between = [document for document in source.behind(state, first) if document not in behind_last]
            rows = [loads(dumps(document)) for document in between if passes(document, pagination.filters, [])]
        except Refused:
            with pytest.raises(DeveloperError, check=lambda error: error.code == "InvalidFilter"):
                self.page(transaction, json, cursor, end_cursor, 1)
        else:
            again = self.page(transaction, json, cursor, end_cursor, 1)
            assert again["page"] == rows
            assert again["isDone"] == (last is None)
        if query:
            transaction.abort()

    def durable_state_ts(self, transaction: Transaction) -> int:
        return max(ts for ts in self.states if ts <= transaction.begin_ts)

    @rule(data=st.data(), name=st.sampled_from(sorted(INDEXES)))
    def read_the_past(self, data: st.DataObject, name: str) -> None:
        durable = self.world.database.durable_ts
        ts = data.draw(st.sampled_from(sorted(ts for ts in self.states if ts <= durable)))
        table = self.world.database.catalog.tables["t"]
        snapshot = self.world.engine.snapshot()
        index = table.index(name)
        assert index is not None
        past = read_index_at(snapshot, table, index, b"", None, ts, 10_000)
        snapshot.close()
        assert past == [dumps(document) for document in ordered(list(self.states[ts].values()), INDEXES[name])]

    @invariant()
    def scans_agree(self) -> None:
        if getattr(self, "transaction", None) is not None:
            expected = [dumps(document) for document in ordered(list(self.own.values()), [])]
            assert self.transaction is not None
            self.transaction.usage.ranges_read = 0
            self.transaction.usage.documents_read = 0
            assert self.transaction.collect_query(scan_query("t")) == b"[" + b",".join(expected) + b"]"


class HoldingMachine(DatabaseMachine):
    """The same over the memory engine, with syncs that take as long as they like."""

    @rule()
    def hold(self) -> None:
        self.world.engine.hold()  # pyright: ignore[reportAttributeAccessIssue]  # the memory engine's own

    @rule()
    def release(self) -> None:
        self.world.engine.release()  # pyright: ignore[reportAttributeAccessIssue]  # the memory engine's own

    @rule()
    def settle(self) -> None:
        self.release()
        super().settle()


class LmdbMachine(DatabaseMachine):
    def make_world(self) -> World:
        self.folder = Path(tempfile.mkdtemp())
        return lmdb_world(self.folder)

    def teardown(self) -> None:
        super().teardown()
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)


drawn(100, stateful_step_count=40)(HoldingMachine)
drawn(25, stateful_step_count=30)(LmdbMachine)
TestOverMemory = HoldingMachine.TestCase
TestOverLmdb = LmdbMachine.TestCase
