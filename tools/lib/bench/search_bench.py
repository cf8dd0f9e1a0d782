"""`tools/bench search`: what a search reads and takes among more and more messages, what its index adds to an insert.

The messages are made of words whose frequencies follow Zipf's law, as those of languages do. Everything runs in this
process over the real storage engine; times are those of the calling thread's CPU.
"""

import random
import time
from bisect import bisect
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import orjson

from bench.effort import Effort
from bench.report import Row, Section, percentile
from skerry.database import Database
from skerry.storage.lmdb_engine import LmdbEngine

_WORDS = 20_000
_CHANNELS = 100
_LENGTHS = (2, 4, 6, 8, 10, 12, 15, 20)
_INSERTS_TOGETHER = 1_000
_TAKEN = 10
_TARGET_MS = 10
_TARGET_MESSAGES = 100_000
_COMMON = 20


def run_search(folder: Path, effort: Effort, seed: int) -> list[Section]:
    """A section for each number of messages, and one for the inserts."""
    chance = random.Random(seed)
    language = Language(chance)
    sections: list[Section] = []
    inserts = Section(f"What a search index with one filter field adds to an insert, {effort.messages[0]} messages")
    with_index = Messages(folder / "search", language, indexed=True)
    without = Messages(folder / "plain", language, indexed=False)
    try:
        for what, messages in (("without it", without), ("with it", with_index)):
            us = messages.grow_to(effort.messages[0])
            inserts.rows.append(Row(f"insert {what}, loop thread", us, "us"))
            inserts.rows.append(Row(f"storage {what}", messages.stored_bytes() / effort.messages[0], "B/message"))
        sections.append(inserts)
        for n_messages in effort.messages:
            with_index.grow_to(n_messages)
            sections.append(_searches(with_index, effort))
    finally:
        with_index.close()
        without.close()
    return sections


def _searches(messages: "Messages", effort: Effort) -> Section:
    section = Section(f"Searches among {messages.count} messages, the first {_TAKEN} results")
    for name, ask in _KINDS.items():
        times: list[float] = []
        keys: list[int] = []
        for _ in range(max(10, effort.calls // 10)):
            text, channel = ask(messages.language)
            took_ms, n_keys = messages.search(text, channel)
            times.append(took_ms)
            keys.append(n_keys)
        target = _TARGET_MS if messages.count == _TARGET_MESSAGES else None
        section.rows.append(Row(f"{name}, p50", percentile(times, 0.5), "ms", at_most=target))
        note = f"p95 {percentile(times, 0.95):.1f} ms; at most {max(keys)} keys"
        section.rows.append(Row(f"{name}, keys read, p50", percentile(keys, 0.5), "keys", note=note))
    return section


class Language:
    """Words by their frequency."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        consonants, vowels = "bcdfghklmnprstvw", "aeiou"
        self.words = [
            f"{chance.choice(consonants)}{chance.choice(vowels)}{chance.choice(consonants)}{n}" for n in range(_WORDS)
        ]
        self._shares = list(accumulate(1 / (n + 1) for n in range(_WORDS)))

    def word(self) -> str:
        return self.words[bisect(self._shares, self.chance.random() * self._shares[-1])]

    def message(self) -> str:
        return " ".join([self.word() for _ in range(self.chance.choice(_LENGTHS))])

    def common(self) -> str:
        return self.words[self.chance.randrange(_COMMON)]

    def channel(self) -> str:
        return f"c{self.chance.randrange(_CHANNELS)}"


_KINDS: dict[str, Callable[[Language], tuple[str, str | None]]] = {
    "a common word": lambda language: (language.common(), None),
    "two common words": lambda language: (f"{language.common()} {language.common()}", None),
    "two words and the beginning of one": lambda language: (
        f"{language.word()} {language.word()} {language.word()[:3]}",
        None,
    ),
    "the same within a channel": lambda language: (
        f"{language.word()} {language.word()} {language.word()[:3]}",
        language.channel(),
    ),
}


class Messages:
    """A database of messages over storage of its own."""

    def __init__(self, folder: Path, language: Language, *, indexed: bool) -> None:
        self.language = language
        self.count = 0
        self._engine = LmdbEngine(folder)
        self._turns: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._database = Database(
            self._engine, clock_ns=time.time_ns, call_soon_threadsafe=self._turns.put, cursor_key=b"bench"
        )
        searches = [{"indexDescriptor": "search_body", "searchField": "body", "filterFields": ["channel"]}]
        table = {
            "tableName": "messages",
            "indexes": [{"indexDescriptor": "by_channel", "fields": ["channel"]}],
            "searchIndexes": searches if indexed else [],
            "documentType": {"type": "any"},
        }
        self._database.apply_schema(orjson.dumps({"tables": [table], "schemaValidation": False}))

    def grow_to(self, count: int) -> float:
        """Insert messages until there are so many; microseconds of this thread for each."""
        spent = 0.0
        added = count - self.count
        while self.count < count:
            together = min(_INSERTS_TOGETHER, count - self.count)
            values: list[dict[str, Any]] = [
                {"body": self.language.message(), "channel": self.language.channel(), "author": "somebody"}
                for _ in range(together)
            ]
            start = time.thread_time()
            transaction = self._begin(writable=True)
            for value in values:
                transaction.insert("messages", value)
            self._database.commit(transaction, b"bench", lambda _: None)
            spent += time.thread_time() - start
            while self._database.n_pending:
                self._turns.get()()
            self.count += together
        return spent * 1e6 / max(1, added)

    def search(self, text: str, channel: str | None) -> tuple[float, int]:
        """Milliseconds of this thread for a search, and the index keys that it read."""
        filters: list[dict[str, Any]] = [{"type": "Search", "fieldPath": "body", "value": text}]
        if channel is not None:
            filters.append({"type": "Eq", "fieldPath": "channel", "value": channel})
        source = {"type": "Search", "indexName": "messages.search_body", "filters": filters}
        transaction = self._begin(writable=False)
        start = time.thread_time()
        transaction.collect_query({"source": source, "operators": [{"limit": _TAKEN}]})
        took_ms = (time.thread_time() - start) * 1e3
        n_keys = transaction.usage.search_keys
        transaction.abort()
        return took_ms, n_keys

    def stored_bytes(self) -> int:
        """What the data take on disk."""
        return self._engine.data_bytes()

    def close(self) -> None:
        self._engine.close()

    def _begin(self, *, writable: bool) -> Any:
        seed = self.language.chance.randbytes(32)
        return self._database.begin(writable=writable, now_ms=time.time() * 1e3, seed=seed)
