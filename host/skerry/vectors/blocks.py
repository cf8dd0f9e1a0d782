"""Vectors in blocks of rows, each row with the time it holds for, and the exact search over them.

A row is written once and never changed, but for the time its document left it. So whoever took a list of views (a
block and how many of its rows count) may read on while rows are added, and needs no lock. Rows that nobody can ask
about any more go with their block, once more than half of it is dead: the living ones move to the end.

Rows are unit vectors in float32. Exactness: products in float32 choose the candidates, with the largest error that
they can have as margin; scores are computed in float64 from the candidates' own rows, by the same steps for each, so
that a score is a function of two vectors and nothing else. The cosine with a vector of zeros is 0.
"""

from typing import Any, Final, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from skerry.limits import VECTOR_BLOCK_BYTES, VECTOR_BLOCK_ROWS_MAX, VECTOR_BLOCK_ROWS_MIN
from skerry.value.ids import INTERNAL_ID_BYTES

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Numbers = NDArray[np.int64]
Hashes = NDArray[np.uint64]
Flags = NDArray[np.bool_]
Score = tuple[float, bytes]
"""A cosine, and the internal id of the document."""

ALIVE: Final = 2**63 - 1
ROW_BYTES_BESIDE: Final = 208  # of a row beside its vector and filters: times, id, and its place in a dictionary
_RESCORED_ROWS: Final = 512
_SPARSE: Final = 4  # of a block's rows, one in so many is wanted: then only those are multiplied


class Block:
    """Shape: `base` is the slot of its first row, `n` how many rows are written, `n_dead` how many of those ended."""

    __slots__ = ("base", "born", "died", "filters", "ids", "n", "n_dead", "newest", "rows")

    def __init__(self, base: int, capacity: int, dimensions: int, filters: int) -> None:
        self.base = base
        self.rows: Floats = np.empty((capacity, dimensions), np.float32)
        self.filters: Hashes = np.empty((filters, capacity), np.uint64)
        self.born: Numbers = np.empty(capacity, np.int64)
        self.died: Numbers = np.full(capacity, ALIVE, np.int64)
        self.ids: list[bytes] = []
        self.n = 0
        self.n_dead = 0
        self.newest = 0

    def kept(self, start: int, end: int, at_ts: int | None, wanted: tuple[tuple[int, int], ...] | None) -> Flags | None:
        """Which rows of `[start, end)` hold at a time (None: now) and have a wanted value; None for all of them."""
        kept: Flags | None = None
        died = self.died[start:end]
        if at_ts is None:
            if self.n_dead:
                kept = died == ALIVE
        elif self.n_dead or self.newest > at_ts:
            kept = (self.born[start:end] <= at_ts) & (died > at_ts)
        if wanted is None:
            return kept
        matching: Flags = np.zeros(end - start, np.bool_)
        for place, value in wanted:
            matching |= self.filters[place, start:end] == np.uint64(value)
        return matching if kept is None else kept & matching

    def kept_rows(self, at: Numbers, wanted: tuple[tuple[int, int], ...] | None) -> Numbers:
        """Those rows of some that hold now and have a wanted value."""
        at = at[self.died[at] == ALIVE]
        if wanted is None or not len(at):
            return at
        matching: Flags = np.zeros(len(at), np.bool_)
        for place, value in wanted:
            matching |= self.filters[place, at] == np.uint64(value)
        return at[matching]


class View(NamedTuple):
    """Rows `[start, end)` of a block, as they were when it was looked at."""

    block: Block
    start: int
    end: int


def rows_per_block(dimensions: int) -> int:
    return max(VECTOR_BLOCK_ROWS_MIN, min(VECTOR_BLOCK_ROWS_MAX, VECTOR_BLOCK_BYTES // (4 * dimensions)))


def unit(vector: list[float]) -> Doubles:
    """The vector with length 1, whatever its numbers' size; zeros stay zeros."""
    array: Doubles = np.array(vector, np.float64)
    largest = float(np.abs(array).max())
    if largest == 0.0:
        return array
    array = array / largest
    return cast("Doubles", array / np.sqrt((array * array).sum()))


def count_kept(views: list[View], at_ts: int | None, wanted: tuple[tuple[int, int], ...] | None) -> int:
    """How many rows hold and have a wanted value."""
    count = 0
    for block, start, end in views:
        kept = block.kept(start, end, at_ts, wanted)
        count += end - start if kept is None else int(np.count_nonzero(kept))
    return count


def nearest(
    views: list[View], target: Doubles, limit: int, at_ts: int | None, wanted: tuple[tuple[int, int], ...] | None
) -> list[Score]:
    """The best `limit` rows, exactly: by descending score, equal ones by ascending id."""
    rough_target = target.astype(np.float32)
    roughs: list[Floats] = []
    places: list[tuple[Block, Numbers]] = []
    for block, start, end in views:
        kept = block.kept(start, end, at_ts, wanted)
        if kept is None:
            at: Numbers = np.arange(start, end)
            rough: Floats = block.rows[start:end] @ rough_target
        else:
            at = np.flatnonzero(kept) + start
            if not len(at):
                continue
            if len(at) * _SPARSE < end - start:
                rough = block.rows[at] @ rough_target
            else:
                rough = (block.rows[start:end] @ rough_target)[kept]
        roughs.append(rough)
        places.append((block, at))
    if not roughs:
        return []
    floor = -np.inf
    if sum(map(len, roughs)) > limit:
        every = np.concatenate(roughs)
        floor = float(np.partition(every, -limit)[-limit]) - 2 * _error_max(len(target))
    chosen: list[tuple[Doubles, NDArray[Any]]] = []
    for rough, (block, at) in zip(roughs, places, strict=True):
        best = at[rough >= floor]
        if len(best):
            chosen.append((scores_of(block, best, target), np.array([block.ids[row] for row in best], "S16")))
    scores = np.concatenate([part for part, _ in chosen])
    ids = np.concatenate([part for _, part in chosen])
    order = np.lexsort((ids, -scores))[:limit]
    return [(float(scores[place]), bytes(ids[place]).ljust(INTERNAL_ID_BYTES, b"\0")) for place in order]


def scores_of(block: Block, at: Numbers, target: Doubles) -> Doubles:
    """The cosines of rows with a unit vector."""
    parts: list[Doubles] = []
    for begin in range(0, len(at), _RESCORED_ROWS):
        rows: Doubles = block.rows[at[begin : begin + _RESCORED_ROWS]].astype(np.float64)
        lengths = np.sqrt((rows * rows).sum(axis=1))
        lengths[lengths == 0.0] = 1.0
        parts.append(np.clip((rows * target).sum(axis=1) / lengths, -1.0, 1.0) + 0.0)  # no negative zero
    return np.concatenate(parts)


def _error_max(dimensions: int) -> float:
    """The largest error of a product of two unit vectors in float32, in whatever order it is summed up."""
    return (dimensions + 8) * 2.0**-24 * 1.01
