"""Servers that are slow, endless, enormous or not HTTP at all: each ends with its own error, and soon."""

import asyncio
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skerry import limits
from skerry.egress import EgressBounds, FetchRequest
from skerry.errors import DeveloperError
from tests.egress.world import LOOPS, Seen, code_of, egress, fault_of, get, raw, read_all, reply, run, serving

SOON = 0.05

# What responses are made of, for random ones.
PARTS = [
    b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 302 Found\r\n", b"HTTP/1.1 103 Early\r\n", b"HTTP/1.0 204 No\r\n", b"\r\n",
    b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Connection: keep-alive\r\n", b"Location: /\r\n",
    b"Content-Encoding: gzip\r\n", b"Content-Encoding: deflate\r\n", b"5\r\nhello\r\n", b"0\r\n\r\n", b"hello",
    b"Location: http://127.0.0.1/\r\n", b"\x1f\x8b\x08\x00", b"X: \xff\r\n", b"Upgrade: websocket\r\n",
    b"ffffffffffffffff\r\n",
]  # fmt: skip


def _url(port: int) -> str:
    return f"http://a.test:{port}/"


async def _never(_: Seen, writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize("loop", LOOPS)
def test_a_server_that_does_not_answer(loop: str) -> None:
    async def work() -> None:
        async with serving(_never) as server, egress(server.port, bounds=EgressBounds(answer_seconds=SOON)) as way:
            assert await code_of(get(way, _url(server.port))) == "EgressTimedOut"

    run(work(), loop)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_body_that_falls_silent(loop: str) -> None:
    async def work() -> None:
        async def answer(_: Seen, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
            await writer.drain()
            await asyncio.Event().wait()

        async with serving(answer) as server, egress(server.port, bounds=EgressBounds(silence_seconds=SOON)) as way:
            response = await way.fetch(FetchRequest("GET", _url(server.port)))
            assert await response.read(10) == b"abc"
            assert await code_of(response.read(10)) == "EgressTimedOut"
            assert await code_of(response.read(10)) == "EgressTimedOut"

    run(work(), loop)


@pytest.mark.parametrize("where", ["head", "body", "redirects"])
def test_a_trickle_ends_with_the_total_time(where: str) -> None:
    """Never silent for long, and never done: a byte each few milliseconds."""

    async def answer(_: Seen, writer: asyncio.StreamWriter) -> None:
        start = {"head": b"HTTP/1.1 200 OK\r\nX: ", "body": b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n"}
        writer.write(start.get(where, b"HTTP/1.1 302 Found\r\nLocation: /\r\nX: "))
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.005)

    async def work() -> None:
        bounds = EgressBounds(total_seconds=4 * SOON, silence_seconds=3 * SOON)
        async with serving(answer) as server, egress(server.port, bounds=bounds) as way:
            assert await code_of(get(way, _url(server.port))) == "EgressTimedOut"

    run(work())


def test_the_total_time_runs_while_nobody_reads() -> None:
    async def work() -> None:
        bounds = EgressBounds(total_seconds=SOON, connections=1)
        async with (
            serving(raw(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")) as server,
            egress(server.port, bounds=bounds) as way,
        ):
            forgotten = await way.fetch(FetchRequest("GET", _url(server.port)))
            await way.fetch(FetchRequest("GET", _url(server.port)))  # waits for the only place
            assert await code_of(forgotten.read(1)) == "EgressTimedOut"

    run(work())


def test_a_server_that_takes_no_body() -> None:
    async def work() -> None:
        bounds = EgressBounds(answer_seconds=SOON)
        async with serving(_never, heads_only=True) as server, egress(server.port, bounds=bounds) as way:
            request = FetchRequest("POST", _url(server.port), body=b"x" * (32 * limits.MIB))
            assert await code_of(way.fetch(request)) == "EgressTimedOut"

    run(work())


@pytest.mark.parametrize("chunked", [False, True])
def test_an_endless_body_ends_at_the_bound_on_the_wire(chunked: bool) -> None:
    async def answer(_: Seen, writer: asyncio.StreamWriter) -> None:
        head = b"Transfer-Encoding: chunked\r\n" if chunked else b""
        writer.write(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n")
        while True:
            writer.write(b"2710\r\n" + b"x" * 10_000 + b"\r\n" if chunked else b"x" * 10_000)
            await writer.drain()

    async def work() -> None:
        bounds = EgressBounds(response_wire_bytes=1_000_000)
        async with serving(answer) as server, egress(server.port, bounds=bounds) as way:
            fault = await fault_of(get(way, _url(server.port)))
            assert (fault.code, "on the wire" in fault.message) == ("EgressTooLarge", True)

    run(work())


def test_framing_counts_on_the_wire() -> None:
    """Chunks of one byte, each with a long extension: little body, much traffic."""

    async def answer(_: Seen, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"1;" + b"e" * 1000 + b"\r\nx\r\n")
            await writer.drain()

    async def work() -> None:
        bounds = EgressBounds(response_wire_bytes=200_000)
        async with serving(answer) as server, egress(server.port, bounds=bounds) as way:
            assert await code_of(get(way, _url(server.port))) in ("EgressTooLarge", "EgressFailed")

    run(work())


def test_framing_is_bounded() -> None:
    """Chunks of one byte cost the parser as much as large ones."""

    def chunks(framing_bytes: int) -> bytes:
        """A body of so many chunks that heads and framing come to about so many bytes."""
        return b"1\r\nx\r\n" * (framing_bytes // 5) + b"0\r\n\r\n"

    async def work() -> None:
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        async with serving(reply()) as server, egress(server.port) as way:
            below = limits.EGRESS_FRAMING_BYTES_MAX // 2
            server.answer = raw(head + chunks(below))
            assert (await get(way, _url(server.port)))[1] == b"x" * (below // 5)
            server.answer = raw(head + chunks(limits.EGRESS_FRAMING_BYTES_MAX + 1000))
            fault = await fault_of(get(way, _url(server.port)))
            assert (fault.code, "framing" in fault.message) == ("EgressTooLarge", True)

    run(work())


def test_a_body_at_the_bound_and_one_past_it() -> None:
    async def work() -> None:
        bounds = EgressBounds(response_bytes=100_000)
        async with serving(reply(b"x" * 100_000)) as server, egress(server.port, bounds=bounds) as way:
            assert len((await get(way, _url(server.port)))[1]) == 100_000
            server.answer = reply(b"x" * 100_001)
            assert await code_of(get(way, _url(server.port))) == "EgressTooLarge"
        defaults = EgressBounds()
        assert defaults.response_bytes == limits.EGRESS_RESPONSE_BYTES_MAX
        assert defaults.response_wire_bytes == limits.EGRESS_RESPONSE_WIRE_BYTES_MAX

    run(work())


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_a_compression_bomb_ends_at_the_decompressed_bound(coding: str) -> None:
    stream = zlib.compressobj(9, wbits=31 if coding == "gzip" else 15)
    bomb = b"".join(stream.compress(bytes(1 << 20)) for _ in range(64)) + stream.flush()
    assert len(bomb) < 100_000

    async def work() -> None:
        answer = reply(bomb, f"Content-Encoding: {coding}\r\n")
        async with serving(answer) as server, egress(server.port, bounds=EgressBounds(response_bytes=1 << 20)) as way:
            response = await way.fetch(FetchRequest("GET", _url(server.port)))
            taken = 0
            while taken < 1 << 20:
                piece = await response.read(10_000)
                assert 0 < len(piece) <= 10_000
                taken += len(piece)
                if taken + 10_000 > 1 << 20:
                    break
            assert await code_of(read_all(response)) == "EgressTooLarge"

    run(work())


def test_one_read_is_bounded() -> None:
    async def work() -> None:
        stream = zlib.compressobj(9, wbits=31)
        bomb = stream.compress(bytes(4 * limits.EGRESS_READ_BYTES_MAX)) + stream.flush()
        async with serving(reply(bomb, "Content-Encoding: gzip\r\n")) as server, egress(server.port) as way:
            response = await way.fetch(FetchRequest("GET", _url(server.port)))
            assert len(await response.read(1 << 30)) == limits.EGRESS_READ_BYTES_MAX
            response.close()

    run(work())


def test_a_reader_that_stops_stops_the_server() -> None:
    """Nothing is read ahead: the server gets rid of no more than the buffers between it and the reader."""

    async def work() -> None:
        stalled = asyncio.Event()
        sent = 0

        async def answer(_: Seen, writer: asyncio.StreamWriter) -> None:
            nonlocal sent
            writer.transport.set_write_buffer_limits(0)
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            while True:
                writer.write(bytes(100_000))
                drained = asyncio.ensure_future(writer.drain())
                done, _pending = await asyncio.wait([drained], timeout=0.2)
                if not done:
                    stalled.set()
                    drained.cancel()
                    return
                sent += 100_000

        received = 0

        def on_bytes(_: int, got: int) -> None:
            nonlocal received
            received += got

        async with serving(answer) as server, egress(server.port, on_bytes=on_bytes) as way:
            response = await way.fetch(FetchRequest("GET", _url(server.port)))
            await stalled.wait()
            # What is in the process is the library's buffer and one read of the loop's; the rest is in the kernel.
            assert received <= 2 * limits.EGRESS_BUFFER_BYTES + 256 * limits.KIB
            response.close()

    run(work())


@given(st.lists(st.sampled_from(PARTS) | st.binary(max_size=40), max_size=12).map(b"".join))
@settings(max_examples=60)
def test_any_bytes_end_in_a_response_or_in_a_known_error(data: bytes) -> None:
    async def work() -> None:
        async with serving(raw(data, hang_up=True)) as server, egress(server.port) as way:
            try:
                response, _ = await get(way, _url(server.port))
                assert 200 <= response.status <= 999
            except DeveloperError as error:
                assert error.code in ("EgressFailed", "EgressTooLarge", "EgressInvalidRequest", "EgressRefused")

    run(work())


# -- heads -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"garbage\r\n\r\n",
        b"HTTP/1.1 2x0 OK\r\n\r\n",
        b"HTTP/9.9 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nNo colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: b\x00c\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
        b"SSH-2.0-OpenSSH_9\r\n",
        b"",
    ],
)
def test_what_is_not_http_fails(data: bytes) -> None:
    async def work() -> None:
        async with serving(raw(data, hang_up=True)) as server, egress(server.port) as way:
            assert await code_of(get(way, _url(server.port))) == "EgressFailed"

    run(work())


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc",
    ],
)
def test_a_body_that_breaks_off_fails(data: bytes) -> None:
    async def work() -> None:
        async with serving(raw(data, hang_up=True)) as server, egress(server.port) as way:
            assert await code_of(get(way, _url(server.port))) == "EgressFailed"

    run(work())


def _head(*headers: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n" + b"".join(line + b"\r\n" for line in headers) + b"\r\n"


def test_response_headers_are_bounded() -> None:
    count, one, whole = (
        limits.EGRESS_RESPONSE_HEADERS_MAX,
        limits.EGRESS_RESPONSE_HEADER_BYTES_MAX,
        limits.EGRESS_RESPONSE_HEAD_BYTES_MAX,
    )
    fits = [
        _head(*[b"x: y"] * (count - 2)),
        _head(b"x: " + b"y" * (one - 10)),
        _head(*[b"x: " + b"y" * 16_000] * 4),
    ]
    too_large = [
        _head(*[b"x: y"] * count),
        _head(b"x: " + b"y" * (one + 10)),
        _head(b"y" * (one + 10) + b": x"),
        _head(*[b"x: " + b"y" * 16_000] * 5),
        _head(*[b"x: " + b"y" * 200] * 1_000_0),
        b"HTTP/1.1 200 " + b"y" * (one + 10),
        b"HTTP/1.1 100 Continue\r\n\r\n" * (whole // 10),
        b"HTTP/1.1 103 Early Hints\r\nx: " + b"y" * 10_000 + b"\r\n\r\n",
    ]

    async def work() -> None:
        async with serving(reply()) as server, egress(server.port) as way:
            for data in fits:
                server.answer = raw(data)
                assert (await get(way, _url(server.port)))[0].status == 200
            for data in too_large:
                server.answer = _repeated(data)
                assert await code_of(get(way, _url(server.port))) == "EgressTooLarge", data[:60]

    run(work())


def _repeated(data: bytes):
    """Interim heads come again and again; the others once."""

    async def answer(_: Seen, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        while data.startswith(b"HTTP/1.1 1"):
            writer.write(data)
            await writer.drain()

    return answer
