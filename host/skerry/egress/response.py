"""A response as its reader pulls it: nothing is read ahead beyond a small buffer, and every way to end is bounded.

The peer is stopped by TCP's own flow control while nobody reads. Time runs in two ways: a silent peer is given up while
the reader waits for it, and the total time runs whether or not anybody reads, so a response that is forgotten ends too.
"""

import asyncio
from collections.abc import Callable

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError

from skerry.egress.decode import Decoder, coding_of
from skerry.egress.policy import EgressBounds
from skerry.egress.upload import Upload
from skerry.errors import DeveloperError
from skerry.limits import EGRESS_PULL_BYTES, EGRESS_READ_BYTES_MAX, EGRESS_SMALL_BODY_BYTES

_BROKEN = "The other server broke the response off."


class FetchResponse:
    """What a fetch answers with: the head, and the body by `read`.

    Shape: `headers` in their order, values as bytes read as Latin-1, which is what fetch shows; `url` is where the
    response came from after redirects. Close it when it is not read to its end; the total time ends it otherwise.
    Concurrency: one reader at a time; `close` at any time.
    """

    __slots__ = (
        "_bounds",
        "_decoder",
        "_ended",
        "_fault",
        "_on_end",
        "_raw",
        "_reading",
        "_small",
        "_taken",
        "_timer",
        "headers",
        "redirected",
        "status",
        "status_text",
        "url",
    )

    def __init__(
        self,
        raw: aiohttp.ClientResponse,
        *,
        url: str,
        redirected: bool,
        bounds: EgressBounds,
        upload: Upload | None,
        total_deadline: float,
        on_end: Callable[["FetchResponse"], None],
    ) -> None:
        self.status: int = raw.status
        self.status_text: str = shown(raw.reason or "")
        self.url = url
        self.redirected = redirected
        self.headers: list[tuple[str, str]] = [
            (name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in raw.raw_headers
        ]
        coding = coding_of(",".join(value for name, value in self.headers if name == "content-encoding"))
        self._decoder = Decoder(coding) if coding else None
        self._raw = raw
        self._small: bytes | None = None
        self._bounds = bounds
        self._taken = 0
        self._fault: DeveloperError | None = None
        self._ended = False
        self._reading = False
        self._on_end = on_end
        self._timer: asyncio.TimerHandle | None = None
        content = raw.content
        if content.is_eof() and content.total_bytes <= EGRESS_SMALL_BODY_BYTES and content.exception() is None:
            self._small = content.read_nowait(-1)
            self._let_go()
            return
        if upload is not None and not upload.whole:
            upload.on_fault = self._fail
        self._timer = asyncio.get_running_loop().call_at(total_deadline, self._on_total)

    @property
    def ended(self) -> bool:
        """Whether it holds no connection any more; what was taken over with the head can still be read."""
        return self._ended

    async def read(self, bytes_max: int) -> bytes:
        """At most `bytes_max` bytes of the body, decompressed; none at its end.

        Raises: DeveloperError EgressFailed, EgressTimedOut, EgressTooLarge, and the same again from then on.
        Limits: EGRESS_READ_BYTES_MAX for one read (EGRESS_PULL_BYTES where nothing is compressed),
        EGRESS_RESPONSE_BYTES_MAX for the body.
        """
        assert bytes_max > 0, "a read of nothing would look like the end"
        if self._fault is not None:
            raise self._fault
        if self._reading:
            raise DeveloperError("EgressInvalidRequest", "Await one read of a response before the next.")
        self._reading = True
        try:
            piece = await self._next(min(bytes_max, EGRESS_READ_BYTES_MAX))
            self._taken += len(piece)
            if self._taken > self._bounds.response_bytes:
                sentence = f"The body of a response has at most {self._bounds.response_bytes} bytes."
                raise DeveloperError("EgressTooLarge", sentence)
        except DeveloperError as error:
            self._fail(error)
            raise self._fault or error from None
        finally:
            self._reading = False
        if not piece:
            self._let_go()
        return piece

    def close(self) -> None:
        """Gives the connection up; reading on fails. Safe at any time, also twice."""
        self._fail(DeveloperError("EgressFailed", "The response was closed before its end."))

    # -- reading ---------------------------------------------------------------------------------------------------

    async def _next(self, bytes_max: int) -> bytes:
        decoder = self._decoder
        if decoder is None:
            return await self._pull(bytes_max)
        while True:
            piece = decoder.take(bytes_max)
            if piece:
                return piece
            data = await self._pull(EGRESS_PULL_BYTES)
            if not data:
                decoder.finish()
                return b""
            decoder.feed(data)

    async def _pull(self, bytes_max: int) -> bytes:
        """What arrived, or once something arrives; none at the end."""
        small = self._small
        if small is not None:
            self._small = small[bytes_max:]
            return small[:bytes_max]
        if self._ended:
            return b""
        content = self._raw.content
        bytes_max = min(bytes_max, EGRESS_PULL_BYTES)
        try:
            data = content.read_nowait(bytes_max)
            if data:
                # A peer that is faster than its reader must not keep the loop to itself.
                await asyncio.sleep(0)
                return data
            if content.at_eof():
                return b""
            async with asyncio.timeout(self._bounds.silence_seconds):
                return await content.read(bytes_max)
        except TimeoutError:
            sentence = f"The other server sent nothing for {self._bounds.silence_seconds:g} s."
            raise DeveloperError("EgressTimedOut", sentence) from None
        except (aiohttp.ClientError, OSError, HttpProcessingError) as error:
            raise DeveloperError("EgressFailed", _BROKEN) from error

    # -- ending ----------------------------------------------------------------------------------------------------

    def _on_total(self) -> None:
        sentence = f"A fetch takes at most {self._bounds.total_seconds:g} s, with reading the response."
        self._fail(DeveloperError("EgressTimedOut", sentence))

    def _fail(self, fault: DeveloperError) -> None:
        """Makes a fault the last word, unless the body had ended, and drops the connection."""
        if self._fault is None:
            self._fault = fault
        self._small = None
        if self._ended:
            return
        content = self._raw.content
        if content.exception() is None and not content.is_eof():
            content.set_exception(self._fault)
        connection = self._raw.connection
        transport = connection.transport if connection is not None else None
        if transport is not None:
            transport.abort()
        self._let_go()

    def _let_go(self) -> None:
        """Gives back what the response holds: the connection, the timer, the place. Once."""
        if self._ended:
            return
        self._ended = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._raw.close()
        self._on_end(self)


def shown(text: str) -> str:
    """A text of the head as fetch shows it: its bytes read as Latin-1."""
    return text.encode("utf-8", "surrogateescape").decode("latin-1")
