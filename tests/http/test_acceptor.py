"""Connections that come together are taken together, and running out of descriptors costs none of them."""

import asyncio
import contextlib
import resource
import socket
from collections.abc import Generator

import uvloop

from skerry.http.acceptor import Acceptor
from skerry.limits import HTTP_ACCEPT_PAUSE_SECONDS, HTTP_ACCEPTS_PER_TURN_MAX


class _Counted(asyncio.Protocol):
    """Notes in which turn of the loop a connection became one."""

    def __init__(self, turn: list[int], turns: list[int], wanted: int, done: asyncio.Event) -> None:
        self._turn, self._turns, self._wanted, self._done = turn, turns, wanted, done

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._turns.append(self._turn[0])
        assert transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        transport.close()
        if len(self._turns) == self._wanted:
            self._done.set()


@contextlib.contextmanager
def _connected(count: int) -> Generator[socket.socket]:
    """A listening socket with this many connections in its queue."""
    with contextlib.ExitStack() as cleanup:
        listener = cleanup.enter_context(socket.create_server(("127.0.0.1", 0), backlog=1024))
        for _ in range(count):
            cleanup.enter_context(socket.create_connection(listener.getsockname()))
        yield listener


async def _turns_of(count: int, *, exhausted: bool = False) -> list[int]:
    loop = asyncio.get_running_loop()
    turn, turns, done = [0], list[int](), asyncio.Event()

    def next_turn() -> None:
        turn[0] += 1
        if not done.is_set():
            loop.call_soon(next_turn)

    with _connected(count) as listener:
        acceptor = Acceptor(loop, listener, lambda: _Counted(turn, turns, count, done))
        if exhausted:
            with _no_descriptors():
                acceptor.accept()
            assert not turns
        else:
            next_turn()
        await asyncio.wait_for(done.wait(), 100 * HTTP_ACCEPT_PAUSE_SECONDS)
        acceptor.close()
        await acceptor.wait_closed()
    return turns


@contextlib.contextmanager
def _no_descriptors() -> Generator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_burst_is_taken_in_one_turn() -> None:
    assert len(set(uvloop.run(_turns_of(HTTP_ACCEPTS_PER_TURN_MAX)))) == 1


def test_one_past_the_bound_waits_a_turn() -> None:
    turns = uvloop.run(_turns_of(HTTP_ACCEPTS_PER_TURN_MAX + 1))
    assert [turns.count(turn) for turn in sorted(set(turns))] == [HTTP_ACCEPTS_PER_TURN_MAX, 1]


def test_out_of_descriptors_nobody_is_lost() -> None:
    assert len(uvloop.run(_turns_of(3, exhausted=True))) == 3
