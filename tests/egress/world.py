"""Real servers on loopback for the tests of egress, and an `Egress` that may reach them under names of its own.

The names end in `.test` and are answered by a table, so that no test asks a name server. Two loopback addresses play
two parts: 127.0.0.2 is allowed and stands for the public internet, 127.0.0.1 is what must not be reached.
"""

import asyncio
import contextlib
import gc
import os
import ssl
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvloop

from skerry.egress import Egress, EgressBounds, EgressPolicy, FetchRequest, FetchResponse, Resolve
from skerry.errors import DeveloperError

OUTSIDE = "127.0.0.2"
INSIDE = "127.0.0.1"

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}


def run(work: Coroutine[Any, Any, Any], loop: str = "uvloop") -> Any:
    """Runs a test's coroutine; a task left behind or a socket left open fails it."""
    before = _open_sockets()
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        result = runner.run(_leaving_nothing(work))
    gc.collect()  # what was left open warns now, and warnings are errors
    assert _open_sockets() <= before
    return result


def _open_sockets() -> int:
    count = 0
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            count += os.readlink(entry).startswith("socket:")
    return count


async def _leaving_nothing(work: Coroutine[Any, Any, Any]) -> Any:
    async with asyncio.timeout(60):
        result = await work
        deadline = asyncio.get_running_loop().time() + 1
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.sleep(0)  # a server's part of a handshake that failed is still ending; others never do
            assert asyncio.get_running_loop().time() < deadline, others
    return result


@dataclass
class Seen:
    """One request as a server saw it."""

    line: str
    headers: list[tuple[str, str]]
    body: bytes
    peer: int
    """The port of the client: the same for two requests over one connection."""

    def header(self, name: str) -> str | None:
        return next((value for each, value in self.headers if each.lower() == name.lower()), None)


Answer = Callable[[Seen, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Server:
    """A server that answers as a test says; `heads_only` leaves the body of a request to the test's `reader`."""

    answer: Answer
    port: int = 0
    heads_only: bool = False
    seen: list[Seen] = field(default_factory=list)
    connections: int = 0
    readers: list[asyncio.StreamReader] = field(default_factory=list)
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.readers.append(reader)
        self.writers.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, OSError, ssl.SSLError):
            while True:
                seen = await _request(reader, writer, self.heads_only)
                self.seen.append(seen)
                await self.answer(seen, writer)
                await writer.drain()
        writer.transport.abort()


async def _request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, heads_only: bool) -> Seen:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers: list[tuple[str, str]] = []
    for line in head[1:-2]:
        name, _, value = line.partition(": ")
        headers.append((name, value))
    seen = Seen(head[0], headers, b"", writer.get_extra_info("peername")[1])
    if heads_only:
        return seen
    if length := seen.header("Content-Length"):
        seen.body = await reader.readexactly(int(length))
    elif seen.header("Transfer-Encoding") == "chunked":
        while size := int(await reader.readline(), 16):
            seen.body += (await reader.readexactly(size + 2))[:-2]
        await reader.readline()
    return seen


@contextlib.asynccontextmanager
async def serving(
    answer: Answer, host: str = OUTSIDE, port: int = 0, tls: ssl.SSLContext | None = None, heads_only: bool = False
) -> AsyncIterator[Server]:
    server = Server(answer, heads_only=heads_only)
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await server.serve(reader, writer)
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            tasks.discard(task)

    listener = await asyncio.start_server(serve, host, port, ssl=tls)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        for task in list(tasks):
            task.cancel()
        await until(lambda: not tasks)
        await asyncio.sleep(0)  # the transports close


def reply(body: bytes = b"hello", head: str = "", status: str = "200 OK") -> Answer:
    async def answer(_: Seen, writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{head}\r\n".encode() + body)

    return answer


def raw(data: bytes, *, hang_up: bool = False) -> Answer:
    async def answer(_: Seen, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        if hang_up:
            await writer.drain()
            writer.close()

    return answer


def by_path(answers: dict[str, Answer]) -> Answer:
    async def answer(seen: Seen, writer: asyncio.StreamWriter) -> None:
        await answers[seen.line.split(" ")[1].partition("?")[0]](seen, writer)

    return answer


def redirect(location: str, status: int = 302) -> Answer:
    return reply(b"", f"Location: {location}\r\n", f"{status} Moved")


def names(table: dict[str, list[str]]) -> Resolve:
    """A resolver that knows these names; as the system's, it also reads addresses in odd spellings."""

    async def resolve(host: str, port: int) -> list[str]:
        name = host.removesuffix(".")
        if name in table:
            return table[name]
        if name.endswith(".test"):
            raise OSError("no such name")
        infos = await asyncio.get_running_loop().getaddrinfo(host, port)
        return [str(info[4][0]) for info in infos]

    return resolve


NAMES = {"a.test": [OUTSIDE], "b.test": [OUTSIDE], "inside.test": [INSIDE]}


def outside_policy(*ports: int, bounds: EgressBounds | None = None) -> EgressPolicy:
    """127.0.0.2 stands for the public internet."""
    return EgressPolicy.of(allow=[f"{OUTSIDE}:{port}" for port in ports], bounds=bounds)


def egress(*ports: int, bounds: EgressBounds | None = None, resolve: Resolve | None = None, **more: Any) -> Egress:
    return Egress(outside_policy(*ports, bounds=bounds), resolve or names(NAMES), **more)


async def read_all(response: FetchResponse, bytes_max: int = 65_536) -> bytes:
    pieces: list[bytes] = []
    while piece := await response.read(bytes_max):
        assert len(piece) <= bytes_max
        pieces.append(piece)
    return b"".join(pieces)


async def get(way: Egress, url: str, **more: Any) -> tuple[FetchResponse, bytes]:
    response = await way.fetch(FetchRequest("GET", url, **more))
    return response, await read_all(response)


async def until(condition: Callable[[], object]) -> None:
    """Lets the loop go on until a condition holds, which changes only as the loop goes on."""
    async with asyncio.timeout(10):
        while True:
            if condition():
                return
            await asyncio.sleep(0)


async def code_of(work: Awaitable[object]) -> str:
    """The code that a fetch or a read fails with."""
    return (await fault_of(work)).code


async def fault_of(work: Awaitable[object]) -> DeveloperError:
    try:
        result = await work
    except DeveloperError as error:
        return error
    raise AssertionError(f"nothing failed: {result!r}")


def loaded(context: ssl.SSLContext, certificate: bytes, key: bytes) -> ssl.SSLContext:
    """A context with a certificate and its key, which the ssl module takes from files only."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "both.pem"
        path.write_bytes(key + certificate)
        context.load_cert_chain(path)
    return context
