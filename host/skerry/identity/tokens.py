"""A token taken apart: three parts in base64url, of which the first two are JSON objects.

Nothing in it is believed yet; all of it is bounded before it is parsed. Stricter than the JSON of arguments: an object
with a name twice is refused, because two readers could mean different ones, and so are numbers that are none.
"""

import binascii
import json
import re
from base64 import urlsafe_b64decode
from typing import Any, Final, NamedTuple, NoReturn, cast

from skerry.errors import ClientError
from skerry.limits import AUTH_CLAIMS_NESTING_MAX, AUTH_TOKEN_BYTES_MAX
from skerry.value import depth_is_within

_TOKEN: Final = re.compile(rb"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")


class Token(NamedTuple):
    """What a token says of itself. Shape: `kid` the name of the key it was signed with, None where it names none."""

    algorithm: str
    kid: str | None
    claims: dict[str, Any]
    signed: bytes
    signature: bytes


def check_shape(token: bytes) -> re.Match[bytes]:
    """The three parts of a token. Raises: ClientError `InvalidAuthHeader`. Limits: AUTH_TOKEN_BYTES_MAX."""
    if len(token) > AUTH_TOKEN_BYTES_MAX:
        raise invalid_token(f"Could not parse JWT: a token has at most {AUTH_TOKEN_BYTES_MAX} bytes.")
    parts = _TOKEN.fullmatch(token)
    if parts is None:
        raise invalid_token("Could not parse JWT payload: a token has three base64-encoded parts, with dots between.")
    return parts


def read_token(raw: bytes) -> Token:
    """A token taken apart. Raises: ClientError `InvalidAuthHeader`. Limits: AUTH_CLAIMS_NESTING_MAX."""
    head, payload, signature = check_shape(raw).groups()
    header = _object(head, "header")
    algorithm, kid = header.get("alg"), header.get("kid")
    if type(algorithm) is not str:
        raise invalid_token("Could not parse JWT header: it must name an 'alg'.")
    if kid is not None and type(kid) is not str:
        raise invalid_token("Could not parse JWT header: its 'kid' must be a string.")
    if "crit" in header:
        raise invalid_token("Could not parse JWT header: it has critical extensions ('crit'), and none is known.")
    signed = raw[: len(head) + 1 + len(payload)]
    return Token(algorithm, kid, _object(payload, "payload"), signed, _bytes(signature, "signature"))


def invalid_token(message: str) -> ClientError:
    """The error of a token that cannot be read, or of a custom one that is not valid."""
    return ClientError("InvalidAuthHeader", message)


def _bytes(part: bytes, what: str) -> bytes:
    try:
        return urlsafe_b64decode(part + b"=" * (-len(part) % 4))
    except binascii.Error:
        raise invalid_token(f"Could not parse JWT {what}: it is not base64url.") from None


def _object(part: bytes, what: str) -> dict[str, Any]:
    raw = _bytes(part, what)
    if not depth_is_within(raw, AUTH_CLAIMS_NESTING_MAX):
        raise invalid_token(f"Could not parse JWT {what}: it is nested more than {AUTH_CLAIMS_NESTING_MAX} deep.")
    try:
        parsed = _DECODER.decode(raw.decode())
    except (ValueError, RecursionError):
        raise invalid_token(f"Could not parse JWT {what}: it is not JSON in UTF-8 with each name once.") from None
    if type(parsed) is not dict:
        raise invalid_token(f"Could not parse JWT {what}: it is not an object.")
    return cast("dict[str, Any]", parsed)


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a name is there twice")
    return fields


def _no_number(_text: str) -> NoReturn:
    raise ValueError("not a number of JSON")


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_each_once, parse_constant=_no_number)
