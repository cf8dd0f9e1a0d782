"""The native stack of threads that run guests: large enough for the guest's part and the host's above it.

The engine counts a guest's stack (`GUEST_STACK_BYTES_MAX`) and traps at its end, but it does not know where the
thread's own stack ends. So a thread whose stack could end first never gets to run guests.
"""

import ctypes
import resource
import threading
from typing import Any, Final

from skerry import limits
from skerry.errors import SystemFault

_ATTRIBUTES_BYTES: Final[int] = 256  # of a pthread_attr_t; 64 at most today
_libc = ctypes.CDLL(None)


def use_large_stacks() -> None:
    """Makes threads that begin from now on, and the main thread as far as the machine lets it, large enough."""
    threading.stack_size(limits.GUEST_THREAD_STACK_BYTES)
    soft, hard = resource.getrlimit(resource.RLIMIT_STACK)
    wanted = limits.GUEST_THREAD_STACK_BYTES + limits.MIB  # a main thread's arguments and environment lie on its stack
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(
            resource.RLIMIT_STACK, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard)
        )


def check_stack() -> None:
    """Looks whether the calling thread may run guests.

    Raises: SystemFault `ThreadStackTooSmall`.
    """
    size = _stack_bytes()
    needed = limits.GUEST_THREAD_STACK_BYTES
    if size < needed:
        raise SystemFault(
            "ThreadStackTooSmall",
            f"A thread has {size // limits.KIB} KiB of stack and needs {needed // limits.KIB}. "
            "Raise the machine's limit: ulimit -s 8192",
        )


def _stack_bytes() -> int:
    """What the calling thread's stack may grow to."""
    attributes = ctypes.create_string_buffer(_ATTRIBUTES_BYTES)
    size = ctypes.c_size_t()
    itself: Any = _libc.pthread_self
    itself.restype = ctypes.c_void_p
    if _libc.pthread_getattr_np(ctypes.c_void_p(itself()), attributes):
        return 0
    _libc.pthread_attr_getstacksize(attributes, ctypes.byref(size))
    _libc.pthread_attr_destroy(attributes)
    return size.value
