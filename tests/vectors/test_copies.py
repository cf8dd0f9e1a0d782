"""Copies of large indexes: the graph's recall, rows that are given back, memory, and what ends a copy."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from skerry import limits
from skerry.database import DocumentWrite
from skerry.database.stored import stored_form
from skerry.errors import DeveloperError, SystemFault
from skerry.limits import (
    VECTOR_BLOCK_BYTES,
    VECTOR_BLOCK_ROWS_MAX,
    VECTOR_BLOCK_ROWS_MIN,
    VECTOR_DEPLOYMENT_BYTES_MAX,
    VECTOR_DIMENSIONS_MAX,
    VECTOR_EXACT_VALUES_MAX,
    VECTOR_FEED_BYTES_MAX,
    VECTOR_GRAPH_EFFORT_MAX,
    VECTOR_GRAPH_EFFORT_MIN,
    VECTOR_HOST_BYTES_MAX,
    VECTOR_IDLE_SECONDS,
    VECTOR_PROPOSALS_MAX,
    VECTOR_QUERY_WAIT_SECONDS_MAX,
    VECTOR_RETRY_SECONDS,
    VECTOR_WAIT_SECONDS_MAX,
)
from skerry.value import key_of
from skerry.vectors import Share, VectorMemory
from skerry.vectors.blocks import rows_per_block, unit
from skerry.vectors.copied import Copy
from skerry.vectors.graph import SHARE_WORTH_IT, Graph
from skerry.vectors.question import Asked, Definition, hash_of
from tests.database.world import lmdb_world, memory_world
from tests.vectors.world import SECRET, SliceLeft, Unbounded, VectorWorld, ask, vector_schema

DIMENSIONS = 32
RECALL_MIN = 0.95
SPACE = (7).to_bytes(4, "big")


class _Table:
    number = space = 7


def rows(count: int, kind: str, seed: int) -> Any:
    """Seeded vectors. Shape: `noise` in all directions, or `clusters` around 40 of them."""
    chance = np.random.default_rng(seed)
    noise = chance.standard_normal((count, DIMENSIONS))
    if kind == "noise":
        return noise
    return np.random.default_rng(0).standard_normal((40, DIMENSIONS))[chance.integers(0, 40, count)] + 0.3 * noise


class Alone:
    """A copy without a database."""

    def __init__(self, share: Share | None = None, dimensions: int = DIMENSIONS) -> None:
        self.share = share or Share(VectorMemory())
        self.copy = Copy(Definition(7, 7, ("v",), dimensions, (("kind",),)), self.share, SECRET, 1)
        self.now_ts = 1
        self.held: dict[bytes, tuple[Any, Any]] = {}
        self.stored: dict[bytes, bytes] = {}
        self.count = 0

    def write(self, vectors: Any, kinds: int = 1) -> None:
        """New documents, hydrated as long as the copy is not ready, fed afterwards."""
        items: list[tuple[bytes, bytes]] = []
        for vector in vectors:
            self.count += 1
            name = self.count.to_bytes(16, "big")
            document = {"_id": "x", "kind": self.count % kinds, "v": vector.tolist()}
            json = orjson.dumps(document)
            if self.copy.resume is None:
                self.now_ts += 1
                self._feed(name, None, json)
            else:
                self.stored[name] = stored_form(json, 1, self.now_ts.to_bytes(8, "big"), None)
                items.append((SPACE + name, self.stored[name]))
            self.held[name] = (vector / np.linalg.norm(vector), self.count % kinds)
        if items:
            self.copy.fill(items)
            self.copy.fill([])

    def delete(self, names: list[bytes]) -> None:
        for name in names:
            self.now_ts += 1
            self._feed(name, self.stored[name], None)
            del self.held[name]

    def _feed(self, name: bytes, before: bytes | None, json: bytes | None) -> None:
        self.copy.feed(self.now_ts, DocumentWrite(_Table, name, before, json, 1))  # type: ignore[arg-type]
        if json is not None:
            self.stored[name] = stored_form(json, 1, self.now_ts.to_bytes(8, "big"), before)
        self.copy.take_in()

    def settle(self) -> None:
        while self.copy.work(self.now_ts):
            pass

    def recall(self, targets: Any, limit: int = 10, kind: int | None = None) -> float:
        """The part of the nearest that searches find."""
        held = [(name, vector) for name, (vector, its) in self.held.items() if kind in (None, its)]
        matrix = np.stack([vector for _, vector in held])
        wanted = None if kind is None else ((0, hash_of(key_of(kind), SECRET)),)
        hits = 0
        for target in targets:
            found = {name for _, name in self.copy.search(Asked(target.tolist(), limit, wanted))}
            assert len(found) == min(limit, len(held))
            best = np.argsort(-(matrix @ (target / np.linalg.norm(target))))[:limit]
            hits += len(found & {held[place][0] for place in best})
        return hits / (len(targets) * limit)


@pytest.fixture
def small_exact(monkeypatch: pytest.MonkeyPatch) -> int:
    """A graph is grown above 500 rows already."""
    monkeypatch.setattr("skerry.vectors.copied.VECTOR_EXACT_VALUES_MAX", 500 * DIMENSIONS)
    monkeypatch.setattr("skerry.vectors.graph.SHARE_WORTH_IT", 4)
    return 500


@pytest.mark.parametrize("kind", ["noise", "clusters"])
def test_recall_of_a_large_index(small_exact: int, kind: str) -> None:
    alone = Alone()
    alone.write(rows(6_000, kind, 1), kinds=3)
    alone.settle()
    assert alone.copy.has_graph, "the graph answers"
    targets = rows(40, kind, 2)
    assert alone.recall(targets) >= RECALL_MIN
    assert alone.recall(targets[:8], limit=256) >= RECALL_MIN
    assert alone.recall(targets, kind=1) >= RECALL_MIN, "a filter that a third passes"
    alone.delete([*alone.held][::2])
    alone.write(rows(3_000, kind, 3), kinds=3)
    assert alone.recall(targets) >= RECALL_MIN, "rows that the graph does not hold yet"
    alone.settle()
    assert alone.copy.has_graph
    assert alone.recall(targets) >= RECALL_MIN, "half of all replaced"
    assert alone.recall(targets, kind=2) >= RECALL_MIN


def test_a_selective_filter_is_exact_beside_a_graph(small_exact: int) -> None:
    alone = Alone()
    alone.write(rows(3_000, "noise", 1), kinds=100)
    alone.settle()
    assert alone.recall(rows(20, "noise", 2), kind=42) == 1


def test_equal_vectors_in_numbers_do_not_fool_the_measure(small_exact: int) -> None:
    alone = Alone()
    alone.write(np.repeat(rows(4, "noise", 1), 500, axis=0))
    alone.settle()
    found = alone.copy.search(Asked(rows(1, "noise", 5)[0].tolist(), 256, None))
    assert len({score for score, _ in found}) == 1 and len(found) == 256


def test_the_size_above_which_there_is_a_graph(small_exact: int) -> None:
    alone = Alone()
    alone.write(rows(small_exact, "clusters", 1))
    alone.settle()
    assert alone.copy._graph is None
    alone.write(rows(1, "clusters", 2))
    alone.settle()
    assert alone.copy._graph is not None and alone.copy._graph.size == small_exact + 1
    alone.delete([*alone.held][: small_exact // 2 + 1])
    alone.settle()
    assert alone.copy._graph is None, "an index that shrank does without"
    assert 10_000 * 768 < VECTOR_EXACT_VALUES_MAX < 100_000 * 128, "as the documents say"


def test_efforts_have_bounds() -> None:
    graph = Graph(2)
    size = SHARE_WORTH_IT * VECTOR_GRAPH_EFFORT_MIN
    graph.add(np.arange(size), np.ones((size, 2), np.float32))
    assert graph.is_worth(VECTOR_GRAPH_EFFORT_MIN) and not graph.is_worth(VECTOR_GRAPH_EFFORT_MIN + 1)
    assert not graph.is_worth(VECTOR_GRAPH_EFFORT_MAX + 1) and VECTOR_PROPOSALS_MAX <= VECTOR_GRAPH_EFFORT_MAX
    asked: list[int] = []

    def score(slots: Any, _target: Any) -> Any:
        asked.append(len(slots))
        return np.zeros(len(slots))

    graph.measure([(unit([1, 0]), np.ones(10))], score)
    assert graph.effort_for(10) is None and asked, "no effort finds what is not there: searches stay exact"
    assert not graph.is_of_use


def test_a_graph_of_no_use_gives_its_memory_back(small_exact: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skerry.vectors.graph.SHARE_WORTH_IT", 10**6)
    alone = Alone()
    alone.write(rows(small_exact + 1, "noise", 1))
    before = alone.copy.bytes_held
    alone.settle()
    assert alone.copy._graph is None and alone.copy.bytes_held == before
    monkeypatch.setattr("skerry.vectors.graph.SHARE_WORTH_IT", 1)
    alone.write(rows(small_exact, "noise", 2))
    alone.settle()
    assert alone.copy._graph is None, "not yet worth another try"
    alone.write(rows(1, "noise", 3))
    alone.settle()
    assert alone.copy.has_graph


def test_blocks_have_between_their_least_and_most_rows() -> None:
    assert (
        rows_per_block(2) == rows_per_block(VECTOR_BLOCK_BYTES // 4 // VECTOR_BLOCK_ROWS_MAX) == VECTOR_BLOCK_ROWS_MAX
    )
    assert rows_per_block(VECTOR_DIMENSIONS_MAX) == VECTOR_BLOCK_ROWS_MIN


def test_rows_that_nobody_can_ask_for_are_given_back() -> None:
    alone = Alone(dimensions=DIMENSIONS)
    alone.write(rows(1, "noise", 0))
    size = rows_per_block(DIMENSIONS)
    alone.write(rows(3 * size, "noise", 1))
    full = alone.copy.bytes_held
    before_ts, names = alone.now_ts, [*alone.held]
    alone.delete(names[: 2 * size])
    asked = Asked([1.0] * DIMENSIONS, 10, None)
    then = alone.copy.search_at(asked, before_ts)
    while alone.copy.work(before_ts):
        pass
    assert alone.copy.bytes_held == full, "somebody may still ask"
    assert alone.copy.search_at(asked, before_ts) == then
    now = alone.copy.search_at(asked, alone.now_ts)
    alone.settle()
    assert alone.copy.bytes_held <= full // 2
    assert alone.copy.search_at(asked, alone.now_ts) == now == alone.copy.search(asked)
    with pytest.raises(SystemFault, match="so old a state") as caught:
        alone.copy.search_at(asked, before_ts)
    assert caught.value.code == "SnapshotGone"


# -- memory --------------------------------------------------------------------------------------------------------


class Idle:
    """Something that can be evicted."""

    def __init__(self, share: Share, asked_at: float) -> None:
        self.asked_at = asked_at
        self.share = share
        self.held = 0
        share.memory.enter(self)

    def hold(self, size: int) -> Any:
        refusal = self.share.refusal(size, self)
        self.held += 0 if refusal else size
        return refusal

    def evict(self) -> bool:
        self.share.memory.leave(self)
        self.share.give(self.held)
        self.held = 0
        return True


def test_a_deployments_share_and_the_process_memory_have_bounds() -> None:
    memory = VectorMemory(seconds=lambda: 1000.0)
    first, second, third = (Idle(Share(memory), 1000.0) for _ in range(3))
    assert first.hold(VECTOR_DEPLOYMENT_BYTES_MAX) is None
    assert first.hold(1).code == "VectorIndexTooLarge"
    assert second.hold(VECTOR_HOST_BYTES_MAX - VECTOR_DEPLOYMENT_BYTES_MAX) is None
    assert third.hold(1).code == "VectorIndexesUnavailable"
    assert memory.used == VECTOR_HOST_BYTES_MAX and third.share.used == 0


def test_what_nobody_searches_makes_room_the_longest_idle_first() -> None:
    now = 1000.0
    memory = VectorMemory(bytes_max=100, seconds=lambda: now)
    old, older, busy, asking = (
        Idle(Share(memory), at)
        for at in (now - VECTOR_IDLE_SECONDS, now - VECTOR_IDLE_SECONDS - 1, now - VECTOR_IDLE_SECONDS + 1, now)
    )
    for copy in (old, older, busy):
        assert copy.hold(30) is None
    assert asking.hold(40) is None and (old.held, older.held, busy.held) == (30, 0, 30)
    assert asking.hold(30) is None and (old.held, busy.held) == (0, 30)
    assert asking.hold(1).code == "VectorIndexesUnavailable" and busy.held == 30


@pytest.fixture
def inner(tmp_path: Path) -> Iterator[Any]:
    made = lmdb_world(tmp_path)
    made.schema(vector_schema(2, "kind"))
    yield made
    made.engine.close()


def refused(call: Callable[[], Any]) -> str:
    with pytest.raises((DeveloperError, SystemFault)) as caught:
        call()
    return caught.value.code


def test_an_index_too_large_for_its_deployment_says_so_and_is_tried_again_later(inner: Any) -> None:
    world = VectorWorld(inner, share_max=1)
    inner.insert_all("docs", [{"v": [1, 2]}])
    assert refused(lambda: world.search([1, 0])) == "VectorIndexTooLarge"
    first = world.copy()
    assert refused(lambda: world.search([1, 0])) == "VectorIndexTooLarge" and world.copy() is first
    world.seconds += VECTOR_RETRY_SECONDS
    assert refused(lambda: world.search([1, 0])) == "VectorIndexTooLarge" and world.copy() is not first
    assert world.memory.used == 0


def test_a_process_without_memory_answers_when_there_is_some_again(inner: Any) -> None:
    memory = VectorMemory(bytes_max=10_000_000, seconds=lambda: world.seconds)
    blocker = Idle(Share(memory), 0.0)
    world = VectorWorld(inner, memory=memory)
    blocker.hold(10_000_000)
    (name,) = inner.insert_all("docs", [{"v": [1, 2]}])
    assert refused(lambda: world.search([1, 0])) == "VectorIndexesUnavailable"
    world.seconds += VECTOR_IDLE_SECONDS
    assert [result["_id"] for result in world.search([1, 0])] == [name] and blocker.held == 0


def test_a_graph_without_memory_is_done_without(small_exact: int) -> None:
    plain = Alone()
    plain.write(rows(600, "noise", 1))
    tight = Alone(Share(VectorMemory(), bytes_max=plain.copy.bytes_held))
    tight.write(rows(600, "noise", 1))
    tight.settle()
    assert not tight.copy.has_graph and tight.recall(rows(5, "noise", 2)) == 1


def test_an_evicted_copy_is_made_anew_by_the_next_search(inner: Any) -> None:
    world = VectorWorld(inner)
    inner.insert_all("docs", [{"v": [1, 2]}])
    found = world.search([1, 0])
    old = world.copy()
    assert old.evict() and world.memory.used == 0
    assert world.search([1, 0]) == found and world.copy() is not old


def test_commits_faster_than_they_are_taken_in_end_the_copy(inner: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert VECTOR_FEED_BYTES_MAX > 1_000
    monkeypatch.setattr("skerry.vectors.copied.VECTOR_FEED_BYTES_MAX", 1_000)
    world = VectorWorld(inner)
    world.search([1, 0])
    old = world.copy()
    made = inner.insert_all("docs", [{"v": [1, 2], "text": "x" * 600}])
    assert old.error is None
    world.jobs.clear()
    made += inner.insert_all("docs", [{"v": [1, 2], "text": "x" * 600}])
    assert old.error is not None and old.waiting == 0
    world.indexes = world.open()
    assert {result["_id"] for result in world.search([1, 0])} == set(made)


# -- waiting -------------------------------------------------------------------------------------------------------


def test_an_action_waits_for_its_index_but_not_for_ever(inner: Any) -> None:
    world = VectorWorld(inner)
    answers = world.begin(ask([1, 0]))
    world.timers.advance(VECTOR_WAIT_SECONDS_MAX - 1)
    assert answers == []
    world.timers.advance(1)
    assert [answer.code for answer in answers] == ["VectorIndexesUnavailable"]  # type: ignore[union-attr]
    world.settle()
    assert len(answers) == 1 and not world.timers.pending
    assert world.search([1, 0]) == []


def test_a_query_waits_only_where_it_may(inner: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert VECTOR_QUERY_WAIT_SECONDS_MAX < VECTOR_WAIT_SECONDS_MAX
    monkeypatch.setattr("skerry.vectors.indexes.VECTOR_QUERY_WAIT_SECONDS_MAX", 0)
    world = VectorWorld(inner)
    inline, beside = inner.begin(writable=False), inner.begin(writable=False, detached=True)
    with pytest.raises(SliceLeft):
        world.search_at(inline, [1, 0])
    assert refused(lambda: world.search_at(beside, [1, 0])) == "VectorIndexesUnavailable"
    world.settle()
    assert world.search_at(inline, [1, 0]) == world.search_at(beside, [1, 0]) == []
    for transaction in (inline, beside):
        transaction.abort()


def test_a_query_says_what_its_search_costs(inner: Any) -> None:
    world = VectorWorld(inner)
    world.search([1, 0])
    inner.insert_all("docs", [{"v": [1, n]} for n in range(100)])
    costs, transaction = Unbounded(), inner.begin(writable=False)
    world.indexes.search_at(transaction, ask([1, 0]), costs)
    assert costs.expected[0] >= 100 * 100, "a hundred documents are still to be taken in"
    world.indexes.search_at(transaction, ask([1, 0]), costs)
    assert costs.expected[1] < 100
    transaction.abort()


def test_searches_of_a_query_count_as_reads_up_to_the_bound(inner: Any) -> None:
    world = VectorWorld(inner)
    inner.insert_all("docs", [{"v": [1, 2]}])
    world.search([1, 0])
    transaction = inner.begin(writable=False)
    for _ in range(limits.TRANSACTION_RANGES_READ_MAX):
        world.search_at(transaction, [1, 0])
    with pytest.raises(DeveloperError, match="Too many reads in a single function execution") as refusal:
        world.search_at(transaction, [1, 0])
    assert refusal.value.code == "TooManyReads"
    transaction.abort()


def test_a_search_in_a_query_is_a_read_of_the_table(inner: Any) -> None:
    world = VectorWorld(inner)
    world.search([1, 0])
    transaction = inner.begin(writable=False)
    world.search_at(transaction, [1, 0])
    by_id = inner.database.catalog.tables["docs"].by_id.number
    assert (by_id, b"", None) in transaction.read_set.ranges
    transaction.abort()


def test_a_state_older_than_the_copy_is_refused(inner: Any) -> None:
    world = VectorWorld(inner)
    old = inner.begin(writable=False, detached=True)
    inner.insert_all("docs", [{"v": [1, 2]}])
    world.search([1, 0])
    assert refused(lambda: world.search_at(old, [1, 0])) == "SnapshotGone"
    old.abort()
    past = inner.database.begin(writable=False, now_ms=1, seed=bytes(16), at_ts=old.begin_ts)
    assert refused(lambda: world.search_at(past, [1, 0])) == "OutOfRetention"
    past.abort()


# -- the end of a copy ---------------------------------------------------------------------------------------------


def test_an_index_that_is_no_longer_declared_gives_its_memory_back(inner: Any) -> None:
    world = VectorWorld(inner)
    inner.insert_all("docs", [{"v": [1, 2]}])
    world.search([1, 0])
    assert world.memory.used > 0
    inner.schema(vector_schema(3))
    world.settle()
    assert world.memory.used == 0 and not world.indexes._copies
    assert world.search([1, 0, 0]) == []


def test_closing_refuses_who_waits_and_gives_all_memory_back(inner: Any) -> None:
    world = VectorWorld(inner)
    inner.insert_all("docs", [{"v": [1, 2]}])
    world.search([1, 0])
    ready, closed = world.begin(ask([1, 0])), []
    world.indexes.close(lambda: closed.append(True))
    assert ready[0].code == "ShuttingDown" and closed == [], "its job has not ended"  # type: ignore[union-attr]
    world.settle()
    assert closed == [True] and world.memory.used == 0
    assert refused(lambda: world.search([1, 0])) == "ShuttingDown"


def test_a_storage_that_failed_is_read_again() -> None:
    inner = memory_world()
    inner.schema(vector_schema(2))
    world = VectorWorld(inner)
    (name,) = inner.insert_all("docs", [{"v": [1, 2]}])
    world.search([1, 0])
    old = world.copy()
    inner.database._epoch += 1  # what `_recover` does first
    assert [result["_id"] for result in world.search([1, 0])] == [name] and world.copy() is not old


def test_a_table_that_an_import_swapped_is_another(inner: Any) -> None:
    """The copy follows where documents lie, not the table's name."""
    table = inner.database.catalog.tables["docs"]
    world = VectorWorld(inner)
    inner.insert_all("docs", [{"v": [1, 2]}])
    world.search([1, 0])
    assert world.copy().definition.space == table.space
