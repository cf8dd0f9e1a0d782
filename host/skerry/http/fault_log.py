"""What the log of the server tells of requests that failed with a fault of ours.

A fault nobody foresaw, or one with status 500, is told whole, with its trace. Any other 5xx tells of the moment rather
than of a fault (too much at once, a state that is no longer kept, a server that stops), and whoever may call can bring
it about at will: it has one line without a trace, and each code at most one line in `LOG_SAME_REFUSAL_SECONDS`, which
counts those that were left out before it. So nobody fills the log by asking.

Concurrency: the loop thread.
"""

import logging
from collections.abc import Callable
from typing import Final

from skerry.errors import SkerryError
from skerry.limits import LOG_REFUSAL_CHARS_MAX, LOG_SAME_REFUSAL_SECONDS

_log: Final = logging.getLogger("skerry.http")
_STATUS_OF_FAULTS: Final = 500


class FaultLog:
    """The log of one deployment's failed requests. Shape: `monotonic` gives seconds."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._next_at: dict[str, float] = {}  # by code, of which the table has a fixed number
        self._left_out: dict[str, int] = {}

    def answered(self, request_id: bytes, error: SkerryError, status: int) -> None:
        """Tells of a request that was refused in the host's own words, where that is worth a line."""
        if status < _STATUS_OF_FAULTS:
            return
        if status == _STATUS_OF_FAULTS:
            _log.error("request %s: %s: %s", request_id.decode(), error.code, error.message, exc_info=error)
            return
        code, now = error.code, self._monotonic()
        if now < self._next_at.get(code, now):
            self._left_out[code] = self._left_out.get(code, 0) + 1
            return
        self._next_at[code] = now + LOG_SAME_REFUSAL_SECONDS
        left_out = self._left_out.pop(code, 0)
        before = f" ({left_out} more before it)" if left_out else ""
        _log.warning("request %s: %s: %s%s", request_id.decode(), code, _line(error.message), before)

    def failed(self, request_id: bytes, error: Exception) -> None:
        """Tells of a request that failed in a way nobody foresaw."""
        _log.error("request %s failed", request_id.decode(), exc_info=error)


def _line(text: str) -> str:
    return " ".join(text.split())[:LOG_REFUSAL_CHARS_MAX]
