"""An address to fetch, parsed once: what is checked, what is connected to and what is sent all come from one `Target`.

Two parsers that read one text differently are how checks are passed by. So a text is taken apart here and nowhere else,
the parts are checked, and a new URL is put together from the parts; the connector and the request see only that one.
Spellings with two readings (backslashes, white space, control characters, names with user parts, percent signs in
host names, zone ids) are refused. Numbers in odd spellings (0x7f.1, 2130706433) stay names: the resolver reads them by
its own rules, and what it answers is checked.
"""

import re
from functools import lru_cache
from ipaddress import IPv6Address
from typing import NamedTuple

from yarl import URL

from skerry.errors import DeveloperError
from skerry.limits import EGRESS_URL_CACHE_ENTRIES_MAX, EGRESS_URL_CHARS_MAX

_AMBIGUOUS = re.compile(r"[\x00-\x20\x7f-\xa0\\]")
_HOST = re.compile(r"[a-z0-9_][a-z0-9_.-]{0,253}")
_DEFAULT_PORTS = {"http": 80, "https": 443}
# The library's parser trips over some brackets with an IndexError.
_UNREADABLE = (ValueError, IndexError)


class Target(NamedTuple):
    """One parsed address.

    Shape: `host` is a name in lower case or an address in its canonical text, without brackets; `url` is built from
    these parts and has no user part and no fragment.
    """

    scheme: str
    host: str
    port: int
    url: URL

    @property
    def origin(self) -> tuple[str, str, int]:
        return (self.scheme, self.host, self.port)


@lru_cache(maxsize=EGRESS_URL_CACHE_ENTRIES_MAX)
def parse_target(text: str) -> Target:
    """The target of an absolute address.

    Raises: DeveloperError EgressInvalidRequest.
    """
    try:
        return _target_of(_parsed(text))
    except _UNREADABLE as error:
        raise _invalid("The address to fetch cannot be read as a URL.") from error


def redirect_target(base: Target, location: str) -> Target:
    """The target of a Location header, which may be relative to the address that answered with it.

    Raises: DeveloperError EgressInvalidRequest.
    """
    try:
        return _target_of(base.url.join(_parsed(location)))
    except _UNREADABLE as error:
        raise _invalid("A redirect leads to an address that cannot be read.") from error


def _parsed(text: str) -> URL:
    if len(text) > EGRESS_URL_CHARS_MAX:
        raise DeveloperError("EgressTooLarge", f"An address to fetch has at most {EGRESS_URL_CHARS_MAX} characters.")
    if _AMBIGUOUS.search(text):
        raise _invalid(
            "An address to fetch has no white space, control characters or backslashes: percent-encode them."
        )
    # An ASCII text is kept as it stands: requoting changes the signatures that some addresses carry.
    return URL(text, encoded=text.isascii())


def _target_of(url: URL) -> Target:
    scheme = url.scheme.lower()
    if scheme not in _DEFAULT_PORTS:
        raise _invalid("Fetch an absolute address that starts with http:// or https://.")
    if "@" in url.raw_authority:
        raise _invalid("Leave user and password out of the address to fetch; send an Authorization header instead.")
    host = _host_of(url.raw_host or "", bracketed="[" in url.raw_authority)
    port = url.port
    if port is None or port == 0:
        raise _invalid("The address to fetch has no usable port.")
    path = url.raw_path or "/"
    if not path.startswith("/"):
        raise _invalid("The address to fetch cannot be read as a URL.")
    built = URL.build(
        scheme=scheme,
        host=f"[{host}]" if ":" in host else host,
        port=None if port == _DEFAULT_PORTS[scheme] else port,
        path=path,
        query_string=url.raw_query_string,
        encoded=True,
    )
    return Target(scheme, host, port, built)


def _host_of(raw: str, *, bracketed: bool) -> str:
    if bracketed:
        try:
            address = IPv6Address(raw)
        except ValueError as error:
            raise _invalid("The address in brackets is no IPv6 address.") from error
        if address.scope_id is not None:
            raise _invalid("Addresses with a zone cannot be fetched.")
        return str(address)
    host = raw.lower()
    if not _HOST.fullmatch(host):
        raise _invalid("The address to fetch has no usable host name.")
    return host


def _invalid(sentence: str) -> DeveloperError:
    return DeveloperError("EgressInvalidRequest", sentence)
