"""Signals as readable bytes: the supervisor's one wait sees them like any other event, and loses none."""

import contextlib
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from types import FrameType, TracebackType


class Wakeups:
    """Catches signals while it is entered. Concurrency: the main thread."""

    def __init__(self, numbers: Sequence[signal.Signals]) -> None:
        self._numbers = numbers
        self._before: list[tuple[int, Callable[[int, FrameType | None], object] | int | None]] = []
        self._read, self._write = socket.socketpair()
        self._read.setblocking(False)
        self._write.setblocking(False)

    def fileno(self) -> int:
        return self._read.fileno()

    def __enter__(self) -> "Wakeups":
        self._before_wakeup = signal.set_wakeup_fd(self._write.fileno(), warn_on_full_buffer=False)
        for number in self._numbers:
            self._before.append((number, signal.getsignal(number)))
            signal.signal(number, _nothing)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before:
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._before_wakeup)
        self._read.close()
        self._write.close()

    def take(self) -> Iterator[int]:
        """The signals that came since the last look."""
        with contextlib.suppress(BlockingIOError):
            while piece := self._read.recv(4096):
                yield from piece


def _nothing(number: int, frame: FrameType | None) -> None:
    """A handler, so that the signal does neither its default nor nothing: its byte is what counts."""
