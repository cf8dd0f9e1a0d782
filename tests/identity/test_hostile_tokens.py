"""Tokens that somebody made to be taken for somebody else, or to hurt: each is refused with its own code, by name.

They are judged as custom tokens, whose keys are in the config; `test_sources` has what comes over the network.
"""

import hmac
import json
from base64 import urlsafe_b64encode
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from skerry.limits import AUTH_CLAIMS_NESTING_MAX, AUTH_CLOCK_SKEW_SECONDS, AUTH_TOKEN_BYTES_MAX
from tests.identity import signing
from tests.identity.court import NOW_S, Court, custom, run

KEYS = signing.jwks(
    signing.public_jwk("RS256"),
    signing.public_jwk("RS256", 1),
    signing.public_jwk("ES256"),
    signing.public_jwk("EdDSA"),
)


def part(value: Any) -> bytes:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return urlsafe_b64encode(raw).rstrip(b"=")


def raw_token(header: Any, payload: Any, sign: Callable[[bytes], bytes]) -> bytes:
    signed = part(header) + b"." + part(payload)
    return signed + b"." + part(sign(signed))


def rsa_signed(header: Any, payload: Any) -> bytes:
    """Whatever is in it, with a true signature."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15

    key = signing.private_key("RS256")
    return raw_token(header, payload, lambda signed: key.sign(signed, PKCS1v15(), hashes.SHA256()))


def public_pem() -> bytes:
    return signing.private_key("RS256").public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def good(**changes: Any) -> dict[str, Any]:
    return signing.claims(NOW_S, **changes)


HEADER = {"alg": "RS256", "kid": "key-0"}


def hmac_of_public_key(signed: bytes) -> bytes:
    return hmac.digest(public_pem(), signed, "sha256")


def hmac_of_modulus(signed: bytes) -> bytes:
    return hmac.digest(signing.public_jwk("RS256")["n"].encode(), signed, "sha256")


def as_json(value: Any) -> bytes:
    return json.dumps(value).encode()


def nested(depth: int) -> bytes:
    return json.dumps(good()).encode()[:-1] + b',"x":' + b"[" * depth + b"]" * depth + b"}"


def doubled(name: str, value: str) -> bytes:
    return json.dumps(good()).encode()[:-1] + b',"%b":"%b"}' % (name.encode(), value.encode())


INVALID, NOBODY = "InvalidAuthHeader", "NoAuthProvider"
SKEW = AUTH_CLOCK_SKEW_SECONDS

CASES: dict[str, tuple[Callable[[], bytes], str, str]] = {
    # -- forms
    "empty": (lambda: b"", INVALID, "three base64-encoded parts"),
    "no dots": (lambda: b"nonsense", INVALID, "three base64-encoded parts"),
    "two parts": (lambda: b"YQ.YQ", INVALID, "three base64-encoded parts"),
    "five parts, as an encrypted token has": (lambda: b"a.b.c.d.e", INVALID, "three base64-encoded parts"),
    "padding": (lambda: signing.sign(good()) + b"=", INVALID, "three base64-encoded parts"),
    "a line break at its end": (lambda: signing.sign(good()) + b"\n", INVALID, "three base64-encoded parts"),
    "letters beyond ASCII": (lambda: "ä.ö.ü".encode(), INVALID, "three base64-encoded parts"),
    "a length that base64 cannot have": (lambda: b"abcde.abcd.abcd", INVALID, "header"),
    "a header that is no JSON": (lambda: rsa_signed(b"{", good()), INVALID, "header"),
    "a header that is a list": (lambda: rsa_signed([], good()), INVALID, "header"),
    "a payload that is a string": (lambda: rsa_signed(HEADER, "x"), INVALID, "payload"),
    "a payload that is not UTF-8": (lambda: rsa_signed(HEADER, b'{"iss":"\xff"}'), INVALID, "payload"),
    "a payload in UTF-16": (lambda: rsa_signed(HEADER, json.dumps(good()).encode("utf-16")), INVALID, "payload"),
    "a byte order mark": (
        lambda: rsa_signed(HEADER, b"\xef\xbb\xbf" + json.dumps(good()).encode()),
        INVALID,
        "payload",
    ),
    "NaN": (lambda: rsa_signed(HEADER, json.dumps(good(x=float("nan"))).encode()), INVALID, "payload"),
    "half of a surrogate pair": (lambda: rsa_signed(HEADER, good(name="\ud800")), INVALID, "text or a number"),
    "an integer of 200 digits": (lambda: rsa_signed(HEADER, good(x=10**200)), INVALID, "text or a number"),
    "an integer of 5,000 digits": (lambda: rsa_signed(HEADER, b'{"x":' + b"1" * 5_000 + b"}"), INVALID, "payload"),
    "a subject twice": (lambda: rsa_signed(HEADER, doubled("sub", "eve")), INVALID, "each name once"),
    "a subject twice, once escaped": (
        lambda: rsa_signed(HEADER, doubled("s\\u0075b", "eve")),
        INVALID,
        "once",
    ),
    "an algorithm twice": (lambda: rsa_signed(b'{"alg":"RS256","alg":"none"}', good()), INVALID, "each name once"),
    "one level too deep": (lambda: rsa_signed(HEADER, nested(AUTH_CLAIMS_NESTING_MAX)), INVALID, "nested"),
    "ten thousand levels deep": (lambda: rsa_signed(HEADER, b"[" * 5_000), INVALID, "nested"),
    "one byte too long": (lambda: b"a.b." + b"c" * (AUTH_TOKEN_BYTES_MAX - 3), INVALID, "at most"),
    "a hundred megabytes": (lambda: b"a.b." + b"c" * 100_000_000, INVALID, "at most"),
    # -- algorithms and keys
    "alg none": (lambda: raw_token({"alg": "none"}, good(), lambda _: b"x"), INVALID, "not accepted"),
    "alg none, without a signature": (lambda: part({"alg": "none"}) + b"." + part(good()) + b".", INVALID, "parts"),
    "alg None in other letters": (lambda: raw_token({"alg": "nOnE"}, good(), lambda _: b"x"), INVALID, "not accepted"),
    "no alg": (lambda: rsa_signed({"kid": "key-0"}, good()), INVALID, "'alg'"),
    "an alg that is a list": (lambda: rsa_signed({"alg": ["RS256"], "kid": "key-0"}, good()), INVALID, "'alg'"),
    "the public key as a shared secret": (
        lambda: raw_token({"alg": "HS256", "kid": "key-0"}, good(), hmac_of_public_key),
        INVALID,
        "not accepted",
    ),
    "the public key as a shared secret, under the name of RS256": (
        lambda: raw_token(HEADER, good(), hmac_of_public_key),
        INVALID,
        "signature",
    ),
    "the modulus as a shared secret": (
        lambda: raw_token({"alg": "HS512", "kid": "key-0"}, good(), hmac_of_modulus),
        INVALID,
        "not accepted",
    ),
    "an algorithm that the provider does not use": (lambda: signing.sign(good(), "ES256"), INVALID, "not accepted"),
    "a longer digest": (lambda: signing.sign(good(), "RS512"), INVALID, "not accepted"),
    "another padding": (lambda: signing.sign(good(), "PS256"), INVALID, "not accepted"),
    "the name of a key of another kind": (
        lambda: rsa_signed({"alg": "RS256", "kid": "key-9"}, good()),
        INVALID,
        "unknown kid 'key-9'",
    ),
    "the name of another key of the provider": (
        lambda: rsa_signed({"alg": "RS256", "kid": "key-1"}, good()),
        INVALID,
        "signature",
    ),
    "no kid": (lambda: rsa_signed({"alg": "RS256"}, good()), INVALID, "missing a 'kid'"),
    "a kid that is a number": (lambda: rsa_signed({"alg": "RS256", "kid": 0}, good()), INVALID, "'kid'"),
    "a kid that is a path": (
        lambda: rsa_signed({"alg": "RS256", "kid": "../../dev/null"}, good()),
        INVALID,
        "unknown kid",
    ),
    "a key of its own": (
        lambda: signing.sign(
            good(), "RS256", 7, {"kid": "key-0", "jwk": signing.public_jwk("RS256", 7), "jku": "http://x.invalid/"}
        ),
        INVALID,
        "signature",
    ),
    "critical extensions": (lambda: rsa_signed({**HEADER, "crit": ["b64"], "b64": False}, good()), INVALID, "'crit'"),
    "a signature of nothing": (lambda: raw_token(HEADER, good(), lambda _: bytes(256)), INVALID, "signature"),
    "a signature of one byte": (lambda: raw_token(HEADER, good(), lambda _: b"x"), INVALID, "signature"),
    "a signature of other claims": (
        lambda: b".".join([*signing.sign(good(sub="eve")).split(b".")[:2], signing.sign(good()).split(b".")[2]]),
        INVALID,
        "signature",
    ),
    # -- claims
    "another issuer": (lambda: signing.sign(good(iss="https://evil.example.com")), NOBODY, "evil.example.com"),
    "an issuer that begins like it": (
        lambda: signing.sign(good(iss=signing.ISSUER + ".evil.example.com")),
        NOBODY,
        "CustomJWT(issuer=",
    ),
    "the issuer over plain http": (
        lambda: signing.sign(good(iss="http://issuer.example.com")),
        NOBODY,
        "app_id=the-app",
    ),
    "the issuer with two slashes": (lambda: signing.sign(good(iss=signing.ISSUER + "//")), NOBODY, "No auth provider"),
    "the issuer in capitals": (lambda: signing.sign(good(iss=signing.ISSUER.upper())), NOBODY, "No auth provider"),
    "no issuer": (lambda: signing.sign(good(iss=None)), INVALID, "'iss'"),
    "an empty issuer": (lambda: signing.sign(good(iss="")), INVALID, "'iss'"),
    "an issuer that is a list": (lambda: rsa_signed(HEADER, good(iss=[signing.ISSUER])), INVALID, "'iss'"),
    "another audience": (lambda: signing.sign(good(aud="another-app")), NOBODY, "another-app"),
    "no audience": (lambda: signing.sign(good(aud=None)), NOBODY, "None"),
    "an empty list of audiences": (lambda: signing.sign(good(aud=[])), NOBODY, "[]"),
    "an audience that contains ours": (lambda: signing.sign(good(aud="the-app-2")), NOBODY, "the-app-2"),
    "a nested list of audiences": (lambda: rsa_signed(HEADER, good(aud=[["the-app"]])), NOBODY, "[['the-app']]"),
    "an audience in an object": (lambda: rsa_signed(HEADER, good(aud={"the-app": 1})), NOBODY, "the-app"),
    "no subject": (lambda: signing.sign(good(sub=None)), INVALID, "'sub'"),
    "an empty subject": (lambda: signing.sign(good(sub="")), INVALID, "'sub'"),
    "a subject that is a number": (lambda: rsa_signed(HEADER, good(sub=7)), INVALID, "'sub'"),
    "no expiry": (lambda: signing.sign(good(exp=None)), INVALID, "'exp'"),
    "expired": (lambda: signing.sign(good(exp=NOW_S - SKEW)), INVALID, "expired"),
    "expired in 1970": (lambda: signing.sign(good(exp=0)), INVALID, "expired"),
    "an expiry before 1970": (lambda: rsa_signed(HEADER, good(exp=-1)), INVALID, "'exp'"),
    "an expiry that never comes": (lambda: rsa_signed(HEADER, good(exp=1e300)), INVALID, "'exp'"),
    "an expiry that is a text": (lambda: rsa_signed(HEADER, good(exp=str(NOW_S + 99))), INVALID, "'exp'"),
    "an expiry that is true": (lambda: rsa_signed(HEADER, good(exp=True)), INVALID, "'exp'"),
    "not valid yet": (lambda: signing.sign(good(nbf=NOW_S + SKEW + 1)), INVALID, "not valid yet"),
    "a begin that is a list": (lambda: rsa_signed(HEADER, good(nbf=[1])), INVALID, "'nbf'"),
    "issued in the future": (lambda: signing.sign(good(iat=NOW_S + SKEW + 1)), INVALID, "timing issues"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_hostile_token_is_refused(name: str) -> None:
    make, code, words = CASES[name]

    async def judge() -> None:
        court = Court(custom(KEYS))
        found = await court.refusal(make())
        assert found[0] == code and words in found[1], found
        assert len(found[1]) < 1_000, "what a stranger sent is not said back at length"
        assert await court.identity(signing.sign(good())), "and the next one is judged as ever"

    run(judge())


def test_what_lies_just_within_the_bounds_is_taken() -> None:
    async def judge() -> None:
        court = Court(custom(KEYS))
        await court.identity(rsa_signed(HEADER, nested(AUTH_CLAIMS_NESTING_MAX - 1)))
        await court.identity(signing.sign(good(exp=NOW_S - SKEW + 1)))
        await court.identity(signing.sign(good(nbf=NOW_S + SKEW, iat=NOW_S + SKEW)))
        await court.identity(signing.sign(good(iss=signing.ISSUER + "/", aud=["other", "the-app"])))
        filled = signing.sign(good(x=""))
        filled = signing.sign(good(x="a" * ((AUTH_TOKEN_BYTES_MAX - len(filled)) * 3 // 4 - 3)))
        assert AUTH_TOKEN_BYTES_MAX - 8 < len(filled) <= AUTH_TOKEN_BYTES_MAX
        await court.identity(filled)

    run(judge())


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_each_way_of_signing(algorithm: str) -> None:
    async def judge() -> None:
        court = Court(custom(KEYS, algorithm))
        token = signing.sign(good(), algorithm)
        assert (await court.identity(token))["subject"] == "ada"
        head, payload, signature = token.split(b".")
        forged = head + b"." + payload + b"." + part(bytes(len(signature) * 3 // 4))
        assert (await court.refusal(forged))[0] == INVALID

    run(judge())
