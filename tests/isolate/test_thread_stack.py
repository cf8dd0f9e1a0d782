"""A guest's stack ends before its thread's does, whatever the thread. Each in a process: stacks are reused."""

import subprocess
import sys

import pytest

from skerry import limits

LINK = "from skerry.isolate import Linker, get_engine; Linker(get_engine())"
LINK_IN_A_THREAD = """
import threading
from skerry.errors import SystemFault
from skerry.isolate import Linker, get_engine

def link():
    try:
        Linker(get_engine())
        print("linked")
    except SystemFault as fault:
        print(fault.code)

engine = get_engine()
threading.stack_size(%d)
thread = threading.Thread(target=link)
thread.start()
thread.join()
"""


@pytest.mark.parametrize(("below", "found"), [(0, "linked"), (4096, "ThreadStackTooSmall")])
def test_a_thread_at_the_bound_runs_guests_and_one_page_below_does_not(below: int, found: str) -> None:
    script = LINK_IN_A_THREAD % (limits.GUEST_THREAD_STACK_BYTES - below)
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ran.stdout.strip() == found, ran.stderr


@pytest.mark.parametrize(("limit", "code"), [("-S -s 1024", 0), ("-s 4096", 1), ("-s unlimited", 0)])
def test_the_main_thread_raises_its_own_limit_as_far_as_it_may(limit: str, code: int) -> None:
    script = f"ulimit {limit} && exec {sys.executable} -c '{LINK}'"
    ran = subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, check=False)
    assert ran.returncode == code, ran.stderr
    assert code == 0 or "KiB of stack and needs" in ran.stderr
