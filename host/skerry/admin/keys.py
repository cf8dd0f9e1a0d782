"""The secrets of a data folder: the default deployment's admin key, the host credential, and the host key under which
compiled code is kept.

All are files that only their owner may read. The admin key is `<deployment>|<secret>`, the host credential
`host|<secret>`; one given from outside is used as it is and never written down. A new file appears whole or not at all.
"""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from skerry.errors import ClientError, SystemFault
from skerry.limits import ADMIN_KEY_CHARS_MAX, ADMIN_KEY_CHARS_WANTED

ADMIN_KEY_FILE: Final = "admin.key"
HOST_KEY_FILE: Final = "host.key"
HOST_CREDENTIAL_FILE: Final = "host.credential"
ADMIN_KEY_VARIABLE: Final = "SKERRY_ADMIN_KEY"
HOST_CREDENTIAL_VARIABLE: Final = "SKERRY_HOST_CREDENTIAL"
_SECRET_BYTES: Final = 32
# What may travel in a header; `:` would start the identity that an admin acts as.
_ADMIN_KEY: Final = re.compile(r"[!-9;-~]+")


@dataclass(frozen=True, slots=True)
class Keys:
    """The secrets of a serving process. Shape: `admin_key_is_new` when this start made the key."""

    admin_key: str
    host_key: bytes
    admin_key_is_new: bool
    host_credential: str


def open_keys(
    folder: Path,
    deployment: str,
    given_admin_key: str | None,
    entropy: Callable[[int], bytes],
    given_host_credential: str | None = None,
) -> Keys:
    """The keys of a data folder, made where there are none.

    Raises: ClientError `InvalidAdminKey` for a given key that cannot travel in a header; SystemFault `DataFolderFormat`
    for a key file that holds something else.
    """
    secret = _host_key(folder, entropy)
    credential = given_host_credential
    if credential is None:
        credential, _ = _kept(folder / HOST_CREDENTIAL_FILE, lambda: f"host|{entropy(_SECRET_BYTES).hex()}")
    credential = check_admin_key(credential)
    if given_admin_key is not None:
        return Keys(check_admin_key(given_admin_key), secret, False, credential)
    admin_key, is_new = _kept(folder / ADMIN_KEY_FILE, lambda: f"{deployment}|{entropy(_SECRET_BYTES).hex()}")
    return Keys(check_admin_key(admin_key), secret, is_new, credential)


def open_build_key(folder: Path, entropy: Callable[[int], bytes]) -> bytes:
    """The key of a folder of compiled code that belongs to a user's builds, not to a server.

    Raises: SystemFault `DataFolderFormat`.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return _host_key(folder, entropy)


def check_admin_key(key: str) -> str:
    """The key, if it can travel in a header. Raises: ClientError `InvalidAdminKey`. Limits: ADMIN_KEY_CHARS_MAX."""
    if len(key) > ADMIN_KEY_CHARS_MAX or not _ADMIN_KEY.fullmatch(key):
        raise ClientError(
            "InvalidAdminKey",
            f"An admin key is 1 to {ADMIN_KEY_CHARS_MAX} printable ASCII characters without spaces and colons.",
        )
    return key


def is_guessable(key: str) -> bool:
    """Whether an admin key or host credential is so short that it can be guessed. Limits: ADMIN_KEY_CHARS_WANTED."""
    return len(key) < ADMIN_KEY_CHARS_WANTED


def _host_key(folder: Path, entropy: Callable[[int], bytes]) -> bytes:
    digits, _ = _kept(folder / HOST_KEY_FILE, lambda: entropy(_SECRET_BYTES).hex())
    if not re.fullmatch(r"[0-9a-f]{64}", digits):
        raise SystemFault("DataFolderFormat", f"{folder / HOST_KEY_FILE} does not hold a host key.")
    return bytes.fromhex(digits)


def _kept(path: Path, make: Callable[[], str]) -> tuple[str, bool]:
    """The secret in the file, and whether it was made just now."""
    try:
        return path.read_text("utf-8", errors="replace").strip(), False
    except FileNotFoundError:
        pass
    secret = make()
    partial = path.with_name(f".{path.name}.{os.getpid()}.new")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secret + "\n")
        file.flush()
        os.fsync(file.fileno())
    partial.rename(path)
    return secret, True
