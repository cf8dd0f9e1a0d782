"""Attacks of actions: what they may not reach, what they may not say, what they may not use up."""

from typing import Any

from skerry.functions.operations import SERVED
from tests.hostile.case import Case, Outcome
from tests.hostile.cases_script import fails, value
from tests.hostile.ground import Ground

FETCHED = "what is fetched"
PEER = "what is fetched from"
SPENT = "time and memory of a call"


def _act(path: str, args: dict[str, Any] | None = None, kind: str = "action") -> Any:
    """Calls a function; an address that begins with `/` is on the server elsewhere."""

    def run(ground: Ground) -> Outcome:
        filled = {name: _placed(ground, given) for name, given in (args or {}).items()}
        outcome = ground.call("script", kind, f"acts:{path}", filled)
        return ("value", _shown(ground, outcome[1])) if outcome[0] == "value" else outcome

    return run


def _placed(ground: Ground, given: Any) -> Any:
    if isinstance(given, dict):
        return {name: _placed(ground, inner) for name, inner in given.items()}
    return ground.elsewhere.url + given if isinstance(given, str) and given.startswith("/") else given


def _shown(ground: Ground, given: Any) -> Any:
    if isinstance(given, list):
        return [_shown(ground, inner) for inner in given]
    return given.replace(f"127.0.0.1:{ground.elsewhere.port}", "ELSEWHERE") if isinstance(given, str) else given


def _refused(why: str, code: str | None = "EgressRefused") -> Outcome:
    return value(["TypeError", code, why])


def _inward(address: str, kind: str) -> Outcome:
    return _refused(f"fetch failed: Functions may not connect to {address}: it is no public address ({kind}).")


_NO_ADDRESS = _refused(
    "fetch failed: Fetch an absolute address that starts with http:// or https://.", "EgressInvalidRequest"
)
_LOOPBACK = _inward("127.0.0.1:80", "loopback")
_NO_PORT_22 = _refused("fetch failed: Functions may not connect to port 22.")
_NO_PORT_9 = _refused("fetch failed: Functions may not connect to port 9.")
_NO_HTTP = _refused("fetch failed: 127.0.0.1 did not answer with valid HTTP.", "EgressFailed")

_ADDRESSES: list[tuple[str, str, Outcome]] = [
    ("this machine's other ports", "http://127.0.0.1:22/", _NO_PORT_22),
    ("this machine by name", "http://localhost/", _inward("localhost:80", "loopback")),
    ("this machine by IPv6", "http://[::1]/", _inward("::1:80", "loopback")),
    ("this machine as one number", "http://2130706433/", _LOOPBACK),
    ("this machine in hexadecimal", "http://0x7f.1/", _LOOPBACK),
    ("this machine in octal", "http://0177.0.0.1/", _LOOPBACK),
    ("this machine with a last dot", "http://127.0.0.1.:80/", _LOOPBACK),
    ("this machine as mapped IPv6", "http://[::ffff:7f00:1]/", _inward("::ffff:7f00:1:80", "IPv4-mapped")),
    ("this machine through NAT64", "http://[64:ff9b::7f00:1]/", _inward("64:ff9b::7f00:1:80", "NAT64")),
    ("no address", "http://0.0.0.0/", _inward("0.0.0.0:80", "unspecified")),
    ("the metadata service", "http://169.254.169.254/", _inward("169.254.169.254:80", "link-local")),
    ("a private network", "http://10.0.0.1/", _inward("10.0.0.1:80", "private")),
    ("a carrier's network", "http://100.64.0.1/", _inward("100.64.0.1:80", "shared")),
    ("many at once", "http://224.0.0.1/", _inward("224.0.0.1:80", "multicast")),
    ("a port that is not listed", "http://1.1.1.1:22/", _NO_PORT_22),
    ("a file", "file:///etc/passwd", _NO_ADDRESS),
    ("FTP", "ftp://127.0.0.1/", _NO_ADDRESS),
    ("a data URL", "data:text/plain,hello", _NO_ADDRESS),
    (
        "a password in the address",
        "http://user:pw@127.0.0.1/",
        _refused("Request cannot be constructed from a URL that includes credentials: http://user:pw@127.0.0.1/", None),
    ),
]

_PEERS: list[tuple[str, str, Outcome]] = [
    ("a redirect to this machine", "/to-loopback", _NO_PORT_22),
    ("a redirect to this machine by name", "/to-name", _NO_PORT_9),
    ("a redirect to the metadata service", "/to-metadata", _inward("169.254.169.254:80", "link-local")),
    ("a redirect to mapped IPv6", "/to-six", _NO_PORT_9),
    ("a redirect to a file", "/to-file", _NO_ADDRESS),
    ("a redirect to itself", "/to-itself", _refused("fetch failed: A fetch follows at most 5 redirects.", "EgressFailed")),
    ("a redirect that is no address", "/to-crooked", _refused("fetch failed: A redirect leads to an address that cannot be read.", "EgressInvalidRequest")),
    (
        "a redirect with a password",
        "/to-user",
        _refused("fetch failed: Leave user and password out of the address to fetch; send an Authorization header instead.", "EgressInvalidRequest"),
    ),
    ("200 MiB in a few bytes", "/bomb", _refused("fetch failed: The body has more than 20 MiB. Read it as a stream.", "ResultTooLarge")),
    ("two lengths", "/two-lengths", _NO_HTTP),
    ("a length and chunks", "/length-and-chunks", _NO_HTTP),
    ("a length that is not kept", "/length-too-long", _refused("fetch failed: The other server broke the response off.", "EgressFailed")),
    ("a chunk of negative size", "/chunk-crooked", _NO_HTTP),
    ("a head of 200 KB", "/head-endless", _refused("fetch failed: The head of a response has at most 65536 bytes.", "EgressTooLarge")),
    ("no HTTP", "/head-no-http", _NO_HTTP),
    ("gzip that is none", "/gzip-broken", _refused("fetch failed: The response is not valid gzip data.", "EgressFailed")),
]  # fmt: skip

_HEADS = value([200, False, "GET accept,accept-encoding,host,user-agent ['ELSEWHERE']"])
_OUR_HEADERS = [
    "Host",
    "Content-Length",
    "Transfer-Encoding",
    "Connection",
    "Upgrade",
    "Proxy-Authorization",
    "Expect",
    "TE",
]

_RAW: list[tuple[str, dict[str, Any], str]] = [
    ("a header's value with a new line", {"headers": [["X", "a\r\nHost: evil"]]}, "EgressInvalidRequest"),
    ("a header's name with a new line", {"headers": [["X\r\nY", "a"]]}, "EgressInvalidRequest"),
    ("a header's value with a zero byte", {"headers": [["X", "\0"]]}, "EgressInvalidRequest"),
    ("a header without a name", {"headers": [["", "a"]]}, "EgressInvalidRequest"),
    ("a request in the method", {"method": "GET /x HTTP/1.1\r\nHost: y\r\n\r\nGET"}, "EgressInvalidRequest"),
    ("a header in the address", {"url": "/a\r\nX: y"}, "EgressInvalidRequest"),
    ("a backslash in the address", {"url": "http://127.0.0.1:1\\@evil/"}, "EgressInvalidRequest"),
    ("a zero byte in the address", {"url": "http://127.0.0.1:1\0@evil/"}, "EgressInvalidRequest"),
    ("257 headers", {"headers": [["a", "b"]] * 257}, "InvalidArgument"),
    ("headers that are no pairs", {"headers": [["a", 1]]}, "InvalidArgument"),
    ("a negative number", {"id": -1}, "InvalidArgument"),
]

_TRANSACTION_ONLY = sorted([*(name for name, (contexts, _) in SERVED.items() if "A" not in contexts), "collect"])

_ACTS: list[tuple[str, str, dict[str, Any] | None, str, Outcome]] = [
    ("every operation of transactions", "allOperations", {"names": _TRANSACTION_ONLY}, "what a guest says", value({"InvalidArgument": 1, "UnknownOperation": len(_TRANSACTION_ONLY) - 1})),
    ("timers of odd times and numbers", "timerForms", None, SPENT, value(["InvalidArgument"])),
    ("one number for three timers", "timerNumberTwice", None, SPENT, value({"fulfilled": 1, "InvalidArgument": 2})),
    ("1,000 timers", "timersAtOnce", {"n": 1000}, SPENT, value(1000)),
    ("1,001 timers", "timersAtOnce", {"n": 1001}, SPENT, fails("More than 1000 operations are open. Await some of them.")),
    ("500 intervals left behind", "timersForgotten", None, SPENT, value("left")),
    ("a timer that throws", "timerThrows", None, SPENT, fails("Uncaught Error: in the timer\n")),
    ("mutations left behind", "promisesForgotten", None, SPENT, value("left")),
    ("actions that call themselves", "recursion", {"n": 0}, SPENT, fails("Uncaught Error: " * 9 + "Actions may call each other 8 levels deep.")),
    ("300 mutations that fail", "fanOut", None, "data", value([["rejected", 300]])),
    ("functions by odd names", "callsForms", None, "what a guest says", value(["FeatureNotServed", "BadConvexFunctionIdentifier", "FunctionPathNotFound", "WrongFunctionKind", "ArgumentValidationError", "InvalidValue"])),
    ("memory without end", "grows", None, SPENT, fails("Uncaught InternalError: out of memory\n")),
    ("90 MiB of arguments at once", "heldBytes", None, SPENT, fails("What open operations hold has more than 64 MiB.")),
    ("bodies of fetches that are none", "bodyForms", None, "what a guest says", value(["InvalidArgument", "null"])),
    ("200 fetches aborted", "abortStorm", {"url": "/silent", "n": 200}, PEER, value(["20"])),
    ("a body without end, cancelled", "streamEndless", {"url": "/endless", "chunks": 20}, PEER, value(True)),
    ("twenty bodies without end, left behind", "streamAbandoned", {"url": "/endless"}, PEER, value("left")),
    ("a body of no bytes", "bodyStreamLies", {"url": "/heads"}, FETCHED, value(["TypeError"] * 6)),
    ("state of an earlier action", "stateLeft", None, "memory of the host and of other calls", value(1)),
]  # fmt: skip

CASES = [
    *(Case(f"fetch: {name}", FETCHED, url, _act("get", {"url": url}), want) for name, url, want in _ADDRESSES),
    *(Case(f"fetch: {name}", PEER, url, _act("get", {"url": url}), want) for name, url, want in _PEERS),
    *(
        Case(f"fetch: its own {name}", FETCHED, name, _act("get", {"url": "/heads", "init": {"headers": {name: "1"}}}), _HEADS)
        for name in _OUR_HEADERS
    ),
    *(
        Case(
            f"fetch: the method {method}",
            FETCHED,
            method,
            _act("get", {"url": "/heads", "init": {"method": method}}),
            _refused(f"'{method}' is not a valid HTTP method.", None),
        )
        for method in ("CONNECT", "TRACE")
    ),
    *(Case(f"fetch past the prelude: {name}", FETCHED, name, _act("getRaw", {"fields": fields}), value(code)) for name, fields, code in _RAW),
    *(Case(f"action: {name}", wall, name, _act(path, args), want) for name, path, args, wall, want in _ACTS),
]  # fmt: skip
