"""The routes of a host's operator, and those by which a deployment's admin keys manage its keys.

Business is `skerry.admin.host`'s; here requests are taken apart and answers put together. A key's text is in the one
answer to the request that made it, and nowhere else.
"""

from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any, Final

import orjson
from starlette.requests import Request
from starlette.responses import Response

from skerry.admin.access import Scope
from skerry.admin.host import Host
from skerry.admin.registry import DeploymentRecord, not_found
from skerry.admin.shares import effective
from skerry.errors import ClientError, SkerryError
from skerry.http.all_metrics import PAGE_PATH
from skerry.http.bodies import drain, parse_body, read_body, stream_body
from skerry.http.routes import HOST_ROUTES
from skerry.limits import HOST_BODY_BYTES_MAX

Handler = Callable[[Request], Awaitable[Response]]

_FIRST_KEY_LABEL: Final = "made with the deployment"
_NUMBER_CHARS_MAX: Final = 18


class HostRoutes:
    """The handlers. `metrics` and `metrics_of_worker` answer the routes of them that are served elsewhere."""

    def __init__(self, host: Host, metrics: Handler, metrics_of_worker: Handler) -> None:
        self._host = host
        self.handlers: dict[tuple[str, str], Handler] = {
            ("GET", "/metrics"): metrics,
            ("GET", PAGE_PATH): metrics_of_worker,
            ("GET", "/host/deployments"): self._list,
            ("POST", "/host/deployments"): self._create,
            ("GET", "/host/deployments/{name}"): self._show,
            ("DELETE", "/host/deployments/{name}"): self._delete,
            ("POST", "/host/deployments/{name}/pause"): self._pause,
            ("POST", "/host/deployments/{name}/resume"): self._resume,
            ("POST", "/host/deployments/{name}/restore"): self._restore,
            ("GET", "/host/deployments/{name}/usage"): self._usage,
            ("GET", "/host/deployments/{name}/quotas"): self._quotas,
            ("POST", "/host/deployments/{name}/quotas"): self._set_quotas,
            ("GET", "/host/deployments/{name}/keys"): self._keys,
            ("POST", "/host/deployments/{name}/keys"): self._create_key,
            ("DELETE", "/host/deployments/{name}/keys/{id}"): self._revoke_key,
            ("GET", "/host/quarantine"): self._quarantined,
            ("DELETE", "/host/deployments/{name}/quarantine"): self._lift_quarantine,
        }
        assert self.handlers.keys() == set(HOST_ROUTES)

    async def _list(self, request: Request) -> Response:
        return answer({"deployments": [self._shown(record) for record in self._host.registry.listed()]})

    async def _create(self, request: Request) -> Response:
        """Makes a deployment and its first admin key, which is in this answer only."""
        name = text_field(await fields_of(request), "name")
        record = await self._host.create(name)
        _, key = await self._host.create_key(name, Scope.ADMIN.value, _FIRST_KEY_LABEL, None)
        return answer({**self._shown(record), "adminKey": key})

    async def _show(self, request: Request) -> Response:
        return answer(self._shown(self._record(request)))

    async def _delete(self, request: Request) -> Response:
        name = request.path_params["name"]
        await self._host.delete(name)
        return answer({"name": name})

    async def _pause(self, request: Request) -> Response:
        return answer(self._shown(await self._host.pause(request.path_params["name"])))

    async def _resume(self, request: Request) -> Response:
        return answer(self._shown(await self._host.resume(request.path_params["name"])))

    async def _restore(self, request: Request) -> Response:
        """Makes a new deployment of the backups in the body, a full one and its increments behind it, with the quotas
        that the query string sets: `?storage_bytes=N`.
        """
        try:
            restore = self._host.begin_restore(request.path_params["name"], _asked_quotas(request))
        except SkerryError:
            await drain(request.receive)
            raise
        try:
            await stream_body(request.receive, restore.write)
        except BaseException:
            self._host.end_restore(restore)
            raise
        return answer(await self._host.restore(restore))

    async def _usage(self, request: Request) -> Response:
        return self.usage(self._record(request).name)

    def usage(self, name: str) -> Response:
        """What a deployment has used, for its own route too."""
        return answer({"name": name, "usage": self._host.usage(name)})

    async def _quotas(self, request: Request) -> Response:
        return answer(_shown_quotas(self._record(request)))

    async def _set_quotas(self, request: Request) -> Response:
        """Sets the quotas that the body names; null gives one back to the host's default."""
        name = self._record(request).name
        return answer(_shown_quotas(await self._host.change_quotas(name, await fields_of(request))))

    async def _keys(self, request: Request) -> Response:
        return self.list_keys(self._record(request).name)

    async def _create_key(self, request: Request) -> Response:
        return await self.create_key(self._record(request).name, request)

    async def _revoke_key(self, request: Request) -> Response:
        return await self.revoke_key(self._record(request).name, request)

    async def _quarantined(self, request: Request) -> Response:
        """The versions that are not run because they crashed the server."""
        listed = [{"name": name, "version": digest} for name, digest in self._host.quarantined()]
        return answer({"quarantined": listed})

    async def _lift_quarantine(self, request: Request) -> Response:
        """Lets a deployment's quarantined versions run again."""
        name = self._record(request).name
        return answer({"name": name, "lifted": await self._host.lift_quarantine(name)})

    # -- keys, for the deployment's own routes too ---------------------------------------------------------------

    def list_keys(self, name: str) -> Response:
        return answer({"keys": [key.listed() for key in self._host.registry.keys(name)]})

    async def create_key(self, name: str, request: Request, ends_by_ms: int | None = None) -> Response:
        """Makes a key of `scope`, with a `label` and `expiresMs` where they are given, that ends by `ends_by_ms`."""
        fields = await fields_of(request)
        record, text = await self._host.create_key(
            name, fields.get("scope"), fields.get("label", ""), fields.get("expiresMs"), ends_by_ms
        )
        return answer({**record.listed(), "key": text})

    async def revoke_key(self, name: str, request: Request) -> Response:
        key_id: str = request.path_params["id"]
        await self._host.registry.remove_key(name, key_id)
        return answer({"id": key_id})

    # -- inside --------------------------------------------------------------------------------------------------

    def _record(self, request: Request) -> DeploymentRecord:
        name: str = request.path_params["name"]
        record = self._host.registry.find(name)
        if record is None:
            raise not_found(name)
        return record

    def _shown(self, record: DeploymentRecord) -> dict[str, Any]:
        hosted = self._host.find(record.name)
        return {
            "name": record.name,
            "createdMs": record.created_ms,
            "state": record.state.value,
            "isOpen": hosted is not None and hosted.is_open,
            "quotas": _set_ones(record),
            "usage": self._host.usage(record.name),
        }


def _asked_quotas(request: Request) -> dict[str, Any]:
    """The numbers in the query string; what is none is left to be refused."""
    return {
        name: int(text) if text.isascii() and text.isdecimal() and len(text) <= _NUMBER_CHARS_MAX else text
        for name, text in request.query_params.items()
    }


def _set_ones(record: DeploymentRecord) -> dict[str, int]:
    return {name: value for name, value in asdict(record.quotas).items() if value is not None}


def _shown_quotas(record: DeploymentRecord) -> dict[str, Any]:
    return {"name": record.name, "set": _set_ones(record), "inForce": asdict(effective(record.quotas))}


async def fields_of(request: Request) -> dict[str, Any]:
    """The JSON object in a request's body, empty for an empty body. Raises: ClientError of the body."""
    raw = await read_body(request.receive, HOST_BODY_BYTES_MAX)
    return parse_body(raw) if raw.strip() else {}


def text_field(fields: dict[str, Any], name: str) -> str:
    """A field that must be a string. Raises: ClientError `BadJsonBody`."""
    value = fields.get(name)
    if not isinstance(value, str):
        raise ClientError("BadJsonBody", f'The request needs a string "{name}".')
    return value


def answer(content: Any) -> Response:
    """A JSON answer."""
    return Response(orjson.dumps(content), media_type="application/json")
