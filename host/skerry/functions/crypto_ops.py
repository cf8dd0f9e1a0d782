"""The host side of `crypto.subtle`: the hostcalls `crypto/*`, on the `cryptography` package.

Each operation is a function of its argument and its raw bytes and keeps nothing (see crypto_keys for what a key is). In
queries and mutations (`deterministic`) only what has one answer is served: ECDSA signs by RFC 6979 everywhere, RSA-PSS
only without salt, and whatever draws randomness (key generation, RSA-OAEP encryption, salted RSA-PSS) is refused.

Work is bounded before it begins, and `crypto_cost_us` says beforehand what it will cost, for the caller to charge.
Deliberately absent: MD5, DES, RC4 and the like, which the standard does not have either; Ed448 and X448.
"""

import base64
import binascii
import hmac
from collections.abc import Callable
from typing import Any, Final, cast

from cryptography.exceptions import InvalidSignature, InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, keywrap
from cryptography.hazmat.primitives import padding as block_padding
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils, x25519
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC

from skerry.errors import DeveloperError
from skerry.functions import crypto_keys as keys
from skerry.functions.crypto_keys import data_error, not_supported, over_limit
from skerry.limits import (
    CRYPTO_DATA_BYTES_MAX,
    CRYPTO_DERIVED_BYTES_MAX,
    CRYPTO_KEY_BYTES_MAX,
    CRYPTO_PBKDF2_ROUNDS_MAX,
    CRYPTO_RSA_MODULUS_BITS_MAX,
)

Argument = dict[str, Any]
Entropy = Callable[[int], bytes]

_HASHES: Final[dict[str, hashes.HashAlgorithm]] = {
    "SHA-1": hashes.SHA1(),  # the standard has it; HMAC and old protocols need it
    "SHA-256": hashes.SHA256(),
    "SHA-384": hashes.SHA384(),
    "SHA-512": hashes.SHA512(),
}
_DIGEST_NAMES: Final = {"SHA-1": "sha1", "SHA-256": "sha256", "SHA-384": "sha384", "SHA-512": "sha512"}
_HMAC_KEY_BYTES_DEFAULT: Final = {"SHA-1": 64, "SHA-256": 64, "SHA-384": 128, "SHA-512": 128}
_AES_KEY_BYTES: Final = (16, 24, 32)
_AES_BLOCK_BYTES: Final = 16
_GCM_TAG_BITS: Final = (32, 64, 96, 104, 112, 120, 128)
_GCM_IV_BYTES_MIN: Final = 8
_GCM_IV_BYTES_MAX: Final = 128

RANDOMNESS_REFUSED: Final = (
    "Can't use cryptographic randomness in queries and mutations. "
    "Please consider using an action. See https://docs.convex.dev/functions/actions for more details."
)


def run_crypto(op: str, arg: Argument, raw: bytes | None, *, deterministic: bool, entropy: Entropy) -> bytes | object:
    """Runs one `crypto/*` operation.

    Shape: bytes where CRYPTO.md lists raw bytes as the result, otherwise a JSON-encodable object.
    Raises: DeveloperError with the codes Crypto...; nothing else, whatever the guest sent.
    Limits: CRYPTO_*.
    """
    run = _OPERATIONS.get(op)
    if run is None:
        raise not_supported(f"Unknown operation {op}")
    data = b"" if raw is None else raw
    if len(data) > CRYPTO_DATA_BYTES_MAX:
        raise over_limit(f"the data has {len(data)} bytes, more than {CRYPTO_DATA_BYTES_MAX}")
    try:
        return run(arg, data, deterministic, entropy)
    except (InvalidTag, keywrap.InvalidUnwrap):
        raise _failed("the data is not what this key made") from None
    except (ValueError, TypeError, OverflowError, UnsupportedAlgorithm):
        # The library judges what is left to judge (lengths, padding, points); its words name its own internals.
        raise _failed("the operation failed for these inputs") from None


def crypto_cost_us(op: str, arg: Argument, raw_length: int) -> int:
    """What an operation will cost, in microseconds of one core of a slow machine; an upper estimate, known beforehand.

    Measured on a 2-core virtual machine, then doubled. Malformed arguments cost the least there is: they fail before
    any work.
    """
    cost = 20 + raw_length // 100
    raw_algorithm = arg.get("algorithm")
    algorithm: Argument = cast(Argument, raw_algorithm) if isinstance(raw_algorithm, dict) else {}
    raw_name = algorithm.get("name")
    name = raw_name if isinstance(raw_name, str) else ""
    if op == "crypto/derive_bits" and name == "PBKDF2":
        return cost + _pbkdf2_rounds(algorithm, arg.get("length"))
    if op == "crypto/generate_key":
        return cost + (_rsa_generation_cost_us(algorithm) if name in keys.RSA_ALGORITHMS else 500)
    if name in keys.RSA_ALGORITHMS:
        # Reading a private key checks its primes; its length tells its size well enough (1.2 KB: 2048 bits).
        material = arg.get("key")
        length = len(material) * 3 // 4 if isinstance(material, str) else max(raw_length, CRYPTO_KEY_BYTES_MAX // 8)
        if op in ("crypto/verify", "crypto/encrypt"):
            return cost + 200
        return cost + min(600_000, 1_000 + int(80_000 * (length / 1200) ** 3))
    if name in ("ECDSA", "ECDH", "Ed25519", "X25519"):
        return cost + 1_000
    return cost


# -- digests and signatures --------------------------------------------------------------------------------------


def _digest(arg: Argument, data: bytes, _deterministic: bool, _entropy: Entropy) -> bytes:
    digest = hashes.Hash(_hash(arg))
    digest.update(data)
    return digest.finalize()


def _sign(arg: Argument, data: bytes, deterministic: bool, _entropy: Entropy) -> bytes:
    algorithm, name = _algorithm(arg)
    material = _bytes(arg, "key", CRYPTO_KEY_BYTES_MAX)
    if name == "HMAC":
        return hmac.digest(material, data, _DIGEST_NAMES[_hash_name(algorithm)])
    if name == "RSA-PSS":
        salt = _whole(algorithm, "saltLength", 0, CRYPTO_RSA_MODULUS_BITS_MAX // 8)
        if salt > 0 and deterministic:
            raise DeveloperError("CryptoRandomnessRefused", RANDOMNESS_REFUSED)
    key = keys.private_key(name, material)
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(data, _signature_padding(algorithm, name), _hash(algorithm))
    if isinstance(key, ec.EllipticCurvePrivateKey) and name == "ECDSA":
        signature = key.sign(data, ec.ECDSA(_hash(algorithm), deterministic_signing=True))
        size = (key.key_size + 7) // 8
        return b"".join(part.to_bytes(size, "big") for part in utils.decode_dss_signature(signature))
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign(data)
    raise not_supported(f"{name} does not sign")


def _verify(arg: Argument, data: bytes, _deterministic: bool, _entropy: Entropy) -> bool:
    algorithm, name = _algorithm(arg)
    material = _bytes(arg, "key", CRYPTO_KEY_BYTES_MAX)
    signature = _bytes(arg, "signature", CRYPTO_KEY_BYTES_MAX)
    if name == "HMAC":
        return hmac.compare_digest(signature, hmac.digest(material, data, _DIGEST_NAMES[_hash_name(algorithm)]))
    key = keys.public_key(name, material)
    try:
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, data, _signature_padding(algorithm, name), _hash(algorithm))
        elif isinstance(key, ec.EllipticCurvePublicKey) and name == "ECDSA":
            size = (key.key_size + 7) // 8
            if len(signature) != 2 * size:
                return False
            r, s = int.from_bytes(signature[:size], "big"), int.from_bytes(signature[size:], "big")
            key.verify(utils.encode_dss_signature(r, s), data, ec.ECDSA(_hash(algorithm)))
        elif isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(signature, data)
        else:
            raise not_supported(f"{name} does not verify")
    except (InvalidSignature, ValueError):
        return False
    return True


def _signature_padding(algorithm: Argument, name: str) -> padding.AsymmetricPadding:
    if name == "RSASSA-PKCS1-v1_5":
        return padding.PKCS1v15()
    if name == "RSA-PSS":
        salt = _whole(algorithm, "saltLength", 0, CRYPTO_RSA_MODULUS_BITS_MAX // 8)
        return padding.PSS(padding.MGF1(_hash(algorithm)), salt)
    raise not_supported(f"{name} does not sign or verify")


# -- encryption --------------------------------------------------------------------------------------------------


def _encrypt(arg: Argument, data: bytes, deterministic: bool, _entropy: Entropy) -> bytes:
    algorithm, name = _algorithm(arg)
    material = _bytes(arg, "key", CRYPTO_KEY_BYTES_MAX)
    if name == "RSA-OAEP":
        if deterministic:
            raise DeveloperError("CryptoRandomnessRefused", RANDOMNESS_REFUSED)
        key = cast(rsa.RSAPublicKey, keys.public_key(name, material))
        return key.encrypt(data, _oaep(algorithm))
    if name == "AES-CTR":
        return _aes_ctr(material, algorithm, data)
    if name == "AES-CBC":
        padder = block_padding.PKCS7(_AES_BLOCK_BYTES * 8).padder()
        encryptor = Cipher(_aes(material), modes.CBC(_iv(algorithm))).encryptor()
        return encryptor.update(padder.update(data) + padder.finalize()) + encryptor.finalize()
    if name == "AES-GCM":
        iv, additional, tag_bytes = _gcm(algorithm)
        encryptor = Cipher(_aes(material), modes.GCM(iv)).encryptor()
        encryptor.authenticate_additional_data(additional)
        body = encryptor.update(data) + encryptor.finalize()
        return body + encryptor.tag[:tag_bytes]
    raise not_supported(f"{name} does not encrypt")


def _decrypt(arg: Argument, data: bytes, _deterministic: bool, _entropy: Entropy) -> bytes:
    algorithm, name = _algorithm(arg)
    material = _bytes(arg, "key", CRYPTO_KEY_BYTES_MAX)
    if name == "RSA-OAEP":
        key = cast(rsa.RSAPrivateKey, keys.private_key(name, material))
        return key.decrypt(data, _oaep(algorithm))
    if name == "AES-CTR":
        return _aes_ctr(material, algorithm, data)
    if name == "AES-CBC":
        decryptor = Cipher(_aes(material), modes.CBC(_iv(algorithm))).decryptor()
        unpadder = block_padding.PKCS7(_AES_BLOCK_BYTES * 8).unpadder()
        return unpadder.update(decryptor.update(data) + decryptor.finalize()) + unpadder.finalize()
    if name == "AES-GCM":
        iv, additional, tag_bytes = _gcm(algorithm)
        if len(data) < tag_bytes:
            raise _failed("the data is shorter than its tag")
        split = len(data) - tag_bytes
        decryptor = Cipher(_aes(material), modes.GCM(iv, data[split:], min_tag_length=tag_bytes)).decryptor()
        decryptor.authenticate_additional_data(additional)
        return decryptor.update(data[:split]) + decryptor.finalize()
    raise not_supported(f"{name} does not decrypt")


def _wrap(arg: Argument, data: bytes, _deterministic: bool, _entropy: Entropy) -> bytes:
    return keywrap.aes_key_wrap(_aes(_bytes(arg, "key", CRYPTO_KEY_BYTES_MAX)).key, data)


def _unwrap(arg: Argument, data: bytes, _deterministic: bool, _entropy: Entropy) -> bytes:
    return keywrap.aes_key_unwrap(_aes(_bytes(arg, "key", CRYPTO_KEY_BYTES_MAX)).key, data)


def _aes(material: bytes) -> algorithms.AES:
    if len(material) not in _AES_KEY_BYTES:
        raise data_error("an AES key has 128, 192 or 256 bits")
    return algorithms.AES(material)


def _iv(algorithm: Argument) -> bytes:
    iv = _bytes(algorithm, "iv", CRYPTO_KEY_BYTES_MAX)
    if len(iv) != _AES_BLOCK_BYTES:
        raise _failed("the iv of AES-CBC has 16 bytes")
    return iv


def _gcm(algorithm: Argument) -> tuple[bytes, bytes, int]:
    iv = _bytes(algorithm, "iv", CRYPTO_KEY_BYTES_MAX)
    if not _GCM_IV_BYTES_MIN <= len(iv) <= _GCM_IV_BYTES_MAX:
        raise _failed(f"the iv of AES-GCM has {_GCM_IV_BYTES_MIN} to {_GCM_IV_BYTES_MAX} bytes here")
    additional = _bytes(algorithm, "additionalData", CRYPTO_DATA_BYTES_MAX) if "additionalData" in algorithm else b""
    tag_bits = algorithm.get("tagLength", 128)
    if tag_bits not in _GCM_TAG_BITS:
        raise _failed("the tagLength of AES-GCM is 32, 64, 96, 104, 112, 120 or 128")
    return iv, additional, int(tag_bits) // 8


def _aes_ctr(material: bytes, algorithm: Argument, data: bytes) -> bytes:
    """AES in counter mode, where only the last `length` bits of the block count and wrap around."""
    aes = _aes(material)
    counter = _bytes(algorithm, "counter", CRYPTO_KEY_BYTES_MAX)
    if len(counter) != _AES_BLOCK_BYTES:
        raise _failed("the counter of AES-CTR has 16 bytes")
    length = algorithm.get("length")
    if not isinstance(length, int) or not 1 <= length <= 128:
        raise _failed("the length of AES-CTR's counter is 1 to 128 bits")
    blocks = -(-len(data) // _AES_BLOCK_BYTES)
    if blocks > 1 << length:
        raise _failed("the data is longer than the counter can count")
    start = int.from_bytes(counter, "big")
    mask = (1 << length) - 1
    before_wrap = min(blocks, mask + 1 - (start & mask)) * _AES_BLOCK_BYTES
    encryptor = Cipher(aes, modes.CTR(counter)).encryptor()
    head = encryptor.update(data[:before_wrap]) + encryptor.finalize()
    if before_wrap >= len(data):
        return head
    wrapped = Cipher(aes, modes.CTR((start & ~mask).to_bytes(_AES_BLOCK_BYTES, "big"))).encryptor()
    return head + wrapped.update(data[before_wrap:]) + wrapped.finalize()


def _oaep(algorithm: Argument) -> padding.OAEP:
    label = _bytes(algorithm, "label", CRYPTO_KEY_BYTES_MAX) if "label" in algorithm else None
    return padding.OAEP(padding.MGF1(_hash(algorithm)), _hash(algorithm), label)


# -- derivation --------------------------------------------------------------------------------------------------


def _derive_bits(arg: Argument, _data: bytes, _deterministic: bool, _entropy: Entropy) -> bytes:
    algorithm, name = _algorithm(arg)
    material = _bytes(arg, "key", CRYPTO_KEY_BYTES_MAX)
    if name in ("ECDH", "X25519"):
        return _truncate(_agree(name, material, _bytes(algorithm, "public", CRYPTO_KEY_BYTES_MAX)), arg.get("length"))
    length = arg.get("length")
    if not isinstance(length, int) or length < 0 or length % 8 != 0:
        raise _failed("the length is a number of bits that is a multiple of 8")
    if length > CRYPTO_DERIVED_BYTES_MAX * 8:
        raise over_limit(f"at most {CRYPTO_DERIVED_BYTES_MAX} bytes are derived at once")
    kind = _hash(algorithm)
    salt = _bytes(algorithm, "salt", CRYPTO_KEY_BYTES_MAX)
    if name == "HKDF":
        if length > 255 * 8 * kind.digest_size:
            raise _failed("HKDF gives at most 255 times the hash's length")
        info = _bytes(algorithm, "info", CRYPTO_KEY_BYTES_MAX)
        return HKDF(kind, length // 8, salt, info).derive(material) if length else b""
    if name == "PBKDF2":
        if _whole(algorithm, "iterations", 0, 1 << 53) < 1:
            raise _failed("PBKDF2 needs at least one iteration")
        rounds = _pbkdf2_rounds(algorithm, length)
        if rounds > CRYPTO_PBKDF2_ROUNDS_MAX:
            raise over_limit(
                f"PBKDF2 may run {CRYPTO_PBKDF2_ROUNDS_MAX} rounds (iterations times blocks), not {rounds}"
            )
        return PBKDF2HMAC(kind, length // 8, salt, int(algorithm["iterations"])).derive(material) if length else b""
    raise not_supported(f"{name} does not derive")


def _agree(name: str, material: bytes, other: bytes) -> bytes:
    mine, theirs = keys.private_key(name, material), keys.public_key(name, other)
    if isinstance(mine, ec.EllipticCurvePrivateKey) and isinstance(theirs, ec.EllipticCurvePublicKey):
        if mine.curve.name != theirs.curve.name:
            raise DeveloperError("CryptoInvalidAccessError", "the two keys are on different curves")
        return mine.exchange(ec.ECDH(), theirs)
    return cast(x25519.X25519PrivateKey, mine).exchange(cast(x25519.X25519PublicKey, theirs))


def _truncate(secret: bytes, length: object) -> bytes:
    if length is None:
        return secret
    if not isinstance(length, int) or not 0 <= length <= len(secret) * 8:
        raise _failed("the shared secret is shorter than the length asked for")
    result = bytearray(secret[: -(-length // 8)])
    if length % 8:
        result[-1] &= 0xFF << (8 - length % 8) & 0xFF
    return bytes(result)


def _pbkdf2_rounds(algorithm: Argument, length: object) -> int:
    iterations, kind = algorithm.get("iterations"), _HASHES.get(str(algorithm.get("hash")))
    if not isinstance(iterations, int | float) or not isinstance(length, int) or kind is None:
        return 0
    if not abs(iterations) >= 0:  # NaN; math.isnan would fail for an integer beyond every float
        return 0
    return int(min(abs(iterations), 1 << 53)) * max(1, -(-length // (8 * kind.digest_size)))


# -- keys --------------------------------------------------------------------------------------------------------


def _import_key(arg: Argument, data: bytes, _deterministic: bool, _entropy: Entropy) -> dict[str, object]:
    algorithm, name = _algorithm(arg)
    curve = algorithm.get("namedCurve")
    return keys.import_key(_text(arg, "format"), name, curve if isinstance(curve, str) else None, data, arg.get("jwk"))


def _export_key(arg: Argument, _data: bytes, _deterministic: bool, _entropy: Entropy) -> dict[str, object]:
    _, name = _algorithm(arg)
    material = _bytes(arg, "key", CRYPTO_KEY_BYTES_MAX)
    is_private = arg.get("type") == "private"
    key = keys.private_key(name, material) if is_private else keys.public_key(name, material)
    form = _text(arg, "format")
    if form == "jwk":
        return {"jwk": keys.export_jwk(key)}
    if form == "raw" and not is_private:
        return {"bytes": keys.b64(keys.export_raw(keys.public_key(name, material)))}
    if form == ("pkcs8" if is_private else "spki"):
        return {"bytes": keys.b64(keys.material_of(key))}
    raise DeveloperError("CryptoInvalidAccessError", f"this key cannot be exported as '{form}'")


def _generate_key(arg: Argument, _data: bytes, deterministic: bool, entropy: Entropy) -> dict[str, object]:
    if deterministic:
        raise DeveloperError("CryptoRandomnessRefused", RANDOMNESS_REFUSED)
    algorithm, name = _algorithm(arg)
    if name == "HMAC":
        default = _HMAC_KEY_BYTES_DEFAULT[_hash_name(algorithm)] * 8
        bits = _whole(algorithm, "length", 1, CRYPTO_KEY_BYTES_MAX * 8, default)
        secret = bytearray(entropy(-(-bits // 8)))
        if bits % 8:
            secret[-1] &= 0xFF << (8 - bits % 8) & 0xFF
        return {"secret": keys.b64(bytes(secret))}
    if name.startswith("AES-"):
        length = algorithm.get("length")
        if length not in (128, 192, 256):
            raise _failed("an AES key has 128, 192 or 256 bits")
        return {"secret": keys.b64(entropy(int(length) // 8))}
    private = _generate_private(algorithm, name)
    return {"privateKey": keys.describe_key(private), "publicKey": keys.describe_key(private.public_key())}


def _generate_private(algorithm: Argument, name: str) -> keys.PrivateKey:
    if name in keys.RSA_ALGORITHMS:
        bits = _whole(algorithm, "modulusLength", 0, 1 << 53)
        keys.check_rsa_size(bits)
        exponent = int.from_bytes(_bytes(algorithm, "publicExponent", CRYPTO_KEY_BYTES_MAX), "big")
        if exponent not in (3, 65537):
            raise _failed("the publicExponent is 3 or 65537")
        return rsa.generate_private_key(exponent, bits)
    if name in keys.EC_ALGORITHMS:
        return ec.generate_private_key(keys.named_curve(algorithm.get("namedCurve"))[0])
    if name == "Ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    if name == "X25519":
        return x25519.X25519PrivateKey.generate()
    raise not_supported(f"'{name}' is not a supported algorithm")


def _rsa_generation_cost_us(algorithm: Argument) -> int:
    bits = algorithm.get("modulusLength")
    if not isinstance(bits, int) or bits > CRYPTO_RSA_MODULUS_BITS_MAX:
        return 0
    # Prime search grows with about the fourth power of the length; 2048 bits take 100 ms on average.
    return int(200_000 * (bits / 2048) ** 4)


# -- what the guest sent -----------------------------------------------------------------------------------------


def _failed(message: str) -> DeveloperError:
    return DeveloperError("CryptoOperationError", message)


def _algorithm(arg: Argument) -> tuple[Argument, str]:
    algorithm = arg.get("algorithm")
    if not isinstance(algorithm, dict):
        raise data_error("the argument has no algorithm")
    return cast(Argument, algorithm), _text(cast(Argument, algorithm), "name")


def _text(arg: Argument, name: str) -> str:
    value = arg.get(name)
    if not isinstance(value, str):
        raise data_error(f"'{name}' is not a string")
    return value


def _bytes(arg: Argument, name: str, bytes_max: int) -> bytes:
    value = _text(arg, name)
    if len(value) > (bytes_max + 2) // 3 * 4:
        raise over_limit(f"'{name}' has more than {bytes_max} bytes")
    try:
        decoded = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise data_error(f"'{name}' is not base64 text") from None
    if len(decoded) > bytes_max:
        raise over_limit(f"'{name}' has more than {bytes_max} bytes")
    return decoded


def _whole(arg: Argument, name: str, low: int, high: int, default: int | None = None) -> int:
    value = arg.get(name, default)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise _failed(f"'{name}' is not a whole number from {low} to {high}")
    return value


def _hash_name(arg: Argument) -> str:
    name = arg.get("hash")
    if not isinstance(name, str) or name not in _HASHES:
        raise not_supported(f"'{name}' is not a supported hash")
    return name


def _hash(arg: Argument) -> hashes.HashAlgorithm:
    return _HASHES[_hash_name(arg)]


_OPERATIONS: Final[dict[str, Callable[[Argument, bytes, bool, Entropy], bytes | object]]] = {
    "crypto/digest": _digest,
    "crypto/sign": _sign,
    "crypto/verify": _verify,
    "crypto/encrypt": _encrypt,
    "crypto/decrypt": _decrypt,
    "crypto/wrap": _wrap,
    "crypto/unwrap": _unwrap,
    "crypto/derive_bits": _derive_bits,
    "crypto/import_key": _import_key,
    "crypto/export_key": _export_key,
    "crypto/generate_key": _generate_key,
}
CRYPTO_OPERATIONS: Final = frozenset(_OPERATIONS)
