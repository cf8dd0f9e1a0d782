"""The host side of `crypto.subtle` alone: bounds, hostile arguments, determinism, and the page that documents it.

Published vectors and the comparison with Node run through the guest, in tests/guest/javascript/test_crypto.py.
"""

import base64
import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from skerry import limits
from skerry.errors import DeveloperError
from skerry.functions import crypto_keys
from skerry.functions.crypto_ops import CRYPTO_OPERATIONS, RANDOMNESS_REFUSED, crypto_cost_us, run_crypto

CRYPTO_PAGE = Path(__file__).resolve().parents[2] / "guest_sdk" / "javascript" / "CRYPTO.md"


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def entropy(length: int) -> bytes:
    return random.Random(length).randbytes(length)


def run(op: str, arg: dict[str, Any], raw: bytes | None = None, *, deterministic: bool = True) -> Any:
    return run_crypto(f"crypto/{op}", arg, raw, deterministic=deterministic, entropy=entropy)


def code_of(op: str, arg: dict[str, Any], raw: bytes | None = None, *, deterministic: bool = True) -> str:
    with pytest.raises(DeveloperError) as caught:
        run(op, arg, raw, deterministic=deterministic)
    return caught.value.code


def pbkdf2(iterations: float, bits: int = 256) -> dict[str, Any]:
    salt = b64(b"salt")
    return {
        "algorithm": {"name": "PBKDF2", "hash": "SHA-256", "salt": salt, "iterations": iterations},
        "key": b64(b"password"),
        "length": bits,
    }


@pytest.fixture(scope="module")
def rsa_private() -> bytes:
    return crypto_keys.material_of(rsa.generate_private_key(65537, 2048))


@pytest.fixture(scope="module")
def ec_private() -> bytes:
    return crypto_keys.material_of(ec.generate_private_key(ec.SECP256R1()))


# -- bounds ------------------------------------------------------------------------------------------------------


def test_data_at_and_over_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    bound = limits.CRYPTO_DATA_BYTES_MAX
    assert len(run("digest", {"hash": "SHA-1"}, bytes(bound))) == 20
    assert code_of("digest", {"hash": "SHA-1"}, bytes(bound + 1)) == "CryptoLimitExceeded"


def test_key_material_at_and_over_the_bound() -> None:
    hmac = {"algorithm": {"name": "HMAC", "hash": "SHA-256"}}
    bound = limits.CRYPTO_KEY_BYTES_MAX
    assert len(run("sign", {**hmac, "key": b64(bytes(bound))}, b"x")) == 32
    assert code_of("sign", {**hmac, "key": b64(bytes(bound + 1))}, b"x") == "CryptoLimitExceeded"
    ecdsa = {"format": "spki", "algorithm": {"name": "ECDSA", "namedCurve": "P-256"}}
    assert code_of("import_key", ecdsa, bytes(bound)) == "CryptoDataError"
    assert code_of("import_key", ecdsa, bytes(bound + 1)) == "CryptoLimitExceeded"


def test_pbkdf2_at_and_over_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    bound = limits.CRYPTO_PBKDF2_ROUNDS_MAX
    assert len(run("derive_bits", pbkdf2(bound // 2, 512))) == 64
    assert code_of("derive_bits", pbkdf2(bound // 2 + 1, 512)) == "CryptoLimitExceeded"
    assert code_of("derive_bits", pbkdf2(2**60)) == "CryptoOperationError"
    assert code_of("derive_bits", pbkdf2(0)) == "CryptoOperationError"


def test_derived_length_at_and_over_the_bound() -> None:
    bound = limits.CRYPTO_DERIVED_BYTES_MAX
    assert len(run("derive_bits", pbkdf2(1, bound * 8))) == bound
    assert code_of("derive_bits", pbkdf2(1, bound * 8 + 8)) == "CryptoLimitExceeded"
    hkdf = {"algorithm": {"name": "HKDF", "hash": "SHA-256", "salt": "", "info": ""}, "key": b64(b"k")}
    assert len(run("derive_bits", {**hkdf, "length": 255 * 32 * 8})) == 255 * 32
    assert code_of("derive_bits", {**hkdf, "length": 255 * 32 * 8 + 8}) == "CryptoOperationError"
    assert run("derive_bits", {**hkdf, "length": 0}) == b""


@pytest.mark.parametrize(
    ("bits", "accepted"),
    [
        (limits.CRYPTO_RSA_MODULUS_BITS_MIN, True),
        (limits.CRYPTO_RSA_MODULUS_BITS_MIN - 8, False),
        (limits.CRYPTO_RSA_MODULUS_BITS_MAX, True),
        (limits.CRYPTO_RSA_MODULUS_BITS_MAX + 8, False),
    ],
)
def test_rsa_size_at_and_over_the_bounds(bits: int, accepted: bool) -> None:
    # A public key is any odd number of the right length: no prime has to be searched for.
    modulus = (1 << bits) - 1
    jwk = {"kty": "RSA", "n": crypto_keys.b64url(modulus.to_bytes(bits // 8, "big")), "e": "AQAB"}
    arg = {"format": "jwk", "algorithm": {"name": "RSA-PSS"}, "jwk": jwk}
    if accepted:
        assert run("import_key", arg)["modulusLength"] == bits
    else:
        assert code_of("import_key", arg) == "CryptoLimitExceeded"


def test_rsa_exponent_at_and_over_the_bound() -> None:
    def importing(bits: int) -> dict[str, Any]:
        exponent = (1 << bits) - 1
        e = crypto_keys.b64url(exponent.to_bytes((bits + 7) // 8, "big"))
        jwk = {"kty": "RSA", "n": crypto_keys.b64url(((1 << 2048) - 1).to_bytes(256, "big")), "e": e}
        return {"format": "jwk", "algorithm": {"name": "RSA-PSS"}, "jwk": jwk}

    bound = limits.CRYPTO_RSA_EXPONENT_BITS_MAX
    assert run("import_key", importing(bound))["type"] == "public"
    assert code_of("import_key", importing(bound + 1)) == "CryptoLimitExceeded"


def test_remembered_keys_are_bounded(ec_private: bytes) -> None:
    for _ in range(limits.CRYPTO_KEYS_REMEMBERED + 1):
        material = crypto_keys.material_of(ec.generate_private_key(ec.SECP256R1()))
        crypto_keys.private_key("ECDSA", material)
    assert crypto_keys._read_private.cache_info().currsize == limits.CRYPTO_KEYS_REMEMBERED


def test_rsa_generation_refuses_large_keys_before_any_work() -> None:
    algorithm = {"name": "RSA-PSS", "modulusLength": 2**20, "publicExponent": b64(b"\1\0\1")}
    assert code_of("generate_key", {"algorithm": algorithm}, deterministic=False) == "CryptoLimitExceeded"
    algorithm |= {"modulusLength": 2048, "publicExponent": b64(b"\5")}
    assert code_of("generate_key", {"algorithm": algorithm}, deterministic=False) == "CryptoOperationError"


# -- determinism -------------------------------------------------------------------------------------------------


def test_randomness_is_refused_where_calls_are_deterministic(rsa_private: bytes) -> None:
    public = b64(crypto_keys.material_of(crypto_keys.private_key("RSA-OAEP", rsa_private).public_key()))
    oaep = {"algorithm": {"name": "RSA-OAEP", "hash": "SHA-256"}, "key": public}
    pss = {"algorithm": {"name": "RSA-PSS", "hash": "SHA-256", "saltLength": 32}, "key": b64(rsa_private)}
    for op, arg in (
        ("encrypt", oaep),
        ("sign", pss),
        ("generate_key", {"algorithm": {"name": "AES-GCM", "length": 128}}),
    ):
        with pytest.raises(DeveloperError) as caught:
            run(op, arg, b"x")
        assert (caught.value.code, caught.value.message) == ("CryptoRandomnessRefused", RANDOMNESS_REFUSED)
        run(op, arg, b"x", deterministic=False)


@pytest.mark.parametrize("name", ("RSASSA-PKCS1-v1_5", "RSA-PSS", "ECDSA"))
def test_signatures_have_one_answer(rsa_private: bytes, ec_private: bytes, name: str) -> None:
    key = ec_private if name == "ECDSA" else rsa_private
    arg = {"algorithm": {"name": name, "hash": "SHA-256", "saltLength": 0}, "key": b64(key)}
    assert run("sign", arg, b"x") == run("sign", arg, b"x", deterministic=False)


def test_secret_keys_come_from_the_given_entropy() -> None:
    made = run("generate_key", {"algorithm": {"name": "AES-GCM", "length": 256}}, deterministic=False)
    assert made == {"secret": b64(entropy(32))}
    made = run("generate_key", {"algorithm": {"name": "HMAC", "hash": "SHA-1", "length": 12}}, deterministic=False)
    secret = base64.b64decode(made["secret"])
    assert len(secret) == 2 and secret[1] & 0x0F == 0


# -- hostile arguments -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("op", sorted(CRYPTO_OPERATIONS))
@pytest.mark.parametrize(
    "arg",
    [
        {},
        {"algorithm": None},
        {"algorithm": {"name": 5}},
        {"algorithm": {"name": "HMAC"}, "key": 5},
        {"algorithm": {"name": "HMAC", "hash": {}}, "key": "AA=="},
        {"algorithm": {"name": "AES-CTR", "counter": "AA==", "length": "x"}, "key": "AA=="},
        {"algorithm": {"name": "RSA-PSS", "hash": "SHA-256", "saltLength": -1}, "key": "****", "format": "pkcs8"},
        {"algorithm": {"name": "ECDSA", "namedCurve": ["P-256"]}, "key": "AA==", "format": "raw", "type": "x"},
        {"algorithm": {"name": "X25519", "public": "AA=="}, "key": "AA==", "length": 1e99, "format": "jwk", "jwk": []},
    ],
)
def test_malformed_arguments_are_developer_errors(op: str, arg: dict[str, Any]) -> None:
    with pytest.raises(DeveloperError):
        run_crypto(op, arg, b"\xff", deterministic=True, entropy=entropy)
    assert crypto_cost_us(op, arg, 1) >= 0


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.binary(max_size=40).map(b64),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
NAMES = [
    "HMAC",
    "AES-GCM",
    "AES-CTR",
    "AES-CBC",
    "AES-KW",
    "PBKDF2",
    "HKDF",
    "RSA-PSS",
    "RSA-OAEP",
    "RSASSA-PKCS1-v1_5",
]
PARAMETERS = ["iv", "counter", "salt", "info", "label", "public", "length", "tagLength", "saltLength", "iterations"]
ALGORITHMS = st.fixed_dictionaries(
    {"name": st.sampled_from([*NAMES, "ECDSA", "ECDH", "Ed25519", "X25519"]) | JSON_VALUES},
    optional=dict.fromkeys(PARAMETERS, JSON_VALUES)
    | {"hash": st.sampled_from(["SHA-1", "SHA-256"]) | JSON_VALUES, "namedCurve": st.just("P-256") | JSON_VALUES},
)
ARGUMENTS = st.fixed_dictionaries(
    {"algorithm": ALGORITHMS},
    optional={
        "key": st.binary(min_size=16, max_size=16).map(b64) | JSON_VALUES,
        "signature": JSON_VALUES,
        "length": st.integers(-8, 512) | JSON_VALUES,
        "format": st.sampled_from(["raw", "jwk", "pkcs8", "spki"]),
        "type": st.sampled_from(["private", "public"]),
        "jwk": st.dictionaries(st.sampled_from(["kty", "crv", "n", "e", "d", "x", "y", "k"]), JSON_VALUES),
    },
)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(CRYPTO_OPERATIONS - {"crypto/generate_key"})), ARGUMENTS, st.binary(max_size=80))
def test_any_argument_gives_an_answer_or_a_developer_error(op: str, arg: dict[str, Any], raw: bytes) -> None:
    crypto_cost_us(op, arg, len(raw))
    try:
        answer = run_crypto(op, arg, raw, deterministic=True, entropy=entropy)
    except DeveloperError:
        return
    assert isinstance(answer, bytes) or json.dumps(answer)


def test_unknown_operation() -> None:
    assert code_of("nope", {}) == "CryptoNotSupportedError"


def test_tampered_rsa_keys_are_refused(rsa_private: bytes) -> None:
    numbers = crypto_keys.private_key("RSA-PSS", rsa_private)
    assert isinstance(numbers, rsa.RSAPrivateKey)
    jwk = crypto_keys.export_jwk(numbers)
    jwk["d"] = jwk["d"][:-4] + "AAAA"
    assert code_of("import_key", {"format": "jwk", "algorithm": {"name": "RSA-PSS"}, "jwk": jwk}) == "CryptoDataError"
    middle = len(rsa_private) // 2
    damaged = rsa_private[:middle] + bytes([rsa_private[middle] ^ 1]) + rsa_private[middle + 1 :]
    arg = {"algorithm": {"name": "RSASSA-PKCS1-v1_5", "hash": "SHA-256"}, "key": b64(damaged)}
    assert code_of("sign", arg, b"x") == "CryptoDataError"


def test_a_key_of_another_family_is_refused(ec_private: bytes) -> None:
    arg = {"algorithm": {"name": "RSA-PSS", "hash": "SHA-256", "saltLength": 0}, "key": b64(ec_private)}
    assert code_of("sign", arg, b"x") == "CryptoDataError"
    p384 = {"format": "pkcs8", "algorithm": {"name": "ECDSA", "namedCurve": "P-384"}}
    assert code_of("import_key", p384, ec_private) == "CryptoDataError"
    other = crypto_keys.material_of(ec.generate_private_key(ec.SECP384R1()).public_key())
    mixed = {"algorithm": {"name": "ECDH", "public": b64(other)}, "key": b64(ec_private)}
    assert code_of("derive_bits", mixed) == "CryptoInvalidAccessError"


# -- cost and page -----------------------------------------------------------------------------------------------


def test_cost_grows_with_the_work(rsa_private: bytes) -> None:
    def sign(material: bytes) -> int:
        return crypto_cost_us("crypto/sign", {"algorithm": {"name": "RSA-PSS"}, "key": b64(material)}, 0)

    assert crypto_cost_us("crypto/derive_bits", pbkdf2(600_000), 0) > 100 * crypto_cost_us(
        "crypto/derive_bits", pbkdf2(10), 0
    )
    assert crypto_cost_us("crypto/digest", {"hash": "SHA-256"}, 10**6) > crypto_cost_us("crypto/digest", {}, 10)
    assert sign(bytes(2400)) > sign(rsa_private) > sign(b"") > 1000
    generation = [{"algorithm": {"name": "RSA-PSS", "modulusLength": bits}} for bits in (2048, 4096)]
    small, large = (crypto_cost_us("crypto/generate_key", each, 0) for each in generation)
    assert large > 10 * small


def test_the_page_lists_exactly_these_operations_and_bounds() -> None:
    text = CRYPTO_PAGE.read_text(encoding="utf-8")
    assert set(re.findall(r"`(crypto/[a-z_]+)`", text)) == CRYPTO_OPERATIONS
    bounds = {name for name in vars(limits) if name.startswith("CRYPTO_")}
    assert set(re.findall(r"`(CRYPTO_[A-Z0-9_]+)`", text)) == bounds
