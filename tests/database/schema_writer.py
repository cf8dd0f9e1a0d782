"""A process that applies one schema after the other and prints a dot for each step.

Run as `python schema_writer.py FOLDER`; it is killed from outside.
"""

import sys
import time
from pathlib import Path
from queue import SimpleQueue

import orjson

from skerry.database import Database
from skerry.storage.lmdb_engine import LmdbEngine

DOCUMENTS = 400


def main(folder: str) -> None:
    queue: SimpleQueue = SimpleQueue()
    database = Database(
        LmdbEngine(Path(folder)), clock_ns=time.time_ns, call_soon_threadsafe=queue.put, cursor_key=b"secret"
    )
    if "t" not in database.catalog.tables:
        transaction = database.begin(writable=True, now_ms=time.time() * 1000, seed=bytes(16))
        for number in range(DOCUMENTS):
            transaction.insert("t", {"name": f"{number:04}"})
        database.commit(transaction, b"call", lambda _: None)
        database.flush()
    while True:
        names = [] if database.catalog.tables["t"].indexes else ["by_name"]
        indexes = [{"indexDescriptor": name, "fields": ["name"]} for name in names]
        kinds = {"searchIndexes": [], "vectorIndexes": [], "documentType": {"type": "any"}}
        table = {"tableName": "t", "indexes": indexes, **kinds}
        for waited in database.schema_steps(orjson.dumps({"tables": [table], "schemaValidation": False})):
            sys.stdout.write(".\n")
            sys.stdout.flush()
            while waited is not None and not waited.done():
                queue.get()()


if __name__ == "__main__":
    main(sys.argv[1])
