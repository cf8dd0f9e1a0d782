"""The seccomp filter of the jail: which system calls a job may make.

What a job needs is memory, the pipes it was given, waiting for its own threads, clocks and the handling of its own
faults. Everything else is refused with EPERM, whatever its number: no list of dangerous calls has to be complete. No
call that starts a process or a thread is among those allowed (the threads exist before the filter), none that opens
or makes anything with a name.

Two calls are looked at more closely: `mmap` maps nothing shared, so that the limit on private memory is a limit on
memory; `tgkill` reaches the jail's own process alone, which is how the C library aborts.

Source: the kernel's `Documentation/userspace-api/seccomp_filter.rst`, the syscall tables of x86-64 and arm64.
"""

import struct
from typing import Final

# name -> (x86-64, arm64); 0 where an architecture has no such call
_ALLOWED: Final[dict[str, tuple[int, int]]] = {
    "read": (0, 63),
    "write": (1, 64),
    "close": (3, 57),
    "lseek": (8, 62),
    "mprotect": (10, 226),
    "munmap": (11, 215),
    "brk": (12, 214),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sched_yield": (24, 124),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "nanosleep": (35, 101),
    "getpid": (39, 172),
    "exit": (60, 93),
    "ftruncate": (77, 46),
    "fcntl": (72, 25),
    "getrusage": (98, 165),
    "sigaltstack": (131, 132),
    "gettid": (186, 178),
    "futex": (202, 98),
    "sched_getaffinity": (204, 123),
    "restart_syscall": (219, 128),
    "clock_gettime": (228, 113),
    "clock_getres": (229, 114),
    "clock_nanosleep": (230, 115),
    "exit_group": (231, 94),
    "set_robust_list": (273, 99),
    "getrandom": (318, 278),
    "memfd_create": (319, 279),  # the engine keeps the memory of a module in one
    "membarrier": (324, 283),
    "rseq": (334, 293),
}
_MMAP: Final = (9, 222)
_TGKILL: Final = (234, 131)

_ARCHITECTURES: Final[dict[str, tuple[int, int]]] = {"x86_64": (0, 0xC000_003E), "aarch64": (1, 0xC000_00B7)}
_FIRST_OF_X32: Final = 0x4000_0000
_MAP_SHARED_BIT: Final = 1

# BPF: code, jump if true, jump if false, constant
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _REFUSE, _KILL = 0x7FFF_0000, 0x0005_0000 | 1, 0x8000_0000
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16


def filter_program(machine: str, pid: int) -> bytes:
    """The filter as the kernel takes it. Raises: OSError for a machine that has no table here."""
    if machine not in _ARCHITECTURES:
        raise OSError(0, f"there is no table of system calls for {machine}")
    column, architecture = _ARCHITECTURES[machine]
    program = [
        (_LOAD, 0, 0, _ARCHITECTURE_AT),
        (_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER_AT),
        (_AT_LEAST, 0, 1, _FIRST_OF_X32),
        (_RETURN, 0, 0, _KILL),
    ]
    for numbers in _ALLOWED.values():
        program += [(_EQUAL, 0, 1, numbers[column]), (_RETURN, 0, 0, _ALLOW)]
    program += [
        (_EQUAL, 0, 4, _MMAP[column]),
        (_LOAD, 0, 0, _argument(3)),
        (_ANY_BIT, 0, 1, _MAP_SHARED_BIT),
        (_RETURN, 0, 0, _REFUSE),
        (_RETURN, 0, 0, _ALLOW),
        (_EQUAL, 0, 3, _TGKILL[column]),
        (_LOAD, 0, 0, _argument(0)),
        (_EQUAL, 0, 1, pid),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _REFUSE),
    ]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)


def calls_allowed() -> int:
    return len(_ALLOWED) + 2


def _argument(index: int) -> int:
    """Where the low half of an argument lies, on a little-endian machine."""
    return _ARGUMENTS_AT + 8 * index
