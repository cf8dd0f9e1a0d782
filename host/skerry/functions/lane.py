"""How calls are scheduled: inline on the loop thread, or patiently on a background thread.

**Inline** (the common case): a call runs to its end on the loop thread, with a slice of a few milliseconds. Mutations
run in the order they arrive, each over its predecessors' pending writes: that is the deployment's *lane*, and nothing
in it conflicts.

**Patient**: a call that outran its slice is abandoned (it is a pure function, its transaction is dropped) and run
again from the start on a background thread, beside the lane, with the full CPU budget and a snapshot of its own. A
patient mutation's read set is checked at its commit; after `CONFLICT_RETRIES_MAX` conflicts it *holds the lane*:
mutations that arrive wait until it has committed, so it cannot conflict again. A change of the schema holds the lane
too, and shares the background threads for what is long in it. A function that outran its slice goes
to the background directly from then on, until it proves quick again. One whose snapshot ended under it, because the
storage grew or was opened again, runs again too, `SNAPSHOTS_LOST_MAX` times.

Concurrency: everything here is the loop thread's, except `_run_patient`.
"""

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Final

from skerry import limits
from skerry.database import Conflict, Database, Transaction
from skerry.errors import SkerryError, SystemFault
from skerry.functions.call_record import make_call_record
from skerry.functions.conflict_report import conflict_message, conflict_report
from skerry.functions.crash_notes import note_of_this_thread
from skerry.functions.execution import run_function
from skerry.functions.failures import FunctionFailure, error_message
from skerry.functions.frame import Call
from skerry.functions.metering import CallUsage
from skerry.functions.patient_threads import PatientThreads, get_patient_threads
from skerry.functions.request import CallRequest, CallResult, Keep
from skerry.functions.right_of_way import PatientBudget, get_right_of_way
from skerry.functions.terms import Terms
from skerry.isolate import CpuSlice, Linker, SliceSpent, linker_of_this_thread
from skerry.storage import Write

if TYPE_CHECKING:
    from skerry.functions.function_table import FunctionSpec
    from skerry.functions.version import Version

Done = Callable[["CallResult | SkerryError"], None]

_log: Final = logging.getLogger("skerry.functions")
_NS_PER_MS: Final = 1_000_000
_SLOW: Final = 2
"""From this count of outrun slices on, a function's calls go to the background at once (one may be the machine's)."""
_SLOWNESS_MAX: Final = 8


class Work:
    """One call on its way.

    Shape: `args` decoded, None for long ones, which are read where it runs, in the background; `conflicts` and
    `snapshots_lost` so far; `conflict` tells of the last one; `usage` of all its attempts.
    """

    __slots__ = ("args", "conflict", "conflicts", "done", "request", "snapshots_lost", "spec", "usage", "version")

    def __init__(
        self, version: "Version", spec: "FunctionSpec", args: dict[str, Any] | None, request: CallRequest, done: Done
    ) -> None:
        self.version = version
        self.spec = spec
        self.args = args
        self.request = request
        self.done = done
        self.conflicts = 0
        self.conflict = ""
        self.snapshots_lost = 0
        self.usage = CallUsage()


class Lane:
    """The scheduler of one deployment's calls."""

    def __init__(
        self,
        database: Database,
        loop: asyncio.AbstractEventLoop,
        clock_ns: Callable[[], int],
        entropy: Callable[[int], bytes],
        *,
        terms: Terms | None = None,
        background: PatientThreads | None = None,
    ) -> None:
        self._database = database
        self._loop = loop
        self._clock_ns = clock_ns
        self._entropy = entropy
        self._linker: Linker | None = None
        self._note: memoryview[int] | None = None
        self._terms = terms or Terms()
        self.meter = self._terms.meter
        self._background = background or get_patient_threads()
        self._patient_queue = self._terms.patient_queue
        self._way = get_right_of_way()
        self._patient = 0
        self._holder: object | None = None
        self._next_holder: asyncio.Future[None] | None = None
        self._waiting: deque[Work] = deque()
        self._is_releasing = False
        self._thread_time_ns = time.thread_time_ns
        self.cpu_ms_max = limits.GUEST_CPU_MS_MAX
        self._idle = asyncio.Event()
        self.in_flight = 0
        self.calls_inline = 0
        self.calls_patient = 0
        self.conflicts = 0

    def run(self, work: Work) -> None:
        """Runs a call; `work.done` hears of the outcome on the loop thread, once; of a mutation when durable."""
        self.in_flight += 1
        at = work.request.at
        if at is not None and at.ts is None:
            at.ts = self._database.durable_ts
        if work.spec.kind == "mutation" and (self._holder is not None or self._waiting):
            self._wait(work)
            return
        if work.spec.slowness >= _SLOW or work.args is None:
            self._go_patient(work)
            return
        self._run_inline(work)

    async def idle(self) -> None:
        """Waits until no call is in flight."""
        while self.in_flight:
            self._idle.clear()
            await self._idle.wait()

    async def hold(self) -> None:
        """Lets no mutation begin or commit until `release`; returns once all commits are durable.

        Mutations that arrive meanwhile wait, queries do not notice. One holder at a time asks.
        Raises: SystemFault of storage; the lane is not held then. Limits: LANE_CALLS_WAITING_MAX.
        """
        assert self._next_holder is None and self._holder is not self, "it is held already"
        if self._holder is None:
            self._holder = self
        else:  # a mutation has it, and hands it over at its end
            self._next_holder = self._loop.create_future()
            await self._next_holder
        if not self._database.n_pending and self._database.engine.failed is None:
            return
        durable: asyncio.Future[None] = self._loop.create_future()

        def on_durable(outcome: int | BaseException) -> None:
            if isinstance(outcome, BaseException):
                durable.set_exception(outcome)
            else:
                durable.set_result(None)

        try:
            self._fence(on_durable)
            await durable
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Ends what `hold` began; where that is not so, it does nothing."""
        if self._holder is self:
            self._release_lane()

    def beside(self, job: Callable[[], None]) -> Future[None]:
        """Runs work of the host that is long for the loop thread where patient calls run, in their turns."""
        done: Future[None] = Future()

        def run() -> None:
            try:
                job()
            except BaseException as error:
                done.set_exception(error)
            else:
                done.set_result(None)

        self._background.submit(self._patient_queue, run)
        return done

    # -- inline --------------------------------------------------------------------------------------------------

    def _run_inline(self, work: Work) -> None:
        is_mutation = work.spec.kind == "mutation"
        seed = self._entropy(32)
        try:
            at = work.request.at
            transaction = self._database.begin(
                writable=is_mutation,
                now_ms=self._clock_ns() / _NS_PER_MS,
                seed=seed,
                at_ts=None if at is None else at.ts,
                journal=work.request.journal,
            )
        except SkerryError as error:
            self._finish(work, error)
            return
        linker = self._linker
        if linker is None:
            linker = self._linker = linker_of_this_thread()
            self._note = note_of_this_thread()
        note = self._note
        assert note is not None, "made with the linker"
        begin_ns = perf_counter_ns()
        cpu = CpuSlice(self._thread_time_ns, self._way.slice_ms, memory_bytes_max=self._terms.memory_bytes)
        transaction.usage.bound(cpu.look, limits.SLICE_VALIDATION_STEPS_MAX, cpu.leave_slice)
        call = Call(work.version, work.request, transaction, linker, seed, cpu)
        self.calls_inline += 1
        note[0] = work.version.crash_number
        failure: Exception | None = None
        value = b""
        try:
            value = run_function(call, work.spec, work.args, 0)
        except Exception as error:
            failure = error
        finally:
            note[0] = 0
        cpu_ns = cpu.used_ns()
        meter = self.meter
        meter.cpu_ns += cpu_ns
        meter.loop_ns += cpu_ns
        work.usage.add_run(cpu_ns, begin_ns, cpu, transaction.usage)
        if failure is not None:
            self._failed_inline(work, call, failure)
        elif is_mutation:
            self._commit(work, call, value)
        else:
            transaction.abort()
            self._finish(work, _succeeded(call, value, transaction.begin_ts))

    def _failed_inline(self, work: Work, call: Call, failure: Exception) -> None:
        if isinstance(failure, FunctionFailure):
            self._conclude(work, call, failure)
            return
        call.transaction.abort()
        if isinstance(failure, SliceSpent):
            work.spec.slowness = min(work.spec.slowness + 1, _SLOWNESS_MAX)
            self._go_patient(work)
        elif isinstance(failure, SkerryError):
            self._finish(work, failure)
        else:
            self._finish(work, _fault(work, failure))

    # -- commit --------------------------------------------------------------------------------------------------

    def _commit(self, work: Work, call: Call, value: bytes) -> None:
        way = self._way

        def on_durable(outcome: int | BaseException) -> None:
            way.release()
            if isinstance(outcome, int):
                written = call.transaction.usage
                work.usage.documents_written = written.documents_written
                work.usage.bytes_written = written.bytes_written
                result = _succeeded(call, value, outcome)
                if work.conflicts:
                    result.log_lines.append(_run_again(work))
                self._finish(work, result)
            elif isinstance(outcome, SkerryError):
                self._finish(work, outcome)
            else:
                self._finish(work, _fault(work, outcome))

        try:
            way.take()
            keep = work.request.keep
            also = None if keep is None else partial(_kept, keep, call, value)
            self._database.commit(call.transaction, make_call_record(call, work.spec), on_durable, also)
        except Conflict as conflict:
            way.release()
            self._retry(work, conflict)
            return
        except SkerryError as error:
            way.release()
            self._finish(work, error)
        except Exception as error:  # whatever it was, the call ends and nobody waits behind it
            way.release()
            call.transaction.abort()
            self._finish(work, _fault(work, error))
        if self._holder is work:
            self._release_lane()

    def _conclude(self, work: Work, call: Call, failure: FunctionFailure) -> None:
        """Ends a call that failed. A mutation's failure may tell of commits it saw: it waits for those."""
        if work.spec.kind != "mutation":
            call.transaction.abort()
            self._finish(work, _failed(call, failure))
            return

        def on_durable(outcome: int | BaseException) -> None:
            if isinstance(outcome, SkerryError):
                self._finish(work, outcome)
            else:
                self._finish(work, _failed(call, failure))

        self._database.conclude(call.transaction, on_durable)

    def _retry(self, work: Work, conflict: Conflict) -> None:
        work.conflicts += 1
        self.conflicts += 1
        work.conflict = conflict_report(conflict, work.spec.name)
        _log.info("call %s conflicts: %s", work.request.request_id, work.conflict)
        if self._holder is work:  # the storage failed under it: nothing else can come between
            self._release_lane()
            self._finish(work, SystemFault(conflict.code, conflict_message(conflict, work.spec.name)))
        elif self._holder is not None:
            self._wait(work)
        elif work.conflicts < limits.CONFLICT_RETRIES_MAX:
            self._go_patient(work)
        else:
            self._hold_lane(work)

    def _hold_lane(self, work: Work) -> None:
        """Lets a call run with nobody beside it, once all commits are durable: its snapshot is the newest state."""
        self._holder = work

        def on_durable(outcome: int | BaseException) -> None:
            if isinstance(outcome, int):
                self._go_patient(work)
                return
            self._release_lane()
            self._finish(work, SystemFault("StorageFailed", f"The storage failed before the call could run: {outcome}"))

        try:
            self._fence(on_durable)
        except SkerryError as error:
            self._release_lane()
            self._finish(work, error)

    def _fence(self, on_durable: Callable[[int | BaseException], None]) -> None:
        """Calls back once all commits so far are durable, or lost."""
        fence = self._database.begin(writable=True, now_ms=self._clock_ns() / _NS_PER_MS, seed=self._entropy(32))
        self._database.commit(fence, b"", on_durable)

    def _release_lane(self) -> None:
        if self._next_holder is not None:
            self._holder = self
            self._next_holder.set_result(None)
            self._next_holder = None
            return
        self._holder = None
        if self._waiting and not self._is_releasing:
            self._is_releasing = True
            self._loop.call_soon(self._run_waiting)

    def _run_waiting(self) -> None:
        """Runs some of the calls that waited for the lane; the others when the loop has turned, which others use."""
        self._is_releasing = False
        end_ns = self.meter.loop_ns + limits.TURN_QUANTUM_US * 1_000
        while self._waiting and self._holder is None:
            if self.meter.loop_ns >= end_ns:
                self._is_releasing = True
                self._loop.call_soon(self._run_waiting)
                return
            work = self._waiting.popleft()
            if work.conflicts >= limits.CONFLICT_RETRIES_MAX:
                self._hold_lane(work)
            elif work.spec.slowness >= _SLOW or work.args is None:
                self._go_patient(work)
            else:
                self._run_inline(work)

    def _wait(self, work: Work) -> None:
        """Queues a mutation until the lane is free."""
        if len(self._waiting) >= limits.LANE_CALLS_WAITING_MAX:
            self._finish(work, _too_many())
        else:
            self._waiting.append(work)

    # -- patient -------------------------------------------------------------------------------------------------

    def _go_patient(self, work: Work) -> None:
        if self._patient >= limits.BACKGROUND_CALLS_WAITING_MAX:
            if self._holder is work:
                self._release_lane()
            self._finish(work, _too_many())
            return
        self._patient += 1
        self.calls_patient += 1
        self._background.submit(self._patient_queue, partial(self._run_patient, work))

    def _run_patient(self, work: Work) -> None:
        """On a background thread: runs the call and hands the outcome to the loop thread."""
        seed = self._entropy(32)
        begin_ns = perf_counter_ns()
        budget = PatientBudget(self._thread_time_ns, self.cpu_ms_max, memory_bytes_max=self._terms.memory_bytes)
        transaction: Transaction | None = None
        outcome: CallResult | BaseException | tuple[Call, bytes]
        note = note_of_this_thread()
        note[0] = work.version.crash_number
        try:
            at = work.request.at
            transaction = self._database.begin(
                writable=work.spec.kind == "mutation",
                now_ms=self._clock_ns() / _NS_PER_MS,
                seed=seed,
                detached=True,
                at_ts=None if at is None else at.ts,
                journal=work.request.journal,
            )
            transaction.usage.look = budget.look
            call = Call(work.version, work.request, transaction, linker_of_this_thread(is_patient=True), seed, budget)
            try:
                outcome = (call, run_function(call, work.spec, work.args, 0))
            except FunctionFailure as failure:
                outcome = _failed(call, failure)
        except BaseException as error:
            outcome = error
        note[0] = 0
        cpu_ns = budget.used_ns()
        work.usage.add_run(cpu_ns, begin_ns, budget, None if transaction is None else transaction.usage)
        with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits for the call any more
            self._loop.call_soon_threadsafe(self._take_patient, work, transaction, outcome, cpu_ns)

    def _take_patient(
        self,
        work: Work,
        transaction: Transaction | None,
        outcome: "CallResult | BaseException | tuple[Call, bytes]",
        cpu_ns: int,
    ) -> None:
        self._patient -= 1
        self.meter.cpu_ns += cpu_ns
        if isinstance(outcome, tuple):
            call, value = outcome
            if cpu_ns < self._way.slice_ms * _NS_PER_MS:
                work.spec.slowness = max(0, work.spec.slowness - 1)
            if work.spec.kind == "mutation":
                if self._holder is not None and self._holder is not work:
                    call.transaction.abort()  # it would come between the holder's snapshot and its commit
                    self._wait(work)
                else:
                    self._commit(work, call, value)
                return
            call.transaction.abort()
            self._finish(work, _succeeded(call, value, call.transaction.begin_ts))
            return
        if transaction is not None:
            transaction.abort()
        if _lost_snapshot(outcome) and work.snapshots_lost < limits.SNAPSHOTS_LOST_MAX:
            work.snapshots_lost += 1
            self._go_patient(work)  # the lane, where it holds it, stays its own
            return
        if self._holder is work:
            self._release_lane()
        if isinstance(outcome, CallResult | SkerryError):
            self._finish(work, outcome)
        else:
            self._finish(work, _fault(work, outcome))

    def _finish(self, work: Work, outcome: "CallResult | SkerryError") -> None:
        self.in_flight -= 1
        if not self.in_flight:
            self._idle.set()
        if isinstance(outcome, CallResult):
            outcome.usage = work.usage
            ok, code = outcome.ok, outcome.error_code
        else:
            ok, code = False, outcome.code
        self.meter.done(work.usage, work.spec.kind, work.spec.name, work.request, ok, code)
        work.done(outcome)


def _kept(keep: Keep, call: Call, value: bytes, ts: int) -> list[Write]:
    """What is to be written with the commit of a mutation."""
    return keep(_succeeded(call, value, ts), ts)


def _succeeded(call: Call, value: bytes, ts: int) -> CallResult:
    lines = call.log_lines
    warnings = call.transaction.usage.warnings()
    if warnings:
        lines = lines + [f"[WARN] {warning}" for warning in warnings]
    return _with_reads(call, CallResult(True, value, lines, ts))


def _failed(call: Call, failure: FunctionFailure) -> CallResult:
    message = error_message(call.request.request_id, failure)
    return _with_reads(call, CallResult(False, b"", call.log_lines, None, message, failure.data, failure.code))


def _with_reads(call: Call, result: CallResult) -> CallResult:
    if call.request.wants_reads:
        transaction = call.transaction
        result.reads = transaction.read_set
        result.journal = transaction.journal_out
        result.ts = transaction.begin_ts
        result.has_read_identity = call.has_read_identity
        result.is_repeatable = not (call.has_read_clock or call.entropy or transaction.usage.search_keys)
    return result


def _run_again(work: Work) -> str:
    return (
        f"[WARN] This mutation was run {work.conflicts + 1} times, because of conflicts. The last one: {work.conflict}"
    )


def _lost_snapshot(outcome: object) -> bool:
    return isinstance(outcome, SystemFault) and outcome.code == "SnapshotGone"


def _fault(work: Work, error: BaseException) -> SystemFault:
    """What a caller hears of an error that nobody foresaw; the log has the rest."""
    _log.error("call %s of %s failed in the host", work.request.request_id, work.spec.name, exc_info=error)
    return SystemFault("InternalServerError", "Your request couldn't be completed. Try again later.")


def _too_many() -> SystemFault:
    return SystemFault("TooManyConcurrentRequests", "Too many calls wait for their turn. Try again in a moment.")
