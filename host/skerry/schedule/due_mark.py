"""When a deployment that is closed has to be opened: one small file in its folder, which the host reads.

    <deployment>/due     milliseconds since 1970 in decimal; without the file nothing is due

What stays true: whatever happens, no pending job is durable whose time is before the one in the file. While its
deployment is open, the file says 0 (look at once), or a time that everything scheduled since is after; closing writes
the time of the first job, or takes the file away. So after a crash the host opens one deployment too many and never one
too few. The first function that is scheduled for a time before the one in the file waits for a sync, once for each
opening.

Concurrency: any thread.
"""

import contextlib
import os
import threading
from pathlib import Path
from typing import Final

from skerry.errors import SystemFault
from skerry.storage.folder import sync_folder

_NAME: Final = "due"
_DIGITS_MAX: Final = 20
_AT_ONCE: Final = 0


def read_due(folder: Path) -> int | None:
    """The time in a deployment's folder, None where nothing is due; 0 for what cannot be read. Units: ms."""
    try:
        text = (folder / _NAME).read_bytes()
    except FileNotFoundError:
        return None
    except OSError:
        return _AT_ONCE
    return int(text) if len(text) <= _DIGITS_MAX and text.isdigit() else _AT_ONCE


class DueMark:
    """The mark of an open deployment. Units: milliseconds since 1970."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._marked = read_due(folder)

    def covers(self, due_ms: float) -> bool:
        """Whether a job for this time may become durable."""
        return self._marked is not None and self._marked <= due_ms

    def cover(self) -> None:
        """Lets jobs for any time become durable. Blocks for a sync. Raises: SystemFault `StorageFull`."""
        with self._lock:
            if self._marked != _AT_ONCE:
                self._write(b"%d" % _AT_ONCE)
                self._marked = _AT_ONCE

    def settle(self, due_ms: float | None) -> None:
        """Says when the first job is due, of a deployment that runs no more. A failure leaves the earlier time."""
        with self._lock, contextlib.suppress(SystemFault, OSError):
            if due_ms is not None:
                at = max(0, int(due_ms))
                if at != self._marked:
                    self._write(b"%d" % at)
            elif self._marked is not None:
                (self._folder / _NAME).unlink(missing_ok=True)

    def _write(self, text: bytes) -> None:
        path = self._folder / _NAME
        partial = self._folder / f"{_NAME}.new"
        try:
            with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
            sync_folder(self._folder)
        except OSError as error:
            raise SystemFault(
                "StorageFull", f"When a scheduled function is due could not be written: {error.strerror}."
            ) from error
