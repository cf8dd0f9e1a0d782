"""What a document and a range of a hundred take among more and more documents, in this process over the real storage
engine: a part of `tools/bench database`.

Times are CPU of the calling thread. Every read begins a transaction of its own, at a place drawn anew, so that among a
million documents most of what it touches is in no cache of the processor. What is said is the median of rounds of many
reads, because one read is shorter than the clock is good for; the sizes take turns, because a machine is not as fast at
one time as at another.
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
_INSERTS_TOGETHER = 1_000
# What is read, by which method, and how many of them are timed together.
_READS = (
    ("get", "get", 200),
    (f"range of {RANGE} written together", "range_together", 20),
    (f"range of {RANGE} written far apart", "range_apart", 20),
)
_BODY = "s" * 95


def run_growth(folder: Path, effort: Effort, seed: int) -> Section:
    """The times at each number of documents, and how they compare with those at the first."""
    section = Section("Reads among more and more documents of 200 bytes with two indexes, in process")
    sizes = {count: Documents(folder / f"growth-{count}", random.Random(seed)) for count in effort.documents}
    first, last = effort.documents[0], effort.documents[-1]
    try:
        for count, documents in sizes.items():
            section.rows.append(Row(f"insert of {count:,}, loop thread", documents.fill(count), "us"))
        for what, name, together in _READS:
            times: dict[int, list[float]] = {count: [] for count in sizes}
            for _ in range(max(10, effort.calls // 20)):
                for count, documents in sizes.items():
                    times[count].append(documents.time(getattr(documents, name), together))
            found = {count: percentile(times[count], 0.5) for count in sizes}
            for count in sizes:
                section.rows.append(Row(f"{what} among {count:,}, p50", found[count], "us"))
                if count != first:
                    most = GROWTH_MAX if count == last else None
                    row = Row(f"{what}, {count:,} to {first:,}", found[count] / found[first], "x", at_most=most)
                    section.rows.append(row)
    finally:
        for documents in sizes.values():
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

    def fill(self, count: int) -> float:
        """Insert so many documents; microseconds of this thread for each.

        Shape: by one index a hundred of them were written one after the other, by the other one in no order at all.
        """
        numbers = list(range(count))
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

    def time(self, prepare: Callable[[], Callable[[Any], None]], together: int) -> float:
        """Microseconds of this thread for one of some reads, which are prepared beforehand."""
        reads = [prepare() for _ in range(together)]
        start = time.thread_time()
        for read in reads:
            transaction = self._begin(writable=False)
            read(transaction)
            transaction.abort()
        return (time.thread_time() - start) * 1e6 / together

    def get(self) -> Callable[[Any], None]:
        """Reads one document by its id."""
        document_id = self._chance.choice(self._ids)

        def read(transaction: Any) -> None:
            assert transaction.get(document_id) is not None

        return read

    def range_together(self) -> Callable[[Any], None]:
        """Reads a group of documents that were written one after the other."""
        return self._range("grp")

    def range_apart(self) -> Callable[[Any], None]:
        """Reads a group of documents no two of which lie on one page."""
        return self._range("far")

    def _range(self, field: str) -> Callable[[Any], None]:
        group = self._chance.randrange(len(self._ids) // RANGE)
        source = {
            "type": "IndexRange",
            "indexName": f"docs.by_{field}",
            "range": [{"type": "Eq", "fieldPath": field, "value": group}],
            "order": "asc",
        }

        def read(transaction: Any) -> None:
            found = transaction.collect_query({"source": source, "operators": []})
            assert found.count(b'"_id":') == RANGE

        return read

    def close(self) -> None:
        """Lets go of the storage."""
        self._engine.close()

    def _begin(self, *, writable: bool) -> Any:
        return self._database.begin(writable=writable, now_ms=time.time() * 1e3, seed=self._chance.randbytes(32))
