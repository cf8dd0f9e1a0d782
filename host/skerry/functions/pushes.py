"""What became of pushes: which are under way, and how the last ones ended, by the name that whoever pushed gave each.

A push outlives the connection it came over, so its answer may find nobody. Whoever asks again finds it here. Kept in
memory: after a restart the push itself is gone too, unless its version is live.

Concurrency: the loop thread.
"""

import re
from collections import Counter, deque
from typing import Any, Final

from skerry.errors import SkerryError, SystemFault
from skerry.limits import PUSH_NAME_CHARS_MAX, PUSH_OUTCOMES_KEPT_MAX

_NAME: Final = re.compile(rf"[0-9A-Za-z_-]{{1,{PUSH_NAME_CHARS_MAX}}}")


def push_name(text: str) -> str:
    """The name that a client gives a push; empty where it gives none, or one that is too long or odd to be kept."""
    return text if _NAME.fullmatch(text) else ""


class Pushes:
    """The pushes of one deployment. A push without a name is not told of."""

    def __init__(self) -> None:
        self._under_way: Counter[str] = Counter()
        self._ended: deque[dict[str, Any]] = deque(maxlen=PUSH_OUTCOMES_KEPT_MAX)

    def begun(self, name: str) -> None:
        """A push has arrived whole."""
        if name:
            self._under_way[name] += 1

    def ended(self, name: str, outcome: str | BaseException) -> None:
        """A push has made the version `outcome` live, or failed with it."""
        if not name:
            return
        self._under_way -= Counter([name])
        told: dict[str, Any] = {"name": name}
        if isinstance(outcome, str):
            told["version"] = outcome
        else:
            error = outcome if isinstance(outcome, SkerryError) else _fault()
            told |= {"code": error.code, "message": error.message}
        self._ended.appendleft(told)

    def describe(self) -> dict[str, Any]:
        """Shape: `underWay` names; `ended`, the newest first, each `name` and `version`, or `code` and `message`."""
        return {"underWay": list(self._under_way), "ended": list(self._ended)}


def _fault() -> SystemFault:
    return SystemFault("InternalServerError", "The push failed in the server, whose log says more.")
