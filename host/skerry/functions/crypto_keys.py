"""Asymmetric keys of `crypto.subtle`: reading, checking and writing them.

The host keeps no keys. A guest holds the *material* of each of its keys as bytes and sends it with every operation:
PKCS #8 for private keys, SubjectPublicKeyInfo for public ones, the bytes themselves for secret ones. What arrives is
judged anew each time, since nothing shows that it is what an import once gave out. Reading an RSA private key means
checking that its numbers belong together (tens of milliseconds), so read keys are remembered by their bytes: a memo of
a pure function, which no result depends on.
"""

import base64
import binascii
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final, cast

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519

from skerry.errors import DeveloperError
from skerry.limits import (
    CRYPTO_KEY_BYTES_MAX,
    CRYPTO_KEYS_REMEMBERED,
    CRYPTO_RSA_EXPONENT_BITS_MAX,
    CRYPTO_RSA_MODULUS_BITS_MAX,
    CRYPTO_RSA_MODULUS_BITS_MIN,
)

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | x25519.X25519PrivateKey
PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | x25519.X25519PublicKey

CURVES: Final[dict[str, tuple[ec.EllipticCurve, int]]] = {
    "P-256": (ec.SECP256R1(), 32),
    "P-384": (ec.SECP384R1(), 48),
    "P-521": (ec.SECP521R1(), 66),
}
_CURVE_NAMES: Final = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}
RSA_ALGORITHMS: Final = frozenset({"RSASSA-PKCS1-v1_5", "RSA-PSS", "RSA-OAEP"})
EC_ALGORITHMS: Final = frozenset({"ECDSA", "ECDH"})


def data_error(message: str) -> DeveloperError:
    return DeveloperError("CryptoDataError", message)


def not_supported(message: str) -> DeveloperError:
    return DeveloperError("CryptoNotSupportedError", message)


def over_limit(message: str) -> DeveloperError:
    return DeveloperError("CryptoLimitExceeded", message)


def private_key(algorithm: str, material: bytes) -> PrivateKey:
    """The private key in PKCS #8 `material`, of the family that `algorithm` needs.

    Raises: DeveloperError CryptoDataError, CryptoLimitExceeded.
    """
    return cast(PrivateKey, _of_family(algorithm, _checked(material, _read_private), private=True))


def public_key(algorithm: str, material: bytes) -> PublicKey:
    """The public key in SubjectPublicKeyInfo `material`, of the family that `algorithm` needs.

    Raises: DeveloperError CryptoDataError, CryptoLimitExceeded.
    """
    return cast(PublicKey, _of_family(algorithm, _checked(material, _read_public), private=False))


def import_key(form: str, algorithm: str, curve: str | None, raw: bytes, jwk: Any) -> dict[str, object]:
    """An asymmetric key in the form the guest keeps.

    Shape: `type`, `key` (base64), and of RSA keys `modulusLength` and `publicExponent` (base64), of EC keys
    `namedCurve`.
    Raises: DeveloperError CryptoDataError, CryptoNotSupportedError, CryptoLimitExceeded.
    """
    if form == "pkcs8":
        key: PrivateKey | PublicKey = private_key(algorithm, raw)
    elif form == "spki":
        key = public_key(algorithm, raw)
    elif form == "raw":
        key = _import_raw(algorithm, curve, raw)
    elif form == "jwk":
        key = _import_jwk(algorithm, curve, jwk)
    else:
        raise not_supported(f"a key of {algorithm} cannot be imported as '{form}'")
    described = describe_key(key)
    if algorithm in EC_ALGORITHMS and described.get("namedCurve") != curve:
        raise data_error("the key is on another curve")
    return described


def describe_key(key: PrivateKey | PublicKey) -> dict[str, object]:
    is_private = isinstance(key, PrivateKey)
    described: dict[str, object] = {"type": "private" if is_private else "public", "key": b64(material_of(key))}
    if isinstance(key, rsa.RSAPrivateKey | rsa.RSAPublicKey):
        exponent = _public(key).public_numbers().e
        described["modulusLength"] = key.key_size
        described["publicExponent"] = b64(exponent.to_bytes((exponent.bit_length() + 7) // 8, "big"))
    elif isinstance(key, ec.EllipticCurvePrivateKey | ec.EllipticCurvePublicKey):
        described["namedCurve"] = _CURVE_NAMES[key.curve.name]
    return described


def export_jwk(key: PrivateKey | PublicKey) -> dict[str, str]:
    """The members of a JSON Web Key that depend on the key alone. Source: RFC 7518 section 6, RFC 8037."""
    if isinstance(key, rsa.RSAPrivateKey):
        numbers = key.private_numbers()
        private = {"d": numbers.d, "p": numbers.p, "q": numbers.q}
        private |= {"dp": numbers.dmp1, "dq": numbers.dmq1, "qi": numbers.iqmp}
        return export_jwk(key.public_key()) | {name: _b64url_integer(value) for name, value in private.items()}
    if isinstance(key, rsa.RSAPublicKey):
        public = key.public_numbers()
        return {"kty": "RSA", "n": _b64url_integer(public.n), "e": _b64url_integer(public.e)}
    if isinstance(key, ec.EllipticCurvePrivateKey):
        size = CURVES[_CURVE_NAMES[key.curve.name]][1]
        return export_jwk(key.public_key()) | {"d": b64url(key.private_numbers().private_value.to_bytes(size, "big"))}
    if isinstance(key, ec.EllipticCurvePublicKey):
        name = _CURVE_NAMES[key.curve.name]
        point, size = key.public_numbers(), CURVES[name][1]
        x, y = (b64url(number.to_bytes(size, "big")) for number in (point.x, point.y))
        return {"kty": "EC", "crv": name, "x": x, "y": y}
    if isinstance(key, ed25519.Ed25519PrivateKey | x25519.X25519PrivateKey):
        return export_jwk(key.public_key()) | {"d": b64url(key.private_bytes_raw())}
    curve = "Ed25519" if isinstance(key, ed25519.Ed25519PublicKey) else "X25519"
    return {"kty": "OKP", "crv": curve, "x": b64url(key.public_bytes_raw())}


def export_raw(key: PublicKey) -> bytes:
    if isinstance(key, rsa.RSAPublicKey):
        raise not_supported("an RSA key has no raw form")
    if isinstance(key, ec.EllipticCurvePublicKey):
        return key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    return key.public_bytes_raw()


def material_of(key: PrivateKey | PublicKey) -> bytes:
    if isinstance(key, PrivateKey):
        return key.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def check_rsa_size(bits: int) -> None:
    if not CRYPTO_RSA_MODULUS_BITS_MIN <= bits <= CRYPTO_RSA_MODULUS_BITS_MAX:
        least, most = CRYPTO_RSA_MODULUS_BITS_MIN, CRYPTO_RSA_MODULUS_BITS_MAX
        raise over_limit(f"RSA keys have {least} to {most} bits here, not {bits}")


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")


def b64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode("ascii").rstrip("=")


def b64url_decode(text: object, name: str) -> bytes:
    if not isinstance(text, str) or len(text) > CRYPTO_KEY_BYTES_MAX * 2 or "=" in text or "+" in text or "/" in text:
        raise data_error(f"the JWK member '{name}' is not base64url text")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise data_error(f"the JWK member '{name}' is not base64url text") from None


# -- helpers -----------------------------------------------------------------------------------------------------


def _b64url_integer(value: int) -> str:
    return b64url(value.to_bytes(max(1, (value.bit_length() + 7) // 8), "big"))


def _public(key: PrivateKey | PublicKey) -> Any:
    return key.public_key() if isinstance(key, PrivateKey) else key


def _checked(material: bytes, read: Callable[[bytes], object]) -> object:
    if len(material) > CRYPTO_KEY_BYTES_MAX:
        raise over_limit(f"a key has {len(material)} bytes, more than {CRYPTO_KEY_BYTES_MAX}")
    try:
        return read(material)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise data_error("the key is malformed, or of a kind that is not supported") from None


@lru_cache(maxsize=CRYPTO_KEYS_REMEMBERED)
def _read_private(material: bytes) -> object:
    # The cheap reading first: the size must be known before an attacker's choice of it is worked on.
    key = serialization.load_der_private_key(material, None, unsafe_skip_rsa_key_validation=True)
    if not isinstance(key, rsa.RSAPrivateKey):
        return key
    _check_rsa_numbers(key.public_key().public_numbers())
    return serialization.load_der_private_key(material, None)


@lru_cache(maxsize=CRYPTO_KEYS_REMEMBERED)
def _read_public(material: bytes) -> object:
    key = serialization.load_der_public_key(material)
    if isinstance(key, rsa.RSAPublicKey):
        _check_rsa_numbers(key.public_numbers())
    return key


def _check_rsa_numbers(numbers: rsa.RSAPublicNumbers) -> None:
    check_rsa_size(numbers.n.bit_length())
    if numbers.e.bit_length() > CRYPTO_RSA_EXPONENT_BITS_MAX:
        raise over_limit(f"an RSA public exponent has at most {CRYPTO_RSA_EXPONENT_BITS_MAX} bits here")


def _of_family(algorithm: str, key: object, *, private: bool) -> object:
    if algorithm in RSA_ALGORITHMS:
        family: type = rsa.RSAPrivateKey if private else rsa.RSAPublicKey
    elif algorithm in EC_ALGORITHMS:
        family = ec.EllipticCurvePrivateKey if private else ec.EllipticCurvePublicKey
    elif algorithm == "Ed25519":
        family = ed25519.Ed25519PrivateKey if private else ed25519.Ed25519PublicKey
    elif algorithm == "X25519":
        family = x25519.X25519PrivateKey if private else x25519.X25519PublicKey
    else:
        raise not_supported(f"'{algorithm}' is not a supported algorithm")
    if not isinstance(key, family):
        raise data_error(f"the key is not one of {algorithm}")
    if isinstance(key, ec.EllipticCurvePrivateKey | ec.EllipticCurvePublicKey) and key.curve.name not in _CURVE_NAMES:
        raise data_error(f"the curve {key.curve.name} is not supported")
    return key


def _import_raw(algorithm: str, curve: str | None, raw: bytes) -> PublicKey:
    try:
        if algorithm in EC_ALGORITHMS:
            return ec.EllipticCurvePublicKey.from_encoded_point(named_curve(curve)[0], raw)
        if algorithm == "Ed25519":
            return ed25519.Ed25519PublicKey.from_public_bytes(raw)
        if algorithm == "X25519":
            return x25519.X25519PublicKey.from_public_bytes(raw)
    except ValueError:
        raise data_error("the raw public key is malformed") from None
    raise not_supported(f"a key of {algorithm} cannot be imported as 'raw'")


def named_curve(curve: str | None) -> tuple[ec.EllipticCurve, int]:
    """The curve and the length of its numbers in bytes."""
    if curve not in CURVES:
        raise not_supported(f"'{curve}' is not a supported curve")
    return CURVES[curve]


def _import_jwk(algorithm: str, curve: str | None, jwk: Any) -> PrivateKey | PublicKey:
    if not isinstance(jwk, dict):
        raise data_error("the JWK is not an object")
    members = cast(dict[str, object], jwk)
    try:
        if algorithm in RSA_ALGORITHMS:
            return _import_rsa_jwk(members)
        if algorithm in EC_ALGORITHMS:
            return _import_ec_jwk(members, curve)
        return _import_okp_jwk(members, algorithm)
    except (ValueError, TypeError):
        raise data_error("the members of the JWK do not make a key") from None


def _expect(members: dict[str, object], name: str, value: str) -> None:
    if members.get(name) != value:
        raise data_error(f"the JWK member '{name}' is not '{value}'")


def _integer(members: dict[str, object], name: str) -> int:
    raw = b64url_decode(members.get(name), name)
    if len(raw) > CRYPTO_RSA_MODULUS_BITS_MAX // 8 + 1:
        raise over_limit(f"the JWK member '{name}' is too long")
    return int.from_bytes(raw, "big")


def _import_rsa_jwk(members: dict[str, object]) -> PrivateKey | PublicKey:
    _expect(members, "kty", "RSA")
    public = rsa.RSAPublicNumbers(e=_integer(members, "e"), n=_integer(members, "n"))
    _check_rsa_numbers(public)
    if "d" not in members:
        return public.public_key()
    if "oth" in members:
        raise not_supported("RSA keys of more than two primes are not supported")
    d, p, q, dp, dq, qi = (_integer(members, name) for name in ("d", "p", "q", "dp", "dq", "qi"))
    return rsa.RSAPrivateNumbers(p, q, d, dp, dq, qi, public).private_key()


def _import_ec_jwk(members: dict[str, object], curve: str | None) -> PrivateKey | PublicKey:
    _expect(members, "kty", "EC")
    kind, size = named_curve(curve)
    _expect(members, "crv", str(curve))
    x, y = (b64url_decode(members.get(name), name) for name in ("x", "y"))
    if len(x) != size or len(y) != size:
        raise data_error("the coordinates of the JWK have the wrong length")
    public = ec.EllipticCurvePublicNumbers(int.from_bytes(x, "big"), int.from_bytes(y, "big"), kind)
    if "d" not in members:
        return public.public_key()
    d = b64url_decode(members["d"], "d")
    if len(d) != size:
        raise data_error("the private number of the JWK has the wrong length")
    return ec.EllipticCurvePrivateNumbers(int.from_bytes(d, "big"), public).private_key()


def _import_okp_jwk(members: dict[str, object], algorithm: str) -> PrivateKey | PublicKey:
    if algorithm not in ("Ed25519", "X25519"):
        raise not_supported(f"'{algorithm}' is not a supported algorithm")
    _expect(members, "kty", "OKP")
    _expect(members, "crv", algorithm)
    x = b64url_decode(members.get("x"), "x")
    ed = algorithm == "Ed25519"
    public = ed25519.Ed25519PublicKey.from_public_bytes(x) if ed else x25519.X25519PublicKey.from_public_bytes(x)
    if "d" not in members:
        return public
    d = b64url_decode(members["d"], "d")
    private = ed25519.Ed25519PrivateKey.from_private_bytes(d) if ed else x25519.X25519PrivateKey.from_private_bytes(d)
    if private.public_key().public_bytes_raw() != x:
        raise data_error("the members 'x' and 'd' of the JWK do not belong together")
    return private
