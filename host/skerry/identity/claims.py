"""What a token claims: when it holds, and what functions see of it (`ctx.auth.getUserIdentity()`).

Source: protocol reference 7.2 (times), 7.4 (names). Claims that only speak of the token itself are not shown, so that a
refreshed token of the same user is the same identity, and no live query runs again for it.
"""

from datetime import UTC, datetime
from typing import Any, Final, cast

import orjson

from skerry.errors import ClientError
from skerry.identity.providers import Provider
from skerry.identity.tokens import invalid_token
from skerry.limits import AUTH_CLOCK_SKEW_SECONDS

# How the claims that OpenID Connect knows are called in an identity.
_NAMES: Final = {
    "name": "name",
    "given_name": "givenName",
    "family_name": "familyName",
    "nickname": "nickname",
    "preferred_username": "preferredUsername",
    "profile": "profileUrl",
    "picture": "pictureUrl",
    "website": "websiteUrl",
    "email": "email",
    "gender": "gender",
    "birthdate": "birthday",
    "zoneinfo": "timezone",
    "locale": "language",
    "phone_number": "phoneNumber",
}
_FLAGS: Final = {"email_verified": "emailVerified", "phone_number_verified": "phoneNumberVerified"}
_FLAG_WORDS: Final = {"true": True, "false": False}  # which some providers send
# Shown under names of their own, or not at all.
_KNOWN: Final = frozenset(("iss", "sub", "aud", "exp", "iat"))
_OF_THE_TOKEN: Final = frozenset(
    ("jti", "nbf", "fva", "nonce", "at_hash", "c_hash", "s_hash", "auth_time", "acr", "amr", "azp")
)
_OURS: Final = frozenset(("tokenIdentifier", "issuer", "subject"))
_SECONDS_MAX: Final = 2**53
_YEAR_10000: Final = 253_402_300_800


def issuer_of(claims: dict[str, Any]) -> str:
    """Who issued a token, by its own word. Raises: ClientError `InvalidAuthHeader`."""
    return _claimed(claims, "iss")


def is_for(claims: dict[str, Any], audience: str) -> bool:
    """Whether a token is for this audience, among others or alone."""
    given = claims.get("aud")
    return given == audience or (isinstance(given, list) and audience in given)


def check_claims(claims: dict[str, Any], provider: Provider, now_s: float) -> float:
    """When a token stops to hold, if it holds now; in seconds since the epoch.

    Raises: ClientError `InvalidAuthHeader`, and `Unauthenticated` for a token of OpenID Connect that can be read.
    """
    _claimed(claims, "sub")
    expires_s = _seconds(claims, "exp")
    if expires_s is None:
        raise invalid_token("Could not parse JWT payload: it has no 'exp', the time it expires.")
    issued_s, from_s = _seconds(claims, "iat"), _seconds(claims, "nbf")
    if provider.is_oidc and issued_s is None:
        raise invalid_token("Could not parse as OpenID Connect ID token: it has no 'iat', the time it was issued.")
    if issued_s is not None and issued_s > now_s + AUTH_CLOCK_SKEW_SECONDS:
        raise invalid_token(
            "Could not validate token: 'iat' is in the future. This can be due to timing issues: compare the clocks."
        )
    if provider.is_oidc and isinstance(claims.get("aud"), list) and len(claims["aud"]) != 1:
        raise refused(provider, "it is for more than one audience")
    if expires_s + AUTH_CLOCK_SKEW_SECONDS <= now_s:
        raise refused(provider, "it has expired")
    if from_s is not None and from_s > now_s + AUTH_CLOCK_SKEW_SECONDS:
        raise refused(provider, "it is not valid yet ('nbf')")
    return expires_s


def refused(provider: Provider, why: str) -> ClientError:
    """The error of a token of this provider that could be read, and is not valid."""
    if provider.is_oidc:
        return ClientError("Unauthenticated", f"Could not verify OIDC token claim. Check the token: {why}.")
    return invalid_token(f"Could not decode token: {why}.")


def identity_of(claims: dict[str, Any], provider: Provider) -> dict[str, Any]:
    """What functions see of a user. Raises: ClientError `InvalidAuthHeader` for what no function could be given."""
    issuer, subject = _claimed(claims, "iss"), _claimed(claims, "sub")
    identity: dict[str, Any] = {"tokenIdentifier": f"{issuer}|{subject}", "issuer": issuer, "subject": subject}
    hidden = _KNOWN
    if provider.is_oidc:
        hidden = hidden | _OF_THE_TOKEN | _NAMES.keys() | _FLAGS.keys() | {"address", "updated_at"}
        _add_known(identity, claims)
    for name, value in claims.items():
        if name not in hidden and name not in _OURS:
            _add(identity, name, value)
    try:
        orjson.dumps(identity)
    except TypeError:  # half of a surrogate pair, or an integer of more than 64 bits
        raise invalid_token("Could not parse JWT payload: it has a text or a number that is not valid.") from None
    return identity


def acting_user(given: Any) -> dict[str, Any]:
    """The identity that an admin acts as. Raises: ClientError `HeaderParseFailure`."""
    fields = cast("dict[str, Any]", given) if isinstance(given, dict) else {}
    issuer, subject = fields.get("issuer"), fields.get("subject")
    if type(fields.get("tokenIdentifier")) is str:
        return fields
    if type(issuer) is not str or type(subject) is not str:
        raise ClientError(
            "HeaderParseFailure", "The identity to act as must have a tokenIdentifier, or an issuer and a subject."
        )
    return {**fields, "tokenIdentifier": f"{issuer}|{subject}"}


def _add_known(identity: dict[str, Any], claims: dict[str, Any]) -> None:
    for name, shown in _NAMES.items():
        value = claims.get(name)
        if type(value) is str:
            identity[shown] = value
    for name, shown in _FLAGS.items():
        value = claims.get(name)
        flag = _FLAG_WORDS.get(value) if type(value) is str else value
        if type(flag) is bool:
            identity[shown] = flag
    address = claims.get("address")
    formatted = cast("dict[str, Any]", address).get("formatted") if isinstance(address, dict) else None
    if type(formatted) is str:
        identity["address"] = formatted
    updated = claims.get("updated_at")
    if type(updated) is str:
        identity["updatedAt"] = updated
    elif type(updated) in (int, float) and 0 <= cast("float", updated) < _YEAR_10000:
        identity["updatedAt"] = datetime.fromtimestamp(cast("float", updated), UTC).isoformat()


def _add(identity: dict[str, Any], name: str, value: Any) -> None:
    """Adds a claim; what is nested gets the path to it as its name."""
    if isinstance(value, dict) and value:
        for inner, part in cast("dict[str, Any]", value).items():
            _add(identity, f"{name}.{inner}", part)
    elif name not in identity:
        identity[name] = value


def _claimed(claims: dict[str, Any], name: str) -> str:
    value = claims.get(name)
    if type(value) is not str or not value:
        raise invalid_token(f"Could not parse JWT payload: its '{name}' must be a string that is not empty.")
    return value


def _seconds(claims: dict[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    if type(value) not in (int, float) or not 0 <= value <= _SECONDS_MAX:
        raise invalid_token(f"Could not parse JWT payload: its '{name}' must be a time in seconds since 1970.")
    return float(value)
