"""The files of a deployment's imports and exports: parts that arrive, what is joined of them, and how much they take.

All of them together take at most as many bytes as the deployment's storage quota, beside its data. Where one finds no
room, what nobody has touched for TRANSFER_IDLE_SECONDS is given up for it, the longest idle first: an upload, an import
that nobody confirmed, the last export. What is being imported or exported is not.

Concurrency: one thread at a time; only `Upload.joined` and `Upload.discard` may run on another.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from skerry import limits
from skerry.errors import ClientError
from skerry.storage.full_disk import file_fault


class Held:
    """What some files take. Shape: `give_up` makes room of them; None while they are in use."""

    __slots__ = ("bytes", "give_up", "used_at")

    def __init__(self, give_up: Callable[[], None] | None, now: float) -> None:
        self.give_up = give_up
        self.bytes = 0
        self.used_at = now


class TransferFiles:
    """All of one deployment. Shape: `bytes_max` is None for as much as the disk takes; `seconds` of any clock."""

    def __init__(self, seconds: Callable[[], float], bytes_max: int | None = None) -> None:
        self.bytes_max = bytes_max
        self._seconds = seconds
        self._held: list[Held] = []

    @property
    def bytes(self) -> int:
        """What all of them take."""
        return sum([held.bytes for held in self._held])

    def hold(self, give_up: Callable[[], None] | None) -> Held:
        """Begins to count some files."""
        held = Held(give_up, self._seconds())
        self._held.append(held)
        return held

    def touch(self, held: Held) -> None:
        """Somebody uses these files."""
        held.used_at = self._seconds()

    def grow(self, held: Held, n_bytes: int) -> None:
        """Counts what is about to be written, or, below 0, what is gone. Raises: ClientError `TransferQuotaReached`."""
        self.touch(held)
        if n_bytes > 0 and self.bytes_max is not None:
            self._make_room(held, n_bytes, self.bytes_max)
        held.bytes += n_bytes

    def release(self, held: Held) -> None:
        """The files are gone, or will be in a moment; a second time is no error."""
        if held in self._held:
            self._held.remove(held)

    def _make_room(self, wanting: Held, n_bytes: int, bytes_max: int) -> None:
        while self.bytes + n_bytes > bytes_max:
            idle_since = self._seconds() - limits.TRANSFER_IDLE_SECONDS
            idle = [held for held in self._held if held is not wanting and held.give_up and held.used_at <= idle_since]
            if not idle:
                raise ClientError(
                    "TransferQuotaReached",
                    f"Files of imports and exports take at most {bytes_max} bytes here, the storage quota, and "
                    f"{self.bytes} are in use. Cancel imports that wait, wait for those under way, or send less.",
                )
            longest = min(idle, key=lambda held: held.used_at)
            self.release(longest)
            assert longest.give_up is not None
            longest.give_up()


class Upload:
    """A file that arrives in parts. Shape: `parts` has the bytes of those that are here, by number."""

    def __init__(self, token: str, folder: Path, files: TransferFiles, held: Held, part_bytes_max: int) -> None:
        self.token = token
        self.folder = folder
        self.files = files
        self.held = held
        self.part_bytes_max = part_bytes_max
        self.parts: dict[int, int] = {}

    def bytes_besides(self, number: int) -> int:
        return sum(self.parts.values()) - self.parts.get(number, 0)

    def joined(self, tokens: list[str]) -> Path:
        """The parts in the order of their tokens as one file. Blocks. Raises: ClientError, SystemFault."""
        numbers: list[int] = []
        for token in tokens:
            name, _, number = token.rpartition("-")
            if name != self.token or not number.isdecimal() or int(number) not in self.parts or int(number) in numbers:
                raise ClientError("ImportNotFound", "A part token is not one that this upload gave out, or is twice.")
            numbers.append(int(number))
        if not numbers:
            raise ClientError("ImportNotFound", "The upload has no parts: send at least one.")
        first, *others = [self.folder / f"{self.token}-{number}" for number in numbers]
        try:
            with first.open("ab") as whole:
                for path in others:
                    with path.open("rb") as piece:
                        shutil.copyfileobj(piece, whole, limits.MIB)
                    path.unlink()
        except OSError as error:
            raise file_fault(error, "The file") from error
        return first

    def discard(self) -> None:
        """Takes the files away. Blocks."""
        for number in self.parts:
            (self.folder / f"{self.token}-{number}").unlink(missing_ok=True)


class Part:
    """One part of an upload, arriving. To be finished or discarded."""

    def __init__(self, upload: Upload, number: int) -> None:
        self.path = upload.folder / f"{upload.token}-{number}"
        self._upload = upload
        self._number = number
        self._bytes = 0
        try:
            self._descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise file_fault(error, "The file") from error
        upload.files.grow(upload.held, -upload.parts.pop(number, 0))

    def write(self, piece: bytes) -> None:
        """Adds a piece. Raises: ClientError `ImportTooLarge`, `TransferQuotaReached`; SystemFault `StorageFull`."""
        upload = self._upload
        n_bytes = self._bytes + len(piece)
        if n_bytes > upload.part_bytes_max:
            raise ClientError("ImportTooLarge", f"A part has at most {upload.part_bytes_max} bytes.")
        if n_bytes + upload.bytes_besides(self._number) > limits.IMPORT_UPLOAD_BYTES_MAX:
            raise ClientError("ImportTooLarge", f"A file has at most {limits.IMPORT_UPLOAD_BYTES_MAX} bytes here.")
        upload.files.grow(upload.held, len(piece))
        self._bytes = n_bytes
        try:
            rest = memoryview(piece)
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError as error:
            raise file_fault(error, "The file") from error

    def finish(self) -> str:
        """The part's token."""
        self._close()
        self._upload.parts[self._number] = self._bytes
        return f"{self._upload.token}-{self._number}"

    def discard(self) -> None:
        self._close()
        self.path.unlink(missing_ok=True)
        self._upload.files.grow(self._upload.held, -self._bytes)
        self._bytes = 0

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
