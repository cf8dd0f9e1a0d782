"""What calls use: counted for each deployment, and, where an operator asks for it, one line of log for each call.

CPU is what the clock of the thread says between the beginning and the end of a call on it: guest and host, all that was
done for the call there, an abandoned attempt included. Asking that clock costs more than a microsecond, so it is asked
twice for a call. The guest's part is estimated: CPU time, times the share of the elapsed time that lay between entering
and leaving the guest; what the guest asks of the host meanwhile counts as the guest's.

Steps are the guest's own count (ABI.md, *Steps*), the same on every machine: those of the attempt that gave the call's
outcome and of the functions it called, since how often a call began is no property of the call. A guest can say what it
likes, so no more of them count than there were nanoseconds of CPU time, which no true count comes near.

A `Meter` only ever grows and is never reset: whoever saves or limits remembers what it has seen. Deliberately absent:
what a deployment may use (`admin.shares`), and durability (`admin.registry`).

Concurrency: the loop thread, but for `measure`.
"""

import logging
from collections import deque
from collections.abc import Callable
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Final

import orjson

from skerry import limits

if TYPE_CHECKING:
    from skerry.database.usage import Usage
    from skerry.functions.request import CallRequest, CallResult
    from skerry.isolate import CpuBudget

COUNTERS: Final = (
    "calls",
    "calls_failed",
    "calls_refused",
    "cpu_ns",
    "guest_ns",
    "guest_steps",
    "hostcalls",
    "documents_read",
    "bytes_read",
    "documents_written",
    "bytes_written",
    "bytes_sent",
    "egress_requests",
    "egress_bytes",
    "background_failures",
)
"""What is counted for a deployment, in the order in which it is shown."""

_calls_log: Final = logging.getLogger("skerry.calls")


class CallUsage:
    """What one call has used so far, over all its attempts.

    Shape: `sent` bytes of its answer, once that is made; `is_kept` where the answer was kept from another call.
    """

    __slots__ = (
        "bytes_read", "bytes_written", "cpu_ns", "documents_read", "documents_written", "guest_ns", "guest_steps",
        "hostcalls", "is_kept", "sent",
    )  # fmt: skip

    def __init__(self) -> None:
        self.cpu_ns = 0
        self.guest_ns = 0
        self.guest_steps = 0
        self.hostcalls = 0
        self.documents_read = 0
        self.bytes_read = 0
        self.documents_written = 0
        self.bytes_written = 0
        self.sent = 0
        self.is_kept = False

    def add_run(self, cpu_ns: int, begin_ns: int, cpu: "CpuBudget", usage: "Usage | None") -> None:
        """Adds one attempt, which began at `begin_ns` of the elapsed time's clock. Any thread."""
        elapsed_ns = perf_counter_ns() - begin_ns
        self.cpu_ns += cpu_ns
        if elapsed_ns > 0:
            self.guest_ns += min(cpu_ns, cpu_ns * cpu.guest_elapsed_ns // elapsed_ns)
        self.guest_steps = min(cpu.steps, cpu_ns)
        self.hostcalls += cpu.hostcalls
        if usage is not None:
            self.documents_read += usage.documents_read
            self.bytes_read += usage.bytes_read


class CallLog:
    """The lines that calls leave, formatted on a thread of somebody else's.

    Shape: `write_soon` runs a function some time later, off the loop thread, once for each time it is asked.
    Limits: CALL_LOG_LINES_WAITING_MAX; what comes beyond is counted and said, not kept.
    """

    def __init__(self, write_soon: Callable[[Callable[[], None]], object]) -> None:
        self._write_soon = write_soon
        self._waiting: deque[tuple[str, str, CallRequest, str, bool, str | None, CallUsage]] = deque()
        self._dropped = 0
        self._is_asked = False

    def add(
        self, name: str, kind: str, request: "CallRequest", path: str, ok: bool, code: str | None, usage: CallUsage
    ) -> None:
        """Takes note of a call that is done; what is sent for it may still be filled in."""
        if len(self._waiting) >= limits.CALL_LOG_LINES_WAITING_MAX:
            self._dropped += 1
            return
        self._waiting.append((name, kind, request, path, ok, code, usage))
        if not self._is_asked:
            self._is_asked = True
            self._write_soon(self.write)

    def write(self) -> None:
        """Writes what waits. Not on the loop thread."""
        self._is_asked = False
        for _ in range(len(self._waiting)):
            _calls_log.info("%s", call_line(*self._waiting.popleft()).decode())
        dropped, self._dropped = self._dropped, 0
        if dropped:
            _calls_log.warning("%s", orjson.dumps({"dropped": dropped}).decode())


def call_line(
    name: str, kind: str, request: "CallRequest", path: str, ok: bool, code: str | None, usage: CallUsage
) -> bytes:
    """One call's line. It has nothing of the call's arguments, result or identity."""
    return orjson.dumps(
        {
            "deployment": name,
            "request": request.request_id,
            "kind": kind,
            "function": path,
            "ok": ok,
            "code": code,
            "cached": usage.is_kept,
            "cpuUs": usage.cpu_ns // 1000,
            "guestUs": usage.guest_ns // 1000,
            "hostUs": (usage.cpu_ns - usage.guest_ns) // 1000,
            "guestSteps": usage.guest_steps,
            "hostcalls": usage.hostcalls,
            "documentsRead": usage.documents_read,
            "bytesRead": usage.bytes_read,
            "documentsWritten": usage.documents_written,
            "bytesWritten": usage.bytes_written,
            "bytesSent": usage.sent,
        }
    )


class Meter:
    """What one deployment has used since this process began. Shape: `loop_ns` is the part on the loop thread."""

    __slots__ = (*COUNTERS, "log", "loop_ns", "name")

    def __init__(self, name: str = "", log: CallLog | None = None) -> None:
        self.name = name
        self.log = log
        self.loop_ns = 0
        self.calls = 0
        self.calls_failed = 0
        self.calls_refused = 0
        self.cpu_ns = 0
        self.guest_ns = 0
        self.guest_steps = 0
        self.hostcalls = 0
        self.documents_read = 0
        self.bytes_read = 0
        self.documents_written = 0
        self.bytes_written = 0
        self.bytes_sent = 0
        self.egress_requests = 0
        self.egress_bytes = 0
        self.background_failures = 0

    def add_cpu(self, cpu_ns: int) -> None:
        """Counts CPU time at once, also of a call that is not done."""
        self.cpu_ns += cpu_ns

    def add_loop(self, cpu_ns: int) -> None:
        """Counts CPU time of the loop thread that is no call's."""
        self.cpu_ns += cpu_ns
        self.loop_ns += cpu_ns

    def done(self, usage: CallUsage, kind: str, path: str, request: "CallRequest", ok: bool, code: str | None) -> None:
        """Counts a call that is done; its CPU time was counted when it was spent."""
        self.calls += 1
        if not ok:
            self.calls_failed += 1
        self.guest_ns += usage.guest_ns
        self.guest_steps += usage.guest_steps
        self.hostcalls += usage.hostcalls
        self.documents_read += usage.documents_read
        self.bytes_read += usage.bytes_read
        if usage.documents_written:
            self.documents_written += usage.documents_written
            self.bytes_written += usage.bytes_written
        if self.log is not None:
            self.log.add(self.name, kind, request, path, ok, code, usage)

    def sent(self, outcome: "CallResult | None", n_bytes: int) -> None:
        """Counts the bytes of an answer."""
        self.bytes_sent += n_bytes
        if outcome is not None and outcome.usage is not None:
            outcome.usage.sent += n_bytes

    def totals(self) -> dict[str, int]:
        """Every counter."""
        return {name: getattr(self, name) for name in COUNTERS}


def shown_usage(totals: "dict[str, int] | dict[str, Any]") -> dict[str, int]:
    """Totals as people see them: every counter, CPU time in microseconds."""
    shown: dict[str, int] = {}
    for name in COUNTERS:
        value = totals.get(name, 0)
        stem, _, unit = name.rpartition("_")
        first, *rest = (f"{stem}_us" if unit == "ns" else name).split("_")
        shown[first + "".join(word.capitalize() for word in rest)] = value // 1000 if unit == "ns" else value
    return shown
