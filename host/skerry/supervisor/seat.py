"""The place of one worker: who holds it, who succeeds, who is on the way out, and when to start again."""

from typing import Any

from skerry.limits import WORKER_START_SECONDS_MAX, WORKER_STOP_SECONDS_MAX
from skerry.supervisor.channel import Channel, channel_pair
from skerry.supervisor.process import State, WorkerProcess
from skerry.supervisor.restarts import Restarts


class Seat:
    """Shape: `current` serves or starts; `successor` starts while `current` still serves; `leaving` end.
    `restart_at` is a time while the seat is empty.
    """

    def __init__(self, index: int) -> None:
        self.index = index
        self.current: WorkerProcess | None = None
        self.successor: WorkerProcess | None = None
        self.leaving: list[WorkerProcess] = []
        self.restart_at: float | None = None
        self.restarts = Restarts()
        self.report: dict[str, Any] | None = None  # of the newest worker that was ready
        self.door_in: Channel
        self.door_out: Channel
        self.door_in, self.door_out = channel_pair()
        self._kill_at: dict[int, float] = {}

    def processes(self) -> list[WorkerProcess]:
        """All that are alive."""
        return [process for process in (self.current, self.successor, *self.leaving) if process is not None]

    def stop_all(self, now: float) -> None:
        """Asks each process to end, and starts no other."""
        self.restart_at = None
        for process in self.processes():
            process.stop()
            self._kill_at[process.pid] = now + WORKER_STOP_SECONDS_MAX

    def succeed(self, now: float) -> None:
        """Puts the successor, which is ready, in the place of the worker it succeeds."""
        old, self.current, self.successor = self.current, self.successor, None
        if old is not None:
            old.retire()
            self.leaving.append(old)
            self._kill_at[old.pid] = now + WORKER_STOP_SECONDS_MAX

    def remove(self, process: WorkerProcess) -> None:
        """Forgets a process that ended."""
        self._kill_at.pop(process.pid, None)
        if process is self.current:
            self.current = None
        elif process is self.successor:
            self.successor = None
        else:
            self.leaving.remove(process)

    def deadline(self, process: WorkerProcess) -> float | None:
        """When the process is killed if it has not done what it is at; None where it may take any time."""
        if process.state is State.STARTING:
            return process.started_at + WORKER_START_SECONDS_MAX
        return self._kill_at.get(process.pid)

    def next_time(self) -> float | None:
        """When this seat wants to be looked at, if nothing happens before."""
        times = [self.restart_at, *(self.deadline(process) for process in self.processes())]
        return min((time for time in times if time is not None), default=None)

    def close(self) -> None:
        self.door_in.close()
        self.door_out.close()
