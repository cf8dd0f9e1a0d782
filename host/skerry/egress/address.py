"""Which addresses functions may never reach: everything that is not plainly the public internet.

The rule is default-deny. An IPv6 address passes only inside 2000::/3 and outside the special blocks there; an IPv4
address passes only outside the special blocks. The blocks are the registries' (IANA special purpose, RFC 6890),
written out here because the standard library's idea of a global address changes with its version; with them, cloud
metadata services that sit in public space. Addresses that carry another one inside (IPv4-mapped and -compatible,
6to4, Teredo, NAT64) never pass, so nothing has to be unwrapped.

The host's own addresses are asked of the kernel at each check. Deliberately absent: a list of them read at the start
(interfaces come and go), and the public address of a network translator in front of the host, which the host cannot
know: the operator denies it in the policy.
"""

import errno
import socket
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

_IPV4 = {
    "unspecified": ["0.0.0.0/8"],
    "loopback": ["127.0.0.0/8"],
    "private": ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"],
    "shared": ["100.64.0.0/10"],
    "link-local": ["169.254.0.0/16"],
    # One of Azure, in public space; those of other clouds are link-local, private or shared addresses.
    "metadata": ["168.63.129.16/32"],
    "reserved": ["192.0.0.0/24", "192.88.99.0/24", "240.0.0.0/4"],
    "documentation": ["192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24"],
    "benchmarking": ["198.18.0.0/15"],
    "multicast": ["224.0.0.0/4"],
}
_IPV6 = {
    "loopback": ["::1/128"],
    "unspecified": ["::/128"],
    "IPv4-mapped": ["::ffff:0:0/96"],
    "NAT64": ["64:ff9b::/96", "64:ff9b:1::/48"],
    "private": ["fc00::/7", "fec0::/10"],
    "link-local": ["fe80::/10"],
    "multicast": ["ff00::/8"],
    "6to4": ["2002::/16"],
    "Teredo": ["2001::/32"],
    "documentation": ["2001:db8::/32", "3fff::/20"],
    "benchmarking": ["2001:2::/48"],
    "reserved": ["2001::/23", "3ffe::/16"],
}
_NETWORKS4 = [(IPv4Network(text), kind) for kind, texts in _IPV4.items() for text in texts]
_NETWORKS6 = [(IPv6Network(text), kind) for kind, texts in _IPV6.items() for text in texts]
_PUBLIC6 = ip_network("2000::/3")


def inward_kind(address: IPv4Address | IPv6Address) -> str | None:
    """The word for why an address is not public, or None for one that is.

    Source: IANA IPv4 and IPv6 Special-Purpose Address Registries.
    """
    if isinstance(address, IPv4Address):
        for network4, kind in _NETWORKS4:
            if address in network4:
                return kind
        return None
    if address.scope_id is not None:
        return "link-local"
    for network6, kind in _NETWORKS6:
        if address in network6:
            return kind
    return None if address in _PUBLIC6 else "reserved"


def is_own(address: IPv4Address | IPv6Address) -> bool:
    """Whether an address is one of this host's, as the kernel's routes say now.

    A datagram socket is connected, which sends nothing: for an address of the host's own the kernel chooses that same
    address, or one of loopback, as the source. No privilege, no parsing, and all interfaces of the network namespace
    are covered. Not seen: a network routed to the host by hand with another preferred source; deny it in the policy.
    """
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((str(address), 9))
            source = ip_address(probe.getsockname()[0])
            return source == address or source.is_loopback
    except OSError as error:
        # Without a route or a protocol family there is nothing to connect to either; anything else is not understood.
        return error.errno not in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
