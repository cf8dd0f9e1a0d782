"""Jobs in the jail: who may run one, on which child, and what every way to fail is called.

Starting a confined child costs a few hundred milliseconds, most of it imports. So one *spare* waits, confined and with
nothing read, while there are deploys: it is started when a job has taken the one before, and ended when no job came for
`JAIL_SPARE_SECONDS`. A child does one job and ends, so nothing passes from one job to the next.

One thread, the *keeper*, starts all children, because the kernel ties a child to the thread that started it: when the
server dies, however, its children die with it. It exists from the first job on.

Concurrency: any thread; `run_job` blocks. Not for an event loop's thread.
"""

import contextlib
import logging
import queue
import signal
import threading
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from typing import Any, Final, cast

import orjson

from skerry import limits
from skerry.errors import ERRORS, ClientError, DeveloperError, Family, SystemFault
from skerry.jail import messages
from skerry.jail.messages import MessageInvalid
from skerry.jail.process import ChildEnded, ChildProcess, DeadlinePassed, End
from skerry.jail.wall import WALL_NAMES, Wall

_log = logging.getLogger(__name__)
_OUT_OF_MEMORY: Final = (b"memory allocation of", b"MemoryError", b"out of memory")


class _NotStarted(Exception):
    """A child did not come as far as being ready for a job."""


class Jail:
    """The jail of a process. `start` makes a child, in tests another one than `skerry.jail.child`."""

    def __init__(
        self,
        monotonic: Callable[[], float] = time.monotonic,
        start: Callable[[Callable[[], float]], ChildProcess] = ChildProcess,
    ) -> None:
        self._monotonic = monotonic
        self._start = start
        self._changed = threading.Condition()
        self._running = 0
        self._waiting = 0
        self._required: frozenset[str] = frozenset()
        self._orders: queue.SimpleQueue[Future[ChildProcess] | None] = queue.SimpleQueue()
        self._keeping = threading.Lock()  # held by who starts or ends the keeper: there is one at a time
        self._keeper: threading.Thread | None = None
        self._spare: ChildProcess | None = None  # the keeper's
        self._jobs_max = limits.JAIL_JOBS_MAX

    def require(self, names: Sequence[str]) -> None:
        """From now on no job runs unless these walls are up."""
        assert set(names) <= set(WALL_NAMES)
        self._required = frozenset(names)

    def share(self, workers: int) -> None:
        """Makes this process one of so many that share JAIL_JOBS_MAX; each may have one job in any case."""
        self._jobs_max = max(1, limits.JAIL_JOBS_MAX // workers)

    def run_job(self, job: str, payload: Sequence[bytes], *, followed: bool = False) -> bytes:
        """What the job makes of the payload. Blocks.

        Shape: `followed` says that the caller has another job right after this one.

        Raises: ClientError and DeveloperError of the job itself; ClientError `JobTooExpensive` past a limit;
        SystemFault `JailBusy`, `JailFailed`, `JailWallsMissing`.
        """
        if sum(map(len, payload)) + len(job) > limits.JAIL_INPUT_BYTES_MAX:
            raise ClientError(
                "JobTooExpensive", f"The job is larger than {limits.JAIL_INPUT_BYTES_MAX // limits.MIB} MiB."
            )
        with self._place():
            try:
                answer = self._run(job, payload, followed)
            except _NotStarted as error:  # a spare may have died while it waited
                _log.warning("%s", error)
                try:
                    answer = self._run(job, payload, followed)
                except _NotStarted as again:
                    raise _start_failed(again) from None
        if not followed:
            self._orders.put(None)
        return answer

    def walls(self) -> list[Wall]:
        """Which walls this machine lets a job have, as a child finds out that is made for the question. Blocks."""
        with self._child(start_next=False) as child:
            try:
                return _walls_of(child)
            except _NotStarted as error:
                raise _start_failed(error) from None

    def close(self) -> None:
        """Ends the spare. A job after it starts anew; one that comes meanwhile waits for the keeper's end."""
        with self._keeping:
            if self._keeper is not None:
                stop: Future[ChildProcess] = Future()
                stop.cancel()
                self._orders.put(stop)
                self._keeper.join()
                self._keeper = None

    # -- one job -------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _place(self) -> Generator[None, None, None]:
        """One of the places for jobs that run at once."""
        with self._changed:
            if self._waiting >= limits.JAIL_JOBS_WAITING_MAX:
                raise _busy()
            self._waiting += 1
            free = self._changed.wait_for(lambda: self._running < self._jobs_max, limits.JAIL_WAIT_SECONDS_MAX)
            self._waiting -= 1
            if not free:
                raise _busy()
            self._running += 1
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify()

    @contextlib.contextmanager
    def _child(self, *, start_next: bool) -> Generator[ChildProcess, None, None]:
        order: Future[ChildProcess] = Future()
        with self._keeping:
            if self._keeper is None:
                self._keeper = threading.Thread(target=self._keep, name="skerry-jail", daemon=True)
                self._keeper.start()
            self._orders.put(order)
        try:
            child = order.result()
        except OSError as error:
            raise SystemFault("JailFailed", f"No process could be started for the job: {error.strerror}.") from error
        if start_next:
            self._orders.put(None)
        try:
            yield child
        finally:
            child.end()

    def _run(self, job: str, payload: Sequence[bytes], followed: bool) -> bytes:
        with self._child(start_next=followed) as child:
            return self._exchange(child, job, payload)

    def _exchange(self, child: ChildProcess, job: str, payload: Sequence[bytes]) -> bytes:
        missing = [wall for wall in _walls_of(child) if wall.name in self._required and not wall.up]
        if missing:
            shown = "; ".join(f"{wall.name}: {wall.why}" for wall in missing)
            raise SystemFault("JailWallsMissing", f"This machine does not confine the job as required ({shown}).")
        try:
            answer = child.exchange([job.encode(), *payload], limits.JAIL_OUTPUT_BYTES_MAX, limits.JAIL_JOB_SECONDS_MAX)
        except DeadlinePassed:
            child.end()
            raise ClientError(
                "JobTooExpensive", f"{_what(job)} takes longer than {limits.JAIL_JOB_SECONDS_MAX} s."
            ) from None
        except ChildEnded:
            raise _ended(job, child.end()) from None
        except MessageInvalid as error:
            raise SystemFault("JailFailed", f"The answer of the confined process is no answer: {error}.") from None
        if len(answer) == 2 and answer[0] == messages.DONE:
            return answer[1]
        raise _refusal(answer)

    # -- the keeper ----------------------------------------------------------------------------------------------

    def _keep(self) -> None:
        """Starts children as they are ordered, and keeps the spare."""
        while True:
            try:
                order = self._orders.get(timeout=limits.JAIL_SPARE_SECONDS if self._spare else None)
            except queue.Empty:
                self._drop_spare()
                continue
            if order is None:
                try:
                    self._make_spare()
                except OSError as error:  # nobody waits for this one; the next job says what is wrong
                    _log.warning("no confined process is kept ready: %s", error.strerror)
            elif order.cancelled():
                self._drop_spare()
                return
            else:
                try:
                    self._make_spare()
                    order.set_result(cast("ChildProcess", self._spare))
                    self._spare = None
                except OSError as error:
                    order.set_exception(error)

    def _make_spare(self) -> None:
        if self._spare is not None and self._spare.has_ended():
            self._drop_spare()
        if self._spare is None:
            self._spare = self._start(self._monotonic)

    def _drop_spare(self) -> None:
        if self._spare is not None:
            self._spare.end()
            self._spare = None


def _walls_of(child: ChildProcess) -> list[Wall]:
    """Raises: _NotStarted."""
    try:
        return child.walls(limits.JAIL_START_SECONDS_MAX)
    except (DeadlinePassed, ChildEnded, MessageInvalid) as error:
        end = child.end()
        raise _NotStarted(
            f"a confined process did not start: {type(error).__name__}, signal {end.signal}, {end.errors!r}"
        ) from None


def _start_failed(error: _NotStarted) -> SystemFault:
    _log.error("%s", error)
    return SystemFault("JailFailed", "A confined process for the job did not start; the server's log has why.")


def _what(job: str) -> str:
    return "Compiling the module" if job == "compile" else "Building the image"


def _busy() -> SystemFault:
    return SystemFault("JailBusy", "Too many modules are being compiled. Try again in a moment.")


def _ended(job: str, end: End) -> Exception:
    """What to call the end of a child that gave no answer."""
    if end.cpu_s >= limits.JAIL_CPU_SECONDS_MAX:
        return ClientError(
            "JobTooExpensive", f"{_what(job)} takes more than {limits.JAIL_CPU_SECONDS_MAX} s of CPU time."
        )
    if any(text in end.errors for text in _OUT_OF_MEMORY):
        return ClientError(
            "JobTooExpensive", f"{_what(job)} takes more than {limits.JAIL_MEMORY_BYTES_MAX // limits.MIB} MiB."
        )
    how = f"with {signal.Signals(end.signal).name}" if end.signal in set(signal.Signals) else "before its answer"
    _log.error("a confined process ended %s: %r", how, end.errors)
    return SystemFault("JailFailed", f"{_what(job)} failed: the confined process ended {how}.")


def _refusal(answer: list[bytes]) -> Exception:
    """The job's own error, where it is one that a job may raise."""
    try:
        fields = cast("dict[str, Any]", orjson.loads(answer[1]))
        code, message, data = str(fields["code"]), str(fields["message"]), fields["data"]
        family = ERRORS[code].family
    except (orjson.JSONDecodeError, IndexError, KeyError, TypeError):
        return SystemFault("JailFailed", "The answer of the confined process is no answer.")
    if family is Family.SYSTEM:
        return SystemFault("JailFailed", f"The confined process could not do the job: {code}.")
    error = ClientError if family is Family.CLIENT else DeveloperError
    return error(code, message[: limits.JAIL_MESSAGE_CHARS_MAX], data)
