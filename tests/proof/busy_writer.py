"""A process that does to one database, all at once, what changes its files: commits, schemas, imports, compaction, and
dropping the past. It prints a line for what was acknowledged, and is killed from outside.

Run as `python -m tests.proof.busy_writer FOLDER FIRST`; documents are numbered from FIRST on.

Lines: `commit N TS` a pair of documents N is durable as of TS; `import N` the table of imports holds exactly N
documents; `schema`, `compacted`, `retained N`.
"""

import sys
import threading
import time
from hashlib import blake2b
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from skerry.database import Database, SchemaChange, Steps, background_steps, retain
from skerry.database.bulk import Fills, clear_imported
from skerry.storage.lmdb_engine import LmdbEngine
from tests.database.world import schema_json, table_schema

IMPORT_NUMBER = 10_900
COMMITS_AT_ONCE = 8
IMPORTED = 150
PAST_NS = 200_000_000


class BusyWriter:
    """One database and what happens to it. Everything but the compaction is done by this thread, in turns."""

    def __init__(self, folder: str, first: int) -> None:
        self.queue: SimpleQueue[Any] = SimpleQueue()
        self.engine = LmdbEngine(Path(folder))
        self.database = Database(
            self.engine, clock_ns=time.time_ns, call_soon_threadsafe=self.queue.put, cursor_key=b"secret"
        )
        self.number = first
        self.drawn = 0

    def run(self) -> None:
        threading.Thread(target=self.compact_for_ever, daemon=True).start()
        for _ in self.turns(clear_imported(self.database)):
            self.commit_some()
        rounds = 0
        while True:
            rounds += 1
            self.change_schema(rounds)
            self.import_table(rounds)
            dropped = retain(self.database, time.time_ns() - PAST_NS, 64)
            say(f"retained {dropped}")
            self.commit_some()

    def entropy(self, length: int) -> bytes:
        self.drawn += 1
        return blake2b(self.drawn.to_bytes(8, "big"), key=str(time.time_ns()).encode(), digest_size=length).digest()

    def turns(self, steps: Steps) -> Steps:
        """The steps, the loop turned between them."""
        for waited in steps:
            yield waited
            while waited is not None and not waited.done():
                self.queue.get()()
            self.turn()

    def turn(self) -> None:
        while True:
            try:
                self.queue.get_nowait()()
            except Empty:
                return

    def commit_some(self) -> None:
        """Pairs that belong together, one of them rewritten again and again, in a few commits."""
        for _ in range(COMMITS_AT_ONCE):
            self.number += 1
            transaction = self.database.begin(writable=True, now_ms=time.time() * 1000, seed=self.entropy(16))
            number = self.number
            other = transaction.insert("right", {"n": number, "text": "r" * 300})
            left = transaction.insert("left", {"n": number, "other": other})
            for change in range(3):
                transaction.patch(left, {"change": change})
            if number % 3 == 0:
                transaction.patch(other, {"text": "s" * 700})

            def told(answer: object, number: int = number) -> None:
                assert isinstance(answer, int), answer
                say(f"commit {number} {answer}")

            self.database.commit(transaction, b"call", told)
        self.turn()

    def settle(self) -> None:
        self.turn()
        while self.database.n_pending:
            self.queue.get()()

    def change_schema(self, round_: int) -> None:
        """One more index or one less, commits between the steps of judging and building."""
        indexes = {"by_n": ["n"]} if round_ % 2 else {"by_n": ["n"], "by_text": ["text", "n"]}
        raw = schema_json(table_schema("right", indexes), table_schema("left", {"by_n": ["n"]}))
        change = SchemaChange(self.database, raw)
        self.busily(change.judge())
        while True:
            self.settle()
            for _ in self.turns(change.catch_up()):
                pass
            self.settle()
            if change.is_ready:
                break
            change.register(lambda _: None)
            self.settle()
            say("building")
            self.busily(change.build())
        change.switch((), lambda _: None)
        self.settle()
        change.close()
        say("schema")
        self.busily(background_steps(self.database))

    def busily(self, steps: Steps) -> None:
        """Takes steps to their end, commits between some of them."""
        for at, _ in enumerate(self.turns(steps)):
            if at % 8 == 0:
                self.commit_some()

    def import_table(self, round_: int) -> None:
        """Another content for the table of imports, commits between the steps."""
        count = IMPORTED + round_
        fills = Fills(self.database, lambda: time.time() * 1000, self.entropy)
        for _ in self.turns(fills.begin({"imported": IMPORT_NUMBER})):
            self.commit_some()
        fill = fills.fills["imported"]
        for n in range(count):
            fill.add(fill.judge({"n": n, "text": "i" * 400}))
            if fill.is_batch:
                for _ in self.turns(fill.send()):
                    self.commit_some()
        for _ in self.turns(fill.finish()):
            self.commit_some()
        self.settle()
        for _ in self.turns(fills.switch(b"import")):
            pass
        say(f"import {count}")
        fills.close()
        for _ in self.turns(clear_imported(self.database)):
            self.commit_some()

    def compact_for_ever(self) -> None:
        while True:
            self.engine.compact()
            say("compacted")


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    BusyWriter(sys.argv[1], int(sys.argv[2])).run()
