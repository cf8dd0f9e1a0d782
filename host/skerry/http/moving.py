"""Connections that change their process: to the worker that owns a request, or to a worker's successor.

A connection moves at a request boundary, when every request before it is answered and the answers have left, with the
bytes read of the next request. These are known from the last moment at which nothing was half read: what came since is
kept while a request is incomplete, and where several came in one piece the parser finds the boundary again. More than
HANDOVER_BYTES_MAX is not kept, and the boundary is lost: a request for another worker whose head came in one piece with
the end of so long a body ends the connection, once the requests before it are answered.

What one worker knows of the others is `Moves`; with one worker, connections become movable when it retires.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any, Final

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from skerry.http.connection import BoundedProtocol
from skerry.http.port import NEVER
from skerry.limits import (
    HANDOVER_BYTES_MAX,
    HANDOVER_RETRY_SECONDS,
    HANDOVER_SECONDS_MAX,
    HTTP_ACCEPTS_PER_TURN_MAX,
)
from skerry.supervisor.channel import Channel, ChannelEnded
from skerry.supervisor.handover import receive_handover, send_handover
from skerry.supervisor.ownership import Owners

HERE: Final = -1
_log: Final = logging.getLogger("skerry.http")

Addressed = Callable[[bytes | None, bytes], str | None]
"""(`Host` header, path as it was sent) -> the deployment that it belongs to, None where any worker may answer."""


class Moves:
    """What the connections of one port need for moving. Shape: `is_leaving` once this worker retires."""

    def __init__(self, index: int, port: int, doors: Sequence[Channel], addressed: Addressed | None) -> None:
        self.index = index
        self.is_leaving = False
        self._port = port
        self._doors = doors
        self._owners = Owners(len(doors))
        self._addressed = addressed

    @property
    def has_others(self) -> bool:
        """Whether there are other workers."""
        return len(self._doors) > 1

    def elsewhere(self, host: bytes | None, target: bytes) -> int:
        """The worker that a request belongs to, HERE for this one."""
        if self.is_leaving:
            return self.index
        name = None if self._addressed is None else self._addressed(host, target)
        if name is None:
            return HERE
        owner = self._owners.of(name)
        return HERE if owner == self.index else owner

    def send(self, owner: int, descriptor: int, received: bytes) -> bool:
        """Hands a connection to a worker; false where that cannot be done now."""
        try:
            return send_handover(self._doors[owner], descriptor, self._port, received)
        except OSError as error:
            _log.warning("a connection cannot be handed over now: %s", error.strerror)
            return False


class MovableProtocol(BoundedProtocol):
    """A connection that may move. Shape: `moves` is set by whoever makes it."""

    moves: Moves
    _owner: int = HERE
    """Of the request that waits to move."""
    _read: list[bytes] | None = None
    """What came since nothing was half read. None where nothing is half read now."""
    _read_bytes: int = 0
    """Of `_read`; past its bound nothing is kept and only this counts."""
    _heads: int = 0
    """Requests whose heads are in `_read` and in the piece that is being read."""

    def data_received(self, data: bytes) -> None:
        if self._owner != HERE:  # what comes while it waits moves with it
            self._keep(data)
            return
        super().data_received(data)
        if self._owner != HERE:
            self._keep(data)
            self._go(self._heads)
        elif self._is_open:
            self._keep(data)
        else:
            self._heads = 0
            if self._read is not None:
                self._read = None
                self._read_bytes = 0

    def on_headers_complete(self) -> None:
        if self._owner != HERE:  # behind one that moves, in the same piece
            return
        self._heads += 1
        host = None
        for name, value in self.headers:
            if name == b"host":
                host = value
        owner = self.moves.elsewhere(host, self.url)
        if owner == HERE or self._wire.is_closing():
            super().on_headers_complete()
            return
        self._owner = owner
        self._is_over = True  # nothing of it is for this worker
        self._in_head = False
        self._head_bytes = 0
        self.deadline = NEVER

    def send_400_response(self, msg: str) -> None:
        if self._owner == HERE:  # else it is the other worker's to say
            super().send_400_response(msg)

    def leave(self) -> None:
        """Moves to this worker's successor if nothing is under way; otherwise with the next request."""
        if self._owner == HERE and self._in_head and self._is_quiet():
            self._owner = self.moves.index
            self._is_over = True
            self._go(self._heads + 1)

    def _keep(self, data: bytes) -> None:
        if self._read is None:
            self._read = []
        self._read_bytes += len(data)
        if self._read_bytes <= HANDOVER_BYTES_MAX:
            self._read.append(data)
        else:
            self._read.clear()
        if self._owner != HERE:
            self._wire.pause_reading()

    def _go(self, number: int) -> None:
        """Begins to move, with what was read from the start of the request of that number, counted from 1."""
        if self._read and number > 1:
            self._read = [from_message(b"".join(self._read), number)]
            self._read_bytes = len(self._read[0])
        self._depart()

    def _is_quiet(self) -> bool:
        last: Any = self.cycle
        return (last is None or last.response_complete) and not self.pipeline

    def _depart(self) -> None:
        """Moves once the answers before are gone, which it looks for now and then."""
        wire = self._wire
        if wire.is_closing():
            return
        wire.pause_reading()
        if self._is_quiet() and not wire.get_write_buffer_size():
            if self.deadline == NEVER:
                self.deadline = self.loop.time() + HANDOVER_SECONDS_MAX
            received = b"".join(self._read or ())
            descriptor = wire.get_extra_info("socket").fileno()
            if len(received) < self._read_bytes or self.moves.send(self._owner, descriptor, received):
                wire.close()  # this process's descriptor of it
                return
        self.loop.call_later(HANDOVER_RETRY_SECONDS, self._depart)


def hand_on(connection: BoundedProtocol, moves: Moves) -> None:
    """Moves a connection to this worker's successor if nothing is under way; otherwise with the next request, or, where
    it was made to stay and the next request is half read, with the one after that."""
    if not isinstance(connection, MovableProtocol):
        if not connection.become(MovableProtocol):
            return
        assert isinstance(connection, MovableProtocol)
        connection.moves = moves
    connection.leave()


class Arrivals:
    """Takes connections from this worker's door. Shape: `make[port]` gives a port's protocol."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, door: Channel, make: Sequence[Callable[[], BoundedProtocol]]
    ) -> None:
        self._loop = loop
        self._door = door
        self._make = make
        self._beginning: set[asyncio.Task[None]] = set()
        loop.add_reader(door.fileno(), self.take)

    def close(self) -> None:
        """Takes no more; what is in the door is for the next worker."""
        self._loop.remove_reader(self._door.fileno())

    async def wait_closed(self) -> None:
        """Waits for connections that were taken and have no protocol yet."""
        if self._beginning:
            await asyncio.wait(self._beginning)

    def take(self) -> None:
        """Takes what is in the door; the loop calls it when something is."""
        for _ in range(HTTP_ACCEPTS_PER_TURN_MAX):
            try:
                arrived = receive_handover(self._door)
            except ChannelEnded:
                self.close()
                return
            except OSError as error:
                _log.error("a connection that was handed over is lost: %s", error.strerror)
                return
            if arrived is None:
                return
            task = self._loop.create_task(self._begin(*arrived))
            self._beginning.add(task)
            task.add_done_callback(self._beginning.discard)

    async def _begin(self, connection: Any, port: int, received: bytes) -> None:
        def protocol() -> BoundedProtocol:
            made = self._make[port]()
            made.handed = received
            return made

        try:
            connection.setblocking(False)
            await self._loop.connect_accepted_socket(protocol, connection)
        except OSError:  # it left already
            connection.close()


class _Counter:
    """Counts the messages that end in what a parser is fed."""

    def __init__(self) -> None:
        self.ended = 0

    def on_message_complete(self) -> None:
        self.ended += 1


def from_message(read: bytes, number: int) -> bytes:
    """What was read, from the start of the message of that number, counted from 1."""
    low, high = 0, len(read)
    while low < high:
        middle = (low + high) // 2
        if _messages_in(read[:middle]) >= number - 1:
            high = middle
        else:
            low = middle + 1
    return read[low:]


def _messages_in(data: bytes) -> int:
    counter = _Counter()
    try:
        HttpRequestParser(counter).feed_data(data)
    except (HttpParserError, HttpParserUpgrade):
        pass  # what follows is for whoever reads it
    return counter.ended
