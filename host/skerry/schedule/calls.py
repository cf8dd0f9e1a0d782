"""What the runners of this room ask of others: functions that run, a loop, timers.

Concurrency: the loop thread.
"""

from collections.abc import Callable
from typing import Final, Protocol

from skerry.database import Transaction
from skerry.errors import SkerryError

Outcome = SkerryError | str | None
"""How a run ended: None for success, the text of a failure of the function's own, or what the host could not do."""
Change = Callable[[Transaction], None]
Ended = Callable[[Outcome], None]

GONE: Final = "ScheduledFunctionGone"
NOT_BEGUN: Final = frozenset(("TooManyConcurrentActions", "TooManyActionsAtOnce"))
"""The refusals of an action of which nothing has run."""


class Calls(Protocol):
    """How functions run, and what else is committed. `done` is called once, when the outcome is durable. Shape: `args`
    is the JSON of a list with one object, `job_id` the scheduled function that the call belongs to."""

    @property
    def is_ready(self) -> bool:
        """Whether there is a live version."""
        ...

    def kind_of(self, path: str) -> str | None:
        """The kind of a function of the live version, None where there is none."""
        ...

    def run_mutation(
        self, path: str, args: bytes, job_id: str | None, before: Change, after: Change, done: Ended
    ) -> None:
        """Runs a mutation, and what comes before and after it in its transaction."""
        ...

    def run_action(self, path: str, args: bytes, job_id: str | None, done: Ended) -> None:
        """Runs an action."""
        ...

    def change(self, change: Change, done: Ended, due_ms: float | None = None) -> None:
        """Commits what `change` does to a transaction. Shape: `due_ms` is the earliest time for which it schedules."""
        ...


class Timer(Protocol):
    """What a timer can be stopped by."""

    def cancel(self) -> None: ...


class Timers(Protocol):
    """Whoever calls back after some seconds."""

    def call_later(self, delay: float, callback: Callable[[], object], /) -> Timer: ...


class Loop(Protocol):
    """Whoever calls back in its next turn."""

    def call_soon(self, callback: Callable[[], object], /) -> object: ...
