"""The isolate in which images are made: a tenant's modules load here, under limits, with a fixed clock and a fixed
seed.

No database, no operations but `log` and `entropy`: what a module may do while it loads is think. The CPU time of the
whole build of one image is bounded by `MODULE_LOAD_CPU_MS_MAX`. The builder (`skerry.bundle.image`) reads the
instance's memory when it is done.
"""

import time
import weakref
from collections.abc import Callable
from typing import Final, Protocol

import orjson

from skerry import limits
from skerry.errors import DeveloperError
from skerry.isolate.compiled import CompiledModule, ModuleCache
from skerry.isolate.entropy import EntropyStream
from skerry.isolate.isolate import CpuBudget, Hostcall, Isolate
from skerry.isolate.linker import linker_of_this_thread

_NS_PER_MS: Final[int] = 1_000_000
_LEVEL_CHARS_MAX: Final[int] = 5


class LoadHost:
    """Whom a guest asks while its modules load or describe themselves. Shape: `log_lines` is what it printed."""

    def __init__(self, clock_ms: int, seed: bytes) -> None:
        self._clock_ms = clock_ms
        self._entropy = EntropyStream(seed)
        self.log_lines: list[str] = []

    def clock_ns(self) -> int:
        return self._clock_ms * _NS_PER_MS

    def entropy(self, length: int) -> bytes:
        return self._entropy.take(length)

    def output(self, level: str, data: bytes) -> None:
        self.log_line(level, data.decode("utf-8", "replace"))

    def log_line(self, level: str, message: str) -> None:
        if len(self.log_lines) < limits.LOG_LINES_MAX:
            self.log_lines.append(f"[{level}] {message[: limits.LOG_LINE_BYTES_MAX]}")


def _log(host: LoadHost, argument: bytes, _raw: bytes | None) -> bytes:
    try:
        line = orjson.loads(argument)
        level, message = line["level"], line["message"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        raise DeveloperError("InvalidArgument", "log takes a level and a message.") from None
    host.log_line(str(level)[:_LEVEL_CHARS_MAX], str(message))
    return b"null"


def _entropy(host: LoadHost, argument: bytes, _raw: bytes | None) -> bytes:
    return host.entropy(entropy_length(argument))


def entropy_length(argument: bytes) -> int:
    """The length that an `entropy` operation asks for. Raises: DeveloperError `InvalidArgument`."""
    try:
        length = orjson.loads(argument)["length"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        length = None
    if type(length) is not int or not 0 <= length <= limits.ENTROPY_BYTES_MAX:
        raise DeveloperError(
            "InvalidArgument", f"entropy takes a length between 0 and {limits.ENTROPY_BYTES_MAX} bytes."
        )
    return length


def _environment(_host: LoadHost, _argument: bytes, _raw: bytes | None) -> bytes:
    """Unset, whatever the name: an image belongs to no deployment yet, and its bytes must not depend on one."""
    return b"null"


LOAD_OPERATIONS: Final[dict[bytes, Hostcall]] = {b"log": _log, b"entropy": _entropy, b"env/get": _environment}


class Modules(Protocol):
    """Where a runner gets the compiled form of a module: a cache, or what it was given."""

    def load(self, wasm: bytes) -> CompiledModule: ...


class BuildRunner:
    """One instance as the image builder drives it (the protocol is `skerry.bundle.image.Runner`).

    Concurrency: the thread that made it. Raises: DeveloperError for what the guest's code did, `FunctionTimedOut`
    included.
    """

    def __init__(self, modules: Modules, wasm: bytes, clock_ms: int, seed: bytes, *, is_building: bool = True) -> None:
        self.host = LoadHost(clock_ms, seed)
        module = modules.load(wasm)
        budget = CpuBudget(time.thread_time_ns, limits.MODULE_LOAD_CPU_MS_MAX)
        self._isolate = Isolate(
            linker_of_this_thread(), module, self.host, LOAD_OPERATIONS, budget, is_building=is_building
        )
        weakref.finalize(self, self._isolate.close)  # the image builder knows no end of its runner

    def close(self) -> None:
        """Gives the instance back now. A failure's traceback may keep this object for long, and instances are few."""
        self._isolate.close()

    def call(self, export: str, parked: bytes | None) -> int:
        try:
            return self._isolate.call_raw(export, parked)
        except BaseException:
            self.close()
            raise

    def read(self, pointer: int, length: int) -> bytes:
        return self._isolate.read(pointer, length)

    def memory(self) -> bytes:
        return self._isolate.all_memory()

    def global_value(self, export: str) -> int:
        return self._isolate.global_value(export)

    def describe(self) -> tuple[int, bytes]:
        return self._isolate.describe()


def build_runner_at(cache: ModuleCache) -> Callable[[int, bytes], Callable[[bytes], BuildRunner]]:
    """How builds make instances: (clock in ms, seed) -> (wasm -> runner)."""

    def at(clock_ms: int, seed: bytes) -> Callable[[bytes], BuildRunner]:
        return lambda wasm: BuildRunner(cache, wasm, clock_ms, seed)

    return at
