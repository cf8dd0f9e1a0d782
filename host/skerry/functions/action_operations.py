"""The operations that only actions have: calls of functions, timers, fetch.

Each checks its argument (hostile) on the action thread and leaves a step for the loop thread; `action_run` begins it.
Timers and fetches are named by numbers that the guest chooses, so that it can stop what it has not heard of yet.

Contract: guest_sdk/ABI.md, *Hostcalls of actions*.
"""

from collections.abc import Callable
from typing import Any, Final, NamedTuple, cast

from skerry import limits
from skerry.errors import DeveloperError
from skerry.functions.action_frame import ActionFrame
from skerry.functions.execution import no_single_object
from skerry.functions.frame import Call
from skerry.functions.operations import (
    fields_of,
    function_to_schedule,
    offered,
    optional_text,
    schedule_within,
    text_of,
    vector_question,
    whole_number,
)
from skerry.functions.request import Within
from skerry.isolate import Hostcall
from skerry.schedule.jobs import cancel_job
from skerry.value import decode, has_large_integer, is_plain
from skerry.vectors import Question

_NUMBER_MAX: Final = 2**53 - 1
_REDIRECTS: Final = frozenset(("follow", "error", "manual"))
_BODIES: Final = frozenset(("none", "bytes", "stream"))


class FunctionToCall(NamedTuple):
    """Shape: `kind` and `name` as the guest said; `args` decoded; `size` of their JSON in bytes."""

    kind: str
    name: str
    args: Any
    size: int


class VectorsToSearch(NamedTuple):
    """Shape: `size` of the argument in bytes."""

    question: Question
    size: int


class JobsToChange(NamedTuple):
    """Shape: `within` is what is done in a transaction; `size` of the argument in bytes."""

    within: Within
    size: int


class FetchToStart(NamedTuple):
    """Shape: `number` the guest's; `body` None where there is none or it is streamed; `is_eager` asks for a small body
    with the head.
    """

    number: int
    method: str
    url: str
    headers: list[tuple[str, str]]
    redirect: str
    body: bytes | None
    is_streamed: bool
    is_eager: bool


class BodyPart(NamedTuple):
    """Shape: `failure` is the guest's reason where its stream broke."""

    number: int
    chunk: bytes
    is_last: bool
    failure: str | None


def _number_of(fields: dict[str, Any]) -> int:
    number = whole_number(fields, "id")
    if not 0 <= number <= _NUMBER_MAX:
        raise DeveloperError("InvalidArgument", "Invalid argument `id`: it must be a number from 0 on.")
    return number


def _call(kind: str) -> Hostcall:
    def run(frame: ActionFrame, argument: bytes, _raw: bytes | None) -> int:
        fields = fields_of(argument)
        name = fields.get("name")
        if type(name) is not str:
            raise DeveloperError("FeatureNotServed", "Function handles and component references are not served yet.")
        args = fields.get("args", {})
        if not is_plain(argument) or has_large_integer(argument):
            args = decode(args)
        if args is None:  # which would stand for arguments that are still to be read
            raise no_single_object()
        return frame.later("call", FunctionToCall(kind, name, args, frame.hold(len(argument))))

    return run


def _vector_search(frame: ActionFrame, argument: bytes, _raw: bytes | None) -> int:
    return frame.later("vectors", VectorsToSearch(vector_question(argument), frame.hold(len(argument))))


def _schedule(frame: ActionFrame, argument: bytes, _raw: bytes | None) -> int:
    wanted = function_to_schedule(frame.call.version, argument)

    def within(call: Call, _run: Callable[[], bytes]) -> bytes:
        return b'"%b"' % schedule_within(call, call.transaction, wanted).encode()

    return frame.later("jobs", JobsToChange(within, frame.hold(len(argument))))


def _cancel_job(frame: ActionFrame, argument: bytes, _raw: bytes | None) -> int:
    job_id = fields_of(argument).get("id")

    def within(call: Call, _run: Callable[[], bytes]) -> bytes:
        cancel_job(call.transaction, job_id, None)
        return b"null"

    return frame.later("jobs", JobsToChange(within, frame.hold(len(argument))))


def _start_timer(frame: ActionFrame, argument: bytes, _raw: bytes | None) -> int:
    fields = fields_of(argument)
    delay_ms = fields.get("ms")
    if type(delay_ms) not in (int, float) or not 0 <= cast("float", delay_ms) <= limits.ACTION_TIMER_MS_MAX:
        raise DeveloperError(
            "InvalidArgument", f"Invalid argument `ms`: a timer waits 0 to {limits.ACTION_TIMER_MS_MAX} milliseconds."
        )
    return frame.later("timer", (_number_of(fields), cast("float", delay_ms) / 1000))


def _clear_timer(frame: ActionFrame, argument: bytes, _raw: bytes | None) -> bytes:
    return frame.tell("clear", _number_of(fields_of(argument)))


def _start_fetch(frame: ActionFrame, argument: bytes, raw: bytes | None) -> int:
    fields = fields_of(argument)
    url, redirect, body = text_of(fields, "url"), optional_text(fields, "redirect"), optional_text(fields, "body")
    if len(url) > limits.ACTION_FETCH_URL_CHARS_MAX:
        raise DeveloperError(
            "InvalidArgument", f"The URL has more than {limits.ACTION_FETCH_URL_CHARS_MAX} characters: shorten it."
        )
    if redirect not in _REDIRECTS or body not in _BODIES:
        raise DeveloperError("InvalidArgument", "A fetch takes redirect (follow, error, manual) and body.")
    frame.hold(len(raw or b""))
    return frame.later(
        "fetch",
        FetchToStart(
            _number_of(fields),
            text_of(fields, "method"),
            url,
            _headers(fields.get("headers")),
            redirect,
            (raw or b"") if body == "bytes" else None,
            body == "stream",
            fields.get("eager") is True,
        ),
    )


def _headers(given: Any) -> list[tuple[str, str]]:
    if type(given) is not list or len(cast("list[Any]", given)) > limits.ACTION_FETCH_HEADERS_MAX:
        raise DeveloperError(
            "InvalidArgument", f"The headers must be a list of at most {limits.ACTION_FETCH_HEADERS_MAX} pairs."
        )
    headers: list[tuple[str, str]] = []
    for pair in cast("list[Any]", given):
        if type(pair) is not list or [type(text) for text in cast("list[Any]", pair)] != [str, str]:
            raise DeveloperError("InvalidArgument", "Each header must be a pair of texts.")
        name, value = cast("list[str]", pair)
        headers.append((name, value))
    return headers


def _write_body(frame: ActionFrame, argument: bytes, raw: bytes | None) -> int:
    fields = fields_of(argument)
    chunk = raw or b""
    frame.hold(len(chunk))
    part = BodyPart(_number_of(fields), chunk, fields.get("last") is True, optional_text(fields, "failure"))
    return frame.later("write", part)


def _read_body(frame: ActionFrame, argument: bytes, _raw: bytes | None) -> int:
    fields = fields_of(argument)
    return frame.later("read", (_number_of(fields), fields.get("whole") is True, fields.get("text") is True))


def _cancel_fetch(frame: ActionFrame, argument: bytes, _raw: bytes | None) -> bytes:
    return frame.tell("cancel", _number_of(fields_of(argument)))


ACTION_SERVED: Final[dict[str, Hostcall]] = {
    "1.0/actions/query": _call("query"),
    "1.0/actions/mutation": _call("mutation"),
    "1.0/actions/action": _call("action"),
    "1.0/actions/vectorSearch": _vector_search,
    "1.0/actions/schedule": _schedule,
    "1.0/actions/cancel_job": _cancel_job,
}
"""Served operations of the `convex/server` package that need no transaction; contexts A and H."""

ACTION_OURS: Final[dict[str, Hostcall]] = {
    "timer/start": _start_timer,
    "timer/clear": _clear_timer,
    "fetch/start": _start_fetch,
    "fetch/write": _write_body,
    "fetch/read": _read_body,
    "fetch/cancel": _cancel_fetch,
}

ACTION_OPERATIONS: Final[dict[bytes, Hostcall]] = {
    **offered("A"),
    **{name.encode(): operation for name, operation in (ACTION_SERVED | ACTION_OURS).items()},
}
"""What an action may ask of the host."""
