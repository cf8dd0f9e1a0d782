"""Taking new connections: all that wait, each time the loop looks.

The loop's own server takes one connection a turn. Under load a turn lasts as long as the calls of every connection
together, so of a burst of connections the last one would wait for as many turns as there are connections before it.

A process that is out of descriptors leaves the others in the kernel's queue and looks again a moment later: the
listening socket stays readable meanwhile, and the loop would spin.
"""

import asyncio
import errno
import logging
import socket
from collections.abc import Callable
from typing import Final

from skerry.limits import HTTP_ACCEPT_PAUSE_SECONDS, HTTP_ACCEPTS_PER_TURN_MAX

_log: Final = logging.getLogger("skerry.http")
_EXHAUSTED: Final = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))


class Acceptor:
    """A listening socket whose connections get a protocol each; `close` and `wait_closed` as an asyncio server's."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, listener: socket.socket, protocol: Callable[[], asyncio.Protocol]
    ) -> None:
        self._loop = loop
        self._listener = listener
        self._protocol = protocol
        self._beginning: set[asyncio.Task[None]] = set()
        self._pause: asyncio.TimerHandle | None = None
        listener.setblocking(False)
        loop.add_reader(listener, self.accept)

    def close(self) -> None:
        """Takes no more connections. The socket is its owner's to close."""
        self._loop.remove_reader(self._listener)
        if self._pause is not None:
            self._pause.cancel()

    async def wait_closed(self) -> None:
        """Waits for connections that were taken and have no protocol yet."""
        if self._beginning:
            await asyncio.wait(self._beginning)

    def accept(self) -> None:
        """Takes what waits; the loop calls it when something does."""
        for _ in range(HTTP_ACCEPTS_PER_TURN_MAX):
            try:
                connection, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionError:  # it left while it waited
                continue
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    raise
                _log.error("no connection can be taken: %s", error.strerror)
                self._loop.remove_reader(self._listener)
                self._pause = self._loop.call_later(HTTP_ACCEPT_PAUSE_SECONDS, self._go_on)
                return
            task = self._loop.create_task(self._begin(connection))
            self._beginning.add(task)
            task.add_done_callback(self._beginning.discard)

    def _go_on(self) -> None:
        self._pause = None
        self._loop.add_reader(self._listener, self.accept)

    async def _begin(self, connection: socket.socket) -> None:
        try:
            connection.setblocking(False)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await self._loop.connect_accepted_socket(self._protocol, connection)
        except OSError:  # it left already
            connection.close()
