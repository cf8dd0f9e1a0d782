"""The endpoints that run functions, of one deployment.

These are the hot ones: what lies between the parsed request and the function is a handful of dictionary look-ups. A
request is read and checked here, handed to the deployment, and its result spliced into the answer; which functions
exist, who may call them and what they do is the deployment's business. Nothing here waits: a deployment says when a
call is done, and an answer goes to the exchange it belongs to.

The calls of all requests that a turn of the loop brought are run one after the other (`turns`), and answered after
that. A call
takes the processor's caches with it, so that reading, calling and answering in turns would find nothing where it was:
each of the three is several times faster next to its like. The library writes once a turn in any case.

Source: protocol reference 2.1 to 2.5.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, cast
from urllib.parse import parse_qs, unquote

from skerry.admin.hosted import Hosted
from skerry.errors import ClientError, SkerryError, SystemFault
from skerry.functions.request import CallRequest, CallResult, ReadTime
from skerry.http.answers import ENCODED, error_answer, format_of, long_bytes, result_json, retry_after
from skerry.http.bodies import (
    ArrivingBody,
    args_of,
    dump_timestamp,
    fields_of,
    parse_text_args,
    path_of,
    timestamp_of,
)
from skerry.http.exchange import Exchange
from skerry.http.fault_log import FaultLog
from skerry.http.headers import Caller, Judge, RequestIds, authenticate, expects_encoded_json, require_admin
from skerry.http.long_bodies import LongWork, Outcome
from skerry.http.metrics import Metrics
from skerry.http.routes import CALL_ROUTES, RUN_PREFIX
from skerry.http.turns import Ask, TurnQueue, Turns
from skerry.identity import User
from skerry.limits import (
    HTTP_BATCH_QUERIES_MAX,
    HTTP_QUERY_STRING_BYTES_MAX,
    JSON_WHOLE_BYTES_MAX,
    USER_AGENT_CHARS_MAX,
)

# A request's body, or its fields where it was long and was taken apart beside the loop thread.
Body = bytes | dict[str, Any]

# Takes a request and its body, and sees to it that it is answered. Raises: what the request is to be refused with.
Endpoint = Callable[[Exchange, Body], None]


class CallEndpoints:
    """The endpoints of one deployment."""

    def __init__(
        self,
        deployment: Hosted,
        *,
        judge: Judge,
        redacted: bool,
        monotonic: Callable[[], float],
        turns: Turns,
        metrics: Metrics,
        long: LongWork,
        request_ids: RequestIds,
    ) -> None:
        self._deployment = deployment
        self._long = long
        self._judge = judge
        self.redacted = redacted
        self._monotonic = monotonic
        self._metrics = metrics
        self._faults = FaultLog(monotonic)
        self._request_ids = request_ids
        self._done_this_turn: list[tuple[Exchange, CallResult | SkerryError]] = []
        self._turns = turns
        self._queue = TurnQueue(deployment.meter, self._answer_those_done)
        self._by_path: dict[str, dict[str, Endpoint]] = {
            "/api/query": {"POST": self._query, "GET": self._get_query},
            "/api/mutation": {"POST": self._mutation},
            "/api/action": {"POST": self._action},
            "/api/function": {"POST": self._call_any},
            "/api/query_ts": {"POST": self._query_ts},
            "/api/query_at_ts": {"POST": self._query_at_ts},
            "/api/query_batch": {"POST": self._query_batch},
            RUN_PREFIX: {"POST": self._run},
        }
        served = {(method, path) for path, methods in self._by_path.items() for method in methods}
        assert served == {(method, path.replace("{path}", "")) for method, path in CALL_ROUTES}

    def methods_of(self, path: str) -> dict[str, Endpoint] | None:
        """The methods of a path, each with its endpoint; None where the path is not one of these routes."""
        methods = self._by_path.get(path)
        if methods is None and path.startswith(RUN_PREFIX):
            return self._by_path[RUN_PREFIX]
        return methods

    # -- one request ---------------------------------------------------------------------------------------------

    @property
    def start(self) -> "Callable[[CallRequest, Callable[[CallResult | SkerryError], None]], None]":
        """Runs a call of the deployment; whoever is told of the outcome raises nothing."""
        return self._deployment.start

    def run_soon(self, run: Ask) -> None:
        """Runs something of the deployment's own in its turn, whatever its quotas say."""
        self._turns.ask(self._queue, run)

    @property
    def cpu_wait_s(self) -> float:
        """The seconds until the deployment may use CPU time again."""
        return self._deployment.share.cpu_wait_s

    def read_long(self, size: int, job: Callable[[], Any], done: Callable[[Any], None]) -> None:
        """Has `job` take something long apart beside the loop thread. Raises: as `LongWork.read_as`."""
        self._long.read_as(size, job, done)

    def count_live_run(self) -> None:
        """Counts a run of a live query."""
        self._metrics.live_runs += 1

    def caller_of(self, authorization: bytes) -> Caller:
        """Who sends this. Raises: as `authenticate`."""
        return authenticate(authorization, self._judge)

    def identify(self, token: bytes, told: Callable[[User | SkerryError], None]) -> None:
        """Tells whose token it is, now or when its provider's keys are there."""
        self._deployment.identify(token, told)

    def start_as_sent(self, request: CallRequest, done: Callable[[CallResult | SkerryError], None]) -> None:
        """Runs a call as whoever its token says, or refuses it; one without a token runs at once."""
        if request.token is None:
            self._deployment.start(request, done)
        else:
            self._deployment.identify(request.token, partial(self._start_as, request, done))

    def _start_as(
        self, request: CallRequest, done: Callable[[CallResult | SkerryError], None], user: User | SkerryError
    ) -> None:
        if isinstance(user, SkerryError):
            done(user)
            return
        request.identity = user.identity
        try:
            self._deployment.start(request, done)
        except Exception as error:  # whoever tells who it is has others to tell
            done(SystemFault("InternalServerError", str(error)))

    def make_request(self, kind: str, path: str, args: bytes, caller: Caller) -> CallRequest:
        """The request for a function that did not come over HTTP, of a caller who is known."""
        return CallRequest(
            kind=kind,
            path=path,
            args=args,
            is_admin=caller.is_admin,
            identity=caller.identity,
            request_id=self._request_ids.name(None).decode(),
            token=caller.token,
        )

    def admit(self, exchange: Exchange) -> None:
        """Refuses a request by its headers, before its body is read. Raises: ClientError."""
        headers = exchange.headers
        client = headers.get(b"convex-client")
        if client is not None:
            expects_encoded_json(client)  # refuses a malformed header before anything runs
        authorization = headers.get(b"authorization")
        if authorization is not None:
            exchange.caller = authenticate(authorization, self._judge)

    def serve(self, exchange: Exchange, endpoint: Endpoint, body: ArrivingBody) -> None:
        """Answers a request that was admitted, now or when its call is done, whatever becomes of it."""
        try:
            if body.is_long:
                self._long.read(body, partial(self._serve_long, exchange, endpoint))
            else:
                endpoint(exchange, body.whole())
        except Exception as error:
            self.fail(exchange, error)

    def _serve_long(self, exchange: Exchange, endpoint: Endpoint, body: Outcome) -> None:
        try:
            if isinstance(body, Exception):
                raise body
            endpoint(exchange, body)
        except Exception as error:
            self.fail(exchange, error)

    def fail(self, exchange: Exchange, error: Exception) -> None:
        """Answers with an error: in its own words where it is one of ours, with no words where nobody foresaw it."""
        if isinstance(error, SkerryError):
            status, body = error_answer(error)
            exchange.retry_after_s = retry_after(error, status)
            self._metrics.refused(error.code)
            self._faults.answered(exchange.request_id, error, status)
        else:
            self._faults.failed(exchange.request_id, error)
            status, body = error_answer(SystemFault("InternalServerError", str(error)))
        self.sent(None, body)
        exchange.answer(status, body)

    def sent(self, result: CallResult | None, body: bytes) -> None:
        """Counts an answer for the deployment."""
        self._deployment.meter.sent(result, len(body))

    # -- endpoints -----------------------------------------------------------------------------------------------

    def _query(self, exchange: Exchange, raw: Body) -> None:
        fields = fields_of(raw)
        self._call(exchange, fields, "query", path_of(fields))

    def _mutation(self, exchange: Exchange, raw: Body) -> None:
        fields = fields_of(raw)
        self._call(exchange, fields, "mutation", path_of(fields))

    def _action(self, exchange: Exchange, raw: Body) -> None:
        fields = fields_of(raw)
        self._call(exchange, fields, "action", path_of(fields))

    def _get_query(self, exchange: Exchange, raw: Body) -> None:
        if len(exchange.query) > HTTP_QUERY_STRING_BYTES_MAX:
            raise ClientError(
                "RequestTooLarge", f"The query string is longer than {HTTP_QUERY_STRING_BYTES_MAX} bytes: use POST."
            )
        given = parse_qs(exchange.query.decode("latin-1"), keep_blank_values=True)
        fields: dict[str, Any] = {name: values[-1] for name, values in given.items()}
        if "args" in fields:
            fields["args"] = parse_text_args(fields["args"])
        self._call(exchange, fields, "query", path_of(fields))

    def _call_any(self, exchange: Exchange, raw: Body) -> None:
        fields = fields_of(raw)
        exchange.caller = require_admin(
            exchange.headers.get(b"authorization"),
            self._judge,
            bad_key_code="BadAdminKey",
            name=self._deployment.name,
        )
        if fields.get("componentPath"):
            raise ClientError("InvalidComponentPath", "This deployment has no components: leave componentPath out.")
        self._call(exchange, fields, None, path_of(fields))

    def _run(self, exchange: Exchange, raw: Body) -> None:
        fields: dict[str, Any] = fields_of(raw) if type(raw) is not bytes or raw.strip() else {}
        parts = [unquote(part) for part in exchange.target.decode("ascii").partition(RUN_PREFIX)[2].split("/")]
        if len(parts) < 2 or not all(parts):
            raise ClientError(
                "MissingIdentifier",
                "The address names no function: it is /api/run/<module>/<function>, each not empty.",
            )
        path = "/".join(parts[:-1]) + ":" + parts[-1]
        self._call(exchange, fields, None, path, is_public=True)

    def _query_ts(self, exchange: Exchange, raw: Body) -> None:
        refusal = self._deployment.admit(len(self._queue.asked))
        if refusal is not None:
            raise refusal
        self._deployment.newest_ts(partial(self._answer_ts, exchange))

    def _answer_ts(self, exchange: Exchange, outcome: int | SkerryError) -> None:
        if isinstance(outcome, SkerryError):
            self.fail(exchange, outcome)
            return
        body = b'{"ts":"' + dump_timestamp(outcome) + b'"}'
        self.sent(None, body)
        exchange.answer(200, body)

    def _query_at_ts(self, exchange: Exchange, raw: Body) -> None:
        fields = fields_of(raw)
        self._call(exchange, fields, "query", path_of(fields), at=ReadTime(timestamp_of(fields)))

    def _query_batch(self, exchange: Exchange, raw: Body) -> None:
        queries = fields_of(raw).get("queries")
        if type(queries) is not list:
            raise ClientError("BadJsonBody", 'A batch needs an array of queries: {"queries": [...]}.')
        batch = cast("list[Any]", queries)
        if len(batch) > HTTP_BATCH_QUERIES_MAX:
            raise ClientError("RequestTooLarge", f"A batch holds at most {HTTP_BATCH_QUERIES_MAX} queries.")
        if not all(type(item) is dict for item in batch):
            raise ClientError("BadJsonBody", "Each query of a batch is a JSON object.")
        asked = cast("list[dict[str, Any]]", batch)
        formats = [_format(exchange, fields) for fields in asked]
        at = ReadTime()
        requests = [self._request(exchange, fields, "query", path_of(fields), at=at) for fields in asked]
        _Batch(self, exchange, requests, formats, self.redacted).ask()

    # -- calling -------------------------------------------------------------------------------------------------

    def _call(
        self,
        exchange: Exchange,
        fields: dict[str, Any],
        kind: str | None,
        path: str,
        *,
        is_public: bool = False,
        at: ReadTime | None = None,
    ) -> None:
        exchange.started = self._monotonic()
        exchange.kind = kind
        exchange.value_format = _format(exchange, fields)
        if kind == "query" and at is None and exchange.caller.token is None:  # a user is still to be verified
            kept = self._deployment.kept_answer(path, args_of(fields), exchange.caller.identity)
            if kept is not None and not long_bytes(kept):
                self._answer_kept(exchange, kept)
                return
        request = self._request(exchange, fields, kind, path, is_public=is_public, at=at)
        self.ask(partial(self._run_call, exchange, request))
        self._metrics.in_flight += 1

    def _answer_kept(self, exchange: Exchange, kept: CallResult) -> None:
        """Answers with what an equal call came to, which is still true. Raises: SkerryError, as `ask`."""
        refusal = self._deployment.admit(len(self._queue.asked))
        if refusal is not None:
            raise refusal
        self._deployment.count_kept()
        bodies = kept.bodies
        assert bodies is not None, "it is kept"
        body = bodies.get(exchange.value_format)
        if body is None:
            body = result_json(kept, exchange.value_format, self.redacted)
            if not bodies:  # one more is what its size counts
                bodies[exchange.value_format] = body
        self._metrics.call_done("query", True, self._monotonic() - exchange.started)
        self.sent(None, body)
        exchange.answer(200, body)

    def ask(self, run: Ask) -> None:
        """Runs a call of this deployment in its turn. Raises: SkerryError, where its quotas do not allow it."""
        queue = self._queue
        refusal = self._deployment.admit(len(queue.asked))
        if refusal is not None:
            raise refusal
        self._turns.ask(queue, run)

    def ask_all(self, runs: list[Ask]) -> None:
        """Runs calls of this deployment in their turns. Raises: SkerryError, where its quotas do not allow all."""
        queue = self._queue
        refusal = self._deployment.admit(len(queue.asked), len(runs))
        if refusal is not None:
            raise refusal
        for run in runs:
            self._turns.ask(queue, run)

    def _run_call(self, exchange: Exchange, request: CallRequest) -> None:
        exchange.is_calling = True
        try:
            self.start_as_sent(request, partial(self._done, exchange))
        except Exception as error:
            if exchange.is_calling:
                exchange.is_calling = False
                self._metrics.in_flight -= 1
                self.fail(exchange, error)

    def _answer_those_done(self) -> None:
        done, self._done_this_turn = self._done_this_turn, []
        for exchange, outcome in done:
            self._answer(exchange, outcome)

    def _done(self, exchange: Exchange, outcome: CallResult | SkerryError) -> None:
        """Hears of a call's outcome, and raises nothing: who tells it has other calls to see to."""
        if not exchange.is_calling:
            return
        exchange.is_calling = False
        if self._queue.is_running:
            self._done_this_turn.append((exchange, outcome))
        else:
            self._answer(exchange, outcome)

    def _answer(self, exchange: Exchange, outcome: CallResult | SkerryError) -> None:
        metrics = self._metrics
        metrics.in_flight -= 1
        try:
            if isinstance(outcome, SkerryError):
                self.fail(exchange, outcome)
                return
            metrics.call_done(exchange.kind or "any", outcome.ok, self._monotonic() - exchange.started)
            if size := long_bytes(outcome):
                make = partial(result_json, outcome, exchange.value_format, self.redacted)
                self.answer_long(exchange, size, make, outcome)
                return
            body = result_json(outcome, exchange.value_format, self.redacted)
            self.sent(outcome, body)
            exchange.answer(200, body)
        except Exception as error:
            self.fail(exchange, error)

    def answer_long(
        self, exchange: Exchange, size: int, make: Callable[[], bytes], outcome: CallResult | None = None
    ) -> None:
        """Answers with what `make` makes beside the loop thread."""
        self._long.write(size, make, partial(self._answer_made, exchange, outcome))

    def _answer_made(self, exchange: Exchange, outcome: CallResult | None, made: Outcome) -> None:
        try:
            if isinstance(made, Exception):
                raise made
            assert type(made) is bytes, "it is an answer"
            self.sent(outcome, made)
            exchange.answer(200, made)
        except Exception as error:
            self.fail(exchange, error)

    def _request(
        self,
        exchange: Exchange,
        fields: dict[str, Any],
        kind: str | None,
        path: str,
        *,
        is_public: bool = False,
        at: ReadTime | None = None,
    ) -> CallRequest:
        caller = exchange.caller
        user_agent = exchange.headers.get(b"user-agent")
        return CallRequest(
            kind=kind,
            path=path,
            args=args_of(fields),
            is_admin=caller.is_admin and not is_public,
            identity=caller.identity,
            request_id=exchange.request_id.decode(),
            wording="any" if kind is None and not is_public else "public",
            ip=exchange.ip,
            user_agent=None if user_agent is None else user_agent[:USER_AGENT_CHARS_MAX].decode("latin-1"),
            at=at,
            token=caller.token,
        )


class _Batch:
    """Queries that are answered together, from one state: their requests share the time that they read at."""

    def __init__(
        self,
        endpoints: CallEndpoints,
        exchange: Exchange,
        requests: list[CallRequest],
        formats: list[int],
        redacted: bool,
    ) -> None:
        self._endpoints = endpoints
        self._exchange = exchange
        self._requests = requests
        self._formats = formats
        self._redacted = redacted
        self._missing = len(requests)
        self._outcomes: list[CallResult | SkerryError | None] = [None] * self._missing

    def ask(self) -> None:
        """Begins all queries, or answers where there are none."""
        if not self._requests:
            self._settle()
            return
        self._endpoints.ask_all(
            [partial(self._run_query, number, request) for number, request in enumerate(self._requests)]
        )

    def _run_query(self, number: int, request: CallRequest) -> None:
        try:
            self._endpoints.start_as_sent(request, partial(self._done, number))
        except Exception as error:
            self._endpoints.fail(self._exchange, error)

    def _done(self, number: int, outcome: CallResult | SkerryError) -> None:
        self._outcomes[number] = outcome
        self._missing -= 1
        if not self._missing:
            try:
                self._settle()
            except Exception as error:
                self._endpoints.fail(self._exchange, error)

    def _settle(self) -> None:
        """Answers from the outcomes. Raises: SkerryError."""
        results: list[CallResult] = []
        for outcome in self._outcomes:
            if isinstance(outcome, SkerryError):
                raise outcome
            assert outcome is not None
            results.append(outcome)
        size = sum(len(result.value) for result in results)
        if size > JSON_WHOLE_BYTES_MAX:
            self._endpoints.answer_long(self._exchange, size, partial(self._made, results))
            return
        self._exchange.answer(200, self._made(results))

    def _made(self, results: list[CallResult]) -> bytes:
        answers = [result_json(*pair, self._redacted) for pair in zip(results, self._formats, strict=True)]
        return b"".join((b'{"results":[', b",".join(answers), b"]}"))


def _format(exchange: Exchange, fields: dict[str, Any]) -> int:
    name = fields.get("format")
    if name == "convex_encoded_json":
        return ENCODED
    client = exchange.headers.get(b"convex-client")
    return format_of(name, client is not None and expects_encoded_json(client))
