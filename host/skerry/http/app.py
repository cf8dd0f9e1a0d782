"""What a server answers: the call endpoints in front and, through FastAPI, the routes for people and operators.

Every answer to a mistake is JSON, `{"code", "message"}`, also where the framework noticed it. Routes come from the
table in `routes`; one that is in the table and not here, or the other way round, fails when the app is made.
"""

import logging
from base64 import b64decode
from binascii import Error as Base64Error
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from skerry import __version__
from skerry.admin.access import Right
from skerry.admin.access import Scope as KeyScope
from skerry.admin.host import Host
from skerry.admin.hosted import Hosted
from skerry.admin.registry import not_found
from skerry.errors import ClientError, SkerryError, SystemFault
from skerry.functions.patient_threads import get_patient_threads
from skerry.functions.pushes import push_name
from skerry.http.addresses import Addresses
from skerry.http.all_metrics import Peers, merged
from skerry.http.answers import error_answer, retry_after
from skerry.http.bodies import ClientGone, drain, read_body, stream_body
from skerry.http.calls import CallEndpoints
from skerry.http.front import Front, one_host
from skerry.http.headers import RequestIds, host_credential, require_admin
from skerry.http.host_routes import Handler, HostRoutes, answer, fields_of, text_field
from skerry.http.long_bodies import LongWork
from skerry.http.metrics import CONTENT_TYPE, Metrics
from skerry.http.routes import DEPLOYMENT_ROUTES
from skerry.http.storage_routes import StorageRoutes
from skerry.http.sync_hub import live_now
from skerry.http.transfer_routes import TransferRoutes
from skerry.http.turns import Turns
from skerry.limits import HTTP_ECHO_BYTES_MAX

_log: Final = logging.getLogger("skerry.http")
_NO_HTTP_ACTIONS: Final = "This Convex deployment does not have HTTP actions enabled."
_DIGEST_PREFIX: Final = "sha-256=:"


class ServerState:
    """What the routes share. Shape: `draining` once the server stops; `metrics` counts."""

    def __init__(self) -> None:
        self.draining = False
        self.metrics = Metrics()


class PlainRoutes:
    """The routes behind the framework, for whichever deployment a request was addressed to."""

    def __init__(self, host: Host, state: ServerState, entropy: Callable[[int], bytes], peers: Peers | None) -> None:
        self._host = host
        self._state = state
        self._peers = peers
        self._transfers = TransferRoutes(entropy)
        self._operating = HostRoutes(host, self._metrics, self._metrics_of_worker)
        self._handlers: dict[tuple[str, str], Handler] = {
            ("GET", "/"): self._root,
            ("GET", "/version"): self._version,
            ("GET", "/instance_name"): self._instance_name,
            ("GET", "/instance_version"): self._version,
            ("POST", "/echo"): self._echo,
            ("GET", "/health"): self._health,
            ("GET", "/api/check_admin_key"): self._check_admin_key,
            ("GET", "/api/skerry/functions"): self._functions,
            ("POST", "/api/skerry/deploy"): self._deploy,
            ("GET", "/api/skerry/versions"): self._versions,
            ("GET", "/api/skerry/schema"): self._schema,
            ("POST", "/api/skerry/rollback"): self._rollback,
            ("GET", "/api/skerry/usage"): self._usage,
            **StorageRoutes().handlers,
            ("GET", "/api/skerry/keys"): self._keys,
            ("POST", "/api/skerry/keys"): self._create_key,
            ("DELETE", "/api/skerry/keys/{id}"): self._revoke_key,
            **self._transfers.handlers,
        }
        assert self._handlers.keys() == DEPLOYMENT_ROUTES.keys()

    def routes(self) -> Iterator[Route]:
        """Every route, guarded: who may use it is known before the first byte of its body is read."""
        for (method, path), handler in self._handlers.items():
            guarded = _guarded(handler, partial(self._admit, DEPLOYMENT_ROUTES[method, path]), self._state.metrics)
            yield Route(path, guarded, methods=[method])
        for (method, path), handler in self._operating.handlers.items():
            yield Route(path, _guarded(handler, self._admit_operator, self._state.metrics), methods=[method])

    # -- a deployment's ------------------------------------------------------------------------------------------

    async def _root(self, request: Request) -> Response:
        return PlainTextResponse("This Convex deployment is running, served by Skerry.\n")

    async def _version(self, request: Request) -> Response:
        return PlainTextResponse(__version__)

    async def _instance_name(self, request: Request) -> Response:
        return PlainTextResponse(_hosted(request).name)

    async def _echo(self, request: Request) -> Response:
        body = await read_body(request.receive, HTTP_ECHO_BYTES_MAX)
        return Response(body, media_type="application/octet-stream")

    async def _health(self, request: Request) -> Response:
        if self._state.draining:
            raise ClientError("ShuttingDown", "The server is stopping: it finishes what it has begun.")
        return answer({"status": "ok"})

    async def _metrics(self, request: Request) -> Response:
        """What all workers of the server count."""
        page = self._page()
        if self._peers is not None:
            page = merged(await self._peers.pages(page))
        return Response(page, headers={"content-type": CONTENT_TYPE.decode()})

    async def _metrics_of_worker(self, request: Request) -> Response:
        """What the worker counts that took the request."""
        return Response(self._page(), headers={"content-type": CONTENT_TYPE.decode()})

    def _page(self) -> bytes:
        quarantined = Counter(name for name, _ in self._host.quarantined() if self._host.owns(name))
        return self._state.metrics.text(self._host.usage_now(), self._host.storage_now(), quarantined, live_now())

    async def _check_admin_key(self, request: Request) -> Response:
        return answer({"success": True})

    async def _functions(self, request: Request) -> Response:
        async with _hosted(request).using() as deployment:
            return answer(deployment.describe())

    async def _versions(self, request: Request) -> Response:
        async with _hosted(request).using() as deployment:
            return answer({"versions": deployment.versions()})

    async def _schema(self, request: Request) -> Response:
        """The state of each index, how far a push or the background work is, and how the last pushes ended."""
        async with _hosted(request).using() as deployment:
            return answer(deployment.schema_progress())

    async def _deploy(self, request: Request) -> Response:
        """Makes an uploaded bundle live, or the sources of one; under a name that `_schema` tells its outcome by."""
        hosted = _hosted(request)
        has_begun = False
        try:
            stated = _stated_digest(request.headers.get("content-digest", ""))
            push = push_name(request.headers.get("skerry-push", ""))
            async with hosted.using() as deployment:
                upload = deployment.begin_upload()
                has_begun = True
                try:
                    await stream_body(request.receive, upload.write)
                    if upload.finish() != stated:
                        raise ClientError(
                            "DigestMismatch", "The upload's bytes are not those of its Content-Digest: send it again."
                        )
                    async with hosted.activating():
                        activated = await deployment.activate(upload.path, push)
                finally:
                    upload.discard()
        except SkerryError:
            if not has_begun:
                await drain(request.receive)
            raise
        self._state.metrics.deploys += 1
        await self._host.activated(hosted.name)
        return answer(activated)

    async def _rollback(self, request: Request) -> Response:
        """Makes a kept version live again: the one before, or the one that the body names."""
        fields = await fields_of(request)
        version = None if fields.get("version") is None else text_field(fields, "version")
        async with _hosted(request).activating() as deployment:
            activated = await deployment.rollback(version)
        self._state.metrics.deploys += 1
        await self._host.activated(_hosted(request).name)
        return answer(activated)

    async def _usage(self, request: Request) -> Response:
        return self._operating.usage(_hosted(request).name)

    async def _keys(self, request: Request) -> Response:
        return self._operating.list_keys(_hosted(request).name)

    async def _create_key(self, request: Request) -> Response:
        """Makes a key with a key, which the new one does not outlive."""
        name = _hosted(request).name
        ends_ms: list[int | None] = []

        def judge(sent: bytes) -> KeyScope | None:
            scope, record = self._host.scope_of(name, sent), self._host.key_of(name, sent)
            ends_ms.append(None if record is None else record.expires_ms)
            return scope

        require_admin(_authorization(request), judge, right=Right.KEYS, bad_key_code="BadDeployKey", name=name)
        return await self._operating.create_key(name, request, ends_ms[-1])

    async def _revoke_key(self, request: Request) -> Response:
        return await self._operating.revoke_key(_hosted(request).name, request)

    # -- who may -------------------------------------------------------------------------------------------------

    def _admit(self, right: Right | None, request: Request) -> None:
        if right is not None:
            name = _hosted(request).name
            judge = partial(self._host.scope_of, name)
            require_admin(_authorization(request), judge, right=right, bad_key_code="BadDeployKey", name=name)

    def _admit_operator(self, request: Request) -> None:
        """The host's operator; for what the process counts also whoever has the default deployment's admin key."""
        hosted = _hosted(request)
        if hosted is not self._host.default or request.scope["by_prefix"]:
            raise _no_route(request)
        authorization = _authorization(request)
        if self._host.is_host_credential(host_credential(authorization)):
            return
        if request.url.path == "/metrics":
            judge = partial(self._host.scope_of, hosted.name)
            require_admin(authorization, judge, right=Right.KEYS, bad_key_code="BadDeployKey", name=hosted.name)
            return
        raise ClientError(
            "BadHostCredential", "This route needs the host's credential: send Authorization: Bearer <host credential>."
        )


def make_app(
    host: Host,
    *,
    state: ServerState,
    redacted: bool,
    domain: str | None,
    entropy: Callable[[int], bytes],
    monotonic: Callable[[], float],
    call_soon: Callable[[Callable[[], None]], object],
    call_soon_threadsafe: Callable[..., object],
    peers: Peers | None = None,
) -> Front:
    """The application on the main port. Shape: `peers` are the other workers, None where there is one process."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    app.router.routes.extend(PlainRoutes(host, state, entropy, peers).routes())
    app.add_exception_handler(HTTPException, _framework_error)
    turns = Turns(call_soon)
    request_ids = RequestIds(entropy)

    def endpoints_of(hosted: Hosted) -> CallEndpoints:
        return CallEndpoints(
            hosted,
            judge=partial(host.scope_of, hosted.name),
            redacted=redacted,
            monotonic=monotonic,
            turns=turns,
            metrics=state.metrics,
            long=LongWork(hosted.share, get_patient_threads(), call_soon_threadsafe),
            request_ids=request_ids,
        )

    return Front(host, Addresses(domain), endpoints_of, app, request_ids, state.metrics)


def make_site_app(host: Host, domain: str | None) -> ASGIApp:
    """The application on the port of HTTP actions, which are not served yet. Sites are found by host name only."""
    addresses = Addresses(domain)

    async def site(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        try:
            name = addresses.name_of(one_host(scope["headers"]))
            if name is not None and host.find(name) is None:
                raise not_found(name)
            response: Response = PlainTextResponse(_NO_HTTP_ACTIONS, 404)
        except ClientError as error:
            status, body = error_answer(error)
            response = Response(body, status, media_type="application/json")
        await response(scope, receive, send)

    return site


def _hosted(request: Request) -> Hosted:
    return request.scope["hosted"]


def _authorization(request: Request) -> bytes | None:
    header = request.headers.get("authorization")
    return None if header is None else header.encode("latin-1")


def _guarded(handler: Handler, admit: Callable[[Request], None], metrics: Metrics) -> Handler:
    """The handler for those who may use it, with every error as JSON."""

    async def guarded(request: Request) -> Response:
        try:
            try:
                admit(request)
            except SkerryError:
                await drain(request.receive)
                raise
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
        seconds = retry_after(failure, status)
        headers = None if seconds is None else {"retry-after": str(seconds)}
        return Response(body, status, headers, media_type="application/json")

    return guarded


async def _framework_error(request: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException) and error.status_code == 405:
        refusal = ClientError("MethodNotAllowed", f"This route does not take {request.method[:16]}.")
    else:
        refusal = _no_route(request)
    status, body = error_answer(refusal)
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    return Response(body, status, headers, media_type="application/json")


def _no_route(request: Request) -> ClientError:
    return ClientError("RouteNotFound", f"There is no route {request.url.path[:80]!r} on this server.")


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
