"""Folders on disk: the data folder of a process and, in it, one folder per deployment.

    <data folder>/FORMAT                      "skerry-data 1"
    <data folder>/LOCK                        held by the serving process
    <data folder>/host/                       the host's registry: FORMAT "skerry-host 1", LOCK, trees/
    <data folder>/deployments/<name>/FORMAT   "skerry-deployment 2"
    <data folder>/deployments/<name>/LOCK     held by the process that owns the deployment
    <data folder>/deployments/<name>/trees/   the storage engine's files

Deleting a deployment is deleting its folder. A lock is `flock` on an open file: it ends with the process, however
that ends, and it also refuses a second opening in the same process. A new folder appears under a temporary name and
is renamed once its files are synced, and the folder above is synced after that, so a crash leaves either nothing or a
whole folder.

Deliberately absent: what is in the trees; ownership of a deployment between processes; upgrades of old formats.
"""

import fcntl
import math
import os
import re
import shutil
import threading
from enum import Enum
from pathlib import Path
from typing import Final

from skerry.errors import SystemFault
from skerry.limits import DEPLOYMENT_NAME_CHARS_MAX, STORAGE_LOCK_RETRY_SECONDS

_FORMAT_FILE: Final = "FORMAT"
_LOCK_FILE: Final = "LOCK"
_NAME: Final = re.compile(rf"[a-z0-9](?:[a-z0-9-]{{0,{DEPLOYMENT_NAME_CHARS_MAX - 2}}}[a-z0-9])?")
_DELETED: Final = ".deleted"


class Hold(Enum):
    """Who else may have a folder open: nobody, other processes that share it, or whoever the process above lets."""

    ALONE = "alone"
    SHARED = "shared"
    LENT = "lent"


class LockedFolder:
    """One folder with a format file, locked for this process. Shape: it waits for a lock for `lock_seconds_max`.

    Raises: SystemFault DataFolderInUse when it is locked already, DataFolderFormat when its format is not
    `expected_format`.
    """

    def __init__(self, path: Path, expected_format: str, hold: Hold = Hold.ALONE, lock_seconds_max: float = 0) -> None:
        self.path = path
        if not (path / _FORMAT_FILE).exists():
            _create(path, expected_format)
        self._descriptor = os.open(path / _LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            _lock(self._descriptor, path, hold, lock_seconds_max)
            found = (path / _FORMAT_FILE).read_text("utf-8", errors="replace")[:100].strip()
            if found != expected_format:
                raise SystemFault(
                    "DataFolderFormat", f"{path} has the format {found!r}; this version reads {expected_format!r} only."
                )
        except BaseException:
            os.close(self._descriptor)
            raise

    def close(self) -> None:
        """Unlock; closing twice is no error."""
        if self._descriptor >= 0:
            # A process that is being started holds a copy of the descriptor until it runs its program.
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            os.close(self._descriptor)
            self._descriptor = -1


class DeploymentFolder(LockedFolder):
    """A folder with trees, locked by the process that owns it: of one deployment, or of the host."""

    FORMAT: Final = "skerry-deployment 2"
    HOST_FORMAT: Final = "skerry-host 1"

    def __init__(
        self,
        path: Path,
        expected_format: str = FORMAT,
        hold: Hold = Hold.ALONE,
        lock_seconds_max: float = 0,
    ) -> None:
        super().__init__(path, expected_format, hold, lock_seconds_max)
        self.trees = path / "trees"
        if not self.trees.is_dir():
            self.trees.mkdir(0o700, exist_ok=True)  # processes that share it may begin at once
            sync_folder(path)


class DataFolder(LockedFolder):
    """The folder that a serving process was started on."""

    FORMAT: Final = "skerry-data 1"

    def __init__(self, path: Path, hold: Hold = Hold.ALONE) -> None:
        super().__init__(path, self.FORMAT, hold)
        self.host = path / "host"
        self.deployments = self._deployments = path / "deployments"
        if not self._deployments.is_dir():
            self._deployments.mkdir(0o700)
            sync_folder(path)

    def deployment(self, name: str) -> DeploymentFolder:
        """The folder of the named deployment, created if it is new, locked."""
        return DeploymentFolder(self.deployment_path(name))

    def deployment_path(self, name: str) -> Path:
        """Where the named deployment lives.

        The name is lower-case letters, digits and inner hyphens. Limits: DEPLOYMENT_NAME_CHARS_MAX.
        """
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name[:80]!r} is not a deployment name")
        return self._deployments / name

    def deployment_names(self) -> list[str]:
        """The deployments there are, sorted."""
        return sorted(entry.name for entry in self._deployments.iterdir() if _NAME.fullmatch(entry.name))

    def delete_deployment(self, name: str) -> None:
        """Delete a deployment with everything in it, or what an interrupted deletion left of it.

        Raises: SystemFault DataFolderInUse while somebody has it open, StorageFailed where files cannot be removed.
        """
        path = self.deployment_path(name)
        doomed = path.with_name(f".{name}{_DELETED}")
        try:
            if path.exists():
                folder = DeploymentFolder(path)
                try:
                    _remove(doomed)
                    path.rename(doomed)
                    sync_folder(self._deployments)
                finally:
                    folder.close()
            _remove(doomed)
        except OSError as error:
            raise SystemFault("StorageFailed", f"{path} could not be deleted: {error.strerror}.") from error


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, path: Path, hold: Hold, seconds_max: float) -> None:
    if hold is Hold.LENT:
        return
    kind = fcntl.LOCK_EX if hold is Hold.ALONE else fcntl.LOCK_SH
    pause = threading.Event()  # never set: waiting on it is a sleep
    for attempts_left in range(math.ceil(seconds_max / STORAGE_LOCK_RETRY_SECONDS), -1, -1):
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
            return
        except BlockingIOError as error:
            if not attempts_left:
                raise SystemFault(
                    "DataFolderInUse", f"{path} is in use; stop its process or use another folder."
                ) from error
        pause.wait(STORAGE_LOCK_RETRY_SECONDS)


def _create(path: Path, expected_format: str) -> None:
    """Make the folder with its format file; an existing folder is taken only when it is empty."""
    if path.is_dir():
        if (path / _FORMAT_FILE).exists():
            return  # another process that shares it has made it in this moment
        if any(entry.name != _LOCK_FILE for entry in path.iterdir()):
            raise SystemFault("DataFolderFormat", f"{path} has files but no {_FORMAT_FILE}; use an empty folder.")
        _write_format(path, expected_format)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(0o700)
    _write_format(fresh, expected_format)
    try:
        fresh.rename(path)
    except OSError:
        shutil.rmtree(fresh, ignore_errors=True)
        if not (path / _FORMAT_FILE).exists():
            raise
    sync_folder(path.parent)


def _write_format(folder: Path, expected_format: str) -> None:
    partial = folder / f".{_FORMAT_FILE}.{os.getpid()}.new"
    with partial.open("w", encoding="utf-8") as file:
        file.write(expected_format + "\n")
        file.flush()
        os.fsync(file.fileno())
    partial.rename(folder / _FORMAT_FILE)
    sync_folder(folder)
