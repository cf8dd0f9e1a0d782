"""What a worker process knows of its supervisor: how it begins, what it says, and that it ends when its parent does."""

import asyncio
import ctypes
import faulthandler
import json
import os
import select
import signal
import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from skerry.errors import SkerryError, SystemFault
from skerry.limits import QUARANTINE_LIFT_SECONDS_MAX, WORKER_START_SECONDS_MAX
from skerry.supervisor.channel import Channel, ChannelEnded
from skerry.supervisor.crash_page import CrashPage, RunningModule
from skerry.supervisor.process import FORMAT

_CONTROL: Final = 0
_PR_SET_PDEATHSIG: Final = 1


@dataclass(frozen=True, slots=True)
class Beginning:
    """What a worker began with. Shape: `doors[i]` leads to worker i, `door` is this one's own."""

    index: int
    workers: int
    options: dict[str, Any]
    quarantined: list[RunningModule]
    succeeds: bool
    listeners: list[socket.socket]
    crash_page: CrashPage
    door: Channel
    doors: list[Channel]
    control: Channel

    def say_ready(self, report: dict[str, Any]) -> None:
        """Tells the supervisor that this worker serves. Raises: ChannelEnded."""
        self.control.send(json.dumps({"ready": report}).encode())

    def say_failed(self, error: SkerryError) -> None:
        """Tells the supervisor why this worker cannot serve. Raises: ChannelEnded."""
        self.control.send(json.dumps({"failed": {"code": error.code, "message": error.message}}).encode())


class KnownQuarantine:
    """What a worker knows of the quarantined modules. Concurrency: `has` any thread, everything else the loop thread.

    `ask` sends a message to the supervisor; false where there is no room for it.
    """

    def __init__(self, modules: Iterable[RunningModule], ask: Callable[[bytes], bool]) -> None:
        self._modules = frozenset(modules)
        self._ask = ask
        self._told = asyncio.Event()

    def has(self, deployment: str, digest: str) -> bool:
        """Whether a module must not be run."""
        return RunningModule(deployment, digest) in self._modules

    def listed(self) -> list[tuple[str, str]]:
        """All of them, as (deployment, digest)."""
        return sorted(self._modules)

    def told(self, modules: Iterable[Sequence[str]]) -> None:
        """Takes what the supervisor says."""
        self._modules = frozenset(RunningModule(*module) for module in modules)
        told, self._told = self._told, asyncio.Event()
        told.set()

    async def lift(self, deployment: str) -> None:
        """Has a deployment's modules run again, and forgets their crashes.

        Raises: SystemFault `QuarantineUnchanged`, where the supervisor does not say that it is done.
        """
        told = self._told
        try:
            sent = self._ask(json.dumps({"lift": deployment}).encode())
        except ChannelEnded:
            sent = False
        if sent:
            try:
                await asyncio.wait_for(told.wait(), QUARANTINE_LIFT_SECONDS_MAX)
            except TimeoutError:
                sent = False
        if not sent or any(module.deployment == deployment for module in self._modules):
            raise SystemFault("QuarantineUnchanged", "The supervisor did not lift the quarantine. Try again.")


def begin() -> Beginning:
    """Takes the first message, on standard input. From here on the kernel kills this process when its parent ends.

    Raises: SystemFault `WorkerUnstartable` when no supervisor of this release is there.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the supervisor decides
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    try:
        control = Channel(socket.socket(fileno=os.dup(_CONTROL)))
        select.select([control], [], [], WORKER_START_SECONDS_MAX)
        arrived = control.receive()
    except (OSError, ChannelEnded):
        arrived = control = None
    if arrived is None or control is None:
        raise _no_supervisor("A worker is started by its supervisor: use skerry serve.")
    message, descriptors = arrived
    told: dict[str, Any] = json.loads(message)
    if told["format"] != FORMAT:
        raise _no_supervisor("The running supervisor is of another release: stop it and start it again.")
    if os.getppid() != told["supervisor"]:
        raise _no_supervisor("The supervisor ended while its worker started.")
    workers = told["workers"]
    doors = [Channel(socket.socket(fileno=descriptor)) for descriptor in descriptors[-workers:]]
    *listening, page, report, door = descriptors[:-workers]
    faulthandler.enable(report, all_threads=True)
    crash_page = CrashPage(page)
    os.close(page)
    return Beginning(
        told["index"],
        workers,
        told["options"],
        [RunningModule(*module) for module in told["quarantined"]],
        told["succeeds"],
        [socket.socket(fileno=descriptor) for descriptor in listening],
        crash_page,
        Channel(socket.socket(fileno=door)),
        doors,
        control,
    )


def _no_supervisor(why: str) -> SystemFault:
    return SystemFault("WorkerUnstartable", why)
