"""One action under way: from its place in the pool to its end.

```
admitted -> [entry on an action thread] -> parked, its operations under way -> [entry: completions] -> ... -> done
```

The loop thread owns the action; an entry is a job for the pool's threads. What operations bring while the guest runs is
handed over together at the next entry, in the order in which it came. What is parked costs memory and no thread.

**Every operation has an end.** When the action ends, for whatever reason, its timers, fetches and called actions end
with it; queries and mutations that it began run to their end and are answered to nobody. Operations that a guest asked
for in its very last entry never begin.

**What it holds is bounded**: results that wait for the guest, by `COMPLETIONS_BYTES_MAX` (no call begins meanwhile);
calls in flight; bytes of arguments; open tickets.

An action is no pure function: it is never run again, and a caller that leaves does not end it.
"""

import logging
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from skerry import limits
from skerry.errors import DeveloperError, SkerryError, SystemFault
from skerry.functions.action_fetch import Fetches
from skerry.functions.action_frame import ActionCall, ActionFrame, Step
from skerry.functions.action_operations import ACTION_OPERATIONS, FunctionToCall, JobsToChange, VectorsToSearch
from skerry.functions.crash_notes import note_of_this_thread
from skerry.functions.execution import check_result, checked_arguments, error_object, request_bytes
from skerry.functions.failures import FunctionFailure, error_message, host_failure, log_line, thrown_failure
from skerry.functions.metering import CallUsage
from skerry.functions.request import CallRequest, CallResult
from skerry.isolate import DONE, PENDING, ActionBudget, EntropyStream, Isolate, Outran, get_action_world

if TYPE_CHECKING:
    from skerry.functions.actions import Actions, Cancellable
    from skerry.functions.function_table import FunctionSpec
    from skerry.functions.version import Version

_log: Final = logging.getLogger("skerry.functions")

Done = Callable[["CallResult | SkerryError"], None]
Entry = bytes | BaseException | None
"""What an entry came to: the JSON of the value, what ended the action, or None where the guest waits."""


class RunningAction:
    """One action. Concurrency: the loop thread, but for `_enter`, which runs on one action thread at a time."""

    def __init__(
        self,
        actions: "Actions",
        version: "Version",
        spec: "FunctionSpec",
        args: dict[str, Any] | None,
        request: CallRequest,
        done: Done,
        depth: int,
    ) -> None:
        self.actions = actions
        self.depth = depth
        self._version = version
        self._spec = spec
        self._args: dict[str, Any] | None = args
        self._done: Done | None = done
        self._budget = ActionBudget(
            actions.thread_time_ns, actions.cpu_ms_max, memory_bytes_max=actions.terms.memory_bytes
        )
        self._usage = CallUsage()
        call = ActionCall(version, request, self._budget, actions.clock_ns, EntropyStream(actions.entropy(32)))
        self.frame = ActionFrame(call, spec)
        self._isolate: Isolate | None = None
        self.is_entered = False
        self._ended: SkerryError | None = None
        self.is_over = False
        self._deadline: Cancellable | None = None
        self._completions: deque[tuple[int, int, bytes]] = deque()
        self._completed_bytes = 0  # since the action began; the loop thread counts
        self._taken_bytes = 0  # of these, by entries; their thread counts
        self._to_call: deque[tuple[int, FunctionToCall]] = deque()
        self._calls_in_flight = 0
        self._is_calling_soon = False
        self._timers: dict[int, tuple[int, Cancellable]] = {}
        self._children: dict[int, RunningAction] = {}
        self._fetches: Fetches | None = None

    def begin(self) -> None:
        """Runs the action, which has a place, to its end; its caller hears of it through `done`."""
        self._deadline = self.actions.timers.call_later(limits.ACTION_SECONDS_MAX, self._time_out)
        self._submit()

    # -- entries -------------------------------------------------------------------------------------------------

    def _submit(self) -> None:
        self.is_entered = True
        self.actions.pool.submit(self._enter, self.actions.jobs)

    def _enter(self, outran: Outran) -> Callable[[], None] | None:
        """On an action thread: one entry into the guest."""
        budget, entry, note = self._budget, None, note_of_this_thread()
        note[0] = self._version.crash_number
        budget.enter(outran)
        try:
            isolate = self._isolate
            if isolate is None:
                status, payload = self._first_entry()
            else:
                completions = self._take_completions()
                isolate.tickets_open -= len(completions)
                status, payload = isolate.resume(_packed(completions))
            if status != PENDING:
                entry = self._judged(status, payload)
        except BaseException as error:
            entry = error
        budget.leave()
        if entry is not None and self._isolate is not None:
            self._isolate.close()
            self._isolate = None
        note[0] = 0
        return self.actions.hand_back(self, entry)

    def _first_entry(self) -> tuple[int, bytes]:
        args, self._args = self._args, None
        request = self.frame.call.request
        raw_args = checked_arguments(self._spec, args, request, self.actions.resolve_table, self._budget)
        module = self.actions.code_of(self._version)
        self._isolate = isolate = get_action_world().open(
            module, self.frame, ACTION_OPERATIONS, self._budget, self.actions
        )
        return isolate.invoke(request_bytes(self._spec, request.request_id, raw_args))

    def _judged(self, status: int, payload: bytes) -> Entry:
        if status != DONE:
            return thrown_failure(payload, self._version.stacks)
        check_result(self._spec, payload, self.actions.resolve_table, self._budget)
        return payload

    def _take_completions(self) -> list[tuple[int, int, bytes]]:
        """What came since the last entry, as much as one resume may carry."""
        taken: list[tuple[int, int, bytes]] = []
        size = 0
        while self._completions and size <= limits.COMPLETIONS_BYTES_MAX:
            taken.append(self._completions.popleft())
            size += len(taken[-1][2])
        self._taken_bytes += size
        return taken

    def take(self, entry: Entry) -> None:
        """Goes on after an entry; the loop thread."""
        self.is_entered = False
        usage, cpu_ns = self._usage, self._budget.all_ns()
        self.actions.terms.meter.cpu_ns += cpu_ns - usage.cpu_ns
        usage.cpu_ns = cpu_ns
        usage.guest_ns = min(cpu_ns, self._budget.guest_elapsed_ns)
        steps, self.frame.steps = self.frame.steps, []
        if self._ended is not None and not isinstance(entry, bytes):
            self._finish(self._ended)
        elif entry is None:
            for step in steps:
                self._begin_step(step)
            self._begin_calls()
            if self._completions and not self.is_entered:
                self._submit()
        else:
            if isinstance(entry, bytes) and steps:
                self._warn_of_unawaited(steps)
            self._finish(self._outcome(entry))

    def complete(self, ticket: int, status: int, payload: bytes) -> None:
        """Brings an operation's result (status 0) or error object (1) to the guest."""
        if self.is_over:
            return
        self._completions.append((ticket, status, payload))
        self._completed_bytes += len(payload)
        if not self.is_entered:
            self._submit()

    def refuse(self, ticket: int, error: SkerryError) -> None:
        """Brings an error to the guest."""
        self.complete(ticket, 1, error_object(FunctionFailure(error.message, None, error.code)))

    def release(self, size: int) -> None:
        """An operation holds so many bytes no longer."""
        self.frame.released_bytes += size

    # -- operations ----------------------------------------------------------------------------------------------

    def _begin_step(self, step: Step) -> None:
        operation, ticket, needed = step
        if operation == "call":
            self._to_call.append((ticket, needed))
        elif operation == "timer":
            self._start_timer(ticket, *needed)
        elif operation == "clear":
            self._clear_timer(needed)
        elif operation == "vectors":
            self._search_vectors(ticket, needed)
        elif operation == "jobs":
            self._change_jobs(ticket, needed)
        else:
            fetches = self._fetches
            if fetches is None:
                fetches = self._fetches = Fetches(self, self.actions.way_out, self.actions.loop)
            fetches.step(operation, ticket, needed)

    def _start_timer(self, ticket: int, number: int, seconds: float) -> None:
        if number in self._timers:
            self.refuse(ticket, DeveloperError("InvalidArgument", "A timer of that number is running already."))
            return
        self._timers[number] = (ticket, self.actions.timers.call_later(seconds, partial(self._end_timer, number)))

    def _end_timer(self, number: int) -> None:
        ticket, _ = self._timers.pop(number)
        self.complete(ticket, 0, b"null")

    def _clear_timer(self, number: int) -> None:
        """The ticket of a stopped timer completes at once: the guest knows why."""
        if number in self._timers:
            self._timers[number][1].cancel()
            self._end_timer(number)

    def _search_vectors(self, ticket: int, wanted: VectorsToSearch) -> None:
        vectors = self._version.vectors
        assert vectors is not None, "a version that is called belongs to a deployment"

        def answer(outcome: bytes | SkerryError) -> None:
            self.release(wanted.size)
            if isinstance(outcome, bytes):
                self.complete(ticket, 0, outcome)
            else:
                self.refuse(ticket, outcome)

        vectors.search(wanted.question, answer)

    def _change_jobs(self, ticket: int, wanted: JobsToChange) -> None:
        """Schedules or cancels a function, in a transaction of its own; it is done whatever becomes of the action."""
        job_calls = self.actions.job_calls
        assert job_calls is not None, "an action that runs belongs to a deployment"

        def answer(outcome: CallResult | SkerryError) -> None:
            self.release(wanted.size)
            if isinstance(outcome, SkerryError):
                self.refuse(ticket, outcome)
            elif outcome.ok:
                self.complete(ticket, 0, outcome.value)
            else:
                text = outcome.error_message.partition("\n")[2]
                self.complete(ticket, 1, error_object(FunctionFailure(text, None, outcome.error_code)))

        job_calls.commit(wanted.within, self.frame.call.request.job_id, answer)

    def _begin_calls(self) -> None:
        """Begins some of the functions that the guest called; the others when the loop has turned."""
        self._is_calling_soon = False
        for _ in range(limits.ACTION_CALLS_PER_TURN):
            if (
                self.is_over
                or not self._to_call
                or self._completed_bytes - self._taken_bytes > limits.COMPLETIONS_BYTES_MAX
                or self._calls_in_flight >= limits.ACTION_RESULTS_IN_FLIGHT_MAX
            ):
                return
            ticket, wanted = self._to_call.popleft()
            if wanted.kind != "action":  # an action may take its time, and waits for nobody's place
                self._calls_in_flight += 1
            self._begin_call(ticket, wanted)
        if self._to_call and not self._is_calling_soon:
            self._is_calling_soon = True
            self.actions.loop.call_soon(self._begin_calls)

    def _begin_call(self, ticket: int, wanted: FunctionToCall) -> None:
        mine = self.frame.call.request
        request = CallRequest(
            kind=wanted.kind,
            path=wanted.name,
            args=None,
            request_id=mine.request_id,
            is_admin=True,  # internal functions are called from here
            identity=mine.identity,
            wording="any",
            ip=mine.ip,
            user_agent=mine.user_agent,
            token=mine.token,
        )
        request.job_id = mine.job_id
        child = self.actions.call(request, wanted.args, partial(self._called, ticket, wanted), self)
        if child is not None and not child.is_over:
            self._children[ticket] = child

    def _called(self, ticket: int, wanted: FunctionToCall, outcome: "CallResult | SkerryError") -> None:
        self._children.pop(ticket, None)
        if wanted.kind != "action":
            self._calls_in_flight -= 1
        self.release(wanted.size)
        if isinstance(outcome, SkerryError):
            self.refuse(ticket, outcome)
        else:
            for line in outcome.log_lines:
                self._log_called(line)
            if outcome.ok:
                self.complete(ticket, 0, outcome.value)
            else:
                text = outcome.error_message.partition("\n")[2]
                failure = FunctionFailure(text, outcome.error_data, outcome.error_code)
                self.complete(ticket, 1, error_object(failure))
        if self._to_call and not self._is_calling_soon:
            self._is_calling_soon = True
            self.actions.loop.call_soon(self._begin_calls)

    def _log_called(self, line: str) -> None:
        level, _, message = line.partition("] ")
        log_line(self.frame.call.log_lines, level[1:], message)

    def _warn_of_unawaited(self, steps: list[Step]) -> None:
        names = {needed.kind if operation == "call" else operation for operation, ticket, needed in steps if ticket}
        if names:
            log_line(
                self.frame.call.log_lines,
                "WARN",
                f"The action ended before it awaited what it had begun ({', '.join(sorted(names))}): that was not run.",
            )

    # -- the end -------------------------------------------------------------------------------------------------

    def _time_out(self) -> None:
        self._deadline = None
        self.end(
            DeveloperError(
                "ActionTimedOut",
                f"Action `{self._spec.name}` execution timed out (maximum duration {limits.ACTION_SECONDS_MAX}s)",
            )
        )

    def end(self, error: SkerryError) -> None:
        """Ends the action now, or as soon as its guest can be stopped."""
        if self.is_over or self._ended is not None:
            return
        self._ended = error
        if self.is_entered:
            self._budget.stop(DeveloperError("ActionCancelled", "The action was ended."))
        else:
            self._finish(error)

    def fail(self, error: Exception) -> None:
        """Ends the action after what nobody foresaw, also where its end was cut short."""
        fault = self._host_fault(error)
        if self.is_entered:
            self.end(fault)
        else:
            self._finish(fault)

    def _outcome(self, entry: bytes | BaseException) -> "CallResult | SkerryError":
        call = self.frame.call
        if isinstance(entry, bytes):
            return CallResult(True, entry, call.log_lines)
        if isinstance(entry, DeveloperError):
            entry = host_failure(entry)
        if isinstance(entry, FunctionFailure):
            message = error_message(call.request.request_id, entry)
            return CallResult(False, b"", call.log_lines, None, message, entry.data, entry.code)
        if isinstance(entry, SkerryError):
            return entry
        return self._host_fault(entry)

    def _host_fault(self, error: BaseException) -> SystemFault:
        request = self.frame.call.request
        _log.error("action %s of %s failed in the host", request.request_id, self._spec.name, exc_info=error)
        return SystemFault("InternalServerError", "Your request couldn't be completed. Try again later.")

    def _finish(self, outcome: "CallResult | SkerryError") -> None:
        """The one end of every action: nothing of it is under way afterwards."""
        if isinstance(outcome, DeveloperError):
            outcome = self._outcome(outcome)
        assert not isinstance(outcome, DeveloperError)
        self.is_over = True
        if self._deadline is not None:
            self._deadline.cancel()
        for _, timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._to_call.clear()
        self._completions.clear()
        fetches, self._fetches = self._fetches, None
        if fetches is not None:
            fetches.close()
        children, self._children = self._children, {}
        for child in children.values():
            child.end(DeveloperError("ActionCancelled", "The action that called this one has ended."))
        isolate, self._isolate = self._isolate, None
        if isolate is not None:
            self._usage.guest_steps = isolate.steps()  # it closes later
            self.actions.pool.submit(lambda _outran: isolate.close(), self.actions.jobs)
        self.actions.ended(self)
        done, self._done = self._done, None
        if done is not None:
            try:
                self._count(outcome)
            finally:
                done(outcome)

    def _count(self, outcome: "CallResult | SkerryError") -> None:
        """Adds the action to its deployment's meter; its CPU time was added with each entry."""
        usage, budget = self._usage, self._budget
        usage.guest_steps = min(usage.guest_steps or budget.steps, usage.cpu_ns)
        usage.hostcalls = budget.hostcalls
        if isinstance(outcome, CallResult):
            outcome.usage = usage
            ok, code = outcome.ok, outcome.error_code
        else:
            ok, code = False, outcome.code
        self.actions.terms.meter.done(usage, "action", self._spec.name, self.frame.call.request, ok, code)


def _packed(completions: list[tuple[int, int, bytes]]) -> bytes:
    """The completions of ABI.md."""
    headers = [
        ticket.to_bytes(4, "little") + status.to_bytes(4, "little") + len(payload).to_bytes(4, "little")
        for ticket, status, payload in completions
    ]
    return b"".join([len(headers).to_bytes(4, "little"), *headers, *(payload for _, _, payload in completions)])
