"""What the sync connections of one deployment share: its live queries, its mutations, and the way to call it.

There is one while the deployment is open and somebody is connected; connections keep it open.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, Final, NamedTuple
from weakref import ReferenceType, WeakKeyDictionary

import orjson

from skerry.database import Answer, find_answer, first_answer_ts
from skerry.errors import ClientError, SkerryError
from skerry.functions.deployment import Deployment
from skerry.functions.request import CallRequest, CallResult
from skerry.functions.right_of_way import get_right_of_way
from skerry.http.calls import CallEndpoints
from skerry.http.headers import ANONYMOUS, Caller
from skerry.http.sync_updates import Updates
from skerry.http.turns import Ask
from skerry.identity import User, acting_user
from skerry.limits import AUTH_CLOCK_SKEW_SECONDS, SYNC_CONNECTIONS_EACH_MAX
from skerry.sync.live_query import LiveQuery
from skerry.sync.messages import Authenticate, Call, Message, parse_message
from skerry.sync.mutations import Mutations, Outcome
from skerry.sync.reactor import Reactor, shown_message

Done = Callable[[CallResult | SkerryError], None]
CallerKey = tuple[bool, bytes]
"""Whether it is an admin, and the JSON of the user's identity, empty for none."""


class SyncCaller(NamedTuple):
    """Who a client is. Shape: `token` says so, None for none; `expires_s` since the epoch, when that stops to hold."""

    key: CallerKey
    token: bytes | None = None
    expires_s: float = float("inf")


NOBODY: Final = SyncCaller((False, b""))


class Leaving:
    """Who is told that its deployment takes no more calls."""

    def leave(self) -> None:
        """Ends the connection; its client comes back."""
        raise NotImplementedError

    def leave_as_user(self) -> None:
        """The same, where the client is a user: who says so has changed."""
        raise NotImplementedError


class SyncHub:
    """The reactor of one open deployment and its connections."""

    def __init__(self, deployment: Deployment, endpoints: CallEndpoints, loop: asyncio.AbstractEventLoop) -> None:
        self.connections: set[Leaving] = set()
        self.updates = Updates(loop.call_soon)
        self._redacted = endpoints.redacted
        self._endpoints = endpoints
        self._loop = loop
        self._database = deployment.database
        self.reactor = Reactor(
            self._start_query,
            self._run_query_soon,
            lambda: self._database.durable_ts,
            self._query,
            endpoints.redacted,
        )
        self._answers_since_ts = first_answer_ts(deployment.database)
        self.mutations = Mutations(endpoints.start, self._answer, endpoints.redacted)
        deployment.database.on_commit.append(self.reactor.committed)
        self._authority = deployment.authority
        self._providers = self._authority.providers
        deployment.on_activated.append(self._check_users)
        deployment.on_activated.append(self.reactor.all_stale)
        deployment.on_drained.append(self._leave)

    @property
    def durable_ts(self) -> int:
        """The newest durable timestamp, at which what is valid is valid."""
        return self._database.durable_ts

    @property
    def is_full(self) -> bool:
        """Whether the deployment has as many connections as it may."""
        return len(self.connections) >= SYNC_CONNECTIONS_EACH_MAX

    def identify(self, sent: Authenticate, told: Callable[[SyncCaller | SkerryError], None]) -> None:
        """Tells who an Authenticate message makes the client, or what a header with the same would be refused with."""
        if sent.kind == "None" or sent.value is None:
            told(NOBODY)
            return
        try:
            value = sent.value.encode()
            if sent.kind == "User":
                self._endpoints.identify(value, partial(_tell_user, told))
                return
            caller = self._endpoints.caller_of(b"Convex " + value)
            identity = caller.identity if sent.acting_as is None else acting_user(orjson.loads(sent.acting_as))
        except UnicodeEncodeError:
            told(ClientError("InvalidAuthHeader", "The credentials are not valid Unicode."))
        except ClientError as error:
            told(error)
        else:
            told(SyncCaller((caller.is_admin, _identity_key(identity))))

    def has_expired(self, caller: SyncCaller) -> bool:
        """Whether the token that says who a client is has stopped to hold."""
        return caller.expires_s <= self._authority.now_s()

    def read_long(self, text: bytes | bytearray, done: Callable[[Message | Exception], None]) -> None:
        """Parses a long message beside the loop thread. Raises: SystemFault, where too much waits already."""
        look = get_right_of_way().give_way
        self._endpoints.read_long(len(text), lambda: parse_message(bytes(text), look), done)

    def mutation(
        self,
        call: Call,
        session: bytes,
        caller: SyncCaller,
        placed: Callable[[], None],
        done: Callable[[Outcome], None],
    ) -> Ask:
        """What runs a mutation, for `ask`; `placed` and `done` as `Mutations.run`."""
        request = self._endpoints.make_request("mutation", call.path, call.args, _caller(caller.key, caller.token))
        return partial(self.mutations.run, session, call.request_id, request, placed, done)

    def ask(self, run: Ask) -> None:
        """Runs a mutation in the deployment's turn. Raises: SkerryError, where quotas do not allow it."""
        self._endpoints.ask(run)

    def act(self, call: Call, caller: SyncCaller, done: Done) -> None:
        """Runs an action in the deployment's turn. Raises: as `ask`."""
        request = self._endpoints.make_request("action", call.path, call.args, _caller(caller.key, caller.token))
        self._endpoints.ask(partial(self._endpoints.start, request, done))

    def _run_query_soon(self, run: Callable[[], None]) -> None:
        """Runs a live query in the deployment's turn; one that has spent its CPU time waits until it is paid for."""
        wait_s = self._endpoints.cpu_wait_s
        if wait_s > 0:
            self._loop.call_later(wait_s, self._run_query_soon, run)
        else:
            self._endpoints.run_soon(run)

    def _start_query(self, request: CallRequest, done: Done) -> None:
        """Runs a live query. What its client has got wrong in asking for it is the query's failure, as long as it asks;
        what is wrong here may be over when it comes back."""
        start = self._endpoints.start
        if request.at is None:
            start(request, lambda outcome: done(_failure(outcome) if isinstance(outcome, ClientError) else outcome))
        else:
            start(request, done)

    def _query(self, live: LiveQuery) -> CallRequest:
        self._endpoints.count_live_run()
        path, args, caller, _ = live.key
        request = self._endpoints.make_request("query", path, args, _caller(caller))
        request.journal = live.journal
        request.wants_reads = True
        return request

    def failure(self, outcome: CallResult) -> tuple[str, bytes | None, list[str]]:
        """What a client is told of a call that failed: its message, data and log lines."""
        return shown_message(outcome.error_message, self._redacted), outcome.error_data, self.log_lines(outcome)

    def log_lines(self, outcome: CallResult) -> list[str]:
        """What a client is shown of what a call logged."""
        return [] if self._redacted else outcome.log_lines

    def _answer(self, name: bytes) -> Answer | None:
        database = self._database
        return find_answer(database.stored_in_meta, database.durable_ts, name, self._answers_since_ts)

    def _check_users(self) -> None:
        """Has users say again who they are, where others decide about it from now on."""
        if self._authority.providers != self._providers:
            self._providers = self._authority.providers
            for connection in list(self.connections):
                connection.leave_as_user()

    def _leave(self) -> None:
        for connection in list(self.connections):
            connection.leave()


# A hub is kept by its deployment, which tells it of commits; here by nobody, for it would keep its deployment.
_hubs: "WeakKeyDictionary[Deployment, ReferenceType[SyncHub]]" = WeakKeyDictionary()


def hub_of(deployment: Deployment, endpoints: CallEndpoints, loop: asyncio.AbstractEventLoop) -> SyncHub:
    """The hub of an open deployment."""
    known = _hubs.get(deployment)
    hub = None if known is None else known()
    if hub is None:
        hub = SyncHub(deployment, endpoints, loop)
        _hubs[deployment] = ReferenceType(hub)
    return hub


def live_now() -> tuple[int, int]:
    """How many connections and how many live queries this process has."""
    hubs = [hub for known in list(_hubs.values()) if (hub := known()) is not None]
    return sum(len(hub.connections) for hub in hubs), sum(hub.reactor.n_live for hub in hubs)


def _failure(error: ClientError) -> CallResult | ClientError:
    if error.spec.http_status == 429:
        return error
    return CallResult(False, b"", [], error_message=error.message, error_code=error.code)


def _tell_user(told: Callable[[SyncCaller | SkerryError], None], user: User | SkerryError) -> None:
    if isinstance(user, SkerryError):
        told(user)
    else:
        told(SyncCaller((False, _identity_key(user.identity)), user.token, user.expires_s + AUTH_CLOCK_SKEW_SECONDS))


def _identity_key(identity: dict[str, Any] | None) -> bytes:
    return b"" if identity is None else orjson.dumps(identity)


def _caller(key: CallerKey, token: bytes | None = None) -> Caller:
    is_admin, identity = key
    if not is_admin and not identity:
        return ANONYMOUS
    return Caller(is_admin, orjson.loads(identity) if identity else None, token)
