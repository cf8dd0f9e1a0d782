"""The live queries of one deployment: each runs once for each commit that touches it, however many clients watch.

```
commit -> the read sets it touches -> those live queries are stale -> each runs again, in its deployment's turn
       -> valid at the newest durable state -> its watchers hear of it
       -> touched again while it ran: its result holds at an older timestamp -> a round brings its watchers there
```

What stays true:

- A live query that is valid is valid at the database's newest durable timestamp: what it has read has not changed since
  it ran. So a client whose queries are all valid can be brought to that timestamp, whatever its other clients do.
- A result holds from the timestamp that its run saw until the first commit that touched what it read, and is shown at
  no other timestamp. One of a run that a commit overtook is late: it is for the past, and the query runs again.
- A late result begins a *round*, unless there is one: all clients that wait for something are to be brought to the
  timestamp that it saw. Queries that have no result there run once more, over that state. Since it does not move, a
  round ends, whatever is committed meanwhile; so every client gets on, however slow a query of its is.
- The first run of a paginated query decides where its page ends, and the runs after it keep that end (the query's
  journal). So a query that has run again is another one than that of a client that comes now.
- Another version of the code makes every query stale, and so does another catalog: an import puts a table's documents
  under other numbers, where no read set of before leads. Nothing of before is shown any more.
- A result is taken only once the database has heard of the commits that it saw. One that was made beside the lane may
  have seen a commit a moment before that, and waits for it.
- Whatever fails is logged once, the watchers of a query hear of it, and the reactor goes on.

Concurrency: the loop thread. Deliberately absent: connections, and the order in which a client is told.
"""

import contextlib
import logging
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final, Protocol

from skerry.database import CommitRecord, ReadSet, WriteIndex
from skerry.database.read_index import ReadIndex
from skerry.errors import SkerryError, SystemFault
from skerry.functions.request import CallRequest, CallResult, ReadTime
from skerry.limits import SYNC_COMMITS_REMEMBERED_MAX
from skerry.sync.live_query import STILL, LiveQuery, Span, Superseded
from skerry.sync.session import failed, updated

_log: Final = logging.getLogger("skerry.sync")

Outcome = CallResult | SkerryError
Begin = Callable[[CallRequest, Callable[[Outcome], None]], None]
Schedule = Callable[[Callable[[], None]], None]


class Watcher(Protocol):
    """Who watches live queries. It raises nothing."""

    def stale(self, live: LiveQuery) -> None:
        """The query is being run again."""
        ...

    def settled(self, live: LiveQuery) -> None:
        """The query is valid, or has failed in the host (`fault`)."""
        ...

    def reach(self, ts: int) -> None:
        """Be brought to an older timestamp, where all of its queries have a result there (`results_at`)."""
        ...

    def moved(self, live: LiveQuery, other: LiveQuery) -> None:
        """The query has become what another one is already, which is watched instead."""
        ...


class Reactor:
    """Shape: `begin` runs a call of the deployment, `schedule` runs a function in the deployment's turn, `make_request`
    makes the request of a key, `durable_ts` gives the newest durable timestamp; `redact` drops what callers are not to
    see of a result."""

    def __init__(
        self,
        begin: Begin,
        schedule: Schedule,
        durable_ts: Callable[[], int],
        make_request: Callable[[LiveQuery], CallRequest],
        redact: bool,
    ) -> None:
        self._begin = begin
        self._schedule = schedule
        self._durable_ts = durable_ts
        self._make_request = make_request
        self._redact = redact
        self._live: dict[tuple[Any, ...], LiveQuery] = {}
        self._reads: ReadIndex[LiveQuery] = ReadIndex()
        self._recent: deque[CommitRecord] = deque()
        self._forgotten_ts = 0
        self._unsettled: dict[LiveQuery, None] = {}
        self._begun: dict[LiveQuery, int] = {}
        self._early: list[tuple[LiveQuery, CallResult]] = []
        self._superseded = Superseded()
        self._round_ts: int | None = None
        self._rounds = 0
        self._wanted: set[LiveQuery] = set()
        self._reaching = 0
        self.runs = 0

    @property
    def n_live(self) -> int:
        """How many different queries are watched."""
        return len(self._live)

    @property
    def kept_bytes(self) -> int:
        """What superseded results take."""
        return self._superseded.n_bytes

    def watch(self, key: tuple[Any, ...], journal: str | None, watcher: Watcher) -> LiveQuery:
        """The live query of a key (function, arguments, identity), which the watcher hears of until `forget`.

        Where it is not valid, it is being run, and `settled` follows.
        """
        full = (*key, journal)
        live = self._live.get(full)
        if live is None:
            live = self._live[full] = LiveQuery(full, journal, self._rounds)
        live.watchers.add(watcher)
        if not live.is_valid:
            self._run_soon(live)
        return live

    def forget(self, live: LiveQuery, watcher: Watcher) -> None:
        """The watcher hears no more of a query; with its last watcher a query ends."""
        live.watchers.discard(watcher)
        if not live.watchers and self._live.get(live.key) is live:
            del self._live[live.key]
            self._reads.drop(live)
            live.is_valid = False
            self._give_up(live)

    def results_at(self, ts: int, lives: Iterable[tuple[int, LiveQuery]]) -> list[tuple[int, bytes]] | None:
        """The results of queries at the timestamp of the round, under the ids that their watcher gives them.

        None where one is missing; those that are have been asked for then, and `reach` follows.
        """
        found: list[tuple[int, bytes]] = []
        is_whole = True
        for query_id, live in lives:
            result = live.result_at(ts)
            if result is not None:
                found.append((query_id, result))
                continue
            is_whole = False
            if self._round_ts == ts and live.born < self._rounds and live.missed != self._rounds:
                self._wanted.add(live)
                self._run_soon(live)
        return found if is_whole else None

    # -- what makes queries stale ------------------------------------------------------------------------------------

    def committed(self, record: CommitRecord) -> None:
        """A commit has become durable: what it touches is stale."""
        try:
            self._take_in(record)
        except Exception:  # nobody may believe what cannot be told apart from what is still true
            _log.exception("what a commit touches could not be found out")
            self.all_stale()

    def _take_in(self, record: CommitRecord) -> None:
        if self._begun:
            self._recent.append(record)
            if len(self._recent) > SYNC_COMMITS_REMEMBERED_MAX:
                self._forgotten_ts = self._recent.popleft().commit_ts
        if record.is_switch:
            self.all_stale()
            return
        for live in self._reads.touched(record):
            if live.from_ts < record.commit_ts:  # else its run saw it, a moment before the loop thread heard of it
                live.until_ts = min(live.until_ts, record.commit_ts)
                self._make_stale(live)
        if self._early:
            early, self._early = self._early, []
            for live, outcome in early:
                self._done(live, outcome)

    def all_stale(self) -> None:
        """Other code is live, or another catalog: every query runs again, and nothing of before is shown."""
        self._end_round()
        self._superseded.clear()
        for live in list(self._live.values()):
            live.result = live.held = None
            if live.has_begun:
                live.since = -1  # what it comes to is thrown away
            self._make_stale(live)
        early, self._early = self._early, []
        for live, outcome in early:
            self._done(live, outcome)

    def _make_stale(self, live: LiveQuery) -> None:
        if not live.is_valid:
            return
        live.is_valid = False
        for watcher in live.watchers:
            watcher.stale(live)
        self._run_soon(live)

    # -- runs --------------------------------------------------------------------------------------------------------

    def _run_soon(self, live: LiveQuery) -> None:
        if not live.is_running:
            live.is_running = True
            self._unsettled[live] = None
            self._schedule(partial(self._run, live))

    def _run(self, live: LiveQuery) -> None:
        past_ts = self._round_ts if live in self._wanted else None
        if past_ts is None and not live.is_valid:
            self._bind(live)
        if not live.watchers or (live.is_valid and past_ts is None):
            self._ended(live)
            return
        self.runs += 1
        live.runs += 1
        live.has_begun = True
        live.since = self._durable_ts()
        done: Callable[[Outcome], None]
        if past_ts is None:
            self._begun[live] = live.since
            done = partial(self._done, live)
        else:
            done = partial(self._done_past, live, self._rounds)
        is_told = False

        def told(outcome: Outcome) -> None:
            nonlocal is_told
            if is_told:
                return
            is_told = True
            try:
                done(outcome)
            except Exception as error:
                self._failed(live, error)

        try:
            request = self._make_request(live)
            request.is_repeated = live.runs > 1
            if past_ts is not None:
                request.at = ReadTime(past_ts)
            self._begin(request, told)
        except Exception as error:
            if not is_told:
                is_told = True
                self._failed(live, error)

    def _bind(self, live: LiveQuery) -> None:
        """A query that runs again is bound to the page that its first run gave: whoever comes now begins one anew.

        What gave that page to others has become the same query, and is watched together.
        """
        key = (*live.key[:-1], live.journal)
        if key == live.key or self._live.get(live.key) is not live:
            return
        other = self._live.setdefault(key, live)
        del self._live[live.key]
        live.key = key
        if other is live:
            return
        for watcher in live.watchers:
            other.watchers.add(watcher)
            watcher.moved(live, other)
        live.watchers.clear()
        self._reads.drop(live)
        self._give_up(live)
        if not other.is_valid:
            self._run_soon(other)

    def _failed(self, live: LiveQuery, error: Exception) -> None:
        """Tells of a fault that nobody foresaw, in a run or after it."""
        _log.error("a live query failed in the host", exc_info=error)
        live.is_valid = False
        self._ended(live)
        with contextlib.suppress(Exception):  # it was logged, whatever it was
            self._settle(live, SystemFault("InternalServerError", "The query could not be run. Try again later."))

    def _ended(self, live: LiveQuery) -> None:
        live.is_running = live.has_begun = False
        self._unsettled.pop(live, None)
        self._begun.pop(live, None)
        if not self._begun:
            self._recent.clear()

    def _done(self, live: LiveQuery, outcome: Outcome) -> None:
        """A run over the newest state of its time has ended."""
        if isinstance(outcome, CallResult) and live.since >= 0 and (outcome.ts or 0) > self._durable_ts():
            self._early.append((live, outcome))
            return
        seen_ts, until_ts, reads = live.since, STILL, _NOTHING
        if isinstance(outcome, CallResult) and live.since >= 0:
            seen_ts = live.since if outcome.ts is None else outcome.ts
            reads = outcome.reads or _NOTHING
            until_ts = self._touched_ts(reads, seen_ts)
        is_void = live.since < 0
        horizon_ts = self._horizon_ts
        self._ended(live)
        if not live.watchers:
            self._tidy()
            return
        if is_void:
            self._run_soon(live)
            return
        if isinstance(outcome, SkerryError):
            self._settle(live, outcome)
            return
        if live.result is not None and live.until_ts > horizon_ts:
            self._superseded.keep(live, Span(live.from_ts, live.until_ts, live.result))
        live.journal = live.journal if outcome.journal is None else outcome.journal
        live.result = self._result(outcome, live.journal)
        live.from_ts, live.until_ts = seen_ts, until_ts
        if until_ts == STILL:
            live.is_valid = True
            self._reads.put(live, reads)
            self._settle(live, None)
        else:
            self._late(live)

    def _settle(self, live: LiveQuery, fault: SkerryError | None) -> None:
        live.fault = fault
        for watcher in list(live.watchers):
            watcher.settled(live)
        if fault is not None:
            self._give_up(live)
        elif live in self._wanted:
            self._look_again(live)
        self._tidy()

    def _touched_ts(self, reads: ReadSet, seen_ts: int) -> int:
        """The first commit since the snapshot that a run saw that changed what it read; `STILL` where there is none."""
        if seen_ts >= self._durable_ts():
            return STILL
        if seen_ts < self._forgotten_ts:
            return seen_ts + 1
        records = [record for record in self._recent if record.commit_ts > seen_ts]
        if not _touches(records, reads):
            return STILL
        low, high = 0, len(records)  # none of the first `low` touches it, one of the first `high` does
        while high - low > 1:
            middle = (low + high) // 2
            if _touches(records[low:middle], reads):
                high = middle
            else:
                low = middle
        return records[low].commit_ts

    # -- rounds ------------------------------------------------------------------------------------------------------

    @property
    def _horizon_ts(self) -> int:
        """No run that is under way, and no round, needs a result of before this."""
        since = next(iter(self._begun.values()), STILL)
        return since if self._round_ts is None else min(since, self._round_ts)

    def _late(self, live: LiveQuery) -> None:
        """A result holds no longer, but did: it is shown at its own time, and the query runs again."""
        if self._round_ts is None:
            self._run_soon(live)
            self._round_ts = live.from_ts
            self._rounds += 1
            self._reach({watcher: None for waiting in self._unsettled for watcher in waiting.watchers})
            return
        self._look_again(live)
        self._run_soon(live)

    def _look_again(self, live: LiveQuery) -> None:
        """A query of a round has another result: it may be what was wanted, else it runs for the round."""
        assert self._round_ts is not None
        if live.result_at(self._round_ts) is None:
            if live in self._wanted:
                self._run_soon(live)
            return
        self._wanted.discard(live)
        self._reach(list(live.watchers))

    def _reach(self, watchers: Iterable[Watcher]) -> None:
        """Lets watchers ask for what they miss in the round, which is over when nothing is wanted any more."""
        ts = self._round_ts
        self._reaching += 1
        try:
            for watcher in watchers:
                if ts is not None:
                    watcher.reach(ts)
        finally:
            self._reaching -= 1
        if not self._wanted and not self._reaching:
            self._end_round()

    def _give_up(self, live: LiveQuery) -> None:
        """A query will not have a result in this round."""
        live.missed = self._rounds
        if live in self._wanted:
            self._wanted.discard(live)
            self._reach(())

    def _end_round(self) -> None:
        self._round_ts = None
        self._wanted.clear()
        self._tidy()

    def _done_past(self, live: LiveQuery, number: int, outcome: Outcome) -> None:
        """A run over the state of a round has ended, maybe after the round."""
        is_void = live.since < 0
        self._ended(live)
        ts = self._round_ts
        if ts is not None and number == self._rounds and live in self._wanted:
            if isinstance(outcome, SkerryError) or is_void:
                self._give_up(live)
            else:
                live.journal = live.journal if outcome.journal is None else outcome.journal
                live.held = Span(ts, ts + 1, self._result(outcome, live.journal))
                self._wanted.discard(live)
                self._reach(list(live.watchers))
        if not live.is_valid and live.watchers:
            self._run_soon(live)

    def _tidy(self) -> None:
        """Forgets the results that nobody needs any more."""
        self._superseded.forget(self._horizon_ts)

    def _result(self, outcome: CallResult, journal: str | None) -> bytes:
        lines = [] if self._redact else outcome.log_lines
        if outcome.ok:
            return updated(outcome.value, lines, journal)
        return failed(shown_message(outcome.error_message, self._redact), outcome.error_data, lines, journal)


def shown_message(message: str, redact: bool) -> str:
    """What a caller sees of a failure's message: redacted, the line with the request's id."""
    return message.partition("\n")[0] if redact else message


def _touches(records: list[CommitRecord], reads: ReadSet) -> bool:
    """Whether any of these commits changed what was read."""
    numbers = {number for number, _, _ in reads.ranges}
    written = WriteIndex()
    for record in records:
        written.add(record.documents(), record.keys_in(numbers))
    return reads.touched_by(written)


_NOTHING: Final = ReadSet(set(), [])
