"""Reading postings: the documents with a term, the strongest first.

A term's score for a document is BM25's: it grows with the occurrences and shrinks with the text's length. Postings with
equal occurrences lie in the order of that score already, so a list of any size is read from its strong end by one scan
(a *run*) for each number of occurrences; a short list is read at once.

What is read through `Reader.scan` belongs to the read set, cut to what was consumed. What merely counts does not.
"""

from heapq import heappop, heappush
from typing import TYPE_CHECKING, Final

from skerry.database.catalog import Table
from skerry.database.scan import IndexScan
from skerry.database.search_index import (
    ALL_SCOPE,
    LENGTHS,
    SearchIndex,
    frequency_of_samples,
    sample_bounds,
)
from skerry.limits import (
    SCAN_CHUNK_KEYS_MAX,
    SEARCH_BATCH_POSTINGS,
    SEARCH_LONG_POSTINGS_MAX,
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

Place = tuple[float, bytes]
"""A score, negative so that the best is the smallest, and what orders equal ones: the rest of a key, age and internal
id."""


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
    """BM25 of one term, by what a posting says. Scores are negative: the strongest are the smallest."""

    __slots__ = ("_average", "_known", "_weight")

    def __init__(self, weight: float, average_length: float) -> None:
        self._weight = weight
        self._average = average_length
        self._known: dict[bytes, float] = {}

    def score(self, strength: bytes) -> float:
        """The score of a posting with these bytes of occurrences and length."""
        score = self._known.get(strength)
        if score is None:
            score = self._known[strength] = self._weight * self.share(strength)
        return score

    def share(self, strength: bytes) -> float:
        """The same for a term of weight 1, so that postings of all terms compare."""
        count = SEARCH_TERM_COUNT_MAX - strength[0]
        norm = _K1 * (1 - _B + _B * LENGTHS[strength[1]] / self._average)
        return -count * (_K1 + 1) / (count + norm)


class Run:
    """The postings of a long list with one number of occurrences, in the order of their scores.

    Shape: `keys` are the next ones, none at the end.
    """

    __slots__ = ("_scan", "keys", "number", "postings")

    def __init__(self, postings: "Postings", scan: IndexScan) -> None:
        self.postings = postings
        self.number = 0
        self._scan = scan
        self.keys = scan.next_keys(SEARCH_BATCH_POSTINGS)

    def advance(self) -> None:
        """Go behind the present keys."""
        self.keys = self._scan.next_keys(SEARCH_BATCH_POSTINGS)


class Postings:
    """What has been read of one term's postings in one scope.

    Shape: `scores` by the rest of a key (age and internal id). Of a list that is too long to be read whole, `runs` are
    those that have not ended; of another `keys` are all there is.
    """

    __slots__ = ("_at", "_bounds", "keys", "runs", "scorer", "scores")

    def __init__(self, reader: Reader, scope: bytes, term: bytes, scorer: Scorer, is_long: bool) -> None:
        self.scorer = scorer
        self.scores: dict[bytes, float] = {}
        self.runs: list[Run] = []
        self._bounds: dict[int, float] = {}
        bounds = posting_bounds(scope, term)
        self._at = len(bounds[0])
        keys = None if is_long else reader.postings(scope, term)
        self.keys = keys or []
        if keys is None:
            self.runs = [run for run in self._open(reader, bounds) if run.keys]
        else:
            self.add(keys)

    def has_advanced(self) -> None:
        """Take in that the runs have moved on."""
        self._bounds = {}

    def bound(self, code: int) -> float:
        """The most (negative) that the term can add to a document of a length that was not read here; 0 where all
        documents of this length were read."""
        bound = self._bounds.get(code)
        if bound is None:
            at = self._at
            counts = [run.keys[0][at] for run in self.runs if run.keys[0][at + 1] <= code]
            score = self.scorer.score
            bound = self._bounds[code] = min([score(bytes((count, code))) for count in counts], default=0.0)
        return bound

    def add(self, keys: list[bytes]) -> None:
        """Take postings in."""
        at, score = self._at, self.scorer.score
        behind = at + _STRENGTH_BYTES
        self.scores.update([(key[behind:], score(key[at:behind])) for key in keys])

    def codes(self, keys: list[bytes]) -> list[tuple[bytes, int]]:
        """The rest of each key, and the code of the text's length."""
        at = self._at + 1
        return [(key[at + 1 :], key[at]) for key in keys]

    def strength(self, run: Run) -> bytes:
        """Occurrences and length of a run's next posting."""
        key = run.keys[0]
        return key[self._at : self._at + _STRENGTH_BYTES]

    def next_rest(self, run: Run) -> bytes:
        """Age and internal id of a run's next posting."""
        return run.keys[0][self._at + _STRENGTH_BYTES :]

    def _open(self, reader: Reader, bounds: tuple[bytes, bytes]) -> list[Run]:
        """A run for each number of occurrences that there is."""
        lower, upper = bounds
        runs: list[Run] = []
        while first := reader.keys(lower, upper, 1):
            count = first[0][self._at]
            end = bounds[0] + bytes((count + 1,)) if count < SEARCH_TERM_COUNT_MAX else upper
            runs.append(Run(self, reader.scan(bounds[0] + bytes((count,)), end, SEARCH_BATCH_POSTINGS)))
            if end == upper:
                break
            lower = end
        return runs


class LongLists:
    """The lists that are too long to be read whole, read together from the strongest postings on.

    All lists advance by one measure, what a posting would score at weight 1. So of two lists the same kinds of
    documents are read, and what has both terms turns up in both. Shape: `codes` has the length code of each document
    read.
    """

    __slots__ = ("_heap", "_left", "_reader", "codes")

    def __init__(self, reader: Reader, lists: list[Postings]) -> None:
        self._reader = reader
        self._left = SEARCH_LONG_POSTINGS_MAX
        self._heap: list[tuple[float, int, Run]] = []
        self.codes: dict[bytes, int] = {}
        for number, run in enumerate([run for postings in lists for run in postings.runs]):
            run.number = number
            self._push(run)

    @property
    def is_open(self) -> bool:
        """Whether more can be read."""
        return bool(self._heap) and self._left > 0

    def more(self) -> tuple[Postings, list[bytes]]:
        """Read the next postings: of which list, and their keys."""
        _, _, run = heappop(self._heap)
        postings, keys = run.postings, run.keys
        self._left -= len(keys)
        self._reader.count(len(keys))
        postings.add(keys)
        self.codes.update(postings.codes(keys))
        run.advance()
        if run.keys:
            self._push(run)
        else:
            postings.runs.remove(run)
        postings.has_advanced()
        return postings, keys

    def _push(self, run: Run) -> None:
        postings = run.postings
        heappush(self._heap, (postings.scorer.share(postings.strength(run)), run.number, run))


def posting_bounds(scope: bytes, term: bytes) -> tuple[bytes, bytes]:
    """The key range of a term's postings in a scope."""
    return scope + term + b"\0", scope + term + b"\1"


def _behind(prefix: bytes) -> bytes:
    """The end of the keys that begin with some bytes of UTF-8."""
    return prefix + b"\xff"
