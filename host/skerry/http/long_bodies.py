"""Bodies and answers that are long for the loop thread: taken apart, and put together, beside it.

A body of more than `JSON_WHOLE_BYTES_MAX` is joined, parsed and bounded on one of the threads that patient calls share,
in its deployment's turn; so is an answer whose format asks for another text than the function's. The loop thread gets
from there what it can handle at a glance: the few fields of a request, with each call's arguments as JSON text. What
arguments mean is found out where the function runs.

What waits or is worked on is bounded for each deployment, by its bytes. The CPU time is the deployment's.

Concurrency: the loop thread, but for what it hands to `_work`.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import orjson

from skerry import limits
from skerry.errors import ClientError, SystemFault
from skerry.functions.patient_threads import PatientThreads
from skerry.functions.right_of_way import get_right_of_way
from skerry.functions.terms import Terms
from skerry.http.bodies import ArrivingBody, args_of, parse_body
from skerry.value import dismantle, dumps_long
from skerry.value.kinds import kind_of

_CALLS: Final = "queries"
"""The field of a batch that holds calls."""

_CONTAINERS: Final = frozenset({dict, list})

Outcome = dict[str, Any] | bytes | Exception


class LongWork:
    """What one deployment's long bodies and answers wait for. Shape: `bytes_under_way` of those that are not done."""

    def __init__(
        self,
        terms: Terms,
        threads: PatientThreads,
        call_soon_threadsafe: Callable[..., object],
        thread_time_ns: Callable[[], int] = time.thread_time_ns,
    ) -> None:
        self._terms = terms
        self._threads = threads
        self._call_soon_threadsafe = call_soon_threadsafe
        self._thread_time_ns = thread_time_ns
        self.bytes_under_way = 0

    def read(self, body: ArrivingBody, done: Callable[[Outcome], None]) -> None:
        """Takes a long body apart; `done` hears on the loop thread of its fields, or of what is wrong with it.

        Raises: SystemFault `TooManyConcurrentRequests`, where too much waits already.
        """
        self.read_as(body.size, lambda: fields_of_long(body.whole()), done)

    def read_as(self, size: int, job: Callable[[], Any], done: Callable[[Any], None]) -> None:
        """Has `job` take something long apart; `done` hears on the loop thread of what it gives or raises.

        Raises: as `read`.
        """
        if self.bytes_under_way + size > limits.HTTP_LONG_BYTES_WAITING_MAX:
            raise SystemFault("TooManyConcurrentRequests", "Too many large requests wait for their turn. Try again.")
        self._begin(size, job, done)

    def write(self, size: int, make: Callable[[], bytes], done: Callable[[Outcome], None]) -> None:
        """Makes a long answer; `done` hears of it on the loop thread. It is never refused, for the call has run."""
        self._begin(size, make, done)

    def _begin(self, size: int, job: Callable[[], Any], done: Callable[[Any], None]) -> None:
        self.bytes_under_way += size
        self._threads.submit(self._terms.patient_queue, lambda: self._work(size, job, done))

    def _work(self, size: int, job: Callable[[], Any], done: Callable[[Any], None]) -> None:
        begin_ns = self._thread_time_ns()
        outcome: Any
        try:
            outcome = job()
        except Exception as error:
            outcome = error
        cpu_ns = self._thread_time_ns() - begin_ns
        with suppress(RuntimeError):  # the loop has ended: nobody waits for it any more
            self._call_soon_threadsafe(self._take, size, cpu_ns, outcome, done)

    def _take(self, size: int, cpu_ns: int, outcome: Any, done: Callable[[Any], None]) -> None:
        self.bytes_under_way -= size
        self._terms.meter.add_cpu(cpu_ns)
        done(outcome)


def fields_of_long(raw: bytes) -> dict[str, Any] | bytes:
    """The fields of a long body, with each call's `args` as JSON text; the empty text for one of nothing but spaces.

    Containers in other fields are told by an empty one: no endpoint reads them. Raises: ClientError.
    Limits: HTTP_FIELDS_MAX.
    """
    if not raw.strip():
        return b""
    fields = parse_body(raw, look=get_right_of_way().give_way)
    try:
        short = _short(fields)
        if kind_of(fields.get(_CALLS)) is list:
            calls: list[Any] = fields[_CALLS]
            some = calls[: limits.HTTP_BATCH_QUERIES_MAX + 1]  # one too many is refused, and so are more
            short[_CALLS] = [_short(call) if kind_of(call) is dict else None for call in some]
        return short
    finally:
        dismantle(fields)


def _short(fields: dict[str, Any]) -> dict[str, Any]:
    if len(fields) > limits.HTTP_FIELDS_MAX:
        raise ClientError("RequestTooLarge", f"A call has more than {limits.HTTP_FIELDS_MAX} fields.")
    short: dict[str, Any] = {name: [] if kind_of(value) in _CONTAINERS else value for name, value in fields.items()}
    if "args" in fields:
        short["args"] = args_of(fields, _dumps)
    return short


def _dumps(args: Any) -> bytes:
    return dumps_long(args, orjson.dumps)
