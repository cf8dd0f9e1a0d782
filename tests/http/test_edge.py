"""What a real server cannot be made to do on demand: states that change between queries, faults, a drain.

The application is the real one; what is scripted is the other side of it: a deployment whose timestamps the test
chooses, and a receive channel.
"""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from skerry.admin.registry import Quotas
from skerry.admin.shares import Share
from skerry.errors import ClientError, SkerryError
from skerry.functions.metering import Meter
from skerry.functions.request import CallRequest, CallResult
from skerry.functions.terms import Terms
from skerry.http.app import ServerState
from skerry.http.bodies import ClientGone, drain, read_body
from skerry.http.headers import RequestIds, expects_encoded_json
from skerry.limits import (
    CLIENT_HEADER_CACHE_ENTRIES_MAX,
    HTTP_DRAIN_BYTES_MAX,
    HTTP_REQUEST_ID_CHARS_MAX,
    MIB,
    USER_AGENT_CHARS_MAX,
)
from tests.http.scripted import front_of


class TimedDeployment:
    """A deployment whose every call reads the next of the given timestamps."""

    name = "local"

    def __init__(self, timestamps: list[int | None]) -> None:
        self.timestamps = timestamps
        self.asked: list[CallRequest] = []
        self.meter = Meter(self.name)
        self.share = Terms(self.meter)
        self.kept: CallResult | None = None
        self.kept_told = 0

    def admit(self, queued: int, calls: int = 1) -> SkerryError | None:
        return None

    def kept_answer(self, path: str, args: bytes | None, identity: Any) -> CallResult | None:
        return self.kept

    def count_kept(self) -> None:
        self.kept_told += 1

    def start(self, request: CallRequest, done: Callable[[CallResult | SkerryError], None]) -> None:
        self.asked.append(request)
        done(CallResult(True, b"1", [], self.timestamps.pop(0)))


def ask(
    deployment: Any,
    method: str,
    path: str,
    body: bytes = b"",
    *,
    draining: bool = False,
    headers: tuple[tuple[bytes, bytes], ...] = (),
) -> tuple[int, Any]:
    """Status and parsed answer of one request to the application."""
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    async def serve() -> None:
        state = ServerState()
        state.draining = draining
        app = front_of(deployment, state)
        scope = {"type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": b""}
        await app({**scope, "headers": list(headers), "client": ("127.0.0.9", 1234)}, receive, send)

    asyncio.run(serve())
    return sent[0]["status"], json.loads(b"".join(message.get("body", b"") for message in sent[1:]))


BATCH = json.dumps({"queries": [{"path": "a:b"}, {"path": "a:c"}]}).encode()


def test_the_queries_of_a_batch_share_the_time_that_they_read_at() -> None:
    deployment = TimedDeployment([3, 3])
    status, answer = ask(deployment, "POST", "/api/query_batch", BATCH)
    assert (status, len(answer["results"])) == (200, 2)
    first, second = deployment.asked
    assert first.at is not None and first.at is second.at and first.at.ts is None


def test_a_query_without_a_time_reads_the_newest_state() -> None:
    deployment = TimedDeployment([3])
    assert ask(deployment, "POST", "/api/query", b'{"path": "a:b"}')[0] == 200
    assert deployment.asked[0].at is None


class SharedDeployment(TimedDeployment):
    """One with quotas, on a clock that stands."""

    def __init__(self, quotas: Quotas) -> None:
        super().__init__([1] * 100)
        self.share: Share = Share(self.name, quotas, lambda: 0.0)

    def admit(self, queued: int, calls: int = 1) -> SkerryError | None:
        return self.share.admit(queued, calls)


@pytest.mark.parametrize(
    ("quotas", "code"),
    [
        (Quotas(requests_per_minute=3), "RequestRateExceeded"),
        (Quotas(calls_at_once=2), "BatchExceedsQuota"),
    ],
)
def test_each_query_of_a_batch_counts_and_none_runs_of_a_batch_that_is_refused(quotas: Quotas, code: str) -> None:
    deployment = SharedDeployment(quotas)
    assert ask(deployment, "POST", "/api/query_batch", BATCH)[0] == 200
    three = json.dumps({"queries": [{"path": "a:b"}] * 3}).encode()
    status, answer = ask(deployment, "POST", "/api/query_batch", three)
    assert (status, answer["code"], len(deployment.asked)) == (400 if code == "BatchExceedsQuota" else 429, code, 2)
    assert ask(deployment, "POST", "/api/query", b'{"path": "a:b"}')[0] == 200, "what was refused used nothing up"


def test_quotas_hold_for_kept_answers_too() -> None:
    deployment = SharedDeployment(Quotas(requests_per_minute=2))
    deployment.kept = CallResult(True, b"7", [])
    deployment.kept.bodies = {}
    told = [ask(deployment, "POST", "/api/query", b'{"path": "a:b"}') for _ in range(3)]
    assert [status for status, _ in told] == [200, 200, 429] and told[1][1] == {"status": "success", "value": 7}
    assert deployment.kept_told == 2 and not deployment.asked


def test_health_says_when_the_server_stops() -> None:
    assert ask(TimedDeployment([]), "GET", "/health") == (200, {"status": "ok"})
    status, answer = ask(TimedDeployment([]), "GET", "/health", draining=True)
    assert (status, answer["code"]) == (503, "ShuttingDown")


def test_a_fault_of_ours_tells_the_caller_nothing(caplog: pytest.LogCaptureFixture) -> None:
    status, answer = ask(TimedDeployment([]), "POST", "/api/query", b'{"path": "a:b"}')  # there is no timestamp left
    assert (status, answer["code"]) == (500, "InternalServerError")
    assert answer["message"] == "Your request couldn't be completed. Try again later."
    assert "IndexError" in caplog.text


def test_a_call_knows_who_sent_it() -> None:
    for sent, kept in (
        ((), None),
        (((b"user-agent", b"x" * USER_AGENT_CHARS_MAX),), "x" * USER_AGENT_CHARS_MAX),
        (((b"user-agent", b"x" * (USER_AGENT_CHARS_MAX + 1)),), "x" * USER_AGENT_CHARS_MAX),
    ):
        deployment = TimedDeployment([1])
        ask(deployment, "POST", "/api/query", b'{"path": "a:b"}', headers=sent)
        assert (deployment.asked[0].ip, deployment.asked[0].user_agent) == ("127.0.0.9", kept)


def pieces(*sizes: int, ends: bool = True) -> Any:
    """A receive channel of pieces of these sizes, and the list of those that were read."""
    read: list[int] = []
    left = list(sizes)

    async def receive() -> Any:
        if not left:
            return {"type": "http.disconnect"}
        size = left.pop(0)
        read.append(size)
        return {"type": "http.request", "body": bytes(size), "more_body": bool(left) or not ends}

    return receive, read


def test_a_body_is_read_to_its_bound_and_a_client_that_leaves_is_noticed() -> None:
    assert len(asyncio.run(read_body(pieces(4, 6)[0], 10))) == 10
    with pytest.raises(ClientError, match="larger than 10 bytes") as refused:
        asyncio.run(read_body(pieces(4, 7)[0], 10))
    assert refused.value.code == "RequestTooLarge"
    with pytest.raises(ClientGone):
        asyncio.run(read_body(pieces(4, 4, ends=False)[0], 10))


def test_what_is_too_large_is_read_on_only_so_far() -> None:
    steps = HTTP_DRAIN_BYTES_MAX // MIB
    for extra, expected in ((0, steps), (5, steps + 1)):
        receive, read = pieces(*[MIB] * (steps + extra))
        asyncio.run(drain(receive))
        assert len(read) == expected
        receive, read = pieces(*[MIB] * (steps + extra))
        with pytest.raises(ClientError):
            asyncio.run(read_body(receive, 0))
        assert len(read) == expected


def test_a_request_id_has_a_bound() -> None:
    ids = RequestIds(lambda count: bytes(count))
    longest = b"x" * HTTP_REQUEST_ID_CHARS_MAX
    assert ids.name(longest) == longest
    assert ids.name(longest + b"x") == b"0" * 16


def test_client_headers_are_remembered_within_a_bound() -> None:
    for number in range(CLIENT_HEADER_CACHE_ENTRIES_MAX + 1):
        expects_encoded_json(b"npm-1.0.%d" % number)
    assert expects_encoded_json.cache_info().currsize == CLIENT_HEADER_CACHE_ENTRIES_MAX
