"""Bodies of requests: read under a bound that counts what arrives, and taken apart only after a look at their depth.

Nobody's `Content-Length` is believed: the bytes are counted. A body that is too large is read on for a while and thrown
away, because a client that is still sending does not listen to an answer.
"""

from base64 import b64decode, b64encode
from collections.abc import Callable
from typing import Any, Final, cast

import orjson
from starlette.types import Receive

from skerry.errors import ClientError, DeveloperError, SkerryError
from skerry.limits import HTTP_BODY_BYTES_MAX, HTTP_BODY_NESTING_MAX, HTTP_DRAIN_BYTES_MAX, JSON_WHOLE_BYTES_MAX
from skerry.value import TOO_MANY_VALUES, depth_is_within, parse_json, values_are_within
from skerry.value.kinds import kind_of

_TIMESTAMP_BYTES: Final = 8


class ClientGone(Exception):
    """Raised when the client has left before its request was read."""


class ArrivingBody:
    """A body as it arrives, piece by piece, under a bound.

    Limits: what is past the bound is counted and thrown away; `add` says no once there is more of that than
    HTTP_DRAIN_BYTES_MAX, and then nobody needs to read on.
    """

    __slots__ = ("_bytes_max", "_first", "_rest", "_size")

    def __init__(self, bytes_max: int = HTTP_BODY_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._first = b""
        self._rest: list[bytes] | None = None
        self._size = 0

    def add(self, piece: bytes) -> bool:
        """Takes a piece; whether the next one is wanted."""
        size = self._size = self._size + len(piece)
        if size > self._bytes_max:
            self._first, self._rest = b"", None
            return size <= self._bytes_max + HTTP_DRAIN_BYTES_MAX
        if not self._first:
            self._first = piece
        elif self._rest is None:
            self._rest = [piece]
        else:
            self._rest.append(piece)
        return True

    @property
    def is_long(self) -> bool:
        """Whether it is more than the loop thread takes apart, and not too large."""
        return JSON_WHOLE_BYTES_MAX < self._size <= self._bytes_max

    @property
    def size(self) -> int:
        """How many bytes have arrived."""
        return self._size

    def whole(self) -> bytes:
        """All of it. Raises: ClientError `RequestTooLarge`."""
        if self._size > self._bytes_max:
            raise ClientError("RequestTooLarge", f"The body of the request is larger than {self._bytes_max} bytes.")
        if self._rest is None:
            return self._first
        return self._first + b"".join(self._rest)


async def collect_body(receive: Receive, bytes_max: int = HTTP_BODY_BYTES_MAX) -> ArrivingBody:
    """The body, once it has arrived or is too large. Raises: ClientGone."""
    body = ArrivingBody(bytes_max)
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        if not body.add(message.get("body", b"")) or not message.get("more_body"):
            return body


async def read_body(receive: Receive, bytes_max: int = HTTP_BODY_BYTES_MAX) -> bytes:
    """The whole body. Raises: ClientError `RequestTooLarge`; ClientGone."""
    return (await collect_body(receive, bytes_max)).whole()


async def stream_body(receive: Receive, take: Callable[[bytes], None]) -> None:
    """Hands a body on as it arrives; what `take` raises ends it, and the rest is thrown away. Raises: ClientGone."""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        piece = message.get("body", b"")
        try:
            take(piece)
        except SkerryError:
            if message.get("more_body"):
                await drain(receive)
            raise
        if not message.get("more_body"):
            return


async def drain(receive: Receive) -> None:
    """Reads what is left of a body that nobody wants, up to HTTP_DRAIN_BYTES_MAX: then the client hears the answer."""
    size = 0
    more = True
    while more and size <= HTTP_DRAIN_BYTES_MAX:
        message = await receive()
        size += len(message.get("body", b""))
        more = message.get("more_body", False)


def parse_body(raw: bytes, look: Callable[[], None] | None = None) -> dict[str, Any]:
    """The JSON object in a body; a long one is parsed in pieces, with `look` between them.

    Raises: ClientError `BadJsonBody`, `RequestTooDeep`, `RequestTooLarge`.
    """
    if len(raw) > JSON_WHOLE_BYTES_MAX:
        return _an_object(_parse_long(raw, look))
    if not values_are_within(raw):
        raise ClientError("RequestTooLarge", f"The body: {TOO_MANY_VALUES}")
    if not depth_is_within(raw, HTTP_BODY_NESTING_MAX):
        raise _too_deep()
    try:
        return _an_object(orjson.loads(raw))
    except ValueError as error:
        raise ClientError("BadJsonBody", f"The body is not valid JSON: {error}.") from None


def fields_of(body: bytes | dict[str, Any]) -> dict[str, Any]:
    """The JSON object in a body, which was taken apart already where it was long. Raises: as `parse_body`."""
    return parse_body(body) if type(body) is bytes else cast("dict[str, Any]", body)


def _parse_long(raw: bytes, look: Callable[[], None] | None) -> Any:
    try:
        return parse_json(raw, depth_max=HTTP_BODY_NESTING_MAX, bytes_max=HTTP_BODY_BYTES_MAX, look=look)
    except DeveloperError as error:
        if error.code == "ValueTooLargeError":
            raise ClientError("RequestTooLarge", f"The body: {error.message}") from None
        if error.code == "TooNestedError":
            raise _too_deep() from None
        raise ClientError("BadJsonBody", f"The body: {error.message}.") from None


def _too_deep() -> ClientError:
    return ClientError("RequestTooDeep", f"The body nests its JSON more than {HTTP_BODY_NESTING_MAX} levels deep.")


def _an_object(parsed: Any) -> dict[str, Any]:
    if type(parsed) is not dict:
        raise ClientError("BadJsonBody", "The body is not a JSON object.")
    return cast("dict[str, Any]", parsed)


def parse_text_args(text: str) -> Any:
    """The value of the query parameter `args`.

    Raises: ClientError `BadJsonBody`, `RequestTooDeep`, `RequestTooLarge`.
    """
    try:
        return parse_json(text.encode(), depth_max=HTTP_BODY_NESTING_MAX, bytes_max=HTTP_BODY_BYTES_MAX)
    except DeveloperError as error:
        codes = {"TooNestedError": "RequestTooDeep", "ValueTooLargeError": "RequestTooLarge"}
        raise ClientError(codes.get(error.code, "BadJsonBody"), f"The parameter args: {error.message}") from None
    except UnicodeEncodeError:
        raise ClientError("BadJsonBody", "The parameter args is not valid Unicode.") from None


def path_of(fields: dict[str, Any]) -> str:
    """The function's path as the request gives it. Raises: ClientError `BadJsonBody`."""
    path = fields.get("path")
    if type(path) is not str:
        raise ClientError("BadJsonBody", 'The request names no function: it needs a string "path".')
    return path


def dump_timestamp(timestamp: int) -> bytes:
    """A timestamp as it travels: 8 bytes, little-endian, in base64."""
    return b64encode(timestamp.to_bytes(_TIMESTAMP_BYTES, "little"))


def timestamp_of(fields: dict[str, Any]) -> int:
    """The timestamp that the request names. Raises: ClientError `BadTimestamp`."""
    text = fields.get("ts")
    try:
        raw = b64decode(text, validate=True) if type(text) is str else b""
    except ValueError:
        raw = b""
    if len(raw) != _TIMESTAMP_BYTES:
        raise ClientError("BadTimestamp", 'The request names no time: it needs a "ts" as /api/query_ts gives it.')
    return int.from_bytes(raw, "little")


def _dumps_sorted(args: Any) -> bytes:
    return orjson.dumps(args, option=orjson.OPT_SORT_KEYS)


def args_of(fields: dict[str, Any], dumps: Callable[[Any], bytes] = _dumps_sorted) -> bytes | None:
    """The JSON of the arguments, None where there are none. Raises: ClientError `BadJsonBody`."""
    args = fields.get("args")
    kind = kind_of(args)
    if kind is dict:
        return dumps(args)
    if kind is list:
        positional = cast("list[Any]", args)
        if len(positional) == 1 and type(positional[0]) is dict:
            return dumps(positional[0])
    elif kind is bytes:  # of a long body
        return args
    elif args is None and "args" not in fields:
        return None
    raise ClientError(
        "BadJsonBody", 'The arguments must be an object: {"args": {...}}, or an array with one object in it.'
    )
