"""The memory that tells, after a worker's death, which module each of its threads was running.

    u32 threads[CRASH_THREADS_MAX]            the module number that a thread runs; 0 for none
    u64 idents[CRASH_THREADS_MAX]             the thread's identity, as the fault handler's report writes it
    module[CRASH_MODULES_MAX]                 128 bytes each: bundle digest, length of the name, name of the deployment

The worker writes, the supervisor reads when the worker is dead. A note is a store of one integer into memory that is
shared with a file: no system call, and nothing is lost with the process. Module numbers are given round robin; when
more than CRASH_MODULES_MAX were loaded, the oldest number names a newer module.
"""

import mmap
import os
import re
import threading
import weakref
from typing import Final, NamedTuple

from skerry.limits import CRASH_MODULES_MAX, CRASH_REPORT_BYTES_MAX, CRASH_THREADS_MAX

_IDENTS_AT: Final = 4 * CRASH_THREADS_MAX
_MODULES_AT: Final = _IDENTS_AT + 8 * CRASH_THREADS_MAX
_MODULE_BYTES: Final = 128
_DIGEST_BYTES: Final = 32
_NAME_AT: Final = _DIGEST_BYTES + 1
CRASH_PAGE_BYTES: Final = _MODULES_AT + _MODULE_BYTES * CRASH_MODULES_MAX
_CRASHED_THREAD: Final = re.compile(rb"^Current thread 0x([0-9a-f]{1,16}) ", re.M)


class RunningModule(NamedTuple):
    """A module by its deployment and the digest of its bundle (hexadecimal)."""

    deployment: str
    digest: str


class CrashPage:
    """The worker's side. Concurrency: `note` from the thread that is noted, `number` from any."""

    def __init__(self, descriptor: int) -> None:
        memory = memoryview(mmap.mmap(descriptor, CRASH_PAGE_BYTES))
        self._threads = memory[:_IDENTS_AT].cast("I")
        self._idents = memory[_IDENTS_AT:_MODULES_AT].cast("Q")
        self._modules = memory[_MODULES_AT:]
        self._taken = 0
        self._free: list[int] = []
        self._numbers: dict[RunningModule, int] = {}
        self._next = 0
        self._lock = threading.Lock()

    def note(self) -> "memoryview[int]":
        """Where the calling thread notes what it runs: `note[0] = number`, and 0 afterwards.

        It is the thread's until the view is dropped. Past CRASH_THREADS_MAX the last note is shared.
        """
        with self._lock:
            at = self._free.pop() if self._free else min(self._taken, CRASH_THREADS_MAX - 1)
            self._taken = max(self._taken, at + 1)
        self._idents[at] = threading.get_ident()
        note = self._threads[at : at + 1]
        if at < CRASH_THREADS_MAX - 1:
            weakref.finalize(note, self._give_back, at).atexit = False
        return note

    def _give_back(self, at: int) -> None:
        self._threads[at] = 0
        self._free.append(at)  # an append is whole without the lock, which a finalizer must not wait for

    def number_of(self, deployment: str, digest: str) -> int:
        """As `number`."""
        return self.number(RunningModule(deployment, digest))

    def number(self, module: RunningModule) -> int:
        """The number to note while the module runs; the same for the same module."""
        with self._lock:
            known = self._numbers.get(module)
            if known is None:
                known = self._next % (CRASH_MODULES_MAX - 1) + 1
                self._next += 1
                if len(self._numbers) >= CRASH_MODULES_MAX - 1:
                    del self._numbers[next(iter(self._numbers))]
                self._numbers[module] = known
                self._write(known, module)
            return known

    def _write(self, number: int, module: RunningModule) -> None:
        name = module.deployment.encode()[: _MODULE_BYTES - _NAME_AT]
        row = bytes.fromhex(module.digest) + bytes((len(name),)) + name
        at = number * _MODULE_BYTES
        self._modules[at : at + len(row)] = row


def make_crash_page() -> int:
    """The descriptor of a new, empty page."""
    descriptor = os.memfd_create("skerry-crash-page")
    os.ftruncate(descriptor, CRASH_PAGE_BYTES)
    return descriptor


def make_crash_report() -> int:
    """The descriptor of a file for the fault handler's report."""
    return os.memfd_create("skerry-crash-report")


def read_report(descriptor: int) -> bytes:
    """What the fault handler wrote. Limits: the first CRASH_REPORT_BYTES_MAX."""
    return os.pread(descriptor, CRASH_REPORT_BYTES_MAX, 0)


def running_at_death(page: int, report: bytes) -> list[RunningModule]:
    """Which modules may have caused a worker's death: that of the thread which faulted.

    Shape: empty when that thread ran none; every module that ran when the report names no thread.
    """
    memory = os.pread(page, CRASH_PAGE_BYTES, 0)
    threads = memoryview(memory)[:_IDENTS_AT].cast("I")
    idents = memoryview(memory)[_IDENTS_AT:_MODULES_AT].cast("Q")
    crashed = _CRASHED_THREAD.search(report)
    ident = int(crashed[1], 16) if crashed else None
    found = {
        _module(memory, number) for number, of in zip(threads, idents, strict=True) if number and ident in (None, of)
    }
    return sorted(found)


def _module(memory: bytes, number: int) -> RunningModule:
    at = _MODULES_AT + (number % CRASH_MODULES_MAX) * _MODULE_BYTES
    row = memory[at : at + _MODULE_BYTES]
    length = min(row[_DIGEST_BYTES], _MODULE_BYTES - _NAME_AT)
    name = row[_NAME_AT : _NAME_AT + length].decode(errors="replace")
    return RunningModule(name, row[:_DIGEST_BYTES].hex())
