"""What an operator may write, and what it then means."""

from ipaddress import ip_address

import pytest

from skerry.egress import Allowance, EgressPolicy


@pytest.mark.parametrize(
    ("text", "host", "network", "port"),
    [
        ("localhost:3000", "localhost", None, 3000),
        ("Api.Internal.:80", "api.internal", None, 80),
        ("127.0.0.1:3000", None, "127.0.0.1/32", 3000),
        ("[::1]:3000", None, "::1/128", 3000),
        ("10.0.0.0/8", None, "10.0.0.0/8", None),
        ("10.0.0.0/8:9000", None, "10.0.0.0/8", 9000),
        ("fd00::/8", None, "fd00::/8", None),
        ("[fd00::/8]:9000", None, "fd00::/8", 9000),
        (" 10.0.0.0/8 ", None, "10.0.0.0/8", None),
    ],
)
def test_allowances_are_read(text: str, host: str | None, network: str | None, port: int | None) -> None:
    entry = Allowance.parse(text)
    assert (entry.host, str(entry.network) if entry.network else None, entry.port) == (host, network, port)


@pytest.mark.parametrize(
    "text",
    [
        "", ":80", "localhost", "localhost:", "localhost:0", "localhost:65536", "localhost:x", "127.0.0.1", "::1",
        "[::1",
        "[::1]80", "10.0.0.1/8",
        "10.0.0.0/33", "a/b:80", "*:80", "http://a:80", "a b:80", "[localhost/8]:1", "localhost:\uff18\uff10",
    ],
)  # fmt: skip
def test_what_is_no_allowance_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        Allowance.parse(text)


@pytest.mark.parametrize("port", [0, -1, 65_536])
def test_a_port_outside_the_range_is_refused(port: int) -> None:
    with pytest.raises(ValueError, match="65535"):
        EgressPolicy.of(ports=[80, port])


def test_an_allowance_lifts_the_rule_for_exactly_what_it_names() -> None:
    policy = EgressPolicy.of(allow=["dev.test:3000", "10.1.0.0/16", "10.2.0.0/16:9000"])
    inside = ip_address("127.0.0.1")
    assert policy.refusal("dev.test", 3000, inside) is None
    assert policy.refusal("dev.test.", 3000, inside) is None
    assert policy.refusal("dev.test", 3001, inside) == "port"
    assert policy.refusal("dev.test", 80, inside) == "loopback"
    assert policy.refusal("evil.test", 3000, inside) == "port"
    assert policy.refusal("evil.dev.test", 3000, inside) == "port"
    assert policy.refusal("x.test", 443, ip_address("10.1.2.3")) is None
    assert policy.refusal("x.test", 9000, ip_address("10.1.2.3")) == "port"
    assert policy.refusal("x.test", 9000, ip_address("10.2.2.3")) is None
    assert policy.refusal("x.test", 443, ip_address("10.2.2.3")) == "private"
    assert policy.refusal("x.test", 443, ip_address("::ffff:10.1.2.3")) == "IPv4-mapped"
    assert policy.refusal("x.test", 9000, ip_address("8.8.8.8")) == "port"


def test_a_denied_network_is_refused_whatever_else_is_said() -> None:
    policy = EgressPolicy.of(allow=["dev.test:443", "10.0.0.0/8"], deny=["10.9.0.0/16", "8.8.8.0/24"])
    assert policy.refusal("dev.test", 443, ip_address("10.9.0.1")) == "denied"
    assert policy.refusal("x.test", 443, ip_address("8.8.8.8")) == "denied"
    assert policy.refusal("x.test", 443, ip_address("8.8.4.4")) is None


def test_ports_are_judged_before_a_name_is_looked_up() -> None:
    policy = EgressPolicy.of(ports=[443], allow=["dev.test:3000", "10.0.0.0/8:9000"])
    assert policy.allows_port("x.test", 443)
    assert not policy.allows_port("x.test", 80)
    assert policy.allows_port("dev.test.", 3000)
    assert not policy.allows_port("x.test", 3000)
    assert policy.allows_port("x.test", 9000)


def test_the_default_is_the_public_web() -> None:
    assert EgressPolicy().ports == {80, 443, 8080, 8443}
    assert not EgressPolicy().allows_port("mail.test", 25)
