"""How the functions of scheduled jobs run, and what else is committed for them: the runner's `Calls`.

All of it goes the way of ordinary calls: through the lane, so that a held lane, a conflict, a long function and a
failing storage are dealt with where they are for everybody. What surrounds a function in its transaction is its
request's `within`. Jobs run as nobody, and may be internal functions.

Concurrency: the loop thread, but for what runs `within` a call.
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from skerry.errors import DeveloperError, SkerryError, SystemFault
from skerry.functions.execution import is_long, parse_arguments
from skerry.functions.frame import Call
from skerry.functions.function_table import FunctionSpec
from skerry.functions.lane import Lane, Work
from skerry.functions.request import CallRequest, CallResult, Within
from skerry.schedule.jobs import begin_job, end_job, id_of
from skerry.schedule.runner import Change, Ended, Job, Outcome

if TYPE_CHECKING:
    from skerry.functions.actions import Actions
    from skerry.functions.version import Version

_HOST_FUNCTION: Final = "_system:schedule"
_REQUEST_ID_BYTES: Final = 8


class JobCalls:
    """The calls of one deployment's jobs. Shape: `version` gives the live version, None where there is none."""

    def __init__(
        self,
        lane: Lane,
        actions: "Actions",
        version: Callable[[], "Version | None"],
        entropy: Callable[[int], bytes],
    ) -> None:
        self._lane = lane
        self._actions = actions
        self._version = version
        self._entropy = entropy
        self._host_spec = FunctionSpec(_HOST_FUNCTION, "mutation", False, None, None)

    @property
    def is_ready(self) -> bool:
        return self._version() is not None

    def kind_of(self, path: str) -> str | None:
        version = self._version()
        spec = None if version is None else version.functions.get(path)
        return None if spec is None else spec.kind

    def run_mutation(self, job: Job, done: Ended) -> None:
        """Runs a job's mutation and ends the job, in one transaction."""
        self._run(job, done, partial(_run_and_end, job.internal_id))

    def run_action(self, job: Job, done: Ended) -> None:
        """Runs a job's action."""
        self._run(job, done, None)

    def change(self, change: Change, done: Ended) -> None:
        """Commits what `change` does to a transaction."""

        def within(call: Call, _run: Callable[[], bytes]) -> bytes:
            change(call.transaction)
            return b"null"

        self.commit(within, None, lambda outcome: done(_outcome(outcome)))

    def commit(self, within: Within, job_id: str | None, done: Callable[[CallResult | SkerryError], None]) -> None:
        """Runs what is given in a transaction of its own, in the lane."""
        version = self._version()
        if version is None:
            done(SystemFault("ShuttingDown", "The deployment has no version that runs."))
            return
        request = self._request(_HOST_FUNCTION, None, job_id)
        request.within = within
        self._lane.run(Work(version, self._host_spec, {}, request, done))

    def _run(self, job: Job, done: Ended, within: Within | None) -> None:
        version = self._version()
        spec = None if version is None else version.functions.get(job.path)
        assert version is not None and spec is not None, "the runner has asked for its kind"
        request = self._request(job.path, job.args, id_of(job.internal_id))
        request.within = within

        def ended(outcome: CallResult | SkerryError) -> None:
            done(_outcome(outcome))

        try:
            args = None if is_long(request) else parse_arguments(request.args)
        except DeveloperError as error:  # they were checked when they were scheduled, by another version perhaps
            done(error.message)
            return
        if spec.kind == "action":
            self._actions.start(version, spec, args, request, ended, None)
        else:
            self._lane.run(Work(version, spec, args, request, ended))

    def _request(self, path: str, args: bytes | None, job_id: str | None) -> CallRequest:
        request = CallRequest(
            kind=None,
            path=path,
            args=args,
            request_id=self._entropy(_REQUEST_ID_BYTES).hex(),
            is_admin=True,
            wording="any",
        )
        request.job_id = job_id
        return request


def _run_and_end(internal_id: bytes, call: Call, run: Callable[[], bytes]) -> bytes:
    begin_job(call.transaction, internal_id, "pending")
    value = run()
    end_job(call.transaction, begin_job(call.transaction, internal_id, "pending"), "success")
    return value


def _outcome(outcome: CallResult | SkerryError) -> Outcome:
    if isinstance(outcome, SkerryError):
        return outcome
    if outcome.ok:
        return None
    if outcome.error_code == "ScheduledFunctionGone":
        return DeveloperError("ScheduledFunctionGone", outcome.error_message)
    return outcome.error_message.partition("\n")[2].removesuffix("\n")
