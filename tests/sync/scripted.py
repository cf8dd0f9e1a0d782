"""A deployment whose runs begin and end when the test says so, and clients that check what they are shown.

A document's value is the timestamp of the commit that wrote it last; a query reads the documents that its path names,
and its result is their values. So what a query is at any timestamp is known without running it.
"""

import json
from base64 import b64decode
from collections.abc import Callable
from typing import Any, cast
from uuid import UUID

from skerry.database import CommitRecord, ReadSet
from skerry.errors import SystemFault
from skerry.functions.request import CallRequest, CallResult
from skerry.sync.live_query import LiveQuery
from skerry.sync.messages import Add, Connect, ModifyQuerySet, Remove
from skerry.sync.reactor import Reactor
from skerry.sync.session import Session, Subscribe, Unsubscribe

Done = Callable[[Any], None]


class Commit:
    is_switch = False

    def __init__(self, ts: int, keys: set[str]) -> None:
        self.commit_ts = ts
        self.keys = keys

    def documents(self) -> list[bytes]:
        return [key.encode() for key in self.keys]

    def keys_in(self, numbers: set[int]) -> list[tuple[int, bytes]]:
        return []


class Run:
    def __init__(self, request: CallRequest, done: Done) -> None:
        self.request = request
        self.done = done
        self.seen_ts: int | None = None


class World:
    """Shape: `stored_ts` is the newest commit that a run beside the lane sees, `durable_ts` the newest one that the
    loop thread has heard of."""

    def __init__(self) -> None:
        self.commits: list[Commit] = []
        self.stored_ts = self.durable_ts = 1
        self.runs: list[Run] = []
        self.asked: list[Callable[[], None]] = []
        self.past_runs = 0
        self.reactor = Reactor(self._begin, self.asked.append, lambda: self.durable_ts, _request, False)

    def _begin(self, request: CallRequest, done: Done) -> None:
        self.past_runs += request.at is not None
        self.runs.append(Run(request, done))

    def turn(self) -> None:
        """Runs what waits for the deployment's turn."""
        asked, self.asked[:] = list(self.asked), []
        for run in asked:
            run()

    def commit(self, keys: set[str]) -> None:
        self.stored_ts += 3
        self.commits.append(Commit(self.stored_ts, keys))

    def hear(self) -> None:
        """The loop thread hears of all commits since it heard last."""
        heard = [commit for commit in self.commits if commit.commit_ts > self.durable_ts]
        self.durable_ts = self.stored_ts
        for commit in heard:
            self.reactor.committed(cast("CommitRecord", cast("Any", commit)))

    def look(self, run: Run) -> None:
        """The run takes its snapshot, if it has none."""
        if run.seen_ts is None:
            at = run.request.at
            run.seen_ts = self.stored_ts if at is None else at.ts

    def end(self, run: Run, fault: SystemFault | None = None) -> None:
        self.look(run)
        self.runs.remove(run)
        if fault is not None:
            run.done(fault)
            return
        assert run.seen_ts is not None
        result = CallResult(True, self.value(run.request.path, run.seen_ts), [], run.seen_ts)
        result.reads = ReadSet({key.encode() for key in run.request.path}, [])
        run.done(result)

    def value(self, path: str, ts: int) -> bytes:
        """What a query is at a timestamp."""
        found = [
            max(
                (commit.commit_ts for commit in self.commits if key in commit.keys and commit.commit_ts <= ts),
                default=0,
            )
            for key in path
        ]
        return json.dumps(found).encode()


class Client:
    """A connection as far as the reactor knows it, and whoever is at its other end."""

    def __init__(self, world: World, seen_ts: int = 0) -> None:
        self.world = world
        self.session = Session()
        self.session.take(Connect(UUID(int=1).bytes, seen_ts))
        self.ts = seen_ts
        self.faults = 0
        self._version: dict[str, Any] = {"querySet": 0, "identity": 0, "ts": "AAAAAAAAAAA="}
        self._paths: dict[int, str] = {}
        self._shown: dict[int, Any] = {}
        self._lives: dict[int, LiveQuery] = {}
        self._stale: set[LiveQuery] = set()
        self._changed: set[int] = set()
        self._sets = 0

    def change(self, add: list[str], remove: list[int]) -> None:
        """Watches more queries, and some no more."""
        first = 100 * self._sets
        gone = [list(self._paths)[number] for number in remove if number < len(self._paths)]
        steps = [*map(Remove, dict.fromkeys(gone)), *(Add(first + n, path, b"{}", None) for n, path in enumerate(add))]
        self._sets += 1
        for step in self.session.take(ModifyQuerySet(self._sets - 1, self._sets, tuple(steps))):
            if isinstance(step, Subscribe):
                query = step.query
                live = self.world.reactor.watch((query.path,), None, self)
                self._lives[query.query_id], self._paths[query.query_id] = live, query.path
                if live.is_valid:
                    self._changed.add(query.query_id)
                else:
                    self._stale.add(live)
            elif isinstance(step, Unsubscribe):
                live = self._lives.pop(step.query_id)
                del self._paths[step.query_id]
                self._changed.discard(step.query_id)
                if live not in self._lives.values():
                    self._stale.discard(live)
                    self.world.reactor.forget(live, self)

    def leave(self) -> None:
        for live in set(self._lives.values()):
            self.world.reactor.forget(live, self)
        self._lives.clear()

    def stale(self, live: LiveQuery) -> None:
        self._stale.add(live)

    def settled(self, live: LiveQuery) -> None:
        self._stale.discard(live)
        if live.fault is not None:
            self.faults += 1
            self.leave()
        self._changed |= {query_id for query_id, watched in self._lives.items() if watched is live}

    def moved(self, live: LiveQuery, other: LiveQuery) -> None:
        for query_id, watched in self._lives.items():
            if watched is live:
                self._lives[query_id] = other
                self._changed.add(query_id)
        self._stale.discard(live)
        if not other.is_valid:
            self._stale.add(other)

    def reach(self, ts: int) -> None:
        if not self._stale or ts < self.session.floor_ts:
            return
        results = self.world.reactor.results_at(ts, self._lives.items())
        if results is not None:
            self._take(self.session.transition(ts, results))

    def update(self) -> None:
        """The end of a turn of the loop."""
        if self._stale or not self._lives or self.world.durable_ts < self.session.floor_ts:
            return
        changed, self._changed = sorted(self._changed), set()
        results = [(query_id, self._lives[query_id].result or b"") for query_id in changed]
        self._take(self.session.transition(self.world.durable_ts, results))

    def _take(self, frame: bytes | None) -> None:
        """What the client does with a transition: it is shown, and compared with what is true at its timestamp."""
        if frame is None:
            return
        said = json.loads(frame)
        assert said["startVersion"] == self._version
        self._version = said["endVersion"]
        ts = int.from_bytes(b64decode(self._version["ts"]), "little")
        assert ts >= self.ts, "time does not go back"
        assert ts <= self.world.durable_ts and self._version["querySet"] == self._sets
        self.ts = ts
        for change in said["modifications"]:
            if change["type"] == "QueryRemoved":
                self._shown.pop(change["queryId"], None)
            else:
                self._shown[change["queryId"]] = change["value"]
        truth = {query_id: json.loads(self.world.value(path, ts)) for query_id, path in self._paths.items()}
        assert self._shown == truth


def _request(live: LiveQuery) -> CallRequest:
    return CallRequest(kind="query", path=live.key[0], args=b"{}", request_id="0" * 16)
