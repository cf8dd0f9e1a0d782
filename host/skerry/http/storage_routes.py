"""The routes by which a deployment's storage is looked after: what it takes, its settings, its jobs; and its crons.

A job is begun by one request and asked after by others, so that none of them lasts as long as the job.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, Iterator
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from skerry.admin.hosted import Hosted
from skerry.backup.taking import Taking
from skerry.errors import ClientError, SystemFault
from skerry.functions.deployment import Deployment
from skerry.functions.right_of_way import get_right_of_way
from skerry.http.host_routes import Handler, answer, fields_of, text_field

_NS_PER_MS: Final = 1_000_000
_TIMESTAMP: Final = re.compile(r"[0-9]{1,19}", re.ASCII)
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


class StorageRoutes:
    """The handlers, by method and path."""

    def __init__(self) -> None:
        self.handlers: dict[tuple[str, str], Handler] = {
            ("GET", "/api/skerry/storage"): self._show,
            ("POST", "/api/skerry/storage/settings"): self._change_settings,
            ("POST", "/api/skerry/storage/jobs"): self._start_job,
            ("GET", "/api/skerry/backup"): self._backup,
            ("GET", "/api/skerry/crons"): self._crons,
        }

    async def _show(self, request: Request) -> Response:
        """What the file takes, the settings, and the job that runs or ran last."""
        async with _hosted(request).using() as deployment:
            return answer(_shown(deployment))

    async def _crons(self, request: Request) -> Response:
        """The crons with their last and next run."""
        async with _hosted(request).using() as deployment:
            return answer({"crons": deployment.scheduled.crons_shown()})

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

    async def _backup(self, request: Request) -> Response:
        """The deployment as it is now, in one file; with `since` and `previous`, what has changed since another one."""
        since, previous = _base(request)
        async with AsyncExitStack() as stack:
            deployment = await stack.enter_async_context(_hosted(request).using())
            snapshot = deployment.database.looks.snapshot()
            stack.callback(snapshot.close)
            taking = await asyncio.to_thread(
                partial(
                    Taking,
                    snapshot,
                    deployment.bundle_path,
                    name=deployment.name,
                    now_ms=deployment.clock_ns() // _NS_PER_MS,
                    documents=deployment.document_count(),
                    since=since,
                    previous=previous,
                )
            )
            kept = stack.pop_all()
        return _Backup(_pieces(deployment, taking.pieces()), kept)


class _Backup(StreamingResponse):
    """An answer that lets go of what it reads, however it ends."""

    def __init__(self, pieces: AsyncGenerator[bytes], kept: AsyncExitStack) -> None:
        super().__init__(pieces, media_type="application/gzip")
        self._kept = kept

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._kept:
            await super().__call__(scope, receive, send)


async def _pieces(deployment: Deployment, pieces: Iterator[bytes]) -> AsyncGenerator[bytes]:
    """The pieces, made one at a time beside the loop thread, which goes first."""
    while deployment.is_readable:
        piece = await asyncio.to_thread(_next, pieces)
        if piece is None:
            return
        if piece:
            yield piece
    raise SystemFault("ShuttingDown", "The server is shutting down. Try again in a moment.")


def _next(pieces: Iterator[bytes]) -> bytes | None:
    get_right_of_way().give_way()
    return next(pieces, None)


def _base(request: Request) -> tuple[int | None, str | None]:
    """The timestamp and the digest of the backup that an increment continues. Raises: ClientError `BadJsonBody`."""
    since, previous = request.query_params.get("since"), request.query_params.get("previous")
    if since is None and previous is None:
        return None, None
    if since is None or previous is None or not _TIMESTAMP.fullmatch(since) or not _SHA256.fullmatch(previous):
        raise ClientError("BackupBaseUnknown", "An increment needs `since` and `previous` of the backup before it.")
    return int(since), previous


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
