"""What somebody who had taken over a job would try. Each probe says "done", or how it was refused."""

import ctypes
import errno
import json
import mmap
import os
import resource
import signal
import socket
import time
from collections.abc import Callable, Sequence

library = ctypes.CDLL(None, use_errno=True)
library.syscall.restype = ctypes.c_long


def warm() -> None:
    """Nothing: what probes need is imported with this module."""


def probe(payload: Sequence[bytes]) -> bytes:
    name, arguments = json.loads(payload[0])
    try:
        said = PROBES[name](*arguments)
    except OSError as error:
        said = errno.errorcode.get(error.errno or 0, str(error))
    except (ValueError, RuntimeError, MemoryError) as error:
        said = type(error).__name__
    return json.dumps("done" if said is None else said).encode()


def checked(result: int) -> None:
    if result < 0:
        raise OSError(ctypes.get_errno(), "")


def call(number: int, *arguments: int) -> None:
    checked(library.syscall(ctypes.c_long(number), *[ctypes.c_long(argument) for argument in arguments]))


def read_file(path: str) -> None:
    with open(path, "rb") as file:
        file.read(1)


def write_file(path: str) -> None:
    with open(path, "wb") as file:
        file.write(b"x")


def list_folder(path: str) -> list[str]:
    return os.listdir(path)


def connect(port: int) -> None:
    with socket.socket() as own:
        own.connect(("127.0.0.1", port))


def listen() -> None:
    with socket.socket() as own:
        own.bind(("127.0.0.1", 0))
        own.listen()


def send_datagram(port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
        own.sendto(b"x", ("127.0.0.1", port))


def connect_abstract(name: str) -> None:
    with socket.socket(socket.AF_UNIX) as own:
        own.connect("\0" + name)


def fork() -> None:
    worker = os.fork()
    if worker == 0:
        os._exit(0)
    os.waitpid(worker, 0)


def fork_bomb() -> None:
    while True:
        os.fork()


def spawn() -> None:
    os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)


def execute() -> None:
    os.execv("/bin/true", ["true"])


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGTERM)


def signal_thread(pid: int) -> None:
    call({"x86_64": 234, "aarch64": 131}[os.uname().machine], pid, pid, signal.SIGTERM)


def trace(pid: int) -> None:
    attach = 16
    library.ptrace.restype = ctypes.c_long
    checked(library.ptrace(attach, pid, None, None))


def read_memory(pid: int) -> None:
    span = (ctypes.c_size_t * 2)(1, 1)
    library.process_vm_readv.restype = ctypes.c_ssize_t
    checked(library.process_vm_readv(pid, span, 1, span, 1, 0))


def environment() -> dict[str, str]:
    return dict(os.environ)


def descriptors() -> list[int]:
    """Which are open, asked by writing nothing to them."""
    found: list[int] = []
    for number in range(100):
        try:
            os.write(number, b"")
        except OSError as error:
            if error.errno == errno.EBADF and number != 0:
                continue
        found.append(number)
    return found


def hoard() -> None:
    kept = [bytearray(16 << 20) for _ in range(400)]
    raise AssertionError(f"{len(kept)} pieces")


def hoard_shared() -> None:
    for _ in range(400):
        mmap.mmap(-1, 16 << 20)


def hoard_files() -> None:
    for _ in range(1_000):
        os.memfd_create("x")


def long_file(length: int) -> None:
    file = os.memfd_create("x")
    os.ftruncate(file, length)


def burn() -> None:
    while True:
        pass


def sleep() -> None:
    time.sleep(1_000)


def raise_limit() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (1_000, 1_000))


def change_root() -> None:
    os.chroot(".")


def mount() -> None:
    checked(library.mount(b"none", b"/", b"tmpfs", 0, None))


def new_namespace() -> None:
    checked(library.unshare(0x1000_0000))


def core_flags() -> list[int]:
    """Whether it may be inspected, and whether a program could gain rights."""
    return [library.prctl(3, 0, 0, 0, 0), library.prctl(39, 0, 0, 0, 0)]


def niceness() -> int:
    return os.nice(0)


def crash() -> None:
    ctypes.string_at(1)


def talk(length: int) -> str:
    return "x" * length


PROBES: dict[str, Callable[..., object]] = {
    made.__name__: made
    for made in (
        read_file, write_file, list_folder, connect, listen, send_datagram, connect_abstract, fork, fork_bomb, spawn,
        execute, kill, signal_thread, trace, read_memory, environment, descriptors, hoard, hoard_shared, hoard_files,
        long_file, burn, sleep, raise_limit, change_root, mount, new_namespace, core_flags, crash, talk, niceness,
    )
} | {"call": call}  # fmt: skip
