"""The invariant of live queries: whatever happens, a client is shown what its queries are at one timestamp.

Histories of writes, lost connections, changed tokens, held commits and lines that deliver late are drawn from a seed;
a failure prints it, and `HISTORY_SEED=n pytest tests/sync/test_invariant.py` runs it alone; `HISTORIES=n` runs more.

What a token shows is a row of `step`: until functions can ask who calls, a changed token makes the queries others (each
caller has live queries of its own) with the same results.
"""

import json
import os
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sync.lines import Client, Ground, chance_of

SEEDS = (
    [int(os.environ["HISTORY_SEED"])]
    if "HISTORY_SEED" in os.environ
    else list(range(int(os.environ.get("HISTORIES", "25"))))
)
STEPS = 250
CLIENTS = 4
CHANNELS = 3
BYTES_MAX = 4000
TURNS_MAX = 5000
WEIGHTS = {
    "up": 30,
    "down": 30,
    "turn": 25,
    "mutate": 14,
    "cut": 12,
    "connect": 14,
    "watch": 6,
    "unwatch": 2,
    "hold": 3,
    "release": 6,
    "write": 4,
    "token": 3,
    "block": 2,
    "unblock": 5,
    "deploy": 1,
    "time": 4,
}


@pytest.fixture
def ground(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Ground]:
    made = Ground(tmp_path / "data", tmp_path_factory.getbasetemp(), monkeypatch)
    yield made
    made.close()


@pytest.mark.parametrize("seed", SEEDS)
def test_what_clients_are_shown_is_true_and_mutations_take_effect_once_in_order(ground: Ground, seed: int) -> None:
    chance = chance_of(seed)
    clients = [Client(ground, number) for number in range(CLIENTS)]
    drawn: Counter[str] = Counter()
    for client in clients:
        client.connect()
        client.watch(*a_query(chance))
    for _ in range(STEPS):
        name = chance.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        drawn[name] += 1
        step(ground, chance, chance.choice(clients), name)
    come_to_rest(ground, clients)
    check_what_is_shown_now(ground, clients)
    check_what_was_shown(ground, clients)
    check_mutations(ground, clients)
    for client in clients:
        client.cut()
    ground.turn(5)
    assert drawn["cut"] > 5 and sum(client.connections for client in clients) > CLIENTS


def step(ground: Ground, chance: random.Random, client: Client, name: str) -> None:
    line = client.line
    if name == "up" and line is not None:
        line.deliver_up(chance.choice((1, 50, BYTES_MAX, BYTES_MAX)))
    elif name == "down":
        client.hear(chance.choice((1, 50, BYTES_MAX, BYTES_MAX)))
    elif name == "turn":
        ground.turn(chance.randint(1, 6))
    elif name == "mutate":
        mutate(chance, client)
    elif name == "cut":
        client.cut()
    elif name == "connect":
        client.connect()
    elif name == "watch":
        client.watch(*a_query(chance))
    elif name == "unwatch" and client.queries:
        client.unwatch(chance.choice(list(client.queries)))
    elif name in ("hold", "release"):
        getattr(ground.engines[0], name)()
    elif name == "write":
        start_writing(ground, chance)
    elif name == "token":
        client.be(chance.random() < 0.5)
    elif name in ("block", "unblock") and line is not None:
        line.block(name == "block")
    elif name == "deploy":
        for told in ground.deployment.on_activated:
            told()
    elif name == "time":
        ground.world.now_ns += chance.randint(0, 10_000_000)


def a_query(chance: random.Random) -> tuple[str, str]:
    n = chance.randrange(CHANNELS)
    return chance.choice(
        [
            ("f:list", json.dumps({"n": n})),
            ("f:first", json.dumps({"n": n})),
            ("f:page", json.dumps({"n": n, "size": chance.randint(1, 4), "cursor": None})),
            ("f:add", json.dumps({"x": n, "y": 1})),
            ("f:fail", "{}"),
        ]
    )


def mutate(chance: random.Random, client: Client) -> None:
    n = chance.randrange(CHANNELS)
    kind = chance.random()
    if kind < 0.1:
        client.mutate("f:insertAndFail", {"n": n})
    elif kind < 0.2:
        client.mutate("f:add", {"x": 1, "y": 2})  # no mutation: it fails
    else:
        client.mutate("f:insert", {"n": n, "body": f"{client.number}-{client.next_request}"})


def start_writing(ground: Ground, chance: random.Random) -> None:
    """Somebody else writes, over HTTP."""
    ground.world.start("mutation", "f:insert", {"n": chance.randrange(CHANNELS), "body": "other"})


def come_to_rest(ground: Ground, clients: list[Client]) -> None:
    """Everything is delivered, and everybody comes back."""
    ground.engines[0].release()

    def is_at_rest() -> bool:
        deliver_all(clients)
        return all(client.is_done_at(ground.deployment.database.durable_ts) for client in clients)

    ground.world.until(is_at_rest)


def deliver_all(clients: list[Client]) -> None:
    for client in clients:
        client.connect()
        if client.line is not None:
            client.line.block(False)
            client.line.deliver_up(BYTES_MAX)
        client.hear(BYTES_MAX)


def check_what_is_shown_now(ground: Ground, clients: list[Client]) -> None:
    """Everybody comes to what is true now, though nothing more happens."""
    newest = ground.deployment.database.durable_ts
    for _ in range(TURNS_MAX):
        deliver_all(clients)
        states = [client.seen[-1][1] if client.seen else [] for client in clients]
        found = [[value for _, _, value in state] for state in states]
        truth = [[ground.shown_at(*query, journal, newest) for query, journal, _ in state] for state in states]
        if found == truth:
            return
        ground.world.turn(1)
    assert found == truth


def check_what_was_shown(ground: Ground, clients: list[Client]) -> None:
    known: dict[str, object] = {}
    checked = 0
    for client in clients:
        for ts, shown in client.seen:
            for (path, args), journal, value in shown:
                name = repr((path, args, journal, ts))
                if name not in known:
                    known[name] = ground.shown_at(path, args, journal, ts)
                assert value == known[name], (client.number, name)
                checked += 1
    assert checked, "something was shown"


def check_mutations(ground: Ground, clients: list[Client]) -> None:
    newest = ground.deployment.database.durable_ts
    bodies = Counter(
        note["body"]
        for n in range(CHANNELS)
        for note in ground.shown_at("f:list", json.dumps({"n": n}), None, newest)
        if note["body"] != "other"
    )
    meant = Counter(
        f"{client.number}-{request_id}"
        for client in clients
        for request_id in range(client.next_request)
        if request_id not in client.failed
    )
    assert bodies == meant, "each took effect once"
    for client in clients:
        order = [client.committed[request_id] for request_id in sorted(client.committed)]
        assert order == sorted(set(order)), "in the order in which the client asked"
