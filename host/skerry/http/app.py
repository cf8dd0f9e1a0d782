"""What a server answers: the call endpoints in front and, through FastAPI, the routes for people and operators.

Every answer to a mistake is JSON, `{"code", "message"}`, also where the framework noticed it. Routes come from the
table in `routes`; one that is in the table and not here, or the other way round, fails when the app is made.
"""

import asyncio
import logging
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Awaitable, Callable
from hashlib import sha256
from typing import Any, Final

import orjson
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from skerry import __version__
from skerry.errors import ClientError, SkerryError, SystemFault
from skerry.functions.deployment import Deployment
from skerry.http.answers import error_answer
from skerry.http.bodies import ClientGone, drain, read_body
from skerry.http.calls import CallEndpoints
from skerry.http.front import Front
from skerry.http.headers import RequestIds, require_admin
from skerry.http.metrics import CONTENT_TYPE, Metrics
from skerry.http.routes import PLAIN_ROUTES
from skerry.limits import BUNDLE_FILE_BYTES_MAX, HTTP_ECHO_BYTES_MAX

_log: Final = logging.getLogger("skerry.http")
_NO_HTTP_ACTIONS: Final = "This Convex deployment does not have HTTP actions enabled."
_DIGEST_PREFIX: Final = "sha-256=:"

Handler = Callable[[Request], Awaitable[Response]]


class ServerState:
    """What the routes share. Shape: `draining` once the server stops; `metrics` counts."""

    def __init__(self) -> None:
        self.draining = False
        self.metrics = Metrics()


class PlainRoutes:
    """The routes behind the framework, for one deployment."""

    def __init__(self, deployment: Deployment, admin_key: str, state: ServerState) -> None:
        self._deployment = deployment
        self._admin_key = admin_key.encode()
        self._state = state
        self._deploying = asyncio.Lock()
        self.handlers: dict[tuple[str, str], Handler] = {
            ("GET", "/"): self._root,
            ("GET", "/version"): self._version,
            ("GET", "/instance_name"): self._instance_name,
            ("GET", "/instance_version"): self._version,
            ("POST", "/echo"): self._echo,
            ("GET", "/health"): self._health,
            ("GET", "/metrics"): self._metrics,
            ("GET", "/api/check_admin_key"): self._check_admin_key,
            ("GET", "/api/skerry/functions"): self._functions,
            ("POST", "/api/skerry/deploy"): self._deploy,
        }
        assert self.handlers.keys() == set(PLAIN_ROUTES)

    async def _root(self, request: Request) -> Response:
        return PlainTextResponse("This Convex deployment is running, served by Skerry.\n")

    async def _version(self, request: Request) -> Response:
        return PlainTextResponse(__version__)

    async def _instance_name(self, request: Request) -> Response:
        return PlainTextResponse(self._deployment.name)

    async def _echo(self, request: Request) -> Response:
        body = await read_body(request.receive, HTTP_ECHO_BYTES_MAX)
        return Response(body, media_type="application/octet-stream")

    async def _health(self, request: Request) -> Response:
        if self._state.draining:
            raise ClientError("ShuttingDown", "The server is stopping: it finishes what it has begun.")
        return _json({"status": "ok"})

    async def _metrics(self, request: Request) -> Response:
        self._require_admin(request)
        return Response(self._state.metrics.text(), headers={"content-type": CONTENT_TYPE.decode()})

    async def _check_admin_key(self, request: Request) -> Response:
        self._require_admin(request)
        return _json({"success": True})

    async def _functions(self, request: Request) -> Response:
        self._require_admin(request)
        return _json(self._deployment.describe())

    async def _deploy(self, request: Request) -> Response:
        """Makes an uploaded bundle live. Who sends it is known before the first byte of it is read."""
        try:
            self._require_admin(request)
            stated = _stated_digest(request.headers.get("content-digest", ""))
            if self._deploying.locked():
                raise ClientError("DeployInProgress", "Another deploy is under way: try again when it is done.")
        except ClientError:
            await drain(request.receive)
            raise
        async with self._deploying:
            bundle = await read_body(request.receive, BUNDLE_FILE_BYTES_MAX)
            if sha256(bundle).digest() != stated:
                raise ClientError(
                    "DigestMismatch", "The upload's bytes are not those of its Content-Digest: send it again."
                )
            activated = await self._deployment.activate(bundle)
            self._state.metrics.deploys += 1
            return _json(activated)

    def _require_admin(self, request: Request) -> None:
        header = request.headers.get("authorization")
        require_admin(
            None if header is None else header.encode("latin-1"),
            self._admin_key,
            bad_key_code="BadDeployKey",
            name=self._deployment.name,
        )


def make_app(
    deployment: Deployment,
    *,
    admin_key: str,
    state: ServerState,
    redacted: bool,
    entropy: Callable[[int], bytes],
    monotonic: Callable[[], float],
    call_soon: Callable[[Callable[[], None]], object],
) -> Front:
    """The application on the main port."""
    plain = PlainRoutes(deployment, admin_key, state)
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    for (method, path), handler in plain.handlers.items():
        app.router.routes.append(Route(path, _guarded(handler, state.metrics), methods=[method]))
    app.add_exception_handler(HTTPException, _framework_error)
    endpoints = CallEndpoints(
        deployment,
        admin_key=admin_key,
        redacted=redacted,
        monotonic=monotonic,
        call_soon=call_soon,
        metrics=state.metrics,
    )
    return Front(endpoints, app, RequestIds(entropy))


async def site_app(scope: Scope, receive: Receive, send: Send) -> None:
    """The application on the port of HTTP actions, which are not served yet."""
    if scope["type"] == "http":
        await PlainTextResponse(_NO_HTTP_ACTIONS, 404)(scope, receive, send)


def _guarded(handler: Handler, metrics: Metrics) -> Handler:
    """The handler, with every error as JSON."""

    async def guarded(request: Request) -> Response:
        try:
            return await handler(request)
        except SkerryError as error:
            metrics.refused(error.code)
            failure = error
        except ClientGone:
            return Response(status_code=408)
        except Exception as error:
            _log.exception("%s %s failed", request.method, request.url.path)
            failure = SystemFault("InternalServerError", str(error))
        status, body = error_answer(failure)
        return Response(body, status, media_type="application/json")

    return guarded


async def _framework_error(request: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException) and error.status_code == 405:
        refusal = ClientError("MethodNotAllowed", f"This route does not take {request.method[:16]}.")
    else:
        refusal = ClientError("RouteNotFound", f"There is no route {request.url.path[:80]!r} on this server.")
    status, body = error_answer(refusal)
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    return Response(body, status, headers, media_type="application/json")


def _stated_digest(header: str) -> bytes:
    """The SHA-256 in a `Content-Digest` header (RFC 9530). Raises: ClientError `DigestRequired`."""
    for member in header.split(","):
        name = member.strip()
        if name.startswith(_DIGEST_PREFIX) and name.endswith(":"):
            try:
                return b64decode(name[len(_DIGEST_PREFIX) : -1], validate=True)
            except (Base64Error, ValueError):
                break
    raise ClientError(
        "DigestRequired", "A bundle is sent with the header Content-Digest: sha-256=:<base64 of SHA-256>:"
    )


def _json(content: Any) -> Response:
    return Response(orjson.dumps(content), media_type="application/json")
