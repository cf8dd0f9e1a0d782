"""One sync connection: its bounds, its pace and its end, on a transport and a deployment that the test holds."""

import asyncio
import gc
import json
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.frames import Frame, Opcode

from skerry import limits
from skerry.functions.request import CallResult
from skerry.http import sync_hub
from tests.http.socket_world import Deployed, World


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    made = asyncio.new_event_loop()
    yield made
    made.run_until_complete(made.shutdown_asyncgens())
    made.close()


@pytest.fixture
def world(loop: asyncio.AbstractEventLoop) -> Iterator[World]:
    made = World(loop, Deployed())
    yield made
    made.socket.connection_lost(None)
    made.settle()


def mutation(number: int) -> dict[str, Any]:
    return {"type": "Mutation", "requestId": number, "udfPath": "m:f", "args": [{}]}


def watching(number: int) -> dict[str, Any]:
    add = {"type": "Add", "queryId": number, "udfPath": "m:q", "args": [{"n": number}]}
    return {"type": "ModifyQuerySet", "baseVersion": number, "newVersion": number + 1, "modifications": [add]}


def test_mutations_run_one_at_a_time_and_each_answer_is_covered_by_a_transition(world: World) -> None:
    world.tell(mutation(0), mutation(1))
    assert len(world.deployed.calls) == 1
    world.finish(0)
    answer, transition = world.heard()
    assert (answer["type"], answer["requestId"], transition["type"]) == ("MutationResponse", 0, "Transition")
    assert len(world.deployed.calls) == 2


def test_a_mutation_begins_once_the_one_before_is_committed_though_not_yet_durable(world: World) -> None:
    world.tell(mutation(0), mutation(1))
    world.commit(0)
    assert len(world.deployed.calls) == 2 and world.heard() == []
    world.finish(0)
    assert [answer.get("requestId") for answer in world.heard()] == [0, None]
    assert len(world.deployed.calls) == 2


def test_bound_of_the_mutations_that_have_begun(world: World) -> None:
    world.tell(*[mutation(n) for n in range(limits.SYNC_MUTATIONS_AT_ONCE_MAX + 1)])
    for number in range(limits.SYNC_MUTATIONS_AT_ONCE_MAX):
        assert len(world.deployed.calls) == number + 1
        world.commit(number)
    assert len(world.deployed.calls) == limits.SYNC_MUTATIONS_AT_ONCE_MAX, "one more waits for the first answer"
    world.finish(0)
    assert len(world.deployed.calls) == limits.SYNC_MUTATIONS_AT_ONCE_MAX + 1


def test_no_mutation_begins_after_the_end_though_one_before_it_is_committed(world: World) -> None:
    world.tell(mutation(0), mutation(1))
    world.socket.leave()
    world.commit(0)
    assert len(world.deployed.calls) == 1


def test_bound_of_the_mutations_that_wait(world: World) -> None:
    world.tell(*[mutation(n) for n in range(limits.SYNC_MUTATIONS_WAITING_MAX + 1)])
    assert world.heard() == [] and len(world.deployed.calls) == 1
    world.tell(mutation(limits.SYNC_MUTATIONS_WAITING_MAX + 1))
    assert world.heard() == [("close", 1013, "TooManyConcurrentMutations")]


def test_bound_of_the_actions_of_a_connection(world: World) -> None:
    actions = [{**mutation(n), "type": "Action"} for n in range(limits.SYNC_ACTIONS_MAX + 1)]
    world.tell(*actions[:-1])
    assert world.heard() == [] and len(world.deployed.calls) == limits.SYNC_ACTIONS_MAX
    world.finish(0)
    assert [answer["type"] for answer in world.heard()] == ["ActionResponse"]
    world.tell(actions[0], actions[-1])
    assert world.heard() == [("close", 1013, "TooManyConcurrentRequests")]


def test_bound_of_the_connections_of_a_deployment(
    loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert limits.SYNC_CONNECTIONS_EACH_MAX > 2
    monkeypatch.setattr(sync_hub, "SYNC_CONNECTIONS_EACH_MAX", 2)
    deployed = Deployed()
    worlds = [World(loop, deployed) for _ in range(3)]
    assert [world.greeting for world in worlds] == [[], [], [("close", 1013, "TooManyConnections")]]
    worlds[0].socket.connection_lost(None)
    worlds[0].settle()
    worlds.append(World(loop, deployed))
    assert worlds[-1].greeting == []
    for world in worlds[1:]:
        world.socket.connection_lost(None)
        world.settle()


def test_a_client_that_does_not_read_gets_the_newest_state_in_one_and_nothing_before(world: World) -> None:
    world.tell(watching(0), watching(1))
    world.finish(0, b"1")
    world.socket.pause_writing()
    assert not world.wire.is_reading
    world.finish(1, b"2")
    assert world.heard() == [], "nothing is made for it"
    world.socket.resume_writing()
    world.settle()
    (transition,) = world.heard()
    assert [change["value"] for change in transition["modifications"]] == [1, 2] and world.wire.is_reading


@pytest.mark.parametrize(("after", "ended"), [(0, None), (1, "aborted")])
def test_a_client_that_takes_nothing_is_dropped(world: World, after: int, ended: str | None) -> None:
    world.socket.pause_writing()
    world.now = limits.SYNC_STALL_SECONDS_MAX + after
    world.socket.expire()
    assert world.wire.ended == ended


@pytest.mark.parametrize(("after", "ended"), [(0, None), (1, "aborted")])
def test_a_client_that_is_not_heard_of_is_dropped(world: World, after: int, ended: str | None) -> None:
    world.now = limits.SYNC_SILENCE_SECONDS_MAX + after
    world.socket.expire()
    assert world.wire.ended == ended
    if ended is None:
        assert world.heard() == [{"type": "Ping"}], "a message, which browsers see, besides the ping, which they do not"


@pytest.mark.parametrize(("over", "ended"), [(0, None), (1, "aborted")])
def test_bound_of_what_a_connection_has_unsent(world: World, over: int, ended: str | None) -> None:
    world.wire.unsent = limits.SYNC_UNSENT_BYTES_MAX + over
    world.tell(watching(0))
    world.finish(0)
    assert world.wire.ended == ended


def test_a_stopping_deployment_sends_its_clients_away_for_a_moment(world: World) -> None:
    for told in world.deployed.on_drained:
        told()
    assert world.heard() == [("close", 1012, "ShuttingDown")]


def test_what_cannot_be_understood_ends_the_connection_with_a_sentence(world: World) -> None:
    world.tell({"type": "Nonsense"})
    fatal, close = world.heard()
    assert fatal["type"] == "FatalError" and fatal["error"].endswith(".")
    assert close == ("close", 1000, "InvalidSyncMessage")


def test_a_mutation_that_waits_runs_as_whoever_asked_for_it(world: World) -> None:
    admin = {"type": "Authenticate", "tokenType": "Admin", "value": "dev|key", "baseVersion": 0}
    world.tell(mutation(0), mutation(1), admin, mutation(2))
    world.finish(0)
    world.finish(1)
    assert [request.is_admin for request, _ in world.deployed.calls] == [False, False, True]


def test_nothing_is_read_while_the_deployment_opens(loop: asyncio.AbstractEventLoop) -> None:
    deployed = Deployed()
    deployed.opening = loop.create_future()
    world = World(loop, deployed)
    assert not world.wire.is_reading
    deployed.opening.set_result(None)
    world.settle()
    assert world.wire.is_reading
    world.tell(mutation(0))
    assert len(deployed.calls) == 1
    world.socket.connection_lost(None)
    world.settle()


@pytest.mark.parametrize(("after", "ended"), [(0, None), (1, "aborted")])
def test_a_client_that_goes_on_after_its_end_is_not_kept(world: World, after: int, ended: str | None) -> None:
    world.tell({"type": "Nonsense"})
    for piece in (b"x" * 1000,) * 1000:
        world.client.send_text(piece)
    world.pass_on()
    world.settle()
    assert world.socket.bytes_unheard == 0
    assert world.wire.ended is None and world.wire.is_reading, "it may still say that it has ended"
    world.now = limits.SYNC_PING_SECONDS + after
    world.client.send_ping(b"")
    world.pass_on()
    world.socket.expire()
    assert world.wire.ended == ended


def long_mutation(number: int, length: int) -> dict[str, Any]:
    bare = {**mutation(number), "args": [{"text": ""}]}
    return {**bare, "args": [{"text": "x" * (length - len(json.dumps(bare)))}]}


def parse_those_aside(world: World) -> None:
    waiting, world.deployed.long = world.deployed.long, []
    for job, done in waiting:
        try:
            outcome = job()
        except Exception as error:
            outcome = error
        done(outcome)
    world.settle()


def test_a_message_at_the_bound_is_taken_at_once_and_one_past_it_aside(world: World) -> None:
    world.tell(long_mutation(0, limits.JSON_WHOLE_BYTES_MAX))
    assert len(world.deployed.calls) == 1 and not world.deployed.long
    world.finish(0)
    world.heard()
    world.tell(long_mutation(1, limits.JSON_WHOLE_BYTES_MAX + 1), mutation(2), watching(0))
    assert len(world.deployed.calls) == 1 and not world.wire.is_reading, "what is behind a long one waits for it"
    parse_those_aside(world)
    assert world.wire.is_reading
    assert [request.kind for request, _ in world.deployed.calls[1:]] == ["mutation", "query"]
    assert len(world.deployed.calls[1][0].args or b"") > limits.JSON_WHOLE_BYTES_MAX // 2
    world.finish(1)
    assert len(world.deployed.calls) == 4, "in their order"


def test_a_long_message_that_is_none_ends_the_connection(world: World) -> None:
    world.tell({"type": "Nonsense", "filler": "x" * limits.JSON_WHOLE_BYTES_MAX})
    parse_those_aside(world)
    fatal, close = world.heard()
    assert fatal["type"] == "FatalError" and close == ("close", 1000, "InvalidSyncMessage")


def test_a_long_message_of_a_connection_that_has_ended_does_nothing(world: World) -> None:
    world.tell(long_mutation(1, limits.JSON_WHOLE_BYTES_MAX + 1))
    world.socket.connection_lost(None)
    world.settle()
    parse_those_aside(world)
    assert world.deployed.calls == []


def test_a_live_query_of_a_deployment_that_has_spent_its_cpu_time_waits_until_it_is_paid_for(world: World) -> None:
    world.deployed.cpu_wait_s = 1e-6
    world.tell(watching(0))
    assert world.deployed.calls == []
    world.deployed.cpu_wait_s = 0.0
    while not world.deployed.calls:
        world.settle()
    world.finish(0)
    assert [message["type"] for message in world.heard()] == ["Transition"]


def test_a_flood_of_small_frames_is_heard_some_each_turn_and_nothing_more_read(world: World) -> None:
    flood = 3 * limits.SYNC_FRAMES_PER_TURN_MAX
    for number in range(flood):
        world.client.send_text(json.dumps({**mutation(number), "type": "Action"}).encode())
    world.pass_on_together()
    assert len(world.deployed.calls) < limits.SYNC_FRAMES_PER_TURN_MAX + 1 and not world.wire.is_reading
    world.settle()
    assert len(world.deployed.calls) == flood and world.wire.is_reading
    assert world.socket.bytes_unheard == 0


def test_a_long_query_set_is_watched_some_each_turn_and_told_in_one(world: World) -> None:
    n_queries = 2 * limits.SYNC_STEPS_PER_TURN_MAX + 1
    adds = [{"type": "Add", "queryId": n, "udfPath": "m:q", "args": [{"n": n}]} for n in range(n_queries)]
    world.client.send_text(json.dumps({**watching(0), "modifications": adds}).encode())
    world.client.send_text(json.dumps(mutation(0)).encode())
    world.pass_on()
    assert len(world.deployed.calls) == limits.SYNC_STEPS_PER_TURN_MAX and not world.wire.is_reading
    for number in range(limits.SYNC_STEPS_PER_TURN_MAX):
        world.deployed.calls[number][1](CallResult(True, b"1", [], 5))
    world.settle()
    assert [request.kind for request, _ in world.deployed.calls[-2:]] == ["query", "mutation"], "in their order"
    assert world.heard() == [], "what is valid waits for the rest of its message"
    for _, done in world.deployed.calls[limits.SYNC_STEPS_PER_TURN_MAX : n_queries]:
        done(CallResult(True, b"1", [], 5))
    world.settle()
    (transition,) = world.heard()
    assert len(transition["modifications"]) == n_queries


def test_many_pings_in_one_read_are_answered_with_one(world: World) -> None:
    for number in range(10):
        world.client.send_ping(b"%d" % number)
    world.pass_on_together()
    world.settle()
    data, world.wire.written = world.wire.written, b""
    world.client.receive_data(data)
    pongs = [event for event in world.client.events_received() if isinstance(event, Frame)]
    assert [(pong.opcode, bytes(pong.data)) for pong in pongs] == [(Opcode.PONG, b"9")]


def test_frames_that_cannot_be_told_apart_end_the_connection_and_are_thrown_away(world: World) -> None:
    world.socket.data_received(b"\x81\x01x")
    assert world.heard() == [("close", 1002, "a client's frames must be masked")]
    for _ in range(100):
        world.socket.data_received(b"x" * 65536)
    assert world.socket.bytes_unheard < 65536 and world.wire.is_reading and world.wire.ended is None
    world.now = limits.SYNC_PING_SECONDS + 1
    world.socket.expire()
    assert world.wire.ended == "aborted"


def test_a_slow_client_is_not_one_that_takes_nothing(world: World) -> None:
    world.wire.unsent = 1000
    world.socket.pause_writing()
    for number in range(1, 10):
        world.now = number * limits.SYNC_STALL_SECONDS_MAX
        world.wire.unsent -= 1
        world.socket.data_received(b"")  # it is heard of
        world.socket.expire()
        assert world.wire.ended is None
    world.now += limits.SYNC_STALL_SECONDS_MAX + 1
    world.socket.expire()
    assert world.wire.ended == "aborted"


def test_a_long_transition_goes_in_pieces_as_the_socket_takes_them(loop: asyncio.AbstractEventLoop) -> None:
    world = World(loop, Deployed(), "/api/1.48.0/sync")
    world.tell(watching(0))
    world.wire.is_full_after = 1
    world.finish(0, b'"' + b"x" * (3 * limits.SYNC_CHUNK_BYTES_MAX) + b'"')
    chunks = list[str]()
    for _ in range(4):
        (chunk,) = world.heard()
        assert (chunk["type"], chunk["partNumber"], chunk["totalParts"]) == ("TransitionChunk", len(chunks), 4)
        chunks.append(chunk["chunk"])
        world.tell(watching(1)) if len(chunks) == 1 else None
        world.socket.resume_writing()
    transition = json.loads("".join(chunks))
    assert len(transition["modifications"][0]["value"]) == 3 * limits.SYNC_CHUNK_BYTES_MAX
    world.wire.is_full_after = None
    world.settle()
    world.finish(1)
    assert [message["type"] for message in world.heard()] == ["Transition"]
    world.socket.connection_lost(None)
    world.settle()


@pytest.mark.parametrize("past", [0, 1])
def test_bound_of_the_frames_that_a_message_comes_in(world: World, past: int) -> None:
    text = json.dumps(mutation(0)).encode()
    pieces = [text, *[b""] * (limits.SYNC_MESSAGE_FRAMES_MAX - 2 + past), b""]
    for number, piece in enumerate(pieces):
        kind = Opcode.CONT if number else Opcode.TEXT
        world.socket.data_received(Frame(kind, piece, number == len(pieces) - 1).serialize(mask=True))
        if number % limits.SYNC_FRAMES_PER_TURN_MAX == 0:
            world.settle()
    world.settle()
    if past:
        assert world.heard() == [("close", 1009, "a message comes in 16384 frames at most")]
    assert len(world.deployed.calls) == 1 - past


def test_a_deployment_that_is_closed_is_not_kept(loop: asyncio.AbstractEventLoop) -> None:
    deployed = Deployed()
    world = World(loop, deployed)
    world.tell(watching(0))
    world.finish(0)
    world.socket.connection_lost(None)
    world.settle()
    gone = weakref.ref(deployed)
    del world, deployed
    gc.collect()
    assert gone() is None
