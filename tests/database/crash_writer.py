"""A process that commits as fast as it can and prints each document and timestamp once it is told that they are
durable.

Run as `python crash_writer.py FOLDER`; it is killed from outside.
"""

import sys
import time
from pathlib import Path
from queue import SimpleQueue

from skerry.database import Database
from skerry.storage.lmdb_engine import LmdbEngine


def main(folder: str) -> None:
    queue: SimpleQueue = SimpleQueue()
    database = Database(
        LmdbEngine(Path(folder)), clock_ns=time.time_ns, call_soon_threadsafe=queue.put, cursor_key=b"secret"
    )
    number = 0
    while True:
        for _ in range(8):
            number += 1
            transaction = database.begin(writable=True, now_ms=time.time() * 1000, seed=number.to_bytes(16, "big"))
            pair = transaction.insert("left", {"n": number}), transaction.insert("right", {"n": number})
            transaction.patch(pair[0], {"other": pair[1]})

            def told(answer: object, pair: tuple[str, str] = pair) -> None:
                sys.stdout.write(f"{pair[0]} {pair[1]} {answer}\n")
                sys.stdout.flush()

            database.commit(transaction, b"call", told)
        queue.get()()
        while not queue.empty():
            queue.get()()


if __name__ == "__main__":
    main(sys.argv[1])
