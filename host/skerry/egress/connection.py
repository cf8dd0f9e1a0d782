"""One connection: the HTTP library's response parser with our bounds on what arrives, and a rule for when it may be
used again.

A connection alternates between *exchanges* (one request, one response) and rest. What arrives at rest, or after the
response, is nobody's: the connection is dropped, so that no later fetch takes it for its answer.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from aiohttp.client_proto import ResponseHandler

from skerry.egress.policy import EgressBounds
from skerry.errors import DeveloperError
from skerry.limits import EGRESS_FRAMING_BYTES_MAX, EGRESS_RESPONSE_HEAD_BYTES_MAX

OnBytes = Callable[[int, int], None]
"""Told of bytes sent and received, as they go."""


class Connection(ResponseHandler):
    """A connection to one checked address.

    Shape: `in_exchange` from the request to the end of its response; `checked_at` is the loop's time of the address
    check.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        bounds: EgressBounds,
        on_bytes: OnBytes,
        on_lost: Callable[["Connection"], None],
    ) -> None:
        super().__init__(loop)
        self._bounds = bounds
        self._on_bytes = on_bytes
        self._on_lost = on_lost
        self._received = 0
        self._has_head = False
        self.in_exchange = False
        self.checked_at = loop.time()

    def begin_exchange(self) -> None:
        self._received = 0
        self._has_head = False
        self.in_exchange = True

    def end_exchange(self) -> None:
        self.in_exchange = False

    def is_connected(self) -> bool:
        """Whether a request may go out on it: at rest only while the check of its address is fresh."""
        if not super().is_connected():
            return False
        return self.in_exchange or self._loop.time() - self.checked_at < self._bounds.check_seconds

    def data_received(self, data: bytes) -> None:
        # Also called without data, to go on with what is buffered.
        if data:
            if not self.in_exchange:
                self.abort()
                return
            self._on_bytes(0, len(data))
            before = self._received
            self._received = before + len(data)
            if not self._has_head and before > EGRESS_RESPONSE_HEAD_BYTES_MAX:
                self._fail(f"The head of a response has at most {EGRESS_RESPONSE_HEAD_BYTES_MAX} bytes.")
                return
            if self._received > self._bounds.response_wire_bytes:
                self._fail(f"A response has at most {self._bounds.response_wire_bytes} bytes on the wire.")
                return
        super().data_received(data)
        # What is no body is heads and framing, and what the parser has not looked at: one read of the loop's at most.
        payload = self._payload
        if payload is not None and self._received - payload.total_bytes > EGRESS_FRAMING_BYTES_MAX:
            self._fail(f"Heads and framing of a response have at most {EGRESS_FRAMING_BYTES_MAX} bytes.")

    def feed_data(self, data: Any, size: int = 0) -> None:
        """Takes one parsed head; only the first that is not interim belongs to the request."""
        if self._has_head:
            self.abort()
            return
        self._has_head = data[0].code >= 200 or data[0].code == 101
        super().feed_data(data, size)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._on_lost(self)
        super().connection_lost(exc)

    def _fail(self, sentence: str) -> None:
        fault = DeveloperError("EgressTooLarge", sentence)
        if self._payload is not None:
            self._payload.set_exception(fault)
        self.set_exception(fault)
        if self.transport is not None:
            self.transport.abort()
