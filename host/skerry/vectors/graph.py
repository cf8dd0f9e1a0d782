"""A graph over the rows of a copy that proposes near ones without looking at all: the library's, with our effort.

The library (usearch) walks a navigable graph over bfloat16 copies of the rows. What it proposes is only ever a list of
slots: whether a row holds, what it scores and which come first is decided from the rows themselves.

**Effort.** How many rows a walk considers decides its recall, and how many are needed depends on the data: few where
vectors lie in clusters, a tenth of all where they are noise. So it is measured: for a sample of the deployment's own
vectors and of directions between two of them, the exact answer is compared with the graph's, and the effort doubled
until `VECTOR_RECALL_AIMED` is reached, anew each time half of it has changed. Where no effort that is worth it
reaches it, there is none, and searches stay exact.

Concurrency: the deployment's vector job alone.
"""

from collections.abc import Callable, Iterable
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray
from usearch.index import Index

from skerry.limits import (
    VECTOR_GRAPH_EFFORT_MAX,
    VECTOR_GRAPH_EFFORT_MIN,
    VECTOR_RECALL_AIMED,
    VECTOR_RESULTS_MAX,
)
from skerry.vectors.blocks import Doubles, Floats, Numbers

Scorer = Callable[[Numbers, Doubles], Doubles]

LINKS: Final = 16  # of a row to others, on each level but the lowest, which has twice as many
_EFFORT_TO_ADD: Final = 128
_ROW_BYTES_BESIDE: Final = 512  # links, keys and the places kept free
_SMALL: Final = 16
SHARE_WORTH_IT: Final = 48  # an effort of one row in so many costs as much as looking at all of them in a line
_SPARE_PROPOSALS: Final = 16


def graph_bytes(dimensions: int, rows: int) -> int:
    """What a graph takes; places are made for the next power of two."""
    return (1 << max(rows - 1, 1).bit_length()) * (2 * dimensions + _ROW_BYTES_BESIDE)


def proposals_for(limit: int) -> int:
    """How many rows are proposed for so many results: half-size rows come in a slightly different order."""
    return limit + max(_SPARE_PROPOSALS, limit // 8)


class Graph:
    """Shape: `size` is how many rows it holds."""

    def __init__(self, dimensions: int) -> None:
        self._index: Any = Index(
            ndim=dimensions, metric="ip", dtype="bf16", connectivity=LINKS, expansion_add=_EFFORT_TO_ADD
        )
        self._efforts: dict[int, int] = {}
        self._measured_at = 0
        self._changed = 0  # rows that came and went since

    @property
    def size(self) -> int:
        return len(self._index)

    def add(self, slots: Numbers, rows: Floats) -> None:
        self._changed += len(slots)
        self._index.add(slots.astype(np.uint64), rows, threads=1)

    def remove(self, slots: Iterable[int]) -> None:
        for slot in slots:
            if slot in self._index:
                self._index.remove(slot)
                self._changed += 1

    def propose(self, target: Doubles, count: int, effort: int) -> Numbers:
        """About the nearest `count` slots."""
        self._index.expansion_search = max(effort, count)
        found = self._index.search(target.astype(np.float32), count, threads=1)
        return cast("NDArray[np.uint64]", found.keys).astype(np.int64)

    # -- effort ----------------------------------------------------------------------------------------------------

    @property
    def is_stale(self) -> bool:
        """Whether the effort has to be measured again."""
        return 2 * self._changed > self._measured_at

    def effort_for(self, limit: int) -> int | None:
        """How many rows a walk for so many results considers; None where a walk is not worth it."""
        effort = self._efforts.get(_SMALL if limit <= _SMALL else VECTOR_RESULTS_MAX)
        return effort if effort is not None and self.is_worth(effort) else None

    def is_worth(self, effort: int) -> bool:
        """Whether a walk costs less than looking at all rows."""
        return effort <= VECTOR_GRAPH_EFFORT_MAX and effort * SHARE_WORTH_IT <= self.size

    @property
    def is_of_use(self) -> bool:
        """Whether any search goes by it, once it was measured."""
        return bool(self._efforts)

    def measure(self, sample: list[tuple[Doubles, Doubles]], score: Scorer) -> None:
        """Set the efforts by a sample: targets, each with the best scores there are in their order."""
        self._measured_at, self._changed = self.size, 0
        self._efforts = {}
        for limit in (_SMALL, VECTOR_RESULTS_MAX):
            effort = max(VECTOR_GRAPH_EFFORT_MIN, limit)
            while self.is_worth(effort):
                if self._recall(sample, score, limit, effort) >= VECTOR_RECALL_AIMED:
                    self._efforts[limit] = effort
                    break
                effort *= 2

    def _recall(self, sample: list[tuple[Doubles, Doubles]], score: Scorer, limit: int, effort: int) -> float:
        """The part of the best rows that the graph proposes; of equal scores each is as good as the other."""
        hits = possible = 0
        for target, best in sample:
            count = min(limit, len(best))
            if count:
                scores = score(self.propose(target, proposals_for(count), effort), target)
                hits += min(count, int(np.count_nonzero(scores >= best[count - 1])))
                possible += count
        return hits / max(1, possible)
