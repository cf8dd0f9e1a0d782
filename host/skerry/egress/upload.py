"""The body of a request on its way out: in bounded pieces, counted, and with a deadline only while the peer is awaited.

The HTTP library pulls; each pull means that the piece before it went into the socket. A function that takes its time to
produce a piece spends its own total time, not the peer's.
"""

from collections.abc import AsyncIterator, Callable

from skerry.egress.policy import EgressBounds
from skerry.egress.request import body_too_large
from skerry.errors import DeveloperError
from skerry.limits import EGRESS_PIECE_BYTES


class Upload:
    """An asynchronous iterator of pieces, of a body in memory or of a function's stream.

    Shape: `fault` is what stopped it, `sent` the bytes handed over, `whole` whether all were. `wait_for_function` and
    `wait_for_peer` are called as the two take turns; `on_fault` once.
    """

    def __init__(self, body: bytes | AsyncIterator[bytes], bounds: EgressBounds) -> None:
        self._source = None if isinstance(body, bytes) else body
        self._rest = memoryview(body) if isinstance(body, bytes) else memoryview(b"")
        self._bounds = bounds
        self.sent = 0
        self.whole = False
        self.fault: DeveloperError | None = None
        self.wait_for_function: Callable[[], None] = _nothing
        self.wait_for_peer: Callable[[], None] = _nothing
        self.on_fault: Callable[[DeveloperError], None] = _ignored

    def __aiter__(self) -> "Upload":
        return self

    async def __anext__(self) -> bytes:
        if not self._rest and self._source is not None:
            self.wait_for_function()
            try:
                self._rest = await self._next_of(self._source)
            except DeveloperError as fault:
                self.fault = fault
                self.on_fault(fault)
                raise
            self.wait_for_peer()
        else:
            self.wait_for_peer()
        if not self._rest:
            self.whole = True
            raise StopAsyncIteration
        piece = bytes(self._rest[:EGRESS_PIECE_BYTES])
        self._rest = self._rest[EGRESS_PIECE_BYTES:]
        self.sent += len(piece)
        return piece

    async def _next_of(self, source: AsyncIterator[bytes]) -> memoryview:
        """The next bytes of a function's stream; none at its end."""
        while True:
            try:
                piece = await anext(source)
            except StopAsyncIteration:
                return memoryview(b"")
            except DeveloperError:
                raise
            except Exception as error:
                raise DeveloperError("EgressFailed", "The stream of the request's body failed.") from error
            if self.sent + len(piece) > self._bounds.request_body_bytes:
                raise body_too_large(self._bounds)
            if piece:
                return memoryview(piece)


def _nothing() -> None:
    pass


def _ignored(_: DeveloperError) -> None:
    pass
