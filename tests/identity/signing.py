"""Keys and tokens of providers that tests make up, signed by PyJWT."""

import json
from base64 import b64encode, urlsafe_b64encode
from functools import cache
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

ISSUER = "https://issuer.example.com"
AUDIENCE = "the-app"


def private_key(algorithm: str, number: int = 0, bits: int = 2048) -> Any:
    """A key for an algorithm; the same one for the same kind and number."""
    return _private_key("RSA" if algorithm.startswith(("RS", "PS")) else algorithm, number, bits)


@cache
def _private_key(kind: str, _number: int, bits: int) -> Any:
    if kind == "RSA":
        return rsa.generate_private_key(65537, bits)
    return ec.generate_private_key(ec.SECP256R1()) if kind == "ES256" else ed25519.Ed25519PrivateKey.generate()


def public_jwk(algorithm: str, number: int = 0, **fields: Any) -> dict[str, Any]:
    """The public key as JWKS have it; its name is `key-NUMBER` unless it is given."""
    public = private_key(algorithm, number).public_key()
    maker: Any = RSAAlgorithm if algorithm.startswith("RS") else ECAlgorithm if algorithm == "ES256" else OKPAlgorithm
    made = {
        **maker.to_jwk(public, as_dict=True),
        "key_ops": None,
        "kid": f"key-{number}",
        "alg": algorithm,
        "use": "sig",
    }
    made |= fields
    return {name: value for name, value in made.items() if value is not None}


def jwks(*keys: dict[str, Any]) -> bytes:
    return json.dumps({"keys": list(keys)}).encode()


def data_uri(raw: bytes) -> str:
    return "data:application/json;base64," + b64encode(raw).decode()


def claims(now_s: float, **changes: Any) -> dict[str, Any]:
    """Claims that hold at this time; None takes one away."""
    held = {
        "iss": ISSUER, "aud": AUDIENCE, "sub": "ada", "iat": int(now_s) - 10, "exp": int(now_s) + 600, **changes
    }  # fmt: skip
    return {name: value for name, value in held.items() if value is not None}


def sign(
    payload: dict[str, Any], algorithm: str = "RS256", number: int = 0, headers: dict[str, Any] | None = None
) -> bytes:
    named = {"kid": f"key-{number}"} if headers is None else headers
    return jwt.encode(payload, private_key(algorithm, number), algorithm, headers=named).encode()


def number_text(number: int) -> str:
    """A number as JWKS write it."""
    raw = number.to_bytes((number.bit_length() + 7) // 8, "big")
    return urlsafe_b64encode(raw).rstrip(b"=").decode()
