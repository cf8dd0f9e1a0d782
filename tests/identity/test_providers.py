"""What an auth config may say, and what an identity shows."""

from typing import Any

import pytest

from skerry.errors import ClientError
from skerry.identity import acting_user, read_providers
from skerry.identity.claims import identity_of
from skerry.identity.keys import KeySet, KeysUnusable
from skerry.limits import (
    AUTH_FIELD_CHARS_MAX,
    AUTH_PROVIDERS_MAX,
    AUTH_RSA_BITS_MAX,
    AUTH_RSA_BITS_MIN,
)
from tests.identity import signing
from tests.identity.court import custom, trusted

OIDC = {"domain": "https://a.example.com", "applicationID": "app"}
KEYS = signing.jwks(signing.public_jwk("RS256"))


def refusal(config: Any, environment: dict[str, str] | None = None) -> tuple[str, str]:
    with pytest.raises(ClientError) as caught:
        read_providers(config, environment or {})
    return caught.value.code, caught.value.message


@pytest.mark.parametrize("domain", ["a.example.com", "https://a.example.com", "https://a.example.com/"])
def test_spellings_of_an_issuer(domain: str) -> None:
    (provider,) = trusted({"domain": domain, "applicationID": "app"})
    assert provider.issuer == "https://a.example.com" and provider.is_oidc
    assert str(provider) == "OIDC(domain=https://a.example.com, app_id=app)"


def test_the_environment_is_put_in_where_the_config_names_it() -> None:
    config = {
        "providers": [{"domain": "https://\ue000HOST\ue001/\ue000TENANT\ue001", "applicationID": "\ue000APP\ue001"}]
    }
    (provider,) = read_providers(config, {"HOST": "h.example.com", "TENANT": "t", "APP": "\ue000HOST\ue001"[1:-1]})
    assert (provider.issuer, provider.audience) == ("https://h.example.com/t", "HOST")
    code, message = refusal(config, {"HOST": "h.example.com", "APP": "a"})
    assert code == "AuthConfigMissingEnvironmentVariable"
    assert message == "Environment variable TENANT is used in auth config file but its value was not set."
    for value in ("\ue000HOST", "a\ue001", "\ue000\ue000HOST\ue001\ue001"):
        assert refusal({"providers": [{**OIDC, "applicationID": value}]}, {"HOST": "x"})[0] == "InvalidAuthConfig"


def test_no_config_trusts_nobody() -> None:
    assert read_providers(None, {}) == () == read_providers({"providers": []}, {})


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ([], "an object with a list"),
        ({}, "an object with a list"),
        ({"providers": {}}, "an object with a list"),
        ({"providers": ["x"]}, "providers[0] must be an object"),
        ({"providers": [OIDC, {"domain": "x.example.com"}]}, "providers[1].applicationID must be a string"),
        ({"providers": [{"applicationID": "x"}]}, "providers[0].domain must be a string"),
        ({"providers": [{**OIDC, "domain": ""}]}, "must have 1 to"),
        ({"providers": [{**OIDC, "type": "saml"}]}, "providers[0].type"),
        ({"providers": [{**OIDC, "domain": "http://a.example.com"}]}, "https address"),
        ({"providers": [{**OIDC, "domain": "http://8.8.8.8"}]}, "https address"),
        ({"providers": [{**OIDC, "domain": "ftp://a.example.com"}]}, "https address"),
        ({"providers": [{**OIDC, "domain": "https://u:p@a.example.com"}]}, "without credentials"),
        ({"providers": [{**OIDC, "domain": "https://"}]}, "https address"),
        ({"providers": [{**OIDC, "domain": "https://a:b:c"}]}, "no address"),
        ({"providers": [custom(KEYS, "HS256")]}, "algorithm must be one of ES256, EdDSA, RS256"),
        ({"providers": [custom(KEYS, "none")]}, "algorithm must be one of"),
        ({"providers": [{**custom(KEYS), "jwks": 5}]}, "providers[0].jwks must be a string"),
        ({"providers": [{**custom(KEYS), "jwks": "file:///etc/passwd"}]}, "https address"),
        ({"providers": [{**custom(KEYS), "applicationID": 5}]}, "applicationID must be a string"),
        ({"providers": [{**OIDC, "applicationID": "a" * (AUTH_FIELD_CHARS_MAX + 1)}]}, "must have 1 to"),
        ({"providers": [OIDC] * (AUTH_PROVIDERS_MAX + 1)}, f"more than {AUTH_PROVIDERS_MAX}"),
    ],
)
def test_a_config_that_is_not_valid(config: Any, words: str) -> None:
    code, message = refusal(config)
    assert code == "InvalidAuthConfig" and words in message, message


def test_a_config_at_its_bounds() -> None:
    assert len(read_providers({"providers": [OIDC] * AUTH_PROVIDERS_MAX}, {})) == AUTH_PROVIDERS_MAX
    assert trusted({**OIDC, "applicationID": "a" * AUTH_FIELD_CHARS_MAX})
    near = ("http://localhost:1", "http://127.0.0.1:1", "http://backend:3210", "http://id.internal", "http://[::1]:1")
    for domain in near:
        assert trusted({**OIDC, "domain": domain})


@pytest.mark.parametrize(
    ("bits", "is_usable"),
    [
        (AUTH_RSA_BITS_MIN - 8, False),
        (AUTH_RSA_BITS_MIN, True),
        (AUTH_RSA_BITS_MAX, True),
        (AUTH_RSA_BITS_MAX + 8, False),
    ],
)
def test_sizes_of_rsa_keys(bits: int, is_usable: bool) -> None:
    # An odd number of that size is a modulus as far as anybody can tell who does not take it apart.
    modulus = signing.number_text((1 << (bits - 1)) + 1)
    raw = signing.jwks({"kty": "RSA", "kid": "a", "n": modulus, "e": "AQAB"})
    if is_usable:
        assert KeySet(raw).find("a", "RS256") is not None
    else:
        with pytest.raises(KeysUnusable):
            KeySet(raw)


@pytest.mark.parametrize(
    "changes",
    [
        {"use": "enc"},
        {"alg": "RS512"},
        {"alg": "HS256"},
        {"key_ops": ["sign"]},
        {"key_ops": "verify"},
        {"kid": 7},
        {"kid": "a" * 1025},
        {"e": None},
        {"e": "AQ"},
        {"e": "AAAAAQAB"},
        {"n": "!"},
        {"crv": "P-256"},
        {"kty": "rsa"},
    ],
)
def test_a_key_that_is_not_for_this(changes: dict[str, Any]) -> None:
    with pytest.raises(KeysUnusable):
        KeySet(signing.jwks(signing.public_jwk("RS256", **changes)))


def test_which_key_a_token_means() -> None:
    two = KeySet(signing.jwks(signing.public_jwk("RS256"), signing.public_jwk("RS256", 1), signing.public_jwk("ES256")))
    assert two.find("key-0", "RS256") is not None and two.find("key-0", "ES256") is not None
    assert two.find("key-1", "ES256") is None and two.find("key-2", "RS256") is None
    assert two.find(None, "ES256") is not None, "the only one of its kind"
    assert two.find(None, "RS256") is None, "no guessing among several"
    same = KeySet(signing.jwks(signing.public_jwk("RS256", kid="a"), signing.public_jwk("RS256", 1, kid="a")))
    assert same.find("a", "RS256") is None
    private = signing.jwks({**signing.public_jwk("RS256"), "d": "AQAB"})
    assert KeySet(private).find("key-0", "RS256") is not None, "only its public part is read"


def test_what_an_identity_of_openid_connect_shows() -> None:
    (provider,) = trusted(OIDC)
    claims = signing.claims(
        0, name="N", given_name="G", family_name="F", nickname="K", preferred_username="P", profile="p", picture="i",
        website="w", email="e", email_verified="true", gender="x", birthdate="b", zoneinfo="z", locale="l",
        phone_number="1", phone_number_verified=False, address={"formatted": "A", "country": "C"}, updated_at=86_400,
        jti="1", nbf=0, fva=[1], nonce="n", at_hash="h", auth_time=1, azp="z", roles=["a"],
        org={"id": 1, "deep": {"er": None}, "none": {}}, issuer="evil", subject="evil",
        tokenIdentifier="evil", middle_name="M",
    )  # fmt: skip
    assert identity_of(claims, provider) == {
        "tokenIdentifier": f"{signing.ISSUER}|ada", "issuer": signing.ISSUER, "subject": "ada", "name": "N",
        "givenName": "G", "familyName": "F", "nickname": "K", "preferredUsername": "P", "profileUrl": "p",
        "pictureUrl": "i", "websiteUrl": "w", "email": "e", "emailVerified": True, "gender": "x", "birthday": "b",
        "timezone": "z", "language": "l", "phoneNumber": "1", "phoneNumberVerified": False, "address": "A",
        "updatedAt": "1970-01-02T00:00:00+00:00", "roles": ["a"], "org.id": 1, "org.deep.er": None, "org.none": {},
        "middle_name": "M",
    }  # fmt: skip


def test_what_an_identity_leaves_out_where_a_claim_is_of_another_type() -> None:
    (provider,) = trusted(OIDC)
    claims = signing.claims(0, name=5, email_verified="yes", address="A", updated_at=1e18, locale=["l"], email=None)
    assert set(identity_of(claims, provider)) == {"tokenIdentifier", "issuer", "subject"}
    assert identity_of(signing.claims(0, updated_at="2024-01-01"), provider)["updatedAt"] == "2024-01-01"


def test_what_an_identity_of_a_custom_token_shows() -> None:
    (provider,) = trusted(custom(KEYS))
    claims = signing.claims(0, given_name="G", email_verified="true", jti="1", nbf=0, a={"b": {"c": 1}}, **{"a.b.c": 2})
    assert identity_of(claims, provider) == {
        "tokenIdentifier": f"{signing.ISSUER}|ada", "issuer": signing.ISSUER, "subject": "ada", "given_name": "G",
        "email_verified": "true", "jti": "1", "nbf": 0, "a.b.c": 1,
    }  # fmt: skip


def test_whom_an_admin_acts_as() -> None:
    assert acting_user({"issuer": "i", "subject": "s", "x": 1}) == {
        "issuer": "i", "subject": "s", "x": 1, "tokenIdentifier": "i|s"
    }  # fmt: skip
    assert acting_user({"tokenIdentifier": "t"}) == {"tokenIdentifier": "t"}
    for given in (
        {},
        {"issuer": "i"},
        {"subject": "s"},
        {"issuer": 1, "subject": "s"},
        {"tokenIdentifier": 5},
        [],
        None,
    ):
        with pytest.raises(ClientError) as caught:
            acting_user(given)
        assert caught.value.code == "HeaderParseFailure"
