"""What a function asks for: checked before anything is sent, and rewritten for redirects by the rules of fetch.

Headers that say how a message is framed or to whom it goes are the host's; a function's are dropped without a word, as
the fetch standard has it for forbidden headers. Of that list, what servers legitimately send (Cookie, Origin, Referer,
User-Agent, Date, Sec-*) passes.
"""

import re
from collections.abc import AsyncIterator
from typing import Literal, NamedTuple

from multidict import CIMultiDict

from skerry.egress.decode import ACCEPTED
from skerry.egress.policy import EgressBounds
from skerry.egress.target import Target, parse_target
from skerry.errors import DeveloperError
from skerry.limits import EGRESS_METHOD_CHARS_MAX, EGRESS_REQUEST_HEAD_BYTES_MAX, EGRESS_REQUEST_HEADERS_MAX

Body = bytes | AsyncIterator[bytes] | None
RedirectMode = Literal["follow", "error", "manual"]

DROPPED_HEADERS = frozenset(
    {
        "accept-encoding",
        "connection",
        "content-length",
        "expect",
        "host",
        "http2-settings",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
CREDENTIAL_HEADERS = ("Authorization", "Cookie")
BODY_HEADERS = ("Content-Encoding", "Content-Language", "Content-Location", "Content-Type")

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t\x20-\x7e]*")


class FetchRequest:
    """One fetch of a function.

    Shape: `headers` in order, repeated names allowed; a `body` that is an iterator is sent in chunks as it is produced,
    once; it stays its owner's to close. `redirect` as in the fetch standard, except that "manual" shows the redirecting
    response itself.
    """

    __slots__ = ("body", "headers", "method", "redirect", "url")

    def __init__(
        self,
        method: str,
        url: str,
        headers: list[tuple[str, str]] | None = None,
        body: Body = None,
        redirect: RedirectMode = "follow",
    ) -> None:
        self.method = method
        self.url = url
        self.headers = headers if headers is not None else []
        self.body = body
        self.redirect: RedirectMode = redirect


class Prepared(NamedTuple):
    """A checked request, as it goes out next."""

    method: str
    target: Target
    headers: CIMultiDict[str]
    body: Body


def prepare(request: FetchRequest, bounds: EgressBounds, user_agent: str) -> Prepared:
    """Checks a request and completes its headers.

    Raises: DeveloperError EgressInvalidRequest, EgressTooLarge.
    """
    method = _checked_method(request.method)
    body = request.body
    if body is not None and method in ("GET", "HEAD"):
        raise _invalid(f"A {method} request has no body.")
    if isinstance(body, bytes) and len(body) > bounds.request_body_bytes:
        raise body_too_large(bounds)
    return Prepared(method, parse_target(request.url), _checked_headers(request.headers, user_agent), body)


def redirected(prepared: Prepared, status: int, target: Target) -> Prepared:
    """The request that follows a redirect.

    Source: Fetch standard, HTTP-redirect fetch; a Cookie header goes with Authorization here.
    Raises: DeveloperError EgressFailed for a body that cannot be sent twice.
    """
    method, _, headers, body = prepared
    if status != 303 and body is not None and not isinstance(body, bytes):
        raise DeveloperError(
            "EgressFailed", "A redirect asks for the body again, and a streamed body is sent only once."
        )
    headers = headers.copy()
    if (status in (301, 302) and method == "POST") or (status == 303 and method not in ("GET", "HEAD")):
        method, body = "GET", None
        for name in BODY_HEADERS:
            headers.popall(name, None)
    if target.origin != prepared.target.origin:
        for name in CREDENTIAL_HEADERS:
            headers.popall(name, None)
    return Prepared(method, target, headers, body)


def body_too_large(bounds: EgressBounds) -> DeveloperError:
    return DeveloperError("EgressTooLarge", f"The body of a request has at most {bounds.request_body_bytes} bytes.")


def _checked_method(method: str) -> str:
    if not _TOKEN.fullmatch(method) or len(method) > EGRESS_METHOD_CHARS_MAX:
        raise _invalid("The method of a request is a word such as GET or POST.")
    upper = method.upper()
    if upper in ("CONNECT", "TRACE", "TRACK"):
        raise _invalid(f"Requests with the method {upper} are not sent.")
    return upper


def _checked_headers(given: list[tuple[str, str]], user_agent: str) -> CIMultiDict[str]:
    if len(given) > EGRESS_REQUEST_HEADERS_MAX:
        raise DeveloperError("EgressTooLarge", f"A request has at most {EGRESS_REQUEST_HEADERS_MAX} headers.")
    headers: CIMultiDict[str] = CIMultiDict()
    # The library takes a name that comes again in another spelling for a replacement.
    spelling: dict[str, str] = {}
    size = 0
    for name, value in given:
        size += len(name) + len(value)
        if size > EGRESS_REQUEST_HEAD_BYTES_MAX:
            sentence = f"The headers of a request have at most {EGRESS_REQUEST_HEAD_BYTES_MAX} bytes together."
            raise DeveloperError("EgressTooLarge", sentence)
        value = value.strip("\t\r\n ")  # as the fetch standard normalises a value
        if not _TOKEN.fullmatch(name):
            raise _invalid("The name of a header is a word of letters, digits and hyphens.")
        if not _VALUE.fullmatch(value):
            raise _invalid(f"The value of the header {name} has characters other than printable ASCII; encode them.")
        lower = name.lower()
        if lower not in DROPPED_HEADERS and not lower.startswith("proxy-"):
            headers.add(spelling.setdefault(lower, name), value)
    if "User-Agent" not in headers:
        headers["User-Agent"] = user_agent
    if "Accept" not in headers:
        headers["Accept"] = "*/*"
    headers["Accept-Encoding"] = ACCEPTED
    return headers


def _invalid(sentence: str) -> DeveloperError:
    return DeveloperError("EgressInvalidRequest", sentence)
