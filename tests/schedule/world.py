"""A deployment whose scheduled functions run when the test moves the clock."""

import asyncio
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from skerry.bundle.build import build_app
from skerry.database import Transaction
from skerry.isolate import build_runner_at
from skerry.schedule.jobs import begin_job, internal_id_of, mark_job
from tests.fixtures import shared
from tests.fixtures.bundles import CLOCK_MS
from tests.fixtures.hands import HandTimers
from tests.fixtures.world import World

NS_PER_MS = 1_000_000
ASKED_MAX = 20_000


@functools.cache
def schedule_bundle(base: Path) -> bytes:
    folder = Path(__file__).parent.parent / "fixtures" / "schedule"
    return build_app(folder, clock_ms=CLOCK_MS, instantiate_at=build_runner_at(shared.module_cache(base))).to_bytes()


class Clocked(World):
    """A world with timers in the test's hand."""

    def __init__(self, folder: Path, compiled: Path, **more: Any) -> None:
        self.timers = HandTimers()
        super().__init__(folder, compiled, timers=self.timers, **more)

    @property
    def runner(self) -> Any:
        return self.deployment.scheduled.runner

    def settle(self) -> None:
        """Turns the loop until the runner has begun and ended all that is due now."""
        runner = self.runner

        def is_quiet() -> bool:
            return not (runner._is_turning or runner._mutations or runner._is_recovering or self.deployment.under_way)

        self.until(is_quiet)

    def pass_ms(self, ms: float) -> None:
        """Lets time pass, in the clock and in the timers, and what is due run."""
        self.now_ns += int(ms * NS_PER_MS)
        self.timers.advance(ms / 1000)
        self.settle()

    def state(self, job_id: str) -> Any:
        return self.query("jobs:state", {"id": job_id})

    def notes(self) -> list[Any]:
        return self.query("jobs:notes")

    def asked_until(self, is_so: Callable[[], object]) -> None:
        """Asks functions until a condition on their answers holds."""
        asked = 0
        while not is_so():
            self.turn(1)
            asked += 1
            assert asked < ASKED_MAX, "it never comes to that"

    def until_state(self, job_id: str, kind: str) -> None:
        self.asked_until(lambda: self.state(job_id)["kind"] == kind)

    def put_in_progress(self, job_id: str) -> None:
        """As if a job's action were under way."""

        def change(transaction: Transaction) -> None:
            mark_job(transaction, begin_job(transaction, internal_id_of(job_id), "pending"), "inProgress")

        ended: asyncio.Future[Any] = self.loop.create_future()
        calls = self.deployment.actions.job_calls
        assert calls is not None
        calls.change(change, ended.set_result)
        assert self.finish(ended) is None
