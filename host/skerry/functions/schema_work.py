"""Schema changes of one deployment, driven beside its calls, and what they leave to be done in the background.

A change goes through the steps of `SchemaChange`. The lane is held twice, for the two commits; in between, a step has
about a millisecond of the loop thread, then others have it, and where others want it the next step waits for a moment
(`stepping`), so that calls keep most of the thread.

**One change at a time.** A push that arrives while another one judges documents or builds indexes takes its place: the
older one fails with `PushSuperseded`, and what it has built is taken over. One that was begun goes on though whoever
asked for it has left.

**The background** builds staged indexes and those that a change left unfinished, and deletes the entries of dropped
ones. It begins with the deployment and behind each change, and gives way to a change. What fails is tried again after
`SCHEMA_RETRY_SECONDS`, or, where a document is the reason, with the next change.

Concurrency: the loop thread.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from typing import Any, Final

from skerry import limits
from skerry.database import BuildProgress, Database, SchemaChange, Steps, background_steps, index_states
from skerry.errors import ClientError, DeveloperError, SkerryError
from skerry.functions.failing import Failing
from skerry.functions.lane import Lane
from skerry.functions.metering import Meter
from skerry.functions.stepping import Room, up_to_room
from skerry.storage import Write

_log: Final = logging.getLogger("skerry.schema")


class SchemaWork:
    """The schema changes and background work of one deployment. `start` and `wake` begin the latter, `stop` ends all.

    Shape: `refusal` is what ends the work while the deployment closes.
    """

    def __init__(
        self,
        database: Database,
        lane: Lane,
        loop: asyncio.AbstractEventLoop,
        meter: Meter,
        refusal: Callable[[], SkerryError],
    ) -> None:
        self._database = database
        self._lane = lane
        self._loop = loop
        self._meter = meter
        self._refusal = refusal
        self._change: SchemaChange | None = None
        self._phase = ""
        self._is_superseded = False
        self._is_stopped = False
        self._background: asyncio.Task[None] | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._failure: str | None = None
        self._failing = Failing("Background work on the indexes", _log, meter)
        self.progress = BuildProgress()

    # -- changes -------------------------------------------------------------------------------------------------

    @property
    def gives_way(self) -> bool:
        """Whether a change is under way that a newer one may take the place of."""
        return self._change is not None and self._phase in ("judging", "building") and not self._is_superseded

    def supersede(self) -> None:
        """Ends the change under way with its next step."""
        self._is_superseded = True

    async def apply(self, raw: bytes, also: Sequence[Write], on_switched: Callable[[], None]) -> None:
        """Makes a schema export the deployment's; `also` is written with it, and `on_switched` called when it is
        durable, before anybody sees it.

        Raises: as the methods of `SchemaChange`; ClientError `PushSuperseded`; SystemFault of storage or of closing.
        """
        await self._pause()
        self._is_superseded = False
        change = self._change = SchemaChange(self._database, raw, beside=self._lane.beside, progress=self.progress)
        try:
            while True:
                self._phase = "judging"
                await self._drive(change.judge(), change)
                if await self._commit(change, also, on_switched):
                    return
                self._phase = "building"
                await self._drive(change.build(), change)
                await self._drive(change.catch_up(), change)
        finally:
            change.close()
            self._change = None
            self.wake()

    async def _commit(self, change: SchemaChange, also: Sequence[Write], on_switched: Callable[[], None]) -> bool:
        """With the lane held: switches where all is ready, else registers what is not; whether it switched."""
        self._phase = "committing"
        durable: asyncio.Future[None] = self._loop.create_future()
        is_switch = False

        def on_durable(outcome: int | BaseException) -> None:
            if isinstance(outcome, BaseException):
                durable.set_exception(outcome)
                return
            if is_switch:
                on_switched()
            durable.set_result(None)

        await self._lane.hold()
        try:
            await self._drive(change.catch_up(), None)
            is_switch = change.is_ready
            if is_switch:
                change.switch(also, on_durable)
                await durable
            elif change.register(on_durable):
                await durable
        finally:
            self._lane.release()
        return is_switch

    # -- background ----------------------------------------------------------------------------------------------

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way."""
        return self._change is None and self._background is None

    def wake(self) -> None:
        """Begins the background work, if there is any and it is not under way."""
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        if not self._is_stopped and self._background is None and self._change is None:
            self._background = self._loop.create_task(self._work())

    start = wake

    async def stop(self) -> None:
        """Ends the background work. The deployment takes no more changes."""
        self._is_stopped = True
        await self._pause()

    async def _pause(self) -> None:
        """Ends the background work; what it has done is kept."""
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        task = self._background
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            self._background = None  # also where it had not begun

    async def _work(self) -> None:
        try:
            await self._drive(background_steps(self._database, beside=self._lane.beside, progress=self.progress), None)
            self._failure = None
            self._failing.succeeded()
        except DeveloperError as error:
            self._failure = error.message
            _log.warning("an index cannot be built: %s: %s", error.code, error.message)
        except SkerryError as error:
            self._failure = error.message
            self._failing.failed(error)
            if not self._is_stopped:
                self._retry = self._loop.call_later(limits.SCHEMA_RETRY_SECONDS, self.wake)
        finally:
            self._background = None

    # -- what an operator sees -----------------------------------------------------------------------------------

    def describe(self) -> dict[str, Any]:
        """What is under way, and the state of each index."""
        change = self._change
        return {
            "push": None if change is None else {"phase": self._phase, **change.judging()},
            "isWorking": not self.is_idle,
            "failure": self._failure,
            "indexes": index_states(self._database, self.progress),
        }

    # -- inside --------------------------------------------------------------------------------------------------

    async def _drive(self, steps: Steps, change: SchemaChange | None) -> None:
        """Takes steps to their end, or until the deployment closes; others have the loop in between.

        Shape: of `change`, where given, the steps end when it is superseded, and wait when writes outrun it.
        """
        with contextlib.closing(steps):
            room = Room(self._database, self._lane)
            while await up_to_room(steps, self._meter):
                await room.make()
                if self._is_stopped:
                    raise self._refusal()
                if change is None:
                    continue
                if self._is_superseded:
                    raise _superseded()
                if change.is_behind:
                    await self._lane.hold()
                    try:
                        await self._drive(change.catch_up(), None)
                    finally:
                        self._lane.release()


def _superseded() -> ClientError:
    return ClientError("PushSuperseded", "A newer push took the place of this one while its indexes were being built.")
