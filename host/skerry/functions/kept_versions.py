"""The versions of a deployment that are kept: bundle files under their digests, and the list of when each went live.

    <deployment>/bundles/<digest>     a bundle
    <deployment>/bundles/<any>.new    an upload on its way, or what a crash left of one

The list lies in the metadata tree, newest activation first, and is switched in the commit that switches the active
version. `BUNDLES_KEPT_MAX` versions are kept; a file that is not in the list is nobody's and goes.

Deliberately absent: keeping a version because call records of it are younger than the retention. A call whose version
is gone can be read in the commit log, and cannot be run again.

Concurrency: `Upload` and what touches files belong to one thread at a time; the list is the loop thread's.
"""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import orjson

from skerry import limits
from skerry.errors import ClientError, SystemFault
from skerry.storage.folder import sync_folder
from skerry.storage.full_disk import file_fault
from skerry.storage.interface import StorageEngine, StorageSnapshot, Tree, Write

BUNDLES_FOLDER: Final = "bundles"
_ACTIVE_KEY: Final[bytes] = b"active bundle"
_LIST_KEY: Final[bytes] = b"kept bundles"
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_UNFINISHED: Final = ".new"


@dataclass(frozen=True, slots=True)
class KeptVersion:
    """One entry of the list. Units: ms since the Unix epoch, bytes of the bundle's file."""

    digest: str
    activated_ms: int
    size_bytes: int
    functions: int

    def listed(self) -> dict[str, Any]:
        return {
            "version": self.digest,
            "activatedMs": self.activated_ms,
            "bytes": self.size_bytes,
            "functions": self.functions,
        }


class Upload:
    """A bundle that is arriving: written to disk and digested as it comes. To be discarded, whatever became of it.

    Limits: BUNDLE_FILE_BYTES_MAX.
    """

    def __init__(self, path: Path, on_end: Callable[[], None]) -> None:
        self.path = path
        self.size_bytes = 0
        self._on_end = on_end
        self._digest = sha256()
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def write(self, piece: bytes) -> None:
        """Adds a piece. Raises: ClientError `BundleTooLarge`; SystemFault `StorageFull`."""
        self.size_bytes += len(piece)
        if self.size_bytes > limits.BUNDLE_FILE_BYTES_MAX:
            raise ClientError("BundleTooLarge", f"The upload has more than {limits.BUNDLE_FILE_BYTES_MAX} bytes.")
        self._digest.update(piece)
        try:
            rest = memoryview(piece)
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError as error:
            raise file_fault(error, "The bundle") from error

    def finish(self) -> bytes:
        """The SHA-256 of all of it."""
        self._close()
        return self._digest.digest()

    def discard(self) -> None:
        """Takes the file away; a second time is no error."""
        self._close()
        self.path.unlink(missing_ok=True)
        self._on_end()

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def kept_in(snapshot: StorageSnapshot) -> list[KeptVersion]:
    """The versions that are kept, the active one first."""
    active, listed = snapshot.get(Tree.META, _ACTIVE_KEY), snapshot.get(Tree.META, _LIST_KEY)
    if listed is None:  # of before versions were listed
        return [] if active is None else [KeptVersion(active.decode(), 0, 0, 0)]
    return [KeptVersion(*fields) for fields in orjson.loads(listed)]


def kept_writes(versions: list[KeptVersion]) -> list[Write]:
    """The writes that make these the versions that are kept, the first of them active."""
    raw = orjson.dumps([(kept.digest, kept.activated_ms, kept.size_bytes, kept.functions) for kept in versions])
    return [(Tree.META, _ACTIVE_KEY, versions[0].digest.encode()), (Tree.META, _LIST_KEY, raw)]


def is_digest(text: object) -> bool:
    """Whether this can name a version."""
    return isinstance(text, str) and _DIGEST.fullmatch(text) is not None


class KeptVersions:
    """The kept versions of the deployment in `folder`, whose list is in `engine`."""

    def __init__(self, folder: Path, engine: StorageEngine) -> None:
        self.folder = folder
        self.arriving: Upload | None = None
        self._uploads = 0
        folder.mkdir(mode=0o700, exist_ok=True)
        snapshot = engine.snapshot()
        try:
            active = snapshot.get(Tree.META, _ACTIVE_KEY)
            self.list = kept_in(snapshot)
        finally:
            snapshot.close()
        self.active = None if active is None else active.decode()

    @property
    def digests(self) -> set[str]:
        """The digests of the kept versions."""
        return {entry.digest for entry in self.list}

    def path(self, digest: str) -> Path:
        assert _DIGEST.fullmatch(digest)
        return self.folder / digest

    def begin_upload(self) -> Upload:
        """A file for a bundle that arrives, one at a time. Raises: SystemFault `StorageFull`."""
        assert self.arriving is None
        self._uploads += 1

        def ended() -> None:
            self.arriving = None

        try:
            self.arriving = Upload(self.folder / f"upload-{os.getpid()}-{self._uploads}{_UNFINISHED}", ended)
            return self.arriving
        except OSError as error:
            raise file_fault(error, "The bundle") from error

    def read(self, digest: str) -> bytes:
        """A kept bundle's bytes. Raises: SystemFault `StorageFailed`."""
        try:
            return self.path(digest).read_bytes()
        except OSError as error:
            raise SystemFault("StorageFailed", f"The bundle {digest:.12} cannot be read: {error.strerror}.") from error

    def store(self, digest: str, raw: bytes) -> None:
        """Makes a bundle's bytes durable under its digest. Raises: SystemFault `StorageFull`."""
        path = self.path(digest)
        temporary = path.with_suffix(_UNFINISHED)
        try:
            if not path.exists():
                with temporary.open("wb") as file:
                    file.write(raw)
                    file.flush()
                    os.fsync(file.fileno())
                temporary.replace(path)
            sync_folder(self.folder)  # also where it exists: a crash may have come between its name and this
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise file_fault(error, "The bundle") from error

    def switch(self, version: KeptVersion) -> tuple[list[KeptVersion], list[Write]]:
        """The list once `version` is live, and the writes that make it so; `switched` follows their commit."""
        rest = [entry for entry in self.list if entry.digest != version.digest]
        after = [version, *rest][: limits.BUNDLES_KEPT_MAX]
        return after, kept_writes(after)

    def switched(self, after: list[KeptVersion]) -> None:
        self.list = after
        self.active = after[0].digest

    def find(self, prefix: str | None) -> KeptVersion:
        """The kept version whose digest begins so; None means the one that was live before the active one.

        Raises: ClientError `VersionNotFound`. Limits: VERSION_PREFIX_CHARS_MIN.
        """
        if prefix is None:
            if len(self.list) < 2:
                raise ClientError("VersionNotFound", "No version is kept that was live before this one.")
            return self.list[1]
        found = [entry for entry in self.list if entry.digest.startswith(prefix)]
        if len(prefix) < limits.VERSION_PREFIX_CHARS_MIN or len(found) != 1:
            raise ClientError(
                "VersionNotFound",
                f"{prefix[:64]!r} names no kept version: give at least {limits.VERSION_PREFIX_CHARS_MIN} of its first "
                "characters, enough to tell it from the others.",
            )
        return found[0]

    def discard(self, digest: str) -> None:
        """Takes a bundle's file away that was stored and did not go live."""
        if all(entry.digest != digest for entry in self.list):
            self.path(digest).unlink(missing_ok=True)

    def tidy(self) -> None:
        """Removes the files that are nobody's. No activation may be under way."""
        kept = self.digests
        if self.arriving is not None:
            kept.add(self.arriving.path.name)
        for path in self.folder.iterdir():
            if path.name not in kept:
                path.unlink(missing_ok=True)
