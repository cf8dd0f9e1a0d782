"""How a child locks itself in, before it has read anything that was uploaded.

```
enter_namespaces()    at once, while the process has one thread
   import the jobs    needs files
shut()                no files, no privileges; threads that start later are born into it
   start the engine   its threads
seal()                limits, and no system call beyond what a job needs, for all threads
```

Each step tries each of its walls, and a wall that the machine refuses leaves the others standing: the list says which
is up and why one is not.
"""

import contextlib
import errno
import os
import resource
import signal
from collections.abc import Callable
from typing import Final

from skerry import limits
from skerry.jail import landlock, syscall_filter, system
from skerry.jail.wall import EMPTY_ROOT, LANDLOCK, LIMITS, NAMESPACES, PRIVILEGES, SYSTEM_CALLS, Wall

_FLAGS: Final[dict[str, int]] = {
    "user": system.NEW_USER,  # first: it gives the right to make the others
    "network": system.NEW_NETWORK,
    "processes": system.NEW_PROCESSES,
    "ipc": system.NEW_IPC,
    "host name": system.NEW_HOST_NAME,
    "mounts": system.NEW_MOUNTS,
}
_SIGNAL_EXIT_BASE: Final = 128
_RESERVED_BYTES_MAX: Final = 1024 * limits.MIB  # address space that allocators take and do not use
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


class Confinement:
    """The walls of this process, as they go up."""

    def __init__(self) -> None:
        self.walls: list[Wall] = []
        self._sizes: int | None = None  # a descriptor that tells how much memory is mapped

    def enter_namespaces(self) -> None:
        """A user, a network, a process table and mounts of its own. Returns in the process that is to work.

        Where there is a process table of its own, that process is a new one; this one only waits for it, and ends as
        it ended.
        """
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        os.environ.clear()  # it came empty; the interpreter itself sets a locale
        os.umask(0o777)
        os.chdir("/")
        _set_limit(resource.RLIMIT_CORE, 0)
        system.die_with_parent(signal.SIGKILL)
        for name in NAMESPACES:
            self._try(f"namespace: {name}", lambda flag=_FLAGS[name]: system.unshare(flag), "its own")
        if self.is_up("namespace: processes"):
            _become_first_process()

    def shut(self) -> None:
        """No file is opened after this."""
        with contextlib.suppress(OSError):
            self._sizes = os.open("/proc/self/statm", os.O_RDONLY)
        if self.is_up("namespace: mounts"):
            self._try(EMPTY_ROOT, system.empty_root, "an empty read-only file system")
        else:
            self.walls.append(Wall(EMPTY_ROOT, False, "it needs mounts of its own"))
        self._try(PRIVILEGES, _drop_privileges, "no capabilities, none to gain, closed to debuggers")
        self._try(LANDLOCK, landlock.close_everything, "")

    def seal(self) -> None:
        """No thread, process, descriptor or memory beyond the limits after this."""
        self._try(LIMITS, self._set_limits, "CPU time, memory, file size, processes, descriptors")
        if self._sizes is not None:
            os.close(self._sizes)
        self._try(SYSTEM_CALLS, _filter_calls, f"{syscall_filter.calls_allowed()} calls allowed")

    def is_up(self, name: str) -> bool:
        return any(wall.name == name and wall.up for wall in self.walls)

    def _try(self, name: str, raise_wall: Callable[[], str | None], closes: str) -> None:
        try:
            said = raise_wall()
        except (OSError, ValueError, KeyError) as error:
            self.walls.append(Wall(name, False, f"the machine refuses: {getattr(error, 'strerror', None) or error}"))
        else:
            self.walls.append(Wall(name, True, said or closes))

    def _set_limits(self) -> None:
        if self._sizes is None:
            raise OSError(errno.ENOENT, "without /proc nothing says how much memory is in use")
        sizes_pages = [int(text) for text in os.pread(self._sizes, 100, 0).split()]
        mapped, private = (sizes_pages[at] * _PAGE_BYTES for at in (0, 5))
        used = resource.getrusage(resource.RUSAGE_SELF)
        cpu_s = int(used.ru_utime + used.ru_stime) + 1 + limits.JAIL_CPU_SECONDS_MAX
        _set_limit(resource.RLIMIT_CPU, cpu_s)
        _set_limit(resource.RLIMIT_DATA, private + limits.JAIL_MEMORY_BYTES_MAX)
        _set_limit(resource.RLIMIT_AS, mapped + limits.JAIL_MEMORY_BYTES_MAX + _RESERVED_BYTES_MAX)
        _set_limit(resource.RLIMIT_FSIZE, limits.JAIL_FILE_BYTES_MAX)
        _set_limit(resource.RLIMIT_NOFILE, limits.JAIL_FILES_MAX)
        _set_limit(resource.RLIMIT_NPROC, 0)
        _set_limit(resource.RLIMIT_MEMLOCK, 0)
        _set_limit(resource.RLIMIT_MSGQUEUE, 0)


def _set_limit(which: int, value: int) -> None:
    resource.setrlimit(which, (value, value))


def _drop_privileges() -> None:
    system.forbid_new_privileges()
    system.drop_capabilities()
    system.forbid_inspection()


def _filter_calls() -> None:
    system.set_filter(syscall_filter.filter_program(system.MACHINE, os.getpid()))


def _become_first_process() -> None:
    """Goes on in a new process, the first of the new process table; the old one stays to say how it ended."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    worker = os.fork()
    if worker == 0:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        system.die_with_parent(signal.SIGKILL)
        return

    def end_worker(_number: int, _frame: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker, signal.SIGKILL)

    signal.signal(signal.SIGTERM, end_worker)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    os.closerange(0, 3)
    _, status = os.waitpid(worker, 0)
    code = os.waitstatus_to_exitcode(status)
    os._exit(_SIGNAL_EXIT_BASE - code if code < 0 else code)
