"""Random operations against plain dictionaries: lane transactions over commits that become durable at random, over
both engines.

What the lane sees must be the newest state, what queries see the durable state, to the byte, through every index
and cut into pages; and the past must stay what it was.
"""

import shutil
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from orjson import loads

from skerry.database import Transaction
from skerry.database.history import read_index_at
from skerry.value import UNDEFINED, dumps
from skerry.value import loads as decoded
from tests.database.model import in_range, ordered, ranges, small_values, spelled
from tests.database.world import World, lmdb_world, memory_world, range_query, scan_query, table_schema

INDEXES = {"by_a": ["a"], "by_a_b": ["a", "b"], "by_deep": ["o.x"]}
State = dict[str, dict[str, Any]]
fields = st.fixed_dictionaries(
    {}, optional={"a": small_values, "b": small_values, "o": st.fixed_dictionaries({"x": small_values})}
)


def clean(value: dict[str, Any]) -> dict[str, Any]:
    kept = {name: field for name, field in value.items() if field is not UNDEFINED}
    if "o" in kept:
        kept["o"] = {name: field for name, field in kept["o"].items() if field is not UNDEFINED}
    return kept


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

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.engine.close()

    def lane(self) -> Transaction:
        if self.transaction is None:
            self.transaction = self.world.begin()
            self.own = dict(self.newest)
            self.stack = []
        return self.transaction

    @rule(value=fields)
    def insert(self, value: dict[str, Any]) -> None:
        transaction = self.lane()
        document_id = transaction.insert("t", clean(value))
        document = decoded(transaction.get(document_id) or b"")
        assert {name: field for name, field in document.items() if name[0] != "_"} == clean(value)
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

    @rule(data=st.data(), name=st.sampled_from(sorted(INDEXES)), descending=st.booleans(), query=st.booleans())
    def read_range(self, data: st.DataObject, name: str, descending: bool, query: bool) -> None:
        """A range of an index, whole, in steps and in pages, in the lane or in a query."""
        expressions = data.draw(ranges([*INDEXES[name]], small_values))
        written = [(kind, path, spelled(value)) for kind, path, value in expressions]
        json = range_query(f"t.{name}", written, "desc" if descending else "asc")
        if query:
            transaction = self.world.begin(writable=False)
            state = self.states[self.durable_state_ts(transaction)]
        else:
            transaction, state = self.lane(), self.own
        expected = [
            dumps(document)
            for document in ordered(list(state.values()), INDEXES[name], descending)
            if in_range(document, expressions)
        ]
        assert transaction.collect_query(json) == b"[" + b",".join(expected) + b"]"
        number = transaction.open_query(json)
        assert [transaction.next(number) for _ in range(len(expected) + 1)] == [*expected, None]
        self.check_pages(transaction, json, expected, data.draw(st.integers(1, 4)))
        if query:
            transaction.abort()

    def check_pages(self, transaction: Transaction, json: dict[str, Any], expected: list[bytes], size: int) -> None:
        cursor, rows = None, []
        while True:
            state = transaction.enter_function()
            raw = transaction.page(json, cursor, None, size)
            transaction.leave_function(state)
            page = loads(raw)
            rows += page["page"]
            cursor = page["continueCursor"]
            if page["isDone"]:
                break
        assert rows == [loads(row) for row in expected]

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


TestOverMemory = HoldingMachine.TestCase
TestOverMemory.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestOverLmdb = LmdbMachine.TestCase
TestOverLmdb.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)
