"""Open searches: the results of a ranking, the documents behind them, and the operators that they pass.

Behaves as a query over an index range does, but for three things. The ranking is made when the first document is asked
for, and not again: what the transaction writes after that changes documents that are still to come, not their order.
The result numbered `SEARCH_RESULTS_MAX`, counted from the best, is an error. And a position is not an index key but a
place in the ranking, with the statistics that the ranking was made with:

    score (8 bytes, greater first), age (8), internal id (16), statistics

so that a later page ranks by the same weights: a document that nobody writes to is on one page and on one only.
"""

import struct
from typing import TYPE_CHECKING, Final, Literal

from skerry.database.query import Plan
from skerry.database.search_index import REST_BYTES
from skerry.database.search_ranking import Ranking, load_statistics
from skerry.database.stored import HEADER_BYTES, SIZE_MASK, parse_document
from skerry.database.stream import QueryStream, open_stream
from skerry.database.stream import collect_plan as collect_range
from skerry.errors import DeveloperError
from skerry.limits import SEARCH_RESULTS_MAX

if TYPE_CHECKING:
    from skerry.database.transaction import Transaction

_pack_score: Final = struct.Struct(">d").pack
_SCORE_BYTES: Final = 8
_PLACE_BYTES: Final = _SCORE_BYTES + REST_BYTES
_INTERNAL_ID_BYTES: Final = 16


class SearchStream(QueryStream):
    """One open search of a transaction, between two positions of its ranking."""

    __slots__ = ("_after", "_dumped", "_n_results", "_place", "_plan", "_ranking", "_statistics", "_until")

    def __init__(
        self, transaction: "Transaction", plan: Plan, after: bytes | None = None, until: bytes | None = None
    ) -> None:
        assert plan.table is not None
        self._start(transaction, plan, plan.table.prefix)
        self._plan = plan
        self._after = b"" if after is None else after[:_PLACE_BYTES]
        self._until = None if until is None else until[:_PLACE_BYTES]
        known = until or after
        self._statistics = None if known is None else load_statistics(known[_PLACE_BYTES:])
        self._ranking: Ranking | None = None
        self._dumped = b""
        self._place = b""
        self._n_results = 0

    @property
    def position(self) -> bytes | None:
        return self._place + self._dumped if self._place else None

    def step(self) -> bytes | Literal[True] | None:
        limits = self._limits
        if limits and not min(limits):
            return None
        ranking = self._ranking
        if ranking is None:
            ranking = self._ranking = self._rank()
        while True:
            found = ranking.next()
            if found is None:
                return None
            score, rest = found
            place = _turned(score) + rest
            if self._until is not None and place > self._until:
                return None
            self._n_results += 1
            if self._n_results >= SEARCH_RESULTS_MAX:
                raise DeveloperError(
                    "SearchQueryScannedTooManyDocumentsError",
                    f"Search query scanned too many documents (fetched {SEARCH_RESULTS_MAX}). Consider using a smaller "
                    "limit, paginating the query, or using a filter field to limit the number of documents pulled from "
                    "the search index.",
                )
            if place > self._after:
                read = self._read(rest[-_INTERNAL_ID_BYTES:])
                if read is not None:
                    self._place = place
                    json, size = read
                    return json if not self._operators or self._passes(json, size) else True

    def collect(self) -> bytes:
        documents: list[bytes] = []
        while (document := self.next()) is not None:
            documents.append(document)
        return b"[" + b",".join(documents) + b"]"

    def _rank(self) -> Ranking:
        plan = self._plan
        assert plan.table is not None and plan.search is not None
        ranking = Ranking(self._transaction, plan.table, plan.search, self._statistics)
        self._dumped = ranking.statistics.dump()
        return ranking

    def _read(self, internal_id: bytes) -> tuple[bytes, int] | None:
        """A result's document and its size; None where it is gone, or does not meet the search's equalities."""
        transaction = self._transaction
        key = self._prefix + internal_id
        transaction.note_document(key)
        write = transaction.writes.get(key)
        if write is not None:
            json, size = write.json, write.size
        else:
            stored = transaction.base(key)
            json = None if stored is None else stored[HEADER_BYTES:]
            size = 0 if stored is None else int.from_bytes(stored[:4], "big") & SIZE_MASK
        if json is None:
            return None
        usage = transaction.usage
        usage.read_document(size)
        usage.look()
        self.rows_read += 1
        self.bytes_read += size
        search = self._plan.search
        assert search is not None
        if search.equalities and not search.admits(parse_document(json)):
            return None
        return json, size


def open_plan(transaction: "Transaction", plan: Plan) -> QueryStream:
    """Open a plan of either kind over all of its result."""
    if plan.search is None:
        return open_stream(transaction, plan)
    transaction.usage.read_range()
    return SearchStream(transaction, plan)


def collect_plan(transaction: "Transaction", plan: Plan) -> bytes:
    """All documents of a plan of either kind, as a JSON array."""
    return collect_range(transaction, plan) if plan.search is None else open_plan(transaction, plan).collect()


def _turned(score: float) -> bytes:
    """A negative score as bytes that order as scores do, the greatest first."""
    return bytes([255 - byte for byte in _pack_score(-score)])


__all__ = ["SearchStream", "collect_plan", "open_plan"]
