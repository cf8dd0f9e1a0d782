"""Answers of queries that are kept, so that the next one who asks the same gets them without a run.

```
a query is asked -> an answer is kept: it is told               found, told: microseconds
                 -> an equal call is under way beside the loop: its answer is waited for
                 -> it runs -> asked a second time of late: its answer is kept, its read set goes to the index
commit durable   -> the index: whose read set it touches -> those answers are dropped
```

**What an answer is kept under** is all that it can depend on: the function, the arguments, the query journal, and the
caller's identity if the run looked at it. The version of the code, the catalog and the quotas are no part of the key:
where they change, everything is dropped. A run that looked at the clock, drew randomness, or searched texts (whose
statistics are not in the read set) is not kept, and neither is a failure.

**Why a hit is exact.** A call is a pure function of these and of what it has read. What is kept is true at the newest
durable timestamp: it ran there, or nothing it read has changed since; commits drop what they touch before anybody hears
of them. So a run in place of a hit would give the same bytes.

Looking in the index costs more than some queries do. So an answer is kept from the second asking on: what is asked for
once costs two look-ups in a dictionary.

Concurrency: the loop thread. Deliberately absent: answers that are true for a while (a query that looked at the clock),
and answers of older states.
"""

import logging
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import orjson

from skerry.database import CommitRecord, Database, ReadSet
from skerry.database.read_index import ReadIndex
from skerry.errors import SkerryError
from skerry.functions.function_table import FunctionSpec
from skerry.functions.metering import CallUsage, Meter
from skerry.functions.request import CallRequest, CallResult
from skerry.limits import (
    QUERY_CACHE_ARGS_BYTES_MAX,
    QUERY_CACHE_BYTES_MAX,
    QUERY_CACHE_EACH_BYTES_MAX,
    QUERY_CACHE_READS_MAX,
    QUERY_CACHE_SEEN_MAX,
)

_log: Final = logging.getLogger("skerry.functions")

Outcome = CallResult | SkerryError
Done = Callable[[Outcome], None]
Key = tuple[str, bytes, str | None] | tuple[str, bytes, str | None, bytes]
"""Function, arguments, journal; and the identity's JSON, in the keys of answers that do not hold for everybody."""
Waiting = list[tuple[int, CallRequest, Done]]
"""Who asked for what was under way, with what was durable then."""

# What is kept takes besides its bytes: objects of Python, places in dictionaries, nodes of the index.
_ENTRY_BYTES: Final = 1_200
_DOCUMENT_BYTES: Final = 400
_RANGE_BYTES: Final = 1_500


class CacheMemory:
    """What the caches of a process take, and how often they were of use. Shape: `caches` are those with answers."""

    def __init__(self) -> None:
        self.caches: set[QueryCache] = set()
        self.n_bytes = 0
        self.hits = 0
        self.misses = 0
        self.joined = 0

    @property
    def n_entries(self) -> int:
        """How many answers are kept."""
        return sum(cache.n_entries for cache in self.caches)


_memory: Final = CacheMemory()


def get_cache_memory() -> CacheMemory:
    """The memory that all deployments of this process share."""
    return _memory


class Entry:
    """An answer that is true at the newest durable timestamp.

    Shape: `from_ts` is since when it is known to be. Without a result it says that the answer is another one for each
    identity, and under which keys it is to be looked for.
    """

    __slots__ = ("from_ts", "is_used", "key", "reads", "result", "size")

    def __init__(self, key: Key, result: CallResult | None, reads: ReadSet, from_ts: int) -> None:
        self.key = key
        self.result = result
        self.reads = reads
        self.from_ts = from_ts
        self.is_used = False
        self.size = _ENTRY_BYTES + len(key[1]) + (len(key[3]) if len(key) == 4 else 0)
        if result is not None:  # twice: as it is kept, and in the form in which it is sent
            self.size += 2 * (len(result.value) + sum(map(len, result.log_lines)))
        self.size += len(reads.documents) * _DOCUMENT_BYTES + len(reads.ranges) * _RANGE_BYTES


class QueryCache:
    """The kept answers of one deployment. Shape: `run` runs a call without looking here.

    Limits: QUERY_CACHE_EACH_BYTES_MAX, of all deployments together QUERY_CACHE_BYTES_MAX; QUERY_CACHE_ARGS_BYTES_MAX
    and QUERY_CACHE_READS_MAX of one answer.
    """

    def __init__(
        self,
        database: Database,
        meter: Meter,
        run: Callable[[CallRequest, Done], None],
        memory: CacheMemory | None = None,
    ) -> None:
        self._database = database
        self._meter = meter
        self._run = run
        self._memory = memory or _memory
        self._entries: dict[Key, Entry] = {}
        self._reads: ReadIndex[Entry] = ReadIndex()
        self._flights: dict[Key, CallRequest] = {}
        self._waiting: dict[CallRequest, Waiting] = {}
        self._seen: set[int] = set()
        self._seen_before: set[int] = set()
        self.n_bytes = 0
        self.n_waiting = 0
        database.on_commit.append(self._committed)

    @property
    def n_entries(self) -> int:
        """How many answers are kept."""
        return len(self._entries)

    def find(self, name: str, args: bytes, identity: dict[str, Any] | None) -> CallResult | None:
        """The answer to a query of the present without a journal, None where none is kept. Who takes it counts it."""
        entry = self._entries.get((name, args, None))
        if entry is None:
            return None
        if entry.result is None:
            entry.is_used = True
            entry = self._entries.get((name, args, None, _dumped(identity)))
            if entry is None:
                return None
        entry.is_used = True
        return entry.result

    def take(self, spec: FunctionSpec, request: CallRequest, done: Done) -> Done | None:
        """None where `done` is told the answer, now or later; otherwise who is to be told of a run's outcome."""
        args = request.args or b"{}"
        key: Key = (spec.name, args, request.journal)
        entry = self._entries.get(key)
        if entry is not None and entry.result is None:
            entry.is_used = True
            entry = self._entries.get((*key, _dumped(request.identity)))
        if entry is not None and self._is_for(entry.from_ts, request):
            entry.is_used = True
            assert entry.result is not None, "it is an answer"
            self.count(spec.name, request)
            done(self._told(entry.result, entry.reads, request))
            return None
        self._memory.misses += 1
        at = request.at
        if (at is not None and at.ts is not None) or len(args) > QUERY_CACHE_ARGS_BYTES_MAX:
            return done
        mark = hash(key)
        is_seen = mark in self._seen or mark in self._seen_before
        if not spec.slowness:  # it runs at once, and nobody can ask meanwhile
            if request.is_repeated:
                return done
            if not is_seen:
                self._note(mark)
                return done
            request.wants_reads = request.wants_kept = True
            return partial(self._landed, self._flights, key, spec, request, done)
        return self._fly(key, mark, is_seen, spec, request, done)

    def count(self, name: str, request: CallRequest | None) -> None:
        """Counts a hit as the call that it is. Shape: `request` where calls leave lines in a log."""
        self._memory.hits += 1
        self._count(name, request)

    def _count(self, name: str, request: CallRequest | None) -> None:
        meter = self._meter
        meter.calls += 1
        if meter.log is not None and request is not None:
            usage = CallUsage()
            usage.is_kept = True
            meter.log.add(meter.name, "query", request, name, True, None, usage)

    @property
    def is_logging(self) -> bool:
        """Whether each call leaves a line, for which its request is needed."""
        return self._meter.log is not None

    def clear(self) -> None:
        """Drops all answers: other code, another catalog or other quotas are in force, or the deployment closes."""
        self._flights = {}  # what is under way is nobody else's any more
        self._entries.clear()
        self._reads = ReadIndex()
        self._memory.n_bytes -= self.n_bytes
        self.n_bytes = 0
        self._memory.caches.discard(self)

    # -- misses ------------------------------------------------------------------------------------------------------

    def _note(self, mark: int) -> None:
        """Takes note of what was asked for; for as long as it is not asked for again, that is all."""
        self._seen.add(mark)
        if len(self._seen) >= QUERY_CACHE_SEEN_MAX:
            self._seen_before, self._seen = self._seen, set()

    def _fly(
        self, key: Key, mark: int, is_seen: bool, spec: FunctionSpec, request: CallRequest, done: Done
    ) -> Done | None:
        """As `take`, for what may be under way already, beside the loop thread."""
        flight = key if request.identity is None else (*key[:3], _dumped(request.identity))
        leader = self._flights.get(flight)
        if leader is not None:
            leader.wants_reads = leader.wants_kept = True
            self._waiting.setdefault(leader, []).append((self._database.durable_ts, request, done))
            self.n_waiting += 1
            return None
        self._flights[flight] = request
        if not is_seen:
            self._note(mark)
        elif not request.is_repeated:
            request.wants_reads = request.wants_kept = True
        return partial(self._landed, self._flights, flight, spec, request, done)

    def _landed(
        self,
        flights: dict[Key, CallRequest],
        flight: Key,
        spec: FunctionSpec,
        request: CallRequest,
        done: Done,
        outcome: Outcome,
    ) -> None:
        """A run has ended: its answer is kept where it may be, and told to those who wait for it."""
        if flights.get(flight) is request:
            del flights[flight]
        kept: CallResult | None = None
        if request.wants_kept and flights is self._flights:
            kept = _keepable(outcome)
            if kept is not None:
                self._keep((spec.name, _compact(request.args or b"{}"), request.journal), request, kept)
        try:
            done(outcome)
        finally:
            waiting = self._waiting.pop(request, None) if self._waiting else None
            if waiting is not None:
                self._tell(waiting, spec, kept)

    def _tell(self, waiting: Waiting, spec: FunctionSpec, kept: CallResult | None) -> None:
        """Those who waited for a run are told its answer where it was true when they asked; the others run."""
        self.n_waiting -= len(waiting)
        for asked_ts, request, done in waiting:
            if kept is None or not self._is_true_at(kept, asked_ts) or not self._is_for(asked_ts, request):
                self._run(request, done)
                continue
            assert kept.reads is not None
            self._memory.joined += 1
            self._count(spec.name, request)
            told = self._told(kept, kept.reads, request)
            if told is not kept:
                told.ts = max(asked_ts, kept.ts or 0)
            done(told)

    def _is_for(self, from_ts: int, request: CallRequest) -> bool:
        """Whether an answer that is true since then is the one at the time that a request is to read."""
        at = request.at
        if at is None:
            return True
        if at.ts is None:
            at.ts = self._database.durable_ts
            return True
        return from_ts <= at.ts <= self._database.durable_ts

    def _told(self, result: CallResult, reads: ReadSet, request: CallRequest) -> CallResult:
        if not request.wants_reads:
            return result
        told = CallResult(True, result.value, result.log_lines, self._database.durable_ts)
        told.reads, told.journal = reads, result.journal
        return told

    def _is_true_at(self, result: CallResult, ts: int) -> bool:
        assert result.ts is not None and result.reads is not None, "they were asked for"
        return not self._database.has_touched(result.reads, result.ts, ts)

    # -- keeping -----------------------------------------------------------------------------------------------------

    def _keep(self, key: Key, request: CallRequest, result: CallResult) -> None:
        reads = result.reads
        assert reads is not None and result.ts is not None, "they were asked for"
        if len(reads.documents) + len(reads.ranges) > QUERY_CACHE_READS_MAX:
            return
        durable_ts = self._database.durable_ts
        if result.ts > durable_ts or self._database.has_touched(reads, result.ts, durable_ts):
            return
        answer = CallResult(True, result.value, result.log_lines, result.ts)
        answer.reads, answer.journal = reads, result.journal
        answer.bodies = {}
        own: Key = (*key[:3], _compact(_dumped(request.identity))) if result.has_read_identity else key
        entry = Entry(own, answer, reads, result.ts)
        if entry.size > QUERY_CACHE_EACH_BYTES_MAX // 8:
            return
        if result.has_read_identity:
            self._put(Entry(key, None, _NOTHING, 0))
        self._put(entry)
        self._reads.put(entry, reads)
        self._memory.caches.add(self)
        while self.n_bytes > QUERY_CACHE_EACH_BYTES_MAX:
            self._evict()
        while self._memory.n_bytes > QUERY_CACHE_BYTES_MAX:
            max(self._memory.caches, key=_size).evict()

    def _put(self, entry: Entry) -> None:
        before = self._entries.pop(entry.key, None)
        if before is not None:
            self._forget(before)
        self._entries[entry.key] = entry
        self.n_bytes += entry.size
        self._memory.n_bytes += entry.size

    def _forget(self, entry: Entry) -> None:
        self._reads.drop(entry)
        self.n_bytes -= entry.size
        self._memory.n_bytes -= entry.size

    def evict(self) -> None:
        """Drops the answer that was kept first, of those that were not of use since others were dropped."""
        self._evict()

    def _evict(self) -> None:
        entries = self._entries
        while True:
            key = next(iter(entries))
            entry = entries.pop(key)
            if not entry.is_used:
                self._forget(entry)
                return
            entry.is_used = False
            entries[key] = entry

    def _committed(self, record: CommitRecord) -> None:
        """A commit has become durable: what it touches is no answer any more."""
        if record.is_switch:
            self.clear()
            return
        if not self._entries:
            return
        try:
            touched = self._reads.touched(record)
        except Exception:  # nobody may believe what cannot be told apart from what is still true
            _log.exception("what a commit touches could not be found out")
            self.clear()
            return
        for entry in touched:
            if self._entries.get(entry.key) is entry:
                del self._entries[entry.key]
            self._forget(entry)


def _keepable(outcome: Outcome) -> CallResult | None:
    """An outcome that an equal call would have too, as long as what it read stays as it is."""
    if not isinstance(outcome, CallResult) or not outcome.ok or outcome.reads is None or not outcome.is_repeatable:
        return None
    return outcome


def _compact(raw: bytes) -> bytes:
    """The same bytes without the room that their writer had made: kilobytes, which are nothing until they are kept."""
    return raw[:1] + raw[1:]


def _dumped(identity: dict[str, Any] | None) -> bytes:
    return b"" if identity is None else orjson.dumps(identity, option=orjson.OPT_SORT_KEYS)


def _size(cache: QueryCache) -> int:
    return cache.n_bytes


_NOTHING: Final = ReadSet(set(), [])
