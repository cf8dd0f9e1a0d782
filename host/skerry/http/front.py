"""What stands in front of the routes: the id of each request, what browsers ask across origins, and who serves what.

`Front` is an ASGI application: the call endpoints itself, everything else in the framework behind it. `find` is the
one place that says which deployment an address belongs to. A connection that serves a call without this interface
uses the same pieces (`direct`).
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from starlette.types import ASGIApp, Receive, Scope, Send

from skerry.admin.host import Host
from skerry.admin.hosted import Hosted
from skerry.admin.registry import not_found
from skerry.errors import ClientError
from skerry.http.addresses import Addresses, invalid_host, split_prefix
from skerry.http.answers import error_answer
from skerry.http.bodies import ArrivingBody, ClientGone, collect_body
from skerry.http.calls import CallEndpoints
from skerry.http.cors import cross_origin, preflight
from skerry.http.exchange import CONTENT_TYPE, Exchange
from skerry.http.headers import RequestIds
from skerry.http.metrics import Metrics

_CONTENT_TYPE: Final = (b"content-type", CONTENT_TYPE)


class Found(NamedTuple):
    """What an address means. Shape: `path` among the deployment's routes; `by_prefix` where the path named it."""

    hosted: Hosted
    endpoints: CallEndpoints
    path: str
    by_prefix: bool


class Front:
    """The ASGI application of a port. Shape: `request_ids` names the requests, here and on the direct way.

    `endpoints_of` makes the endpoints of a deployment, which then stay with it for as long as it is there.
    """

    def __init__(
        self,
        host: Host,
        addresses: Addresses,
        endpoints_of: Callable[[Hosted], CallEndpoints],
        rest: ASGIApp,
        request_ids: RequestIds,
        metrics: Metrics,
    ) -> None:
        self._host = host
        self._addresses = addresses
        self._endpoints_of = endpoints_of
        self._rest = rest
        self._metrics = metrics
        self.request_ids = request_ids

    def find(self, host: bytes | None, path: str) -> Found:
        """Which deployment an address belongs to, its endpoints, and the path among them.

        The address is the `Host` header, None where there is none, and the path as it was sent or unquoted.
        Raises: ClientError `HostHeaderInvalid`, `DeploymentNotFound`, `RouteNotFound`.
        """
        name = self._addresses.name_of(host)
        by_prefix = False
        if name is None:
            named = split_prefix(path)
            if named is None:
                hosted = self._host.default
            else:
                name, path = named
                by_prefix = True
                hosted = self._host.find(name)
        else:
            hosted = self._host.find(name)
        if hosted is None:
            raise not_found(name or "")
        endpoints = hosted.attached
        if endpoints is None:
            endpoints = hosted.attached = self._endpoints_of(hosted)
        return Found(hosted, endpoints, path, by_prefix)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request, whatever becomes of it: the only way out without an answer is a client that left."""
        if scope["type"] != "http":
            await self._rest(scope, receive, send)
            return
        headers: dict[bytes, bytes] = dict(scope["headers"])
        request_id = self.request_ids.name(headers.get(b"convex-request-id"))
        answer_headers = [(b"convex-request-id", request_id)]
        try:
            hosted, endpoints, path, by_prefix = self.find(one_host(scope["headers"]), scope["path"])
        except ClientError as error:
            self._metrics.refused(error.code)
            status, body = error_answer(error)
            origin = headers.get(b"origin")
            if origin is not None and "/api/" in scope["path"]:
                answer_headers += cross_origin(origin)
            await _answer(send, status, body, answer_headers)
            return
        origin = headers.get(b"origin")
        if origin is not None and path.startswith("/api/"):
            if scope["method"] == "OPTIONS":
                await _answer(send, 200, b"", answer_headers + preflight(headers))
                return
            answer_headers += cross_origin(origin)
        methods = endpoints.methods_of(path)
        if methods is None:
            inner = {**scope, "path": path, "hosted": hosted, "by_prefix": by_prefix}
            await self._rest(inner, receive, _adding(send, answer_headers))
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
            body = ArrivingBody() if method == "GET" else await collect_body(receive)
        except ClientGone:
            return
        except Exception as error:
            endpoints.fail(exchange, error)
        else:
            endpoints.serve(exchange, endpoint, body)
        status, body = await exchange.answered
        if exchange.retry_after_s is not None:
            answer_headers.append((b"retry-after", b"%d" % exchange.retry_after_s))
        await _answer(send, status, body, answer_headers)


def one_host(headers: list[tuple[bytes, bytes]]) -> bytes | None:
    """The Host header, None without one. Raises: ClientError `HostHeaderInvalid` for a second one."""
    found = [value for name, value in headers if name == b"host"]
    if len(found) > 1:
        raise invalid_host()
    return found[0] if found else None


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
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _adding(send: Send, headers: list[tuple[bytes, bytes]]) -> Send:
    """`send`, with headers added to the answer."""

    async def send_with_headers(message: Any) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), *headers]
        await send(message)

    return send_with_headers
