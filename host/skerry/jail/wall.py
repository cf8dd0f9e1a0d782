"""A wall of the jail, and the list of their names."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Wall:
    """One of the mechanisms that confine a job. Shape: `why` is what it closes, or why this machine refused it."""

    name: str
    up: bool
    why: str


SYSTEM_CALLS: Final = "system call filter"
LANDLOCK: Final = "landlock"
EMPTY_ROOT: Final = "empty root"
PRIVILEGES: Final = "no privileges"
LIMITS: Final = "limits"
NAMESPACES: Final = ("user", "network", "processes", "ipc", "host name", "mounts")

WALL_NAMES: Final[tuple[str, ...]] = (
    *(f"namespace: {name}" for name in NAMESPACES),
    EMPTY_ROOT,
    PRIVILEGES,
    LANDLOCK,
    LIMITS,
    SYSTEM_CALLS,
)
