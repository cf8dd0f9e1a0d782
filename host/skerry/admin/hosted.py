"""One deployment of a host, open or not: what callers hold.

A call of an open deployment goes straight to it. The first call of one that is closed opens it on a worker thread;
calls that come meanwhile wait in order, so that a thousand of them open it once. Whoever holds a `Hosted` never sees
whether it was open. Closing is the host's to decide, and only when nothing is in flight.

Concurrency: the loop thread.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from skerry import limits
from skerry.admin.registry import Quotas, State, not_found
from skerry.admin.shares import Share
from skerry.errors import ClientError, SkerryError, SystemFault
from skerry.functions.awaited import awaited
from skerry.functions.care import StorageSeen
from skerry.functions.deployment import Deployment
from skerry.functions.lane import Done
from skerry.functions.metering import Meter
from skerry.functions.request import CallRequest, CallResult
from skerry.identity import User

_log: Final = logging.getLogger("skerry.host")


class Opener:
    """What a deployment asks of its host.

    Shape: `take_place` waits for a place among those that are open, and raises where there is none; `leave_place` gives
    it back; `make` blocks and gives an opened deployment.
    """

    def __init__(
        self,
        make: Callable[[str], Deployment],
        take_place: "Callable[[Hosted], Awaitable[None]]",
        leave_place: "Callable[[Hosted], None]",
        monotonic: Callable[[], float],
        loop: asyncio.AbstractEventLoop,
        workers: int = 1,
    ) -> None:
        self.make = make
        self.take_place = take_place
        self.leave_place = leave_place
        self.monotonic = monotonic
        self.loop = loop
        self.opening = asyncio.Semaphore(limits.DEPLOYMENTS_OPENING_MAX)
        self.activating = asyncio.Semaphore(max(1, limits.ACTIVATIONS_MAX // workers))
        self.is_closing = False


class Hosted:
    """One deployment.

    Shape: `state` as in the registry, None once it is gone; `used` since the last sweep; `attached` is what those who
    serve it keep with it, for as long as it is there.
    """

    __slots__ = (
        "_closing", "_deployment", "_failed", "_failed_at", "_opener", "_opening", "_telling", "_users", "_waiting",
        "attached", "idle_since", "is_pinned", "name", "opened_count", "share", "state", "used",
    )  # fmt: skip

    def __init__(self, name: str, state: State, opener: Opener, share: Share) -> None:
        self.name = name
        self.share = share
        self.state: State | None = state
        self.is_pinned = False
        self.attached: Any = None
        self.used = False
        self.idle_since = 0.0
        self.opened_count = 0
        self._opener = opener
        self._deployment: Deployment | None = None
        self._opening: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._waiting: list[tuple[CallRequest, Done]] = []
        self._telling: set[asyncio.Task[None]] = set()
        self._users = 0
        self._failed: SkerryError | None = None
        self._failed_at = 0.0

    # -- calls -------------------------------------------------------------------------------------------------------

    def call(self, request: CallRequest, done: Done) -> None:
        """Runs a function, where the deployment's quotas allow it; as `Deployment.call`, once it is open."""
        refusal = self.admit(0)
        if refusal is None:
            self.start(request, done)
        else:
            done(refusal)

    def admit(self, queued: int, calls: int = 1) -> SkerryError | None:
        """The refusal of so many calls, all or none, beside those under way and `queued` ones; None where they may
        come: `start` is next."""
        deployment = self._deployment
        return self.share.admit(queued + (len(self._waiting) if deployment is None else deployment.under_way), calls)

    def start(self, request: CallRequest, done: Done) -> None:
        """Runs a function that was admitted."""
        deployment = self._deployment
        if deployment is not None and self.state is State.ACTIVE:
            self.used = True
            deployment.call(request, done)
            return
        refusal = self._refusal()
        if refusal is not None:
            done(refusal)
        elif len(self._waiting) >= limits.DEPLOYMENT_OPENING_CALLS_MAX:
            done(_too_many())
        else:
            self._waiting.append((request, done))
            self._open_soon()

    def kept_answer(self, path: str, args: bytes | None, identity: dict[str, Any] | None) -> CallResult | None:
        """As `Deployment.kept_answer`; None too where it is not open."""
        deployment = self._deployment
        if deployment is None or self.state is not State.ACTIVE:
            return None
        return deployment.kept_answer(path, args, identity)

    def count_kept(self) -> None:
        """Counts a call that a kept answer was the answer to."""
        assert self._deployment is not None, "it has just given one"
        self.used = True
        self._deployment.cache.count("", None)

    def identify(self, token: bytes, told: Callable[[User | SkerryError], None]) -> None:
        """Tells whose token it is, once the deployment is open and its provider's keys are there."""
        deployment = self._deployment
        if deployment is not None and self.state is State.ACTIVE:
            self.used = True
            self._users += 1

            def tell(outcome: User | SkerryError) -> None:
                self._users -= 1
                told(outcome)

            deployment.authority.verify(token, tell)
            return
        if len(self._telling) >= limits.DEPLOYMENT_OPENING_CALLS_MAX:
            told(_too_many())
            return

        async def open_and_tell() -> None:
            try:
                async with self.using():
                    self.identify(token, told)
            except SkerryError as error:
                told(error)

        self._tell(open_and_tell())

    def _tell(self, telling: Coroutine[Any, Any, None]) -> None:
        task = self._opener.loop.create_task(telling)
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    def newest_ts(self, done: Callable[[int | SkerryError], None]) -> None:
        """Tells the timestamp of the newest durable commit, once the deployment is open."""
        deployment = self._deployment
        if deployment is not None and self.state is State.ACTIVE:
            self.used = True
            done(deployment.database.durable_ts)
            return
        if len(self._telling) >= limits.DEPLOYMENT_OPENING_CALLS_MAX:
            done(_too_many())
            return

        async def open_and_tell() -> None:
            try:
                async with self.using() as opened:
                    outcome: int | SkerryError = opened.database.durable_ts
            except SkerryError as error:
                outcome = error
            done(outcome)

        self._tell(open_and_tell())

    async def run(self, request: CallRequest) -> CallResult:
        """The same as a coroutine. Raises: SkerryError."""
        return await awaited(self._opener.loop, self.call, request)

    @asynccontextmanager
    async def using(self) -> AsyncGenerator[Deployment]:
        """The open deployment, which stays open until the end of the block.

        Raises: ClientError `DeploymentPaused`, `DeploymentNotFound`; SystemFault of opening it.
        """
        self._users += 1
        try:
            while True:
                refusal = self._refusal()
                if refusal is not None:
                    raise refusal
                if self._deployment is not None:
                    break
                self._open_soon()
                if self._opening is not None:
                    await asyncio.shield(self._opening)
            self.used = True
            yield self._deployment
        finally:
            self._users -= 1

    @asynccontextmanager
    async def activating(self) -> AsyncGenerator[Deployment]:
        """The open deployment, for checking and compiling: a host does a bounded number of these at once."""
        async with self.using() as deployment, self._opener.activating:
            yield deployment

    async def activate(self, upload: bytes | Path) -> dict[str, Any]:
        """As `Deployment.activate`, of the open deployment."""
        async with self.activating() as deployment:
            return await deployment.activate(upload)

    # -- the host's --------------------------------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """Whether it takes calls without being opened first."""
        return self._deployment is not None

    def set_state(self, state: State) -> None:
        """Takes calls and runs what is scheduled, or does not."""
        self.state = state
        if self._deployment is not None:
            self._deployment.scheduled.pause(state is not State.ACTIVE)

    def set_quotas(self, quotas: Quotas) -> None:
        """Puts quotas in force."""
        self.share.set_quotas(quotas)
        if self._deployment is not None:
            self._deployment.terms_changed()

    @property
    def meter(self) -> Meter:
        """What its calls use."""
        return self.share.meter

    @property
    def storage_bytes(self) -> int | None:
        """What its data take, None while it is closed."""
        return None if self._deployment is None else self._deployment.database.space.used_bytes

    def storage_seen(self) -> tuple[StorageSeen, int] | None:
        """What its storage takes and how many seconds its history is kept, None while it is closed or has failed."""
        deployment = self._deployment
        return (
            None
            if deployment is None or not deployment.is_readable
            else (deployment.care.seen(), deployment.settings.retention_s)
        )

    @property
    def closing(self) -> asyncio.Task[None] | None:
        """Its closing, while that lasts."""
        return self._closing

    @property
    def may_close(self) -> bool:
        """Whether it is open with nothing in flight."""
        deployment = self._deployment
        return deployment is not None and not self.is_pinned and not self._users and deployment.is_idle

    def adopt(self, deployment: Deployment) -> None:
        """Takes a deployment that the host opened itself."""
        self._deployment = deployment
        deployment.scheduled.pause(self.state is not State.ACTIVE)
        self.opened_count += 1

    def drain(self) -> None:
        """Takes no more calls, if it is open."""
        if self._deployment is not None:
            self._deployment.drain()

    def begin_close(self) -> asyncio.Task[None]:
        """Closes it once what is in flight is done; calls that come wait, and open it again."""
        deployment, self._deployment = self._deployment, None
        assert deployment is not None and self._closing is None

        async def close() -> None:
            try:
                await deployment.close()
            finally:
                self._closing = None
                self._opener.leave_place(self)

        self._closing = self._opener.loop.create_task(close())
        return self._closing

    async def close(self) -> None:
        """Closes it for good: `state` was set so that nothing opens it again. Calls that wait are refused."""
        waiting, self._waiting = self._waiting, []
        refusal = self._refusal() or not_found(self.name)
        for _, done in waiting:
            done(refusal)
        if self._opening is not None:
            await asyncio.gather(self._opening, return_exceptions=True)
        if self._closing is not None:
            await asyncio.gather(self._closing, return_exceptions=True)
        if self._deployment is not None:
            await self.begin_close()

    # -- inside ------------------------------------------------------------------------------------------------------

    def _refusal(self) -> SkerryError | None:
        if self.state is None or self.state is State.DELETING:
            return not_found(self.name)
        if self._opener.is_closing:
            return SystemFault("ShuttingDown", "The server is shutting down. Try again in a moment.")
        if self.state is State.PAUSED:
            return ClientError(
                "DeploymentPaused", f"Deployment '{self.name}' is paused: its host's operator resumes it."
            )
        if self._failed is not None:
            if self._opener.monotonic() - self._failed_at < limits.DEPLOYMENT_REOPEN_SECONDS:
                return SystemFault(self._failed.code, self._failed.message)
            self._failed = None
        return None

    def _open_soon(self) -> None:
        if self._opening is None and self._deployment is None:
            self._opening = self._opener.loop.create_task(self._open())

    async def _open(self) -> None:
        """Opens it, then runs the calls that waited, or refuses them all with what went wrong."""
        opened: Deployment | None = None
        failure: SkerryError | None = None
        try:
            if self._closing is not None:
                await asyncio.gather(self._closing, return_exceptions=True)
            async with self._opener.opening:
                await self._opener.take_place(self)
                try:
                    opened = await asyncio.to_thread(self._opener.make, self.name)
                except BaseException:
                    self._opener.leave_place(self)
                    raise
        except SkerryError as error:
            failure = error
        except Exception as error:
            failure = SystemFault("InternalServerError", str(error))
            failure.__cause__ = error
        self._opening = None
        if failure is not None:
            self._failed, self._failed_at = failure, self._opener.monotonic()
            _log.error("deployment %s cannot be opened: %s: %s", self.name, failure.code, failure.message)
        elif opened is not None:
            self.adopt(opened)
        self._run_waiting(failure)

    def _run_waiting(self, failure: SkerryError | None) -> None:
        waiting, self._waiting = self._waiting, []
        for request, done in waiting:
            if failure is not None:
                done(failure)
            else:
                self.start(request, done)


def _too_many() -> SystemFault:
    return SystemFault("TooManyConcurrentRequests", "Too many calls wait for the deployment to open. Try again.")
