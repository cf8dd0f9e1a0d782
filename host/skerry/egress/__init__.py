"""Egress: the only room that opens outgoing connections. What functions fetch, and what the host fetches for them.

`EgressPolicy` says where a deployment may connect to, `Egress` fetches under it, `LookupThreads` look names up. The
invariants are in the modules that keep them: one parsing of an address (`target`), default-deny for addresses that lead
inward (`address`), connections only to what was checked in the same attempt (`connector`), bounds on everything that
a peer sends (`connection`, `response`, `decode`).

Deliberately absent: cookies, caches, proxies, HTTP/2, WebSockets, files, credentials of the host.
"""

from skerry.egress.connection import OnBytes
from skerry.egress.egress import Egress, system_tls
from skerry.egress.policy import Allowance, EgressBounds, EgressPolicy
from skerry.egress.request import FetchRequest, RedirectMode
from skerry.egress.resolver import LookupThreads, Resolve
from skerry.egress.response import FetchResponse

__all__ = [
    "Egress",
    "EgressPolicy",
    "EgressBounds",
    "Allowance",
    "FetchRequest",
    "FetchResponse",
    "RedirectMode",
    "LookupThreads",
    "Resolve",
    "OnBytes",
    "system_tls",
]
