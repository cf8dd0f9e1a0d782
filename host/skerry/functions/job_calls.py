"""How the functions of scheduled jobs run, and what else is committed for them: the runner's `Calls`.

All of it goes the way of ordinary calls: through the lane, so that a held lane, a conflict, a long function and a
failing storage are dealt with where they are for everybody. What surrounds a function in its transaction is its
request's `within`. Jobs run as nobody, and may be internal functions.

Concurrency: the loop thread, but for what runs `within` a call.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from skerry.errors import DeveloperError, SkerryError, SystemFault
from skerry.functions.execution import is_long, parse_arguments
from skerry.functions.frame import Call
from skerry.functions.function_table import FunctionSpec
from skerry.functions.lane import Lane, Work
from skerry.functions.operations import cover
from skerry.functions.request import CallRequest, CallResult, Within
from skerry.schedule.calls import GONE, Change, Ended, Outcome

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

    def run_mutation(
        self, path: str, args: bytes, job_id: str | None, before: Change, after: Change, done: Ended
    ) -> None:
        """Runs a mutation, and what comes before and after it in its transaction."""

        def within(call: Call, run: Callable[[], bytes]) -> bytes:
            before(call.transaction)
            value = run()
            after(call.transaction)
            return value

        self._run(path, args, job_id, within, done)

    def run_action(self, path: str, args: bytes, job_id: str | None, done: Ended) -> None:
        """Runs an action."""
        self._run(path, args, job_id, None, done)

    def change(self, change: Change, done: Ended, due_ms: float | None = None) -> None:
        """Commits what `change` does to a transaction."""

        def within(call: Call, _run: Callable[[], bytes]) -> bytes:
            if due_ms is not None:
                cover(call, due_ms)
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

    def _run(self, path: str, args_json: bytes, job_id: str | None, within: Within | None, done: Ended) -> None:
        version = self._version()
        spec = None if version is None else version.functions.get(path)
        if version is None or spec is None:  # the version has changed since its kind was asked for
            done(SystemFault("ShuttingDown", "The version of the deployment has changed."))
            return
        request = self._request(path, args_json, job_id)
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


def _outcome(outcome: CallResult | SkerryError) -> Outcome:
    if isinstance(outcome, SkerryError):
        return outcome
    if outcome.ok:
        return None
    if outcome.error_code == GONE:
        return DeveloperError(GONE, outcome.error_message)
    return outcome.error_message.partition("\n")[2].removesuffix("\n")
