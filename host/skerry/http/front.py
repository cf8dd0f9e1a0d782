"""What stands in front of the routes: the id of each request, what browsers ask across origins, and who serves what.

`Front` is an ASGI application: the call endpoints itself, everything else in the framework behind it. `find` is the
one place that says which deployment an address belongs to. A connection that serves a call without this interface
uses the same pieces (`direct`).
"""

import asyncio
from http import HTTPStatus
from typing import Any, Final

from starlette.types import ASGIApp, Receive, Scope, Send

from skerry.errors import ClientError
from skerry.http.bodies import ClientGone, read_body
from skerry.http.calls import CallEndpoints
from skerry.http.cors import cross_origin, preflight
from skerry.http.exchange import CONTENT_TYPE, Exchange
from skerry.http.headers import RequestIds
from skerry.limits import HTTP_RETRY_AFTER_SECONDS

_CONTENT_TYPE: Final = (b"content-type", CONTENT_TYPE)
RETRY_AFTER: Final = (b"retry-after", b"%d" % HTTP_RETRY_AFTER_SECONDS)
"""What a 503 of these routes carries."""


class Front:
    """The ASGI application of a port. Shape: `request_ids` names the requests, here and on the direct way."""

    def __init__(self, endpoints: CallEndpoints, rest: ASGIApp, request_ids: RequestIds) -> None:
        self._endpoints = endpoints
        self._rest = rest
        self.request_ids = request_ids

    def find(self, host: bytes | None, path: str) -> tuple[CallEndpoints, str]:
        """The endpoints of the deployment that an address belongs to, and the path among them: the only one, as it is.

        The address is the `Host` header, None where there is none, and the path as it was sent or unquoted.
        """
        return self._endpoints, path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request, whatever becomes of it: the only way out without an answer is a client that left."""
        if scope["type"] != "http":
            await self._rest(scope, receive, send)
            return
        headers: dict[bytes, bytes] = dict(scope["headers"])
        request_id = self.request_ids.name(headers.get(b"convex-request-id"))
        answer_headers = [(b"convex-request-id", request_id)]
        endpoints, path = self.find(headers.get(b"host"), scope["path"])
        origin = headers.get(b"origin")
        if origin is not None and path.startswith("/api/"):
            if scope["method"] == "OPTIONS":
                await _answer(send, 200, b"", answer_headers + preflight(headers))
                return
            answer_headers += cross_origin(origin)
        methods = endpoints.methods_of(path)
        if methods is None:
            await self._rest(scope, receive, _adding(send, answer_headers))
            return
        client: tuple[str, int] | None = scope.get("client")
        exchange = _Awaited(
            scope["raw_path"], scope["query_string"], headers, request_id, None if client is None else client[0]
        )
        method: str = scope["method"]
        try:
            endpoint = methods.get(method)
            if endpoint is None:
                answer_headers.append((b"allow", ", ".join(sorted(methods)).encode()))
                raise ClientError(
                    "MethodNotAllowed", f"This route takes {' or '.join(sorted(methods))}, not {method[:16]}."
                )
            endpoints.admit(exchange)
            body = b"" if method == "GET" else await read_body(receive)
        except ClientGone:
            return
        except Exception as error:
            endpoints.fail(exchange, error)
        else:
            endpoints.serve(exchange, endpoint, body)
        await _answer(send, *await exchange.answered, answer_headers)


class _Awaited(Exchange):
    """An exchange whose answer somebody waits for."""

    __slots__ = ("answered",)

    def __init__(
        self, target: bytes, query: bytes, headers: dict[bytes, bytes], request_id: bytes, ip: str | None
    ) -> None:
        super().__init__(target, query, headers, request_id, ip)
        self.answered: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()

    def answer(self, status: int, body: bytes) -> None:
        if not self.answered.done():
            self.answered.set_result((status, body))


async def _answer(send: Send, status: int, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    headers += (_CONTENT_TYPE, (b"content-length", b"%d" % len(body)))
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers.append(RETRY_AFTER)
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _adding(send: Send, headers: list[tuple[bytes, bytes]]) -> Send:
    """`send`, with headers added to the answer."""

    async def send_with_headers(message: Any) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), *headers]
        await send(message)

    return send_with_headers
