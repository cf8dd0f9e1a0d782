"""One connection: the library's, with bounds on what it leaves open, and with calls served on the spot.

A request's head says which way it goes. A call (`direct`) is handed on when its last byte is there, and its answer
written when it is done; everything else becomes a task of the library's. Both kinds stand in one queue, so answers
leave in the order of the requests: `cycle` is the request that arrived last, `_current` the one that is being answered,
`pipeline` what is in between, during which nothing more is read.

A connection takes a turn of the loop for each request that was sent before the one in front of it was answered, so that
a client that sends many at once delays nobody else; and it begins none while its client does not take what was already
answered. The bounds are the size of a request's head, how slow a request may be, and how long a connection may be idle
or its client take nothing of an answer.
"""

import asyncio
from typing import Any, cast

import httptools
from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from skerry.http.addresses import authority_of
from skerry.http.direct import DirectExchange, direct_endpoint
from skerry.http.port import NEVER, PortShare
from skerry.http.sync_socket import SyncSocket
from skerry.limits import HTTP_BODY_SECONDS_MAX, HTTP_HEAD_BYTES_MAX, HTTP_HEAD_SECONDS_MAX, HTTP_IDLE_SECONDS_MAX


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

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        share: PortShare,
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.deadline = NEVER
        self._share = share
        self._head_bytes = 0
        self._in_head = True
        self._arriving: DirectExchange | None = None
        self._current: Any = None
        self._has_asked = False
        self._is_over = False
        self._unsent = 0
        self._is_open = False  # a request has begun and is not whole
        self.handed: bytes | None = None  # what another worker read of it, where it was there before

    # -- the connection ------------------------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        self._wire: asyncio.Transport = transport
        self._joining = JoiningTransport(transport)
        super().connection_made(cast("asyncio.Transport", self._joining))
        self._ip = None if self.client is None else self.client[0]
        self.deadline = self.loop.time() + HTTP_HEAD_SECONDS_MAX
        self._share.watch(self)
        if self.handed is not None:
            self._go_on_from(self.handed)

    def _go_on_from(self, received: bytes) -> None:
        """Goes on where another worker stopped: it had answered the requests before."""
        if received:
            self.data_received(received)
        else:
            self._has_asked = True
            self.deadline = self.loop.time() + HTTP_IDLE_SECONDS_MAX

    def become(self, kind: "type[BoundedProtocol]") -> bool:
        """Goes on as another kind of connection; false where a request is half read, and nothing changes."""
        if self._is_open:
            return False
        self.__class__ = cast("Any", kind)
        self._wire.set_protocol(self)
        # The parser and the transport remember the methods they call.
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._share.forget(self)
        self.deadline = NEVER
        self.pipeline.clear()
        if self._current is not None:
            self._current.disconnected = True
        super().connection_lost(exc)
        self._arriving = self._current = None

    def expire(self) -> None:
        """Ends the connection, which is past its deadline, unless its client is taking an answer, however slowly."""
        self.deadline = NEVER
        unsent = self._wire.get_write_buffer_size()
        if not unsent:
            self._wire.close()
        elif unsent == self._unsent:
            self._wire.abort()
        else:
            self._unsent = unsent
            self.deadline = self.loop.time() + HTTP_IDLE_SECONDS_MAX

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.pipeline:
            self.loop.call_soon(self._go_on)

    # -- what arrives --------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        is_first = self._in_head and not self._head_bytes
        if self._in_head:
            # What came before and was not a whole head; this piece is bounded by the size of one read.
            if self._head_bytes > HTTP_HEAD_BYTES_MAX:
                self.transport.close()
                return
            self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head:
            if is_first and self._head_bytes and self._has_asked:  # else the time since the connection counts
                self.deadline = self.loop.time() + HTTP_HEAD_SECONDS_MAX
        elif self.deadline == NEVER:
            self.deadline = self.loop.time() + HTTP_BODY_SECONDS_MAX

    def on_message_begin(self) -> None:
        self.url = b""
        self.headers = []
        self._is_open = True

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._head_bytes = 0
        self.deadline = NEVER
        if self._wire.is_closing():  # what was sent after a request that ends the connection
            self._is_over = True
            return
        self._has_asked = True
        last: Any = self.cycle
        is_next = last is None or last.response_complete
        exchange = self._direct_exchange()
        if exchange is None:
            self._hand_over()
            if is_next and not self._is_changing():
                self._current = self.cycle
            return
        self._arriving = exchange
        self.cycle = cast("Any", exchange)
        if is_next and not self.flow.write_paused:
            exchange.begun = True
            self._current = exchange
            return
        self.flow.pause_reading()
        self.pipeline.appendleft((cast("Any", exchange), cast("Any", None)))

    def on_body(self, body: bytes) -> None:
        exchange = self._arriving
        if exchange is None:
            if not self._is_over:
                super().on_body(body)
        elif not exchange.body.add(body) and not exchange.whole:
            exchange.keep_alive = False
            self._arrived(exchange)

    def on_message_complete(self) -> None:
        self._in_head = True
        self._is_open = False
        self.deadline = NEVER
        exchange = self._arriving
        if exchange is not None:
            self._arriving = None
            if not exchange.whole:
                self._arrived(exchange)
        elif not self._is_over and not self._is_changing():
            super().on_message_complete()
            if self.cycle.response_complete:  # it was refused before it had arrived
                self.deadline = self.loop.time() + HTTP_IDLE_SECONDS_MAX

    def _arrived(self, exchange: DirectExchange) -> None:
        exchange.whole = True
        if exchange.begun:
            exchange.serve()

    def _direct_exchange(self) -> DirectExchange | None:
        """The request whose head is there, where it is one to serve directly."""
        front, parser = self._share.front, cast("Any", self.parser)
        if front is None or parser.get_method() != b"POST":
            return None
        headers = dict(self.headers)
        if len(headers) != len(self.headers):  # a header that came twice may be the host's
            return None
        found = direct_endpoint(front, headers.get(b"host"), self.url)
        if found is None or b"expect" in headers or parser.should_upgrade():
            return None
        return DirectExchange(
            *found,
            self.url,
            headers,
            front.request_ids.name(headers.get(b"convex-request-id")),
            self._ip,
            parser.should_keep_alive() and (b"connection" not in headers or parser.get_http_version() != "1.0"),
            self.answer,
        )

    def _is_changing(self) -> bool:
        """Whether the request that arrives makes this a connection of another kind."""
        return self.parser.should_upgrade() and self._should_upgrade()

    def _should_upgrade(self) -> bool:
        return self._share.front is not None and self._get_upgrade() == b"websocket"

    def handle_websocket_upgrade(self) -> None:
        """Goes on as a WebSocket, unless a request before it waits for its answer."""
        front, current = self._share.front, self._current
        if front is None or self.pipeline or not (current is None or current.response_complete):
            self.transport.close()
            return
        self.connections.discard(self)
        self._share.forget(self)
        self.deadline = NEVER
        socket = SyncSocket(self._share, front, self.connections, self.loop)
        lines = [b"%b: %b\r\n" % header for header in self.headers]
        self._wire.set_protocol(socket)
        socket.connection_made(self._wire)
        socket.data_received(b"GET %b HTTP/1.1\r\n%b\r\n" % (self.url, b"".join(lines)))

    def _hand_over(self) -> None:
        """Has the library make a task of the request whose head is there."""
        url, headers = self.url, self.headers
        authority = authority_of(url)
        if authority is not None:  # it counts in place of what the headers say
            headers = [(b"host", authority), *((name, value) for name, value in headers if name != b"host")]
        super().on_message_begin()
        self.url = url
        self.headers += headers
        self.expect_100_continue = any(
            name == b"expect" and value.lower() == b"100-continue" for name, value in headers
        )
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuses what is no HTTP, but never in place of the answer that a request before it waits for."""
        current = self._current
        if current is None or current.response_complete or not _has_arrived(current):
            super().send_400_response(msg)
            return
        current.keep_alive = False
        self.pipeline.clear()
        self.flow.pause_reading()

    # -- what leaves ---------------------------------------------------------------------------------------------

    def answer(self, exchange: DirectExchange, status: int, body: bytes) -> None:
        """Writes the answer to the current request, unless the client has left."""
        wire = self._wire
        if exchange.disconnected or wire.is_closing():
            return
        start = self._share.start_of_answer(status, self.server_state.default_headers)
        whole, rest = exchange.bytes_of_answer(start, body)
        wire.write(whole)
        if rest:
            wire.write(rest)
        if not exchange.keep_alive:
            wire.close()
        self.on_response_complete()

    def on_response_complete(self) -> None:
        self._joining.flush()
        self.server_state.total_requests += 1
        if self._in_head and not self._head_bytes:
            self.deadline = self.loop.time() + HTTP_IDLE_SECONDS_MAX
        if self.pipeline:
            self.loop.call_soon(self._go_on)
        elif not self._wire.is_closing():
            self.flow.resume_reading()

    def _go_on(self) -> None:
        """Begins the next request, where there is one and the one before it is answered and its answer is taken."""
        if not self.pipeline or self.flow.write_paused or self._wire.is_closing():
            return
        if self._current is not None and not self._current.response_complete:
            return
        request, app = self.pipeline.pop()
        self._current = request
        if not self.pipeline:
            self.flow.resume_reading()
        if not self._in_head:  # what is arriving has not been read for a while
            self.deadline = self.loop.time() + HTTP_BODY_SECONDS_MAX
        elif not self._head_bytes:
            self.deadline = NEVER
        exchange: Any = request
        if not isinstance(exchange, DirectExchange):
            task = self.loop.create_task(request.run_asgi(app))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)
            return
        exchange.begun = True
        if exchange.whole:
            exchange.serve()


def _has_arrived(request: Any) -> bool:
    return request.whole if isinstance(request, DirectExchange) else not request.more_body
