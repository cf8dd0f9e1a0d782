"""One live query, with the results that it had and the timestamps at which each of them was the result.

A result holds from the timestamp that its run saw until the first commit that touched what the run had read. The newest
one is kept for as long as the query is watched; those before it for as long as a run that saw an older state is under
way, whose client may have to be brought to that state (`Superseded`).
"""

from collections import deque
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from skerry.errors import SkerryError
from skerry.limits import SYNC_SUPERSEDED_BYTES_MAX, SYNC_SUPERSEDED_EACH_MAX

if TYPE_CHECKING:
    from skerry.sync.reactor import Watcher

STILL: Final = 1 << 64
"""The end of a result that no commit has touched: behind every timestamp."""


class Span(NamedTuple):
    """A result, from the timestamp at which it holds until the one at which it no longer does."""

    from_ts: int
    until_ts: int
    result: bytes


class LiveQuery:
    """One query as somebody watches it.

    Shape: `result` as `session.updated` or `failed` made it, None before the first; it holds from `from_ts` on, to
    `until_ts` once a commit has touched what it read. `held` is a result that was asked for at one timestamp, and
    `since` what was the newest durable one when the run that is under way began, -1 where that run counts for nothing.
    `born` and `missed` are numbers of rounds of the reactor.
    """

    __slots__ = (
        "born", "fault", "from_ts", "has_begun", "held", "is_running", "is_valid", "journal", "key", "missed", "past",
        "result", "runs", "since", "until_ts", "watchers",
    )  # fmt: skip

    def __init__(self, key: tuple[Any, ...], journal: str | None, born: int = 0) -> None:
        self.key = key
        self.journal = journal
        self.result: bytes | None = None
        self.fault: SkerryError | None = None
        self.is_valid = False
        self.is_running = False
        self.has_begun = False
        self.watchers: set[Watcher] = set()
        self.runs = 0
        self.since = 0
        self.from_ts = 0
        self.until_ts = STILL
        self.past: list[Span] = []
        self.held: Span | None = None
        self.born = born
        self.missed = 0

    def result_at(self, ts: int) -> bytes | None:
        """What was the result at a timestamp, None where nobody knows any more, or yet."""
        if self.result is not None and self.from_ts <= ts < self.until_ts:
            return self.result
        if self.held is not None and self.held.from_ts <= ts < self.held.until_ts:
            return self.held.result
        for span in self.past:
            if span.from_ts <= ts < span.until_ts:
                return span.result
        return None


class Superseded:
    """The results of all live queries of a deployment that hold no longer and may be needed yet.

    Limits: SYNC_SUPERSEDED_EACH_MAX of one query, SYNC_SUPERSEDED_BYTES_MAX in all. What is beyond is not kept: whoever
    needs it has to run the query over the past.
    """

    def __init__(self) -> None:
        self._kept: deque[tuple[LiveQuery, Span]] = deque()
        self._bytes = 0

    @property
    def n_bytes(self) -> int:
        """What they take."""
        return self._bytes

    def keep(self, live: LiveQuery, span: Span) -> None:
        """Keeps a result, where there is room for it."""
        if len(live.past) >= SYNC_SUPERSEDED_EACH_MAX or self._bytes + len(span.result) > SYNC_SUPERSEDED_BYTES_MAX:
            return
        live.past.append(span)
        self._kept.append((live, span))
        self._bytes += len(span.result)

    def forget(self, until_ts: int) -> None:
        """Forgets what holds at no timestamp from this one on."""
        kept = self._kept
        while kept and kept[0][1].until_ts <= until_ts:
            live, span = kept.popleft()
            live.past.remove(span)
            self._bytes -= len(span.result)

    def clear(self) -> None:
        """Forgets all of them."""
        for live, _ in self._kept:
            live.past.clear()
        self._kept.clear()
        self._bytes = 0
