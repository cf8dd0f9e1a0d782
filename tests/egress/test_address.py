"""Which addresses count as inward: a table of edges, and properties over all of both families."""

import itertools
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.egress.address import inward_kind, is_own
from skerry.egress.policy import EgressPolicy

INWARD = {
    "unspecified": ["0.0.0.0", "0.255.255.255", "::"],
    "loopback": ["127.0.0.1", "127.255.255.255", "::1"],
    "private": [
        "10.0.0.1",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "fc00::1",
        "fdff::1",
        "fd00:ec2::254",
        "fec0::1",
    ],
    "shared": ["100.64.0.1", "100.100.100.200", "100.127.255.255"],
    "link-local": ["169.254.169.254", "fe80::1", "fe80::1%lo", "febf::1", "2606:4700::1%1"],
    "metadata": ["168.63.129.16"],
    "reserved": [
        "192.0.0.192",
        "192.88.99.1",
        "240.0.0.1",
        "255.255.255.255",
        "2001:10::1",
        "3ffe::1",
        "4000::1",
        "100::1",
    ],
    "documentation": ["192.0.2.1", "198.51.100.1", "203.0.113.1", "2001:db8::1", "3fff::1"],
    "benchmarking": ["198.18.0.1", "198.19.255.255", "2001:2::1"],
    "multicast": ["224.0.0.1", "239.255.255.255", "ff02::1"],
    "IPv4-mapped": ["::ffff:127.0.0.1", "::ffff:8.8.8.8"],
    "NAT64": ["64:ff9b::7f00:1", "64:ff9b:1::1"],
    "6to4": ["2002:7f00:1::1"],
    "Teredo": ["2001:0:1::1"],
}
COMPATIBLE = ["::127.0.0.1", "::8.8.8.8", "::2"]
PUBLIC = [
    "1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255", "128.0.0.0",
    "169.253.255.255", "169.255.0.0", "172.15.255.255", "172.32.0.0", "192.167.255.255", "192.169.0.0",
    "198.17.255.255", "198.20.0.0", "223.255.255.255", "168.63.129.15", "168.63.129.17", "2001:200::1",
    "2001:4860:4860::8888",
    "2003::1", "2606:4700:4700::1111", "2a00:1450::1",
]  # fmt: skip


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind, texts in INWARD.items() for text in texts])
def test_inward_addresses_are_named(kind: str, text: str) -> None:
    assert inward_kind(ip_address(text)) == kind


@pytest.mark.parametrize("text", COMPATIBLE)
def test_addresses_with_an_ipv4_address_inside_never_pass(text: str) -> None:
    assert inward_kind(ip_address(text)) is not None


@pytest.mark.parametrize("text", PUBLIC)
def test_public_addresses_pass(text: str) -> None:
    assert inward_kind(ip_address(text)) is None
    assert EgressPolicy().refusal("host.test", 443, ip_address(text)) is None


def _is_special(address: IPv4Address | IPv6Address) -> bool:
    return (
        address.is_private
        or address.is_loopback
        or address.is_link_local
        or address.is_multicast
        or address.is_reserved
        or address.is_unspecified
    )


@given(st.ip_addresses(v=4))
def test_no_ipv4_address_passes_that_the_standard_library_calls_special(address: IPv4Address) -> None:
    assert not _is_special(address) or inward_kind(address) is not None


@given(st.ip_addresses(v=6))
def test_no_ipv6_address_passes_that_is_special_or_carries_another(address: IPv6Address) -> None:
    carries = address.ipv4_mapped or address.sixtofour or address.teredo
    assert not (_is_special(address) or address.is_site_local or carries) or inward_kind(address) is not None


@given(st.ip_addresses(v=4))
def test_no_way_to_write_an_ipv4_address_in_ipv6_passes(address: IPv4Address) -> None:
    number = int(address)
    for base, shift in (("::", 0), ("::ffff:0:0", 0), ("64:ff9b::", 0), ("2002::", 80), ("2001::", 0), ("2001::", 64)):
        assert inward_kind(IPv6Address(int(IPv6Address(base)) | number << shift)) is not None


def test_own_addresses_are_known_from_the_kernel() -> None:
    assert is_own(ip_address("127.0.0.1"))
    assert is_own(ip_address("127.9.9.9"))
    assert not is_own(ip_address("8.8.8.8"))
    assert not is_own(ip_address("2001:4860:4860::8888"))
    for address in _interface_addresses():
        assert is_own(address), address


def _interface_addresses() -> list[IPv4Address | IPv6Address]:
    """What the kernel lists, link-local addresses aside: without a zone they are nobody's."""
    found: list[IPv4Address | IPv6Address] = []
    lines = [line.split() for line in Path("/proc/net/fib_trie").read_text().splitlines()]
    for before, line in itertools.pairwise(lines):
        if line[:3] == ["/32", "host", "LOCAL"]:
            found.append(IPv4Address(before[1]))
    try:
        entries = [line.split() for line in Path("/proc/net/if_inet6").read_text().splitlines()]
    except OSError:
        entries = []  # a kernel without IPv6
    found += [IPv6Address(int(entry[0], 16)) for entry in entries]
    return [address for address in found if not address.is_link_local]
