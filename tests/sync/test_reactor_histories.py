"""Whatever happens in whatever order: what clients are shown is true, time does not go back, and everybody gets on."""

from hypothesis import given, settings
from hypothesis import strategies as st

from skerry import limits
from skerry.errors import SystemFault
from tests.sync.scripted import Client, World

KEYS = "abcd"
PATHS = st.text(KEYS, min_size=1, max_size=3)
KEY_SETS = st.sets(st.sampled_from(KEYS), min_size=1)
NUMBERS = st.integers(0, 7)
STEPS = st.one_of(
    st.tuples(st.just("commit"), KEY_SETS),
    st.tuples(st.just("hear"), st.none()),
    st.tuples(st.just("turn"), st.none()),
    st.tuples(st.just("look"), NUMBERS),
    st.tuples(st.just("end"), NUMBERS),
    st.tuples(st.just("gone"), NUMBERS),
    st.tuples(st.just("deploy"), st.none()),
    st.tuples(st.just("change"), st.tuples(NUMBERS, st.lists(PATHS, max_size=3), st.lists(NUMBERS, max_size=2))),
    st.tuples(st.just("connect"), NUMBERS),
)
TURNS_MAX = 60


def do(world: World, clients: list[Client], step: tuple) -> None:  # type: ignore[type-arg]
    name, given_with = step
    if name == "commit":
        world.commit(given_with)
    elif name == "hear":
        world.hear()
    elif name == "turn":
        world.turn()
    elif name == "deploy":
        world.reactor.all_stale()
    elif name in ("look", "end", "gone") and given_with < len(world.runs):
        run = world.runs[given_with]
        if name == "look":
            world.look(run)
        elif name == "end" or run.request.at is None:
            world.end(run)
        else:
            world.end(run, SystemFault("OutOfRetention", "It is too old."))
    elif name == "change":
        number, add, remove = given_with
        clients[number % len(clients)].change(add, remove)
    elif name == "connect":
        client = clients[given_with % len(clients)]
        client.leave()
        clients[clients.index(client)] = Client(world, client.ts)
    for client in clients:
        client.update()


@settings(max_examples=400, deadline=None)
@given(st.lists(STEPS, max_size=80), st.lists(st.lists(PATHS, min_size=1, max_size=3), min_size=1, max_size=3))
def test_what_is_shown_is_true_and_everybody_gets_on_under_endless_commits(
    steps: list[tuple],  # type: ignore[type-arg]
    query_sets: list[list[str]],
) -> None:
    world = World()
    clients = [Client(world) for _ in query_sets]
    for client, paths in zip(clients, query_sets, strict=True):
        client.change(paths, [])
    for step in steps:
        do(world, clients, step)
    for client, paths in zip(clients, query_sets, strict=True):
        client.change(paths, [])  # so that each has queries
    world.hear()
    waiting = {client: client.ts for client in clients}
    for _ in range(TURNS_MAX):
        world.turn()
        runs = list(world.runs)
        for run in runs:
            world.look(run)
        world.commit(set(KEYS))
        world.hear()
        if runs:
            world.end(runs[0])
        for client in clients:
            client.update()
        waiting = {client: ts for client, ts in waiting.items() if client.ts == ts}
    assert not waiting, "a client is not brought anywhere, though its queries run"


def end_all(world: World, path: str) -> None:
    for run in [run for run in world.runs if run.request.path == path]:
        world.end(run)


def test_a_slow_query_and_a_quick_one_that_all_commits_touch_are_shown_together() -> None:
    world = World()
    client = Client(world)
    client.change(["a", "ab"], [])
    seen: list[int] = []
    for _ in range(20):
        world.turn()
        for run in world.runs:
            world.look(run)
        end_all(world, "a")
        for _ in range(5):
            world.commit({"a"})
            world.hear()
            world.turn()
            end_all(world, "a")
        end_all(world, "ab")
        client.update()
        seen.append(client.ts)
    assert seen == sorted(set(seen)) and seen[0] > 0, "each run of the slow query shows"
    assert not world.past_runs, "what the quick one was is still known"


def test_two_slow_queries_that_never_ran_at_the_same_time_are_shown_together() -> None:
    world = World()
    client = Client(world)
    client.change(["a", "ab"], [])
    seen: list[int] = []
    for _ in range(40):
        world.turn()
        world.look(world.runs[0])
        world.commit({"a"})
        world.hear()
        world.end(world.runs[0])
        client.update()
        seen.append(client.ts)
    assert len(set(seen)) > 8 and world.past_runs > 8, "one of them ran over the state that the other one saw"


def test_a_result_is_not_lost_that_saw_a_commit_before_the_loop_heard_of_it() -> None:
    world = World()
    client = Client(world)
    client.change(["a"], [])
    world.turn()
    world.commit({"a"})
    world.commit({"b"})
    world.end(world.runs[0])
    client.update()
    assert client.ts == 0, "nobody knows of it yet"
    world.hear()
    client.update()
    assert client.ts == world.durable_ts and not world.asked, "it does not run again"


def test_what_is_kept_of_quick_queries_is_forgotten_when_no_run_is_under_way() -> None:
    world = World()
    client = Client(world)
    client.change(["a", "ab"], [])
    world.turn()
    slow = next(run for run in world.runs if run.request.path == "ab")
    for _ in range(limits.SYNC_SUPERSEDED_EACH_MAX + 10):
        for run in [run for run in world.runs if run.request.path == "a"]:
            world.end(run)
        world.commit({"a"})
        world.hear()
        world.turn()
    assert world.reactor.kept_bytes > 0
    lives = {live.key[0]: live for live in world.reactor._live.values()}  # pyright: ignore[reportPrivateUsage]
    assert len(lives["a"].past) == limits.SYNC_SUPERSEDED_EACH_MAX
    for _ in range(3):
        world.turn()
        for run in [slow] if slow in world.runs else list(world.runs):
            world.end(run)
    assert world.reactor.kept_bytes == 0 and not lives["a"].past
