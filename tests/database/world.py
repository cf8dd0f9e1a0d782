"""A database over a real storage engine, with a clock, seeds and an event loop that the test turns by hand."""

from collections import deque
from collections.abc import Callable
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import orjson

from skerry.database import Database, Steps, Transaction
from skerry.storage import StorageEngine
from skerry.storage.lmdb_engine import LmdbEngine
from skerry.storage.memory_engine import MemoryEngine

START_MS = 1_700_000_000_000
WAIT_SECONDS = 20


class World:
    """One deployment's database; `turn()` runs what was asked to run on the loop thread."""

    def __init__(self, engine: StorageEngine) -> None:
        self.engine = engine
        self.queue: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self.now_ms: float = START_MS
        self.seeds = 0
        self.database = self.open()

    def open(self) -> Database:
        return Database(
            self.engine,
            clock_ns=lambda: int(self.now_ms * 1e6),
            call_soon_threadsafe=self.queue.put,
            cursor_key=b"secret",
        )

    def turn(self) -> None:
        while True:
            try:
                self.queue.get_nowait()()
            except Empty:
                return

    def settle(self) -> None:
        """Turn the loop until nothing is pending."""
        self.turn()
        while self.database.n_pending:
            self.queue.get(timeout=WAIT_SECONDS)()

    def begin(
        self,
        *,
        writable: bool = True,
        detached: bool = False,
        journal: str | None = None,
        at_ts: int | None = None,
    ) -> Transaction:
        self.seeds += 1
        self.now_ms += 1
        return self.database.begin(
            writable=writable,
            now_ms=self.now_ms,
            seed=self.seeds.to_bytes(16, "big"),
            detached=detached,
            journal=journal,
            at_ts=at_ts,
        )

    def commit(self, transaction: Transaction, record: bytes = b"call") -> list[Any]:
        """Commit without waiting; the answers arrive in the list."""
        answers: list[Any] = []
        self.database.commit(transaction, record, answers.append)
        return answers

    def run(self, *steps: Callable[[Transaction], Any]) -> Any:
        """Run steps in one lane transaction, make it durable, give the last result."""
        transaction = self.begin()
        result = None
        for step in steps:
            result = step(transaction)
        answers = self.commit(transaction)
        self.settle()
        assert len(answers) == 1 and isinstance(answers[0], int), answers
        return result

    def read(self, step: Callable[[Transaction], Any]) -> Any:
        """Run a step in a query."""
        transaction = self.begin(writable=False)
        try:
            return step(transaction)
        finally:
            transaction.abort()

    def insert_all(self, table: str, values: list[dict[str, Any]]) -> list[str]:
        ids: deque[str] = deque()

        def step(transaction: Transaction) -> None:
            for value in values:
                ids.append(transaction.insert(table, value))

        self.run(step)
        return list(ids)

    def take(self, steps: Steps, most: int = 1_000_000) -> int:
        """Take steps as a loop does, up to `most`; how many there were."""
        taken = 0
        for waited in steps:
            taken += 1
            while waited is not None and not waited.done():
                self.queue.get(timeout=WAIT_SECONDS)()
            self.turn()
            if taken == most:
                break
        return taken

    def commit_of(self, change: Callable[[Callable[[Any], None]], Any]) -> None:
        """Make a commit of a schema change durable."""
        answers: list[Any] = []
        if change(answers.append) is not False:
            self.settle()
            assert len(answers) == 1 and isinstance(answers[0], int), answers

    def schema(self, *tables: dict[str, Any], validation: bool = False) -> None:
        self.database.apply_schema(schema_json(*tables, validation=validation))


def memory_world() -> World:
    return World(MemoryEngine())


def lmdb_world(path: Path) -> World:
    return World(LmdbEngine(path / "deployment"))


def schema_json(*tables: dict[str, Any], validation: bool = False) -> bytes:
    return orjson.dumps({"tables": list(tables), "schemaValidation": validation})


def table_schema(name: str, indexes: dict[str, list[str]], document_type: Any = None) -> dict[str, Any]:
    return {
        "tableName": name,
        "indexes": [{"indexDescriptor": index, "fields": fields} for index, fields in indexes.items()],
        "searchIndexes": [],
        "vectorIndexes": [],
        "documentType": document_type or {"type": "any"},
    }


def scan_query(table: str, order: str | None = None, operators: list[Any] | None = None) -> dict[str, Any]:
    return {"source": {"type": "FullTableScan", "tableName": table, "order": order}, "operators": operators or []}


def range_query(
    index: str, expressions: list[tuple[str, str, Any]], order: str | None = None, operators: list[Any] | None = None
) -> dict[str, Any]:
    spelled = [{"type": kind, "fieldPath": path, "value": value} for kind, path, value in expressions]
    return {
        "source": {"type": "IndexRange", "indexName": index, "range": spelled, "order": order},
        "operators": operators or [],
    }


def documents(raw: bytes) -> list[dict[str, Any]]:
    return orjson.loads(raw)
