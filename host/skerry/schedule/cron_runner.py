"""Runs the crons of one open deployment.

```
a version goes live, or its deployment opens -> what its crons.ts declares is compared with the documents of `_crons`:
   the same           keeps its next run
   new, or changed    begins anew
   gone               its document goes
due -> a mutation     its function and its next run are one transaction
    -> an action      its next run is written, durably; then it runs; then how it ended is written
```

What stays true:

- What is declared belongs to the version: it changes with it, in one commit. When it runs next is a document, so a run
  that took effect is never repeated: mutations run exactly once for a time, actions at most once.
- One run of a cron at a time. What comes due meanwhile, or came while nobody served the deployment, is left out: one
  late run, then the next time in the future. How many were left out is kept, and logged.
- In memory are the crons of the version, at most CRONS_MAX, and one timer.

Concurrency: the loop thread. Time is a parameter.
"""

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

import orjson

from skerry.database import CRON_TABLE, Database, Transaction, change_system, find_system, insert_system, remove_system
from skerry.errors import DeveloperError, SkerryError
from skerry.limits import (
    CRONS_MAX,
    SCHEDULED_ERROR_CHARS_MAX,
    SCHEDULED_RETRY_MS_MAX,
    SCHEDULED_RETRY_MS_MIN,
)
from skerry.schedule.calls import GONE, NOT_BEGUN, Calls, Change, Loop, Outcome, Timers
from skerry.schedule.crons import Cron, first_ms, following
from skerry.schedule.jobs import LOST_ACTION
from skerry.schedule.wakeup import Wakeup
from skerry.storage import Tree
from skerry.value import decode, try_decode_document_id

_log: Final = logging.getLogger("skerry.schedule")
_HEADER_BYTES: Final = 12
_NS_PER_MS: Final = 1_000_000
_MS_PER_S: Final = 1_000


class _Running:
    """One cron. Shape: `due_ms` its next run; `wait_ms` where the host could not run it, the time to try again."""

    __slots__ = ("cron", "due_ms", "internal_id", "is_running", "tries", "wait_ms")

    def __init__(self, cron: Cron, internal_id: bytes, due_ms: float) -> None:
        self.cron = cron
        self.internal_id = internal_id
        self.due_ms = due_ms
        self.wait_ms = 0.0
        self.tries = 0
        self.is_running = False


class CronRunner:
    """The crons of one deployment. Shape: `declared` gives those of the live version."""

    def __init__(
        self,
        database: Database,
        calls: Calls,
        loop: Loop,
        timers: Timers,
        clock_ns: Callable[[], int],
        declared: Callable[[], Mapping[str, Cron]],
    ) -> None:
        self._database = database
        self._calls = calls
        self._loop = loop
        self._timers = timers
        self._clock_ns = clock_ns
        self._declared = declared
        self._crons: dict[str, _Running] = {}
        self._wakeup = Wakeup(timers, self.look)
        self._is_turning = False
        self._is_stale = True
        self._is_comparing = False
        self._is_recovered = False
        self._is_stopped = False
        self.is_paused = False

    # -- what happens to it ------------------------------------------------------------------------------------------

    def look(self, is_new: bool = False) -> None:
        """Looks at what is due, once the loop has turned. Shape: `is_new` after another version went live."""
        self._is_stale = self._is_stale or is_new
        if not self._is_turning and not self._is_stopped:
            self._is_turning = True
            self._loop.call_soon(self._turn)

    def pause(self, is_paused: bool) -> None:
        """Begins nothing more until this is taken back."""
        self.is_paused = is_paused
        self.look()

    def stop(self) -> None:
        """Begins nothing more. What runs goes on."""
        self._is_stopped = True
        self._wakeup.stop()

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is under way."""
        running = any(one.is_running for one in self._crons.values())
        return not self._is_turning and not self._is_comparing and not running

    def next_due_ms(self) -> float | None:
        """When the first cron runs; 0 where that is not known, None without any."""
        if self._is_stale or self._is_comparing or any(one.is_running for one in self._crons.values()):
            return 0.0 if self._crons or self._declared() or self._documents() else None
        return min((one.due_ms for one in self._crons.values()), default=None)

    def listed(self) -> list[dict[str, Any]]:
        """The crons with their last and next run, by name. Units: ms since 1970."""
        return sorted(
            (
                {name: value for name, value in document.items() if name not in ("_id", "_creationTime", "definition")}
                for document in self._documents()
            ),
            key=lambda shown: shown["name"],
        )

    # -- comparing ---------------------------------------------------------------------------------------------------

    def _documents(self) -> list[dict[str, Any]]:
        """The durable documents of crons."""
        table = self._database.durable_catalog.numbers[CRON_TABLE]
        snapshot = self._database.engine.snapshot()
        try:
            found = snapshot.scan_chunk(Tree.DOCUMENTS, table.prefix, table.end, False, 2 * CRONS_MAX)
        finally:
            snapshot.close()
        return [_parsed(stored[_HEADER_BYTES:]) for _, stored in found]

    def _compare(self) -> None:
        """Brings the documents to what the live version declares, in one commit."""
        declared = dict(self._declared())
        ids = [_internal_id(document) for document in self._documents()]
        if not declared and not ids:
            self._is_stale, self._is_recovered = False, True
            self._crons.clear()
            return
        is_recovering = not self._is_recovered

        def change(transaction: Transaction) -> None:
            now_ms, missing = transaction.now_ms, dict(declared)
            table = transaction.catalog.numbers[CRON_TABLE]
            for internal_id in ids:
                document = find_system(transaction, table, internal_id)
                cron = None if document is None else missing.pop(document["name"], None)
                if document is None:
                    continue
                if cron is None:
                    remove_system(transaction, table, document)
                elif document["definition"] != cron.definition:
                    change_system(transaction, table, document, _first(cron, now_ms))
                elif is_recovering and document["running"] is not None:
                    last = {"kind": "failed", "error": LOST_ACTION}
                    change_system(transaction, table, document, {"running": None, "lastState": last})
            for cron in missing.values():
                insert_system(transaction, table, {"name": cron.name, "skipped": 0, **_first(cron, now_ms)})

        def changed(outcome: Outcome) -> None:
            self._is_comparing = False
            if outcome is None:
                self._is_recovered = True
                self._adopt(declared)
            else:
                self._is_stale = True
                self._wakeup.set(SCHEDULED_RETRY_MS_MIN / _MS_PER_S)

        self._is_stale, self._is_comparing = False, True
        self._calls.change(change, changed, 0.0 if declared else None)

    def _adopt(self, declared: Mapping[str, Cron]) -> None:
        before, self._crons = self._crons, {}
        for document in self._documents():
            cron = declared.get(document["name"])
            if cron is None or document["definition"] != cron.definition:
                continue
            one = before.get(cron.name)
            if one is None or one.cron.definition != cron.definition or not one.is_running:
                one = _Running(cron, _internal_id(document), document["nextTime"])
            self._crons[cron.name] = one
        self.look()

    # -- running -----------------------------------------------------------------------------------------------------

    def _turn(self) -> None:
        self._is_turning = False
        if self._is_stopped or self.is_paused or not self._calls.is_ready:
            self._wakeup.set(None)
            return
        try:
            if self._is_comparing:
                return
            if self._is_stale:
                self._compare()
                return
            now_ms = self._clock_ns() / _NS_PER_MS
            for one in self._crons.values():
                if not one.is_running and max(one.due_ms, one.wait_ms) <= now_ms:
                    self._begin(one, now_ms)
            waiting = [max(one.due_ms, one.wait_ms) for one in self._crons.values() if not one.is_running]
            self._wakeup.set(max(0.0, min(waiting) - now_ms) / _MS_PER_S if waiting else None)
        except SkerryError as error:
            _log.warning("crons could not be looked up: %s: %s", error.code, error.message)
            self._wakeup.set(SCHEDULED_RETRY_MS_MAX / _MS_PER_S)

    def _begin(self, one: _Running, now_ms: float) -> None:
        cron, run_ms = one.cron, one.due_ms
        one.is_running = True
        next_ms, skipped = following(cron, run_ms, now_ms)
        kind = self._calls.kind_of(cron.path)
        ran = {"nextTime": next_ms, "lastTime": run_ms, "lastStart": now_ms}
        check, write = partial(self._check, one, run_ms), partial(self._write, one)
        if kind == "mutation":
            success = partial(write, {**ran, "lastState": {"kind": "success"}}, skipped)

            def mutation_ended(outcome: Outcome) -> None:
                if isinstance(outcome, str):
                    failed = partial(write, {**ran, "lastState": _failed(outcome)}, skipped)
                    self._change(one, check, failed, partial(self._went_on, one, next_ms, skipped))
                else:
                    self._went_on(one, next_ms, skipped, outcome)

            self._calls.run_mutation(cron.path, cron.args, None, check, success, mutation_ended)
        else:
            mark = partial(write, {**ran, "running": run_ms, "lastState": {"kind": "inProgress"}}, skipped)
            self._change(one, check, mark, partial(self._action_marked, one, next_ms, skipped))

    def _action_marked(self, one: _Running, next_ms: float, skipped: int, outcome: Outcome) -> None:
        if outcome is not None:
            self._went_on(one, next_ms, skipped, outcome)
            return
        run_ms, one.due_ms = one.due_ms, next_ms
        self._log_skipped(one, skipped)
        self._calls.run_action(one.cron.path, one.cron.args, None, partial(self._action_ended, one, run_ms))

    def _action_ended(self, one: _Running, run_ms: float, outcome: Outcome) -> None:
        """Writes how an action ended, as often as that fails; who closes meanwhile leaves it to the next opening."""
        next_ms, skipped = one.due_ms, 0
        fields: dict[str, Any] = {"running": None}
        is_begun = not (isinstance(outcome, SkerryError) and outcome.code in NOT_BEGUN)
        now_ms = self._clock_ns() / _NS_PER_MS
        if not is_begun:
            next_ms = run_ms
            fields |= {"lastState": {"kind": "pending"}}
        else:
            if next_ms <= now_ms:
                next_ms, skipped = following(one.cron, next_ms, now_ms)
                skipped += 1
            error = LOST_ACTION if isinstance(outcome, SkerryError) else outcome
            fields |= {"lastState": {"kind": "success"} if error is None else _failed(error)}
        fields["nextTime"] = next_ms

        def ended(written: Outcome) -> None:
            if isinstance(written, SkerryError) and written.code != GONE and not self._is_stopped:
                self._timers.call_later(SCHEDULED_RETRY_MS_MIN / _MS_PER_S, write)
            else:
                one.due_ms = next_ms
                self._went_on(one, next_ms, skipped, None if is_begun else outcome)

        def write() -> None:
            self._change(one, partial(self._check, one, None), partial(self._write, one, fields, skipped), ended)

        write()

    def _went_on(self, one: _Running, next_ms: float, skipped: int, outcome: Outcome) -> None:
        """A run is over, or did not come about."""
        one.is_running = False
        if isinstance(outcome, SkerryError) and outcome.code != GONE:
            wait_ms = min(SCHEDULED_RETRY_MS_MIN << min(one.tries, 16), SCHEDULED_RETRY_MS_MAX)
            one.tries += 1
            one.wait_ms = self._clock_ns() / _NS_PER_MS + max(wait_ms, (outcome.retry_after_s or 0) * _MS_PER_S)
        elif isinstance(outcome, SkerryError):
            self._is_stale = True
        else:
            one.due_ms, one.wait_ms, one.tries = next_ms, 0.0, 0
            self._log_skipped(one, skipped)
        self.look()

    def _change(self, one: _Running, check: Change, write: Change, done: Callable[[Outcome], None]) -> None:
        def change(transaction: Transaction) -> None:
            check(transaction)
            write(transaction)

        self._calls.change(change, done)

    def _check(self, one: _Running, run_ms: float | None, transaction: Transaction) -> None:
        """Raises: DeveloperError `ScheduledFunctionGone`, where the cron is another one now, or has run."""
        document = find_system(transaction, transaction.catalog.numbers[CRON_TABLE], one.internal_id)
        is_same = document is not None and document["definition"] == one.cron.definition
        if document is None or not is_same or (run_ms is not None and document["nextTime"] != run_ms):
            raise DeveloperError(GONE, "The cron was changed.")

    def _write(self, one: _Running, fields: dict[str, Any], skipped: int, transaction: Transaction) -> None:
        table = transaction.catalog.numbers[CRON_TABLE]
        document = find_system(transaction, table, one.internal_id)
        assert document is not None, "it was checked in this transaction"
        change_system(transaction, table, document, {**fields, "skipped": document["skipped"] + skipped})

    def _log_skipped(self, one: _Running, skipped: int) -> None:
        if skipped:
            _log.warning(
                "cron %r left out %d runs, which came while it ran or nobody served it", one.cron.name, skipped
            )


def _first(cron: Cron, now_ms: float) -> dict[str, Any]:
    """What is written of a cron that begins anew."""
    module, _, function = cron.path.rpartition(":")
    return {
        "function": f"{module}.js:{function}",
        "schedule": cron.expression or f"every {cron.period_ms // _MS_PER_S} s",
        "definition": cron.definition,
        "nextTime": first_ms(cron, now_ms),
        "lastTime": None,
        "lastStart": None,
        "lastState": None,
        "running": None,
    }


def _failed(error: str) -> dict[str, str]:
    return {"kind": "failed", "error": error[:SCHEDULED_ERROR_CHARS_MAX]}


def _parsed(json: bytes) -> dict[str, Any]:
    document: dict[str, Any] = decode(orjson.loads(json))
    return document


def _internal_id(document: dict[str, Any]) -> bytes:
    decoded = try_decode_document_id(document["_id"])
    assert decoded is not None, "a document has an id"
    return decoded[1]
