"""A deployment that is being restored: an upload in a hidden folder, of which nobody knows until all of it is right.

    deployments/.NAME.restoring/upload        the backup, and its increments behind it, as they arrive
    deployments/.NAME.restoring/deployment    what is made of them; becomes deployments/NAME with one rename

A crash leaves such a folder, which the next start removes. The registry has the name, as one that is being deleted,
from just before the rename until just after, so a crash between the two leaves nothing either.

Concurrency: one thread at a time.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from skerry import limits
from skerry.admin.registry import Quotas
from skerry.backup.restoring import Restoring
from skerry.errors import ClientError
from skerry.storage.folder import sync_folder
from skerry.storage.full_disk import file_fault

ENDING: Final = ".restoring"


class Restore:
    """One restore. To be discarded, whatever became of it. Shape: `quotas` the deployment will have.

    Raises: SystemFault `StorageFull`.
    """

    def __init__(self, name: str, deployments: Path, quotas: Quotas) -> None:
        self.name = name
        self.quotas = quotas
        self.size_bytes = 0
        self._deployments = deployments
        self._place = deployments / f".{name}{ENDING}"
        try:
            shutil.rmtree(self._place, ignore_errors=True)
            self._place.mkdir(0o700)
            self._upload = (self._place / "upload").open("xb")
        except OSError as error:
            raise file_fault(error, "The backup") from error

    def write(self, piece: bytes) -> None:
        """Adds a piece of the upload. Raises: ClientError `RequestTooLarge`; SystemFault `StorageFull`."""
        self.size_bytes += len(piece)
        if self.size_bytes > limits.RESTORE_UPLOAD_BYTES_MAX:
            raise ClientError("RequestTooLarge", f"A backup has at most {limits.RESTORE_UPLOAD_BYTES_MAX} bytes.")
        try:
            self._upload.write(piece)
        except OSError as error:
            raise file_fault(error, "The backup") from error

    def build(self, clock_ns: Callable[[], int], bytes_max: int) -> dict[str, Any]:
        """Makes the deployment's folder out of the upload; what it is. Blocks.

        Raises: ClientError `BackupInvalid`; SystemFault of storage.
        """
        try:
            self._upload.close()
            with (self._place / "upload").open("rb") as file:
                restoring = Restoring(self._place / "deployment", clock_ns, bytes_max)
                restoring.run(file.read)
            (self._place / "upload").unlink()
        except OSError as error:
            raise file_fault(error, "The backup") from error
        head = restoring.head
        assert head is not None
        return {"name": self.name, "documents": restoring.documents, "of": head.deployment, "ts": str(head.ts)}

    def put_in_place(self) -> None:
        """Makes the folder the deployment's. Blocks. Raises: SystemFault `StorageFull`."""
        try:
            (self._place / "deployment").rename(self._deployments / self.name)
            sync_folder(self._deployments)
        except OSError as error:
            raise file_fault(error, "The backup") from error

    def discard(self) -> None:
        """Takes away what is there of it; what is in place stays."""
        try:
            self._upload.close()
        except OSError:
            pass  # what could not be written is removed
        shutil.rmtree(self._place, ignore_errors=True)


def remove_left(deployments: Path, owns: Callable[[str], bool]) -> None:
    """Removes what a crash left of restores. Blocks."""
    for entry in deployments.iterdir():
        if entry.name.startswith(".") and entry.name.endswith(ENDING) and owns(entry.name[1 : -len(ENDING)]):
            shutil.rmtree(entry, ignore_errors=True)
