"""What a deployment's functions may reach, and the bounds on it.

A policy is a value: it is made once, checked when it is made, and never changes; another policy is another `Egress`.
The default is the public internet on the usual ports. Two lists change that: `denied` networks are refused whatever
else is said, and each *allowance* lifts the rule about inward addresses, and the port list where it names a port, for
exactly what it names. Allowances are meant for development and for services of the operator's own.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

from skerry import limits
from skerry.egress.address import inward_kind, is_own

PORTS_DEFAULT = frozenset({80, 443, 8080, 8443})

_HOST_NAME = re.compile(r"[a-z0-9_][a-z0-9_.-]{0,252}")


@dataclass(frozen=True, slots=True)
class EgressBounds:
    """The bounds of one deployment's fetches; those of `limits` unless a deployment gets smaller ones.

    Units: bytes and seconds, as the names say.
    """

    request_body_bytes: int = limits.EGRESS_REQUEST_BODY_BYTES_MAX
    response_wire_bytes: int = limits.EGRESS_RESPONSE_WIRE_BYTES_MAX
    response_bytes: int = limits.EGRESS_RESPONSE_BYTES_MAX
    connections: int = limits.EGRESS_CONNECTIONS_MAX
    fetches_waiting: int = limits.EGRESS_FETCHES_WAITING_MAX
    wait_seconds: float = limits.EGRESS_WAIT_SECONDS_MAX
    lookup_seconds: float = limits.EGRESS_LOOKUP_SECONDS_MAX
    connect_seconds: float = limits.EGRESS_CONNECT_SECONDS_MAX
    answer_seconds: float = limits.EGRESS_ANSWER_SECONDS_MAX
    silence_seconds: float = limits.EGRESS_SILENCE_SECONDS_MAX
    total_seconds: float = limits.EGRESS_TOTAL_SECONDS_MAX
    check_seconds: float = limits.EGRESS_CHECK_SECONDS_MAX


@dataclass(frozen=True, slots=True)
class Allowance:
    """One exception: a host name with a port, or a network with or without one.

    Shape: `host` in lower case without a last dot, or `network`; a network without a port means the listed ports.
    """

    host: str | None
    network: IPv4Network | IPv6Network | None
    port: int | None

    @classmethod
    def parse(cls, text: str) -> "Allowance":
        """Reads `name:port`, `address:port`, `network/bits` or `network/bits:port`; IPv6 with a port in brackets.

        Raises: ValueError, with a sentence for the operator.
        """
        inner, port = _split_port(text.strip())
        try:
            network = ip_network(inner)
        except ValueError:
            network = None
        if network is None:
            host = inner.lower().removesuffix(".")
            if "/" in inner or not _HOST_NAME.fullmatch(host):
                raise ValueError(f"{text!r} is neither host:port nor a network such as 10.0.0.0/8 or 10.0.0.0/8:8080")
            if port is None:
                raise ValueError(f"{text!r} allows a host; name the port too, as in {host}:3000")
            return cls(host, None, port)
        if port is None and "/" not in inner:
            raise ValueError(f"{text!r} allows one address; name the port too, or write a network such as {network}")
        return cls(None, network, port)


@dataclass(frozen=True, slots=True)
class EgressPolicy:
    """Where one deployment's functions may connect to.

    Shape: `ports` are those of public addresses; `allowed` are exceptions (see `Allowance`); `denied` networks are
    refused even where an exception names them.
    """

    ports: frozenset[int] = PORTS_DEFAULT
    allowed: tuple[Allowance, ...] = ()
    denied: tuple[IPv4Network | IPv6Network, ...] = ()
    bounds: EgressBounds = field(default_factory=EgressBounds)

    @classmethod
    def of(
        cls,
        *,
        ports: Iterable[int] = PORTS_DEFAULT,
        allow: Iterable[str] = (),
        deny: Iterable[str] = (),
        bounds: EgressBounds | None = None,
    ) -> "EgressPolicy":
        """The policy that an operator wrote as text.

        Raises: ValueError, with a sentence for the operator.
        """
        listed = frozenset(ports)
        if not all(0 < port < 65_536 for port in listed):
            raise ValueError("ports are numbers from 1 to 65535")
        return cls(
            listed,
            tuple(Allowance.parse(text) for text in allow),
            tuple(ip_network(text) for text in deny),
            bounds or EgressBounds(),
        )

    def allows_port(self, host: str, port: int) -> bool:
        """Whether some address of the host could be reached on the port: asked before a name is looked up."""
        if port in self.ports:
            return True
        name = host.removesuffix(".")
        return any(port == entry.port and entry.host in (None, name) for entry in self.allowed)

    def refusal(self, host: str, port: int, address: IPv4Address | IPv6Address) -> str | None:
        """The word for why an address of the host must not be connected to, or None where it may."""
        if any(address in network for network in self.denied):
            return "denied"
        if self._is_allowed(host.removesuffix("."), port, address):
            return None
        if port not in self.ports:
            return "port"
        kind = inward_kind(address)
        if kind is None and is_own(address):
            return "own"
        return kind

    def _is_allowed(self, name: str, port: int, address: IPv4Address | IPv6Address) -> bool:
        for entry in self.allowed:
            if entry.network is None:
                if entry.host == name and entry.port == port:
                    return True
            elif address in entry.network and (port == entry.port or (entry.port is None and port in self.ports)):
                return True
        return False


def _split_port(text: str) -> tuple[str, int | None]:
    if text.startswith("["):
        inner, closed, rest = text[1:].partition("]")
        if not closed or (rest and not rest.startswith(":")):
            raise ValueError(f"{text!r} has brackets that do not enclose an address")
        rest = rest[1:]
    elif text.count(":") > 1:
        inner, rest = text, ""
    else:
        inner, _, rest = text.partition(":")
    if not rest:
        return inner, None
    if not (rest.isascii() and rest.isdigit() and 0 < int(rest) < 65_536):
        raise ValueError(f"{text!r} ends in no port from 1 to 65535")
    return inner, int(rest)
