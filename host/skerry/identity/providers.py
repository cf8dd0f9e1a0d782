"""Whom a deployment trusts: the providers that an app's `convex/auth.config.ts` names.

The config is a template: where it reads an environment variable, its text has the variable's name between two marks
(guest_sdk/ABI.md, *Describe*), and here the deployment's value is put in. So an image belongs to no deployment, and
the same bundle trusts different providers in two deployments.

Source: protocol reference 7.1; what a provider may be is decided here once, at the deploy.
"""

import re
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Final, cast
from urllib.parse import urlsplit

from skerry.errors import ClientError
from skerry.limits import AUTH_FIELD_CHARS_MAX, AUTH_PROVIDERS_MAX

ALGORITHMS: Final = frozenset(("RS256", "ES256", "EdDSA"))
"""The ways of signing that are verified; each asks for a kind of key of its own."""

_VARIABLE: Final = re.compile("\ue000([^\ue000\ue001]{0,256})\ue001")
_MARKS: Final = re.compile("[\ue000\ue001]")


@dataclass(frozen=True, slots=True)
class Provider:
    """One provider.

    Shape: `issuer` normalised; `audience` what tokens must be for, None where that is not asked; `jwks` where its keys
    are (an address or a `data:` URI), None where its discovery document says that; `algorithms` it may sign with.
    """

    issuer: str
    audience: str | None
    jwks: str | None
    algorithms: frozenset[str]

    @property
    def is_oidc(self) -> bool:
        """Whether it is an OpenID Connect provider, and not one of custom tokens."""
        return self.jwks is None

    def __str__(self) -> str:
        kind, name = ("OIDC", "domain") if self.is_oidc else ("CustomJWT", "issuer")
        return f"{kind}({name}={self.issuer}, app_id={self.audience or 'none'})"


def read_providers(config: Any, environment: dict[str, str]) -> tuple[Provider, ...]:
    """The providers of an app's config, with the deployment's environment variables put in.

    Raises: ClientError `InvalidAuthConfig`, `AuthConfigMissingEnvironmentVariable`. Limits: AUTH_PROVIDERS_MAX,
    AUTH_FIELD_CHARS_MAX.
    """
    if config is None:
        return ()
    listed = cast("dict[str, Any]", config).get("providers") if isinstance(config, dict) else None
    if not isinstance(listed, list):
        raise _invalid("its default export must be an object with a list of providers")
    entries = cast("list[Any]", listed)
    if len(entries) > AUTH_PROVIDERS_MAX:
        raise _invalid(f"it has more than {AUTH_PROVIDERS_MAX} providers")
    return tuple(_provider(number, entry, environment) for number, entry in enumerate(entries))


def normalised_issuer(issuer: str) -> str:
    """An issuer as two spellings of it are compared: with a scheme, without a slash at its end."""
    if "://" not in issuer:
        issuer = "https://" + issuer
    return issuer.removesuffix("/")


def check_address(address: str, what: str) -> None:
    """Refuses what keys cannot be fetched from: https, or plain http to this machine or a private network.

    Raises: ClientError `InvalidAuthConfig`.
    """
    try:
        parts = urlsplit(address)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        raise _invalid(f"{what} is no address") from None
    if not host or parts.scheme not in ("https", "http") or parts.username is not None or parts.fragment:
        raise _invalid(f"{what} must be an https address without credentials and fragment")
    if parts.scheme == "http" and not _is_near(host):
        raise _invalid(f"{what} must be an https address: whoever is on the way could put in keys of his own")


def _is_near(host: str) -> bool:
    try:
        return not ip_address(host).is_global
    except ValueError:
        return "." not in host or host.endswith((".localhost", ".internal", ".local"))


def _provider(number: int, entry: Any, environment: dict[str, str]) -> Provider:
    place = f"providers[{number}]"
    if not isinstance(entry, dict):
        raise _invalid(f"{place} must be an object")
    fields = cast("dict[str, Any]", entry)
    kind = fields.get("type")
    if kind == "customJwt":
        return _custom(place, fields, environment)
    if kind not in (None, "oidc"):
        raise _invalid(f'{place}.type must be "customJwt", or left out for an OpenID Connect provider')
    issuer = normalised_issuer(_text(place, fields, "domain", environment))
    check_address(issuer, f"{place}.domain")
    return Provider(issuer, _text(place, fields, "applicationID", environment), None, ALGORITHMS)


def _custom(place: str, fields: dict[str, Any], environment: dict[str, str]) -> Provider:
    issuer = _text(place, fields, "issuer", environment)
    jwks = _text(place, fields, "jwks", environment)
    algorithm = _text(place, fields, "algorithm", environment)
    if algorithm not in ALGORITHMS:
        raise _invalid(f"{place}.algorithm must be one of {', '.join(sorted(ALGORITHMS))}")
    if not jwks.startswith("data:"):
        check_address(jwks, f"{place}.jwks")
    given = fields.get("applicationID")
    audience = None if given is None else _text(place, fields, "applicationID", environment)
    return Provider(normalised_issuer(issuer), audience, jwks, frozenset((algorithm,)))


def _text(place: str, fields: dict[str, Any], name: str, environment: dict[str, str]) -> str:
    value = fields.get(name)
    if not isinstance(value, str):
        raise _invalid(f"{place}.{name} must be a string")

    def variable(found: re.Match[str]) -> str:
        content = environment.get(found[1])
        if content is None:
            raise ClientError(
                "AuthConfigMissingEnvironmentVariable",
                f"Environment variable {found[1]} is used in auth config file but its value was not set.",
            )
        return content

    text = _VARIABLE.sub(variable, value)
    if not text or len(text) > AUTH_FIELD_CHARS_MAX or _MARKS.search(text):
        raise _invalid(f"{place}.{name} must have 1 to {AUTH_FIELD_CHARS_MAX} characters")
    return text


def _invalid(why: str) -> ClientError:
    return ClientError("InvalidAuthConfig", f"The auth config is not valid: {why}.")
