"""What protects a host and what does not: one finding for each thing that an operator can see to.

Each check looks at one fact of the machine or of the data folder and says it in a sentence. Nothing is changed, nothing
is sent anywhere. Deliberately absent: whether newer releases exist, which asks the network (the command's business).
"""

import os
import platform
import resource
import stat
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from skerry.admin.keys import (
    ADMIN_KEY_FILE,
    ADMIN_KEY_VARIABLE,
    HOST_CREDENTIAL_FILE,
    HOST_CREDENTIAL_VARIABLE,
    HOST_KEY_FILE,
    is_guessable,
)
from skerry.limits import ADMIN_KEY_CHARS_WANTED

OPEN_FILES_WANTED: Final = 4096
MEMORY_MAPS_WANTED: Final = 65_530
DISK_FREE_BYTES_WANTED: Final = 1 << 30
_TESTED_MACHINES: Final = ("x86_64",)
_NETWORK_FILE_SYSTEMS: Final = ("nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "ceph", "glusterfs")
_MOUNTS: Final = Path("/proc/self/mounts")
_OVERCOMMIT: Final = Path("/proc/sys/vm/overcommit_memory")
_MAPS_MAX: Final = Path("/proc/sys/vm/max_map_count")


class Level(StrEnum):
    """How much a finding matters."""

    OK = "ok"
    NOTE = "note"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found. Shape: `says` is a sentence; where the level is not OK, with what to do."""

    name: str
    level: Level
    says: str


def check_host(folder: Path | None) -> list[Finding]:
    """What the machine, this process's limits and the data folder (None: not looked at) are like."""
    findings = [
        _python(),
        _machine(),
        _user(),
        _open_files(),
        _address_space(),
        overcommit(_read_number(_OVERCOMMIT)),
        memory_maps(_read_number(_MAPS_MAX)),
        _core_dumps(),
        *(
            length(name, os.environ[name])
            for name in (ADMIN_KEY_VARIABLE, HOST_CREDENTIAL_VARIABLE)
            if os.environ.get(name)
        ),
    ]
    if folder is not None:
        findings += check_data_folder(folder)
    return findings


def check_data_folder(folder: Path) -> list[Finding]:
    """What the data folder is like: who may read it, what it lies on, how much room there is."""
    if not folder.is_dir():
        return [Finding("data folder", Level.NOTE, f"{folder} does not exist yet: the first start makes it.")]
    return [
        _private(folder, "data folder"),
        *(
            _private(folder / name, f"secret {name}")
            for name in (ADMIN_KEY_FILE, HOST_KEY_FILE, HOST_CREDENTIAL_FILE)
            if (folder / name).exists()
        ),
        file_system(folder, _mounts()),
        _disk(folder),
    ]


# -- one fact each ---------------------------------------------------------------------------------------------------


def _python() -> Finding:
    version = platform.python_version()
    if platform.python_implementation() != "CPython":
        return Finding("python", Level.BAD, f"{platform.python_implementation()} {version} is not tested: use CPython.")
    return Finding("python", Level.OK, f"CPython {version}.")


def _machine() -> Finding:
    machine = platform.machine()
    if machine not in _TESTED_MACHINES or sys.platform != "linux":
        return Finding(
            "machine", Level.NOTE, f"{sys.platform} on {machine}: the walls are tested on Linux on x86-64 only."
        )
    return Finding("machine", Level.OK, f"Linux {platform.release()} on {machine}.")


def _user() -> Finding:
    if os.geteuid() == 0:
        return Finding(
            "user", Level.BAD, "This is root: an escape from a guest would own the machine. Use a user of its own."
        )
    return Finding("user", Level.OK, f"User {os.geteuid()}, without root's rights.")


def _open_files() -> Finding:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)  # a server raises its soft limit to this
    if 0 <= hard < OPEN_FILES_WANTED:
        return Finding(
            "open files",
            Level.NOTE,
            f"At most {hard} files may be open, which bounds connections and open deployments: "
            f"`ulimit -Hn {OPEN_FILES_WANTED}`.",
        )
    return Finding("open files", Level.OK, f"{_shown_limit(hard)} files may be open.")


def _address_space() -> Finding:
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft != resource.RLIM_INFINITY:
        return Finding(
            "address space",
            Level.BAD,
            f"It is limited to {soft} bytes; guests and storage reserve far more: `ulimit -v unlimited`.",
        )
    return Finding("address space", Level.OK, "Not limited.")


def overcommit(mode: int | None) -> Finding:
    if mode == 2:
        return Finding(
            "overcommit",
            Level.BAD,
            "The kernel refuses to reserve more than there is, which guests need: set vm.overcommit_memory to 0.",
        )
    return Finding("overcommit", Level.OK, "Reserved memory costs nothing until it is used.")


def memory_maps(count: int | None) -> Finding:
    if count is not None and count < MEMORY_MAPS_WANTED:
        return Finding(
            "memory maps",
            Level.NOTE,
            f"A process may have {count}; many isolates want {MEMORY_MAPS_WANTED}: set vm.max_map_count.",
        )
    return Finding("memory maps", Level.OK, f"A process may have {'enough' if count is None else count} of them.")


def _core_dumps() -> Finding:
    soft, _ = resource.getrlimit(resource.RLIMIT_CORE)
    if soft != 0:
        return Finding(
            "core dumps",
            Level.NOTE,
            "A crash may write tenants' data to a core file: `ulimit -c 0` where that matters.",
        )
    return Finding("core dumps", Level.OK, "A crash writes no memory to disk.")


def length(name: str, secret: str) -> Finding:
    """Whether a secret that was given is long enough. Limits: ADMIN_KEY_CHARS_WANTED."""
    if is_guessable(secret):
        return Finding(
            name,
            Level.BAD,
            f"It has fewer than {ADMIN_KEY_CHARS_WANTED} characters and can be guessed: use a long random one.",
        )
    return Finding(name, Level.OK, f"It has {ADMIN_KEY_CHARS_WANTED} characters or more.")


def _private(path: Path, name: str) -> Finding:
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        return Finding(name, Level.BAD, f"{path} is open to other users (mode {mode:o}): `chmod go= {path}`.")
    return Finding(name, Level.OK, f"{path} is its owner's alone.")


def file_system(folder: Path, mounts: Iterable[tuple[str, str]]) -> Finding:
    resolved = str(folder.resolve())
    inside = [(where, kind) for where, kind in mounts if _lies_in(resolved, where)]
    where, kind = max(inside, key=lambda mount: len(mount[0]), default=("/", "unknown"))
    if kind in _NETWORK_FILE_SYSTEMS:
        return Finding(
            "file system",
            Level.BAD,
            f"{folder} lies on {kind} ({where}), where locks and syncs are not kept: use a local disk.",
        )
    if kind == "tmpfs":
        return Finding(
            "file system", Level.BAD, f"{folder} lies in memory ({where}): a restart of the machine loses it."
        )
    return Finding("file system", Level.OK, f"{folder} lies on {kind}.")


def _disk(folder: Path) -> Finding:
    figures = os.statvfs(folder)
    free = figures.f_bavail * figures.f_frsize
    if free < DISK_FREE_BYTES_WANTED:
        return Finding("disk", Level.BAD, f"{free >> 20} MiB are free: when the disk is full, mutations fail.")
    return Finding("disk", Level.OK, f"{free >> 30} GiB are free.")


# -- helpers ---------------------------------------------------------------------------------------------------------


def _lies_in(path: str, where: str) -> bool:
    return where == "/" or path == where or path.startswith(where + "/")


def _mounts() -> list[tuple[str, str]]:
    """Where file systems are mounted, and of what kind they are."""
    try:
        lines = _MOUNTS.read_text().splitlines()
    except OSError:
        return []
    return [(fields[1], fields[2]) for fields in map(str.split, lines) if len(fields) > 2]


def _read_number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _shown_limit(value: int) -> str:
    return "Any number of" if value == resource.RLIM_INFINITY else str(value)
