"""`tools/bench vectors`: what a vector search takes and finds among more and more vectors, and what these take.

Vectors lie in a thousand clusters, or in none (`noise`, the worst there is for a graph). A copy of an index is filled
as by hydration and asked in this thread; times are those of its CPU.
"""

import time
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from bench.effort import Effort
from bench.report import Row, Section, percentile
from skerry.database import DocumentWrite
from skerry.database.stored import stored_form
from skerry.vectors import Share, VectorMemory
from skerry.vectors.copied import Copy
from skerry.vectors.question import Asked, Definition

_SPACE = 7
_CLUSTERS = 1_000
_SPREAD = 0.3
_TAKEN = 10
_SEARCHES = 50
_TOGETHER = 64
_INSERTS = 100
_RECALL_MIN = 0.95
_SECRET = b"of the vectors' bench"


class _Table:
    number = space = _SPACE


def run_vectors(folder: Path, effort: Effort, seed: int) -> list[Section]:
    """A section for each size."""
    return [_section(count, dimensions, kind, seed) for count, dimensions, kind in effort.vectors]


def _section(count: int, dimensions: int, kind: str, seed: int) -> Section:
    section = Section(f"Searches among {count} vectors of {dimensions} ({kind}), the first {_TAKEN} results")
    chance = np.random.default_rng(seed)
    centres = chance.standard_normal((_CLUSTERS, dimensions))
    vectors = _drawn(count, centres, kind, chance)
    targets = _drawn(_SEARCHES, centres, kind, chance)
    copy = Copy(Definition(_SPACE, _SPACE, ("v",), dimensions, ()), Share(VectorMemory()), _SECRET, 1)
    spent = 0.0
    for first in range(0, count, _TOGETHER):
        items = [
            (_SPACE.to_bytes(4, "big") + _name(number), stored_form(_json(vectors[number]), 1, _stamp(1), None))
            for number in range(first, min(count, first + _TOGETHER))
        ]
        start = time.thread_time()
        copy.fill(items)
        spent += time.thread_time() - start
    copy.fill([])
    section.rows.append(Row("load a document", spent * 1e6 / count, "us"))
    section.rows.append(_searched("exact, p50", copy, targets))
    start = time.thread_time()
    while copy.work(1):
        pass
    if copy.has_graph:
        section.rows.append(Row("grow the graph by a vector", (time.thread_time() - start) * 1e6 / count, "us"))
        section.rows.append(_searched("by the graph, p50", copy, targets))
    section.rows.append(Row("found of the nearest", _recall(copy, vectors, targets), "", at_least=_RECALL_MIN))
    section.rows.append(Row("memory", copy.bytes_held / count, "B/vector"))
    section.rows.append(Row("take in an insert", _inserted(copy, vectors, count), "us"))
    return section


def _searched(what: str, copy: Copy, targets: Any) -> Row:
    times: list[float] = []
    for target in targets:
        start = time.thread_time()
        copy.search(Asked(target.tolist(), _TAKEN, None))
        times.append((time.thread_time() - start) * 1e3)
    return Row(what, percentile(times, 0.5), "ms", note=f"p95 {percentile(times, 0.95):.2f} ms")


def _recall(copy: Copy, vectors: Any, targets: Any) -> float:
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    hits = 0
    for target in targets:
        found = {int.from_bytes(name, "big") for _, name in copy.search(Asked(target.tolist(), _TAKEN, None))}
        hits += len(found & set(np.argpartition(-(units @ target), _TAKEN)[:_TAKEN].tolist()))
    return hits / (_TAKEN * len(targets))


def _inserted(copy: Copy, vectors: Any, count: int) -> float:
    writes = [
        DocumentWrite(_Table, _name(count + n), None, _json(vectors[n % count]), 1)  # type: ignore[arg-type]
        for n in range(_INSERTS)
    ]
    start = time.thread_time()
    for n, write in enumerate(writes):
        copy.feed(2 + n, write)
    copy.take_in()
    return (time.thread_time() - start) * 1e6 / _INSERTS


def _drawn(count: int, centres: Any, kind: str, chance: np.random.Generator) -> Any:
    noise = chance.standard_normal((count, centres.shape[1]), np.float32)
    return noise if kind == "noise" else centres[chance.integers(0, len(centres), count)] + _SPREAD * noise


def _json(vector: Any) -> bytes:
    return orjson.dumps({"_id": "x", "v": vector.tolist()})


def _name(number: int) -> bytes:
    return number.to_bytes(16, "big")


def _stamp(timestamp: int) -> bytes:
    return timestamp.to_bytes(8, "big")
