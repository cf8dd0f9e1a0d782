"""What the checks of a version came to, so that opening its deployment need not make them again.

    <deployment>/checked/<digest>        the digest of the module, the size of the map, what the module said of itself
    <deployment>/checked/<digest>.map    the source map, read at the first error

Written once a bundle has passed everything that an upload passes, under a MAC with a key of the host over what the
content depends on: the bundle's digest, the ABI, the version of the checks. The digest that is asked for comes out of
the storage, so a file can be believed or ignored, and nothing that was uploaded makes one believed. Where one is
missing, does not verify, or the module is not among the compiled ones, the bundle goes the whole way again; so it does
when somebody goes back to it.

Deliberately absent: syncing. What a crash tore does not verify.

Concurrency: any thread; one at a time writes.
"""

import contextlib
import hmac
import os
from pathlib import Path
from typing import Final, NamedTuple

from skerry import __version__, limits
from skerry.functions.function_table import ABI_VERSION

assert limits.SOURCE_MAP_BYTES_MAX < 16**8, "eight digits hold its size"

CHECKS_VERSION: Final = 3
"""To be raised with any change that lets a check refuse, or a description say, something else than before."""

_MAGIC: Final = b"skerry checked version 1\n"
_MAC_BYTES: Final = 32
_HEAD_BYTES: Final = len(_MAGIC) + _MAC_BYTES
_DIGEST_CHARS: Final = 64
_SIZE_CHARS: Final = 8
_FIXED_BYTES: Final = _DIGEST_CHARS + _SIZE_CHARS
_MAP: Final = ".map"


class Checked(NamedTuple):
    """What the checks of a bundle came to. Units: bytes of the source map."""

    module_digest: str
    map_bytes: int
    description: bytes


class CheckedVersions:
    """The files of one deployment, in `folder`, which is made with the first of them."""

    def __init__(self, folder: Path, host_key: bytes) -> None:
        self._folder = folder
        self._key = hmac.digest(host_key, b"checked versions", "sha256")

    def find(self, digest: str) -> Checked | None:
        """What was kept of a bundle's checks, None where there is nothing that verifies."""
        body = self._read(digest, "", _FIXED_BYTES + limits.DESCRIPTION_BYTES_MAX)
        if body is None:
            return None
        map_bytes = int(body[_DIGEST_CHARS:_FIXED_BYTES], 16)
        return Checked(body[:_DIGEST_CHARS].decode(), map_bytes, body[_FIXED_BYTES:])

    def source_map(self, digest: str) -> bytes | None:
        """The source map, None where there is nothing that verifies."""
        return self._read(digest, _MAP, limits.SOURCE_MAP_BYTES_MAX)

    def keep(self, digest: str, module_digest: str, description: bytes, source_map: bytes) -> None:
        """Writes what the checks of a bundle came to. Where that cannot be written, opening takes longer."""
        assert len(module_digest) == _DIGEST_CHARS
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            self._write(digest, _MAP, source_map)
            self._write(digest, "", b"%s%08x" % (module_digest.encode(), len(source_map)) + description)
        except OSError:
            self.forget(digest)

    def forget(self, digest: str) -> None:
        """Takes a version's files away."""
        with contextlib.suppress(OSError):
            for ending in ("", _MAP):
                (self._folder / (digest + ending)).unlink(missing_ok=True)

    def tidy(self, kept: set[str]) -> None:
        """Takes the files away that belong to none of the kept versions."""
        if self._folder.is_dir():
            for path in self._folder.iterdir():
                if path.name.removesuffix(_MAP) not in kept:
                    path.unlink(missing_ok=True)

    def _mac(self, digest: str, ending: str, body: bytes) -> bytes:
        context = f"{digest}{ending}\0{ABI_VERSION}\0{CHECKS_VERSION}\0{__version__}\0".encode()
        return hmac.digest(self._key, context + body, "sha256")

    def _read(self, digest: str, ending: str, bytes_max: int) -> bytes | None:
        try:
            with (self._folder / (digest + ending)).open("rb") as file:
                raw = file.read(_HEAD_BYTES + bytes_max + 1)
        except OSError:
            return None
        body = raw[_HEAD_BYTES:]
        if len(body) > bytes_max or not hmac.compare_digest(
            raw[:_HEAD_BYTES], _MAGIC + self._mac(digest, ending, body)
        ):
            return None
        return body

    def _write(self, digest: str, ending: str, body: bytes) -> None:
        path = self._folder / (digest + ending)
        partial = self._folder / f"{digest}{ending}.new"
        with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(_MAGIC + self._mac(digest, ending, body) + body)
        partial.replace(path)
