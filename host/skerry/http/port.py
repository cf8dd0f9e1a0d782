"""What the connections of one port have in common: who serves what, the first lines of answers, and the time they have.

A connection has one deadline, a number that it sets as it goes; a look at all of them every `HTTP_SWEEP_SECONDS` ends
those that are past it. So a deadline costs an assignment, not a timer, and is met at most that much later. A turn of
the loop sees to `HTTP_EXPIRED_PER_TURN_MAX` of them: thousands of sockets that came together are pinged together.
"""

import asyncio
import logging
from collections import deque
from http import HTTPStatus
from typing import Final, Protocol

from skerry.http.front import Front
from skerry.limits import HTTP_EXPIRED_PER_TURN_MAX, HTTP_SWEEP_SECONDS

NEVER: Final = float("inf")
_log: Final = logging.getLogger("skerry.http")


class Timed(Protocol):
    """What has a deadline, in seconds of the loop's clock, and an `expire` that is called past it."""

    deadline: float

    def expire(self) -> None: ...


class PortShare:
    """Shared by the connections of a port. Shape: `front` None where the library serves everything."""

    def __init__(self, loop: asyncio.AbstractEventLoop, front: Front | None) -> None:
        self.front = front
        self._loop = loop
        self._timed: set[Timed] = set()
        self._due: deque[Timed] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._default_headers: list[tuple[bytes, bytes]] = []
        self._starts: dict[int, bytes] = {}

    def watch(self, connection: Timed) -> None:
        """Ends a connection that is past its deadline, until `forget`."""
        self._timed.add(connection)
        if self._timer is None:
            self._timer = self._loop.call_later(HTTP_SWEEP_SECONDS, self.sweep)

    def forget(self, connection: Timed) -> None:
        """Watches a connection no more."""
        self._timed.discard(connection)

    def sweep(self) -> None:
        """Ends the connections that are past their deadlines: some now, the others in the next turns of the loop."""
        now = self._loop.time()
        self._due.extend([timed for timed in self._timed if timed.deadline <= now])
        self._expire_some()

    def _expire_some(self) -> None:
        due = self._due
        for _ in range(min(len(due), HTTP_EXPIRED_PER_TURN_MAX)):
            connection = due.popleft()
            if connection.deadline > self._loop.time():  # it has done something since, or has ended
                continue
            try:
                connection.expire()
            except Exception:  # the others have deadlines too
                _log.exception("a connection past its deadline could not be ended")
        if due:
            self._loop.call_soon(self._expire_some)
        else:
            self._timer = self._loop.call_later(HTTP_SWEEP_SECONDS, self.sweep) if self._timed else None

    def start_of_answer(self, status: int, default_headers: list[tuple[bytes, bytes]]) -> bytes:
        """The status line and the library's own headers, of which it makes a new list each second, with the date."""
        if default_headers is not self._default_headers:
            self._default_headers = default_headers
            self._starts.clear()
        start = self._starts.get(status)
        if start is None:
            lines = [b"HTTP/1.1 %d %s" % (status, HTTPStatus(status).phrase.encode())]
            lines += [b"%s: %s" % header for header in default_headers]
            start = self._starts[status] = b"\r\n".join(lines)
        return start
