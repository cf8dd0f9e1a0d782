"""Which module each thread runs, noted where it can be read after the process died.

A note is one number in memory that the thread's owner may share with others: `note[0] = version.crash_number` before a
guest is entered, 0 afterwards. Who reads it, and what the memory is, is for whoever calls `keep_crash_notes`; without
that, notes go nowhere.
"""

import threading
from typing import Protocol


class CrashNotes(Protocol):
    """Where notes are kept. Concurrency: any thread."""

    def note(self) -> "memoryview[int]":
        """The calling thread's note, one unsigned number, for as long as the process lives."""
        ...

    def number_of(self, deployment: str, digest: str) -> int:
        """The number of a module, not 0; the same for the same module."""
        ...


class _Nowhere:
    def note(self) -> "memoryview[int]":
        return memoryview(bytearray(4)).cast("I")

    def number_of(self, deployment: str, digest: str) -> int:
        return 1


class _OfThread(threading.local):
    note: "memoryview[int] | None" = None


_notes: CrashNotes = _Nowhere()
_of_thread = _OfThread()


def keep_crash_notes(notes: CrashNotes) -> None:
    """Keeps the notes of this process there. Call once, before the first guest."""
    global _notes
    _notes = notes


def note_of_this_thread() -> "memoryview[int]":
    """The calling thread's note."""
    note = _of_thread.note
    if note is None:
        note = _of_thread.note = _notes.note()
    return note


def crash_number_of(deployment: str, digest: str) -> int:
    """What to note while a version's code runs."""
    return _notes.number_of(deployment, digest)
