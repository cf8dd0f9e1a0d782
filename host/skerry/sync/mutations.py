"""Mutations that clients may send twice: each takes effect once.

A client that loses its connection sends again what it has not seen in a transition, also what was committed. Under the
client's session, the request's number and the caller the answer is written in the mutation's own commit
(`skerry.database.answers`), so it is there exactly if the commit is; while the mutation runs, the number is found here.
Another caller's request of the same number is another one. Only successes are kept: a mutation that failed has no
effects and may run again. An answer of more than `ANSWER_BYTES_MAX` is not kept, only that there was one: who sends
it again hears that the mutation took effect and that its answer is gone (`AnswerNotKept`).

A mutation has its place once it is committed, which is before it is durable: those that come after it see it, and if
storage fails they are lost with it. So who keeps an order need not wait for the disk between one and the next.

Source: protocol reference 3.6.
"""

import logging
from collections.abc import Callable
from hashlib import blake2b
from typing import Final

import orjson

from skerry.database import Answer, answer_write
from skerry.errors import ClientError, SkerryError, SystemFault
from skerry.functions.request import CallRequest, CallResult
from skerry.limits import ANSWER_BYTES_MAX
from skerry.storage import Write
from skerry.sync.session import success_parts

_log: Final = logging.getLogger("skerry.sync")

Outcome = Answer | CallResult | SkerryError
"""A commit's timestamp with what its answer says; or how the mutation failed."""

_CALLER_BYTES: Final = 8
_REQUEST_BYTES: Final = 8
_ANONYMOUS: Final = bytes(_CALLER_BYTES)


class _Running:
    """A mutation that is under way, and who waits for it."""

    __slots__ = ("done", "is_placed", "placed")

    def __init__(self, placed: Callable[[], None], done: Callable[[Outcome], None]) -> None:
        self.placed = [placed]
        self.done = [done]
        self.is_placed = False


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
        self._running: dict[bytes, _Running] = {}

    def run(
        self,
        session: bytes,
        request_id: int,
        request: CallRequest,
        placed: Callable[[], None],
        done: Callable[[Outcome], None],
    ) -> None:
        """Runs a mutation, or tells what became of it when it ran before.

        Shape: `placed` is called when it is committed, unless it ends otherwise; it runs within the commit, so it only
        asks for what is to come next. `done` follows in any case, whatever goes wrong.
        """
        name = session + request_id.to_bytes(_REQUEST_BYTES, "big") + _caller(request)
        running = self._running.get(name)
        if running is not None:
            running.done.append(done)
            if running.is_placed:
                placed()
            else:
                running.placed.append(placed)
            return
        try:
            kept = self._find(name)
        except SkerryError as error:
            done(error)
            return
        if kept is not None:
            done(kept if kept[1] else _not_kept())
            return
        running = self._running[name] = _Running(placed, done)

        def keep(result: CallResult, commit_ts: int) -> list[Write]:
            write = answer_write(name, commit_ts, self._kept_parts(result))
            running.is_placed = True
            for tell in running.placed:
                tell()
            return [write]

        def ended(outcome: CallResult | SkerryError) -> None:
            if self._running.get(name) is not running:
                return
            del self._running[name]
            told: Outcome = outcome
            if isinstance(outcome, CallResult) and outcome.ok:
                assert outcome.ts is not None
                told = (outcome.ts, self._parts(outcome))
            for tell in running.done:
                tell(told)

        request.keep = keep
        try:
            self._begin(request, ended)
        except Exception as error:
            _log.error("a mutation could not be run", exc_info=error)
            ended(SystemFault("InternalServerError", "The mutation could not be run. Send it again."))

    def _kept_parts(self, result: CallResult) -> bytes:
        """What is kept of an answer: all of it, or not its log, or only that there was one."""
        for parts in (self._parts(result), success_parts(result.value, [])):
            if len(parts) <= ANSWER_BYTES_MAX:
                return parts
        return b""

    def _parts(self, result: CallResult) -> bytes:
        return success_parts(result.value, [] if self._redact else result.log_lines)


def _not_kept() -> ClientError:
    return ClientError(
        "AnswerNotKept",
        f"The mutation has taken effect, and did not run again. Its answer had more than {ANSWER_BYTES_MAX} bytes and"
        " is not kept: query what it wrote.",
    )


def _caller(request: CallRequest) -> bytes:
    """Who asks, as a part of what names a mutation."""
    if not request.is_admin and request.identity is None:
        return _ANONYMOUS
    told = orjson.dumps([request.is_admin, request.identity], option=orjson.OPT_SORT_KEYS)
    return blake2b(told, digest_size=_CALLER_BYTES, person=b"skerry caller").digest()
