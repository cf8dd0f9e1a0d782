"""The live queries of one deployment: each runs once for each commit that touches it, however many clients watch.

```
commit -> the read sets it touches -> those live queries are stale -> each runs again, in its deployment's turn
       -> valid at the newest durable state -> its watchers hear of it
```

What stays true:

- A live query that is valid is valid at the database's newest durable timestamp: what it has read has not changed since
  it ran. So a client whose queries are all valid can be brought to that timestamp, whatever its other clients do.
- A query that ran while something it read was changed runs again before anybody hears of its result.
- Another version of the code makes every query stale, and so does another catalog: an import puts a table's documents
  under other numbers, where no read set of before leads.
- A result is valid only once the database has heard of the commits that it saw. One that was made beside the lane may
  have seen a commit a moment before that, and its query runs again.

A mutation that a client sends again, because it lost its connection before it heard, is found here while it runs and in
the database afterwards, where its answer was written in the same commit (`Mutations`).

Concurrency: the loop thread. Deliberately absent: connections, and the order in which a client is told.
"""

import logging
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Protocol

from skerry.database import CommitRecord, ReadSet, WriteIndex
from skerry.errors import SkerryError
from skerry.functions.request import CallRequest, CallResult
from skerry.limits import SYNC_COMMITS_REMEMBERED_MAX
from skerry.sync.read_index import ReadIndex
from skerry.sync.session import failed, updated

_log: Final = logging.getLogger("skerry.sync")

Begin = Callable[[CallRequest, Callable[[CallResult | SkerryError], None]], None]
Schedule = Callable[[Callable[[], None]], None]


class Watcher(Protocol):
    """Who watches live queries. It raises nothing."""

    def stale(self, live: "LiveQuery") -> None:
        """The query is being run again."""
        ...

    def settled(self, live: "LiveQuery") -> None:
        """The query is valid, or has failed in the host (`fault`)."""
        ...


class LiveQuery:
    """One query as somebody watches it. Shape: `result` as `session.updated` or `failed` made it, None before."""

    __slots__ = (
        "fault", "has_begun", "is_running", "is_valid", "journal", "key", "result", "runs", "since", "watchers",
    )  # fmt: skip

    def __init__(self, key: tuple[Any, ...], journal: str | None) -> None:
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


class Reactor:
    """Shape: `begin` runs a call of the deployment, `schedule` runs a function in the deployment's turn, `make_request`
    makes the request of a key, `durable_ts` gives the newest durable timestamp; `redact` drops what callers are not to
    see of a result."""

    def __init__(
        self,
        begin: Begin,
        schedule: Schedule,
        durable_ts: Callable[[], int],
        make_request: Callable[["LiveQuery"], CallRequest],
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
        self._running = 0
        self.runs = 0

    @property
    def n_live(self) -> int:
        """How many different queries are watched."""
        return len(self._live)

    def watch(self, key: tuple[Any, ...], journal: str | None, watcher: Watcher) -> LiveQuery:
        """The live query of a key (function, arguments, identity), which the watcher hears of until `forget`.

        Where it is not valid, it is being run, and `settled` follows.
        """
        full = (*key, journal)
        live = self._live.get(full)
        if live is None:
            live = self._live[full] = LiveQuery(full, journal)
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

    def committed(self, record: CommitRecord) -> None:
        """A commit has become durable: what it touches is stale."""
        if self._running:
            self._recent.append(record)
            if len(self._recent) > SYNC_COMMITS_REMEMBERED_MAX:
                self._forgotten_ts = self._recent.popleft().commit_ts
        if record.is_switch:
            self.all_stale()
            return
        for live in self._reads.touched(record):
            self._make_stale(live)

    def all_stale(self) -> None:
        """Other code is live, or another catalog: every query runs again."""
        for live in list(self._live.values()):
            if live.has_begun:
                live.since = -1  # what it comes to is thrown away
            self._make_stale(live)

    def _make_stale(self, live: LiveQuery) -> None:
        if not live.is_valid:
            return
        live.is_valid = False
        for watcher in live.watchers:
            watcher.stale(live)
        self._run_soon(live)

    def _run_soon(self, live: LiveQuery) -> None:
        if not live.is_running:
            live.is_running = True
            self._running += 1
            self._schedule(partial(self._run, live))

    def _run(self, live: LiveQuery) -> None:
        if not live.watchers:
            self._ended(live)
            return
        self.runs += 1
        live.runs += 1
        live.has_begun = True
        live.since = self._durable_ts()
        self._begin(self._make_request(live), partial(self._done, live))

    def _ended(self, live: LiveQuery) -> None:
        live.is_running = live.has_begun = False
        self._running -= 1
        if not self._running:
            self._recent.clear()

    def _done(self, live: LiveQuery, outcome: CallResult | SkerryError) -> None:
        reads = _NOTHING
        is_late = live.since < 0
        if isinstance(outcome, CallResult):
            reads = outcome.reads or _NOTHING
            is_late = is_late or self._was_touched(reads, outcome.ts, live)
        self._ended(live)
        if not live.watchers:
            return
        if is_late:
            self._run_soon(live)
            return
        if isinstance(outcome, SkerryError):
            live.fault = outcome
        else:
            live.fault = None
            if outcome.journal is not None:
                live.journal = outcome.journal
            live.result = self._result(outcome, live.journal)
            live.is_valid = True
            self._reads.put(live, reads)
        for watcher in list(live.watchers):
            watcher.settled(live)

    def _was_touched(self, reads: ReadSet, ts: int | None, live: LiveQuery) -> bool:
        """Whether a commit since the snapshot that a run saw changed what it read, or that one is still to come."""
        seen_ts = live.since if ts is None else ts
        durable_ts = self._durable_ts()
        if seen_ts >= durable_ts:
            return seen_ts > durable_ts
        if seen_ts < self._forgotten_ts:
            return True
        numbers = {number for number, _, _ in reads.ranges}
        written = WriteIndex()
        for record in reversed(self._recent):
            if record.commit_ts <= seen_ts:
                break
            written.add(record.documents(), record.keys_in(numbers))
        return reads.touched_by(written)

    def _result(self, outcome: CallResult, journal: str | None) -> bytes:
        lines = [] if self._redact else outcome.log_lines
        if outcome.ok:
            return updated(outcome.value, lines, journal)
        return failed(shown_message(outcome.error_message, self._redact), outcome.error_data, lines, journal)


def shown_message(message: str, redact: bool) -> str:
    """What a caller sees of a failure's message: redacted, the line with the request's id."""
    return message.partition("\n")[0] if redact else message


_NOTHING: Final = ReadSet(set(), [])
