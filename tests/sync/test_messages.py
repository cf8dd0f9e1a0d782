"""What clients say: taken apart, or refused with a sentence."""

import json
from base64 import b64encode
from typing import Any

import pytest

from skerry.errors import ClientError
from skerry.limits import JSON_WHOLE_BYTES_MAX, SYNC_MESSAGE_BYTES_MAX, SYNC_MESSAGE_NESTING_MAX, SYNC_MODIFICATIONS_MAX
from skerry.sync.messages import (
    Add,
    Authenticate,
    Call,
    Connect,
    Event,
    LongText,
    ModifyQuerySet,
    Remove,
    parse_message,
)

SESSION = "2d2f0000-0000-4000-8000-000000000001"
CONNECT: dict[str, Any] = {
    "type": "Connect", "sessionId": SESSION, "connectionCount": 0, "lastCloseReason": "InitialConnect", "clientTs": 1
}  # fmt: skip


def parsed(message: Any) -> Any:
    return parse_message(json.dumps(message).encode())


def test_the_messages_of_the_clients() -> None:
    session = bytes.fromhex(SESSION.replace("-", ""))
    assert parsed(CONNECT) == Connect(session, 0)
    observed = b64encode((1007).to_bytes(8, "little")).decode()
    assert parsed({**CONNECT, "maxObservedTimestamp": observed}) == Connect(session, 1007)
    assert parsed({"type": "Authenticate", "baseVersion": 0, "tokenType": "None"}) == Authenticate(
        0, "None", None, None
    )
    acting = {"type": "Authenticate", "baseVersion": 1, "tokenType": "Admin", "value": "k", "impersonating": {"a": 1}}
    assert parsed(acting) == Authenticate(1, "Admin", "k", b'{"a":1}')
    add = {"type": "Add", "queryId": 3, "udfPath": "m:f", "args": [{"b": 1, "a": 2}], "journal": "J"}
    modify = {"type": "ModifyQuerySet", "baseVersion": 0, "newVersion": 1}
    both = parsed({**modify, "modifications": [add, {"type": "Remove", "queryId": 2}]})
    assert both == ModifyQuerySet(0, 1, (Add(3, "m:f", b'{"a":2,"b":1}', "J"), Remove(2)))
    assert parsed({"type": "Mutation", "requestId": 7, "udfPath": "m:f", "args": []}) == Call(
        "Mutation", 7, "m:f", b"{}"
    )
    assert parsed({"type": "Event", "eventType": "x", "event": [1]}) == Event()


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"nonsense",
        b"\xff\xfe",
        b"[]",
        b'"Connect"',
        b"{}",
        b'{"type":"Nothing"}',
        b'{"type":["Connect"]}',
        b'{"type":"Connect"}',
        b'{"type":"Connect","sessionId":"no uuid"}',
        b'{"type":"Connect","sessionId":7}',
        b'{"type":"ModifyQuerySet","baseVersion":0,"newVersion":1}',
        b'{"type":"ModifyQuerySet","baseVersion":-1,"newVersion":0,"modifications":[]}',
        b'{"type":"ModifyQuerySet","baseVersion":0.5,"newVersion":1,"modifications":[]}',
        b'{"type":"ModifyQuerySet","baseVersion":4294967296,"newVersion":1,"modifications":[]}',
        b'{"type":"ModifyQuerySet","baseVersion":0,"newVersion":1,"modifications":[7]}',
        b'{"type":"ModifyQuerySet","baseVersion":0,"newVersion":1,"modifications":[{"type":"Change","queryId":1}]}',
        b'{"type":"ModifyQuerySet","baseVersion":0,"newVersion":1,"modifications":[{"type":"Add","queryId":1}]}',
        b'{"type":"Authenticate","baseVersion":0,"tokenType":"Else","value":"x"}',
        b'{"type":"Authenticate","baseVersion":0,"tokenType":"User"}',
        b'{"type":"Authenticate","baseVersion":0,"tokenType":"Admin","value":"k","impersonating":"me"}',
        b'{"type":"Mutation","requestId":true,"udfPath":"a:b","args":[]}',
        b'{"type":"Mutation","requestId":0,"udfPath":7,"args":[]}',
        b'{"type":"Mutation","requestId":0,"udfPath":"a:b","args":[{},{}]}',
        b'{"type":"Mutation","requestId":0,"udfPath":"a:b","args":"x"}',
        b'{"type":"Mutation","requestId":0,"udfPath":"a:b","args":[7]}',
        b'{"type":"Action","requestId":0,"udfPath":"a:b","args":[],"componentPath":"child"}',
    ],
)
def test_what_is_no_message_is_refused_with_a_sentence(text: bytes) -> None:
    with pytest.raises(ClientError) as caught:
        parse_message(text)
    assert caught.value.code == "InvalidSyncMessage"
    assert caught.value.message[-1] in ".)"


@pytest.mark.parametrize("observed", ["", "AAAA", "*", 7, "AAAAAAAAAAAA"])
def test_a_timestamp_has_eight_bytes(observed: Any) -> None:
    with pytest.raises(ClientError):
        parsed({**CONNECT, "maxObservedTimestamp": observed})


def test_bounds_of_a_message() -> None:
    modify: dict[str, Any] = {"type": "ModifyQuerySet", "baseVersion": 0, "newVersion": 1}
    removals = [{"type": "Remove", "queryId": n} for n in range(SYNC_MODIFICATIONS_MAX)]
    assert len(parsed({**modify, "modifications": removals}).modifications) == SYNC_MODIFICATIONS_MAX
    with pytest.raises(ClientError):
        parsed({**modify, "modifications": [*removals, {"type": "Remove", "queryId": 0}]})

    def nested(levels: int) -> bytes:
        return b'{"type":"Event","event":' + b"[" * levels + b"]" * levels + b"}"

    assert parse_message(nested(SYNC_MESSAGE_NESTING_MAX - 1)) == Event()
    with pytest.raises(ClientError):
        parse_message(nested(SYNC_MESSAGE_NESTING_MAX))
    filled = b'{"type":"Event","event":"' + b"x" * (SYNC_MESSAGE_BYTES_MAX - 27) + b'"}'
    assert len(filled) == SYNC_MESSAGE_BYTES_MAX and parse_message(filled) == Event()
    with pytest.raises(ClientError):
        parse_message(b" " + filled)


def test_a_long_message_says_what_a_short_one_says() -> None:
    fields = {
        "type": "ModifyQuerySet",
        "baseVersion": 0,
        "newVersion": 1,
        "modifications": [
            {"type": "Add", "queryId": 1, "udfPath": "m:q", "args": [{"b": [1, {"$integer": "AAAAAAAAAAA="}], "a": 2}]},
            {"type": "Remove", "queryId": 2},
        ],
    }
    looks: list[None] = []
    long = {**fields, "filler": ["x" * 100] * (JSON_WHOLE_BYTES_MAX // 100)}
    assert parse_message(json.dumps(long).encode(), lambda: looks.append(None)) == parsed(fields)
    assert looks, "others get their turn meanwhile"


def test_long_arguments_are_told_apart_by_a_digest() -> None:
    def args_of(length: int, letter: str = "x") -> bytes:
        fields = {"type": "Mutation", "requestId": 0, "udfPath": "m:f", "args": [{"t": letter * length}]}
        return parsed(fields).args

    length = JSON_WHOLE_BYTES_MAX - len('{"t":""}')
    at, past = args_of(length), args_of(length + 1)
    assert not isinstance(at, LongText) and isinstance(past, LongText)
    assert past == args_of(length + 1) and hash(past) == hash(args_of(length + 1))
    assert past != args_of(length + 1, "y") and past != at and past == bytes(past)
    assert len({past, args_of(length + 1), args_of(length + 1, "y")}) == 2
