"""Mutations that clients may send twice: each takes effect once.

A client that loses its connection sends again what it has not seen in a transition, also what was committed. Under the
client's session and the request's number the answer is written in the mutation's own commit, so it is there exactly if
the commit is; while the mutation runs, the number is found here. Only successes are kept: a mutation that failed has no
effects and may run again.

Shape of what is kept, in `Tree.META` under `PREFIX`, session (16 bytes) and number (8 bytes): the commit's timestamp (8
bytes), what the caller was (one byte: 1 for an admin), and what the answer says.

Source: protocol reference 3.6.
"""

from collections.abc import Callable
from typing import Final

from skerry.errors import SkerryError
from skerry.functions.request import CallRequest, CallResult
from skerry.storage import Tree, Write
from skerry.sync.session import success_parts

PREFIX: Final = b"answered:"
_TIMESTAMP_BYTES: Final = 8

Outcome = tuple[int, bytes] | CallResult | SkerryError
"""A commit's timestamp with what its answer says; or how the mutation failed."""


class Mutations:
    """The mutations of one deployment that came over a socket. Shape: `look_up` reads what is durable in META."""

    def __init__(
        self,
        begin: Callable[[CallRequest, Callable[[CallResult | SkerryError], None]], None],
        look_up: Callable[[bytes], bytes | None],
        redact: bool,
    ) -> None:
        self._begin = begin
        self._look_up = look_up
        self._redact = redact
        self._running: dict[bytes, list[Callable[[Outcome], None]]] = {}

    def run(self, session: bytes, request_id: int, request: CallRequest, done: Callable[[Outcome], None]) -> None:
        """Runs a mutation, or tells what became of it when it ran before."""
        key = PREFIX + session + request_id.to_bytes(8, "big") + bytes([request.is_admin])
        waiting = self._running.get(key)
        if waiting is not None:
            waiting.append(done)
            return
        kept = self._look_up(key)
        if kept is not None:
            done((int.from_bytes(kept[:_TIMESTAMP_BYTES], "big"), kept[_TIMESTAMP_BYTES:]))
            return
        waiting = self._running[key] = [done]

        def keep(result: CallResult, commit_ts: int) -> list[Write]:
            return [(Tree.META, key, commit_ts.to_bytes(_TIMESTAMP_BYTES, "big") + self._parts(result))]

        def ended(outcome: CallResult | SkerryError) -> None:
            del self._running[key]
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
