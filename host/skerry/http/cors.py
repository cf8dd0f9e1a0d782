"""Cross-origin answers for browsers: every origin may call `/api`, for credentials are keys and tokens, not cookies.

Source: protocol reference 2.4.
"""

from typing import Final

Headers = list[tuple[bytes, bytes]]

_METHODS: Final = b"GET, POST, OPTIONS, PATCH, DELETE, PUT"
_AGE_SECONDS_MAX: Final = b"86400"


def cross_origin(origin: bytes) -> Headers:
    """The headers that let a page of `origin` read an answer."""
    return [
        (b"access-control-allow-origin", origin),
        (b"access-control-allow-credentials", b"true"),
        (b"access-control-expose-headers", b"convex-request-id"),
        (b"vary", b"origin"),
    ]


def preflight(sent: dict[bytes, bytes]) -> Headers:
    """The headers that answer a browser's OPTIONS request."""
    headers = cross_origin(sent.get(b"origin", b"*"))
    headers.append((b"access-control-allow-methods", _METHODS))
    headers.append((b"access-control-max-age", _AGE_SECONDS_MAX))
    asked = sent.get(b"access-control-request-headers")
    if asked is not None:
        headers.append((b"access-control-allow-headers", asked))
    return headers
