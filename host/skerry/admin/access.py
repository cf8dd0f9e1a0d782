"""Keys of deployments: what one may do, how it is written, and how a sent one is judged.

A key reads `NAME|<id>.<secret>`. The host keeps the SHA-256 of the secret (32 random bytes: nothing to guess, so
nothing to slow down), never the secret; it is shown once, when it is made. `RIGHTS` is the one table of what a scope
allows; each route names the right that it needs.

Deliberately absent: where keys are stored (skerry.admin.registry), and users: a key is an operator's or a tool's.
"""

import hmac
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from typing import Final

from skerry import limits
from skerry.errors import ClientError

_ID_BYTES: Final = 6
_SECRET_BYTES: Final = 32
_SENT: Final = re.compile(rb"([a-z0-9-]{1,64})\|([0-9a-f]{12})\.([0-9a-f]{64})")
_NOBODYS_HASH: Final = sha256(b"no key has this secret").digest()
_LABEL: Final = re.compile(r"[^\x00-\x1f\x7f]*")


class Scope(StrEnum):
    """What a key is for."""

    READ = "read"
    DEPLOY = "deploy"
    ADMIN = "admin"


class Right(StrEnum):
    """What a route of a deployment may ask of a key."""

    SEE = "see"
    """Check the key; list functions and kept versions."""
    DEPLOY = "deploy"
    """Upload a version; roll back to one."""
    CALL = "call"
    """Call any function, internal ones too, and act as any user."""
    DATA = "data"
    """Import and export documents."""
    STORAGE = "storage"
    """Measure, verify, compact and back up the storage; change its settings."""
    KEYS = "keys"
    """Make, list and revoke keys of the deployment."""


RIGHTS: Final[dict[Scope, frozenset[Right]]] = {
    Scope.READ: frozenset({Right.SEE}),
    Scope.DEPLOY: frozenset({Right.SEE, Right.DEPLOY}),
    Scope.ADMIN: frozenset(Right),
}


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """What the host keeps of a key.

    Shape: `secret_hash` SHA-256; `expires_ms` None for a key that does not expire. Units: ms since the Unix epoch.
    """

    name: str
    id: str
    scope: Scope
    label: str
    created_ms: int
    expires_ms: int | None
    secret_hash: bytes

    def listed(self) -> dict[str, object]:
        """What a list of keys shows: nothing that helps to guess one."""
        return {
            "id": self.id,
            "scope": self.scope.value,
            "label": self.label,
            "createdMs": self.created_ms,
            "expiresMs": self.expires_ms,
        }


def new_key(
    name: str,
    scope: object,
    label: object,
    expires_ms: object,
    now_ms: int,
    entropy: Callable[[int], bytes],
    ends_by_ms: int | None = None,
) -> tuple[KeyRecord, str]:
    """A key as it is kept, and as it is given out once.

    Shape: `ends_by_ms` is when the key expires that asks for this one: a new key expires no later.
    Raises: ClientError `InvalidKeyRequest`. Limits: KEY_LABEL_CHARS_MAX, KEY_EXPIRY_MS_MAX.
    """
    if not isinstance(scope, str) or scope not in {item.value for item in Scope}:
        raise ClientError("InvalidKeyRequest", "A key's scope is deploy, read or admin.")
    if not isinstance(label, str) or len(label) > limits.KEY_LABEL_CHARS_MAX or not _LABEL.fullmatch(label):
        raise ClientError(
            "InvalidKeyRequest", f"A key's label is at most {limits.KEY_LABEL_CHARS_MAX} characters of one line."
        )
    if expires_ms is not None and (type(expires_ms) is not int or not now_ms < expires_ms <= limits.KEY_EXPIRY_MS_MAX):
        raise ClientError("InvalidKeyRequest", "A key expires at a moment in the future, in milliseconds since 1970.")
    if ends_by_ms is not None:
        if expires_ms is None:
            expires_ms = ends_by_ms
        elif expires_ms > ends_by_ms:
            raise ClientError(
                "InvalidKeyRequest", f"A key expires no later than the key that makes it, which ends at {ends_by_ms}."
            )
    key_id = entropy(_ID_BYTES).hex()
    secret = entropy(_SECRET_BYTES).hex()
    record = KeyRecord(name, key_id, Scope(scope), label, now_ms, expires_ms, sha256(secret.encode()).digest())
    return record, f"{name}|{key_id}.{secret}"


def find_key(sent: bytes, name: str, find: Callable[[str], KeyRecord | None], now_ms: int) -> KeyRecord | None:
    """What the host keeps of a sent key of deployment `name`, None where it is not valid there and now.

    The secret is compared in constant time; whether an id exists is no secret, and takes the same work all the same.
    """
    match = _SENT.fullmatch(sent)
    if match is None or match[1] != name.encode():
        return None
    record = find(match[2].decode())
    expected = _NOBODYS_HASH if record is None else record.secret_hash
    is_right = hmac.compare_digest(sha256(match[3]).digest(), expected)
    if record is None or not is_right or (record.expires_ms is not None and record.expires_ms <= now_ms):
        return None
    return record
