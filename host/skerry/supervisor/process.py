"""One worker process, seen from its supervisor: started with a control channel as its standard input.

What the worker gets, in its first message (`Begin`), with the descriptors in this order: the listening sockets, the
crash page, the crash report, the receiving end of its door, the sending ends of all doors. What it says: `Ready`,
`Failed`, both once at most; `lift`, a deployment whose modules are to run again. What it is told later: `quarantined`,
all modules that are, whenever that changes or it was asked to; `retire`; and to stop by SIGTERM. All messages are JSON
objects; both ends are the same release, except after an upgrade on disk: `FORMAT` says which.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from skerry.supervisor.channel import ChannelEnded, channel_pair
from skerry.supervisor.crash_page import RunningModule, make_crash_page, make_crash_report, read_report

FORMAT: Final = 1
FAULT_SIGNALS: Final = frozenset(
    (
        signal.SIGSEGV,
        signal.SIGABRT,
        signal.SIGBUS,
        signal.SIGILL,
        signal.SIGFPE,
        signal.SIGTRAP,
        signal.SIGSYS,
    )
)


class State(Enum):
    STARTING = "starting"
    READY = "ready"
    RETIRING = "retiring"
    STOPPING = "stopping"


@dataclass(frozen=True, slots=True)
class Begin:
    """What a worker starts with. Shape: `index` among `workers`; `options` as the server's command gave them; it
    `succeeds` a worker that still serves."""

    index: int
    workers: int
    options: Mapping[str, Any]
    quarantined: Sequence[RunningModule]
    succeeds: bool = False

    def encode(self) -> bytes:
        body = {
            "format": FORMAT,
            "supervisor": os.getpid(),
            "index": self.index,
            "workers": self.workers,
            "options": self.options,
            "quarantined": self.quarantined,
            "succeeds": self.succeeds,
        }
        return json.dumps(body).encode()


class WorkerProcess:
    """A worker that was started. Shape: `state`; `report` once it is ready; `failure` (code, message) if it told one.

    Raises: OSError when the machine cannot start a process. Limits: none of its own; its seat has the times.
    """

    def __init__(self, command: Sequence[str], begin: Begin, shared: Sequence[int], now: float) -> None:
        self.index = begin.index
        self.state = State.STARTING
        self.started_at = now
        self.ready_at: float | None = None
        self.report: dict[str, Any] | None = None
        self.failure: tuple[str, str] | None = None
        self.lifts: list[str] = []
        self.quarantined = begin.quarantined
        with contextlib.ExitStack() as undo:
            self._page = make_crash_page()
            undo.callback(os.close, self._page)
            self._crash_report = make_crash_report()
            undo.callback(os.close, self._crash_report)
            self.control, theirs = channel_pair()
            undo.callback(self.control.close)
            with contextlib.closing(theirs):
                listeners, doors = shared[: -(begin.workers + 1)], shared[-(begin.workers + 1) :]
                sent = self.control.send(begin.encode(), (*listeners, self._page, self._crash_report, *doors))
                assert sent, "a new channel has room for one message"
                # What it prints is not the command's result, which is on our standard output.
                self._popen = subprocess.Popen(
                    list(command), stdin=theirs.fileno(), stdout=sys.stderr.fileno(), close_fds=True
                )
            undo.pop_all()
        self.pid = self._popen.pid

    def hear(self) -> bool:
        """Takes what the worker said; false when it will say no more."""
        try:
            while arrived := self.control.receive():
                said: dict[str, Any] = json.loads(arrived[0])
                if "ready" in said:
                    self.report = said["ready"]
                elif "failed" in said:
                    self.failure = (str(said["failed"]["code"]), str(said["failed"]["message"]))
                elif "lift" in said:
                    self.lifts.append(str(said["lift"]))
        except ChannelEnded:
            return False
        return True

    def tell_quarantined(self, modules: Sequence[RunningModule]) -> None:
        """Tells the worker which modules are quarantined now. One that does not listen hears of it the next time."""
        self.quarantined = modules
        with contextlib.suppress(ChannelEnded):
            self.control.send(json.dumps({"quarantined": modules}).encode())

    def retire(self) -> None:
        """Asks the worker to hand its connections on and end."""
        self.state = State.RETIRING
        with contextlib.suppress(ChannelEnded):
            self.control.send(b'{"retire":true}')

    def stop(self) -> None:
        """Asks the worker to answer what is under way and end."""
        self.state = State.STOPPING
        self.signal(signal.SIGTERM)

    def signal(self, number: int) -> None:
        """Sends a signal. It is not reaped yet, so the number is still its own."""
        os.kill(self.pid, number)

    def ended(self, returncode: int) -> None:
        """Remembers the exit code of the process, which was reaped."""
        self._popen.returncode = returncode

    def crash_page(self) -> int:
        return self._page

    def crash_report(self) -> bytes:
        return read_report(self._crash_report)

    def close(self) -> None:
        """Gives up the descriptors."""
        self.control.close()
        os.close(self._page)
        os.close(self._crash_report)
