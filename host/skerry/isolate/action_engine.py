"""What actions run on: an engine, a pool and linkers of their own, made when the first action comes.

A query's or a mutation's isolate has no way to anything here: other imports, other code, other memory. The machine code
is the same, so a module that the calls' engine holds is handed over as its serialised form (made by this process, in
this process; nothing that was uploaded) instead of being compiled twice.

**An action's isolate belongs to no thread.** It is entered by one thread at a time, whichever is free, so that one that
computes for long stalls nobody beside it. The linker's callbacks therefore find the isolate by the thread that entered
it (`ActionLinker.current`), which costs a dictionary look-up.

Slots keep nothing of their memory: it goes back to the machine when an action ends, and the next one finds it zero.
"""

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import wasmtime

from skerry import limits
from skerry.errors import DeveloperError
from skerry.isolate.compiled import CompiledModule
from skerry.isolate.engine import Engine, Pool
from skerry.isolate.isolate import CpuBudget
from skerry.isolate.linker import Linker

if TYPE_CHECKING:
    from skerry.isolate.isolate import Isolate

_POOL: Final = Pool(limits.ACTION_ISOLATES_MAX, limits.ACTION_POOL_MEMORY_RESIDENT_BYTES)
_NS_PER_MS: Final = 1_000_000


class ActionLinker(Linker):
    """The imports of all actions. Concurrency: any thread, each with at most one guest on its stack."""

    def __init__(self, engine: Engine) -> None:
        self._running: dict[int, Isolate] = {}
        super().__init__(engine)

    @property
    def current(self) -> "Isolate | None":
        """The isolate that the calling thread has entered."""
        return self._running.get(threading.get_ident())

    @current.setter
    def current(self, it: Any) -> None:  # pyright: ignore[reportIncompatibleVariableOverride] -- used as the attribute
        if it is None:
            self._running.pop(threading.get_ident(), None)
        else:
            self._running[threading.get_ident()] = it

    def is_running(self) -> bool:
        return bool(self._running)


class ActionWorld:
    """The engine of actions and its linker. Concurrency: any thread. Make it through `get_action_world`."""

    def __init__(self) -> None:
        self.engine = Engine(_POOL)
        self.linker = ActionLinker(self.engine)

    def adopt(self, module: CompiledModule) -> CompiledModule:
        """The module of the calls' engine, for this one. Blocks for some milliseconds: not for the loop thread."""
        code = module.module.serialize()
        adopted = CompiledModule(wasmtime.Module.deserialize(self.engine.wasmtime, code), module.digest)
        self.linker.prepare(adopted)
        return adopted


class ActionBudget(CpuBudget):
    """CPU time of one action over all its entries, on whatever threads they run.

    Shape: `enter` and `leave` enclose an entry, on its thread; `outran` is called there once an entry has used
    `ACTION_SLICE_MS`. `stop` (any thread) ends the action at the next deadline with the error that it is given.
    """

    __slots__ = ("_left_ns", "_slice_end_ns", "_stopped", "outran")

    def __init__(
        self,
        thread_time_ns: Callable[[], int],
        cpu_ms_max: int,
        *,
        memory_bytes_max: int = limits.GUEST_MEMORY_BYTES_MAX,
    ) -> None:
        super().__init__(thread_time_ns, cpu_ms_max, memory_bytes_max=memory_bytes_max)
        self.is_new = False  # an entry may begin much later
        self._left_ns = cpu_ms_max * _NS_PER_MS
        self._slice_end_ns = 0
        self._stopped: DeveloperError | None = None
        self.outran: Callable[[], None] | None = None

    def enter(self, outran: Callable[[], None]) -> None:
        """Begins an entry."""
        now_ns = self.clock_ns()
        self.end_ns = now_ns + self._left_ns
        self._slice_end_ns = now_ns + limits.ACTION_SLICE_MS * _NS_PER_MS
        self.outran = outran

    def leave(self) -> None:
        """Ends an entry."""
        self._left_ns = self.end_ns - self.clock_ns()
        self.outran = None

    def all_ns(self) -> int:
        """The CPU time of all entries so far."""
        return self.cpu_ms_max * _NS_PER_MS - self._left_ns

    def stop(self, error: DeveloperError) -> None:
        """Ends the action with `error`."""
        self._stopped = error

    def ticks(self) -> int:
        if self._stopped is not None:
            return 0
        outran = self.outran
        if outran is not None:
            if self.clock_ns() < self._slice_end_ns:
                return min(super().ticks(), limits.ACTION_SLICE_MS // limits.EPOCH_TICK_MS)
            self.outran = None
            outran()
        return super().ticks()

    def spent(self) -> Exception:
        return self._stopped or super().spent()


_world: ActionWorld | None = None
_world_lock = threading.Lock()


def get_action_world() -> ActionWorld:
    """The process's engine for actions, made at first use. Not for the loop thread."""
    global _world
    with _world_lock:
        if _world is None:
            _world = ActionWorld()
        return _world
