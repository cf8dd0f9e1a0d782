"""One deployment's way out: `fetch` under its policy, with the redirects, the deadlines and the bounds that are ours.

The HTTP library writes requests and parses responses. It is given no cookies, no proxies, no environment, no redirects
and no decompression. Each hop of a redirect is a request like the first: parsed, checked, connected to what was
checked. All hops share one total time, one place among the deployment's fetches, and one policy.
"""

import asyncio
import ssl
from collections.abc import Callable
from functools import lru_cache
from typing import Self

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError

from skerry.egress.connection import OnBytes
from skerry.egress.connector import CheckedConnector, closed_fault
from skerry.egress.places import Places
from skerry.egress.policy import EgressPolicy
from skerry.egress.request import FetchRequest, Prepared, prepare, redirected
from skerry.egress.resolver import Resolve
from skerry.egress.response import FetchResponse
from skerry.egress.target import redirect_target
from skerry.egress.upload import Upload
from skerry.errors import DeveloperError
from skerry.limits import (
    EGRESS_BUFFER_BYTES,
    EGRESS_PIECE_BYTES,
    EGRESS_REDIRECTS_MAX,
    EGRESS_RESPONSE_HEAD_BYTES_MAX,
    EGRESS_RESPONSE_HEADER_BYTES_MAX,
    EGRESS_RESPONSE_HEADERS_MAX,
)

USER_AGENT = "Skerry"

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_AUTOMATIC_HEADERS = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")
# How the library's parser words that a head passes one of the bounds that it was given.
_TOO_LONG = ("Got more than", "Too many headers")


@lru_cache(maxsize=1)
def system_tls() -> ssl.SSLContext:
    """The TLS context with the system's authorities, made once for the process: names and certificates are verified."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


def _unmetered(sent: int, received: int) -> None:
    pass


class Egress:
    """What one deployment's functions fetch through; connections are never shared with another's.

    `on_bytes(sent, received)` is told of the heads and bodies of requests, and of all bytes of responses, as they go;
    it must not raise.
    Concurrency: one event loop, which must run when it is made.
    """

    def __init__(
        self,
        policy: EgressPolicy,
        resolve: Resolve,
        *,
        tls: Callable[[], ssl.SSLContext] = system_tls,
        on_bytes: OnBytes = _unmetered,
        user_agent: str = USER_AGENT,
    ) -> None:
        bounds = policy.bounds
        self._policy = policy
        self._bounds = bounds
        self._on_bytes = on_bytes
        self._user_agent = user_agent
        self._loop = asyncio.get_running_loop()
        self._places = Places(bounds.connections, bounds.fetches_waiting, bounds.wait_seconds)
        self._under_way: set[asyncio.Timeout] = set()
        self._open: set[FetchResponse] = set()
        self._closed = False
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._connector = CheckedConnector(policy, resolve, tls, on_bytes)
        self._session = aiohttp.ClientSession(
            connector=self._connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=_AUTOMATIC_HEADERS,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),  # the deadlines are ours
            auto_decompress=False,
            trust_env=False,
            read_bufsize=EGRESS_BUFFER_BYTES,
            max_line_size=EGRESS_RESPONSE_HEADER_BYTES_MAX,
            max_field_size=EGRESS_RESPONSE_HEADER_BYTES_MAX,
            max_headers=EGRESS_RESPONSE_HEADERS_MAX,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def sockets(self) -> int:
        """How many connections are open, in use or idle."""
        return self._connector.sockets

    async def fetch(self, request: FetchRequest) -> FetchResponse:
        """Sends a request, follows its redirects, and answers once a head is there.

        Raises: DeveloperError EgressInvalidRequest, EgressRefused, EgressFailed, EgressTimedOut, EgressTooLarge,
        EgressBusy.
        Limits: those of `EgressBounds`; EGRESS_REDIRECTS_MAX.
        """
        if self._closed:
            raise closed_fault()
        prepared = prepare(request, self._bounds, self._user_agent)
        if not self._places.take_now():
            await self._places.take()
        total_deadline = self._loop.time() + self._bounds.total_seconds
        scope = asyncio.timeout_at(total_deadline)
        self._under_way.add(scope)
        self._quiet.clear()
        try:
            async with scope:
                if self._closed:
                    raise closed_fault()
                return await self._follow(prepared, request.redirect, scope, total_deadline)
        except TimeoutError as error:
            self._places.give()
            if self._closed:
                raise closed_fault() from error
            sentence = f"{prepared.target.host} did not answer in time."
            raise DeveloperError("EgressTimedOut", sentence) from error
        except BaseException:
            self._places.give()
            raise
        finally:
            self._under_way.discard(scope)
            if not self._under_way:
                self._quiet.set()

    async def close(self) -> None:
        """Ends every fetch and connection, and returns when their sockets are closed. Safe at any time, also twice."""
        self._closed = True
        for scope in self._under_way:
            if not scope.expired():
                scope.reschedule(self._loop.time())
        for response in list(self._open):
            response.close()
        self._connector.abort_all()
        await self._quiet.wait()
        await self._connector.close(abort_ssl=True)
        await self._session.close()

    # -- hops ------------------------------------------------------------------------------------------------------

    async def _follow(
        self, prepared: Prepared, mode: str, scope: asyncio.Timeout, total_deadline: float
    ) -> FetchResponse:
        hops = 0
        while True:
            raw, upload = await self._exchange(prepared, scope, total_deadline)
            try:
                self._check_head(raw)
                location = raw.headers.get("Location") if raw.status in _REDIRECTS else None
                if location is None or mode == "manual":
                    return self._answer(raw, prepared, upload, hops > 0, total_deadline)
                if mode == "error":
                    raise DeveloperError(
                        "EgressFailed", f"{prepared.target.host} redirects, and this fetch follows none."
                    )
                if hops == EGRESS_REDIRECTS_MAX:
                    raise DeveloperError("EgressFailed", f"A fetch follows at most {EGRESS_REDIRECTS_MAX} redirects.")
                prepared = redirected(prepared, raw.status, redirect_target(prepared.target, location))
            except BaseException:
                raw.close()
                raise
            raw.release()
            hops += 1

    async def _exchange(
        self, prepared: Prepared, scope: asyncio.Timeout, total_deadline: float
    ) -> tuple[aiohttp.ClientResponse, Upload | None]:
        """One request and the head of its response."""
        method, target, headers, body = prepared
        if not self._policy.allows_port(target.host, target.port):
            raise DeveloperError("EgressRefused", f"Functions may not connect to port {target.port}.")
        upload = None
        if body is not None and (not isinstance(body, bytes) or len(body) > EGRESS_PIECE_BYTES):
            upload = Upload(body, self._bounds)
            if isinstance(body, bytes):
                headers = headers.copy()
                headers["Content-Length"] = str(len(body))

        def wait_for_peer() -> None:
            self._reschedule(scope, min(total_deadline, self._loop.time() + self._bounds.answer_seconds))

        def wait_for_function() -> None:
            self._reschedule(scope, total_deadline)

        if upload is not None:
            upload.wait_for_peer, upload.wait_for_function = wait_for_peer, wait_for_function
        wait_for_peer()
        try:
            raw = await self._session.request(
                method, target.url, headers=headers, data=body if upload is None else upload, allow_redirects=False
            )
        except DeveloperError:
            raise
        except (aiohttp.ClientError, HttpProcessingError, OSError, ValueError) as error:
            raise self._fault_of(error, target.host, upload) from error
        finally:
            self._on_bytes(_head_bytes(prepared) + _body_bytes(body, upload), 0)
            if upload is not None:
                upload.wait_for_peer = upload.wait_for_function = _unwatched
        return raw, upload

    def _reschedule(self, scope: asyncio.Timeout, when: float) -> None:
        """Moves a deadline, unless it has come or the end of everything has."""
        if not self._closed and not scope.expired():
            scope.reschedule(when)

    def _fault_of(self, error: Exception, host: str, upload: Upload | None) -> Exception:
        if upload is not None and upload.fault is not None:
            return upload.fault
        if self._closed:
            return closed_fault()
        if isinstance(error, TimeoutError):
            return error
        if isinstance(error, aiohttp.ClientResponseError):
            if any(words in error.message for words in _TOO_LONG):
                return DeveloperError("EgressTooLarge", "The head of the response is too long.")
            return DeveloperError("EgressFailed", f"{host} did not answer with valid HTTP.")
        return DeveloperError("EgressFailed", f"{host} broke the connection off before it answered.")

    def _check_head(self, raw: aiohttp.ClientResponse) -> None:
        if sum(len(name) + len(value) for name, value in raw.raw_headers) > EGRESS_RESPONSE_HEAD_BYTES_MAX:
            raise DeveloperError("EgressTooLarge", f"A head has at most {EGRESS_RESPONSE_HEAD_BYTES_MAX} bytes.")
        if raw.status < 200:
            raise DeveloperError("EgressFailed", "The other server changed the protocol, which was not asked for.")

    def _answer(
        self, raw: aiohttp.ClientResponse, prepared: Prepared, upload: Upload | None, is_redirected: bool, due: float
    ) -> FetchResponse:
        response = FetchResponse(
            raw,
            url=str(prepared.target.url),
            redirected=is_redirected,
            bounds=self._bounds,
            upload=upload,
            total_deadline=due,
            on_end=self._ended,
        )
        if not response.ended:
            self._open.add(response)
        return response

    def _ended(self, response: FetchResponse) -> None:
        self._open.discard(response)
        self._places.give()


def _head_bytes(prepared: Prepared) -> int:
    """The bytes of a request's head, but for the lines that the library adds."""
    method, target, headers, _ = prepared
    lines = len(method) + len(target.url.raw_path_qs) + 13 + 8 + len(target.host)
    return lines + sum(len(name) + len(value) + 4 for name, value in headers.items())


def _body_bytes(body: object, upload: Upload | None) -> int:
    if upload is not None:
        return upload.sent
    return len(body) if isinstance(body, bytes) else 0


def _unwatched() -> None:
    pass
