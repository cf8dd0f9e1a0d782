"""Jails whose children are programs of the tests', and the check that nothing of them is left."""

import contextlib
import gc
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from skerry.jail import JAIL, Jail
from tests.jail.probe_child import starter


def children() -> set[int]:
    """Processes of this one, zombies among them."""
    found: set[int] = set()
    for thread in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that ends meanwhile
            found |= {int(pid) for pid in (thread / "children").read_text().split()}
    return found


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


@pytest.fixture(autouse=True)
def no_spare() -> Iterator[None]:
    """The process's own jail leaves no child for the next test to count."""
    yield
    JAIL.close()


@pytest.fixture
def jail_with() -> Iterator[Callable[..., Jail]]:
    """Makes jails; afterwards no process and no descriptor of theirs may be left."""
    gc.collect()  # what other tests left open is closed before it is counted
    before = children(), len(descriptors())
    made: list[Jail] = []

    def make(**options: object) -> Jail:
        made.append(Jail(time.monotonic, starter(**options)))
        return made[-1]

    yield make
    for jail in made:
        jail.close()
    assert children() <= before[0]
    assert len(descriptors()) <= before[1]


def tried(jail: Jail, probe: str, *arguments: Any) -> Any:
    """What a probe says, inside the jail."""
    return json.loads(jail.run_job("probe", [json.dumps([probe, arguments]).encode()]))
