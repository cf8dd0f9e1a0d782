"""The supervisor: one thread that waits for signals, for what workers say, and for their ends.

```
run: start all -> (each ready) on_ready -> wait ... a worker died: restart | SIGHUP: replace one after another
                                               | SIGTERM, SIGINT: stop all, a second one kills
```

Invariants: every child is reaped, also one that a dead worker left behind; no worker outlives `run`; a worker that
stopped moving is killed at its deadline. Deliberately absent: serving, reading of data, any thread.
"""

import contextlib
import logging
import os
import selectors
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from socket import socket
from typing import Any, Final

from skerry.errors import ERRORS, SystemFault
from skerry.limits import WORKER_STARTS_FAILED_MAX, WORKERS_MAX
from skerry.supervisor.crash_page import running_at_death
from skerry.supervisor.process import FAULT_SIGNALS, Begin, State, WorkerProcess
from skerry.supervisor.quarantine_file import load_quarantine, save_quarantine
from skerry.supervisor.restarts import Quarantine
from skerry.supervisor.seat import Seat
from skerry.supervisor.wakeups import Wakeups

_log: Final = logging.getLogger("skerry.supervisor")
_STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
Reports = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run.

    Shape: `command` is a worker's program; `options` go to each worker as they are (JSON); `quarantine` is the file
    that remembers the quarantined modules, None where nothing does.
    """

    command: Sequence[str]
    options: Mapping[str, Any]
    workers: int
    listeners: Sequence[socket]
    quarantine: Path | None = None


class Supervisor:
    """Runs a plan's workers. Raises: SystemFault `DataFolderFormat`, of the file of quarantined modules.

    Limits: WORKERS_MAX. Concurrency: the main thread of its process."""

    def __init__(self, plan: Plan, monotonic: Callable[[], float]) -> None:
        assert 1 <= plan.workers <= WORKERS_MAX
        self._plan = plan
        self._monotonic = monotonic
        self._selector = selectors.DefaultSelector()
        self._seats = [Seat(index) for index in range(plan.workers)]
        self._quarantine = Quarantine(() if plan.quarantine is None else load_quarantine(plan.quarantine))
        self._to_upgrade: list[Seat] = []
        self._starts_failed = 0
        self._announced = False
        self._stopping = False
        self._failure: SystemFault | None = None
        self._had_terminal = _has_terminal()

    def run(self, on_ready: Callable[[Reports], None]) -> None:
        """Runs until SIGTERM or SIGINT; `on_ready` gets each worker's report once all are ready.

        Raises: SystemFault `WorkerUnstartable`, or what the workers failed with, when none could ever start.
        """
        with Wakeups((signal.SIGCHLD, signal.SIGHUP, *_STOP_SIGNALS)) as wakeups:
            self._selector.register(wakeups, selectors.EVENT_READ, None)
            try:
                for seat in self._seats:
                    self._start(seat)
                while not self._is_over():
                    self._wait(wakeups)
                    reports = [seat.report for seat in self._seats if seat.report is not None]
                    if not self._announced and not self._stopping and len(reports) == len(self._seats):
                        self._announced = True
                        on_ready(reports)
            finally:
                self._kill_all()
        if self._failure is not None:
            raise self._failure

    # -- waiting -------------------------------------------------------------------------------------------------

    def _wait(self, wakeups: Wakeups) -> None:
        times = [time for seat in self._seats if (time := seat.next_time()) is not None]
        timeout = max(0.0, min(times) - self._monotonic()) if times else None
        heard = [key.data for key, _ in self._selector.select(timeout)]
        for process in heard:
            if process is not None and not process.hear():
                self._selector.unregister(process.control)
            if process is not None and process.lifts:
                self._lift(process)
        for number in wakeups.take():
            self._signalled(number)
        self._reap()
        alive = self._processes()  # one that was ready and died was reaped just now
        for process in heard:
            if process in alive and process.state is State.STARTING and process.report is not None:
                self._ready(process)
        self._look_at_times()

    def _signalled(self, number: int) -> None:
        if number in _STOP_SIGNALS or (number == signal.SIGHUP and self._had_terminal and not _has_terminal()):
            if self._stopping:
                for process in self._processes():
                    process.signal(signal.SIGKILL)
            else:
                self._stop()
        elif number == signal.SIGHUP and not self._stopping:
            self._to_upgrade = [*self._seats]
            self._upgrade_next()

    def _look_at_times(self) -> None:
        now = self._monotonic()
        for seat in self._seats:
            if seat.restart_at is not None and seat.restart_at <= now:
                seat.restart_at = None
                self._start(seat)
            for process in seat.processes():
                deadline = seat.deadline(process)
                if deadline is not None and deadline <= now:
                    _log.error("worker %d (process %d) is stuck %s: killed", *_named(process), process.state.value)
                    process.signal(signal.SIGKILL)
                    self._end(seat, process, _wait_for(process.pid))

    def _is_over(self) -> bool:
        return self._stopping and not self._processes()

    def _processes(self) -> list[WorkerProcess]:
        return [process for seat in self._seats for process in seat.processes()]

    # -- starting ------------------------------------------------------------------------------------------------

    def _start(self, seat: Seat) -> None:
        try:
            seat.current = self._new_process(seat, succeeds=bool(seat.leaving))
        except OSError as error:
            why = f"A worker process could not be started: {error.strerror}."
            if not self._announced:
                raise SystemFault("WorkerUnstartable", why) from error
            _log.error("%s", why)
            seat.restart_at = self._monotonic() + seat.restarts.delay(0.0)

    def _new_process(self, seat: Seat, succeeds: bool) -> WorkerProcess:
        plan = self._plan
        begin = Begin(seat.index, plan.workers, plan.options, self._quarantine.modules(), succeeds)
        shared = [listener.fileno() for listener in plan.listeners]
        shared += [seat.door_in.fileno(), *(other.door_out.fileno() for other in self._seats)]
        process = WorkerProcess(plan.command, begin, shared, self._monotonic())
        self._selector.register(process.control, selectors.EVENT_READ, process)
        return process

    def _ready(self, process: WorkerProcess) -> None:
        seat = self._seats[process.index]
        process.state = State.READY
        process.ready_at = self._monotonic()
        seat.report = process.report
        self._starts_failed = 0
        modules = self._quarantine.modules()
        if process.quarantined != modules:  # it changed while the worker started
            process.tell_quarantined(modules)
        if process is seat.successor:
            seat.succeed(self._monotonic())
        self._upgrade_next()

    def _upgrade_next(self) -> None:
        """Starts the successor of the next worker; one at a time, so that the machine has room for it."""
        if any(seat.successor is not None for seat in self._seats):
            return
        while self._to_upgrade:
            seat = self._to_upgrade.pop(0)
            if seat.current is not None and seat.current.state is State.READY:
                try:
                    seat.successor = self._new_process(seat, succeeds=True)
                except OSError as error:
                    _log.error("worker %d keeps running: its successor: %s", seat.index, error.strerror)
                    continue
                return

    # -- ending --------------------------------------------------------------------------------------------------

    def _reap(self) -> None:
        """Takes every child that ended, of our own and of workers that died before theirs."""
        by_pid = {process.pid: process for process in self._processes()}
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            process = by_pid.pop(pid, None)
            if process is not None:
                self._end(self._seats[process.index], process, os.waitstatus_to_exitcode(status))

    def _end(self, seat: Seat, process: WorkerProcess, code: int) -> None:
        """A worker has ended: why, and what now."""
        process.hear()
        process.ended(code)
        with contextlib.suppress(KeyError):  # it is out already if the worker was heard to end
            self._selector.unregister(process.control)
        was_current, was_successor = process is seat.current, process is seat.successor
        seat.remove(process)
        now = self._monotonic()
        was_told = process.state in (State.STOPPING, State.RETIRING)
        if not was_told or code not in (0, -signal.SIGTERM):
            _log.error("worker %d (process %d) %s", *_named(process), _ending(process, code))
        if code < 0 and -code in FAULT_SIGNALS:
            self._blame(process, now)
        process.close()
        if self._stopping:
            return
        if was_successor:
            self._upgrade_next()
        elif was_current and seat.successor is not None:
            seat.succeed(now)  # it serves as soon as it is ready
        elif was_current:
            self._restart(seat, process, now)

    def _restart(self, seat: Seat, process: WorkerProcess, now: float) -> None:
        if process.ready_at is None and not self._announced:
            self._starts_failed += 1
            if process.failure is not None or self._starts_failed >= WORKER_STARTS_FAILED_MAX:
                self._failure = _unstartable(process)
                self._stop()
                return
        lived = 0.0 if process.ready_at is None else now - process.ready_at
        seat.restart_at = now + seat.restarts.delay(lived)

    def _blame(self, process: WorkerProcess, now: float) -> None:
        report = process.crash_report()
        if report:
            _log.error("worker %d (process %d) was here:\n%s", *_named(process), report.decode(errors="replace"))
        for module in running_at_death(process.crash_page(), report):
            _log.error("deployment %s: module %s was running in it", module.deployment, module.digest)
            if self._quarantine.crashed(module, now):
                _log.error("deployment %s: module %s is quarantined", module.deployment, module.digest)
                self._quarantine_changed()

    def _lift(self, process: WorkerProcess) -> None:
        """Does what a worker asked for; it hears of that, as all workers do."""
        names, process.lifts = process.lifts, []
        for name in names:
            self._quarantine.lift(name)
        self._quarantine_changed()

    def _quarantine_changed(self) -> None:
        modules = self._quarantine.modules()
        if self._plan.quarantine is not None:
            try:
                save_quarantine(self._plan.quarantine, modules)
            except OSError as error:
                _log.error("the quarantined modules could not be written down: %s", error.strerror)
        for process in self._processes():
            if process.state is State.READY:
                process.tell_quarantined(modules)

    def _stop(self) -> None:
        self._stopping = True
        self._to_upgrade.clear()
        for seat in self._seats:
            seat.stop_all(self._monotonic())

    def _kill_all(self) -> None:
        """The end of `run`, whatever ended it: nothing of ours stays."""
        for seat in self._seats:
            for process in seat.processes():
                process.signal(signal.SIGKILL)
                process.ended(_wait_for(process.pid))
                process.close()
            seat.close()
        self._selector.close()


def _unstartable(process: WorkerProcess) -> SystemFault:
    if process.failure is None:
        return SystemFault("WorkerUnstartable", "No worker process could be started; the log says how they ended.")
    code, message = process.failure
    return SystemFault(code if code in ERRORS else "WorkerUnstartable", message)


def _ending(process: WorkerProcess, code: int) -> str:
    how = f"died of {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    return how + (f": {process.failure[1]}" if process.failure else "")


def _named(process: WorkerProcess) -> tuple[int, int]:
    return process.index, process.pid


def _wait_for(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _has_terminal() -> bool:
    """Whether somebody watches. A terminal that hung up is none any more."""
    return any(os.isatty(stream.fileno()) for stream in (sys.stdin, sys.stderr) if stream is not None)
