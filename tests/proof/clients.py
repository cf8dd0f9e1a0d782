"""Concurrent HTTP clients of a real server, each a thread with a connection of its own, that keep what they saw."""

import http.client
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random
from typing import Any
from urllib.parse import urlsplit

from tests.http.serving import RunningServer
from tests.proof.elle import Operation, Transaction

ANSWER_SECONDS_MAX = 90
LONG_ROUNDS = 150_000  # some ten milliseconds of a function's time: past the slice of a call in the lane
LISTS = ("d0", "d1", "r0", "r1", "r2")


@dataclass(frozen=True)
class Outcome:
    """What a client learnt of a call. Shape: `status` as in a history; `value` of what succeeded."""

    status: str
    value: Any
    begin: int
    end: int | None


class Client:
    """One connection. Where it breaks, nobody knows what became of the call that was under way."""

    def __init__(self, server: RunningServer) -> None:
        self._parts = urlsplit(server.url)
        self._connection: http.client.HTTPConnection | None = None

    def call(self, kind: str, path: str, args: Any, **fields: Any) -> Outcome:
        return self.ask(f"/api/{kind}", {"path": path, "args": args, **fields})

    def call_at(self, path: str, args: Any, ts: Any = None) -> tuple[Outcome, Any]:
        """A query at a timestamp, the newest one where none is given; and the timestamp."""
        began: Outcome | None = None
        if ts is None:
            began = self.ask("/api/query_ts", {}, lambda said: said["ts"])
            if began.status != "ok":
                return began, None
            ts = began.value
        seen = self.call("query_at_ts", path, args, ts=ts)
        return (seen if began is None else replace(seen, begin=began.begin)), ts

    def ask(self, route: str, fields: Any, value_of: Callable[[Any], Any] | None = None) -> Outcome:
        """A request, and what it comes to; `value_of` an answer that tells of no function."""
        body = json.dumps(fields)
        begin = time.monotonic_ns()
        try:
            if self._connection is None:
                self._connection = http.client.HTTPConnection(
                    self._parts.hostname or "", self._parts.port, timeout=ANSWER_SECONDS_MAX
                )
            self._connection.request("POST", route, body)
            answer = self._connection.getresponse()
            raw = answer.read()
        except (OSError, http.client.HTTPException):
            self.close()
            return Outcome("unknown", None, begin, None)
        end = time.monotonic_ns()
        if answer.status != 200:
            return Outcome("unknown", None, begin, None)
        said = json.loads(raw)
        if value_of is not None:
            return Outcome("ok", value_of(said), begin, end)
        return Outcome("ok" if said["status"] == "success" else "failed", said.get("value"), begin, end)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def together(server: RunningServer, jobs: list[Callable[[Client], None]]) -> Callable[[], None]:
    """Starts each job on a thread with a client of its own; what comes back waits for all, and raises as they did."""
    raised: list[BaseException] = []

    def run(job: Callable[[Client], None]) -> None:
        try:
            with Client(server) as client:
                job(client)
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=run, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()

    def wait() -> None:
        for thread in threads:
            thread.join(ANSWER_SECONDS_MAX)
            assert not thread.is_alive(), "a client got no answer"
        if raised:
            raise raised[0]

    return wait


class Historian:
    """What clients do to lists and saw of them. Shape: `history` as the checker takes it.

    A part of the mutations is long and so runs beside the lane; a part has a sub-transaction, of which some fail.
    """

    def __init__(self) -> None:
        self.history: list[Transaction] = []
        self.changed = threading.Condition()
        self._next = iter(range(1 << 30))

    def client(self, random: Random, count: int) -> Callable[[Client], None]:
        def run(client: Client) -> None:
            for _ in range(count):
                self.one(client, random)

        return run

    def one(self, client: Client, random: Random) -> None:
        """One transaction of a client."""
        kind = random.choices(("query", "run", "runLong"), (3, 5, 2))[0]
        steps = [self._step(random, kind) for _ in range(random.randint(1, 4))]
        if kind == "query" and random.random() < 0.3:
            outcome, _ = client.call_at("proof:look", {"steps": steps})
        elif kind == "query":
            outcome = client.call("query", "proof:look", {"steps": steps})
        elif kind == "run" and random.random() < 0.1:
            outcome = client.call("mutation", "proof:run", {"steps": [*steps, ["fail"]]})
        else:
            outcome = client.call("mutation", f"proof:{kind}", {"steps": steps, "rounds": LONG_ROUNDS})
        self.note(steps, outcome)

    def last(self, server: RunningServer) -> None:
        """A read of every list, which ends a history."""
        steps = [["read", key] for key in LISTS]
        with Client(server) as client:
            outcome = client.call("query", "proof:look", {"steps": steps})
        assert outcome.status == "ok", outcome
        self.note(steps, outcome)

    def note(self, steps: list[Any], outcome: Outcome) -> None:
        operations: list[Operation] = []
        undone: list[Operation] = []
        _gather(steps, outcome.value, operations, undone)
        with self.changed:
            status: Any = outcome.status
            self.history.append(Transaction(operations, status, outcome.begin, outcome.end))
            if undone:
                self.history.append(Transaction(undone, "failed", outcome.begin, outcome.end))
            self.changed.notify_all()

    def count(self, status: str) -> int:
        """How many transactions ended so."""
        return sum(transaction.status == status for transaction in self.history)

    def wait_for(self, count: int) -> None:
        """Waits until so many transactions are noted."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.history) >= count, ANSWER_SECONDS_MAX)

    def _step(self, random: Random, kind: str) -> list[Any]:
        choice = random.random()
        if kind != "query" and choice < 0.2:
            inner = [self._step(random, kind) for _ in range(random.randint(1, 2))]
            return ["nested", inner, random.random() < 0.5]
        key = random.choice(LISTS)
        if kind == "query" or choice < 0.5:
            return ["read", key]
        return ["append", key, next(self._next)]


def _gather(steps: list[Any], answers: Any, done: list[Operation], undone: list[Operation]) -> None:
    """The operations of steps, in their order; those of sub-transactions that failed apart."""
    for step, answer in zip(steps, answers or [None] * len(steps), strict=True):
        name, *operands = step
        if name == "nested":
            inner, fails = operands
            _gather(inner, None if fails else answer, undone if fails else done, undone)
        elif name == "append":
            done.append(("append", operands[0], operands[1]))
        elif answer is not None:
            done.append(("read", operands[0], answer))
