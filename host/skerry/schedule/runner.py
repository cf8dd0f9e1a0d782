"""Runs the scheduled functions of one open deployment, when they are due.

```
commit durable -> does it schedule anything? -> look at what is due: pending, in the order of their times
   a mutation     runs in the lane; its job ends in its transaction
   an action      its job is marked in progress, durably; then it runs; then its job ends
nothing due       one timer for the next one
```

What stays true:

- A job waits in the storage engine and nowhere else: in memory are those that run, those that the host could not run
  (they *rest*, at most SCHEDULED_RESTING_MAX), and a cursor. A million that wait cost a timer.
- Only what is durable runs. A mutation's effects and the end of its job are one commit; what the host could not run
  (storage failed, no place) is tried again, after a rest that grows. An action begins after its mark is durable, and
  what an earlier process has marked is failed before anything else begins.
- All pending jobs before the cursor are actions that wait for a place, or are held here: mutations behind a thousand
  waiting actions are reached without looking at those again.
- A turn spends a quantum of the loop thread (`TURN_QUANTUM_US`), as deployments do that share it; one that owes CPU
  time waits until it has paid.

Concurrency: the loop thread. Time is a parameter. Deliberately absent: an order between jobs that are due at once.
"""

import logging
from collections.abc import Callable
from functools import partial
from typing import Final

from skerry.database import JOB_INDEX, JOB_TABLE, CommitRecord, Database, Transaction, job_key
from skerry.errors import SkerryError
from skerry.limits import (
    SCHEDULED_ACTIONS_AT_ONCE,
    SCHEDULED_FORGET_STEP,
    SCHEDULED_KEPT_SECONDS,
    SCHEDULED_LOOK_KEYS,
    SCHEDULED_MUTATIONS_AT_ONCE,
    SCHEDULED_RECOVER_STEP,
    SCHEDULED_RESTING_MAX,
    SCHEDULED_RETRY_MS_MAX,
    SCHEDULED_RETRY_MS_MIN,
    TURN_QUANTUM_US,
)
from skerry.schedule.calls import GONE, NOT_BEGUN, Calls, Change, Loop, Outcome, Timers
from skerry.schedule.jobs import LOST_ACTION, begin_job, end_job, find_job, forget_job, id_of, mark_job
from skerry.schedule.wakeup import Wakeup
from skerry.storage import Tree

_log: Final = logging.getLogger("skerry.schedule")
_PREFIX: Final = JOB_INDEX.to_bytes(4, "big")
_FIRST: Final = _PREFIX + b"p"
_END: Final = _PREFIX + b"q"
_ID_BYTES: Final = 16
_TIME_AT: Final = 5
_TIME_END: Final = 13
_HEADER_BYTES: Final = 12
_NAME_FIELD: Final = b',"name":"'
_TIME_FIELD: Final = b',"scheduledTime":'
_ARGS_FIELD: Final = b'"args":'
_US_PER_MS: Final = 1_000
_NS_PER_MS: Final = 1_000_000
_NS_PER_US: Final = 1_000
_MS_PER_S: Final = 1_000


class Job:
    """A job about to run. Shape: `path` as `module:function`; `args` the JSON of a list with one object."""

    __slots__ = ("args", "internal_id", "key", "path", "tries")

    def __init__(self, key: bytes, path: str, args: bytes) -> None:
        self.key = key
        self.internal_id = key[-_ID_BYTES:]
        self.path = path
        self.args = args
        self.tries = 0


class Runner:
    """The runner of one deployment. Shape: `loop_ns` says what the deployment has cost the loop thread so far,
    `cpu_wait_s` how long until it has paid for the CPU time that it used."""

    def __init__(
        self,
        database: Database,
        calls: Calls,
        loop: Loop,
        timers: Timers,
        clock_ns: Callable[[], int],
        *,
        loop_ns: Callable[[], int],
        cpu_wait_s: Callable[[], float],
    ) -> None:
        self._database = database
        self._calls = calls
        self._loop = loop
        self._timers = timers
        self._clock_ns = clock_ns
        self._loop_ns = loop_ns
        self._cpu_wait_s = cpu_wait_s
        self._cursor = _FIRST
        self._has_passed = False
        self._held: set[bytes] = set()
        self._resting: dict[bytes, tuple[float, Job]] = {}
        self._mutations = 0
        self._actions = 0
        self._wakeup = Wakeup(timers, self.look)
        self._is_turning = False
        self._is_recovered = False
        self._is_recovering = False
        self._is_forgetting = False
        self._is_stopped = False
        self.is_paused = False

    # -- what happens to it ------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begins to run what is due. The deployment's storage is open."""
        self._database.on_commit.append(self.committed)
        self.look()

    def stop(self) -> None:
        """Begins nothing more. What runs goes on."""
        self._is_stopped = True
        self._wakeup.stop()

    def pause(self, is_paused: bool) -> None:
        """Begins nothing more until this is taken back."""
        self.is_paused = is_paused
        self.look()

    def look(self, is_new: bool = False) -> None:
        """Looks at what is due, once the loop has turned. Shape: `is_new` after the functions have changed."""
        if is_new:
            self._cursor = _FIRST
        if not self._is_turning and not self._is_stopped:
            self._is_turning = True
            self._loop.call_soon(self._turn)

    def committed(self, record: CommitRecord) -> None:
        """Takes note of a durable commit."""
        for write in record.writes:
            json = write.json
            if json is not None and write.before is None and write.table.number == JOB_TABLE:
                self._cursor = min(self._cursor, _PREFIX + job_key(b"p", _due_ms(json)))
                self.look()

    # -- what is due -------------------------------------------------------------------------------------------------

    def next_due_ms(self) -> float | None:
        """When the first durable job is due that is not running, 0 where actions are under way; None without any."""
        snapshot = self._database.engine.snapshot()
        try:
            if snapshot.scan_chunk(Tree.INDEXES, _PREFIX + b"r", _PREFIX + b"s", False, 1):
                return 0.0
            found = snapshot.scan_chunk(Tree.INDEXES, _FIRST, _END, False, 1)
        finally:
            snapshot.close()
        return _due_us(found[0][0]) / _US_PER_MS if found else None

    def _turn(self) -> None:
        """Begins what is due, for a quantum of the loop thread's time; then waits for whatever is next."""
        self._is_turning = False
        if self._is_stopped or self.is_paused or not self._calls.is_ready:
            self._wakeup.set(None)
            return
        try:
            if self._is_recovered:
                self._wakeup.set(self._begin_due())
            elif not self._is_recovering:
                self._recover()
        except SkerryError as error:  # the storage failed: the next commit, or this timer, tries again
            _log.warning("scheduled functions could not be looked up: %s: %s", error.code, error.message)
            self._wakeup.set(SCHEDULED_RETRY_MS_MAX / _MS_PER_S)

    def _begin_due(self) -> float | None:
        """Begins what is due and has a place; the seconds until there is more to do, None where another event tells."""
        wait_s = self._cpu_wait_s()
        if wait_s > 0:
            return wait_s
        end_ns = self._loop_ns() + TURN_QUANTUM_US * _NS_PER_US
        now_ms = self._clock_ns() / _NS_PER_MS
        self._begin_rested(now_ms, end_ns)
        next_ms = min((at for at, _ in self._resting.values()), default=None)
        if len(self._resting) < SCHEDULED_RESTING_MAX:
            due_ms = self._begin_pending(now_ms, end_ns)
            if due_ms is not None:
                next_ms = due_ms if next_ms is None else min(due_ms, next_ms)
        return None if next_ms is None else max(0.0, (next_ms - now_ms) / _MS_PER_S)

    def _begin_rested(self, now_ms: float, end_ns: int) -> None:
        if not self._resting:
            return
        for key, (at, job) in list(self._resting.items()):
            if at > now_ms or self._loop_ns() >= end_ns:
                continue
            del self._resting[key]
            self._begin(job)

    def _begin_pending(self, now_ms: float, end_ns: int) -> float | None:
        """Begins pending jobs from the cursor on; when the next one is due, None where another event comes first."""
        if self._has_passed and self._actions < SCHEDULED_ACTIONS_AT_ONCE:
            self._has_passed = not self._begin_passed()
        now_key = _PREFIX + job_key(b"p", now_ms) + b"\xff" * _ID_BYTES
        while True:
            most = min(SCHEDULED_LOOK_KEYS, SCHEDULED_MUTATIONS_AT_ONCE - self._mutations)
            if most <= 0:
                return None
            found = self._database.newest.snapshot.scan_chunk(Tree.INDEXES, self._cursor, _END, False, most)
            for key, _ in found:
                if key > now_key:
                    return _due_us(key) / _US_PER_MS
                if self._loop_ns() >= end_ns:
                    self.look()
                    return None
                if key not in self._held and key not in self._resting:
                    self._begin(self._read(key))
                self._cursor = key + b"\0"
            if len(found) < most:
                return None

    def _begin_passed(self) -> bool:
        """Begins actions that were passed over, as there are places; whether none is left."""
        lower = _FIRST
        while True:
            found = self._database.newest.snapshot.scan_chunk(
                Tree.INDEXES, lower, self._cursor, False, SCHEDULED_LOOK_KEYS
            )
            for key, _ in found:
                if self._actions >= SCHEDULED_ACTIONS_AT_ONCE or self._mutations >= SCHEDULED_MUTATIONS_AT_ONCE:
                    return False
                if key not in self._held and key not in self._resting:
                    self._begin(self._read(key))
            if len(found) < SCHEDULED_LOOK_KEYS:
                return True
            lower = found[-1][0] + b"\0"

    def _read(self, key: bytes) -> Job:
        """The job under a key of the index."""
        snapshot = self._database.newest.snapshot
        table = self._database.durable_catalog.numbers[JOB_TABLE]
        stored = snapshot.get(Tree.DOCUMENTS, table.prefix + key[-_ID_BYTES:])
        assert stored is not None, "an index entry has its document"
        # Canonical JSON: the fields are sorted, and behind the arguments is nothing that could hold such bytes.
        begin, end = stored.index(_ARGS_FIELD, _HEADER_BYTES) + len(_ARGS_FIELD), stored.rindex(_NAME_FIELD)
        name_at = end + len(_NAME_FIELD)
        name = stored[name_at : stored.index(b'"', name_at)].decode()
        return Job(key, name.replace(".js:", ":"), stored[begin:end])

    # -- running -----------------------------------------------------------------------------------------------------

    def _begin(self, job: Job) -> None:
        """Begins a job, or passes over an action for which there is no place."""
        kind = self._calls.kind_of(job.path)
        if kind == "action":
            if self._actions < SCHEDULED_ACTIONS_AT_ONCE:
                self._begin_action(job)
            else:
                self._has_passed = True
            return
        self._held.add(job.key)
        self._mutations += 1
        if kind == "mutation":
            before, after = partial(_check, job), partial(_end, job, "pending", "success", "")
            self._calls.run_mutation(
                job.path, job.args, id_of(job.internal_id), before, after, partial(self._mutation_ended, job)
            )
        else:
            self._mutation_ended(job, _missing(job.path, kind))

    def _mutation_ended(self, job: Job, outcome: Outcome) -> None:
        if isinstance(outcome, str):
            self._calls.change(partial(_end, job, "pending", "failed", outcome), partial(self._mutation_done, job))
        else:
            self._mutation_done(job, outcome)

    def _mutation_done(self, job: Job, outcome: Outcome) -> None:
        if isinstance(outcome, SkerryError) and outcome.code != GONE:
            self._rest(job, outcome)
        self._held.discard(job.key)
        self._mutations -= 1
        self.look()

    def _begin_action(self, job: Job) -> None:
        self._held.add(job.key)
        self._actions += 1

        def marked(outcome: Outcome) -> None:
            if outcome is None:
                job_id = id_of(job.internal_id)
                self._calls.run_action(job.path, job.args, job_id, partial(self._action_ended, job))
                return
            if isinstance(outcome, SkerryError) and outcome.code != GONE:
                self._rest(job, outcome)
            self._action_done(job)

        self._calls.change(partial(_mark, job, "pending", "inProgress"), marked)

    def _action_ended(self, job: Job, outcome: Outcome) -> None:
        if isinstance(outcome, SkerryError) and outcome.code in NOT_BEGUN:
            self._rest(job, outcome)
            self._end_action(job, partial(_mark, job, "inProgress", "pending"))
        elif outcome is None:
            self._end_action(job, partial(_end, job, "inProgress", "success", ""))
        else:
            error = outcome if isinstance(outcome, str) else LOST_ACTION
            self._end_action(job, partial(_end, job, "inProgress", "failed", error))

    def _end_action(self, job: Job, change: Change) -> None:
        """Says how an action ended, as often as that fails; who closes meanwhile leaves it to the next opening."""

        def ended(outcome: Outcome) -> None:
            if isinstance(outcome, SkerryError) and outcome.code != GONE and not self._is_stopped:
                self._timers.call_later(SCHEDULED_RETRY_MS_MIN / _MS_PER_S, partial(self._calls.change, change, ended))
            else:
                self._action_done(job)

        self._calls.change(change, ended)

    def _action_done(self, job: Job) -> None:
        self._held.discard(job.key)
        self._actions -= 1
        self.look()

    def _rest(self, job: Job, error: SkerryError) -> None:
        job.tries += 1
        wait_ms = min(SCHEDULED_RETRY_MS_MIN << min(job.tries - 1, 16), SCHEDULED_RETRY_MS_MAX)
        if error.retry_after_s is not None:
            wait_ms = max(wait_ms, error.retry_after_s * _MS_PER_S)
        self._resting[job.key] = (self._clock_ns() / _NS_PER_MS + wait_ms, job)
        _log.info("scheduled function %s is tried again in %d ms: %s", job.path, wait_ms, error.code)

    # -- before and after --------------------------------------------------------------------------------------------

    def _recover(self) -> None:
        """Fails the actions that were under way when the deployment ended; nothing else begins before."""
        keys = self._keys(b"r", b"s", SCHEDULED_RECOVER_STEP)
        if not keys:
            self._is_recovered = True
            self.look()
            return

        def fail(transaction: Transaction) -> None:
            for key in keys:
                job = find_job(transaction, key[-_ID_BYTES:])
                if job is not None and job["state"]["kind"] == "inProgress":
                    end_job(transaction, job, "failed", LOST_ACTION)

        def failed(outcome: Outcome) -> None:
            self._is_recovering = False
            if outcome is None:
                self.look()
            else:
                self._wakeup.set(SCHEDULED_RETRY_MS_MIN / _MS_PER_S)

        self._is_recovering = True
        self._calls.change(fail, failed)

    def forget(self) -> None:
        """Removes what ended long ago, step by step, until all of it is gone."""
        if self._is_forgetting or self._is_stopped or not self._calls.is_ready:
            return
        until_ms = self._clock_ns() / _NS_PER_MS - SCHEDULED_KEPT_SECONDS * _MS_PER_S
        keys = self._keys(b"t", job_key(b"t", until_ms), SCHEDULED_FORGET_STEP)
        if not keys:
            return

        def remove(transaction: Transaction) -> None:
            for key in keys:
                forget_job(transaction, key[-_ID_BYTES:])

        def removed(outcome: Outcome) -> None:
            self._is_forgetting = False
            if outcome is None:
                self._loop.call_soon(self.forget)

        self._is_forgetting = True
        self._calls.change(remove, removed)

    def _keys(self, first: bytes, end: bytes, most: int) -> list[bytes]:
        snapshot = self._database.newest.snapshot
        return [key for key, _ in snapshot.scan_chunk(Tree.INDEXES, _PREFIX + first, _PREFIX + end, False, most)]


def _check(job: Job, transaction: Transaction) -> None:
    begin_job(transaction, job.internal_id, "pending")


def _mark(job: Job, before: str, after: str, transaction: Transaction) -> None:
    mark_job(transaction, begin_job(transaction, job.internal_id, before), after)


def _end(job: Job, before: str, after: str, error: str, transaction: Transaction) -> None:
    end_job(transaction, begin_job(transaction, job.internal_id, before), after, error)


def _due_ms(json: bytes) -> float:
    """When a job is due, by its document, of which the fields are sorted."""
    at = json.rindex(_TIME_FIELD) + len(_TIME_FIELD)
    return float(json[at : json.index(b",", at)])


def _due_us(key: bytes) -> int:
    return int.from_bytes(key[_TIME_AT:_TIME_END], "big")


def _missing(path: str, kind: str | None) -> str:
    """What is said of a job that cannot run. Source: protocol reference 10.5."""
    if kind is not None:
        return f"Scheduled function {path} is a {kind}: only mutations and actions can be scheduled."
    return f"Could not find function for '{path}'. Did you forget to export it?"


__all__ = ["Job", "Runner"]
