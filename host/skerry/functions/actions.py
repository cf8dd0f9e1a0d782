"""The actions of one deployment.

`start` asks the pool for a place and runs the action there; `RunningAction` is what happens then. Entries come back
from the action threads through `hand_back`, some for each turn of the loop.

Concurrency: the loop thread, but for `hand_back` and `code_of`.
"""

import asyncio
import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol

from skerry import limits
from skerry.errors import DeveloperError, SkerryError, SystemFault
from skerry.functions.action_fetch import WayOut
from skerry.functions.action_pool import ActionPool, JobQueue
from skerry.functions.action_run import Done, Entry, RunningAction
from skerry.functions.request import CallRequest
from skerry.functions.terms import Terms
from skerry.isolate import ActionModule

if TYPE_CHECKING:
    from skerry.database import Database
    from skerry.functions.function_table import FunctionSpec
    from skerry.functions.job_calls import JobCalls
    from skerry.functions.version import Version

_ENTRIES_PER_TURN: Final = 32
_log: Final = logging.getLogger("skerry.actions")


class Cancellable(Protocol):
    """What a timer can be stopped by."""

    def cancel(self) -> None: ...


class Timers(Protocol):
    """Whoever calls back after some seconds: the event loop, or a test's hand."""

    def call_later(self, delay: float, callback: Callable[[], object], /) -> Cancellable: ...


Caller = Callable[[CallRequest, Any, Done, RunningAction], "RunningAction | None"]
"""How an action calls a function: (request, decoded arguments, done, itself) -> the action that this began, if any."""


class Actions:
    """Shape: `call` runs what actions call; `way_out` is how they reach the network, None where there is none."""

    def __init__(
        self,
        database: "Database",
        loop: asyncio.AbstractEventLoop,
        clock_ns: Callable[[], int],
        entropy: Callable[[int], bytes],
        *,
        call: Caller,
        pool: ActionPool,
        timers: Timers,
        way_out: WayOut | None,
        terms: Terms,
    ) -> None:
        self._database = database
        self.loop = loop
        self.clock_ns = clock_ns
        self.entropy = entropy
        self.call = call
        self.pool = pool
        self.jobs = JobQueue()
        self.timers = timers
        self.way_out = way_out
        self.terms = terms
        self.thread_time_ns = time.thread_time_ns
        self.cpu_ms_max = limits.ACTION_CPU_MS_MAX
        self._under_way: set[RunningAction] = set()
        self._waiting: dict[Callable[[], None], tuple[Done, Cancellable]] = {}
        self._entries: deque[tuple[RunningAction, Entry]] = deque()
        self._is_woken = False
        self._adopting = threading.Lock()
        self._drain_timer: Cancellable | None = None
        self.job_calls: JobCalls | None = None
        self._idle = asyncio.Event()

    # -- begin ---------------------------------------------------------------------------------------------------

    def start(
        self,
        version: "Version",
        spec: "FunctionSpec",
        args: dict[str, Any] | None,
        request: CallRequest,
        done: Done,
        parent: RunningAction | None,
    ) -> RunningAction | None:
        """Begins an action; `done` hears of its outcome. Gives the action where another one called it."""
        if parent is not None:
            if parent.depth >= limits.FUNCTION_CALL_DEPTH_MAX:
                deep = f"Actions may call each other {limits.FUNCTION_CALL_DEPTH_MAX} levels deep."
                done(DeveloperError("FunctionCallTooDeep", deep))
                return None
            if not self.pool.enter_nested():
                done(_no_place())
                return None
            action = RunningAction(self, version, spec, args, request, done, parent.depth + 1)
            self._under_way.add(action)
            action.begin()
            return action

        refusal = self.terms.admit_action(self.count)
        if refusal is not None:
            done(refusal)
            return None

        def begin() -> None:
            waiting = self._waiting.pop(begin, None)
            if waiting is not None:
                waiting[1].cancel()
            action = RunningAction(self, version, spec, args, request, done, 0)
            self._under_way.add(action)
            action.begin()

        def expire() -> None:
            self._waiting.pop(begin)
            self.pool.give_up(begin)
            self._look_idle()
            done(_no_place())

        if not self.pool.enter(begin):
            done(_no_place())
        elif self.pool.is_waiting(begin):
            self._waiting[begin] = (done, self.timers.call_later(limits.ACTION_WAIT_SECONDS_MAX, expire))
        return None

    # -- on the way ----------------------------------------------------------------------------------------------

    def code_of(self, version: "Version") -> ActionModule:
        """The version's module as actions run it, kept with the version. An action thread."""
        module = version.action_module
        if module is None:
            with self._adopting:
                module = version.action_module
                if module is None:
                    module = version.action_module = ActionModule(version.module)
        return module

    def resolve_table(self, number: int) -> str | None:
        """The name of a table, for validators of ids. Any thread."""
        return self._database.catalog.resolve(number)

    def hand_back(self, action: RunningAction, entry: Entry) -> Callable[[], None] | None:
        """Brings an entry's outcome from its action thread. Gives what has to be called there soon, if anything."""
        self._entries.append((action, entry))
        if self._is_woken:
            return None
        self._is_woken = True
        return self._wake

    def _wake(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits for the action any more
            self.loop.call_soon_threadsafe(self._take_entries)

    def _take_entries(self) -> None:
        self._is_woken = False
        for _ in range(_ENTRIES_PER_TURN):
            if not self._entries:
                return
            action, entry = self._entries.popleft()
            try:
                action.take(entry)
            except Exception as error:  # the entries behind it are other actions'
                self._fail(action, error)
        if self._entries and not self._is_woken:
            self._is_woken = True
            self.loop.call_soon(self._take_entries)

    def _fail(self, action: RunningAction, error: Exception) -> None:
        try:
            action.fail(error)
        except Exception:
            _log.exception("an action that failed in the host could not be ended in order")

    # -- the end -------------------------------------------------------------------------------------------------

    @property
    def count(self) -> int:
        """How many actions run or wait."""
        return len(self._under_way) + len(self._waiting)

    @property
    def is_idle(self) -> bool:
        """Whether no action runs or waits."""
        return not self._under_way and not self._waiting

    def ended(self, action: RunningAction) -> None:
        """Takes note of an action's end, and gives its place away; once."""
        if action not in self._under_way:
            return
        self._under_way.remove(action)
        self.pool.leave(is_nested=action.depth > 0)
        self._look_idle()

    def drain(self) -> None:
        """Begins the time that actions under way have left before the deployment closes."""
        for begin, (done, timer) in [*self._waiting.items()]:
            timer.cancel()
            self.pool.give_up(begin)
            del self._waiting[begin]
            done(_closing())
        if self._drain_timer is None and self._under_way:
            self._drain_timer = self.timers.call_later(limits.ACTION_SHUTDOWN_SECONDS_MAX, self.end_all)

    async def close(self) -> None:
        """Waits until every action has ended, at most for the time that `drain` began."""
        self.drain()
        while self._under_way:
            self._idle.clear()
            await self._idle.wait()
        if self._drain_timer is not None:
            self._drain_timer.cancel()
        if self.way_out is not None:
            await self.way_out.close()

    def end_all(self, error: SkerryError | None = None) -> None:
        """Ends every action that is under way."""
        for action in [*self._under_way]:
            action.end(error or _closing())

    def has_entries(self) -> bool:
        """Whether an action is on a thread, or has just come from there."""
        return any(action.is_entered for action in self._under_way)

    def _look_idle(self) -> None:
        if self.is_idle:
            self._idle.set()


def _no_place() -> SkerryError:
    return SystemFault("TooManyConcurrentActions", "Too many actions run or wait. Try again in a moment.")


def _closing() -> SkerryError:
    return SystemFault("ShuttingDown", "The server is shutting down. Try again in a moment.")
