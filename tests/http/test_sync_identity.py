"""Who a sync connection's client is: judged before anything else is done, and over once the token has expired.

Real tokens and providers are in tests/identity and tests/client/test_identity.py; here a test says what they come to.
"""

import asyncio
from typing import Any

import pytest

from skerry.errors import ClientError, SystemFault
from skerry.identity import User
from skerry.limits import AUTH_CLOCK_SKEW_SECONDS
from tests.http.socket_world import Deployed, World
from tests.http.test_sync_socket import loop, mutation, watching, world

__all__ = ["loop", "world"]

EXPIRES_S = 1_000


def authenticate(version: int, kind: str = "User", **fields: Any) -> dict[str, Any]:
    return {"type": "Authenticate", "baseVersion": version, "tokenType": kind, "value": "a.b.c", **fields}


def user(subject: str, expires_s: float = EXPIRES_S, token: bytes = b"a.b.c") -> User:
    return User({"subject": subject}, expires_s, token)


def judge(world: World, outcome: Any, number: int = -1) -> None:
    world.deployed.tokens[number][1](outcome)
    world.settle()


def sign_in(world: World, subject: str, version: int = 0) -> None:
    world.tell(authenticate(version))
    judge(world, user(subject))


def last_version(heard: list[Any]) -> dict[str, Any]:
    return [message for message in heard if message["type"] == "Transition"][-1]["endVersion"]


def test_nothing_is_done_or_sent_before_it_is_known_who_the_client_is(world: World) -> None:
    world.tell(watching(0))
    world.heard()
    world.tell(authenticate(0), mutation(1))
    assert not world.wire.is_reading
    calls = len(world.deployed.calls)
    world.finish(0)
    assert world.heard() == [] and len(world.deployed.calls) == calls
    judge(world, user("ada"))
    assert world.wire.is_reading
    asked = [request for request, _ in world.deployed.calls[calls:]]
    assert sorted((request.kind, str(request.identity)) for request in asked) == [
        ("mutation", "{'subject': 'ada'}"), ("query", "{'subject': 'ada'}")
    ]  # fmt: skip
    assert all(request.token == b"a.b.c" for request in asked if request.kind == "mutation")


def test_a_refreshed_token_of_the_same_user_runs_nothing_again(world: World) -> None:
    sign_in(world, "ada")
    world.tell(watching(0))
    world.finish(0)
    calls = len(world.deployed.calls)
    world.heard()
    world.tell(authenticate(1))
    judge(world, user("ada", 10 * EXPIRES_S, b"d.e.f"))
    assert len(world.deployed.calls) == calls
    assert last_version(world.heard())["identity"] == 2
    world.deployed.wall_s = EXPIRES_S + 60
    world.tell(mutation(1))
    assert world.deployed.calls[calls][0].token == b"d.e.f", "the new one holds"


@pytest.mark.parametrize(
    ("outcome", "closed"),
    [
        (ClientError("NoAuthProvider", "No auth provider."), (1000, "NoAuthProvider")),
        (SystemFault("TooManyConcurrentRequests", "Later."), (1013, "TooManyConcurrentRequests")),
        (SystemFault("InternalServerError", "Oh."), (1011, "InternalServerError")),
    ],
)
def test_a_client_that_nobody_vouches_for(world: World, outcome: Any, closed: tuple[int, str]) -> None:
    sign_in(world, "ada")
    world.heard()
    world.tell(authenticate(1), mutation(0))
    judge(world, outcome)
    heard = world.heard()
    assert heard.pop() == ("close", *closed)
    if isinstance(outcome, ClientError):
        assert heard == [
            {
                "type": "AuthError", "error": "NoAuthProvider: No auth provider.", "baseVersion": 1,
                "authUpdateAttempted": True,
            }
        ]  # fmt: skip
    assert not world.deployed.calls, "nothing runs as somebody who is nobody"


@pytest.mark.parametrize("message", [mutation(5), watching(0), {**mutation(5), "type": "Action"}])
def test_a_token_that_expires_ends_the_connection_when_the_client_asks_for_something(
    world: World, message: dict[str, Any]
) -> None:
    sign_in(world, "ada")
    world.heard()
    world.deployed.wall_s = EXPIRES_S + AUTH_CLOCK_SKEW_SECONDS - 0.5
    world.tell(mutation(0))
    assert len(world.deployed.calls) == 1
    world.finish(0)
    world.heard()
    world.deployed.wall_s += 0.5
    world.tell(message)
    error, close = world.heard()
    assert error == {
        "type": "AuthError", "error": "Convex token identity expired", "baseVersion": 1, "authUpdateAttempted": False
    }  # fmt: skip
    assert close == ("close", 1000, "TokenExpired")
    assert len(world.deployed.calls) == 1


def test_a_token_that_expires_ends_the_connection_when_there_is_something_to_tell(world: World) -> None:
    sign_in(world, "ada")
    world.tell(watching(0))
    world.heard()
    world.deployed.wall_s = EXPIRES_S + AUTH_CLOCK_SKEW_SECONDS
    world.finish(0)
    assert [message[2] if type(message) is tuple else message["type"] for message in world.heard()] == [
        "AuthError", "TokenExpired"
    ]  # fmt: skip


def test_mutations_that_waited_for_the_one_before_do_not_run_with_a_token_that_has_expired(world: World) -> None:
    sign_in(world, "ada")
    world.tell(mutation(0), mutation(1))
    world.deployed.wall_s = EXPIRES_S + AUTH_CLOCK_SKEW_SECONDS
    world.finish(0)
    assert world.heard()[-1] == ("close", 1000, "TokenExpired")
    assert len(world.deployed.calls) == 1


def test_signing_out_and_acting_as_somebody(world: World) -> None:
    sign_in(world, "ada")
    world.deployed.wall_s = 10 * EXPIRES_S
    world.tell(authenticate(1, "None"), mutation(0))
    assert (world.deployed.calls[0][0].identity, world.deployed.calls[0][0].is_admin) == (None, False)
    acting = {"issuer": "i", "subject": "s"}
    world.tell(authenticate(2, "Admin", impersonating=acting), mutation(1))
    world.finish(0)
    request = world.deployed.calls[1][0]
    assert request.is_admin and request.identity == {**acting, "tokenIdentifier": "i|s"}
    world.heard()
    world.tell(authenticate(3, "Admin", impersonating={"issuer": "i"}))
    error, close = world.heard()
    assert error["error"].startswith("HeaderParseFailure: ") and close[1:] == (1000, "HeaderParseFailure")


def test_users_say_again_who_they_are_when_others_decide_about_it(loop: asyncio.AbstractEventLoop) -> None:
    deployed = Deployed()
    signed_in, nobody = World(loop, deployed), World(loop, deployed)
    sign_in(signed_in, "ada")
    signed_in.heard()
    for told in deployed.on_activated:
        told()
    assert signed_in.heard() == []
    deployed.providers = ("another",)
    for told in deployed.on_activated:
        told()
    assert signed_in.heard() == [("close", 1012, "AuthConfigChanged")]
    assert nobody.heard() == []
    for ended in (signed_in, nobody):
        ended.socket.connection_lost(None)
        ended.settle()


def test_a_client_that_leaves_while_it_is_judged(world: World) -> None:
    world.tell(authenticate(0), mutation(0))
    world.socket.connection_lost(None)
    judge(world, user("ada"))
    assert not world.deployed.calls
