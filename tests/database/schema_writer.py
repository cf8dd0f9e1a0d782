"""A process that applies one schema after the other while it writes documents, and prints a dot for each step.

Run as `python -m tests.database.schema_writer FOLDER`; it is killed from outside.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue

import orjson

from skerry.database import Database, SchemaChange, Steps, backfill, background_steps, judging, steps
from skerry.storage.lmdb_engine import LmdbEngine

DOCUMENTS = 400


class Writer:
    """The database, driven as its loop thread."""

    def __init__(self, folder: Path) -> None:
        self.queue: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self.number = 0
        self.database = Database(
            LmdbEngine(folder), clock_ns=time.time_ns, call_soon_threadsafe=self.queue.put, cursor_key=b"secret"
        )

    def write(self, count: int) -> None:
        transaction = self.database.begin(writable=True, now_ms=time.time() * 1000, seed=time.time_ns().to_bytes(16))
        for number in range(count):
            transaction.insert("t", {"name": f"{number:04}"})
        self.database.commit(transaction, b"call", lambda _: None)

    def take(self, work: Steps) -> None:
        for waited in work:
            sys.stdout.write(".\n")
            sys.stdout.flush()
            self.write(1)
            while waited is not None and not waited.done():
                self.queue.get()()
            while not self.queue.empty():
                self.queue.get()()

    def apply(self, raw: bytes) -> None:
        change = SchemaChange(self.database, raw)
        self.take(change.judge())
        while True:
            self.database.flush()
            self.take(change.catch_up())
            self.database.flush()
            if change.is_ready:
                break
            change.register(lambda _: None)
            self.database.flush()
            self.take(change.build())
        change.switch((), lambda _: None)
        self.database.flush()
        change.close()
        self.take(background_steps(self.database))


def main(folder: str) -> None:
    backfill.SCHEMA_STEP_ITEMS = judging.SCHEMA_STEP_ITEMS = 16
    backfill.BACKFILL_BATCH_ENTRIES, backfill.BACKFILL_RUN_CHUNKS, steps.STEP_NS = 32, 2, 0
    writer = Writer(Path(folder))
    if "t" not in writer.database.catalog.tables:
        writer.write(DOCUMENTS)
        writer.database.flush()
    while True:
        names = [] if writer.database.catalog.tables["t"].indexes else ["by_name"]
        indexes = [{"indexDescriptor": name, "fields": ["name"]} for name in names]
        kinds = {"searchIndexes": [], "vectorIndexes": [], "documentType": {"type": "any"}}
        table = {"tableName": "t", "indexes": indexes, **kinds}
        writer.apply(orjson.dumps({"tables": [table], "schemaValidation": False}))


if __name__ == "__main__":
    main(sys.argv[1])
