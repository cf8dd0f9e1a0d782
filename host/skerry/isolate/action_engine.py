"""What actions run on: engines, pools and linkers of their own, made when the first action comes.

A query's or a mutation's isolate has no way to anything here: other imports, other code, other memory. The machine code
is the same, so a module that the calls' engine holds is mapped again from the cache of compiled code, or handed over as
its serialised form (made by this process, in this process; nothing that was uploaded), instead of being compiled twice.

**An action's isolate belongs to no thread.** It is entered by one thread at a time, whichever is free, so that one that
computes for long stalls nobody beside it. The linker's callbacks therefore find the isolate by the thread that entered
it (`ActionLinker.current`), which costs a dictionary look-up.

**Warm and cold.** `ACTION_WARM_ISOLATES_MAX` slots keep the part of their memory that actions touch and have it wiped
in place, as those of calls do; one deployment has `ACTION_WARM_EACH_MAX` of them at most. When more actions are under
way, the others run in slots that give all of it back to the machine: so a thousand actions that wait leave nothing
behind, and the few of an ordinary moment pay no page faults. It takes a second engine, since what a slot keeps is a
setting of its engine.

**Memory.** All isolates of a host together address at most `ACTIONS_MEMORY_BYTES_MAX`, those of one of several workers
its part of that; growing past it fails in the guest that
does, as it does past the guest's own bound, and a new isolate that finds no room is refused.
"""

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from skerry import limits
from skerry.errors import DeveloperError, SystemFault
from skerry.isolate.compiled import CompiledModule
from skerry.isolate.engine import Engine, Pool
from skerry.isolate.isolate import CpuBudget, Isolate, limit_store
from skerry.isolate.linker import Linker

if TYPE_CHECKING:
    from skerry.isolate.isolate import HostcallTable, IsolateHost

_NS_PER_MS: Final = 1_000_000


Outran = Callable[[], Callable[[], None]]
"""Says that an entry has used its slice; it gives what the entry calls now and then from there on."""


class ActionLinker(Linker):
    """The imports of all actions. Concurrency: any thread, each with at most one guest on its stack."""

    def __init__(self, engine: Engine) -> None:
        self._running: dict[int, Isolate] = {}
        super().__init__(engine, is_patient=True)

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


class _Slots:
    """One pool with its engine and its linker. Shape: `taken` isolates that are in it or about to be."""

    def __init__(self, pool: Pool) -> None:
        self.engine = Engine(pool)
        self.linker = ActionLinker(self.engine)
        self.slots_max = pool.slots
        self.taken = 0


class ActionModule:
    """A module as actions run it: adopted from the calls' engine when an isolate first needs it.

    Shape: `memory_bytes` is what a fresh instance addresses. Concurrency: any thread.
    """

    __slots__ = ("_adopted", "_lock", "memory_bytes", "origin")

    def __init__(self, origin: CompiledModule) -> None:
        self.origin = origin
        self.memory_bytes = origin.memory_bytes
        self._adopted: dict[int, CompiledModule] = {}
        self._lock = threading.Lock()

    def on(self, slots: _Slots) -> CompiledModule:
        """The module for an engine. Blocks for some milliseconds the first time: not for the loop thread."""
        adopted = self._adopted.get(id(slots))
        if adopted is None:
            with self._lock:
                adopted = self._adopted.get(id(slots))
                if adopted is None:
                    adopted = self.origin.for_engine(slots.engine)
                    slots.linker.prepare(adopted)
                    self._adopted[id(slots)] = adopted
        return adopted


class ActionWorld:
    """Where isolates of actions are opened. Concurrency: any thread. The process's own: `get_action_world`."""

    def __init__(
        self,
        *,
        warm_max: int = limits.ACTION_WARM_ISOLATES_MAX,
        warm_each_max: int = limits.ACTION_WARM_EACH_MAX,
        memory_bytes_max: int = limits.ACTIONS_MEMORY_BYTES_MAX,
    ) -> None:
        self._lock = threading.Lock()
        self._warm_each_max = warm_each_max
        self._warm_of: dict[int, int] = {}
        self._warm = _Slots(Pool(warm_max, limits.ACTION_WARM_MEMORY_RESIDENT_BYTES))
        self._cold: _Slots | None = None  # most servers never need it
        self._memory_left = memory_bytes_max

    def open(
        self,
        module: ActionModule,
        host: "IsolateHost",
        operations: "HostcallTable",
        budget: "ActionBudget",
        whose: object = None,
    ) -> "ActionIsolate":
        """An isolate, warm where one is free and whoever it is for has not too many of these. Close it.

        Raises: SystemFault `TooManyConcurrentActions` where no memory is left for one; what `Isolate` raises.
        """
        if self.take_memory(module.memory_bytes, module.memory_bytes) == 0:
            raise SystemFault(
                "TooManyConcurrentActions", "The actions that run hold all memory there is. Try again in a moment."
            )
        return ActionIsolate(self, self._take_slot(id(whose)), id(whose), module, host, operations, budget)

    def _take_slot(self, whose: int) -> _Slots:
        with self._lock:
            slots = self._warm
            warm = self._warm_of.get(whose, 0)
            if slots.taken < slots.slots_max and warm < self._warm_each_max:
                self._warm_of[whose] = warm + 1
            else:
                if self._cold is None:
                    self._cold = _Slots(Pool(limits.ACTION_ISOLATES_MAX, 0))
                slots = self._cold
            slots.taken += 1
            return slots

    def give_back(self, slots: _Slots, whose: int, memory_bytes: int) -> None:
        """Takes back what a closed isolate had."""
        with self._lock:
            slots.taken -= 1
            if slots is self._warm:
                self._warm_of[whose] -= 1
                if not self._warm_of[whose]:
                    del self._warm_of[whose]
            self._memory_left += memory_bytes

    # -- memory --------------------------------------------------------------------------------------------------

    def take_memory(self, wanted: int, least: int = 0) -> int:
        """As many of the wanted bytes as are left for all isolates together; none where that is less than `least`."""
        with self._lock:
            taken = min(wanted, self._memory_left)
            if taken < least:
                return 0
            self._memory_left -= taken
            return taken

    def give_memory(self, size: int) -> None:
        """Takes back bytes that an isolate has not used."""
        with self._lock:
            self._memory_left += size


class ActionIsolate(Isolate):
    """An action's isolate. What it may grow to is taken from what all may address, at each entry, and what it has not
    used is given back when the entry ends: so the sum never exceeds `ACTIONS_MEMORY_BYTES_MAX`, whatever they do.
    """

    __slots__ = ("_held_bytes", "_memory_limit", "_slots", "_whose", "_world")

    def __init__(
        self,
        world: ActionWorld,
        slots: _Slots,
        whose: int,
        module: ActionModule,
        host: "IsolateHost",
        operations: "HostcallTable",
        budget: "ActionBudget",
    ) -> None:
        self._world: ActionWorld | None = world
        self._slots = slots
        self._whose = whose
        self._held_bytes = module.memory_bytes
        self._memory_limit = budget.memory_bytes_max  # the store's own, from its start
        try:
            super().__init__(slots.linker, module.on(slots), host, operations, budget)
        except BaseException:
            self._give_back()
            raise

    def _call(self, export: bytes, argument: int | None) -> int:
        world = self._world
        assert world is not None, "a closed isolate is not entered"
        limit = self._held_bytes + world.take_memory(max(0, self.cpu.memory_bytes_max - self._held_bytes))
        if limit != self._memory_limit:
            self._memory_limit = limit
            limit_store(self._store, limit)
        try:
            return super()._call(export, argument)
        finally:
            self._read_memory_size()
            world.give_memory(limit - self.memory_size)
            self._held_bytes = self.memory_size

    def close(self) -> None:
        super().close()
        self._give_back()

    def _give_back(self) -> None:
        world, self._world = self._world, None
        if world is not None:
            world.give_back(self._slots, self._whose, self._held_bytes)


class ActionBudget(CpuBudget):
    """CPU time of one action over all its entries, on whatever threads they run.

    Shape: `enter` and `leave` enclose an entry, on its thread; `outran` is called there once an entry has used
    `ACTION_SLICE_MS`, and what it gives at each look and hostcall from then on. `stop` (any thread) ends the action at
    the next deadline with the error that it is given.
    """

    __slots__ = ("_give_way", "_left_ns", "_slice_end_ns", "_stopped", "outran")

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
        self._give_way: Callable[[], None] | None = None
        self.outran: Outran | None = None

    def enter(self, outran: Outran) -> None:
        """Begins an entry."""
        now_ns = self.clock_ns()
        self.end_ns = now_ns + self._left_ns
        self._slice_end_ns = now_ns + limits.ACTION_SLICE_MS * _NS_PER_MS
        self.outran = outran

    def leave(self) -> None:
        """Ends an entry."""
        self._left_ns = self.end_ns - self.clock_ns()
        self.outran = self._give_way = None

    def asked(self) -> None:
        if self._give_way is not None:
            self._give_way()

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
            self._give_way = outran()
        if self._give_way is not None:
            self._give_way()
        return super().ticks()

    def spent(self) -> Exception:
        return self._stopped or super().spent()


_memory_bytes_max = limits.ACTIONS_MEMORY_BYTES_MAX
_world: ActionWorld | None = None
_world_lock = threading.Lock()


def get_action_world() -> ActionWorld:
    """The process's world for actions, made at first use. Not for the loop thread."""
    global _world
    with _world_lock:
        if _world is None:
            _world = ActionWorld(memory_bytes_max=_memory_bytes_max)
        return _world


def share_actions_memory(workers: int) -> None:
    """Makes this process one of so many that share ACTIONS_MEMORY_BYTES_MAX. Before the first action."""
    global _memory_bytes_max
    assert _world is None, "it has its part already"
    _memory_bytes_max = limits.ACTIONS_MEMORY_BYTES_MAX // workers
