"""The endpoints that run functions, as a bare ASGI callable in front of the framework.

These are the hot ones: what lies between the parsed request and the function is a handful of dictionary look-ups. A
request is read and checked here, handed to the deployment, and its result spliced into the answer; which functions
exist, who may call them and what they do is the deployment's business.

Source: protocol reference 2.1 to 2.5.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final, NoReturn, cast
from urllib.parse import parse_qs, unquote

from starlette.types import ASGIApp, Receive, Scope, Send

from skerry.errors import ClientError, SkerryError, SystemFault
from skerry.functions.deployment import Deployment
from skerry.functions.request import CallRequest, CallResult
from skerry.http.answers import ENCODED, error_answer, format_of, result_json
from skerry.http.bodies import ClientGone, args_of, parse_body, parse_text_args, path_of, read_body
from skerry.http.cors import cross_origin, preflight
from skerry.http.headers import ANONYMOUS, Caller, RequestIds, authenticate, expects_encoded_json, require_admin
from skerry.http.metrics import Metrics
from skerry.http.routes import CALL_ROUTES, RUN_PREFIX
from skerry.limits import (
    HTTP_BATCH_ATTEMPTS_MAX,
    HTTP_BATCH_QUERIES_MAX,
    HTTP_QUERY_STRING_BYTES_MAX,
    USER_AGENT_CHARS_MAX,
)

_log: Final = logging.getLogger("skerry.http")
_JSON: Final = b"application/json"
_PLAIN_KINDS: Final = {"/api/query": "query", "/api/mutation": "mutation", "/api/action": "action"}


class _Sent:
    """One request, read as far as its headers."""

    __slots__ = ("authorization", "caller", "client", "headers", "request_id", "scope")

    def __init__(self, scope: Scope, headers: dict[bytes, bytes], request_id: str) -> None:
        self.scope = scope
        self.headers = headers
        self.request_id = request_id
        self.authorization = headers.get(b"authorization")
        self.client = headers.get(b"convex-client")
        self.caller = ANONYMOUS


class _Waiter:
    """Where a call leaves its outcome: most have it before anybody waits."""

    __slots__ = ("future", "outcome")

    def __init__(self) -> None:
        self.outcome: CallResult | SkerryError | None = None
        self.future: asyncio.Future[None] | None = None

    def done(self, outcome: CallResult | SkerryError) -> None:
        self.outcome = outcome
        future = self.future
        if future is not None and not future.done():
            future.set_result(None)


Endpoint = Callable[[_Sent, Receive], Awaitable[bytes]]


class CallEndpoints:
    """The ASGI application of one deployment: the call endpoints itself, everything else in `rest`."""

    def __init__(
        self,
        deployment: Deployment,
        rest: ASGIApp,
        *,
        admin_key: str,
        redacted: bool,
        entropy: Callable[[int], bytes],
        monotonic: Callable[[], float],
        metrics: Metrics,
    ) -> None:
        self._deployment = deployment
        self._rest = rest
        self._admin_key = admin_key.encode()
        self._redacted = redacted
        self._request_ids = RequestIds(entropy)
        self._monotonic = monotonic
        self._metrics = metrics
        self._endpoints: dict[str, dict[str, Endpoint]] = {
            "/api/query": {"POST": self._call, "GET": self._get_query},
            "/api/mutation": {"POST": self._call},
            "/api/action": {"POST": self._call},
            "/api/function": {"POST": self._call_any},
            "/api/query_ts": {"POST": self._query_ts},
            "/api/query_at_ts": {"POST": self._query_at_ts},
            "/api/query_batch": {"POST": self._query_batch},
            RUN_PREFIX: {"POST": self._run},
        }
        served = {(method, path) for path, methods in self._endpoints.items() for method in methods}
        assert served == {(method, path.replace("{path}", "")) for method, path in CALL_ROUTES}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request, whatever becomes of it: the only way out without an answer is a client that left."""
        if scope["type"] != "http":
            await self._rest(scope, receive, send)
            return
        path: str = scope["path"]
        methods = self._endpoints.get(path)
        if methods is None and path.startswith(RUN_PREFIX):
            methods = self._endpoints[RUN_PREFIX]
        headers: dict[bytes, bytes] = dict(scope["headers"])
        request_id = self._request_ids.name(headers.get(b"convex-request-id"))
        answer_headers = [(b"convex-request-id", request_id)]
        origin = headers.get(b"origin")
        if origin is not None and path.startswith("/api/"):
            if scope["method"] == "OPTIONS":
                await _answer(send, 200, b"", answer_headers + preflight(headers))
                return
            answer_headers += cross_origin(origin)
        if methods is None:
            await self._rest(scope, receive, _adding(send, answer_headers))
            return
        sent = _Sent(scope, headers, request_id.decode())
        try:
            status, body = 200, await self._serve(sent, methods, receive)
        except SkerryError as error:
            status, body = error_answer(error)
            self._metrics.refused(error.code)
            if status == 405:
                answer_headers.append((b"allow", ", ".join(sorted(methods)).encode()))
            if status >= 500:
                _log.error("request %s: %s: %s", sent.request_id, error.code, error.message, exc_info=error)
        except ClientGone:
            return
        except Exception as error:
            _log.exception("request %s failed", sent.request_id)
            status, body = error_answer(SystemFault("InternalServerError", str(error)))
        await _answer(send, status, body, answer_headers)

    async def _serve(self, sent: _Sent, methods: dict[str, Endpoint], receive: Receive) -> bytes:
        method: str = sent.scope["method"]
        endpoint = methods.get(method)
        if endpoint is None:
            raise ClientError(
                "MethodNotAllowed", f"This route takes {' or '.join(sorted(methods))}, not {method[:16]}."
            )
        if sent.client is not None:
            expects_encoded_json(sent.client)  # refuses a malformed header before anything runs
        if sent.authorization is not None:
            sent.caller = authenticate(sent.authorization, self._admin_key)
        return await endpoint(sent, receive)

    # -- endpoints ---------------------------------------------------------------------------------------------------

    async def _call(self, sent: _Sent, receive: Receive) -> bytes:
        fields = parse_body(await read_body(receive))
        kind = _PLAIN_KINDS[sent.scope["path"]]
        if kind == "action":
            raise ClientError(
                "ActionsNotServed", "Actions are not served by this version: only queries and mutations can be called."
            )
        return await self._run_call(sent, fields, kind, path_of(fields))

    async def _get_query(self, sent: _Sent, receive: Receive) -> bytes:
        query_string: bytes = sent.scope["query_string"]
        if len(query_string) > HTTP_QUERY_STRING_BYTES_MAX:
            raise ClientError(
                "RequestTooLarge", f"The query string is longer than {HTTP_QUERY_STRING_BYTES_MAX} bytes: use POST."
            )
        given = parse_qs(query_string.decode("latin-1"), keep_blank_values=True)
        fields: dict[str, Any] = {name: values[-1] for name, values in given.items()}
        if "args" in fields:
            fields["args"] = parse_text_args(fields["args"])
        return await self._run_call(sent, fields, "query", path_of(fields))

    async def _call_any(self, sent: _Sent, receive: Receive) -> bytes:
        fields = parse_body(await read_body(receive))
        sent.caller = require_admin(
            sent.authorization, self._admin_key, bad_key_code="BadAdminKey", name=self._deployment.name
        )
        if fields.get("componentPath"):
            raise ClientError("InvalidComponentPath", "This deployment has no components: leave componentPath out.")
        return await self._run_call(sent, fields, None, path_of(fields))

    async def _run(self, sent: _Sent, receive: Receive) -> bytes:
        raw = await read_body(receive)
        fields: dict[str, Any] = parse_body(raw) if raw.strip() else {}
        raw_path: bytes = sent.scope["raw_path"]
        parts = [unquote(part) for part in raw_path.decode("ascii")[len(RUN_PREFIX) :].split("/")]
        if len(parts) < 2 or not all(parts):
            raise ClientError(
                "MissingIdentifier",
                "The address names no function: it is /api/run/<module>/<function>, each not empty.",
            )
        path = "/".join(parts[:-1]) + ":" + parts[-1]
        return await self._run_call(sent, fields, None, path, is_public=True)

    async def _query_ts(self, sent: _Sent, receive: Receive) -> NoReturn:
        await read_body(receive)
        raise ClientError("PastReadsNotServed", "Reads at a past timestamp are not served by this version.")

    async def _query_at_ts(self, sent: _Sent, receive: Receive) -> NoReturn:
        await read_body(receive)
        raise ClientError("PastReadsNotServed", "Reads at a past timestamp are not served by this version.")

    async def _query_batch(self, sent: _Sent, receive: Receive) -> bytes:
        queries = parse_body(await read_body(receive)).get("queries")
        if type(queries) is not list:
            raise ClientError("BadJsonBody", 'A batch needs an array of queries: {"queries": [...]}.')
        batch = cast("list[Any]", queries)
        if len(batch) > HTTP_BATCH_QUERIES_MAX:
            raise ClientError("RequestTooLarge", f"A batch holds at most {HTTP_BATCH_QUERIES_MAX} queries.")
        if not all(type(item) is dict for item in batch):
            raise ClientError("BadJsonBody", "Each query of a batch is a JSON object.")
        asked = cast("list[dict[str, Any]]", batch)
        formats = [_format(sent, fields) for fields in asked]
        for _ in range(HTTP_BATCH_ATTEMPTS_MAX):
            requests = [self._request(sent, fields, "query", path_of(fields)) for fields in asked]
            results = await self._run_together(requests)
            if len({result.ts for result in results if result.ts is not None}) <= 1:  # a failure may carry none
                answers = (
                    result_json(result, how, self._redacted) for result, how in zip(results, formats, strict=True)
                )
                return b'{"results":[' + b",".join(answers) + b"]}"
        raise ClientError("QueriesUnsettled", "Writes kept changing the state between the queries of the batch.")

    # -- calling -----------------------------------------------------------------------------------------------------

    async def _run_call(
        self, sent: _Sent, fields: dict[str, Any], kind: str | None, path: str, *, is_public: bool = False
    ) -> bytes:
        started = self._monotonic()
        value_format = _format(sent, fields)
        request = self._request(sent, fields, kind, path, is_public=is_public)
        metrics = self._metrics
        waiter = _Waiter()
        metrics.in_flight += 1
        try:
            self._deployment.call(request, waiter.done)
            outcome = waiter.outcome
            if outcome is None:
                waiter.future = asyncio.get_running_loop().create_future()
                await waiter.future
                outcome = waiter.outcome
        finally:
            metrics.in_flight -= 1
        if isinstance(outcome, SkerryError):
            raise outcome
        assert outcome is not None
        metrics.call_done(kind or "any", outcome.ok, self._monotonic() - started)
        return result_json(outcome, value_format, self._redacted)

    async def _run_together(self, requests: list[CallRequest]) -> list[CallResult]:
        """All results; they are begun in one go, so that usually they read the same state."""
        return await asyncio.gather(*(self._deployment.run(request) for request in requests))

    def _request(
        self, sent: _Sent, fields: dict[str, Any], kind: str | None, path: str, *, is_public: bool = False
    ) -> CallRequest:
        caller: Caller = sent.caller
        client: tuple[str, int] | None = sent.scope.get("client")
        user_agent = sent.headers.get(b"user-agent")
        return CallRequest(
            kind=kind,
            path=path,
            args=args_of(fields),
            is_admin=caller.is_admin and not is_public,
            identity=caller.identity,
            request_id=sent.request_id,
            wording="any" if kind is None and not is_public else "public",
            ip=None if client is None else client[0],
            user_agent=None if user_agent is None else user_agent[:USER_AGENT_CHARS_MAX].decode("latin-1"),
        )


def _format(sent: _Sent, fields: dict[str, Any]) -> int:
    name = fields.get("format")
    if name == "convex_encoded_json":
        return ENCODED
    return format_of(name, sent.client is not None and expects_encoded_json(sent.client))


async def _answer(send: Send, status: int, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    headers.append((b"content-type", _JSON))
    headers.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _adding(send: Send, headers: list[tuple[bytes, bytes]]) -> Send:
    """`send`, with headers added to the answer."""

    async def send_with_headers(message: Any) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), *headers]
        await send(message)

    return send_with_headers
