"""What the headers of a request say: who calls, which client it is, what the request is called.

Every function takes bytes from a stranger and gives a checked value or raises a ClientError; nothing is decoded twice
for the clients that send the same header with each call. Keys are compared in constant time.

Source: protocol reference 1.2 (old clients), 2.3 (request ids), 2.4.
"""

import re
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

from skerry.admin.access import RIGHTS, Right, Scope
from skerry.errors import ClientError, DeveloperError
from skerry.identity import acting_user, check_shape
from skerry.limits import (
    CLIENT_HEADER_CACHE_ENTRIES_MAX,
    HTTP_BODY_NESTING_MAX,
    HTTP_REQUEST_ID_CHARS_MAX,
    IDENTITY_JSON_BYTES_MAX,
)
from skerry.value import parse_json

_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9_-]{1,%d}" % HTTP_REQUEST_ID_CHARS_MAX)
_REQUEST_ID_BYTES: Final = 8
_REQUEST_IDS_PER_DRAW: Final = 256
_AUTHORIZATION_CHARS_MIN: Final = 7
# A deployment's type in front of an admin key, which some tools write.
_KEY_TYPE: Final = re.compile(rb"[a-z]+:(?=[^:|]*\|)")
_CLIENT: Final = re.compile(r"([a-z][a-z0-9-]*?)-(\d+)\.(\d+)\.(\d+)(?:[-+][0-9A-Za-z.+-]*)?", re.IGNORECASE)
# Clients before these versions expect encoded JSON where they name no format.
_FIRST_WITH_CLEAN_JSON: Final[dict[str, tuple[int, int, int]]] = {
    "npm": (1, 4, 1),
    "npm-cli": (1, 4, 1),
    "python": (0, 5, 0),
}


class Caller:
    """Who sent a request.

    Shape: `is_admin` when the admin key was sent; `identity` the user that an admin acts as; `token` of a user, which
    is still to be verified.
    """

    __slots__ = ("identity", "is_admin", "token")

    def __init__(self, is_admin: bool, identity: dict[str, Any] | None = None, token: bytes | None = None) -> None:
        self.is_admin = is_admin
        self.identity = identity
        self.token = token


ANONYMOUS: Final = Caller(False)
_ADMIN: Final = Caller(True)


Judge = Callable[[bytes], Scope | None]
"""Says what scope a sent key has, None where it is no key of the deployment; in constant time."""


def authenticate(
    authorization: bytes | None, judge: Judge, *, right: Right = Right.CALL, bad_key_code: str = "BadAdminKey"
) -> Caller:
    """The caller that an `Authorization` header names, for something that takes `right`.

    A user's token is only looked at: who may be behind it, `skerry.identity` says. Raises: ClientError
    `InvalidHeaderFailure`, `InvalidAdminKey`, `HeaderParseFailure`, `InvalidAuthHeader`, `bad_key_code` for a key that
    is not the deployment's, `KeyNotAllowed` for one without the right.
    """
    if authorization is None:
        return ANONYMOUS
    if len(authorization) < _AUTHORIZATION_CHARS_MIN:
        raise ClientError("InvalidHeaderFailure", "The Authorization header is too short to hold credentials.")
    scheme = authorization[:7].lower()
    if scheme == b"convex ":
        return _authenticate_admin(authorization[7:].strip(), judge, right, bad_key_code)
    if scheme == b"bearer ":
        token = authorization[7:].strip()
        check_shape(token)
        return Caller(False, None, token)
    raise ClientError("InvalidAdminKey", "The Authorization header holds neither an admin key nor a bearer token.")


def require_admin(
    authorization: bytes | None, judge: Judge, *, right: Right = Right.CALL, bad_key_code: str, name: str
) -> Caller:
    """The caller, who must have sent a key with the right. Raises: as `authenticate`; `bad_key_code` without a key."""
    caller = authenticate(authorization, judge, right=right, bad_key_code=bad_key_code)
    if not caller.is_admin:
        raise ClientError(
            bad_key_code,
            f"This route of deployment '{name}' needs its admin key: send Authorization: Convex <admin key>.",
        )
    return caller


def host_credential(authorization: bytes | None) -> bytes:
    """What was sent as the host credential, empty where nothing was: behind `Bearer` or `Convex`."""
    if authorization is None or authorization[:7].lower() not in (b"convex ", b"bearer "):
        return b""
    return authorization[7:].strip()


def _authenticate_admin(sent: bytes, judge: Judge, right: Right, bad_key_code: str) -> Caller:
    scope = judge(sent)
    colon = attributes = b""
    if scope is None:
        prefix = _KEY_TYPE.match(sent)
        if prefix is not None:
            sent = sent[prefix.end() :]
        key, colon, attributes = sent.partition(b":")
        scope = judge(key)
    if scope is None:
        if bad_key_code == "BadDeployKey":
            raise ClientError(
                "BadDeployKey",
                "The provided deploy key was invalid for this deployment. Use the admin key that its server printed.",
            )
        raise ClientError(bad_key_code, "The provided admin key was invalid for this deployment.")
    rights = RIGHTS[scope]
    if right not in rights or (colon and Right.CALL not in rights):
        raise ClientError("KeyNotAllowed", f"The key has the scope {scope.value}, which does not allow this.")
    return Caller(True, _identity(attributes)) if colon else _ADMIN


def _identity(encoded: bytes) -> dict[str, Any]:
    try:
        raw = b64decode(encoded, validate=True)
        parsed: Any = parse_json(raw, depth_max=HTTP_BODY_NESTING_MAX, bytes_max=IDENTITY_JSON_BYTES_MAX)
    except (Base64Error, ValueError, DeveloperError):
        parsed = None
    if not isinstance(parsed, dict):
        raise ClientError("HeaderParseFailure", "What follows the admin key is not the base64 of an identity's JSON.")
    return acting_user(parsed)


@lru_cache(maxsize=CLIENT_HEADER_CACHE_ENTRIES_MAX)
def expects_encoded_json(client: bytes) -> bool:
    """Whether a `Convex-Client` header names a client so old that no format means encoded JSON.

    Raises: ClientError `InvalidVersion`.
    """
    match = _CLIENT.fullmatch(client.decode("latin-1"))
    if match is None or len(client) > HTTP_REQUEST_ID_CHARS_MAX:
        raise ClientError("InvalidVersion", "The Convex-Client header is not of the form <client>-<semantic version>.")
    first = _FIRST_WITH_CLEAN_JSON.get(match[1].lower())
    return first is not None and tuple(int(part) for part in match.group(2, 3, 4)) < first


class RequestIds:
    """Names of requests: the caller's own where it is well formed, else 16 hexadecimal digits of `entropy`."""

    __slots__ = ("_drawn", "_entropy")

    def __init__(self, entropy: Callable[[int], bytes]) -> None:
        self._entropy = entropy
        self._drawn: list[bytes] = []

    def name(self, sent: bytes | None) -> bytes:
        """The request's id, as bytes for the header that carries it back."""
        if sent is not None and _REQUEST_ID.fullmatch(sent):
            return sent
        drawn = self._drawn
        if not drawn:
            digits = self._entropy(_REQUEST_ID_BYTES * _REQUEST_IDS_PER_DRAW).hex().encode()
            step = 2 * _REQUEST_ID_BYTES
            drawn.extend(digits[at : at + step] for at in range(0, len(digits), step))
        return drawn.pop()
