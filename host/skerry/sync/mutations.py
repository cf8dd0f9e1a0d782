"""Mutations that clients may send twice: each takes effect once.

A client that loses its connection sends again what it has not seen in a transition, also what was committed. Under the
client's session, the request's number and the caller the answer is written in the mutation's own commit
(`skerry.database.answers`), so it is there exactly if the commit is; while the mutation runs, the number is found here.
Another caller's request of the same number is another one. Only successes are kept: a mutation that failed has no
effects and may run again.

Source: protocol reference 3.6.
"""

from collections.abc import Callable
from hashlib import blake2b
from typing import Final

import orjson

from skerry.database import Answer, answer_write
from skerry.errors import SkerryError
from skerry.functions.request import CallRequest, CallResult
from skerry.storage import Write
from skerry.sync.session import success_parts

Outcome = Answer | CallResult | SkerryError
"""A commit's timestamp with what its answer says; or how the mutation failed."""

_CALLER_BYTES: Final = 8
_REQUEST_BYTES: Final = 8
_ANONYMOUS: Final = bytes(_CALLER_BYTES)


class Mutations:
    """The mutations of one deployment that came over a socket. Shape: `find` gives what is durable under a name."""

    def __init__(
        self,
        begin: Callable[[CallRequest, Callable[[CallResult | SkerryError], None]], None],
        find: Callable[[bytes], Answer | None],
        redact: bool,
    ) -> None:
        self._begin = begin
        self._find = find
        self._redact = redact
        self._running: dict[bytes, list[Callable[[Outcome], None]]] = {}

    def run(self, session: bytes, request_id: int, request: CallRequest, done: Callable[[Outcome], None]) -> None:
        """Runs a mutation, or tells what became of it when it ran before."""
        name = session + request_id.to_bytes(_REQUEST_BYTES, "big") + _caller(request)
        waiting = self._running.get(name)
        if waiting is not None:
            waiting.append(done)
            return
        kept = self._find(name)
        if kept is not None:
            done(kept)
            return
        waiting = self._running[name] = [done]

        def keep(result: CallResult, commit_ts: int) -> list[Write]:
            return [answer_write(name, commit_ts, self._parts(result))]

        def ended(outcome: CallResult | SkerryError) -> None:
            del self._running[name]
            told: Outcome = outcome
            if isinstance(outcome, CallResult) and outcome.ok:
                assert outcome.ts is not None
                told = (outcome.ts, self._parts(outcome))
            for tell in waiting:
                tell(told)

        request.keep = keep
        self._begin(request, ended)

    def _parts(self, result: CallResult) -> bytes:
        return success_parts(result.value, [] if self._redact else result.log_lines)


def _caller(request: CallRequest) -> bytes:
    """Who asks, as a part of what names a mutation."""
    if not request.is_admin and request.identity is None:
        return _ANONYMOUS
    told = orjson.dumps([request.is_admin, request.identity], option=orjson.OPT_SORT_KEYS)
    return blake2b(told, digest_size=_CALLER_BYTES, person=b"skerry caller").digest()
