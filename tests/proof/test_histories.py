"""Histories of concurrent clients of a real server, searched for cycles; with and without a worker that is killed; and
sums and rings that stay what they are at every moment, now and in the past.

One server serves the whole file; the last test looks at what it leaves.
"""

import http.client
import itertools
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.effort import TIMES, chance
from tests.http.serving import RunningServer, serve
from tests.proof.afterwards import afterwards
from tests.proof.apps import indexed_bundle, proof_bundle
from tests.proof.clients import LONG_ROUNDS, Client, Historian, together
from tests.proof.elle import anomalies

CLIENTS = 6
EACH = 40 * TIMES
KILLS = 2
FILLERS = 2_000
FILLERS_AT_ONCE = 1_000
IMPORTED = 200
COUNT = 8  # accounts, and links of the ring
TOTAL = COUNT * 100


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("histories") / "data"


@pytest.fixture(scope="module")
def server(data: Path, base: Path) -> Iterator[RunningServer]:
    with serve(data, "--workers", "1") as running:
        assert running.deploy(proof_bundle(base)).status == 200
        assert running.call("mutation", "proof:found", {"count": COUNT})["status"] == "success"
        yield running


@pytest.fixture
def historian(server: RunningServer) -> Historian:
    """One whose lists are empty."""
    historian = Historian()
    with Client(server) as client:
        assert client.call("mutation", "proof:forget", {}).status == "ok"
    return historian


def test_histories_of_concurrent_clients_are_strictly_serialisable(server: RunningServer, historian: Historian) -> None:
    together(server, [historian.client(chance(f"client {n}"), EACH) for n in range(CLIENTS)])()
    historian.last(server)
    assert anomalies(historian.history) == []
    assert historian.count("ok") > CLIENTS * EACH * 0.8
    assert historian.count("failed") > 0
    assert historian.count("unknown") == 0


def test_sums_and_rings_hold_in_every_query_between(server: RunningServer) -> None:
    seen: dict[str, int] = {}
    moments: list[tuple[Any, str, Any]] = []

    def client(number: int) -> Callable[[Client], None]:
        random = chance(f"bank and ring {number}")

        def run(client: Client) -> None:
            for _ in range(EACH):
                one, other = random.sample(range(COUNT), 2)
                rounds = {"rounds": LONG_ROUNDS}
                long = random.choice(("", "", "Long"))
                kind, name, args = random.choice(
                    [
                        ("mutation", f"transfer{long}", {"from": one, "to": other, "amount": random.randint(1, 99)}),
                        ("mutation", "reopen", {"number": one}),
                        ("query", f"total{long}", {}),
                        ("mutation", f"move{long}", {"name": one, "behind": other}),
                        ("query", f"walk{long}", {}),
                        ("mutation", "walkNow", {}),
                    ]
                )
                outcome = client.call(kind, f"proof:{name}", {**args, **(rounds if long else {"rounds": 1})})
                check(name, outcome.status, outcome.value)
                seen[f"{name} {outcome.value if 'transfer' in name else ''}"] = number
                if random.random() < 0.2:
                    past = random.choice(("total", "walk"))
                    outcome, ts = client.call_at(f"proof:{past}", {"rounds": 1})
                    check(past, outcome.status, outcome.value)
                    moments.append((ts, past, outcome.value))
                    ts, past, value = random.choice(moments)
                    outcome, _ = client.call_at(f"proof:{past}", {"rounds": 1}, ts)
                    assert outcome.value == value, "the past changed"

        return run

    together(server, [client(number) for number in range(CLIENTS)])()
    assert {"transfer True", "transfer False", "transferLong True", "moveLong ", "totalLong ", "walkNow "} <= set(seen)
    check("total", "ok", server.call("query", "proof:total", {"rounds": 1})["value"])
    check("walk", "ok", server.call("query", "proof:walk", {"rounds": 1})["value"])


def check(name: str, status: str, value: Any) -> None:
    """Checks what a function answered; only a transfer may fail, of what is not there."""
    assert status == "ok" or (status == "failed" and name.startswith("transfer")), (name, status)
    if name.startswith("total"):
        assert value == [TOTAL, TOTAL], "the sum changed"
    if name.startswith("walk"):
        assert sorted(value) == list(range(COUNT)), f"the ring is broken: {value}"


class Importer:
    """Replaces a table again and again: it holds one import's documents, all of them, and none older than was told.

    Shape: imports are numbered; `tried` the last one, `acknowledged` the last one that was told to be done.
    """

    def __init__(self, server: RunningServer) -> None:
        self._server = server
        self.tried = 0
        self.acknowledged = 0

    def one(self) -> None:
        self.tried += 1
        lines = [json.dumps({"generation": self.tried, "place": n}) for n in range(IMPORTED)]
        path = "/api/import?tableName=imported&mode=replace&format=jsonLines"
        answer = self._server.ask("POST", path, "\n".join(lines).encode(), self._server.admin_header())
        if answer.status == 200:
            assert answer.json() == {"numWritten": IMPORTED}
            self.acknowledged = self.tried
        self.look()

    def look(self) -> None:
        with Client(self._server) as client:
            outcome = client.call("query", "proof:imported", {})
        if outcome.status == "unknown":
            raise ConnectionError
        generations, *counts = outcome.value
        assert counts == [IMPORTED, IMPORTED]
        assert len(generations) == 1 and self.acknowledged <= generations[0] <= self.tried


def until(over: threading.Event, do: Callable[[], None]) -> Callable[[Client], None]:
    """A job that does something again and again, whether or not the server is there."""

    def run(_: Client) -> None:
        while not over.is_set():
            with suppress(OSError, http.client.HTTPException):
                do()

    return run


def test_histories_stay_so_when_the_worker_is_killed_while_indexes_and_imports_come(
    server: RunningServer, historian: Historian, base: Path
) -> None:
    importer = Importer(server)
    importer.one()
    with Client(server) as client:
        for _ in range(FILLERS // FILLERS_AT_ONCE):
            assert client.call("mutation", "proof:fill", {"count": FILLERS_AT_ONCE}).status == "ok"
    clients = [historian.client(chance(f"client {n} of the killed"), EACH) for n in range(CLIENTS)]
    bundles = itertools.cycle((indexed_bundle(base), proof_bundle(base)))
    all_done = threading.Event()
    beside = [lambda: server.deploy(next(bundles)), importer.one]
    wait = together(server, clients)
    wait_for_others = together(server, [until(all_done, do) for do in beside])
    pid = server.process.pid
    try:
        for kill in range(KILLS):
            historian.wait_for((kill + 1) * CLIENTS * EACH // (KILLS + 1))
            for worker in map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()):
                os.kill(worker, signal.SIGKILL)
        wait()
    finally:
        all_done.set()
        wait_for_others()
    historian.last(server)
    assert anomalies(historian.history) == []
    assert historian.count("unknown") > 0, "the kills met nothing that was under way"
    assert historian.count("ok") > CLIENTS * EACH * 0.5
    assert server.deploy(next(bundles)).status == 200
    importer.one()
    assert importer.acknowledged == importer.tried, "what the kills have left stands in the way of an import"


def test_afterwards_all_trees_agree_and_the_sums_and_rings_of_the_past_hold(server: RunningServer, data: Path) -> None:
    server.stop()
    with afterwards(data) as left:
        assert left.differences() == []
        assert left.overtaken() > 0, "no call ran beside another one"
        states = 0
        for accounts in left.at_each_commit("accounts", lambda name: "transfer" in name or "reopen" in name):
            assert sum(account["balance"] for account in accounts) == TOTAL
            assert sorted(account["number"] for account in accounts) == list(range(COUNT))
            states += 1
        for links in left.at_each_commit("links", lambda name: "move" in name):
            following = {link["name"]: link["next"] for link in links}
            names = [0]
            while (name := following[names[-1]]) and len(names) <= COUNT:
                names.append(name)
            assert sorted(names) == list(range(COUNT))
            states += 1
        assert states > CLIENTS
