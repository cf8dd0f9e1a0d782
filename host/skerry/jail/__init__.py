"""The jail: short-lived processes in which uploaded code is compiled and made into images.

What a compiler or an image builder is fed may be made to break it. So both run in a process that holds nothing worth
taking: an empty environment, the three pipes to its parent, no network, no file, no other process in sight, bounds on
CPU time, memory and descriptors, and a filter over its system calls. `wall` names the walls, `confine` puts them up,
`child` is the process inside, `process` and `pool` are the parent's side.

What comes out of a job is as hostile as what went in, with one exception that nobody can check: machine code.
"""

from collections.abc import Sequence
from typing import Final

from skerry.jail.pool import Jail
from skerry.jail.wall import WALL_NAMES, Wall

JAIL: Final = Jail()


def run_job(job: str, payload: Sequence[bytes], *, followed: bool = False) -> bytes:
    """Does a job of `skerry.jail.child` in this process's jail; see `Jail.run_job`."""
    return JAIL.run_job(job, payload, followed=followed)


def walls() -> list[Wall]:
    """Which walls a job of this process has, and why not where one is missing. Blocks for a few hundred ms."""
    return JAIL.walls()


__all__ = ["run_job", "walls", "Jail", "Wall", "JAIL", "WALL_NAMES"]
