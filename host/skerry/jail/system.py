"""The few calls of the C library that confinement needs and Python does not offer, with errors as OSError.

Source: the manual pages unshare(2), mount(2), pivot_root(2), prctl(2), capset(2), syscall(2).
"""

import ctypes
import os
import platform
from typing import Any, Final

_library = ctypes.CDLL(None, use_errno=True)
_library.syscall.restype = ctypes.c_long

MACHINE: Final[str] = platform.machine()
_PIVOT_ROOT: Final[dict[str, int]] = {"x86_64": 155, "aarch64": 41}
_SECCOMP: Final[dict[str, int]] = {"x86_64": 317, "aarch64": 277}

# clone flags of unshare
NEW_MOUNTS: Final = 0x0002_0000
NEW_HOST_NAME: Final = 0x0400_0000
NEW_IPC: Final = 0x0800_0000
NEW_USER: Final = 0x1000_0000
NEW_PROCESSES: Final = 0x2000_0000
NEW_NETWORK: Final = 0x4000_0000

# options of prctl
_SET_PARENT_DEATH_SIGNAL: Final = 1
_SET_DUMPABLE: Final = 4
_SET_NO_NEW_PRIVILEGES: Final = 38

# flags of mount
_READ_ONLY_BARE: Final = 0b1111  # read-only, no set-user-id, no devices, no programs
_PRIVATE_DEEP: Final = 0x4_0000 | 0x4000
_DETACH: Final = 2

_CAPABILITY_VERSION_3: Final = 0x2008_0522
_SYNC_THREADS: Final = 1
_SET_FILTER: Final = 1


def raw(number: int, *arguments: Any) -> int:
    """A system call by its number. Raises: OSError."""
    return _checked(_library.syscall(ctypes.c_long(number), *arguments))


def unshare(flags: int) -> None:
    _checked(_library.unshare(flags))


def empty_root() -> None:
    """Makes an empty, read-only file system the root of this process, and lets go of the old one."""
    _checked(_library.mount(b"none", b"/", None, _PRIVATE_DEEP, None))
    _checked(_library.mount(b"none", b"/tmp", b"tmpfs", _READ_ONLY_BARE, b"size=4k,nr_inodes=2,mode=0555"))
    os.chdir("/tmp")
    raw(_PIVOT_ROOT[MACHINE], b".", b".")
    _checked(_library.umount2(b".", _DETACH))
    os.chdir("/")


def die_with_parent(signal_number: int) -> None:
    """Has the kernel send the signal when the thread that started this process ends."""
    _checked(_library.prctl(_SET_PARENT_DEATH_SIGNAL, signal_number, 0, 0, 0))


def forbid_inspection() -> None:
    """No core dumps, no attaching by other processes of the same user."""
    _checked(_library.prctl(_SET_DUMPABLE, 0, 0, 0, 0))


def forbid_new_privileges() -> None:
    _checked(_library.prctl(_SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0))


def drop_capabilities() -> None:
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    nothing = (ctypes.c_uint32 * 6)()
    _checked(_library.capset(header, nothing))


def set_filter(program: bytes) -> None:
    """Puts a BPF program over the system calls of all threads of this process."""

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))

    raw(
        _SECCOMP[MACHINE], _SET_FILTER, _SYNC_THREADS, ctypes.byref(Program(len(program) // 8, program))
    )  # each instruction has 8 bytes


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
