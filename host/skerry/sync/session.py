"""One connection's side of the sync protocol, as a state machine: messages in, steps and frames out.

```
text -> receive -> steps: Subscribe, Unsubscribe, Identify, Run      whoever drives it does them
results at a timestamp -> transition -> the frame that brings the client there
```

It knows which versions of its query set and identity a client has sent, which it has been told, and what was sent last
for each query. What stays true:

- A transition starts where the one before ended, its timestamp is never lower, and everything in it is valid there.
- Each received version is covered by a transition, also where nothing else is to be said.
- A result that the client has already is not sent again. Nothing is said of a query after its removal.

Deliberately absent: awaiting, clocks, chance, running anything.

Source: protocol reference 3.2 to 3.9.
"""

from base64 import b64encode
from collections.abc import Iterable
from typing import Final, NamedTuple

import orjson

from skerry.errors import ClientError
from skerry.limits import SYNC_QUERIES_MAX, SYNC_QUERY_SET_BYTES_MAX, SYNC_SHARED_BYTES_MAX
from skerry.sync.messages import Add, Authenticate, Call, Connect, Event, Message, ModifyQuerySet, parse_message

_SHORT_BYTES_MAX: Final = 8192
PING: Final = b'{"type":"Ping"}'


class Subscribe(NamedTuple):
    """Watch this query from now on."""

    query: Add


class Unsubscribe(NamedTuple):
    """Watch the query of this id no more."""

    query_id: int


class Identify(NamedTuple):
    """Judge this identity, and take it for everything that follows."""

    sent: Authenticate


class Run(NamedTuple):
    """Run this mutation or action."""

    call: Call


Step = Subscribe | Unsubscribe | Identify | Run


Way = tuple[tuple[int, int], int, tuple[int, int], int, tuple[tuple[int, bytes], ...], tuple[int, ...]]
"""What determines a transition: versions and timestamp of its start and of its end, what changed, what was removed."""


class Transitions:
    """Transitions that were made and may be needed again: clients that watch the same queries are told the same.

    Whoever brings clients to the newest state forgets them when all are there. Limits: SYNC_SHARED_BYTES_MAX; what
    would be more takes the place of all others.
    """

    __slots__ = ("_made", "_n_bytes")

    def __init__(self) -> None:
        self._made: dict[Way, bytes] = {}
        self._n_bytes = 0

    def make(self, way: Way) -> bytes:
        """The transition of a way, one object for all who ask."""
        frame = self._made.get(way)
        if frame is None:
            frame = _transition(*way)
            self._n_bytes += len(frame)
            if self._n_bytes > SYNC_SHARED_BYTES_MAX:
                self.forget()
                self._n_bytes = len(frame)
            self._made[way] = frame
        return frame

    def forget(self) -> None:
        """Forgets those that were made."""
        self._made.clear()
        self._n_bytes = 0


class Session:
    """The state of one connection.

    Shape: `session` is the client's own id, 16 bytes, None before it connected; `transitions` is what connections of
    one deployment have in common, None for one that is alone.
    """

    def __init__(self) -> None:
        self.transitions: Transitions | None = None
        self.session: bytes | None = None
        self._received = (0, 0)
        self._sent = (0, 0)
        self._sent_ts = 0
        self._floor_ts = 0
        self._owed_ts = 0
        self._last: dict[int, bytes] = {}
        self._long: dict[int, int] = {}
        self._long_bytes = 0
        self._removed: list[int] = []
        self._owes = False
        self._is_undecided = False

    @property
    def is_undecided(self) -> bool:
        """Whether it is still being judged who the client is: until `identified` nothing more is done or sent."""
        return self._is_undecided

    @property
    def floor_ts(self) -> int:
        """The newest timestamp that the client has seen, on this connection or one before: it goes to none before."""
        return max(self._floor_ts, self._sent_ts)

    @property
    def owes_transition(self) -> bool:
        """Whether the client waits for a transition, whatever is in it."""
        return self._owes or self._received != self._sent

    def receive(self, text: bytes) -> list[Step]:
        """What a message asks for, in order.

        Raises: ClientError `InvalidSyncMessage`, `BaseVersionMismatch`, `TooManyQueries`: the connection is to be told
        with `fatal_error` and ended.
        """
        return self.take(parse_message(text))

    def take(self, message: Message) -> list[Step]:
        """What a message asks for that was parsed elsewhere. Raises: as `receive`."""
        if isinstance(message, Connect):
            if self.session is not None:
                raise ClientError("InvalidSyncMessage", "A connection begins with one Connect message.")
            self.session = message.session
            self._floor_ts = message.max_observed_ts
            return []
        if self.session is None:
            raise ClientError("InvalidSyncMessage", "The first message of a connection must be Connect.")
        if isinstance(message, ModifyQuerySet):
            return self._modify(message)
        if isinstance(message, Authenticate):
            query_set, identity = self._received
            if message.base_version != identity:
                raise _mismatch("identity", message.base_version, identity)
            self._received = (query_set, identity + 1)
            self._is_undecided = True
            return [Identify(message)]
        return [] if isinstance(message, Event) else [Run(message)]

    def _modify(self, message: ModifyQuerySet) -> list[Step]:
        query_set, identity = self._received
        if message.base_version != query_set or message.new_version != query_set + 1:
            raise _mismatch("query set", message.base_version, query_set)
        steps: list[Step] = []
        last = self._last
        for modification in message.modifications:
            query_id = modification.query_id
            if isinstance(modification, Add):
                if query_id in last:
                    raise ClientError("InvalidSyncMessage", f"The query id {query_id} is in use.")
                if len(last) >= SYNC_QUERIES_MAX:
                    raise ClientError("TooManyQueries", f"A connection can watch {SYNC_QUERIES_MAX} queries.")
                self._keep(modification)
                last[query_id] = b""
                steps.append(Subscribe(modification))
            else:
                told = last.pop(query_id, None)
                if told is None:
                    continue
                if told:  # of one that the client was never told of there is nothing to take back
                    self._removed.append(query_id)
                self._long_bytes -= self._long.pop(query_id, 0)
                steps.append(Unsubscribe(query_id))
        self._received = (message.new_version, identity)
        return steps

    def _keep(self, query: Add) -> None:
        """Counts what a query costs; short ones are bounded by their number. Raises: ClientError `TooManyQueries`."""
        size = len(query.path) + len(query.args) + len(query.journal or "")
        if size <= _SHORT_BYTES_MAX:
            return
        if size + self._long_bytes > SYNC_QUERY_SET_BYTES_MAX:
            raise ClientError(
                "TooManyQueries",
                f"The long arguments of a connection's queries can have {SYNC_QUERY_SET_BYTES_MAX} bytes together.",
            )
        self._long[query.query_id] = size
        self._long_bytes += size

    def transition(self, ts: int, results: Iterable[tuple[int, bytes]]) -> bytes | None:
        """The frame that brings the client to a timestamp, None where it has nothing to learn there.

        Shape: `results` has, for the queries that may have changed, what follows their id in a modification
        (`updated`, `failed`); all others are valid at the timestamp as they were sent.
        """
        last = self._last
        changed: list[tuple[int, bytes]] = []
        for pair in results:
            query_id, result = pair
            before = last.get(query_id)
            if before is not None and before != result:
                last[query_id] = result
                changed.append(pair)
        if not changed and not self._removed and not self.owes_transition:
            return None
        assert not self._is_undecided, "the version of an identity is told once it is taken"
        assert ts >= self._sent_ts, "time does not go backwards"
        way = (self._sent, self._sent_ts, self._received, ts, tuple(changed), tuple(self._removed))
        frame = _transition(*way) if self.transitions is None else self.transitions.make(way)
        self._sent, self._sent_ts = self._received, ts
        self._removed.clear()
        self._owes = self._owes and ts < self._owed_ts
        return frame

    def answered(self, ts: int = 0) -> None:
        """A mutation was answered: the client waits for the transition that covers its commit, if it has one."""
        self._owes = True
        self._owed_ts = max(self._owed_ts, ts)

    def identified(self) -> None:
        """The identity that was sent last is taken."""
        self._is_undecided = False

    def expired_identity(self) -> bytes:
        """The frame that says that the client's token has expired; the connection is to be ended after it."""
        return b'{"type":"AuthError","error":"Convex token identity expired","baseVersion":%d,%b}' % (
            self._received[1],
            b'"authUpdateAttempted":false',
        )

    def refused_identity(self, sent: Authenticate, error: str) -> bytes:
        """The frame that says that an identity was not taken; the connection is to be ended after it."""
        return b'{"type":"AuthError","error":%b,"baseVersion":%d,"authUpdateAttempted":true}' % (
            orjson.dumps(error),
            sent.base_version,
        )


def updated(value: bytes, log_lines: list[str], journal: str | None) -> bytes:
    """A query's value, as it follows the query's id in a modification."""
    return b'"type":"QueryUpdated","value":%b,%b}' % (value, _rest(log_lines, journal))


def failed(message: str, data: bytes | None, log_lines: list[str], journal: str | None) -> bytes:
    """A query's failure, as it follows the query's id in a modification. Shape: `data` of a ConvexError, or None."""
    error_data = b"" if data is None else b'"errorData":%b,' % data
    return b'"type":"QueryFailed","errorMessage":%b,%b%b}' % (text_json(message), error_data, _rest(log_lines, journal))


def mutation_succeeded(request_id: int, ts: int, outcome: bytes) -> bytes:
    """The answer to a mutation. Shape: `outcome` as `success_parts` made it, at the commit or long after."""
    return b'{"type":"MutationResponse","requestId":%d,"ts":"%b",%b}' % (request_id, timestamp(ts), outcome)


def success_parts(value: bytes, log_lines: list[str]) -> bytes:
    """What a successful call's answer says besides its id and timestamp."""
    return b'"success":true,"result":%b,"logLines":%b' % (value, _lines(log_lines))


def mutation_failed(request_id: int, message: str, data: bytes | None, log_lines: list[str]) -> bytes:
    """The answer to a mutation that failed on its own."""
    return b'{"type":"MutationResponse","requestId":%d,"ts":null,%b}' % (
        request_id,
        _failure_parts(message, data, log_lines),
    )


def action_succeeded(request_id: int, value: bytes, log_lines: list[str]) -> bytes:
    """The answer to an action."""
    return b'{"type":"ActionResponse","requestId":%d,%b}' % (request_id, success_parts(value, log_lines))


def action_failed(request_id: int, message: str, data: bytes | None, log_lines: list[str]) -> bytes:
    """The answer to an action that failed."""
    return b'{"type":"ActionResponse","requestId":%d,%b}' % (request_id, _failure_parts(message, data, log_lines))


def fatal_error(message: str) -> bytes:
    """The last frame of a connection whose messages cannot be understood."""
    return b'{"type":"FatalError","error":%b}' % text_json(message)


def timestamp(ts: int) -> bytes:
    """A timestamp as clients read it."""
    return b64encode(ts.to_bytes(8, "little"))


def text_json(text: str) -> bytes:
    """The JSON of a text, whatever is in it."""
    try:
        return orjson.dumps(text)
    except TypeError:  # half of a surrogate pair, which JSON in UTF-8 cannot carry
        return orjson.dumps(text.encode("utf-8", "replace").decode())


def _failure_parts(message: str, data: bytes | None, log_lines: list[str]) -> bytes:
    error_data = b"" if data is None else b',"errorData":%b' % data
    return b'"success":false,"result":%b,"logLines":%b%b' % (text_json(message), _lines(log_lines), error_data)


def _rest(log_lines: list[str], journal: str | None) -> bytes:
    return b'"logLines":%b,"journal":%b' % (_lines(log_lines), b"null" if journal is None else orjson.dumps(journal))


def _lines(log_lines: list[str]) -> bytes:
    return b"[%b]" % b",".join(map(text_json, log_lines)) if log_lines else b"[]"


def _transition(
    sent: tuple[int, int],
    sent_ts: int,
    received: tuple[int, int],
    ts: int,
    changed: tuple[tuple[int, bytes], ...],
    removed: tuple[int, ...],
) -> bytes:
    parts: list[bytes] = [b'{"type":"QueryRemoved","queryId":%d}' % query_id for query_id in removed]
    parts += [b'{"queryId":%d,%b' % pair for pair in changed]
    return b'{"type":"Transition","startVersion":%b,"endVersion":%b,"modifications":[%b]}' % (
        _version(*sent, sent_ts),
        _version(*received, ts),
        b",".join(parts),
    )


def _version(query_set: int, identity: int, ts: int) -> bytes:
    return b'{"querySet":%d,"identity":%d,"ts":"%b"}' % (query_set, identity, timestamp(ts))


def _mismatch(what: str, sent: int, known: int) -> ClientError:
    return ClientError(
        "BaseVersionMismatch", f"BaseVersionMismatch: the {what} is at version {known}, the message builds on {sent}."
    )
