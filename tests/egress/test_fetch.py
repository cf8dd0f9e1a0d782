"""Fetching from real servers: what is sent, what comes back, and that nothing of the host's surroundings takes part."""

import asyncio
import zlib
from collections.abc import AsyncIterator

import pytest

from skerry import limits
from skerry.egress import EgressBounds, FetchRequest
from skerry.errors import DeveloperError
from tests.egress.world import LOOPS, OUTSIDE, Seen, by_path, code_of, egress, get, raw, read_all, reply, run, serving


@pytest.mark.parametrize("loop", LOOPS)
def test_a_get(loop: str) -> None:
    async def work() -> None:
        async with (
            serving(reply(b"hello", "X-A: 1\r\nx-a: caf\xe9\r\n", "200 Fine")) as server,
            egress(server.port) as way,
        ):
            response, body = await get(way, f"http://a.test:{server.port}/x?y=%7e#part")
            assert (response.status, response.status_text, body) == (200, "Fine", b"hello")
            assert response.url == f"http://a.test:{server.port}/x?y=%7e"
            assert not response.redirected
            assert ("x-a", "1") in response.headers
            assert [value for name, value in response.headers if name == "x-a"][1] == "caf\xc3\xa9"  # as bytes
            seen = server.seen[0]
            assert seen.line == "GET /x?y=%7e HTTP/1.1"
            assert dict(seen.headers) == {
                "Host": f"a.test:{server.port}",
                "User-Agent": "Skerry",
                "Accept": "*/*",
                "Accept-Encoding": "gzip, deflate",
            }

    run(work(), loop)


def test_bodies_and_headers_go_out_as_given() -> None:
    async def work() -> None:
        async with serving(reply()) as server, egress(server.port) as way:
            headers = [
                ("Content-Type", "text/plain"),
                ("Cookie", "a=b"),
                ("Origin", "x"),
                ("User-Agent", "mine"),
                ("X", ""),
            ]
            url = f"http://a.test:{server.port}/"
            big = bytes(range(256)) * 1024
            for body in (b"abc", b"", big):
                await (await way.fetch(FetchRequest("post", url, headers, body))).read(10)
                seen = server.seen.pop()
                assert seen.line.startswith("POST ")
                assert seen.body == body
                assert seen.header("Content-Length") == str(len(body))
                assert [pair for pair in seen.headers if pair in headers] == headers

    run(work())


@pytest.mark.parametrize("loop", LOOPS)
def test_a_streamed_body_goes_out_in_chunks(loop: str) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"one "
        yield b""
        yield b"two " * 50_000
        yield b"three"

    async def work() -> None:
        async with serving(reply()) as server, egress(server.port) as way:
            request = FetchRequest("PUT", f"http://a.test:{server.port}/", body=pieces())
            await (await way.fetch(request)).read(10)
            assert server.seen[0].header("Transfer-Encoding") == "chunked"
            assert server.seen[0].body == b"one " + b"two " * 50_000 + b"three"

    run(work(), loop)


def test_responses_without_bodies() -> None:
    async def work() -> None:
        answers = by_path({
            "/204": raw(b"HTTP/1.1 204 No Content\r\n\r\n"),
            "/304": raw(b"HTTP/1.1 304 Not Modified\r\nContent-Encoding: gzip\r\n\r\n"),
            "/head": raw(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\nContent-Encoding: gzip\r\n\r\n"),
            "/zero": reply(b""),
            "/interim": raw(b"HTTP/1.1 103 Early Hints\r\nA: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"),
        })  # fmt: skip
        async with serving(answers) as server, egress(server.port) as way:
            for method, path, body in (
                ("GET", "/204", b""),
                ("GET", "/304", b""),
                ("HEAD", "/head", b""),
                ("GET", "/zero", b""),
                ("GET", "/interim", b"x"),
            ):
                response = await way.fetch(FetchRequest(method, f"http://a.test:{server.port}{path}"))
                assert await read_all(response) == body
                assert await response.read(1) == b""
            assert server.connections == 1

    run(work())


def test_a_body_without_a_length_ends_with_the_connection() -> None:
    async def work() -> None:
        head = b"HTTP/1.1 200 OK\r\n\r\n"
        async with serving(raw(head + b"abc" * 50_000, hang_up=True)) as server, egress(server.port) as way:
            _, body = await get(way, f"http://a.test:{server.port}/")
            assert body == b"abc" * 50_000

    run(work())


def test_the_environment_takes_no_part(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9/")
    monkeypatch.setenv("no_proxy", "")
    netrc = f"{tmp_path}/netrc"
    with open(netrc, "w") as file:
        file.write("machine a.test login user password secret\n")
    monkeypatch.setenv("NETRC", netrc)

    async def work() -> None:
        async with serving(reply()) as server, egress(server.port) as way:
            _, body = await get(way, f"http://a.test:{server.port}/")
            assert body == b"hello"
            assert server.seen[0].header("Authorization") is None

    run(work())


def test_cookies_are_not_kept() -> None:
    async def work() -> None:
        async with serving(reply(head="Set-Cookie: a=b; Path=/\r\n")) as server, egress(server.port) as way:
            response, _ = await get(way, f"http://a.test:{server.port}/")
            assert ("set-cookie", "a=b; Path=/") in response.headers
            await get(way, f"http://a.test:{server.port}/")
            assert server.seen[1].header("Cookie") is None

    run(work())


def test_bytes_are_metered() -> None:
    async def work() -> None:
        counts = [0, 0]

        def on_bytes(sent: int, received: int) -> None:
            counts[0] += sent
            counts[1] += received

        async with serving(reply(b"x" * 300_000)) as server, egress(server.port, on_bytes=on_bytes) as way:
            await (await way.fetch(FetchRequest("GET", f"http://a.test:{server.port}/"))).read(10)
            before = counts[0]
            request = FetchRequest("POST", f"http://a.test:{server.port}/", body=b"y" * 200_000)
            assert len(await read_all(await way.fetch(request))) == 300_000
            assert 0 < before < 300
            assert 200_000 < counts[0] - before < 200_300
            assert counts[1] > 300_000

    run(work())


# -- compression -------------------------------------------------------------------------------------------------


def _gzip(data: bytes) -> bytes:
    stream = zlib.compressobj(wbits=31)
    return stream.compress(data) + stream.flush()


def _deflate(data: bytes, bits: int) -> bytes:
    stream = zlib.compressobj(wbits=bits)
    return stream.compress(data) + stream.flush()


TEXT = b"".join(b"line %d\n" % number for number in range(30_000))


@pytest.mark.parametrize(
    ("coding", "data"),
    [
        ("gzip", _gzip(TEXT)),
        ("X-GZIP", _gzip(TEXT[:100]) + _gzip(b"") + _gzip(TEXT[100:])),
        ("gzip", _gzip(TEXT) + b"trailing"),
        ("deflate", _deflate(TEXT, 15)),
        ("deflate", _deflate(TEXT, -15)),
        ("identity", TEXT),
        ("unheard-of", TEXT),
    ],
)
@pytest.mark.parametrize("bytes_max", [777, 1 << 20])
def test_compressed_bodies_are_read_decompressed(coding: str, data: bytes, bytes_max: int) -> None:
    async def work() -> None:
        async with serving(reply(data, f"Content-Encoding: {coding}\r\n")) as server, egress(server.port) as way:
            response = await way.fetch(FetchRequest("GET", f"http://a.test:{server.port}/"))
            assert await read_all(response, bytes_max) == TEXT

    run(work())


@pytest.mark.parametrize(
    ("coding", "data"),
    [
        ("gzip", b"this is no gzip data"),
        ("gzip", _gzip(TEXT)[:-9]),
        ("gzip", _gzip(TEXT)[:5]),
        ("gzip", _gzip(TEXT)[:-5] + b"12345"),
        ("deflate", _deflate(TEXT, 15)[:-5]),
        ("deflate", b"x"),
        ("gzip, gzip", _gzip(_gzip(TEXT))),
    ],
)
def test_damaged_compression_fails(coding: str, data: bytes) -> None:
    async def work() -> None:
        async with serving(reply(data, f"Content-Encoding: {coding}\r\n")) as server, egress(server.port) as way:
            assert await code_of(get(way, f"http://a.test:{server.port}/")) == "EgressFailed"

    run(work())


def test_gzip_members_are_bounded() -> None:
    async def work() -> None:
        most = limits.EGRESS_GZIP_MEMBERS_MAX
        async with serving(reply()) as server, egress(server.port) as way:
            for members, code in ((most, ""), (most + 1, "EgressTooLarge")):
                server.answer = reply(_gzip(b"") * (members - 1) + _gzip(b"x"), "Content-Encoding: gzip\r\n")
                if code:
                    assert await code_of(get(way, f"http://a.test:{server.port}/")) == code
                else:
                    assert (await get(way, f"http://a.test:{server.port}/"))[1] == b"x"

    run(work())


# -- requests that are refused -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "method", ["", "GET /", "G\r\nT", "CONNECT", "trace", "TRACK", "GÉT", "x" * (limits.EGRESS_METHOD_CHARS_MAX + 1)]
)
def test_methods_that_are_not_sent(method: str) -> None:
    assert _refusal_of(FetchRequest(method, f"http://{OUTSIDE}/")) == "EgressInvalidRequest"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("", "x"), ("a b", "x"), ("a:", "x"), ("a\r\nb", "x"), ("a\x00", "x"), ("é", "x"), (":authority", "x"),
        ("x", "a\r\nHost: b"), ("x", "a\nb"), ("x", "a\rb"), ("x", "a\x00b"), ("x", "\x7f"), ("x", "café"),
        ("x", "\u010a"),
    ],
)  # fmt: skip
def test_headers_that_could_be_read_as_something_else_are_refused(name: str, value: str) -> None:
    assert _refusal_of(FetchRequest("GET", f"http://{OUTSIDE}/", [(name, value)])) == "EgressInvalidRequest"


@pytest.mark.parametrize("method", ["GET", "head"])
def test_get_and_head_have_no_body(method: str) -> None:
    assert _refusal_of(FetchRequest(method, f"http://{OUTSIDE}/", body=b"")) == "EgressInvalidRequest"


def _refusal_of(request: FetchRequest) -> str:
    async def work() -> str:
        async with egress(80) as way:
            return await code_of(way.fetch(request))

    return run(work())


def test_framing_headers_are_the_hosts() -> None:
    dropped = [
        ("Host", "b.test"), ("hOST", "c.test"), ("Connection", "close"), ("Content-Length", "3"), ("Keep-Alive", "x"),
        ("Transfer-Encoding", "chunked"), ("Upgrade", "websocket"), ("TE", "trailers"), ("Trailer", "x"),
        ("Expect", "100-continue"), ("Proxy-Authorization", "x"), ("Proxy-Connection", "x"), ("proxy-anything", "x"),
        ("Accept-Encoding", "br"), ("HTTP2-Settings", "x"),
    ]  # fmt: skip

    async def work() -> None:
        async with serving(reply()) as server, egress(server.port) as way:
            request = FetchRequest("POST", f"http://a.test:{server.port}/", dropped, b"four")
            await (await way.fetch(request)).read(10)
            seen = server.seen[0]
            assert {name for name, _ in seen.headers} == {
                "Host", "Content-Length", "User-Agent", "Accept", "Accept-Encoding",
            }  # fmt: skip
            assert seen.header("Host") == f"a.test:{server.port}"
            assert seen.header("Content-Length") == "4"
            assert seen.body == b"four"
            assert len(seen.headers) == 5

    run(work())


def test_request_headers_are_bounded() -> None:
    async def work() -> None:
        async with serving(reply()) as server, egress(server.port) as way:
            url = f"http://a.test:{server.port}/"
            most = [("x", "")] * limits.EGRESS_REQUEST_HEADERS_MAX
            await get(way, url, headers=most)
            assert await code_of(get(way, url, headers=[*most, ("x", "")])) == "EgressTooLarge"

    run(work())


def test_request_header_bytes_are_bounded() -> None:
    async def work() -> None:
        async with egress(80) as way:
            value = "v" * (limits.EGRESS_REQUEST_HEAD_BYTES_MAX - 1)
            # At the bound the fetch goes on, to find that there is no such host.
            assert await code_of(get(way, "http://gone.test/", headers=[("x", value)])) == "EgressFailed"
            assert await code_of(get(way, "http://gone.test/", headers=[("x", value + "v")])) == "EgressTooLarge"

    run(work())


def test_request_bodies_are_bounded() -> None:
    async def stream(size: int) -> AsyncIterator[bytes]:
        for _ in range(size):
            yield b"x" * 1000

    async def work() -> None:
        bounds = EgressBounds(request_body_bytes=300_000)
        async with serving(reply()) as server, egress(server.port, bounds=bounds) as way:
            url = f"http://a.test:{server.port}/"
            await way.fetch(FetchRequest("POST", url, body=b"x" * 300_000))
            assert await code_of(way.fetch(FetchRequest("POST", url, body=b"x" * 300_001))) == "EgressTooLarge"
            await way.fetch(FetchRequest("POST", url, body=stream(300)))
            assert await code_of(way.fetch(FetchRequest("POST", url, body=stream(301)))) == "EgressTooLarge"
        assert EgressBounds().request_body_bytes == limits.EGRESS_REQUEST_BODY_BYTES_MAX

    run(work())


def test_a_stream_of_the_function_that_fails_is_told_of() -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"x"
        raise ValueError("mine")

    async def refused() -> AsyncIterator[bytes]:
        yield b"x"
        raise DeveloperError("EgressInvalidRequest", "not like this")

    async def work() -> None:
        async with serving(reply()) as server, egress(server.port) as way:
            url = f"http://a.test:{server.port}/"
            assert await code_of(way.fetch(FetchRequest("POST", url, body=broken()))) == "EgressFailed"
            assert await code_of(way.fetch(FetchRequest("POST", url, body=refused()))) == "EgressInvalidRequest"

    run(work())


def test_a_stream_that_fails_after_the_head_ends_the_response() -> None:
    has_head = asyncio.Event

    async def work() -> None:
        answered = has_head()

        async def broken() -> AsyncIterator[bytes]:
            yield b"x"
            await answered.wait()
            raise ValueError("mine")

        async def early(_: Seen, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")
            await writer.drain()
            await asyncio.Event().wait()

        async with serving(early, heads_only=True) as server, egress(server.port) as way:
            response = await way.fetch(FetchRequest("POST", f"http://a.test:{server.port}/", body=broken()))
            answered.set()
            assert await code_of(response.read(10)) == "EgressFailed"

    run(work())


def test_a_method_at_its_bound_is_sent() -> None:
    async def work() -> None:
        method = "M" * limits.EGRESS_METHOD_CHARS_MAX
        async with serving(reply()) as server, egress(server.port) as way:
            assert (await way.fetch(FetchRequest(method, f"http://a.test:{server.port}/"))).status == 200
            assert server.seen[0].line.startswith(method)

    run(work())
