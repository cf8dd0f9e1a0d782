"""The copy of one vector index in memory: filled from the documents, kept up by commits, searched.

```
hydrating -> ready -> gone (evicted, too large, no longer declared, deployment closed)
```

**Hydration beside commits.** From the moment `since_ts` on, each durable commit is fed to the copy, with the version
it replaced. Documents are read in pieces, each from the newest snapshot. A version found there is taken only if it is
not newer than `since_ts` and no commit since has told of its document; what a commit replaced is taken from the
commit. So from `since_ts` on the copy knows every version with its times, and any snapshot from there on can be
answered.

Commits are queued by the loop thread at the price of an append, and taken in by the deployment's vector job, or by
whoever searches first.

Concurrency: `feed` on the loop thread; `search` and `work` within the deployment's one vector job; `search_at` and
`evict` anywhere. The lock is held for short pieces; what takes long (products, the graph) runs without it.
"""

import threading
from collections import deque
from typing import Final

import numpy as np

from skerry.database import DocumentWrite
from skerry.database.stored import HEADER_BYTES, commit_ts_of
from skerry.errors import SkerryError, SystemFault
from skerry.limits import (
    VECTOR_DOCUMENTS_PER_PIECE,
    VECTOR_EXACT_VALUES_MAX,
    VECTOR_FEED_BYTES_MAX,
    VECTOR_GRAPH_ROWS_PER_PIECE,
    VECTOR_GRAPH_SAMPLE,
    VECTOR_PROPOSALS_MAX,
    VECTOR_RESULTS_MAX,
    VECTOR_RETRY_SECONDS,
)
from skerry.storage import Item
from skerry.vectors.blocks import (
    ALIVE,
    ROW_BYTES_BESIDE,
    Block,
    Doubles,
    Numbers,
    Score,
    View,
    count_kept,
    nearest,
    rows_per_block,
    scores_of,
    unit,
)
from skerry.vectors.documents import Extractor
from skerry.vectors.graph import Graph, graph_bytes, proposals_for
from skerry.vectors.memory import Share
from skerry.vectors.question import Asked, Definition

_KEY_PREFIX_BYTES: Final = 4
_SAMPLES_PER_PIECE: Final = 4


class Copy:
    """One index in memory. Shape: `resume` is the key its hydration goes on at, None when it is done; `error` why it is
    gone; `asked_at` when somebody last searched, by the memory's clock.
    """

    def __init__(self, definition: Definition, share: Share, secret: bytes, since_ts: int) -> None:
        self.definition = definition
        self.since_ts = since_ts
        self.resume: bytes | None = definition.space.to_bytes(_KEY_PREFIX_BYTES, "big")
        self.is_ready = threading.Event()
        self.error: SkerryError | None = None
        self.asked_at = share.memory.seconds()
        self._share = share
        self._refused_at: float | None = None
        self._extractor = Extractor(definition, secret)
        self._lock = threading.RLock()
        self._capacity = rows_per_block(definition.dimensions)
        self._blocks: dict[int, Block] = {}
        self._next_number = 0
        self._slots: dict[bytes, int] = {}
        self._touched: set[bytes] = set()
        self._feed: deque[tuple[int, DocumentWrite]] = deque()
        self._feed_bytes = 0
        self._taken_bytes = 0
        self._held_bytes = 0
        self._graph: Graph | None = None
        self._graph_bytes = 0
        self._is_graph_refused = False
        self._graph_from = 0  # documents, below which a graph was found to be of no use
        self._graphed = 0  # every row below this slot is in the graph, or dead
        self._ended: deque[int] = deque()
        self._sample: list[tuple[Doubles, Doubles]] = []
        share.memory.enter(self)

    # -- size ------------------------------------------------------------------------------------------------------

    @property
    def count(self) -> int:
        """How many documents it holds now."""
        return len(self._slots)

    @property
    def waiting(self) -> int:
        """How many changed documents are to be taken in."""
        return len(self._feed)

    @property
    def bytes_held(self) -> int:
        return self._held_bytes

    @property
    def has_graph(self) -> bool:
        """Whether searches go by the graph, where they may."""
        graph = self._graph
        return graph is not None and graph.effort_for(1) is not None

    def _hold(self, size: int) -> bool:
        """Counts memory; where there is none, the copy is gone."""
        refusal = self._share.refusal(size, self)
        if refusal is None:
            self._held_bytes += size
            return True
        self._refused_at = self._share.memory.seconds()
        self._end(refusal)
        return False

    @property
    def is_refused(self) -> bool:
        """Whether there was no memory for it just now, so that making it again would be in vain."""
        return self._refused_at is not None and self._share.memory.seconds() - self._refused_at < VECTOR_RETRY_SECONDS

    def evict(self) -> bool:
        """Give all memory back, unless somebody is at work on it; never waits."""
        if not self._lock.acquire(blocking=False):
            return False
        try:
            self._end(evicted())
        finally:
            self._lock.release()
        return True

    def close(self) -> None:
        """Give all memory back."""
        self._end(evicted())

    def _end(self, error: SkerryError) -> None:
        with self._lock:
            if self.error is not None:
                return
            self.error = error
            self._blocks = {}
            self._slots = {}
            self._touched = set()
            self._feed.clear()
            self._graph = None
            self._sample = []
            held, self._held_bytes = self._held_bytes, 0
        self._share.memory.leave(self)
        self._share.give(held)
        self.is_ready.set()

    # -- what commits bring ----------------------------------------------------------------------------------------

    def feed(self, commit_ts: int, write: DocumentWrite) -> None:
        """Queue a change of a document of the table; the loop thread, in the order of commits."""
        if self.error is not None:
            return
        self._feed.append((commit_ts, write))
        self._feed_bytes += _bytes_of(write)
        if self._feed_bytes - self._taken_bytes > VECTOR_FEED_BYTES_MAX:
            self.evict()

    def take_in(self, count_max: int | None = None) -> None:
        """Take queued changes into the copy, all of them or so many."""
        with self._lock:
            for _ in range(len(self._feed) if count_max is None else min(count_max, len(self._feed))):
                if self.error is not None:
                    return
                commit_ts, write = self._feed.popleft()
                self._taken_bytes += _bytes_of(write)
                self._take(commit_ts, write)

    def _take(self, commit_ts: int, write: DocumentWrite) -> None:
        internal_id, before = write.internal_id, write.before
        slot = self._slots.pop(internal_id, None)
        if slot is not None:
            self._die(slot, commit_ts)
        elif before is not None and self.resume is not None and internal_id not in self._touched:
            born_ts = commit_ts_of(before)
            if born_ts <= self.since_ts:
                replaced = self._add(internal_id, before[HEADER_BYTES:], born_ts)
                if replaced is not None:
                    self._die(replaced, commit_ts)
        if self.resume is not None:
            self._touched.add(internal_id)
        if write.json is not None:
            added = self._add(internal_id, write.json, commit_ts)
            if added is not None:
                self._slots[internal_id] = added

    def _add(self, internal_id: bytes, json: bytes, born_ts: int) -> int | None:
        """Write a row; its slot, None where the document has none or there is no memory for it."""
        row = self._extractor.row(json)
        if row is None:
            return None
        block = self._last_block()
        if block is None:
            return None
        at = block.n
        block.rows[at] = unit(row.vector)
        block.filters[:, at] = np.array(row.filters, np.uint64)
        block.born[at] = born_ts
        block.ids.append(internal_id)
        block.newest = max(block.newest, born_ts)
        block.n = at + 1
        return block.base + at

    def _last_block(self) -> Block | None:
        """The block that has a place."""
        number = next(reversed(self._blocks), -1)
        if number >= 0 and self._blocks[number].n < self._capacity:
            return self._blocks[number]
        dimensions, filters = self.definition.dimensions, len(self.definition.filters)
        if not self._hold(self._block_bytes):
            return None
        number = self._next_number
        block = self._blocks[number] = Block(number * self._capacity, self._capacity, dimensions, filters)
        self._next_number = number + 1
        return block

    @property
    def _block_bytes(self) -> int:
        beside = ROW_BYTES_BESIDE + 8 * len(self.definition.filters)
        return self._capacity * (4 * self.definition.dimensions + beside)

    def _die(self, slot: int, commit_ts: int) -> None:
        block = self._blocks[slot // self._capacity]
        block.n_dead += 1  # first: who reads without the lock must not take the block for whole
        block.died[slot - block.base] = commit_ts
        if slot < self._graphed:
            self._ended.append(slot)

    # -- hydration -------------------------------------------------------------------------------------------------

    def fill(self, items: list[Item]) -> None:
        """Take documents read from a snapshot, in the order of keys, from `resume` on; none where there are no more."""
        with self._lock:
            if self.error is not None or self.resume is None:
                return
            if not items:
                self.resume = None
                self._touched = set()
                self.is_ready.set()
                return
            for key, stored in items:
                internal_id, born_ts = key[_KEY_PREFIX_BYTES:], commit_ts_of(stored)
                if born_ts > self.since_ts or internal_id in self._touched or internal_id in self._slots:
                    continue
                slot = self._add(internal_id, stored[HEADER_BYTES:], born_ts)
                if slot is not None:
                    self._slots[internal_id] = slot
                if self.error is not None:
                    return
            self.resume = items[-1][0] + b"\0"

    # -- searching -------------------------------------------------------------------------------------------------

    def search_at(self, asked: Asked, at_ts: int) -> list[Score]:
        """The exact answer as of a snapshot.

        Raises: SystemFault `SnapshotGone` for one older than `since_ts`; `VectorIndexesUnavailable`, or why the copy is
        gone.
        """
        self.asked_at = self._share.memory.seconds()
        with self._lock:
            self.take_in()
            if self.error is not None:
                raise self.error
            if at_ts < self.since_ts:
                raise SystemFault("SnapshotGone", "The vector index knows nothing of so old a state. Try again.")
            views = self._views()
        return nearest(views, unit(asked.vector), asked.limit, at_ts, asked.wanted)

    def search(self, asked: Asked) -> list[Score]:
        """The answer as of now: exact, or by the graph where there are many vectors. The vector job.

        Raises: as `search_at`.
        """
        self.asked_at = self._share.memory.seconds()
        with self._lock:
            self.take_in()
            if self.error is not None:
                raise self.error
            views = self._views()
        target = unit(asked.vector)
        graph = self._graph
        effort = None if graph is None else graph.effort_for(asked.limit)
        if graph is not None and effort is not None and self._is_large(self.count):
            found = self._by_graph(graph, views, target, asked, effort)
            if found is not None:
                return found
        return nearest(views, target, asked.limit, None, asked.wanted)

    def _is_large(self, count: int) -> bool:
        return count * self.definition.dimensions > VECTOR_EXACT_VALUES_MAX

    def _by_graph(
        self, graph: Graph, views: list[View], target: Doubles, asked: Asked, effort: int
    ) -> list[Score] | None:
        """What the graph proposes, and what is not in it yet, by exact scores; None where that is not enough."""
        count, limit = self.count, asked.limit
        proposals = proposals_for(limit)
        if asked.wanted is not None:
            matching = count_kept(views, None, asked.wanted)
            if not self._is_large(matching):
                return None
            proposals = 2 * proposals * count // matching
            if proposals > VECTOR_PROPOSALS_MAX:
                return None
            effort = max(effort, 2 * proposals)
            if not graph.is_worth(effort):
                return None
        found = self._scored(graph.propose(target, proposals, effort), target, asked.wanted)
        rest = [view for view in (_from(view, self._graphed) for view in views) if view is not None]
        found += nearest(rest, target, limit, None, asked.wanted)
        found.sort(key=_rank)
        return found[:limit] if len(found) >= limit else None

    def _scored(self, slots: Numbers, target: Doubles, wanted: tuple[tuple[int, int], ...] | None) -> list[Score]:
        """The scores of those slots that hold now and have a wanted value."""
        by_block: dict[int, list[int]] = {}
        for slot in slots.tolist():
            by_block.setdefault(slot // self._capacity, []).append(slot % self._capacity)
        found: list[Score] = []
        for number, rows in by_block.items():
            block = self._blocks.get(number)
            if block is None:
                continue
            at: Numbers = np.array(rows, np.int64)
            kept = block.kept_rows(at, wanted)
            if len(kept):
                scores = scores_of(block, kept, target)
                found += [(float(score), block.ids[row]) for score, row in zip(scores, kept, strict=True)]
        return found

    def _views(self) -> list[View]:
        return [View(block, 0, block.n) for block in self._blocks.values()]

    # -- care ------------------------------------------------------------------------------------------------------

    def work(self, oldest_ts: int) -> bool:
        """One short piece of what there is to do, for a copy that is ready; whether there is more. Snapshots older than
        `oldest_ts` are no longer asked for."""
        if self._feed:
            self.take_in(VECTOR_DOCUMENTS_PER_PIECE)
            return True
        if self.error is not None or self.resume is not None:
            return False
        return self._retire(oldest_ts) or self._grow_graph()

    def _retire(self, oldest_ts: int) -> bool:
        """Gives back one block that is more than half dead."""
        with self._lock:
            for number, block in self._blocks.items():
                if block.n < self._capacity or 2 * block.n_dead <= self._capacity:
                    continue
                if bool(((block.died[: block.n] != ALIVE) & (block.died[: block.n] > oldest_ts)).any()):
                    continue
                living = np.flatnonzero(block.died == ALIVE).tolist()
                for row in living:
                    self._move(block, row)
                    if self.error is not None:
                        return False
                del self._blocks[number]
                self.since_ts = max(self.since_ts, oldest_ts)  # what held before is no longer known
                self._held_bytes -= self._block_bytes
                self._share.give(self._block_bytes)
                return True
        return False

    def _move(self, block: Block, row: int) -> None:
        """Writes a living row again, at the end."""
        into = self._last_block()
        if into is None:
            return
        at, internal_id = into.n, block.ids[row]
        into.rows[at] = block.rows[row]
        into.filters[:, at] = block.filters[:, row]
        into.born[at] = block.born[row]
        into.ids.append(internal_id)
        into.newest = max(into.newest, int(block.born[row]))
        into.n = at + 1
        self._slots[internal_id] = into.base + at
        if block.base + row < self._graphed:
            self._ended.append(block.base + row)

    def _grow_graph(self) -> bool:
        """Adds a few rows to the graph, or takes some out, or measures it; whether there may be more."""
        if self._graph is None:
            count = self.count
            if self._is_graph_refused or count < self._graph_from or not self._is_large(count):
                return False
            if not self._hold_graph(count):
                return False
            self._graph, self._graphed = Graph(self.definition.dimensions), 0
            self._ended.clear()
        graph = self._graph
        if not self._is_large(2 * self.count):
            self._drop_graph()
            return False
        if self._ended:
            graph.remove([self._ended.popleft() for _ in range(min(len(self._ended), VECTOR_GRAPH_ROWS_PER_PIECE))])
            return True
        if self._add_to_graph(graph):
            return True
        if graph.is_stale:
            self._measure(graph)
            return True
        return False

    def _add_to_graph(self, graph: Graph) -> bool:
        with self._lock:
            views = [_from(view, self._graphed) for view in self._views()]
        view = next((view for view in views if view is not None), None)
        if view is None:
            return False
        block, start, end = view
        end = min(end, start + VECTOR_GRAPH_ROWS_PER_PIECE)
        at = np.flatnonzero(block.died[start:end] == ALIVE) + start
        if len(at):
            if not self._hold_graph(graph.size + len(at)):
                self._drop_graph()
                return False
            graph.add(at + block.base, block.rows[at])
        with self._lock:
            self._graphed = block.base + end
            self._ended.extend([block.base + row for row in at.tolist() if block.died[row] != ALIVE])
        return True

    def _hold_graph(self, rows: int) -> bool:
        """Counts the graph's memory; without it there is no graph, and searches are exact."""
        more = graph_bytes(self.definition.dimensions, rows) - self._graph_bytes
        if more <= 0:
            return True
        if self._share.refusal(more, self) is not None:
            self._is_graph_refused = True
            return False
        with self._lock:
            self._held_bytes += more
        self._graph_bytes += more
        return True

    def _drop_graph(self) -> None:
        with self._lock:
            if self.error is not None:
                return
            self._graph, self._sample = None, []
            self._graphed = 0
            self._ended.clear()
            given, self._graph_bytes = self._graph_bytes, 0
            self._held_bytes -= given
        self._share.give(given)

    def _measure(self, graph: Graph) -> None:
        """Adds to the sample; once it is whole, measures."""
        chance = np.random.default_rng(graph.size + len(self._sample))
        with self._lock:
            views = self._views()
            slots = list(self._slots.values())
        for _ in range(_SAMPLES_PER_PIECE):
            one, other = (self._row(int(slot)) for slot in chance.choice(slots, 2))
            if one is None or other is None:
                return
            target = one if len(self._sample) % 2 else unit((one + other).tolist())
            scores = [score for score, _ in nearest(views, target, VECTOR_RESULTS_MAX, None, None)]
            self._sample.append((target, np.array(scores, np.float64)))
        if len(self._sample) >= VECTOR_GRAPH_SAMPLE:
            sample, self._sample = self._sample, []
            graph.measure(sample, self._scores_of_slots)
            if not graph.is_of_use:
                self._graph_from = 2 * self.count
                self._drop_graph()

    def _scores_of_slots(self, slots: Numbers, target: Doubles) -> Doubles:
        """The scores of the living among some slots."""
        found = [score for score, _ in self._scored(slots, target, None)]
        return np.array(found, np.float64)

    def _row(self, slot: int) -> Doubles | None:
        block = self._blocks.get(slot // self._capacity)
        return None if block is None else block.rows[slot - block.base].astype(np.float64)


def _from(view: View, slot: int) -> View | None:
    """The part of a view from a slot on."""
    block, start, end = view
    start = max(start, slot - block.base)
    return View(block, start, end) if start < end else None


def _rank(scored: Score) -> tuple[float, bytes]:
    return -scored[0], scored[1]


def evicted() -> SystemFault:
    return SystemFault("VectorIndexesUnavailable", "The vector index is being loaded. Try again in a moment.")


def _bytes_of(write: DocumentWrite) -> int:
    return len(write.before or b"") + len(write.json or b"")
