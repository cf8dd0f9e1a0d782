"""fetch in actions: bodies both ways, abort, bounds. The way out is a double; the real one has tests of its own."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from skerry import limits
from skerry.errors import SkerryError
from skerry.functions.action_fetch import Fetches
from skerry.functions.action_operations import FetchToStart
from tests.fixtures import shared
from tests.fixtures.action_bundle import action_bundle
from tests.fixtures.hands import FetchDouble
from tests.fixtures.world import World

URL = "http://a.test"


@pytest.fixture(params=[False, True], ids=["later", "with its head"])
def way_out(request: pytest.FixtureRequest) -> FetchDouble:
    """Small bodies come after their heads, or with them."""
    double = FetchDouble()
    double.is_quick = request.param
    return double


@pytest.fixture
def world(base: Path, tmp_path: Path, way_out: FetchDouble) -> Iterator[World]:
    with World(tmp_path / "data", shared.compiled(base), way_out=way_out) as made:
        made.activate(action_bundle(base))
        yield made


def _get(world: World, path: str, **more: Any) -> Any:
    return world.action("a:get", {"url": URL + path, **more})


def test_a_response_and_its_head(world: World) -> None:
    assert _get(world, "/hello#there") == {
        "status": 200,
        "ok": True,
        "type": "text/plain",
        "url": f"{URL}/hello",
        "redirected": False,
        "body": "hello",
    }
    assert _get(world, "/status/404")["ok"] is False


@pytest.mark.parametrize("status", [204, 304])
def test_a_response_without_a_body(world: World, status: int, way_out: FetchDouble) -> None:
    assert _get(world, f"/status/{status}")["body"] == ""
    assert way_out.responses[0].is_closed


@pytest.mark.parametrize("redirect", ["follow", "error", "manual"])
def test_what_is_sent(world: World, redirect: str) -> None:
    init = {"method": "POST", "headers": {"X-A": "b"}, "body": '{"n":1}', "redirect": redirect}
    method, headers, body, mode = _get(world, "/echo", init=init, **{"as": "json"})["body"]
    assert (method, body, mode) == ("POST", '{"n":1}', redirect)
    assert headers == [["content-type", "text/plain;charset=UTF-8"], ["x-a", "b"]]


def test_forms_and_blobs(world: World) -> None:
    assert world.action("a:getForm", {"url": f"{URL}/back"}) == ["1", "f.txt", "text"]
    assert world.action("a:getBlob", {"url": f"{URL}/size/100000"}) == [100000, "text/plain", 100000, True]


def test_a_body_comes_as_a_stream(world: World, way_out: FetchDouble) -> None:
    large = 2 * limits.ACTION_FETCH_CHUNK_BYTES + 1
    lengths = world.action("a:getStream", {"url": f"{URL}/size/{large}"})
    assert sum(lengths) == large and max(lengths) <= 2 * limits.ACTION_FETCH_CHUNK_BYTES
    assert world.action("a:getStream", {"url": f"{URL}/chunks/3"}) == [1, 1, 1]
    assert world.action("a:getStream", {"url": f"{URL}/chunks/9", "stopAfter": 2}) == [1, 1]
    assert all(response.is_closed for response in way_out.responses)
    assert way_out.responses[2].chunks, "what nobody reads is not fetched"


def test_a_body_goes_as_a_stream(world: World) -> None:
    sent = world.action("a:sendStream", {"url": f"{URL}/echo", "chunks": 3, "fail": False})
    assert orjson.loads(sent)[2] == "chunk 0 chunk 1 chunk 2 "
    failed = world.action("a:sendStream", {"url": f"{URL}/echo", "chunks": 1, "fail": True})
    assert failed == ["fetch failed: The stream of the request's body failed: no more", "EgressFailed"]
    assert world.action("a:sendStream", {"url": f"{URL}/hello", "chunks": 1000, "fail": False}) == "hello"


@pytest.mark.parametrize(
    ("when", "path", "error"),
    [
        ("before", "/never", ["AbortError", "This operation was aborted"]),
        ("head", "/never", ["Error", "enough"]),
        ("body", "/slow", ["AbortError", "This operation was aborted"]),
        ("timeout", "/never", ["TimeoutError", "The operation timed out."]),
    ],
)
def test_an_abort_ends_the_fetch(world: World, way_out: FetchDouble, when: str, path: str, error: list[str]) -> None:
    assert world.action("a:aborts", {"url": URL + path, "when": when}) == error
    assert way_out.open == 0
    assert way_out.cancelled == (when in ("head", "timeout"))
    assert all(response.is_closed for response in way_out.responses)


def test_a_refusal_and_a_fault_are_type_errors_with_the_sentence(world: World) -> None:
    assert world.action("a:headers", {"url": f"{URL}/fail", "n": 0}) == [
        "TypeError",
        "fetch failed: The test refuses this request.",
    ]
    result = world.call("action", "a:get", {"url": f"{URL}/broken"})
    assert "TypeError: fetch failed: The fetch failed in the server." in result.error_message
    assert "a fault of the double" not in result.error_message


def test_without_a_way_out_fetch_is_refused(base: Path, tmp_path: Path) -> None:
    with World(tmp_path / "data", shared.compiled(base)) as closed:
        closed.activate(action_bundle(base))
        assert "This server lets no action reach the network" in closed.failure("action", "a:get", {"url": URL})
        args = {"id": 1, "method": "GET", "url": URL, "headers": [], "redirect": "follow", "body": "none"}
        result = closed.call("action", "a:operation", {"op": "fetch/start", "args": args})
        assert "EgressRefused" not in result.error_message, "the code goes beside the text"


def test_an_action_that_ends_ends_its_fetches(world: World, way_out: FetchDouble) -> None:
    future = world.start("action", "a:get", {"url": f"{URL}/never"})
    world.until(lambda: way_out.open == 1)
    world.deployment.actions.end_all()
    with pytest.raises(Exception, match="shutting down"):
        world.finish(future)
    world.until(lambda: way_out.cancelled == 1)


# -- bounds --------------------------------------------------------------------------------------------------------


def test_headers_are_bounded(world: World) -> None:
    most = limits.ACTION_FETCH_HEADERS_MAX
    assert world.action("a:headers", {"url": URL, "n": most}) == 200
    name, text = world.action("a:headers", {"url": URL, "n": most + 1})
    assert name == "TypeError" and f"a list of at most {most} pairs" in text


def test_urls_are_bounded(world: World) -> None:
    longest = f"{URL}/".ljust(limits.ACTION_FETCH_URL_CHARS_MAX, "x")
    assert world.action("a:headers", {"url": longest, "n": 0}) == 200
    assert "shorten it" in world.action("a:headers", {"url": longest + "x", "n": 0})[1]


def test_a_body_read_whole_is_bounded(world: World) -> None:
    most = limits.ACTION_FETCH_BODY_BYTES_MAX
    assert _get(world, f"/size/{most}", **{"as": "arrayBuffer"})["body"] == most
    failed = world.failure("action", "a:get", {"url": f"{URL}/size/{most + 1}", "as": "arrayBuffer"})
    assert "The body has more than 20 MiB. Read it as a stream." in failed


def test_open_fetches_are_bounded(world: World, way_out: FetchDouble) -> None:
    most, way_out.is_quick = limits.ACTION_FETCHES_OPEN_MAX, False
    assert most == limits.TICKETS_OPEN_MAX
    assert world.action("a:getManyAndOne", {"url": URL, "n": most - 1}) == [most - 1, None]
    made, failed = world.action("a:getManyAndOne", {"url": URL, "n": most})
    assert (made, failed) == (most, f"fetch failed: More than {most} fetches are open. Read or cancel their bodies.")
    assert all(response.is_closed for response in way_out.responses)


def test_what_open_operations_hold_is_bounded(world: World) -> None:
    """The calls are refused one by one, after their arguments were held together."""
    part = limits.ACTION_HELD_BYTES_MAX // 8
    assert world.action("a:operationOfSize", {"sizes": [part] * 8}) == ["rejected"] * 8
    assert world.action("a:operationOfSize", {"sizes": [part] * 8}) == ["rejected"] * 8
    result = world.call("action", "a:operationOfSize", {"sizes": [part] * 8 + [100]})
    assert result.error_code == "TooManyConcurrentOperations"
    assert "hold has more than 64 MiB" in result.error_message


@pytest.mark.parametrize(
    ("op", "args"),
    [
        ("fetch/start", {"id": -1, "method": "GET", "url": URL, "headers": [], "redirect": "follow", "body": "none"}),
        ("fetch/start", {"id": 1, "method": 1, "url": URL, "headers": [], "redirect": "follow", "body": "none"}),
        ("fetch/start", {"id": 1, "method": "GET", "url": None, "headers": [], "redirect": "follow", "body": "none"}),
        ("fetch/start", {"id": 1, "method": "GET", "url": URL, "headers": {}, "redirect": "follow", "body": "none"}),
        ("fetch/start", {"id": 1, "method": "GET", "url": URL, "headers": [1], "redirect": "follow", "body": "none"}),
        (
            "fetch/start",
            {"id": 1, "method": "GET", "url": URL, "headers": [["a"]], "redirect": "error", "body": "none"},
        ),
        ("fetch/start", {"id": 1, "method": "GET", "url": URL, "headers": [], "redirect": "x", "body": "none"}),
        ("fetch/start", {"id": 1, "method": "GET", "url": URL, "headers": [], "redirect": "follow", "body": []}),
        ("fetch/start", []),
        ("fetch/read", {"id": 1}),
        ("fetch/read", {"id": "1"}),
        ("fetch/write", {"id": 1}),
        ("fetch/write", {"id": 2**53}),
        ("timer/start", {"id": 1}),
        ("timer/start", {"ms": 1}),
        ("timer/start", {"id": 1, "ms": "1"}),
        ("1.0/actions/query", {"name": "a:add", "args": 1}),
        ("1.0/actions/query", {"reference": "_reference/childComponent/a/b"}),
    ],
)
def test_malformed_operations_fail_with_a_sentence(world: World, op: str, args: Any) -> None:
    result = world.call("action", "a:operation", {"op": op, "args": args})
    assert not result.ok
    assert "Uncaught Error: " in result.error_message and "in the host" not in result.error_message


def test_text_is_decoded_as_the_platform_does(world: World, way_out: FetchDouble) -> None:
    way_out.bodies["/odd"] = b"\xef\xbb\xbfna\xc3\xafve \xff \xe2\x98"
    assert _get(world, "/odd")["body"] == "na\u00efve \ufffd \ufffd"
    way_out.bodies["/odd"] = b'{"a": "\xf0\x9f\x98\x80"}'
    assert _get(world, "/odd", **{"as": "json"})["body"] == {"a": "\U0001f600"}


@pytest.mark.parametrize("has_begun", [False, True])
def test_a_fetch_that_is_cancelled_holds_nothing(has_begun: bool) -> None:
    released: list[int] = []

    class Nobody:
        def complete(self, ticket: int, status: int, payload: bytes) -> None: ...
        def refuse(self, ticket: int, error: SkerryError) -> None: ...
        def release(self, size: int) -> None:
            released.append(size)

    class Silent:
        async def fetch(self, *_: Any) -> Any:
            await asyncio.Event().wait()

        async def close(self) -> None: ...

    async def start_and_cancel() -> None:
        fetches = Fetches(Nobody(), Silent(), asyncio.get_running_loop())
        fetches.step("fetch", 1, FetchToStart(7, "POST", URL, [], "follow", b"x" * 1000, False, False))
        if has_begun:
            await asyncio.sleep(0)
        fetches.step("cancel", 0, 7)
        await asyncio.sleep(0)

    asyncio.run(start_and_cancel())
    assert sum(released) == 1000
