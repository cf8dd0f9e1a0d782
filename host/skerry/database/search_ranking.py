"""Ranking: the documents that a search finds, the best first, one after the other.

The score of a document is the sum of its terms' scores; its place follows from the score, then from its age (newer
first), then from its id.

How far that is exact. A term in up to `SEARCH_POSTINGS_MAX` documents is read whole. Of more frequent ones
`SEARCH_LONG_POSTINGS_MAX` postings are read together, the strongest first. With one such term, they are read as far as
the results that are asked for need: a document is given out once nothing unread can come before it. A candidate of one
list that may be in what was not read of another is read itself, as far as it may be among the best. So a search with at
most one frequent term is exact; of several, a document that is weak in each of them may be missed.

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
from skerry.database.search_postings import LongLists, Place, Postings, Reader, Scorer, posting_bounds
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
        average = max(counts.tokens / counts.documents, 1.0) if counts.documents else 1.0
        self._lists = [
            Postings(
                reader,
                scope,
                term,
                Scorer(_weight(counts.documents, frequency, by_prefix), average),
                is_estimate and scope == ALL_SCOPE,
            )
            for term, frequency, is_estimate, by_prefix in self.statistics.terms
        ]
        self._long = [postings for postings in self._lists if postings.runs]
        self._reading = LongLists(reader, self._long)
        for postings in self._lists if self._long else ():
            self._reading.codes.update(postings.codes(postings.keys))
        if len(self._long) > 1:
            while self._reading.is_open:
                self._reading.more()
        self._completed: set[bytes] = set()
        self._heap = self._candidates()

    def next(self) -> Place | None:
        """The next result."""
        heap = self._heap
        while heap or self._read_more(None):
            if not heap:
                continue
            expected, rest = heappop(heap)
            score, is_exact = self._standing(rest) if self._long else (expected, True)
            if score > expected:
                heappush(heap, (score, rest))
            elif not is_exact:
                if self._complete(rest):
                    heappush(heap, (self._standing(rest)[0], rest))
            elif self._read_more((score, rest)):
                heappush(heap, (score, rest))
            else:
                return score, rest
        return None

    def _candidates(self) -> list[Place]:
        """What was read so far, in a heap by the best that is possible."""
        scores: dict[bytes, float] = {}
        for postings in self._lists:
            if not scores:
                scores = postings.scores.copy()
                continue
            get = scores.get
            scores.update([(rest, get(rest, 0.0) + score) for rest, score in postings.scores.items()])
        codes = self._reading.codes
        for postings in self._long:
            held, bound = postings.scores, postings.bound
            for rest in [rest for rest in scores if rest not in held]:
                scores[rest] += bound(codes[rest])
        heap = [(score, rest) for rest, score in scores.items()]
        heapify(heap)
        return heap

    def _standing(self, rest: bytes) -> tuple[float, bool]:
        """The best score that a candidate can have by what was read, and whether that is its score."""
        total = 0.0
        is_exact = True
        is_complete = rest in self._completed
        code = self._reading.codes[rest]
        for postings in self._lists:
            part = postings.scores.get(rest)
            if part is not None:
                total += part
            elif not is_complete and postings.runs and (bound := postings.bound(code)):
                total += bound
                is_exact = False
        return total, is_exact

    def _read_more(self, best: Place | None) -> bool:
        """Read on, unless nothing unread can come before `best`; whether it did.

        Where several lists are long, all that may be read of them has been.
        """
        reading = self._reading
        if not reading.is_open:
            return False
        if best is not None:
            (postings,) = self._long
            if best <= min(
                [(postings.scorer.score(postings.strength(run)), postings.next_rest(run)) for run in postings.runs]
            ):
                return False
        seen = self._known
        postings, keys = reading.more()
        for rest, _ in postings.codes(keys):
            if not seen(rest, postings):
                heappush(self._heap, (self._standing(rest)[0], rest))
        return True

    def _known(self, rest: bytes, but: Postings) -> bool:
        """Whether a document is a candidate by another list than this one."""
        return any(rest in postings.scores for postings in self._lists if postings is not but)

    def _complete(self, rest: bytes) -> bool:
        """Find out a candidate's score in every list by reading it; whether it is there at all.

        Limits: SEARCH_CANDIDATES_READ_MAX; of further ones what is known counts.
        """
        completed = self._completed
        completed.add(rest)
        if len(completed) > SEARCH_CANDIDATES_READ_MAX:
            return True
        document = self._document(rest[-_INTERNAL_ID_BYTES:])
        text = None if document is None else self._search.index.text(document)
        if text is None:
            return False
        terms, length = analyse(text)
        code = length_code(length)
        for weighed, postings in zip(self.statistics.terms, self._lists, strict=True):
            count = terms.get(weighed.term)
            if count and rest not in postings.scores:
                strength = bytes((SEARCH_TERM_COUNT_MAX - count, code))
                postings.scores[rest] = postings.scorer.score(strength)
        return True

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
