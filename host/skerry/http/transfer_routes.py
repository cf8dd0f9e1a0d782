"""The routes of imports and exports: bodies streamed to disk, answers in the shapes of Convex's own client.

Business is `skerry.admin.transfers`'s. States are answered as encoded values at routes of our own, until the protocol's
queries of them are served.

Source: protocol reference 5.13, 5.14.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

from starlette.requests import Request
from starlette.responses import FileResponse, Response

from skerry import limits
from skerry.admin.hosted import Hosted
from skerry.admin.transfer_files import Part
from skerry.admin.transfers import Transfers
from skerry.errors import ERRORS, ClientError, Family, SkerryError, SystemFault
from skerry.http.bodies import drain, parse_body, read_body, stream_body
from skerry.http.host_routes import answer, fields_of, text_field
from skerry.transfer.importing import order_of
from skerry.value import Int64, dumps

Handler = Callable[[Request], Awaitable[Response]]
_JSON: Final = "application/json"


class TransferRoutes:
    """The handlers. `handlers` by method and path."""

    def __init__(self, entropy: Callable[[int], bytes]) -> None:
        self._entropy = entropy
        self._known: dict[str, tuple[Hosted, Transfers]] = {}
        self.handlers: dict[tuple[str, str], Handler] = {
            ("POST", "/api/import"): self._import_at_once,
            ("POST", "/api/import/start_upload"): self._start_upload,
            ("POST", "/api/import/upload_part"): self._upload_part,
            ("POST", "/api/import/finish_upload"): self._finish_upload,
            ("POST", "/api/perform_import"): self._perform,
            ("POST", "/api/cancel_import"): self._cancel,
            ("GET", "/api/skerry/imports/{id}"): self._state,
            ("POST", "/api/export/request/zip"): self._request_export,
            ("GET", "/api/export/zip/{id}"): self._export_file,
            ("GET", "/api/skerry/exports/latest"): self._latest_export,
        }

    def _of(self, request: Request) -> Transfers:
        hosted: Hosted = request.scope["hosted"]
        known = self._known.get(hosted.name)
        if known is None or known[0] is not hosted:
            self._known = {name: pair for name, pair in self._known.items() if pair[0].state is not None}
            known = self._known[hosted.name] = (
                hosted,
                Transfers(hosted, asyncio.get_running_loop(), self._entropy),
            )
        return known[1]

    async def _start_upload(self, request: Request) -> Response:
        token = await self._of(request).start_upload()
        return answer({"uploadToken": token})

    async def _upload_part(self, request: Request) -> Response:
        number = request.query_params.get("partNumber", "")
        try:
            if not number.isdecimal() or len(number) > 9:
                raise ClientError("BadJsonBody", "The part needs a number, from 1: add &partNumber=1 to the address.")
            part = self._of(request).part(request.query_params.get("uploadToken", ""), int(number))
        except SkerryError:
            await drain(request.receive)
            raise
        return answer(await _taken(request, part))

    async def _finish_upload(self, request: Request) -> Response:
        fields = parse_body(await read_body(request.receive, limits.IMPORT_FINISH_BYTES_MAX))
        wanted = fields.get("import")
        tokens = _texts(fields.get("partTokens"))
        if not isinstance(wanted, dict) or tokens is None:
            raise ClientError("BadJsonBody", 'The request needs {"import": {...}, "uploadToken", "partTokens": [...]}.')
        asked = cast("dict[str, Any]", wanted)
        if asked.get("componentPath"):
            raise ClientError("ImportRefused", "Components are not served yet: import without a component.")
        name = asked.get("fileName")
        order = order_of(
            asked.get("mode"), asked.get("format"), asked.get("tableName"), name if isinstance(name, str) else ""
        )
        token = text_field(fields, "uploadToken")
        job = await self._of(request).finish_upload(order, token, tokens)
        return answer({"importId": job})

    async def _perform(self, request: Request) -> Response:
        fields = await fields_of(request)
        self._of(request).perform(text_field(fields, "importId"))
        return answer({})

    async def _cancel(self, request: Request) -> Response:
        fields = await fields_of(request)
        await self._of(request).cancel(text_field(fields, "importId"))
        return answer({})

    async def _state(self, request: Request) -> Response:
        return _value(await self._of(request).state(request.path_params["id"]))

    async def _import_at_once(self, request: Request) -> Response:
        """Uploads, confirms and imports in one request."""
        asked, transfers = request.query_params, self._of(request)
        try:
            order = order_of(asked.get("mode", "requireEmpty"), asked.get("format"), asked.get("tableName"))
            token = await transfers.start_upload(part_bytes_max=limits.IMPORT_UPLOAD_BYTES_MAX)
            part = transfers.part(token, 1)
        except SkerryError:
            await drain(request.receive)
            raise
        job = await transfers.finish_upload(order, token, [await _taken(request, part)])
        state = await transfers.settled(job)
        if state["state"] == "waiting_for_confirmation":
            transfers.perform(job)
            state = await transfers.settled(job)
        if state["state"] != "completed":
            raise _failure(state)
        written = state["num_rows_written"]
        assert isinstance(written, Int64)
        return answer({"numWritten": written.value})

    async def _request_export(self, request: Request) -> Response:
        with_storage = request.query_params.get("includeStorage") == "true"
        await self._of(request).request_export(with_storage=with_storage)
        return answer({})

    async def _latest_export(self, request: Request) -> Response:
        return _value(self._of(request).latest_export())

    async def _export_file(self, request: Request) -> Response:
        export_id = request.path_params["id"]
        path = self._of(request).export_file(export_id)
        hosted: Hosted = request.scope["hosted"]
        return FileResponse(
            path,
            media_type="application/zip",
            filename=f"snapshot_{hosted.name}_{export_id}.zip",
            stat_result=path.stat(),
        )


async def _taken(request: Request, part: Part) -> str:
    """The token of a part, once the request's body is in it; nothing is left of one that does not arrive whole."""
    try:
        await stream_body(request.receive, part.write)
    except BaseException:
        part.discard()
        raise
    return part.finish()


def _texts(values: Any) -> list[str] | None:
    """The values where they are a list of strings."""
    if not isinstance(values, list) or len(cast("list[Any]", values)) > limits.IMPORT_PARTS_MAX:
        return None
    texts = [value for value in cast("list[Any]", values) if isinstance(value, str)]
    return texts if len(texts) == len(cast("list[Any]", values)) else None


def _failure(state: dict[str, Any]) -> SkerryError:
    """What made an import fail, for whoever waited for it."""
    code, message = state["code"], state["error_message"]
    family = ERRORS[code].family
    if family is Family.SYSTEM:
        return SystemFault(code, message)
    return ClientError(code if family is Family.CLIENT else "ImportRefused", message)


def _value(value: Any) -> Response:
    """A value in its encoded form."""
    return Response(dumps(value), media_type=_JSON)


__all__ = ["TransferRoutes"]
