"""The operations functions may ask of the host: the vocabulary of the `convex/server` package, on a transaction.

One table for each kind of function. An operation takes the running frame and its JSON argument (hostile), and gives
back JSON. What is known but not served yet is refused with a sentence that names the feature (`REFUSED`); everything
else is an unknown operation.

Source: protocol reference 4.1 - 4.8. `guest_sdk/javascript/OPS.md` lists the same for readers; a test compares the two.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

import orjson

from skerry import limits
from skerry.database import Transaction
from skerry.database.usage import FILE_METRICS, METRICS
from skerry.errors import DeveloperError
from skerry.functions.crypto_ops import CRYPTO_OPERATIONS, crypto_cost_us, run_crypto
from skerry.functions.failures import log_line
from skerry.functions.frame import Call, Frame, NestedCall
from skerry.functions.function_table import normalise_path
from skerry.isolate import GuestFault
from skerry.isolate.build_runner import entropy_length
from skerry.schedule.jobs import add_job, cancel_job, due_ms_of
from skerry.value import (
    TOO_MANY_VALUES,
    Int64,
    UndefinedAt,
    decode,
    dumps,
    has_large_integer,
    is_plain,
    parse_json,
    values_are_within,
)
from skerry.vectors import Question, parse_question

if TYPE_CHECKING:
    from skerry.functions.version import Version

_NO_OBJECT: Final = "The argument of an operation must be the JSON of an object."
_LEVELS: Final = frozenset(("DEBUG", "LOG", "INFO", "WARN", "ERROR"))


# -- arguments ---------------------------------------------------------------------------------------------------


def fields_of(argument: bytes) -> dict[str, Any]:
    if len(argument) > limits.JSON_WHOLE_BYTES_MAX:
        return _long_fields_of(argument)
    if not values_are_within(argument):
        raise DeveloperError("InvalidArgument", f"The argument of an operation: {TOO_MANY_VALUES}")
    try:
        parsed = orjson.loads(argument)
    except orjson.JSONDecodeError:
        parsed = None
    if type(parsed) is not dict:
        raise DeveloperError("InvalidArgument", _NO_OBJECT)
    return cast("dict[str, Any]", parsed)


def _long_fields_of(argument: bytes) -> dict[str, Any]:
    try:
        parsed = parse_json(
            argument, depth_max=4 * limits.VALUE_JSON_NESTING_MAX, bytes_max=limits.HOSTCALL_ARGUMENT_BYTES_MAX
        )
    except DeveloperError as error:
        if error.code == "ValueTooLargeError":
            raise DeveloperError("InvalidArgument", f"The argument of an operation: {TOO_MANY_VALUES}") from None
        parsed = None
    if type(parsed) is not dict:
        raise DeveloperError("InvalidArgument", _NO_OBJECT)
    return cast("dict[str, Any]", parsed)


def text_of(fields: dict[str, Any], name: str) -> str:
    value = fields.get(name)
    if type(value) is not str:
        raise DeveloperError("InvalidArgument", f"Invalid argument `{name}`: it must be a string.")
    return value


def optional_text(fields: dict[str, Any], name: str) -> str | None:
    return None if fields.get(name) is None else text_of(fields, name)


def whole_number(fields: dict[str, Any], name: str) -> int:
    value = fields.get(name)
    if type(value) is float and value.is_integer():
        value = int(value)
    if type(value) is not int:
        raise DeveloperError("InvalidArgument", f"Invalid argument `{name}`: it must be a whole number.")
    return value


def optional_whole_number(fields: dict[str, Any], name: str) -> int | None:
    return None if fields.get(name) is None else whole_number(fields, name)


def _object(
    argument: bytes, fields: dict[str, Any], operation: str, undefined: UndefinedAt = UndefinedAt.NOWHERE
) -> dict[str, Any]:
    """The decoded document in `value`."""
    value = fields.get("value")
    if type(value) is not dict:
        raise DeveloperError(
            "InvalidArgument", f"Invalid argument `value` for `db.{operation}`: Value must be an Object"
        )
    if is_plain(argument) and not has_large_integer(argument):
        return cast("dict[str, Any]", value)
    decoded = decode(value, undefined=undefined, commit_ts=True)
    if type(decoded) is not dict:
        raise DeveloperError(
            "InvalidArgument", f"Invalid argument `value` for `db.{operation}`: Value must be an Object"
        )
    return cast("dict[str, Any]", decoded)


# -- reading -----------------------------------------------------------------------------------------------------


def _get(frame: Frame, argument: bytes, _raw: bytes | None) -> bytes:
    fields = fields_of(argument)
    document = frame.transaction.get(
        text_of(fields, "id"), optional_text(fields, "table"), fields.get("isSystem") is True
    )
    return b"null" if document is None else document


def _normalize_id(frame: Frame, argument: bytes, _raw: bytes | None) -> bytes:
    fields = fields_of(argument)
    return orjson.dumps({"id": frame.transaction.normalize_id(text_of(fields, "table"), text_of(fields, "idString"))})


def _query_stream(frame: Frame, argument: bytes, _raw: bytes | None) -> bytes:
    return b'{"queryId":%d}' % frame.transaction.open_query(argument)


def _query_next(frame: Frame, argument: bytes, _raw: bytes | None) -> bytes:
    document = frame.transaction.next(whole_number(fields_of(argument), "queryId"))
    return b'{"value":null,"done":true}' if document is None else b'{"value":%b,"done":false}' % document


def _query_cleanup(frame: Frame, argument: bytes, _raw: bytes | None) -> bytes:
    return b"true" if frame.transaction.close_query(whole_number(fields_of(argument), "queryId")) else b"false"


def _collect(frame: Frame, argument: bytes, _raw: bytes | None) -> bytes:
    frame.collected = collected = frame.transaction.collect_query(argument)
    return collected


def _query_page(frame: Frame, argument: bytes, _raw: bytes | None) -> bytes:
    fields = fields_of(argument)
    return frame.transaction.page(
        fields.get("query"),
        optional_text(fields, "cursor"),
        optional_text(fields, "endCursor"),
        whole_number(fields, "pageSize"),
        optional_whole_number(fields, "maximumRowsRead"),
        optional_whole_number(fields, "maximumBytesRead"),
        frame.spec.name_bytes,
    )


def _count(frame: Frame, argument: bytes, _raw: bytes | None) -> bytes:
    return b"%d" % frame.transaction.count(text_of(fields_of(argument), "table"))


def _snapshot_ts(frame: Frame, _argument: bytes, _raw: bytes | None) -> bytes:
    frame.call.has_read_clock = True  # it is another one at each run, as the time is
    return dumps(Int64(frame.transaction.snapshot_ts))


def _transaction_metrics(frame: Frame, _argument: bytes, _raw: bytes | None) -> bytes:
    return orjson.dumps(frame.transaction.usage.metrics())


def vector_question(argument: bytes) -> Question:
    """The question in the argument of a vector search."""
    return parse_question(fields_of(argument).get("query"))


def _vector_search(frame: Frame, argument: bytes, _raw: bytes | None) -> bytes:
    vectors = frame.call.version.vectors
    assert vectors is not None, "a version that is called belongs to a deployment"
    return vectors.search_at(frame.transaction, vector_question(argument), frame.call.cpu)


# -- writing -----------------------------------------------------------------------------------------------------


def _insert(frame: Frame, argument: bytes, _raw: bytes | None) -> bytes:
    fields = fields_of(argument)
    document_id = frame.transaction.insert(text_of(fields, "table"), _object(argument, fields, "insert"))
    return b'{"_id":"%b"}' % document_id.encode()


def _patch(frame: Frame, argument: bytes, _raw: bytes | None) -> bytes:
    fields = fields_of(argument)
    value = _object(argument, fields, "patch", UndefinedAt.TOP_FIELDS)
    return frame.transaction.patch(text_of(fields, "id"), value, optional_text(fields, "table"))


def _replace(frame: Frame, argument: bytes, _raw: bytes | None) -> bytes:
    fields = fields_of(argument)
    value = _object(argument, fields, "replace")
    return frame.transaction.replace(text_of(fields, "id"), value, optional_text(fields, "table"))


def _remove(frame: Frame, argument: bytes, _raw: bytes | None) -> bytes:
    fields = fields_of(argument)
    return frame.transaction.delete(text_of(fields, "id"), optional_text(fields, "table"))


# -- scheduling --------------------------------------------------------------------------------------------------


def _schedule(frame: Frame, argument: bytes, _raw: bytes | None) -> bytes:
    wanted = function_to_schedule(frame.call.version, argument)
    return b'"%b"' % schedule_within(frame.call, frame.transaction, wanted).encode()


def _cancel_job(frame: Frame, argument: bytes, _raw: bytes | None) -> bytes:
    request = frame.call.request
    own = request.job_id if request.within is not None else None
    cancel_job(frame.transaction, fields_of(argument).get("id"), own)
    return b"null"


class FunctionToSchedule(NamedTuple):
    """Shape: `path` canonical, `args` decoded, `seconds` as the guest said."""

    path: str
    args: Any
    seconds: Any


def function_to_schedule(version: "Version", argument: bytes) -> FunctionToSchedule:
    """What a scheduling operation asks for. Raises: DeveloperError `InvalidScheduledFunction`, `FeatureNotServed`."""
    fields = fields_of(argument)
    name = fields.get("name")
    if type(name) is not str:
        raise DeveloperError("FeatureNotServed", "Function handles and component references are not served yet.")
    path = normalise_path(name)
    spec = None if path is None else version.functions.get(path)
    if path is None or spec is None:
        raise _not_to_schedule(version, name, path)
    if spec.kind not in ("mutation", "action"):
        raise DeveloperError(
            "InvalidScheduledFunction",
            f"Attempted to schedule {path}, which is a {spec.kind}: only mutations and actions can be scheduled.",
        )
    args = fields.get("args", {})
    if not is_plain(argument) or has_large_integer(argument):
        args = decode(args)
    if type(args) is not dict:
        raise DeveloperError("InvalidArgument", "The arguments of a scheduled function are one object.")
    return FunctionToSchedule(path, args, fields.get("ts"))


def schedule_within(call: Call, transaction: Transaction, wanted: FunctionToSchedule) -> str:
    """Schedules a function in a transaction of a call, and gives the job's id. Raises: DeveloperError."""
    due_ms = due_ms_of(wanted.seconds, call.now_ms)
    cover(call, due_ms)
    return add_job(transaction, wanted.path, wanted.args, due_ms, call.request.job_id)


def cover(call: Call, due_ms: float) -> None:
    """Sees to it that what is scheduled for a time is found after a crash. May wait for a sync, in the background."""
    due_mark = call.version.due_mark
    assert due_mark is not None, "a version that is called belongs to a deployment"
    if not due_mark.covers(due_ms):
        call.cpu.leave_slice()
        due_mark.cover()


def _not_to_schedule(version: "Version", name: str, path: str | None) -> DeveloperError:
    """The documented texts for a function that is not there. Source: protocol reference 4.7."""
    module, _, function = ("", "", "") if path is None else path.rpartition(":")
    if path is not None and any(known.startswith(f"{module}:") for known in version.functions):
        return DeveloperError(
            "InvalidScheduledFunction",
            f"Attempted to schedule function, but no exported function {function} found in the file: {module}.js. Did "
            "you forget to export it?",
        )
    shown = f"{name:.512}" if path is None else f"{module}.js:{function}"
    return DeveloperError("InvalidScheduledFunction", f"Attempted to schedule function at nonexistent path: {shown}")


# -- calling functions -------------------------------------------------------------------------------------------


def _run_function(frame: Frame, argument: bytes, _raw: bytes | None) -> int:
    """Opens a ticket: the called function runs while the calling guest is suspended."""
    fields = fields_of(argument)
    name = fields.get("name")
    if type(name) is not str:
        raise DeveloperError("FeatureNotServed", "Function handles and component references are not served yet.")
    kind = fields.get("udfType")
    is_stale = kind == "snapshotQuery"
    if is_stale:
        kind = "query"
        if frame.spec.kind == "query":
            raise DeveloperError("InvalidArgument", "`useStaleSnapshot` is only supported in mutations, not queries.")
    if kind not in ("query", "mutation"):
        raise DeveloperError("InvalidArgument", "Only queries and mutations run inside a transaction.")
    if kind == "mutation" and frame.spec.kind == "query":
        raise DeveloperError("ReadOnlyTransaction", "A query cannot call a mutation.")
    caps = transaction_caps(fields.get("transactionLimits"))
    path = normalise_path(name)
    spec = None if path is None else frame.call.version.functions.get(path)
    if spec is None:
        raise DeveloperError(
            "FunctionPathNotFound", f"Could not find function for '{name}'. Did you forget to export it?"
        )
    if spec.kind != kind:
        raise DeveloperError("WrongFunctionKind", wrong_kind(spec.name, str(kind), spec.kind))
    if frame.depth >= limits.FUNCTION_CALL_DEPTH_MAX:
        raise DeveloperError(
            "FunctionCallTooDeep",
            "Cross component call depth limit exceeded: "
            f"functions may call each other {limits.FUNCTION_CALL_DEPTH_MAX} levels deep.",
        )
    args = fields.get("args", {})
    if not is_plain(argument) or has_large_integer(argument):
        args = decode(args, commit_ts=frame.transaction.writable)
    frame.nested_bytes += len(argument)
    if frame.nested_bytes > limits.TICKETS_OPEN_BYTES_MAX:
        raise GuestFault("TooManyConcurrentOperations", _TOO_MUCH_OPEN)
    if frame.nested is None:
        frame.nested = []
    frame.tickets_made += 1
    frame.nested.append(NestedCall(frame.tickets_made, spec, args, len(argument), is_stale, caps))
    return frame.tickets_made


def transaction_caps(given: Any) -> dict[str, int] | None:
    """What a called function may use at most, by the names of `METRICS`. Raises: DeveloperError `InvalidArgument`."""
    if given is None:
        return None
    known = {*METRICS, *FILE_METRICS}
    caps: dict[str, int] = {}
    for name, value in cast("dict[str, Any]", given if type(given) is dict else {"": None}).items():
        if name not in known or type(value) not in (int, float) or not value >= 0 or value != value // 1:
            raise DeveloperError(
                "InvalidArgument",
                f"Invalid argument `transactionLimits`: it gives whole numbers for some of {', '.join(METRICS)}.",
            )
        caps[name] = int(value)
    return caps


_TOO_MUCH_OPEN: Final[str] = (
    f"The arguments of open operations have more than {limits.TICKETS_OPEN_BYTES_MAX // limits.MIB} MiB. "
    "Await some of them."
)


def wrong_kind(name: str, asked: str, defined: str) -> str:
    """The documented text for calling a function as what it is not."""
    module, _, function = name.rpartition(":")
    place, title = f"{module}.js:{function}", f"{defined[0].upper()}{defined[1:]}"
    return f"Trying to execute {place} as {asked.capitalize()}, but it is defined as {title}."


# -- about the call ----------------------------------------------------------------------------------------------


def _log(frame: Frame, argument: bytes, _raw: bytes | None) -> bytes:
    fields = fields_of(argument)
    level = fields.get("level")
    shown = level if type(level) is str and level in _LEVELS else "LOG"
    log_line(frame.call.log_lines, shown, text_of(fields, "message"))
    return b"null"


def _entropy(frame: Frame, argument: bytes, _raw: bytes | None) -> bytes:
    return frame.entropy(entropy_length(argument))


def _environment(frame: Frame, argument: bytes, _raw: bytes | None) -> bytes:
    return orjson.dumps(frame.call.version.environment.get(text_of(fields_of(argument), "name")))


def _user_identity(frame: Frame, _argument: bytes, _raw: bytes | None) -> bytes:
    frame.call.has_read_identity = True
    return orjson.dumps(frame.call.request.identity)


def _function_metadata(frame: Frame, _argument: bytes, _raw: bytes | None) -> bytes:
    return orjson.dumps({"name": frame.spec.name, "componentPath": ""})


def _deployment_metadata(frame: Frame, _argument: bytes, _raw: bytes | None) -> bytes:
    return orjson.dumps({"name": frame.call.version.deployment_name, "region": None, "class": "local"})


def _request_metadata(frame: Frame, _argument: bytes, _raw: bytes | None) -> bytes:
    request = frame.call.request
    return orjson.dumps(
        {
            "ip": request.ip,
            "userAgent": request.user_agent,
            "requestId": request.request_id,
            "scheduledFunctionId": request.job_id,
            "authToken": None if request.token is None else request.token.decode(),
        }
    )


def _crypto(operation: str, is_deterministic: bool) -> "Operation":
    def run(frame: Frame, argument: bytes, raw: bytes | None) -> bytes:
        fields = fields_of(argument)
        # Nothing interrupts a key derivation: an inline call that asks for a long one goes to the background first.
        frame.call.cpu.expect(crypto_cost_us(operation, fields, len(raw or b"")))
        result = run_crypto(operation, fields, raw, deterministic=is_deterministic, entropy=frame.entropy)
        return result if type(result) is bytes else orjson.dumps(result)

    return run


def _refuse_write(_frame: Frame, _argument: bytes, _raw: bytes | None) -> bytes:
    raise DeveloperError("ReadOnlyTransaction", "A query cannot write. Write in a mutation.")


def _refuse(reason: str) -> "Operation":
    def refuse(_frame: Frame, _argument: bytes, _raw: bytes | None) -> bytes:
        raise DeveloperError("FeatureNotServed", f"{reason[0].upper()}{reason[1:]}.")

    return refuse


# -- the tables --------------------------------------------------------------------------------------------------

Operation = Callable[[Frame, bytes, "bytes | None"], "bytes | int"]

# Contexts: Q queries, M mutations, A actions, H HTTP actions.
SERVED: Final[dict[str, tuple[str, Operation]]] = {
    "1.0/get": ("QM", _get),
    "1.0/queryStream": ("QM", _query_stream),
    "1.0/queryStreamNext": ("QM", _query_next),
    "1.0/queryCleanup": ("QM", _query_cleanup),
    "1.0/queryPage": ("QM", _query_page),
    "1.0/count": ("QM", _count),
    "1.0/db/normalizeId": ("QM", _normalize_id),
    "1.0/getSnapshotTs": ("QM", _snapshot_ts),
    "1.0/runUdf": ("QM", _run_function),
    "1.0/getTransactionMetrics": ("QM", _transaction_metrics),
    "1.0/getUserIdentity": ("QMAH", _user_identity),
    "1.0/getFunctionMetadata": ("QMAH", _function_metadata),
    "1.0/getDeploymentMetadata": ("QMAH", _deployment_metadata),
    "1.0/insert": ("M", _insert),
    "1.0/shallowMerge": ("M", _patch),
    "1.0/replace": ("M", _replace),
    "1.0/remove": ("M", _remove),
    "1.0/schedule": ("M", _schedule),
    "1.0/cancel_job": ("M", _cancel_job),
    "1.0/getRequestMetadata": ("MAH", _request_metadata),
    "1.0/actions/vectorSearch": ("QM", _vector_search),  # in actions it is another
}
"""Served operations of the `convex/server` package: the contexts they are offered in, and what they do."""

REFUSED: Final[dict[str, tuple[str, str]]] = {
    "1.0/componentArgument": ("QMAH", "components are not served yet"),
    "1.0/requireOperation": ("QMAH", "system modules only"),
    "1.0/createFunctionHandle": ("QMAH", "function handles are not served yet"),
    "1.0/auditLog": ("QMAH", "the audit log is not served yet"),
    "1.0/signJwt": ("M", "token signing is not served yet"),
    "1.0/storageStore": ("M", "file storage is not served yet"),
    "1.0/storageGet": ("M", "file storage is not served yet"),
    "1.0/storageGetUrl": ("QMAH", "file storage is not served yet"),
    "1.0/storageGetMetadata": ("QMAH", "file storage is not served yet"),
    "1.0/storageGenerateUploadUrl": ("MAH", "file storage is not served yet"),
    "1.0/storageDelete": ("MAH", "file storage is not served yet"),
    "1.0/createServiceToken": ("AH", "Convex's cloud only"),
    "1.0/getServiceUrl": ("AH", "Convex's cloud only"),
    "storage/storeBlob": ("AH", "file storage is not served yet"),
    "storage/getBlob": ("AH", "file storage is not served yet"),
    "requestFromConvexJson": ("AH", "HTTP actions are not served yet"),
    "convexJsonFromResponse": ("AH", "HTTP actions are not served yet"),
    "throwOcc": ("QM", "a test hook of Convex's own server"),
    "throwOverloaded": ("QM", "a test hook of Convex's own server"),
}
"""Known operations that are not served: their contexts, and the reason that the guest's error gives."""

_OURS: Final[dict[str, Operation]] = {
    "collect": _collect,
    "log": _log,
    "entropy": _entropy,
    "env/get": _environment,
}
_WRITES: Final = ("1.0/insert", "1.0/shallowMerge", "1.0/replace", "1.0/remove")


def offered(context: str) -> dict[bytes, Operation]:
    """The table of one kind of function; what is not in it is an unknown operation there."""
    table: dict[str, Operation] = {**_OURS, **{name: _crypto(name, context in "QM") for name in CRYPTO_OPERATIONS}}
    table |= {name: operation for name, (contexts, operation) in SERVED.items() if context in contexts}
    table |= {name: _refuse(reason) for name, (contexts, reason) in REFUSED.items() if context in contexts}
    if context not in "QM":
        del table["collect"]
    if context == "Q":
        table |= dict.fromkeys(_WRITES, _refuse_write)
    return {name.encode(): operation for name, operation in table.items()}


OPERATIONS: Final[dict[str, dict[bytes, Operation]]] = {"query": offered("Q"), "mutation": offered("M")}
