"""The filter as the kernel reads it, run by a small interpreter of BPF: both machines' tables can be tried on one."""

import struct

import pytest

from skerry.jail.syscall_filter import filter_program

ALLOWED, REFUSED, KILLED = 0x7FFF_0000, 0x0005_0001, 0x8000_0000
PID = 4711
ARCHITECTURE = {"x86_64": 0xC000_003E, "aarch64": 0xC000_00B7}
LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06


def verdict(machine: str, number: int, *arguments: int, architecture: int | None = None) -> int:
    data = struct.pack(
        "=IIQ6Q", number, architecture or ARCHITECTURE[machine], 0, *arguments, *[0] * (6 - len(arguments))
    )
    program = list(struct.iter_unpack("=HBBI", filter_program(machine, PID)))
    at = accumulator = 0
    while True:
        code, jump_true, jump_false, constant = program[at]
        at += 1
        if code == LOAD:
            (accumulator,) = struct.unpack_from("=I", data, constant)
        elif code == RETURN:
            return constant
        else:
            holds = {
                EQUAL: accumulator == constant,
                AT_LEAST: accumulator >= constant,
                ANY_BIT: bool(accumulator & constant),
            }[code]
            at += jump_true if holds else jump_false


NUMBERS = {
    "x86_64": {
        "read": 0, "write": 1, "open": 2, "close": 3, "mmap": 9, "ioctl": 16, "socket": 41, "connect": 42, "clone": 56,
        "fork": 57, "vfork": 58, "execve": 59, "kill": 62, "ptrace": 101, "setrlimit": 160, "mount": 165, "chroot": 161,
        "unshare": 272, "setns": 308, "openat": 257, "process_vm_writev": 311, "seccomp": 317, "bpf": 321,
        "execveat": 322, "prctl": 157, "prlimit64": 302, "io_uring_setup": 425, "pidfd_open": 434, "clone3": 435,
        "openat2": 437, "keyctl": 250, "userfaultfd": 323, "perf_event_open": 298, "sendmsg": 46, "dup": 32,
        "exit_group": 231, "futex": 202, "tgkill": 234,
    },
    "aarch64": {
        "read": 63, "write": 64, "close": 57, "mmap": 222, "ioctl": 29, "socket": 198, "connect": 203, "clone": 220,
        "execve": 221, "kill": 129, "ptrace": 117, "setrlimit": 164, "mount": 40, "chroot": 51, "unshare": 97,
        "setns": 268, "openat": 56, "process_vm_writev": 271, "seccomp": 277, "bpf": 280, "execveat": 281,
        "prctl": 167, "prlimit64": 261, "io_uring_setup": 425, "pidfd_open": 434, "clone3": 435, "openat2": 437,
        "keyctl": 219, "userfaultfd": 282, "perf_event_open": 241, "sendmsg": 211, "dup": 23, "exit_group": 94,
        "futex": 98, "tgkill": 131,
    },
}  # fmt: skip
NEEDED = {"read", "write", "close", "exit_group", "futex"}
LOOKED_AT = {"mmap", "tgkill"}


@pytest.mark.parametrize(
    ("machine", "name"), [(m, n) for m, names in NUMBERS.items() for n in names if n not in LOOKED_AT]
)
def test_only_what_a_job_needs_is_allowed(machine: str, name: str) -> None:
    assert verdict(machine, NUMBERS[machine][name]) == (ALLOWED if name in NEEDED else REFUSED)


@pytest.mark.parametrize("machine", NUMBERS)
def test_of_all_numbers_few_are_allowed(machine: str) -> None:
    allowed = [number for number in range(2_000) if verdict(machine, number) == ALLOWED]
    assert len(allowed) == 34, "mmap of nothing shared is among them, tgkill of another process is not"


@pytest.mark.parametrize("machine", NUMBERS)
def test_memory_is_mapped_for_this_process_alone(machine: str) -> None:
    private, shared, anonymous = 2, 1, 0x20
    number = NUMBERS[machine]["mmap"]
    assert verdict(machine, number, 0, 4096, 3, private | anonymous) == ALLOWED
    assert verdict(machine, number, 0, 4096, 3, shared | anonymous) == REFUSED
    assert verdict(machine, number, 0, 4096, 3, shared | private) == REFUSED, "checked sharing"


@pytest.mark.parametrize("machine", NUMBERS)
def test_signals_stay_inside(machine: str) -> None:
    assert verdict(machine, NUMBERS[machine]["tgkill"], PID, 1, 6) == ALLOWED
    assert verdict(machine, NUMBERS[machine]["tgkill"], PID + 1, 1, 6) == REFUSED


@pytest.mark.parametrize("machine", NUMBERS)
def test_the_numbers_of_another_architecture_end_the_process(machine: str) -> None:
    assert verdict(machine, NUMBERS[machine]["read"], architecture=0x4000_0003) == KILLED
    assert verdict(machine, 0x4000_0000) == KILLED


def test_a_machine_without_a_table_has_no_filter() -> None:
    with pytest.raises(OSError, match="no table of system calls for riscv64"):
        filter_program("riscv64", PID)
