"""A provider's keys: a JWKS read with care, and signatures verified with it.

A key is used for the one algorithm that its kind is for, whatever a token's header says, so that no public key is ever
taken for a shared secret. Keys that are not understood (other kinds, other uses, too small, too large) are left out, as
the standard asks for; a set with no usable key, or too many, is refused.

Mathematics, key formats and the form of signatures are PyJWT's and cryptography's.
"""

from collections.abc import Iterable
from typing import Any, Final, cast

from jwt import PyJWK
from jwt.exceptions import PyJWTError

from skerry.errors import DeveloperError
from skerry.limits import AUTH_KEYS_BYTES_MAX, AUTH_KEYS_MAX, AUTH_RSA_BITS_MAX, AUTH_RSA_BITS_MIN
from skerry.value import parse_json

_NESTING_MAX: Final = 8
_KID_CHARS_MAX: Final = 1024
# Kind of key and curve, the algorithm that it is for, the members that make the public key.
_KINDS: Final[dict[tuple[str, str | None], tuple[str, tuple[str, ...]]]] = {
    ("RSA", None): ("RS256", ("n", "e")),
    ("EC", "P-256"): ("ES256", ("crv", "x", "y")),
    ("OKP", "Ed25519"): ("EdDSA", ("crv", "x")),
}
# Base64 of the largest modulus has fewer characters; so has every other member.
_MEMBER_CHARS_MAX: Final = AUTH_RSA_BITS_MAX // 6 + 8
_EXPONENT_CHARS_MAX: Final = 6


class KeysUnusable(Exception):
    """Raised for what is no usable JWKS; its text says why."""


class KeySet:
    """The usable keys of a provider."""

    __slots__ = ("_by_name", "_keys", "raw")

    def __init__(self, raw: bytes) -> None:
        """Raises: KeysUnusable. Limits: AUTH_KEYS_BYTES_MAX, AUTH_KEYS_MAX."""
        try:
            parsed = parse_json(raw, depth_max=_NESTING_MAX, bytes_max=AUTH_KEYS_BYTES_MAX)
        except DeveloperError as error:
            raise KeysUnusable(f"not valid JSON ({error.message})") from None
        listed = cast("dict[str, Any]", parsed).get("keys") if isinstance(parsed, dict) else None
        if not isinstance(listed, list):
            raise KeysUnusable("it is not an object with a list of keys")
        entries = cast("list[Any]", listed)
        if len(entries) > AUTH_KEYS_MAX:
            raise KeysUnusable(f"it has more than {AUTH_KEYS_MAX} keys")
        self.raw = raw
        self._by_name: dict[tuple[str, str], list[PyJWK]] = {}
        self._keys: dict[str, list[PyJWK]] = {}
        for name, algorithm, key in _usable(entries):
            self._keys.setdefault(algorithm, []).append(key)
            if name is not None:
                self._by_name.setdefault((name, algorithm), []).append(key)
        if not self._keys:
            raise KeysUnusable("it has no key for RS256, ES256 or EdDSA")

    def find(self, kid: str | None, algorithm: str) -> PyJWK | None:
        """The key that a token names; without a name, the only one that is for the algorithm."""
        found = self._keys.get(algorithm, []) if kid is None else self._by_name.get((kid, algorithm), [])
        return found[0] if len(found) == 1 else None


def is_signed(key: PyJWK, signed: bytes, signature: bytes) -> bool:
    """Whether the owner of the key signed these bytes."""
    try:
        return bool(key.Algorithm.verify(signed, key.key, signature))
    except (PyJWTError, ValueError, TypeError):
        return False


def _usable(entries: Iterable[Any]) -> Iterable[tuple[str | None, str, PyJWK]]:
    for entry in entries:
        if not isinstance(entry, dict):
            continue
        fields = cast("dict[str, Any]", entry)
        kid = fields.get("kid")
        if kid is not None and (type(kid) is not str or len(kid) > _KID_CHARS_MAX):
            continue
        found = _key(fields)
        if found is not None:
            yield (kid, *found)


def _key(fields: dict[str, Any]) -> tuple[str, PyJWK] | None:
    """The algorithm that a key is for, and the key; None for one that is not used."""
    kind, curve = fields.get("kty"), fields.get("crv")
    if type(kind) is not str or not (curve is None or type(curve) is str):
        return None
    known = _KINDS.get((kind, curve))
    if known is None:
        return None
    algorithm, members = known
    operations = fields.get("key_ops")
    if (
        fields.get("alg", algorithm) != algorithm
        or fields.get("use", "sig") != "sig"
        or (operations is not None and (not isinstance(operations, list) or "verify" not in operations))
    ):
        return None
    public: dict[str, Any] = {"kty": kind}
    for member in members:  # and no private one, which would have to be kept secret
        text = fields.get(member)
        chars_max = _EXPONENT_CHARS_MAX if member == "e" else _MEMBER_CHARS_MAX
        if type(text) is not str or len(text) > chars_max:
            return None
        public[member] = text
    try:
        key = PyJWK(public, algorithm)
    except (PyJWTError, ValueError, TypeError):
        return None
    bits = getattr(key.key, "key_size", AUTH_RSA_BITS_MIN) if kind == "RSA" else AUTH_RSA_BITS_MIN
    return (algorithm, key) if AUTH_RSA_BITS_MIN <= bits <= AUTH_RSA_BITS_MAX else None
