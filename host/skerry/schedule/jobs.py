"""Scheduled functions, as documents of the table `_scheduled_functions`, within the transaction that changes them.

```
schedule -> pending -> (mutation) success or failed
                    -> (action) inProgress -> success or failed
cancel   -> canceled, from pending and inProgress
```

A job is written in the transaction of the mutation that schedules it, and rolls back with it. A mutation's job ends in
the very transaction of the mutation, so it has run if and only if it is marked so. An action's job is `inProgress`,
durably, before the action begins.

The fields are those of the protocol (reference 6.3). `name` has the form `module.js:function`, `args` is a list of one
object, times are milliseconds since 1970.

Limits: SCHEDULED_ARGS_BYTES_MAX, SCHEDULED_DELAY_SECONDS_MAX, SCHEDULED_ERROR_CHARS_MAX, and of one call those of
`database.usage`.
"""

from math import isfinite
from typing import TYPE_CHECKING, Any, Final

from skerry.database import JOB_TABLE, Transaction, change_system, find_system, insert_system, remove_system
from skerry.errors import DeveloperError
from skerry.limits import SCHEDULED_ARGS_BYTES_MAX, SCHEDULED_DELAY_SECONDS_MAX, SCHEDULED_ERROR_CHARS_MAX
from skerry.value import check_value, encode_document_id, show_bytes, try_decode_document_id

if TYPE_CHECKING:
    from skerry.database.catalog import Table

LOST_ACTION: Final = "Transient error while executing action"
"""What is said of an action that was under way when its deployment ended. Source: protocol reference 10.5."""

_UNFINISHED: Final = ("pending", "inProgress")
_MS_PER_S: Final = 1_000
_PLACES: Final = 3


def due_ms_of(seconds: Any, now_ms: float) -> float:
    """The time in the argument of a scheduling operation, in milliseconds.

    Raises: DeveloperError `InvalidScheduledFunctionDelay`.
    """
    if type(seconds) not in (int, float) or not isfinite(seconds):
        raise DeveloperError(
            "InvalidScheduledFunctionDelay", "Invalid argument `ts`: the time to run a function at is a finite number."
        )
    due_ms = round(seconds * _MS_PER_S, _PLACES)
    if due_ms - now_ms > SCHEDULED_DELAY_SECONDS_MAX * _MS_PER_S:
        raise DeveloperError(
            "InvalidScheduledFunctionDelay",
            f"A function can be scheduled at most {SCHEDULED_DELAY_SECONDS_MAX // 86_400} days from now (5 years).",
        )
    return float(due_ms)


def add_job(
    transaction: Transaction, path: str, args: dict[str, Any], due_ms: float, scheduled_by: str | None = None
) -> str:
    """Schedules a function, and gives the job's id. Shape: `path` as `module:function`; `scheduled_by` is the job in
    which this happens: what a canceled one schedules is canceled from the start.

    Raises: DeveloperError `TooManyFunctionsScheduled`, `ScheduledFunctionsArgumentsTooLarge`, `StorageQuotaReached`,
    and the codes of values.
    """
    size = check_value(args)
    if size > SCHEDULED_ARGS_BYTES_MAX:
        raise DeveloperError(
            "ScheduledFunctionsArgumentsTooLarge",
            f"The arguments of a scheduled function are too large (actual: {show_bytes(size)}, limit: "
            f"{show_bytes(SCHEDULED_ARGS_BYTES_MAX)})",
        )
    transaction.usage.schedule(size)
    module, _, function = path.rpartition(":")
    fields: dict[str, Any] = {
        "name": f"{module}.js:{function}",
        "args": [args],
        "scheduledTime": due_ms,
        "state": {"kind": "pending"},
    }
    if scheduled_by is not None:
        parent = find_job(transaction, internal_id_of(scheduled_by))
        if parent is not None and parent["state"]["kind"] == "canceled":
            fields |= {"state": {"kind": "canceled"}, "completedTime": transaction.now_ms}
    return insert_system(transaction, _table(transaction), fields)


def cancel_job(transaction: Transaction, job_id: Any, own: str | None) -> None:
    """Cancels a job that has not ended; of one that has ended, or is gone, nothing comes. Shape: `own` is the job whose
    mutation this transaction is.

    Raises: DeveloperError `InvalidArgument`, `ScheduledFunctionCancelingItself`.
    """
    decoded = try_decode_document_id(job_id) if type(job_id) is str else None
    if decoded is None or decoded[0] != JOB_TABLE:
        raise DeveloperError(
            "InvalidArgument", "Invalid argument `id` for `scheduler.cancel`: it is no id of a scheduled function."
        )
    if own == job_id:
        raise DeveloperError(
            "ScheduledFunctionCancelingItself",
            "A scheduled mutation cannot cancel itself: it is running already. Return early instead.",
        )
    job = find_job(transaction, decoded[1])
    if job is not None and job["state"]["kind"] in _UNFINISHED:
        end_job(transaction, job, "canceled")


def find_job(transaction: Transaction, internal_id: bytes) -> dict[str, Any] | None:
    """A job's document, None where it is gone."""
    return find_system(transaction, _table(transaction), internal_id)


def begin_job(transaction: Transaction, internal_id: bytes, kind: str) -> dict[str, Any]:
    """The job in the state in which somebody goes on with it. Raises: DeveloperError `ScheduledFunctionGone`."""
    job = find_job(transaction, internal_id)
    if job is None or job["state"]["kind"] != kind:
        raise DeveloperError("ScheduledFunctionGone", "The scheduled function was canceled.")
    return job


def mark_job(transaction: Transaction, job: dict[str, Any], kind: str) -> None:
    """Puts a job that has not ended into a state."""
    change_system(transaction, _table(transaction), job, {"state": {"kind": kind}})


def end_job(transaction: Transaction, job: dict[str, Any], kind: str, error: str = "") -> None:
    """Ends a job: as success, failed with an error, or canceled."""
    state = {"kind": kind, "error": error[:SCHEDULED_ERROR_CHARS_MAX]} if kind == "failed" else {"kind": kind}
    change_system(transaction, _table(transaction), job, {"state": state, "completedTime": transaction.now_ms})


def forget_job(transaction: Transaction, internal_id: bytes) -> None:
    """Removes the document of a job that has ended."""
    job = find_job(transaction, internal_id)
    if job is not None and job["state"]["kind"] not in _UNFINISHED:
        remove_system(transaction, _table(transaction), job)


def id_of(internal_id: bytes) -> str:
    """The id of a job."""
    return encode_document_id(JOB_TABLE, internal_id)


def internal_id_of(job_id: str) -> bytes:
    """The internal id of a job, whose id is one."""
    decoded = try_decode_document_id(job_id)
    assert decoded is not None and decoded[0] == JOB_TABLE
    return decoded[1]


def _table(transaction: Transaction) -> "Table":
    return transaction.catalog.numbers[JOB_TABLE]
