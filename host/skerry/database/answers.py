"""What became of mutations that clients may send again: kept for some time beside the documents, then forgotten.

An answer is written in its mutation's own commit, so it is there exactly if the commit is. Its place begins with the
period of its commit, so that forgetting costs what is forgotten and not what is kept; who looks for one looks in each
period that counts, which are few.

Shape, in `Tree.META` under `PREFIX`: the period (4 bytes) and what names the mutation (of a fixed length), and there
the commit's timestamp (8 bytes) and what the answer says. Answers are no part of a backup: what is restored goes on as
another history, in which the commits that they speak of may not be.

Limits: ANSWERS_KEPT_SECONDS at least and one ANSWERS_PERIOD_SECONDS more at most; forgetting goes by steps of
ANSWERS_STEP_KEYS and ANSWERS_STEP_BYTES.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from skerry.limits import ANSWERS_KEPT_SECONDS, ANSWERS_PERIOD_SECONDS, ANSWERS_STEP_BYTES, ANSWERS_STEP_KEYS
from skerry.storage import Tree, Write

if TYPE_CHECKING:
    from skerry.database.database import Database

PREFIX: Final = b"answered:"
_NS_PER_S: Final = 1_000_000_000
_PERIOD_NS: Final = ANSWERS_PERIOD_SECONDS * _NS_PER_S
_KEPT_NS: Final = ANSWERS_KEPT_SECONDS * _NS_PER_S
_PERIOD_BYTES: Final = 4
_TIMESTAMP_BYTES: Final = 8

Answer = tuple[int, bytes]
"""A commit's timestamp in nanoseconds, and what the answer says."""


def answer_write(name: bytes, commit_ts: int, says: bytes) -> Write:
    """What keeps an answer; belongs into the mutation's own commit."""
    return (Tree.META, _lower(commit_ts // _PERIOD_NS) + name, commit_ts.to_bytes(_TIMESTAMP_BYTES, "big") + says)


def find_answer(
    stored: Callable[[bytes], bytes | None], durable_ts: int, name: bytes, since_ts: int = 0
) -> Answer | None:
    """The answer of a mutation that is durable, None where there is none or it has been forgotten.

    Shape: `stored` reads a key of META as of `durable_ts` or later; no answer is of a period before that of `since_ts`.
    """
    oldest = max(since_ts, durable_ts - _KEPT_NS) // _PERIOD_NS
    for period in range(durable_ts // _PERIOD_NS, oldest - 1, -1):
        kept = stored(_lower(period) + name)
        if kept is not None:
            return int.from_bytes(kept[:_TIMESTAMP_BYTES], "big"), kept[_TIMESTAMP_BYTES:]
    return None


def first_answer_ts(database: "Database") -> int:
    """A timestamp in the period of the oldest answer there is or will be. The loop thread."""
    newest_ts = database.durable_ts
    snapshot = database.engine.snapshot()
    try:
        for _, value in snapshot.scan(Tree.META, PREFIX, _lower(newest_ts // _PERIOD_NS), False):
            return int.from_bytes(value[:_TIMESTAMP_BYTES], "big")
    finally:
        snapshot.close()
    return newest_ts


def forget_answers(database: "Database", now_ns: int) -> bool:
    """One step of forgetting the periods that are over for long enough; whether there is more. The loop thread."""
    end = max(0, now_ns - _KEPT_NS) // _PERIOD_NS
    gone: list[Write] = []
    n_bytes = 0
    snapshot = database.engine.snapshot()
    try:
        for key, value in snapshot.scan(Tree.META, PREFIX, _lower(end), False):
            gone.append((Tree.META, key, None))
            n_bytes += len(value)
            if len(gone) >= ANSWERS_STEP_KEYS or n_bytes >= ANSWERS_STEP_BYTES:
                break
    finally:
        snapshot.close()
    if gone:
        database.engine.submit(gone)
    return len(gone) >= ANSWERS_STEP_KEYS or n_bytes >= ANSWERS_STEP_BYTES


def _lower(period: int) -> bytes:
    return PREFIX + period.to_bytes(_PERIOD_BYTES, "big")


__all__ = ["PREFIX", "Answer", "answer_write", "find_answer", "first_answer_ts", "forget_answers"]
