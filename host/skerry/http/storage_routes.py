"""The routes by which a deployment's storage is looked after: what it takes, its settings, and its jobs.

A job is begun by one request and asked after by others, so that none of them lasts as long as the job.
"""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from skerry.admin.hosted import Hosted
from skerry.functions.deployment import Deployment
from skerry.http.host_routes import Handler, answer, fields_of, text_field


class StorageRoutes:
    """The handlers, by method and path."""

    def __init__(self) -> None:
        self.handlers: dict[tuple[str, str], Handler] = {
            ("GET", "/api/skerry/storage"): self._show,
            ("POST", "/api/skerry/storage/settings"): self._change_settings,
            ("POST", "/api/skerry/storage/jobs"): self._start_job,
        }

    async def _show(self, request: Request) -> Response:
        """What the file takes, the settings, and the job that runs or ran last."""
        async with _hosted(request).using() as deployment:
            return answer(_shown(deployment))

    async def _change_settings(self, request: Request) -> Response:
        """Sets the settings that the body names; null gives one back to its default."""
        fields = await fields_of(request)
        async with _hosted(request).using() as deployment:
            await deployment.settings.change(fields)
            return answer(_shown(deployment))

    async def _start_job(self, request: Request) -> Response:
        """Begins the job of the `kind` that the body names."""
        kind = text_field(await fields_of(request), "kind")
        async with _hosted(request).using() as deployment:
            deployment.care.start(kind)
            return answer(_shown(deployment))


def _shown(deployment: Deployment) -> dict[str, Any]:
    care = deployment.care
    seen = care.seen() if deployment.is_readable else None
    return {
        "file": None
        if seen is None
        else {"bytes": seen.file_bytes, "dataBytes": seen.data_bytes, "freeBytes": seen.free_bytes},
        "settings": deployment.settings.shown(),
        "job": None if care.job is None else care.job.shown(),
    }


def _hosted(request: Request) -> Hosted:
    hosted: Hosted = request.scope["hosted"]
    return hosted
