"""Addresses as text: one reading, or none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from skerry import limits
from skerry.egress.target import parse_target, redirect_target
from skerry.errors import DeveloperError


@pytest.mark.parametrize(
    ("text", "host", "port", "url"),
    [
        ("http://a.test", "a.test", 80, "http://a.test/"),
        ("HTTPS://A.Test:443/x?y=%7e#f", "a.test", 443, "https://a.test/x?y=%7e"),
        ("http://a.test:8080?q", "a.test", 8080, "http://a.test:8080/?q"),
        ("http://a.test./", "a.test.", 80, "http://a.test./"),
        ("http://bücher.test/ä", "xn--bcher-kva.test", 80, "http://xn--bcher-kva.test/%C3%A4"),
        ("http://[::FFFF:127.0.0.1]:81/", "::ffff:7f00:1", 81, "http://[::ffff:7f00:1]:81/"),
        ("http://[0:0::1]/", "::1", 80, "http://[::1]/"),
        # Numbers stay names: the resolver reads them, and its answer is checked.
        ("http://0x7f.1/", "0x7f.1", 80, "http://0x7f.1/"),
        ("http://2130706433/", "2130706433", 80, "http://2130706433/"),
        # These are the same digits to every reader.
        ("http://\uff11\uff12\uff17.0.0.1/", "127.0.0.1", 80, "http://127.0.0.1/"),
        ("http://①②⑦.⓪.⓪.①/", "127.0.0.1", 80, "http://127.0.0.1/"),
        ("http://127。0。0。1/", "127.0.0.1", 80, "http://127.0.0.1/"),
    ],
)
def test_addresses_are_read(text: str, host: str, port: int, url: str) -> None:
    target = parse_target(text)
    assert (target.host, target.port, str(target.url)) == (host, port, url)
    assert target.url.raw_host == host
    assert target.url.port == port


@pytest.mark.parametrize(
    "text",
    [
        "", "a.test", "//a.test/", "/x", "ftp://a.test/", "file:///etc/passwd", "javascript:1", "http:", "http:a.test",
        "http:///x", "http://", "http://?x", "http://:80/", "http://a.test:0/", "http://a.test:65536/", "http://a.test:x/",
        "http://user@a.test/", "http://user:pass@a.test/", "http://@a.test/", "http://:@a.test/", "http://a@b@c.test/",
        "http://a.test\\@b.test/", "http:\\\\a.test\\", "http://a.test/\\x", "http://a b.test/", " http://a.test/",
        "http://a.test/ x", "http://a.test/\r\nHost: b", "http://a.test/\tx", "http://a.test/\x00", "http://a\u00a0b.test/",
        "http://127.0.0.1%2f@a.test/", "http://127%2e0.0.1/", "http://a%00.test/", "http://[fe80::1%25lo]/",
        "http://[fe80::1%lo]/", "http://[::1", "http://::1/", "http://[v1.x]/", "http://[a.test]/", "http://[1.2.3.4]/",
        "http://a[b].test/", "http://a<b.test/", "http://a.test|b/", "http://-/", "http://.test/", "http://[]/",
        "http://a.test:80:80/", "http://" + "a" * 300 + "/", "http://\ud800.test/",
    ],
)  # fmt: skip
def test_what_can_be_read_in_two_ways_is_refused(text: str) -> None:
    with pytest.raises(DeveloperError) as caught:
        parse_target(text)
    assert caught.value.code == "EgressInvalidRequest"


def test_the_length_of_an_address_is_bounded() -> None:
    base = "http://a.test/"
    parse_target(base + "x" * (limits.EGRESS_URL_CHARS_MAX - len(base)))
    with pytest.raises(DeveloperError) as caught:
        parse_target(base + "x" * (limits.EGRESS_URL_CHARS_MAX - len(base) + 1))
    assert caught.value.code == "EgressTooLarge"


def test_parsed_addresses_are_remembered_up_to_a_bound() -> None:
    for number in range(limits.EGRESS_URL_CACHE_ENTRIES_MAX + 1):
        parse_target(f"http://a.test/{number}")
    assert parse_target.cache_info().currsize == limits.EGRESS_URL_CACHE_ENTRIES_MAX


@pytest.mark.parametrize(
    ("location", "url"),
    [
        ("/y", "http://a.test:8080/y"),
        ("y?z", "http://a.test:8080/d/y?z"),
        ("../y", "http://a.test:8080/y"),
        ("?q", "http://a.test:8080/d/x?q"),
        ("//b.test/y", "http://b.test/y"),
        ("https://b.test", "https://b.test/"),
        ("http://127.0.0.1/", "http://127.0.0.1/"),
        ("/%20ä", "http://a.test:8080/%20%C3%A4"),
    ],
)
def test_redirects_are_read_relative_to_where_they_come_from(location: str, url: str) -> None:
    assert str(redirect_target(parse_target("http://a.test:8080/d/x"), location).url) == url


@pytest.mark.parametrize(
    "location",
    ["file:///x", "http://u:p@b.test/", "\\\\b.test", "http://[::1", "gopher://b.test", "http://b.test:99999/"],
)
def test_a_redirect_that_cannot_be_followed_is_refused(location: str) -> None:
    with pytest.raises(DeveloperError) as caught:
        redirect_target(parse_target("http://a.test/"), location)
    assert caught.value.code == "EgressInvalidRequest"


@given(st.text(max_size=60).map("http://".__add__) | st.text(max_size=60))
def test_any_text_has_a_safe_reading_or_none(text: str) -> None:
    try:
        target = parse_target(text)
    except DeveloperError as error:
        assert error.code == "EgressInvalidRequest"
        return
    line = target.url.raw_path_qs
    assert line.isascii() and line.isprintable() and " " not in line and line.startswith("/")
    # The text that is sent has the same host and port to the library's parser as the parts that were checked.
    again = URL(str(target.url), encoded=True)
    assert (again.raw_host, again.port, again.raw_user) == (target.host, target.port, None)
