"""Ranking: the documents that a search finds, the best first, one after the other.

The score of a document is the sum of its terms' scores; its place follows from the score, then from its age (newer
first), then from its id.

How far that is exact. A term in up to `SEARCH_POSTINGS_MAX` documents is read whole. Of a more frequent one that many
postings are read at most, the strongest first, and only as far as the results that are asked for need: a document is
given out once nothing unread can come before it, which is what a bound on each list's rest tells (the threshold
algorithm). A candidate that one long list has and another may have is read, and its score completed. So a search with
one term is exact, and so is one whose terms but one are rare; of several frequent terms, a document that is weak in
each of them may be missed.

Statistics (how many documents, how long they are, how many have a term) are those of the snapshot. They weigh terms
and are not in the read set: another document may make a term rarer or commoner without conflict. Pages carry them in
their cursors (`Statistics.dump`), so that the scores of later pages are those of the first.

Concurrency: one thread at a time.
"""

from heapq import heapify, heappop, heappush
from math import log
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from skerry.database.catalog import Table
from skerry.database.search_counts import Counts, counts_of
from skerry.database.search_index import ALL_SCOPE, length_code
from skerry.database.search_postings import Posting, PostingList, Reader, Scorer, posting_bounds
from skerry.database.search_query import Search
from skerry.database.search_text import analyse
from skerry.database.stored import HEADER_BYTES, parse_document
from skerry.limits import (
    SEARCH_CANDIDATES_READ_MAX,
    SEARCH_PREFIX_TERMS_MAX,
    SEARCH_PROBED_POSTINGS,
    SEARCH_TERM_COUNT_MAX,
)

if TYPE_CHECKING:
    from skerry.database.transaction import Transaction

_PREFIX_WEIGHT: Final = 0.5
_INTERNAL_ID_BYTES: Final = 16


class WeighedTerm(NamedTuple):
    """A term, how many documents have it, whether that is an estimate, and whether it is there by its prefix only."""

    term: bytes
    frequency: int
    is_estimate: bool
    by_prefix: bool


class Statistics(NamedTuple):
    """All that weighs the terms of one search."""

    counts: Counts
    terms: tuple[WeighedTerm, ...]

    def dump(self) -> bytes:
        """As bytes, for a cursor."""
        parts = [self.counts.documents.to_bytes(8, "big"), self.counts.tokens.to_bytes(8, "big")]
        for term, frequency, is_estimate, by_prefix in self.terms:
            parts.append(bytes((by_prefix << 1 | is_estimate, len(term))) + frequency.to_bytes(8, "big") + term)
        return b"".join(parts)


def load_statistics(raw: bytes) -> Statistics:
    """What `Statistics.dump` made."""
    terms: list[WeighedTerm] = []
    at = 16
    while at < len(raw):
        flags, n_bytes = raw[at], raw[at + 1]
        frequency = int.from_bytes(raw[at + 2 : at + 10], "big")
        terms.append(WeighedTerm(raw[at + 10 : at + 10 + n_bytes], frequency, bool(flags & 1), bool(flags & 2)))
        at += 10 + n_bytes
    return Statistics(Counts(int.from_bytes(raw[:8], "big"), int.from_bytes(raw[8:16], "big")), tuple(terms))


class Ranking:
    """The results of one search. Shape: `statistics` are those of an earlier page, or None for the present ones."""

    def __init__(self, transaction: "Transaction", table: Table, search: Search, statistics: Statistics | None) -> None:
        self._transaction = transaction
        self._prefix = table.prefix
        self._search = search
        reader = Reader(transaction, table, search.index)
        scope = _scope(reader, search)
        self.statistics = statistics or _statistics(transaction, reader, search, scope)
        counts = self.statistics.counts
        average = counts.tokens / counts.documents if counts.documents else 1.0
        self._lists: list[PostingList] = []
        for term, frequency, is_estimate, by_prefix in self.statistics.terms:
            scorer = Scorer(_weight(counts.documents, frequency, by_prefix), max(average, 1.0))
            self._lists.append(PostingList(reader, scope, term, scorer, is_estimate and scope == ALL_SCOPE))
        self._parts: dict[bytes, dict[int, float]] = {}
        self._completed: set[bytes] = set()
        self._long = [at for at, postings in enumerate(self._lists) if postings.whole is None]
        self._heap: list[Posting] = self._gather_whole()

    def next(self) -> Posting | None:
        """The next result: its score, negative, and the rest of its postings (age and internal id)."""
        heap = self._heap
        if not self._long:
            return heappop(heap) if heap else None
        while True:
            if not heap:
                if not self._read_more(None):
                    return None
                continue
            bound, rest = heappop(heap)
            now, is_exact = self._standing(rest)
            if now > bound:
                heappush(heap, (now, rest))
            elif not is_exact:
                self._complete(rest)
                if rest in self._parts:
                    heappush(heap, (self._standing(rest)[0], rest))
            elif self._read_more((now, rest)):
                heappush(heap, (now, rest))
            else:
                return now, rest

    def _gather_whole(self) -> list[Posting]:
        """The candidates of the lists that were read whole, with what is known or possible of their scores."""
        scores: dict[bytes, float] = {}
        parts = self._parts
        has_long = bool(self._long)
        for at, postings in enumerate(self._lists):
            for score, rest in postings.whole or ():
                if has_long:
                    parts.setdefault(rest, {})[at] = score
                else:
                    scores[rest] = scores.get(rest, 0.0) + score
        heap = (
            [(self._standing(rest)[0], rest) for rest in parts]
            if has_long
            else [*zip(scores.values(), scores, strict=True)]
        )
        heapify(heap)
        return heap

    def _standing(self, rest: bytes) -> tuple[float, bool]:
        """The best score that a candidate can have (negative) by what was read, and whether it is its score."""
        parts = self._parts[rest]
        total = 0.0
        is_exact = True
        is_complete = rest in self._completed
        for at, postings in enumerate(self._lists):
            part = parts.get(at)
            if part is not None:
                total += part
            elif not is_complete and postings.floor is not None:
                total -= postings.bound
                is_exact = False
        return total, is_exact

    def _read_more(self, best: Posting | None) -> bool:
        """Read on in the list that may hold the most, unless nothing unread can come before `best`; whether it did."""
        open_lists = [at for at in self._long if self._lists[at].is_open]
        if not open_lists:
            return False
        if best is not None:
            if len(open_lists) == 1:
                floor = self._lists[open_lists[0]].floor
                if floor is None or best <= floor:
                    return False
            elif -best[0] > sum([self._lists[at].bound for at in open_lists]):
                return False
        at = max(open_lists, key=lambda at: self._lists[at].bound)
        for score, rest in self._lists[at].more():
            parts = self._parts.get(rest)
            if parts is None:
                self._parts[rest] = {at: score}
                heappush(self._heap, (self._standing(rest)[0], rest))
            else:
                parts[at] = score
        return True

    def _complete(self, rest: bytes) -> None:
        """Find out a candidate's score in every list by reading it; one that is gone is no candidate any more."""
        if len(self._completed) >= SEARCH_CANDIDATES_READ_MAX:
            self._completed.add(rest)
            return
        self._completed.add(rest)
        document = self._document(rest[-_INTERNAL_ID_BYTES:])
        text = None if document is None else self._search.index.text(document)
        if text is None:
            del self._parts[rest]
            return
        terms, length = analyse(text)
        code = length_code(length)
        parts = self._parts[rest]
        for at, weighed in enumerate(self.statistics.terms):
            count = terms.get(weighed.term)
            if count and at not in parts:
                parts[at] = -self._lists[at].scorer.score(bytes((SEARCH_TERM_COUNT_MAX - count, code)))

    def _document(self, internal_id: bytes) -> dict[str, Any] | None:
        transaction = self._transaction
        transaction.usage.look()
        key = self._prefix + internal_id
        transaction.note_document(key)
        write = transaction.writes.get(key)
        if write is not None:
            return None if write.json is None else parse_document(write.json)
        stored = transaction.base(key)
        return None if stored is None else parse_document(stored[HEADER_BYTES:])


def _scope(reader: Reader, search: Search) -> bytes:
    """The postings to read: of all documents, or of those that one of the equalities leaves."""
    scopes = [equality.scope for equality in search.equalities]
    if len(scopes) < 2 or not search.terms:
        return scopes[0] if scopes else ALL_SCOPE

    def n_postings(scope: bytes) -> int:
        return sum([len(reader.keys(*posting_bounds(scope, term), SEARCH_PROBED_POSTINGS)) for term in search.terms])

    return min(scopes, key=n_postings)


def _statistics(transaction: "Transaction", reader: Reader, search: Search, scope: bytes) -> Statistics:
    """The present statistics of a search's terms and of those that its last one is a prefix of."""
    found: dict[bytes, bool] = dict.fromkeys(search.terms, False)
    if search.prefix:
        for term in reader.terms_from(scope, search.prefix, SEARCH_PREFIX_TERMS_MAX):
            found.setdefault(term, True)
    terms = tuple([WeighedTerm(term, *reader.frequency(term), by_prefix) for term, by_prefix in found.items()])
    return Statistics(counts_of(transaction, search.index.number), terms)


def _weight(n_documents: int, frequency: int, by_prefix: bool) -> float:
    """How much a term tells: BM25's logarithm of how rare it is."""
    frequency = min(frequency, n_documents)
    return log(1 + (n_documents - frequency + 0.5) / (frequency + 0.5)) * (_PREFIX_WEIGHT if by_prefix else 1.0)
