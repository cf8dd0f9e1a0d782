"""What a failure to write a file means to whoever waits for it: a disk that is full, or one that is broken.

The difference is worth asking for: a full one is helped by making room, and everything goes on then. Errors of the
system say it in their number. LMDB does not always: a write that the disk cut short, as one does that finds room for
its first part, is an I/O error to it. So after such an error the disk is asked by writing a little behind the end of
the file in question, in a file of its own that has no name: what the disk says then is what it would say to the next
write, be it full, a quota at its end, or files of that size not allowed.
"""

import errno
import os
from pathlib import Path
from typing import Final

import lmdb

from skerry.errors import SystemFault

FULL_ERRORS: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FULL_REASONS: Final = tuple(os.strerror(code) for code in FULL_ERRORS)
_UNCLEAR_REASON: Final = os.strerror(errno.EIO)
_PROBE: Final = "probe"
_PROBE_BYTES: Final = 64 * 1024


def write_fault(error: Exception, file: Path) -> SystemFault:
    """What a failure of the storage engine to write its file means."""
    if is_full(error, file):
        return SystemFault("StorageFull", "The storage of this deployment is full; free or add space.")
    return SystemFault("StorageFailed", f"The storage engine could not make a write durable: {type(error).__name__}.")


def file_fault(error: OSError, what: str) -> SystemFault:
    """What a failure to write or read a file that is not the storage engine's means; `what` is told of: "The file"."""
    if error.errno in FULL_ERRORS:
        return SystemFault("StorageFull", f"{what} could not be stored: the disk is full. Free or add space.")
    return SystemFault("StorageFailed", f"{what} could not be stored: {error.strerror or error}.")


def is_full(error: BaseException | None, file: Path | None) -> bool:
    """Whether a failure to write a file came from a disk without room. With a `file` it may ask the disk: blocks."""
    if isinstance(error, OSError) and error.errno in FULL_ERRORS:
        return True
    if not isinstance(error, lmdb.Error):
        return False
    text = str(error)  # the binding keeps no errno, only what the C library calls it
    if isinstance(error, (lmdb.MapFullError, lmdb.DiskError)) or any(reason in text for reason in _FULL_REASONS):
        return True
    return file is not None and _UNCLEAR_REASON in text and not _takes_more(file)


def _takes_more(file: Path) -> bool:
    """Whether the disk takes some more behind the end of a file, as far as it says."""
    probe = file.with_name(_PROBE)
    descriptor = -1
    try:
        end = file.stat().st_size if file.exists() else 0
        descriptor = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        probe.unlink(missing_ok=True)
        return os.pwrite(descriptor, bytes(_PROBE_BYTES), end) == _PROBE_BYTES
    except OSError as error:
        return error.errno not in FULL_ERRORS
    finally:
        if descriptor >= 0:
            os.close(descriptor)
