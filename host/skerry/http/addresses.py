"""Which deployment an address means.

    Host: NAME.localhost[:port]   deployment NAME, with all of its routes
    Host: NAME.DOMAIN[:port]      the same, for a server that was given a domain
    any other Host, or none       by the path: /d/NAME/api/... is NAME's API; anything else the default deployment's

A site belongs to a host name and never to a path, so that a browser keeps the sites of two deployments apart. What a
`Host` header may be is decided here, byte by byte: upper case and one trailing dot mean the same name, a port is
ignored, what is no host name at all is refused. The target of a request in absolute form counts in the header's place.

Deliberately absent: deciding whether a deployment exists.
"""

import re
from collections.abc import Callable
from typing import Final
from urllib.parse import unquote

from skerry.errors import ClientError
from skerry.limits import HTTP_HOST_BYTES_MAX, HTTP_HOSTS_REMEMBERED_MAX

DEVELOPMENT_DOMAIN: Final = "localhost"
PREFIX: Final = "/d/"
_OPERATED: Final = "/host/deployments/"
_HOST: Final = re.compile(rb"(?:\[[0-9a-fA-F:.]{2,45}\]|[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_.])?)(?::[0-9]{0,5})?")
_DOMAIN: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*")
_SCHEME: Final = re.compile(rb"https?://([^/?#]*)", re.IGNORECASE)


class Addresses:
    """What host names mean on one server. Shape: `domain` in lower case, None without one."""

    def __init__(self, domain: str | None) -> None:
        domains = {DEVELOPMENT_DOMAIN} if domain is None else {DEVELOPMENT_DOMAIN, domain}
        self._suffixes = tuple("." + name for name in sorted(domains))
        self._known: dict[bytes, str | None] = {}

    def name_of(self, header: bytes | None) -> str | None:
        """The deployment that a `Host` header names, None where it names none. Raises: ClientError `HostHeaderInvalid`.

        Limits: HTTP_HOST_BYTES_MAX; the answers to HTTP_HOSTS_REMEMBERED_MAX headers are remembered.
        """
        if header is None:
            return None
        known = self._known
        if header in known:
            return known[header]
        name = self._name_of(header)
        if len(known) >= HTTP_HOSTS_REMEMBERED_MAX:
            known.clear()
        known[header] = name
        return name

    def _name_of(self, header: bytes) -> str | None:
        if not header:
            return None
        if len(header) > HTTP_HOST_BYTES_MAX or not _HOST.fullmatch(header) or b".." in header:
            raise invalid_host()
        if header[:1] == b"[":
            return None
        host = header.partition(b":")[0].decode().lower().removesuffix(".")
        for suffix in self._suffixes:
            if host.endswith(suffix):
                return host[: -len(suffix)]
        return None


def invalid_host() -> ClientError:
    """The refusal of a request whose address is none."""
    return ClientError("HostHeaderInvalid", "The request needs one Host header with a host name and perhaps a port.")


def authority_of(target: bytes) -> bytes | None:
    """The authority in a target of absolute form, None for any other target."""
    if target[:1] == b"/":
        return None
    match = _SCHEME.match(target)
    return None if match is None else match[1]


def split_prefix(path: str) -> tuple[str, str] | None:
    """The deployment and the path behind `/d/NAME`, None without that prefix.

    Raises: ClientError `RouteNotFound` for a path behind it that is not the API's.
    """
    if not path.startswith(PREFIX):
        return None
    name, slash, rest = path[len(PREFIX) :].partition("/")
    if not name or not (slash + rest).startswith("/api/"):
        raise ClientError("RouteNotFound", "By its path a deployment has its API only: /d/<name>/api/...")
    return name, slash + rest


def addressed_by(addresses: Addresses, default: str) -> Callable[[bytes | None, bytes], str | None]:
    """How to tell the deployment of a request from its `Host` header and its target, None where it has none: then
    whoever took the request answers, as with requests that are refused."""

    def addressed(host: bytes | None, target: bytes) -> str | None:
        if target[:1] != b"/":
            host = authority_of(target) or host
            target = b"/" + target.partition(b"://")[2].partition(b"/")[2]
        try:
            name = addresses.name_of(host)
            if name is not None:
                return name
            if target[:3] != b"/d/" and target[:6] != b"/host/" and target[:8] != b"/metrics" and b"%" not in target:
                return default
            path = unquote(target.partition(b"?")[0].decode("latin-1"))
            if path.startswith(_OPERATED):
                return path[len(_OPERATED) :].partition("/")[0]
            if path in ("/metrics", "/metrics/worker") or path.startswith("/host/"):
                return None
            named = split_prefix(path)
        except ClientError:
            return None
        return default if named is None else named[0]

    return addressed


def origin_for(name: str, origin: str, domain: str | None) -> str:
    """The origin of a deployment, beside the server's own `origin`: its scheme and port, the deployment's host name."""
    scheme, _, authority = origin.partition("://")
    port = re.search(r":(\d+)$", authority)
    return f"{scheme}://{name}.{domain or DEVELOPMENT_DOMAIN}{port[0] if port else ''}"


def check_domain(domain: str) -> str:
    """The domain in lower case. Raises: ValueError where it is none."""
    lower = domain.lower().removesuffix(".")
    if len(lower) > HTTP_HOST_BYTES_MAX or not _DOMAIN.fullmatch(lower) or re.fullmatch(r"[0-9.]+", lower):
        raise ValueError(f"{domain[:80]!r} is no domain name")
    return lower
