"""The parent's side of one child: starting it, one exchange within bounds of time and size, its end.

A child that has been sent a job may be in the hands of whoever made the job. So nothing it says is believed: lengths
are bounded before bytes are read, and how it ended is what the kernel says.

Concurrency: one thread at a time.
"""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

import orjson

from skerry import limits
from skerry.jail import messages
from skerry.jail.messages import MessageInvalid
from skerry.jail.wall import WALL_NAMES, Wall

_START: Final = "import sys; sys.path += sys.argv[1:]; from skerry.jail.child import main; main()"
_READ_BYTES_MAX: Final = 1 << 20
_STDERR_BYTES_SHOWN: Final = 2_000
_WALL_TEXT_CHARS_MAX: Final = 200
_WALLS_BYTES_MAX: Final = 64 * limits.KIB
_SIGNAL_EXIT_BASE: Final = 128


class DeadlinePassed(Exception):
    """The child took longer than it may."""


class ChildEnded(Exception):
    """The child closed its pipe before it had answered."""


@dataclass(frozen=True, slots=True)
class End:
    """How a child ended. Shape: `signal` or None; `cpu_s` of all its threads; `errors` the last it wrote there."""

    signal: int | None
    cpu_s: float
    errors: bytes


class ChildProcess:
    """A child in the jail, started and confining itself. `command` is another program's in tests."""

    def __init__(self, monotonic: Callable[[], float], command: Sequence[str] | None = None) -> None:
        self._monotonic = monotonic
        self._process = subprocess.Popen(
            command or [sys.executable, "-I", "-S", "-B", "-c", _START, *_import_path()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            close_fds=True,
            cwd="/",
            env={},
            start_new_session=True,
        )
        assert self._process.stdin and self._process.stdout and self._process.stderr
        self._to = self._process.stdin.fileno()
        self._from = self._process.stdout.fileno()
        self._errors = self._process.stderr.fileno()
        for descriptor in (self._to, self._from, self._errors):
            os.set_blocking(descriptor, False)
        self._walls: list[Wall] | None = None
        self._end: End | None = None

    @property
    def pid(self) -> int:
        return self._process.pid

    def has_ended(self) -> bool:
        """Whether it ended by itself: its pipe hung up."""
        waiting = select.poll()
        waiting.register(self._from, 0)
        return self._end is not None or bool(waiting.poll(0))

    def walls(self, seconds_max: float) -> list[Wall]:
        """Which walls it put up; it is ready for its job then. Raises: as `exchange`."""
        if self._walls is None:
            (raw,) = self._receive(_WALLS_BYTES_MAX, self._monotonic() + seconds_max) or [b""]
            self._walls = _parse_walls(raw)
        return self._walls

    def exchange(self, parts: Sequence[bytes], bytes_max: int, seconds_max: float) -> list[bytes]:
        """Sends the job and takes the answer.

        Raises: DeadlinePassed; ChildEnded; MessageInvalid for what is no answer.
        """
        deadline = self._monotonic() + seconds_max
        try:
            for chunk in messages.encode(parts):
                self._send(chunk, deadline)
        except BrokenPipeError:
            raise ChildEnded from None
        return self._receive(bytes_max, deadline)

    def end(self) -> End:
        """Ends it, waits until it is gone and gives everything of it back. Repeatable.

        A child that answered ends by itself; one that waits, hangs or runs is killed.
        """
        if self._end is None:
            os.close(self._detach("stdin"))
            status, used = self._reap()
            self._process.returncode = os.waitstatus_to_exitcode(status)
            errors = self._last_errors()
            os.close(self._detach("stdout"))
            os.close(self._detach("stderr"))
            code = self._process.returncode
            number = -code if code < 0 else code - _SIGNAL_EXIT_BASE if code > _SIGNAL_EXIT_BASE else None
            self._end = End(number, used.ru_utime + used.ru_stime, errors)
        return self._end

    def _detach(self, name: str) -> int:
        """Takes the descriptor of a pipe out of its file object, which then has nothing to close."""
        pipe = getattr(self._process, name)
        descriptor = os.dup(pipe.fileno())
        pipe.close()
        return descriptor

    def _reap(self) -> tuple[int, Any]:
        """Its status and what it used, once it is gone."""
        waiting = select.poll()
        for number, wait_ms in ((None, limits.JAIL_END_MS), (signal.SIGTERM, limits.JAIL_END_MS), (signal.SIGKILL, 0)):
            if number is not None:
                os.kill(self._process.pid, number)
            pidfd = os.pidfd_open(self._process.pid)
            waiting.register(pidfd, select.POLLIN)
            ended = waiting.poll(wait_ms)
            waiting.unregister(pidfd)
            os.close(pidfd)
            if ended:
                break
        _, status, used = os.wait4(self._process.pid, 0)
        return status, used

    def _last_errors(self) -> bytes:
        assert self._process.stderr
        try:
            return os.read(self._process.stderr.fileno(), 64 * limits.KIB)[-_STDERR_BYTES_SHOWN:]
        except BlockingIOError:
            return b""

    def _send(self, chunk: bytes, deadline: float) -> None:
        view = memoryview(chunk)
        while view:
            try:
                view = view[os.write(self._to, view) :]
            except BlockingIOError:
                self._wait(self._to, select.POLLOUT, deadline)

    def _receive(self, bytes_max: int, deadline: float) -> list[bytes]:
        def read_exactly(length: int) -> bytes:
            data = bytearray()
            while len(data) < length:
                try:
                    chunk = os.read(self._from, min(length - len(data), _READ_BYTES_MAX))
                except BlockingIOError:
                    self._wait(self._from, select.POLLIN, deadline)
                    continue
                if not chunk:
                    raise ChildEnded
                data += chunk
            return bytes(data)

        return messages.decode(read_exactly, bytes_max)

    def _wait(self, descriptor: int, event: int, deadline: float) -> None:
        left_s = deadline - self._monotonic()
        waiting = select.poll()
        waiting.register(descriptor, event)
        if left_s <= 0 or not waiting.poll(left_s * 1000):
            raise DeadlinePassed


def _parse_walls(raw: bytes) -> list[Wall]:
    try:
        said = cast("list[tuple[str, bool, str]]", orjson.loads(raw))
        found = {str(name): Wall(str(name), up is True, str(why)[:_WALL_TEXT_CHARS_MAX]) for name, up, why in said}
    except (orjson.JSONDecodeError, TypeError, ValueError):
        raise MessageInvalid("it does not say which walls are up") from None
    return [found.get(name) or Wall(name, False, "it was not tried") for name in WALL_NAMES]


def _import_path() -> list[str]:
    """Where this process finds its modules; the child has an empty environment and looks at no site."""
    return [entry for entry in dict.fromkeys(sys.path) if os.path.isabs(entry)]
