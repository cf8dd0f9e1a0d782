"""Work of a deployment that nobody waits for and that fails: counted each time, told once for each kind.

What is tried again every second would fill the log with one line, and hide what else is in it. So a kind of failure is
told when it begins, and that it is over once the work has succeeded; in between only the counter grows, which
`/metrics` shows as `skerry_deployment_background_failures`.

Concurrency: the loop thread.
"""

import logging

from skerry.errors import SkerryError
from skerry.functions.metering import Meter


class Failing:
    """One work of one deployment. Shape: `what` names it in the log, and is the start of a sentence."""

    def __init__(self, what: str, log: logging.Logger, meter: Meter) -> None:
        self._what = what
        self._log = log
        self._meter = meter
        self._told: set[str] = set()

    def failed(self, error: Exception) -> None:
        """It has failed: a line where that is new, with the trace of what nobody foresaw."""
        self._meter.background_failures += 1
        is_foreseen = isinstance(error, SkerryError)
        kind = error.code if is_foreseen else type(error).__name__
        if kind in self._told:
            return
        self._told.add(kind)
        text = error.message if is_foreseen else str(error)
        self._log.warning(
            "%s of %s failed: %s: %s It is tried again, and this is said once until it succeeds.",
            self._what,
            self._meter.name,
            kind,
            text,
            exc_info=None if is_foreseen else error,
        )

    def succeeded(self) -> None:
        """It has done what it should."""
        if self._told:
            self._told.clear()
            self._log.warning("%s of %s works again.", self._what, self._meter.name)
