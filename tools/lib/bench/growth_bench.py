"""What a document and a range of a hundred take among more and more documents, in this process over the real storage
engine: a part of `tools/bench database`.

Times are CPU of the calling thread. Every read begins a transaction of its own, at a place drawn anew, so that among a
million documents most of what it touches is in no cache of the processor. What is said is the median of rounds of many
reads, because one read is shorter than the clock is good for.
"""

import random
import time
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import orjson

from bench.effort import Effort
from bench.report import Row, Section, percentile
from skerry.database import Database
from skerry.storage.lmdb_engine import LmdbEngine

GROWTH_MAX = 1.5
RANGE = 100
_READS_TOGETHER = 20
_INSERTS_TOGETHER = 1_000
_BODY = "s" * 95


def run_growth(folder: Path, effort: Effort, seed: int) -> Section:
    """The times at each number of documents, and how they compare with those at the first."""
    section = Section("Reads among more and more documents of 200 bytes with two indexes, in process")
    documents = Documents(folder / "growth", random.Random(seed))
    first: dict[str, float] = {}
    try:
        for count in effort.documents:
            us = documents.grow_to(count)
            section.rows.append(Row(f"insert, up to {count:,}, loop thread", us, "us"))
            for what, read in (
                ("get", documents.get),
                (f"range of {RANGE} written together", documents.range_together),
                (f"range of {RANGE} written far apart", documents.range_apart),
            ):
                took_us = documents.time(read, max(10, effort.calls // 10))
                first.setdefault(what, took_us)
                growth, is_last = took_us / first[what], count == effort.documents[-1]
                section.rows.append(Row(f"{what} among {count:,}, p50", took_us, "us"))
                if count != effort.documents[0]:
                    name = f"{what}, {count:,} to {effort.documents[0]:,}"
                    section.rows.append(Row(name, growth, "x", at_most=GROWTH_MAX if is_last else None))
    finally:
        documents.close()
    return section


class Documents:
    """A database of small documents in groups of a hundred, over storage of its own."""

    def __init__(self, folder: Path, chance: random.Random) -> None:
        self._chance = chance
        self._ids: list[str] = []
        self._engine = LmdbEngine(folder)
        self._turns: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._database = Database(
            self._engine, clock_ns=time.time_ns, call_soon_threadsafe=self._turns.put, cursor_key=b"bench"
        )
        indexes = [
            {"indexDescriptor": "by_grp", "fields": ["grp"]},
            {"indexDescriptor": "by_far", "fields": ["far"]},
        ]
        table = {"tableName": "docs", "indexes": indexes, "searchIndexes": [], "documentType": {"type": "any"}}
        self._database.apply_schema(orjson.dumps({"tables": [table], "schemaValidation": False}))

    def grow_to(self, count: int) -> float:
        """Insert documents until there are so many; microseconds of this thread for each.

        Shape: by one index a hundred of them were written one after the other, by the other one in no order at all.
        """
        numbers = list(range(len(self._ids), count))
        places = numbers.copy()
        self._chance.shuffle(places)
        spent = 0.0
        for lo in range(0, len(numbers), _INSERTS_TOGETHER):
            start = time.thread_time()
            transaction = self._begin(writable=True)
            for n, place in zip(numbers[lo : lo + _INSERTS_TOGETHER], places[lo : lo + _INSERTS_TOGETHER], strict=True):
                value = {"grp": n // RANGE, "far": place // RANGE, "body": _BODY}
                self._ids.append(transaction.insert("docs", value))
            self._database.commit(transaction, b"bench", lambda _: None)
            spent += time.thread_time() - start
            while self._database.n_pending:
                self._turns.get()()
        return spent * 1e6 / max(1, len(numbers))

    def time(self, read: Callable[[Any], None], rounds: int) -> float:
        """Microseconds of this thread for a read."""
        times: list[float] = []
        for _ in range(rounds):
            start = time.thread_time()
            for _ in range(_READS_TOGETHER):
                transaction = self._begin(writable=False)
                read(transaction)
                transaction.abort()
            times.append((time.thread_time() - start) * 1e6 / _READS_TOGETHER)
        return percentile(times, 0.5)

    def get(self, transaction: Any) -> None:
        """Reads one document by its id."""
        assert transaction.get(self._chance.choice(self._ids)) is not None

    def range_together(self, transaction: Any) -> None:
        """Reads a group of documents that were written one after the other."""
        self._range(transaction, "grp")

    def range_apart(self, transaction: Any) -> None:
        """Reads a group of documents no two of which lie on one page."""
        self._range(transaction, "far")

    def _range(self, transaction: Any, field: str) -> None:
        group = self._chance.randrange(len(self._ids) // RANGE)
        source = {
            "type": "IndexRange",
            "indexName": f"docs.by_{field}",
            "range": [{"type": "Eq", "fieldPath": field, "value": group}],
            "order": "asc",
        }
        found = transaction.collect_query({"source": source, "operators": []})
        assert found.count(b'"_id":') == RANGE

    def close(self) -> None:
        """Lets go of the storage."""
        self._engine.close()

    def _begin(self, *, writable: bool) -> Any:
        return self._database.begin(writable=writable, now_ms=time.time() * 1e3, seed=self._chance.randbytes(32))
