"""What one deployment runs by itself: scheduled functions and crons, and the mark that leads back to them.

Concurrency: the loop thread, but for `settle`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skerry.functions.job_calls import JobCalls
from skerry.schedule.calls import Loop, Timers
from skerry.schedule.cron_runner import CronRunner
from skerry.schedule.crons import Cron
from skerry.schedule.due_mark import DueMark
from skerry.schedule.runner import Runner

if TYPE_CHECKING:
    from skerry.database import Database
    from skerry.functions.actions import Actions
    from skerry.functions.lane import Lane
    from skerry.functions.terms import Terms
    from skerry.functions.version import Version


class Scheduled:
    """Shape: `version` gives the live version, `folder` is the deployment's."""

    def __init__(
        self,
        folder: Path,
        database: "Database",
        lane: "Lane",
        actions: "Actions",
        version: "Callable[[], Version | None]",
        loop: Loop,
        timers: Timers,
        clock_ns: Callable[[], int],
        entropy: Callable[[int], bytes],
        terms: "Terms",
    ) -> None:
        self._version = version
        self.due_mark = DueMark(folder)
        calls = actions.job_calls = JobCalls(lane, actions, version, entropy)
        self.runner = Runner(
            database, calls, loop, timers, clock_ns,
            loop_ns=lambda: terms.meter.loop_ns, cpu_wait_s=lambda: terms.cpu_wait_s,
        )  # fmt: skip
        self.crons = CronRunner(database, calls, loop, timers, clock_ns, self._declared)

    def start(self) -> None:
        """Begins to run what is due."""
        self.runner.start()
        self.crons.look()

    def activated(self) -> None:
        """Takes note that another version is live."""
        self.runner.look(is_new=True)
        self.crons.look(is_new=True)

    def pause(self, is_paused: bool) -> None:
        """Begins nothing more until this is taken back."""
        self.runner.pause(is_paused)
        self.crons.pause(is_paused)

    def stop(self) -> None:
        """Begins nothing more. What runs goes on."""
        self.runner.stop()
        self.crons.stop()

    def forget(self) -> None:
        """Removes what ended long ago, in steps."""
        self.runner.forget()

    def next_due_ms(self) -> float | None:
        """When the first of it is due, 0 where that is not known; None where there is nothing."""
        due = (self.runner.next_due_ms(), self.crons.next_due_ms())
        return min((due_ms for due_ms in due if due_ms is not None), default=None)

    def settle(self, due_ms: float | None) -> None:
        """Says when the deployment, which has closed, is to be opened. Blocks."""
        self.due_mark.settle(due_ms)

    def crons_shown(self) -> list[dict[str, Any]]:
        """The crons with their last and next run."""
        return self.crons.listed()

    def _declared(self) -> dict[str, Cron]:
        version = self._version()
        return {} if version is None else version.crons
