"""The fetches of one action: requests that leave, answers that come, bodies as streams both ways.

The host has one way out, which it is handed (`WayOut`); what may be reached, how redirects are followed and how large
things may get is decided there. Here is the bookkeeping: a fetch is known by the number its guest gave it, from
`fetch/start` until its body was read to the end, `fetch/cancel`, or the action's end.

Nothing is buffered: a chunk of a request's body is asked for once the one before it is on its way, and a chunk of an
answer's body is read when the guest asks for it.

Concurrency: the loop thread.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, Final, Protocol

import orjson

from skerry import limits
from skerry.errors import DeveloperError, SkerryError, SystemFault
from skerry.functions.action_operations import BodyPart, FetchToStart

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_log: Final = logging.getLogger("skerry.functions")


class FetchedResponse(Protocol):
    """An answer whose head has come. Shape: `read` gives at most so many bytes, none at the end."""

    @property
    def status(self) -> int: ...
    @property
    def status_text(self) -> str: ...
    @property
    def url(self) -> str: ...
    @property
    def redirected(self) -> bool: ...
    @property
    def headers(self) -> list[tuple[str, str]]: ...
    @property
    def ended(self) -> bool:
        """Whether all of the body is here already."""
        ...

    async def read(self, bytes_max: int, /) -> bytes: ...
    def close(self) -> None: ...


class WayOut(Protocol):
    """How a deployment's functions reach the network."""

    async def fetch(
        self,
        method: str,
        url: str,
        headers: list[tuple[str, str]],
        body: "bytes | AsyncIterator[bytes] | None",
        redirect: str,
        /,
    ) -> FetchedResponse:
        """Sends a request; answers once its head is there. Raises: SkerryError."""
        ...

    async def close(self) -> None: ...


class Operations(Protocol):
    """Where results go: the action."""

    def complete(self, ticket: int, status: int, payload: bytes) -> None: ...
    def refuse(self, ticket: int, error: SkerryError) -> None: ...
    def release(self, size: int) -> None: ...


class Fetches:
    """All fetches of one action."""

    def __init__(self, action: Operations, way_out: WayOut | None, loop: asyncio.AbstractEventLoop) -> None:
        self._action = action
        self._way_out = way_out
        self._loop = loop
        self._open: dict[int, _OpenFetch] = {}

    def step(self, operation: str, ticket: int, needed: Any) -> None:
        """Begins one operation."""
        if operation == "fetch":
            self._start(ticket, needed)
        elif operation == "cancel":
            found = self._open.pop(needed, None)
            if found is not None:
                found.close()
        elif operation == "write":
            part: BodyPart = needed
            self._find(ticket, part.number, lambda found: found.write(ticket, part))
        else:
            number, is_whole, is_text = needed
            self._find(ticket, number, lambda found: found.read(ticket, is_whole or is_text, is_text))

    def close(self) -> None:
        """Ends every fetch."""
        for fetch in self._open.values():
            fetch.close()
        self._open.clear()

    def forget(self, number: int) -> None:
        """A fetch came to its end."""
        self._open.pop(number, None)

    def _start(self, ticket: int, wanted: FetchToStart) -> None:
        if self._way_out is None:
            refusal = DeveloperError(
                "EgressRefused", "This server lets no action reach the network: its operator has not allowed it."
            )
        elif wanted.number in self._open:
            refusal = DeveloperError("InvalidArgument", "A fetch of that number is open already.")
        elif len(self._open) >= limits.ACTION_FETCHES_OPEN_MAX:
            refusal = DeveloperError(
                "TooManyConcurrentOperations",
                f"More than {limits.ACTION_FETCHES_OPEN_MAX} fetches are open. Read or cancel their bodies.",
            )
        else:
            fetch = self._open[wanted.number] = _OpenFetch(self, self._action, wanted, self._loop)
            fetch.start(ticket, self._way_out)
            return
        self._action.release(len(wanted.body or b""))
        self._action.refuse(ticket, refusal)

    def _find(self, ticket: int, number: int, use: "Callable[[_OpenFetch], None]") -> None:
        found = self._open.get(number)
        if found is None:
            self._action.refuse(ticket, DeveloperError("InvalidArgument", "No fetch of that number is open."))
        else:
            use(found)


class _OpenFetch:
    """One fetch. Its tasks are kept, so that closing it ends them."""

    def __init__(
        self, fetches: Fetches, action: Operations, wanted: FetchToStart, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._fetches = fetches
        self._action = action
        self._wanted = wanted
        self._loop = loop
        self._outgoing = _OutgoingBody(action) if wanted.is_streamed else None
        self._held_bytes = len(wanted.body or b"")
        self._response: FetchedResponse | None = None
        self._tasks: dict[asyncio.Task[None], int] = {}
        self._is_reading = False
        self._ahead = b""

    def start(self, ticket: int, way_out: WayOut) -> None:
        self._run(ticket, self._start(ticket, way_out))

    def write(self, ticket: int, part: BodyPart) -> None:
        if self._outgoing is None:
            self._action.release(len(part.chunk))
            self._action.refuse(ticket, DeveloperError("InvalidArgument", "The body of that fetch is no stream."))
        else:
            self._outgoing.write(ticket, part)

    def read(self, ticket: int, is_whole: bool, is_text: bool) -> None:
        if self._response is None or self._is_reading:
            refusal = DeveloperError("InvalidArgument", "A body is read after its head came, one read at a time.")
            self._action.refuse(ticket, refusal)
            return
        self._is_reading = True
        self._run(ticket, self._read(ticket, self._response, is_whole, is_text))

    def close(self) -> None:
        """Ends what is under way; open tickets complete with an error."""
        for task, ticket in [*self._tasks.items()]:
            task.cancel()
            self._action.refuse(ticket, _cancelled())
        self._tasks.clear()
        self._let_body_go()  # a task that is cancelled before its first step does nothing of its own
        if self._outgoing is not None:
            self._outgoing.close()
        if self._response is not None:
            self._response.close()

    def _run(self, ticket: int, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks[task] = ticket
        task.add_done_callback(self._end_task)

    def _end_task(self, task: asyncio.Task[None]) -> None:
        ticket = self._tasks.pop(task, None)
        if task.cancelled():
            if ticket is not None:
                self._action.refuse(ticket, _cancelled())
            return
        error = task.exception()
        if error is None or ticket is None:
            return
        self._fetches.forget(self._wanted.number)
        self.close()
        if not isinstance(error, SkerryError):
            _log.error("a fetch failed in the host", exc_info=error)
            error = SystemFault("InternalServerError", "The fetch failed in the server.")
        self._action.refuse(ticket, error)

    def _let_body_go(self) -> None:
        held, self._held_bytes = self._held_bytes, 0
        self._action.release(held)

    async def _start(self, ticket: int, way_out: WayOut) -> None:
        wanted = self._wanted
        body = self._outgoing.chunks() if self._outgoing is not None else wanted.body
        try:
            response = await way_out.fetch(wanted.method, wanted.url, wanted.headers, body, wanted.redirect)
        finally:
            self._let_body_go()
        self._response = response
        head = {
            "status": response.status,
            "statusText": response.status_text,
            "url": response.url,
            "redirected": response.redirected,
            "headers": response.headers,
        }
        if wanted.is_eager and response.ended:
            text = await self._whole_text(response)
            if text is not None:
                head["text"] = text
                self._forget()
        self._action.complete(ticket, 0, orjson.dumps(head))

    async def _whole_text(self, response: FetchedResponse) -> str | None:
        """The body where it is one chunk of plain text; otherwise what was read waits for the guest to ask."""
        with contextlib.suppress(DeveloperError):  # which the guest hears of when it reads
            self._ahead = await response.read(limits.ACTION_FETCH_CHUNK_BYTES)
            rest = await response.read(limits.ACTION_FETCH_CHUNK_BYTES) if self._ahead else b""
            is_plain = not rest and not self._ahead.startswith(_BYTE_ORDER_MARK)
            self._ahead += rest
            if is_plain:
                with contextlib.suppress(UnicodeDecodeError):
                    return self._ahead.decode()
        return None

    def _forget(self) -> None:
        """Nothing is left to read."""
        if self._response is not None:
            self._response.close()
        self._fetches.forget(self._wanted.number)
        if self._outgoing is not None:
            self._outgoing.close()

    async def _read(self, ticket: int, response: FetchedResponse, is_whole: bool, is_text: bool) -> None:
        chunk, self._ahead = self._ahead, b""
        if not chunk:
            chunk = await response.read(limits.ACTION_FETCH_CHUNK_BYTES)
        if is_whole and chunk:
            chunk = await _read_rest(response, chunk)
        self._is_reading = False
        if is_whole or not chunk:
            self._forget()
        self._action.complete(ticket, 0, _as_text(chunk) if is_text else chunk)


def _as_text(body: bytes) -> bytes:
    """The body as the platform's `text()` decodes it, in valid UTF-8: without a byte order mark, U+FFFD for errors."""
    body = body.removeprefix(_BYTE_ORDER_MARK)
    return body if body.isascii() else body.decode("utf-8", "replace").encode()


async def _read_rest(response: FetchedResponse, first: bytes) -> bytes:
    chunks, size = [first], len(first)
    while chunk := await response.read(limits.ACTION_FETCH_CHUNK_BYTES):
        chunks.append(chunk)
        size += len(chunk)
        if size > limits.ACTION_FETCH_BODY_BYTES_MAX:
            raise DeveloperError(
                "ResultTooLarge",
                f"The body has more than {limits.ACTION_FETCH_BODY_BYTES_MAX // limits.MIB} MiB. Read it as a stream.",
            )
    return b"".join(chunks)


class _OutgoingBody:
    """The body that a guest writes, as the way out reads it. A write's ticket completes when its chunk is taken."""

    def __init__(self, action: Operations) -> None:
        self._action = action
        self._parts: deque[tuple[int, BodyPart]] = deque()
        self._has_more = asyncio.Event()
        self._is_closed = False

    def write(self, ticket: int, part: BodyPart) -> None:
        if self._is_closed:  # the answer came first, or nobody wants the rest
            self._action.release(len(part.chunk))
            self._action.complete(ticket, 0, b"null")
            return
        self._parts.append((ticket, part))
        self._has_more.set()

    def close(self) -> None:
        """Takes no more: what was written is let go."""
        self._is_closed = True
        while self._parts:
            ticket, part = self._parts.popleft()
            self._action.release(len(part.chunk))
            self._action.complete(ticket, 0, b"null")

    async def chunks(self) -> AsyncIterator[bytes]:
        """The chunks in their order. Raises: DeveloperError `EgressFailed` where the guest's stream broke."""
        while True:
            while not self._parts:
                self._has_more.clear()
                await self._has_more.wait()
            ticket, part = self._parts.popleft()
            self._action.release(len(part.chunk))
            self._action.complete(ticket, 0, b"null")
            if part.failure is not None:
                raise DeveloperError("EgressFailed", f"The stream of the request's body failed: {part.failure}")
            if part.chunk:
                yield part.chunk
            if part.is_last:
                return


def _cancelled() -> DeveloperError:
    return DeveloperError("EgressFailed", "The fetch was cancelled.")
