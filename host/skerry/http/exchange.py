"""One request to the endpoints that run functions, whichever way it came in, and the way back of its answer.

Most requests are served by the connection itself, without a task (`direct`); what is rare comes through the
framework's interface (`front`). Both make an `Exchange` and hand it to the endpoints, so that a call means the same.
"""

from typing import Final

from skerry.http.headers import ANONYMOUS, Caller


class Exchange:
    """A request read as far as its headers.

    Shape: `target` the path as it was sent, `query` what follows its question mark; `ip` of the caller, None where the
    transport names none. What follows is the endpoints' own: `caller`, and of the call that is under way (`is_calling`)
    its `kind`, its `value_format` and when it `started`; `retry_after_s` is what the answer advises.
    """

    __slots__ = (
        "caller",
        "headers",
        "ip",
        "is_calling",
        "kind",
        "query",
        "request_id",
        "retry_after_s",
        "started",
        "target",
        "value_format",
    )

    def __init__(
        self, target: bytes, query: bytes, headers: dict[bytes, bytes], request_id: bytes, ip: str | None
    ) -> None:
        self.target = target
        self.query = query
        self.headers = headers
        self.request_id = request_id
        self.ip = ip
        self.caller: Caller = ANONYMOUS
        self.is_calling = False
        self.kind: str | None = None
        self.value_format = 0
        self.started = 0.0
        self.retry_after_s: int | None = None

    def answer(self, status: int, body: bytes) -> None:
        """Takes the answer, a JSON text. The first one counts; it is dropped where the client has left."""
        raise NotImplementedError


CONTENT_TYPE: Final = b"application/json"
