"""The state machine of a connection: which steps messages ask for, and what a client is told when."""

import json
from base64 import b64decode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.errors import ClientError
from skerry.limits import SYNC_QUERIES_MAX, SYNC_QUERY_SET_BYTES_MAX, SYNC_SHARED_BYTES_MAX
from skerry.sync import session as frames
from skerry.sync.messages import Add, ModifyQuerySet, Remove
from skerry.sync.session import Identify, Run, Session, Step, Subscribe, Transitions, Unsubscribe, Way

CONNECT = {"type": "Connect", "sessionId": "2d2f0000-0000-4000-8000-000000000001", "connectionCount": 0}


def tell(session: Session, message: dict[str, Any]) -> list[Step]:
    return session.receive(json.dumps(message).encode())


def connected() -> Session:
    session = Session()
    assert tell(session, CONNECT) == []
    return session


def modify(base: int, *modifications: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "ModifyQuerySet", "baseVersion": base, "newVersion": base + 1, "modifications": list(modifications)
    }  # fmt: skip


def add(query_id: int) -> dict[str, Any]:
    return {"type": "Add", "queryId": query_id, "udfPath": "m:f", "args": [{}]}


def remove(query_id: int) -> dict[str, Any]:
    return {"type": "Remove", "queryId": query_id}


def value(number: int) -> bytes:
    return frames.updated(b"%d" % number, [], None)


def read(frame: bytes | None) -> dict[str, Any]:
    assert frame is not None
    return json.loads(frame)


def versions(frame: dict[str, Any]) -> list[tuple[int, int, int]]:
    return [
        (version["querySet"], version["identity"], int.from_bytes(b64decode(version["ts"]), "little"))
        for version in (frame["startVersion"], frame["endVersion"])
    ]


def test_each_version_is_covered_and_each_transition_starts_where_the_last_ended() -> None:
    session = connected()
    assert not session.owes_transition and session.transition(5, []) is None
    (step,) = tell(session, modify(0, add(1)))
    assert isinstance(step, Subscribe) and step.query.query_id == 1
    assert session.owes_transition
    first = read(session.transition(7, [(1, value(1))]))
    assert versions(first) == [(0, 0, 0), (1, 0, 7)]
    assert first["modifications"] == [
        {"queryId": 1, "type": "QueryUpdated", "value": 1, "logLines": [], "journal": None}
    ]
    (identify,) = tell(session, {"type": "Authenticate", "baseVersion": 0, "tokenType": "None"})
    assert isinstance(identify, Identify)
    assert session.is_undecided
    session.identified()
    assert tell(session, modify(1)) == []
    both = read(session.transition(7, []))
    assert versions(both) == [(1, 0, 7), (2, 1, 7)] and both["modifications"] == []
    assert session.transition(9, []) is None, "there is nothing to learn there"


def test_a_result_that_the_client_has_is_not_sent_again() -> None:
    session = connected()
    tell(session, modify(0, add(1), add(2)))
    session.transition(1, [(1, value(1)), (2, value(1))])
    changed = read(session.transition(2, [(1, value(1)), (2, value(2))]))
    assert [modification["queryId"] for modification in changed["modifications"]] == [2]
    assert session.transition(3, [(1, value(1))]) is None


def test_a_removed_query_is_said_to_be_removed_once_and_never_spoken_of_again() -> None:
    session = connected()
    tell(session, modify(0, add(1)))
    session.transition(1, [(1, value(1))])
    (step,) = tell(session, modify(1, remove(1), remove(99)))
    assert step == Unsubscribe(1)
    told = read(session.transition(2, [(1, value(2))]))
    assert told["modifications"] == [{"type": "QueryRemoved", "queryId": 1}]
    assert session.transition(3, [(1, value(3))]) is None
    (again,) = tell(session, modify(2, add(1)))
    assert isinstance(again, Subscribe)
    assert read(session.transition(4, [(1, value(2))]))["modifications"][0]["value"] == 2


def test_an_answered_mutation_is_followed_by_a_transition_that_says_nothing_new() -> None:
    session = connected()
    (run,) = tell(session, {"type": "Mutation", "requestId": 0, "udfPath": "m:f", "args": [{}]})
    assert isinstance(run, Run)
    assert session.transition(3, []) is None
    session.answered()
    assert versions(read(session.transition(4, []))) == [(0, 0, 0), (0, 0, 4)]
    assert session.transition(5, []) is None


def test_failures_are_results_and_carry_data_only_where_there_is_some() -> None:
    session = connected()
    tell(session, modify(0, add(1)))
    plain = read(session.transition(1, [(1, frames.failed("it\nbroke", None, ["[LOG] x"], None))]))["modifications"][0]
    assert plain["type"] == "QueryFailed" and "errorData" not in plain and plain["logLines"] == ["[LOG] x"]
    data = read(session.transition(2, [(1, frames.failed("it", b"null", [], "J"))]))["modifications"][0]
    assert data["errorData"] is None and data["journal"] == "J"


def test_answers_as_the_clients_read_them() -> None:
    ok = read(frames.mutation_succeeded(3, 258, frames.success_parts(b'{"a":1}', ["[LOG] 'x'"])))
    assert ok == {
        "type": "MutationResponse", "requestId": 3, "ts": "AgEAAAAAAAA=", "success": True, "result": {"a": 1},
        "logLines": ["[LOG] 'x'"],
    }  # fmt: skip
    failed = read(frames.mutation_failed(4, "no \ud800", b"5", []))
    assert failed["ts"] is None and failed["errorData"] == 5 and failed["result"].startswith("no ")
    assert read(frames.action_succeeded(5, b"null", []))["result"] is None
    assert "errorData" not in read(frames.action_failed(6, "no", None, []))
    refused = read(connected().refused_identity(tell_identity(), "NoAuthProvider: none"))
    assert refused == {
        "type": "AuthError", "error": "NoAuthProvider: none", "baseVersion": 0, "authUpdateAttempted": True
    }  # fmt: skip
    assert read(connected().expired_identity()) == {
        "type": "AuthError", "error": "Convex token identity expired", "baseVersion": 0, "authUpdateAttempted": False
    }  # fmt: skip


def tell_identity() -> Any:
    (step,) = tell(connected(), {"type": "Authenticate", "baseVersion": 0, "tokenType": "User", "value": "t"})
    assert isinstance(step, Identify)
    return step.sent


@pytest.mark.parametrize(
    ("before", "message", "code"),
    [
        ([], modify(0), "InvalidSyncMessage"),
        ([CONNECT], CONNECT, "InvalidSyncMessage"),
        ([CONNECT], modify(1), "BaseVersionMismatch"),
        ([CONNECT], {**modify(0), "newVersion": 2}, "BaseVersionMismatch"),
        ([CONNECT, modify(0)], modify(0), "BaseVersionMismatch"),
        ([CONNECT], {"type": "Authenticate", "baseVersion": 1, "tokenType": "None"}, "BaseVersionMismatch"),
        ([CONNECT, modify(0, add(1))], modify(1, add(1)), "InvalidSyncMessage"),
        ([CONNECT], modify(0, add(1), add(1)), "InvalidSyncMessage"),
    ],
)
def test_a_stream_that_makes_no_sense_is_refused(
    before: list[dict[str, Any]], message: dict[str, Any], code: str
) -> None:
    session = Session()
    for earlier in before:
        tell(session, earlier)
    with pytest.raises(ClientError) as caught:
        tell(session, message)
    assert caught.value.code == code


def test_bound_of_the_queries_of_a_connection() -> None:
    session = connected()
    tell(session, modify(0, *[add(n) for n in range(SYNC_QUERIES_MAX)]))
    with pytest.raises(ClientError) as caught:
        tell(session, modify(1, add(SYNC_QUERIES_MAX)))
    assert caught.value.code == "TooManyQueries"


def test_bound_of_the_long_arguments_of_a_connection() -> None:
    def asked(number: int, length: int) -> Add:
        return Add(number, "m:q", bytes(length - len("m:q")), None)

    def change(session: Session, base: int, *changes: Add | Remove) -> list[Step]:
        return session.take(ModifyQuerySet(base, base + 1, changes))

    session, half = connected(), SYNC_QUERY_SET_BYTES_MAX // 2
    change(session, 0, asked(1, half), asked(2, half), asked(3, 1000))
    change(session, 1, Remove(1), asked(4, half))
    with pytest.raises(ClientError) as caught:
        change(session, 2, asked(5, 10_000))
    assert caught.value.code == "TooManyQueries"


def test_what_was_never_told_is_not_taken_back() -> None:
    session = connected()
    for base in range(0, 100, 2):
        tell(session, modify(base, add(base)))
        tell(session, modify(base + 1, remove(base)))
    told = read(session.transition(1, []))
    assert told["modifications"] == [] and told["endVersion"]["querySet"] == 100


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3), st.booleans()), max_size=40))
def test_what_a_client_shows_is_what_the_queries_gave(moves: list[tuple[int, int, bool]]) -> None:
    """A client that applies transitions as the npm one does, beside a session with random changes and results."""
    session, base, ts = connected(), 0, 0
    truth: dict[int, int] = {}
    shown: dict[int, int] = {}
    at = (0, 0, 0)
    for query_id, number, is_set_change in moves:
        if is_set_change:
            tell(session, modify(base, remove(query_id) if query_id in truth else add(query_id)))
            base += 1
            if query_id in truth:
                del truth[query_id]
            else:
                truth[query_id] = number
        elif query_id in truth:
            truth[query_id] = number
        ts += number
        frame = session.transition(ts, [(known, value(result)) for known, result in truth.items()])
        if frame is not None:
            told = read(frame)
            start, end = versions(told)
            assert start == at and end[2] >= at[2]
            at = end
            for modification in told["modifications"]:
                if modification["type"] == "QueryRemoved":
                    shown.pop(modification["queryId"], None)
                else:
                    shown[modification["queryId"]] = modification["value"]
        assert shown == truth


def test_bound_of_the_transitions_that_are_kept() -> None:
    transitions = Transitions()

    def way(query_id: int, size: int) -> Way:
        return (0, 0), 0, (1, 0), 7, ((query_id, b"x" * size),), ()

    around = len(transitions.make(way(0, 0)))
    first = transitions.make(way(1, SYNC_SHARED_BYTES_MAX - 2 * around))
    assert transitions.make(way(1, SYNC_SHARED_BYTES_MAX - 2 * around)) is first
    transitions.make(way(2, 0))
    again = transitions.make(way(1, SYNC_SHARED_BYTES_MAX - 2 * around))
    assert again == first and again is not first
