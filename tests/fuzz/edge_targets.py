"""Targets at the edges of the host: keys and addresses that come in, addresses and bodies of what functions fetch."""

import hashlib
import re

from skerry.admin.access import KeyRecord, find_key, new_key
from skerry.egress.decode import Decoder
from skerry.egress.policy import EgressBounds
from skerry.egress.request import FetchRequest, prepare
from skerry.egress.target import parse_target, redirect_target
from skerry.errors import ClientError, DeveloperError
from skerry.http.addresses import Addresses, authority_of, split_prefix
from tests.fuzz.draw import Draw

NAME = "shop"
NOW_MS = 1_760_000_000_000
_HOSTS = ("shop.localhost", "shop.example.org", "127.0.0.1", "[::1]", "example.org", "a.b.localhost", "2130706433")
_TARGETS = (
    "http://example.org/a?b=c",
    "https://example.org:8443/",
    "http://[2001:db8::1]:80/x",
    "//host/path",
    "../up",
)
_HEADERS = ("Host", "content-length", "Transfer-Encoding", "Cookie", "x", "Proxy-Auth", "USER-AGENT", "accept-encoding")
_KINDS = ("gzip", "deflate")


def keys(data: bytes) -> None:
    """Only the text of a key, at its time, is that key."""
    draw = Draw(data)
    stream = hashlib.shake_128(b"keys of the fuzzer")
    scope = draw.pick(("read", "deploy", "admin"))
    record, text = new_key(NAME, scope, "", NOW_MS + 1, NOW_MS, lambda length: stream.digest(length))
    known: dict[str, KeyRecord] = {record.id: record}
    sent = bytearray(text.encode())
    for _ in range(draw.byte() % 4):
        at = draw.byte() % len(sent)
        sent[at : at + draw.byte() % 3] = draw.take(draw.byte() % 3)
    for attempt in (bytes(sent), draw.rest()):
        found = find_key(attempt, NAME, known.get, NOW_MS)
        assert (found is not None) == (attempt == text.encode())
        assert find_key(attempt, "other", known.get, NOW_MS) is None
        assert find_key(attempt, NAME, known.get, NOW_MS + 1) is None


def addresses(data: bytes) -> None:
    """A host name means one deployment whatever its spelling, and a path only an API."""
    draw = Draw(data)
    header = (draw.pick(_HOSTS).encode() if draw.byte() % 2 else b"") + draw.short_bytes()
    table = Addresses("example.org")
    try:
        name = table.name_of(header)
        assert table.name_of(header) == name == Addresses("example.org").name_of(header.upper())
        assert name is None or re.fullmatch(r"[a-z0-9_.-]+", name)
    except ClientError as error:
        assert error.code == "HostHeaderInvalid"
    path = ("/d/" if draw.byte() % 2 else "") + draw.rest().decode("latin-1")
    authority_of(path.encode("latin-1"))
    try:
        split = split_prefix(path)
    except ClientError as error:
        assert error.code == "RouteNotFound"
    else:
        assert split is None or (split[1].startswith("/api/") and "/" not in split[0] and split[0])


def fetches(data: bytes) -> None:
    """What goes out is what was checked: one reading of an address, no header that ends a line, no body without end."""
    draw = Draw(data)
    base = parse_target(_TARGETS[0])
    text = (draw.pick(_TARGETS) if draw.byte() % 2 else "http://") + draw.short_bytes().decode("utf-8", "replace")
    for read in (parse_target, lambda location: redirect_target(base, location)):
        try:
            target = read(text)
        except DeveloperError:
            continue
        again = parse_target(str(target.url))
        assert again == target and target.url.raw_host == target.host and target.url.port == target.port
        assert not re.search(r"[\x00-\x20\x7f]", str(target.url))
    headers = [(draw.pick(_HEADERS) if draw.byte() % 2 else draw.text(), draw.text()) for _ in range(draw.byte() % 6)]
    try:
        prepared = prepare(FetchRequest(draw.text(), _TARGETS[0], headers), EgressBounds(), "fuzz")
    except DeveloperError:
        pass
    else:
        for name, value in prepared.headers.items():
            assert re.fullmatch(r"[!-~]+", name) and re.fullmatch(r"[\t -~]*", value)
            assert name.lower() not in ("host", "content-length", "transfer-encoding", "connection")
    _decode(draw)


def _decode(draw: Draw) -> None:
    decoder = Decoder(draw.pick(_KINDS))
    room = draw.byte() + 1
    try:
        while not draw.is_empty:
            decoder.feed(draw.short_bytes())
            while out := decoder.take(room):
                assert len(out) <= room
        decoder.finish()
    except DeveloperError:
        pass
