"""Reading postings: the documents with a term, the strongest first.

A term's score for a document is BM25's: it grows with the occurrences and shrinks with the text's length. Postings with
equal occurrences lie in the order of that score already, so a list of any size is read from its strong end by merging
one scan for each number of occurrences; a short list is read at once and sorted.

What is read through `Reader.scan` belongs to the read set, cut to what was consumed. What merely counts does not.
"""

from collections.abc import Iterator
from heapq import heapify, heappop, heapreplace
from typing import TYPE_CHECKING, Final

from skerry.database.catalog import Table
from skerry.database.scan import IndexScan
from skerry.database.search_index import (
    ALL_SCOPE,
    LENGTHS,
    REST_BYTES,
    SearchIndex,
    frequency_of_samples,
    sample_bounds,
)
from skerry.limits import (
    SCAN_CHUNK_KEYS_MAX,
    SEARCH_BATCH_POSTINGS,
    SEARCH_POSTINGS_MAX,
    SEARCH_SAMPLE_KEYS,
    SEARCH_TERM_COUNT_MAX,
)

if TYPE_CHECKING:
    from skerry.database.transaction import Transaction

_K1: Final = 1.2
_B: Final = 0.75
_STRENGTH_BYTES: Final = 2
"""Occurrences and length: what a posting's score follows from."""

Posting = tuple[float, bytes]
"""A score, negative so that the strongest is the smallest, and the rest of the key: age and internal id."""


class Reader:
    """Reads one search index as a transaction sees it."""

    __slots__ = ("_counted", "_index", "_table", "_transaction")

    def __init__(self, transaction: "Transaction", table: Table, index: SearchIndex) -> None:
        self._transaction = transaction
        self._table = table
        self._index = index
        self._counted: dict[bytes, list[bytes]] = {}

    def scan(self, lower: bytes, upper: bytes, chunk: int, is_noted: bool = True) -> IndexScan:
        """A scan of a key range; what is consumed of it is in the read set where it is noted."""
        transaction = self._transaction
        usage = transaction.usage
        usage.look()
        scan = IndexScan(
            transaction.snapshot,
            transaction.overlay,
            transaction.layers,
            self._table,
            self._index,
            lower,
            upper,
            False,
            usage.gather,
            chunk,
        )
        if is_noted:
            transaction.note_scan(scan)
        return scan

    def keys(self, lower: bytes, upper: bytes, count_max: int, is_noted: bool = True) -> list[bytes]:
        """The first keys of a range."""
        scan = self.scan(lower, upper, min(count_max, SCAN_CHUNK_KEYS_MAX), is_noted)
        keys: list[bytes] = []
        while len(keys) < count_max:
            more = scan.next_keys(count_max - len(keys))
            if not more:
                break
            keys += more
        self._transaction.usage.search(len(keys) + 1)
        return keys

    def count(self, n_keys: int) -> None:
        """Charge keys that were read from a scan."""
        usage = self._transaction.usage
        usage.look()
        usage.search(n_keys)

    def frequency(self, term: bytes) -> tuple[int, bool]:
        """How many documents have a term, and whether that is an estimate: exact up to `SEARCH_POSTINGS_MAX`."""
        lower, upper = sample_bounds(term)
        samples = self.keys(lower, upper, SEARCH_SAMPLE_KEYS, False)
        if len(samples) < SEARCH_SAMPLE_KEYS:
            bounds = posting_bounds(ALL_SCOPE, term)
            postings = self.keys(*bounds, SEARCH_POSTINGS_MAX + 1, False)
            if len(postings) <= SEARCH_POSTINGS_MAX:
                self._counted[bounds[0]] = postings
                return len(postings), False
        return max(frequency_of_samples(samples, len(samples) == SEARCH_SAMPLE_KEYS), SEARCH_POSTINGS_MAX + 1), True

    def postings(self, scope: bytes, term: bytes) -> list[bytes] | None:
        """All postings of a term in a scope; None where there are more than `SEARCH_POSTINGS_MAX`."""
        lower, upper = posting_bounds(scope, term)
        counted = self._counted.get(lower)
        if counted is not None:
            self._transaction.note_range((self._index.number, lower, upper))
            return counted
        keys = self.keys(lower, upper, SEARCH_POSTINGS_MAX + 1)
        return keys if len(keys) <= SEARCH_POSTINGS_MAX else None

    def terms_from(self, scope: bytes, prefix: bytes, count_max: int) -> list[bytes]:
        """The first indexed terms of a scope that begin with a prefix."""
        terms: list[bytes] = []
        lower, upper, at = scope + prefix, _behind(scope + prefix), len(scope)
        while len(terms) < count_max:
            found = self.keys(lower, upper, 1)
            if not found:
                break
            term = found[0][at : found[0].index(b"\0", at)]
            terms.append(term)
            lower = scope + term + b"\1"
        return terms


class Scorer:
    """BM25 of one term, by what a posting says."""

    __slots__ = ("_average", "_known", "_weight")

    def __init__(self, weight: float, average_length: float) -> None:
        self._weight = weight
        self._average = average_length
        self._known: dict[bytes, float] = {}

    def score(self, strength: bytes) -> float:
        """The score of a posting with these bytes of occurrences and length."""
        score = self._known.get(strength)
        if score is None:
            count = SEARCH_TERM_COUNT_MAX - strength[0]
            norm = _K1 * (1 - _B + _B * LENGTHS[strength[1]] / self._average)
            score = self._known[strength] = self._weight * count * (_K1 + 1) / (count + norm)
        return score


class PostingList:
    """The postings of one term in one scope.

    Shape: `floor` is the last posting that was read, and none that was not is before it in the order of postings; None
    where there is no other. `is_open` where more can be read.
    """

    __slots__ = ("_merged", "_n_read", "_reader", "floor", "is_open", "scorer", "whole")

    def __init__(self, reader: Reader, scope: bytes, term: bytes, scorer: Scorer, is_long: bool) -> None:
        self._reader = reader
        self.scorer = scorer
        self.floor: Posting | None = None
        self.is_open = False
        self.whole: list[Posting] | None = None
        bounds = posting_bounds(scope, term)
        keys = None if is_long else reader.postings(scope, term)
        self._n_read = 0
        if keys is None:
            self._merged = _merged(reader, bounds, scorer)
            self.is_open = True
            self.floor = (-float("inf"), b"")
        else:
            at = len(bounds[0])
            behind, score = at + _STRENGTH_BYTES, scorer.score
            self.whole = [(-score(key[at:behind]), key[behind:]) for key in keys]

    @property
    def bound(self) -> float:
        """The most that a posting can add that was not read."""
        return 0.0 if self.floor is None else -self.floor[0]

    def more(self) -> list[Posting]:
        """The next postings, in their order."""
        batch: list[Posting] = []
        for posting in self._merged:
            batch.append(posting)
            if len(batch) >= SEARCH_BATCH_POSTINGS:
                break
        self._n_read += len(batch)
        self._reader.count(len(batch))
        if len(batch) < SEARCH_BATCH_POSTINGS:
            self.is_open, self.floor = False, None
        else:
            self.floor = batch[-1]
            self.is_open = self._n_read < SEARCH_POSTINGS_MAX
        return batch


def posting_bounds(scope: bytes, term: bytes) -> tuple[bytes, bytes]:
    """The key range of a term's postings in a scope."""
    return scope + term + b"\0", scope + term + b"\1"


def _merged(reader: Reader, bounds: tuple[bytes, bytes], scorer: Scorer) -> Iterator[Posting]:
    """The postings of a range from the strongest on."""
    lower, upper = bounds
    at = len(lower)
    behind = at + _STRENGTH_BYTES
    heads: list[tuple[float, bytes, IndexScan]] = []
    while True:
        first = reader.keys(lower, upper, 1)
        if not first:
            break
        count = first[0][at]
        end = bounds[0] + bytes((count + 1,)) if count < SEARCH_TERM_COUNT_MAX else upper
        scan = reader.scan(bounds[0] + bytes((count,)), end, SEARCH_BATCH_POSTINGS)
        key = scan.next_key()
        if key is not None:
            heads.append((-scorer.score(key[at:behind]), key[behind:], scan))
        if end == upper:
            break
        lower = end
    heapify(heads)
    while heads:
        score, rest, scan = heads[0]
        yield score, rest
        key = scan.next_key()
        if key is None:
            heappop(heads)
        else:
            heapreplace(heads, (-scorer.score(key[at:behind]), key[behind:], scan))


def _behind(prefix: bytes) -> bytes:
    """The end of the keys that begin with some bytes of UTF-8."""
    return prefix + b"\xff"


assert REST_BYTES == 24
