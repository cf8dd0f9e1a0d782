"""Runs one function, and the functions it calls, in isolates over one transaction.

```
arguments checked -> isolate.invoke -> (pending: run what it called, in the order of its tickets -> isolate.resume)
... -> result checked
```

A called mutation is a sub-transaction: it rolls back alone when it fails, and its failure is the calling guest's to
catch. A call is a pure function of (module, arguments, identity, request metadata, journal, snapshot, seed, now):
nothing else is reachable from here.
"""

import struct
from collections.abc import Callable
from functools import partial
from typing import Any, Final, cast

import orjson

from skerry import limits
from skerry.database import stale_transaction
from skerry.errors import DeveloperError
from skerry.functions.failures import FunctionFailure, host_failure, thrown_failure
from skerry.functions.frame import Call, Frame, NestedCall
from skerry.functions.function_table import KIND_NUMBERS, FunctionSpec
from skerry.functions.operations import OPERATIONS
from skerry.functions.request import CallRequest
from skerry.isolate import DONE, PENDING, CpuBudget, Isolate
from skerry.value import (
    Mismatch,
    ResolveTable,
    Validator,
    argument_error,
    check_encoded_result,
    check_value,
    dismantle,
    dumps,
    dumps_long,
    loads,
    returns_error,
    show_bytes,
    size_of,
)

_HEADER: Final = struct.Struct("<IIII").pack
_MAX_RESULT_JSON: Final[int] = limits.FUNCTION_RESULT_JSON_BYTES_MAX
_ARGS_MAX_SHOWN: Final[str] = show_bytes(limits.FUNCTION_ARGS_BYTES_MAX)
_RESULT_MAX_SHOWN: Final[str] = show_bytes(limits.FUNCTION_RESULT_BYTES_MAX)


def parse_arguments(raw: bytes | None, look: Callable[[], None] | None = None) -> dict[str, Any]:
    """The decoded arguments object from a request's raw JSON (an object, or an array with one).

    Raises: DeveloperError `InvalidJson`, `InvalidValue`, `ArgumentValidationError` and the codes of values.
    """
    if raw is None:
        return {}
    args: Any = loads(raw, look=look)
    if type(args) is list:
        positional = cast("list[Any]", args)
        args = positional[0] if len(positional) == 1 else None if positional else {}
    if type(args) is not dict:
        raise no_single_object()
    return cast("dict[str, Any]", args)


def is_long(request: CallRequest) -> bool:
    """Whether a request's arguments are read where its function runs, off the loop thread."""
    return request.args is not None and len(request.args) > limits.JSON_WHOLE_BYTES_MAX


def checked_arguments(
    spec: FunctionSpec, args: dict[str, Any] | None, request: CallRequest, resolve: ResolveTable, cpu: CpuBudget
) -> bytes:
    """The canonical JSON of a call's arguments, once they are what the function asks for.

    Shape: None for `args` that are long and still to be read from the request. Raises: DeveloperError.
    """
    if args is not None:
        check_arguments(spec, args, resolve, cpu)
        return dumps(args)
    args = parse_arguments(request.args, cpu.look)
    try:
        check_arguments(spec, args, resolve, cpu)
        return dumps_long(args, dumps)
    finally:
        dismantle(args)


def run_function(call: Call, spec: FunctionSpec, args: dict[str, Any] | None, depth: int) -> bytes:
    """Runs a function to its end and gives the JSON of its value. Shape: `args` as for `checked_arguments`.

    Raises: FunctionFailure; SliceSpent where the call's slice ended; SystemFault.
    """
    within = call.request.within
    if within is None or depth > 0:
        return _run_guest(call, spec, args, depth)
    call.raw_args = b"{}"
    try:
        return within(call, partial(_run_guest, call, spec, args, 0))
    except DeveloperError as error:
        raise host_failure(error) from error


def _run_guest(call: Call, spec: FunctionSpec, args: dict[str, Any] | None, depth: int) -> bytes:
    try:
        resolve = call.transaction.catalog.resolve
        raw_args = checked_arguments(spec, args, call.request, resolve, call.cpu)
        frame = Frame(call, spec, depth)
        if depth == 0:
            call.raw_args = raw_args
        request = request_bytes(spec, call.request.request_id, raw_args)
        isolate = Isolate(call.linker, call.version.module, frame, OPERATIONS[spec.kind], call.cpu)
        try:
            status, payload = isolate.invoke(request)
            while status == PENDING:
                status, payload = isolate.resume(_answer_nested(frame, isolate))
        finally:
            isolate.close()
    except DeveloperError as error:
        raise host_failure(error) from error
    if status != DONE:
        if call.version.stacks.decoding_bytes > limits.SLICE_SOURCE_MAP_BYTES_MAX:
            call.cpu.leave_slice()
        raise thrown_failure(payload, call.version.stacks)
    # As the host handed it out, from what is stored; or what most mutations return.
    transaction = frame.transaction
    is_checked = (payload == frame.collected or payload == b"null") and spec.returns is None
    if not is_checked or len(payload) > limits.RESULT_UNCHECKED_BYTES_MAX or transaction.stamped:
        check_result(spec, payload, resolve, call.cpu, commit_ts=depth > 0 and transaction.writable)
    return payload


def request_bytes(spec: FunctionSpec, request_id: str, raw_args: bytes) -> bytes:
    """The request of ABI.md. Shape: `raw_args` is the canonical JSON of the arguments object."""
    name, raw_id = spec.name_bytes, request_id.encode()
    header = _HEADER(KIND_NUMBERS[spec.kind], len(name), len(raw_id), len(raw_args) + 2)
    return b"".join((header, name, raw_id, b"[", raw_args, b"]"))


def no_single_object() -> DeveloperError:
    """The error of arguments that are no object."""
    return DeveloperError(
        "ArgumentValidationError",
        'Expected to receive a single object as the function\'s argument. Pass an object such as {} or {"name": 1}.',
    )


def check_arguments(spec: FunctionSpec, args: Any, resolve: ResolveTable, cpu: CpuBudget) -> None:
    """Refuses arguments that are no object, are too large or are not what the function asks for.

    Raises: DeveloperError.
    """
    if type(args) is not dict:
        raise no_single_object()
    size = check_value(args)
    if size > limits.FUNCTION_ARGS_BYTES_MAX:
        raise DeveloperError(
            "ValueTooLargeError",
            f"Arguments for {spec.name} are too large (actual: {show_bytes(size)}, limit: {_ARGS_MAX_SHOWN})",
        )
    validator = spec.args
    if validator is not None:
        try:
            _validate(validator, args, resolve, cpu)
        except Mismatch as mismatch:
            raise argument_error(mismatch) from None


def _validate(validator: Validator, value: Any, resolve: ResolveTable, cpu: CpuBudget) -> None:
    """Judges a value; a check that is long for the loop thread ends the slice first. Raises: Mismatch, DeveloperError.

    A check costs no more than it has steps, so it is tried with the few that a slice has room for.
    """
    if not cpu.is_slice or limits.INLINE_VALIDATION_STEPS_MAX <= limits.SLICE_VALIDATION_STEPS_MAX:
        validator.check(value, resolve, steps_max=limits.INLINE_VALIDATION_STEPS_MAX, look=cpu.look)
        return
    try:
        validator.check(value, resolve, steps_max=limits.SLICE_VALIDATION_STEPS_MAX)
    except DeveloperError as error:
        if error.code == "ValidationTooExpensive":
            cpu.leave_slice()
        raise


def check_result(
    spec: FunctionSpec, payload: bytes, resolve: ResolveTable, cpu: CpuBudget, *, commit_ts: bool = False
) -> None:
    """The guest's result, which is hostile: a value within the limits, and what the function promised.

    Shape: `commit_ts` where commit timestamps may be in it, because it stays within a mutation.

    Raises: FunctionFailure; SliceSpent for one that is long for the loop thread.
    """
    if len(payload) > limits.SLICE_RESULT_BYTES_MAX:
        cpu.leave_slice()
    try:
        if len(payload) > _MAX_RESULT_JSON:
            raise DeveloperError("ValueTooLargeError", "The text of the result is too long.")
        value = check_encoded_result(payload, commit_ts=commit_ts)
        if spec.returns is not None:
            _validate(spec.returns, value, resolve, cpu)
    except Mismatch as mismatch:
        raise host_failure(returns_error(mismatch)) from None
    except DeveloperError as error:
        if error.code == "ValueTooLargeError":
            error = DeveloperError(
                "ResultTooLarge",
                f"Function {spec.name} return value is too large "
                f"(actual: {show_bytes(_result_size(payload))}, limit: {_RESULT_MAX_SHOWN})",
            )
        raise host_failure(error) from error


def _result_size(payload: bytes) -> int:
    """The size of a result that is too large: of its value, or of its text where that is too long to be read."""
    try:
        return len(payload) if len(payload) > _MAX_RESULT_JSON else size_of(loads(payload))
    except DeveloperError:
        return len(payload)


def _answer_nested(frame: Frame, isolate: Isolate) -> bytes:
    """Runs what the guest has called, in the order of the calls; gives the completions of ABI.md.

    Limits: once the results have more than `COMPLETIONS_BYTES_MAX`, the guest gets these first and the others later.
    """
    waiting, frame.nested = frame.nested or [], None
    headers: list[bytes] = []
    payloads: list[bytes] = []
    size = 0
    for nested in waiting:
        status, payload = _run_nested(frame, nested)
        frame.nested_bytes -= nested.size
        payloads.append(payload)
        headers.append(
            nested.ticket.to_bytes(4, "little") + status.to_bytes(4, "little") + len(payload).to_bytes(4, "little")
        )
        size += len(payload)
        if size > limits.COMPLETIONS_BYTES_MAX:
            break
    frame.nested = waiting[len(headers) :] or None
    isolate.tickets_open -= len(headers)
    return b"".join([len(headers).to_bytes(4, "little"), *headers, *payloads])


def _run_nested(frame: Frame, nested: NestedCall) -> tuple[int, bytes]:
    call, transaction = frame.call, frame.transaction
    is_mutation = nested.spec.kind == "mutation"
    state = transaction.enter_function()
    maxima = None if nested.caps is None else transaction.usage.lower(nested.caps)
    if nested.is_stale:
        call.transaction = stale_transaction(transaction)
    try:
        if is_mutation:
            transaction.savepoint()
        try:
            value = run_function(call, nested.spec, nested.args, frame.depth + 1)
        except BaseException as error:
            if is_mutation:
                transaction.rollback()
            if not isinstance(error, FunctionFailure):
                raise
            return 1, error_object(error)
        if is_mutation:
            transaction.release()
        return 0, value
    except DeveloperError as error:  # too many sub-transactions
        return 1, error_object(host_failure(error))
    finally:
        call.transaction = transaction
        if maxima is not None:
            transaction.usage.restore(maxima)
        transaction.leave_function(state)


def error_object(failure: FunctionFailure) -> bytes:
    """The error object of ABI.md for a called function's failure."""
    code = b"" if failure.code is None else b',"code":%b' % orjson.dumps(failure.code)
    data = b"" if failure.data is None else b',"data":%b' % failure.data
    return b'{"name":"Error","message":%b%b%b}' % (orjson.dumps(failure.text.removesuffix("\n")), code, data)
