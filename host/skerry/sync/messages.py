"""What clients say over a WebSocket, checked and taken apart.

Every function takes text from a stranger and gives a message or raises; nothing is done here. Text of more than
`JSON_WHOLE_BYTES_MAX` is taken apart in pieces, and belongs on another thread than the loop's.

Source: protocol reference 3.2. Both spellings of arguments (an array with one object, or none) are taken.
"""

from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final, cast
from uuid import UUID

import orjson

from skerry.errors import ClientError, DeveloperError
from skerry.limits import JSON_WHOLE_BYTES_MAX, SYNC_MESSAGE_BYTES_MAX, SYNC_MESSAGE_NESTING_MAX, SYNC_MODIFICATIONS_MAX
from skerry.value import dismantle, dumps_long, parse_json

_U32_MAX: Final = 2**32 - 1
_Dumps = Callable[[Any], bytes]


@dataclass(frozen=True, slots=True)
class Connect:
    """The first message of a connection. Shape: `session` is the client's, across its connections."""

    session: bytes
    max_observed_ts: int


@dataclass(frozen=True, slots=True)
class Authenticate:
    """A change of identity. Shape: `kind` is "User", "Admin" or "None"; `value` the token or key, None for none."""

    base_version: int
    kind: str
    value: str | None
    acting_as: bytes | None


@dataclass(frozen=True, slots=True)
class Add:
    """A query to watch. Shape: `args` the JSON of one object; `journal` what the client kept of an earlier run."""

    query_id: int
    path: str
    args: bytes
    journal: str | None


@dataclass(frozen=True, slots=True)
class Remove:
    """A query to watch no more."""

    query_id: int


@dataclass(frozen=True, slots=True)
class ModifyQuerySet:
    """Queries to watch and not to watch any more."""

    base_version: int
    new_version: int
    modifications: tuple[Add | Remove, ...]


@dataclass(frozen=True, slots=True)
class Call:
    """A mutation or an action to run."""

    kind: str
    request_id: int
    path: str
    args: bytes


@dataclass(frozen=True, slots=True)
class Event:
    """Something that a client tells of itself; nobody answers it."""


Message = Connect | Authenticate | ModifyQuerySet | Call | Event


class LongText(bytes):
    """The JSON of long arguments. Told apart by a digest, which was made where they were parsed: what looks a query up
    by its arguments costs the loop thread nothing then."""

    digest: bytes

    @classmethod
    def of(cls, text: bytes) -> "LongText":
        made = cls(text)
        made.digest = blake2b(text, digest_size=32, person=b"skerry args").digest()
        return made

    def __eq__(self, other: object) -> bool:
        return self.digest == other.digest if isinstance(other, LongText) else super().__eq__(other)

    def __hash__(self) -> int:
        return hash(self.digest)


def parse_message(text: bytes, look: Callable[[], None] | None = None) -> Message:
    """The message in a text; a long one is parsed in pieces, with `look` between them.

    Raises: ClientError `InvalidSyncMessage`. Limits: SYNC_MESSAGE_BYTES_MAX, SYNC_MESSAGE_NESTING_MAX,
    SYNC_MODIFICATIONS_MAX.
    """
    try:
        parsed: Any = parse_json(text, depth_max=SYNC_MESSAGE_NESTING_MAX, bytes_max=SYNC_MESSAGE_BYTES_MAX, look=look)
    except DeveloperError as error:
        raise _invalid(error.message) from None
    if type(parsed) is not dict:
        raise _invalid("A message must be an object.")
    fields = cast("dict[str, Any]", parsed)
    if len(text) <= JSON_WHOLE_BYTES_MAX:
        return _message(fields, _dumps)
    try:
        return _message(fields, _dumps_long)
    finally:
        dismantle(fields)


def _message(fields: dict[str, Any], dumps: _Dumps) -> Message:
    kind = fields.get("type")
    read = _READERS.get(kind) if type(kind) is str else None
    if read is None:
        raise _invalid(f"There is no message of the type {str(kind)[:40]!r}.")
    return read(fields, dumps)


def _connect(fields: dict[str, Any], _dumps: _Dumps) -> Connect:
    session = fields.get("sessionId")
    try:
        raw = UUID(session).bytes if type(session) is str else None
    except ValueError:
        raw = None
    if raw is None:
        raise _invalid("The sessionId of a Connect message must be a UUID.")
    observed = fields.get("maxObservedTimestamp")
    return Connect(raw, 0 if observed is None else _timestamp(observed))


def _authenticate(fields: dict[str, Any], _dumps: _Dumps) -> Authenticate:
    kind = fields.get("tokenType")
    if kind not in ("User", "Admin", "None"):
        raise _invalid("The tokenType of an Authenticate message must be User, Admin or None.")
    value = fields.get("value")
    if kind == "None":
        value = None
    elif type(value) is not str:
        raise _invalid("An Authenticate message must have a value.")
    acting_as = fields.get("impersonating", fields.get("acting_as")) if kind == "Admin" else None
    if acting_as is not None and type(acting_as) is not dict:
        raise _invalid("The impersonated identity must be an object.")
    return Authenticate(
        _number(fields, "baseVersion"), kind, value, None if acting_as is None else orjson.dumps(acting_as)
    )


def _modify(fields: dict[str, Any], dumps: _Dumps) -> ModifyQuerySet:
    listed = fields.get("modifications")
    if type(listed) is not list:
        raise _invalid("A ModifyQuerySet message must have modifications.")
    entries = cast("list[Any]", listed)
    if len(entries) > SYNC_MODIFICATIONS_MAX:
        raise _invalid(f"A ModifyQuerySet message has more than {SYNC_MODIFICATIONS_MAX} modifications.")
    modifications = tuple([_modification(entry, dumps) for entry in entries])
    return ModifyQuerySet(_number(fields, "baseVersion"), _number(fields, "newVersion"), modifications)


def _modification(entry: Any, dumps: _Dumps) -> Add | Remove:
    if type(entry) is not dict:
        raise _invalid("A modification must be an object.")
    fields = cast("dict[str, Any]", entry)
    kind = fields.get("type")
    if kind == "Remove":
        return Remove(_number(fields, "queryId"))
    if kind != "Add":
        raise _invalid("A modification must be Add or Remove.")
    journal = fields.get("journal")
    if journal is not None and type(journal) is not str:
        raise _invalid("The journal of a query must be a string.")
    return Add(_number(fields, "queryId"), *_function(fields, dumps), journal)


def _call(fields: dict[str, Any], dumps: _Dumps) -> Call:
    return Call(fields["type"], _number(fields, "requestId"), *_function(fields, dumps))


def _event(_fields: dict[str, Any], _dumps: _Dumps) -> Event:
    return Event()


_READERS: Final = {
    "Connect": _connect,
    "Authenticate": _authenticate,
    "ModifyQuerySet": _modify,
    "Mutation": _call,
    "Action": _call,
    "Event": _event,
}


def _function(fields: dict[str, Any], dumps: _Dumps) -> tuple[str, bytes]:
    """The path and the arguments that a message names."""
    path = fields.get("udfPath")
    if type(path) is not str:
        raise _invalid("A message must name its function in udfPath.")
    if fields.get("componentPath"):
        raise _invalid("This deployment has no components: leave componentPath out.")
    args: Any = fields.get("args", [])
    if type(args) is list:
        positional = cast("list[Any]", args)
        if not positional:
            return path, b"{}"
        args = positional[0] if len(positional) == 1 else None
    if type(args) is not dict:
        raise _invalid("The args of a message must be an array with one object.")
    return path, dumps(args)


def _dumps(args: Any) -> bytes:
    raw = orjson.dumps(args, option=orjson.OPT_SORT_KEYS)
    return raw[:1] + raw[1:]  # without the room that their writer had made: 4 KiB for as long as a query is watched


def _dumps_long(args: Any) -> bytes:
    text = dumps_long(args, _dumps)
    return LongText.of(text) if len(text) > JSON_WHOLE_BYTES_MAX else text


def _number(fields: dict[str, Any], name: str) -> int:
    value = fields.get(name)
    if type(value) is float and value.is_integer():
        value = int(value)
    if type(value) is not int or not 0 <= value <= _U32_MAX:
        raise _invalid(f"The {name} of a message must be a whole number from 0 to {_U32_MAX}.")
    return value


def _timestamp(encoded: Any) -> int:
    try:
        raw = b64decode(encoded, validate=True) if type(encoded) is str else b""
    except (Base64Error, ValueError):
        raw = b""
    if len(raw) != 8:
        raise _invalid("A timestamp must be the base64 of eight bytes.")
    return int.from_bytes(raw, "little")


def _invalid(message: str) -> ClientError:
    return ClientError("InvalidSyncMessage", message)
