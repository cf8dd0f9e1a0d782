"""A call that its connection serves itself: no task, no scope, one write of the answer.

Which requests take this way is decided by their head: a POST to one of the call routes, by its plain address. All
others (also those that expect `100 Continue` or ask for another protocol) take the library's way to the same endpoints.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from skerry.errors import ClientError
from skerry.http.bodies import ArrivingBody
from skerry.http.calls import CallEndpoints, Endpoint
from skerry.http.cors import cross_origin
from skerry.http.exchange import CONTENT_TYPE, Exchange
from skerry.http.front import Front
from skerry.limits import JSON_WHOLE_BYTES_MAX

_AFTER_ID: Final = b"\r\ncontent-type: " + CONTENT_TYPE + b"\r\ncontent-length: "


class DirectExchange(Exchange):
    """A request that a connection serves itself.

    Shape: what the library's queue of requests asks of a request is here under the library's names (`keep_alive`,
    `disconnected`, `response_complete`, `message_event`). `whole` once the body has arrived, `begun` once nothing in
    front of it waits for an answer.
    """

    __slots__ = (
        "_send",
        "begun",
        "body",
        "disconnected",
        "endpoint",
        "endpoints",
        "keep_alive",
        "response_complete",
        "whole",
    )

    message_event: Final = asyncio.Event()
    """Nobody waits for it: the library sets it where the client has left."""

    def __init__(
        self,
        endpoints: CallEndpoints,
        endpoint: Endpoint,
        target: bytes,
        headers: dict[bytes, bytes],
        request_id: bytes,
        ip: str | None,
        keep_alive: bool,
        send: "Callable[[DirectExchange, int, bytes], None]",
    ) -> None:
        super().__init__(target, b"", headers, request_id, ip)
        self._send = send
        self.endpoints = endpoints
        self.endpoint = endpoint
        self.body = ArrivingBody()
        self.keep_alive = keep_alive
        self.whole = False
        self.begun = False
        self.disconnected = False
        self.response_complete = False

    def serve(self) -> None:
        """Runs the call; it is answered when it is done."""
        endpoints = self.endpoints
        try:
            endpoints.admit(self)
        except Exception as error:
            endpoints.fail(self, error)
            return
        endpoints.serve(self, self.endpoint, self.body)

    def answer(self, status: int, body: bytes) -> None:
        if not self.response_complete:
            self.response_complete = True
            self._send(self, status, body)

    def bytes_of_answer(self, start: bytes, body: bytes) -> tuple[bytes, bytes]:
        """The whole answer, after its first lines, and apart from it a body that is too long to be copied."""
        origin = self.headers.get(b"origin")
        is_long = len(body) > JSON_WHOLE_BYTES_MAX
        whole = b"".join(
            (
                start,
                b"\r\nconvex-request-id: ",
                self.request_id,
                b"" if origin is None else b"".join(b"\r\n%s: %s" % header for header in cross_origin(origin)),
                b"" if self.retry_after_s is None else b"\r\nretry-after: %d" % self.retry_after_s,
                _AFTER_ID,
                b"%d\r\n\r\n" % len(body) if self.keep_alive else b"%d\r\nconnection: close\r\n\r\n" % len(body),
                b"" if is_long else body,
            )
        )
        return whole, body if is_long else b""


def direct_endpoint(front: Front, host: bytes | None, target: bytes) -> tuple[CallEndpoints, Endpoint] | None:
    """The endpoint of a POST to this address, None where the request takes the library's way."""
    if not target.isascii() or b"?" in target or b"#" in target:
        return None
    try:
        _, endpoints, path, _ = front.find(host, target.decode())
    except ClientError:  # the library's way answers it
        return None
    methods = endpoints.methods_of(path)
    endpoint = None if methods is None else methods.get("POST")
    return None if endpoint is None else (endpoints, endpoint)
