"""One connection: bounds that the HTTP library leaves open, and answers that leave in one piece.

The bounds are the size of a request's head, and how slow a request may be. A request that is whole when its
first bytes arrive, which is nearly every one, costs a comparison here and no timer.
"""

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from skerry.limits import HTTP_BODY_SECONDS_MAX, HTTP_HEAD_BYTES_MAX, HTTP_HEAD_SECONDS_MAX


class JoiningTransport:
    """A transport that keeps the head of an answer until its body is written: one system call and one packet for both.

    The library writes them apart. Limits: an answer that is streamed starts with its first piece of body.
    """

    __slots__ = ("_head", "_write", "get_extra_info", "is_closing", "pause_reading", "resume_reading", "transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        self._write = transport.write
        self._head = b""
        self.get_extra_info = transport.get_extra_info
        self.is_closing = transport.is_closing
        self.pause_reading = transport.pause_reading
        self.resume_reading = transport.resume_reading

    def write(self, data: bytes) -> None:
        if self._head:
            data, self._head = self._head + data, b""
        elif data[-4:] == b"\r\n\r\n" and data[:9] == b"HTTP/1.1 " and data[9:10] != b"1":
            self._head = data
            return
        self._write(data)

    def flush(self) -> None:
        """Writes a head that has no body."""
        if self._head:
            head, self._head = self._head, b""
            self._write(head)

    def close(self) -> None:
        self.flush()
        self.transport.close()


class BoundedProtocol(HttpToolsProtocol):
    """One connection, which ends when a request's head or body takes too much or too long."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_bytes = 0
        self._in_head = True
        self._slow: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        self._joining = JoiningTransport(transport)
        super().connection_made(cast("asyncio.Transport", self._joining))
        self._slow = self.loop.call_later(HTTP_HEAD_SECONDS_MAX, self._too_slow)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            # What came before and was not a whole head; this piece is bounded by the size of one read.
            if self._head_bytes > HTTP_HEAD_BYTES_MAX:
                self.transport.close()
                return
            self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head:
            if self._head_bytes and self._slow is None:
                self._slow = self.loop.call_later(HTTP_HEAD_SECONDS_MAX, self._too_slow)
        elif self._slow is None:
            self._slow = self.loop.call_later(HTTP_BODY_SECONDS_MAX, self._too_slow)

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._head_bytes = 0
        self._stop_waiting()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._in_head = True
        self._stop_waiting()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        self._joining.flush()
        super().on_response_complete()

    def _stop_waiting(self) -> None:
        if self._slow is not None:
            self._slow.cancel()
            self._slow = None

    def _too_slow(self) -> None:
        self._slow = None
        self.transport.close()
