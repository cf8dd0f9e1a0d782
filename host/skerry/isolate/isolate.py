"""One call's isolate: a fresh instance with its store, thrown away after use.

```
Isolate(linker, module, host)      store, limits, deadline, instance: memory is the image's, copy-on-write
   .invoke(request)                guest runs; hostcalls go to `host`; returns (status, payload)
   .resume(completions)            again, after tickets were answered
   .close()                        always: the slot is wiped
```

After a trap the isolate is dead: `invoke` and `resume` raise, and only `close` may follow. What an isolate can reach
is exactly its `HostcallTable` and the four methods of `IsolateHost`; it knows neither the database nor HTTP.

Deadlines: at each deadline the engine asks `Linker.at_deadline`, which looks at the CPU time of its thread and lets the
guest go on while the call's `CpuBudget` has some left. An *inline* call has a `CpuSlice` (`SliceSpent`: the caller runs
it again elsewhere), a *patient* one the whole budget (`FunctionTimedOut`). Isolates of one call share it, so calling
other functions buys no time.
"""

import ctypes
from collections.abc import Callable, Mapping
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Final, Protocol

from skerry import limits
from skerry.errors import DeveloperError, SystemFault
from skerry.isolate import bindings
from skerry.isolate.bindings import Pointer
from skerry.isolate.compiled import STEPS_BYTES, STEPS_EXPORT
from skerry.isolate.linker import GuestFault

if TYPE_CHECKING:
    from skerry.isolate.compiled import CompiledModule
    from skerry.isolate.linker import Linker

DONE: Final[int] = 0
FAILED: Final[int] = 1
PENDING: Final[int] = 2

Hostcall = Callable[[Any, bytes, bytes | None], "bytes | int"]
"""A served operation: (host, argument, raw bytes) -> result, or the number of a ticket.

Raises: DeveloperError, for the guest to catch.
"""

HostcallTable = Mapping[bytes, Hostcall]


class IsolateHost(Protocol):
    """Whom a guest's requests go to: the call."""

    def clock_ns(self) -> int:
        """The call's frozen time, Unix epoch (asking makes the result time-dependent)."""
        ...

    def entropy(self, length: int) -> bytes:
        """Bytes of the call's generator."""
        ...

    def output(self, level: str, data: bytes) -> None:
        """What a guest wrote to its standard output or error."""
        ...


class SliceSpent(Exception):
    """An inline isolate did not finish within its slice; nothing it did has an effect outside its transaction."""


class CpuBudget:
    """CPU time that the isolates of one call may spend together, on one thread; it begins now. And their memory, each.

    Shape: `thread_time_ns` is the clock of the calling thread's CPU time; `steps` is what its isolates, once closed,
    say they used of their own budget (ABI.md, *Steps*): not to be believed. CPU time and not wall-clock time, because a
    thread that the machine set aside has done nothing wrong.
    """

    __slots__ = (
        "clock_ns", "cpu_ms_max", "end_ns", "guest_elapsed_ns", "hostcalls", "is_new", "memory_bytes_max", "steps",
    )  # fmt: skip

    def __init__(
        self,
        thread_time_ns: Callable[[], int],
        cpu_ms_max: int,
        *,
        memory_bytes_max: int = limits.GUEST_MEMORY_BYTES_MAX,
    ) -> None:
        self.memory_bytes_max = memory_bytes_max
        self.clock_ns = thread_time_ns
        self.cpu_ms_max = cpu_ms_max
        self.end_ns = thread_time_ns() + cpu_ms_max * 1_000_000
        self.is_new = True
        self.guest_elapsed_ns = 0
        self.hostcalls = 0
        self.steps = 0

    def used_ns(self) -> int:
        """The CPU time since the budget began."""
        return self.clock_ns() - self.end_ns + self.cpu_ms_max * 1_000_000

    def first_ticks(self) -> int:
        """As `ticks`, for an isolate that begins; the first one need not ask for the time again."""
        if self.is_new:
            self.is_new = False
            return max(1, min(self.cpu_ms_max // limits.EPOCH_TICK_MS, limits.CPU_LOOK_TICKS_MAX))
        return self.ticks()

    def ticks(self) -> int:
        """Until when the engine may run before it looks here again, in ticks; 0 where nothing is left."""
        left_ns = self.end_ns - self.clock_ns()
        if left_ns <= 0:
            return 0
        return max(1, min(left_ns // (limits.EPOCH_TICK_MS * 1_000_000), limits.CPU_LOOK_TICKS_MAX))

    def expect(self, cost_us: int) -> None:
        """Ends the call before host work that would outrun what is left, and that nothing can interrupt once begun.

        Raises: what `spent` gives.
        """
        if cost_us * 1_000 > self.end_ns - self.clock_ns():
            raise self.spent()

    @property
    def is_slice(self) -> bool:
        """Whether the call can be run again elsewhere, with more."""
        return False

    def leave_slice(self) -> None:
        """Ends a slice before host work that is long for it; nothing where there is no slice."""

    def look(self) -> None:
        """Ends the call within long work of the host, where nothing is left. Raises: what `spent` gives."""
        if self.clock_ns() >= self.end_ns:
            raise self.spent()

    def asked(self) -> None:
        """The guest asked its host, on a thread where long calls run: others may go first."""

    def spent(self) -> Exception:
        """What ends the call when nothing is left."""
        return DeveloperError(
            "FunctionTimedOut", f"Function execution timed out (maximum duration: {self.cpu_ms_max / 1000:g}s)"
        )


class CpuSlice(CpuBudget):
    """The budget of an inline call: a call that spends it runs again elsewhere."""

    __slots__ = ()

    @property
    def is_slice(self) -> bool:
        return True

    def leave_slice(self) -> None:
        raise SliceSpent()

    def spent(self) -> Exception:
        return SliceSpent()


class _Scratch:
    """Native memory that one isolate at a time uses for its handles; kept, since making it costs a hostcall's time."""

    __slots__ = (
        "address_extern",
        "address_instance",
        "address_trap",
        "address_values",
        "extern",
        "instance",
        "of",
        "trap",
        "values",
    )

    def __init__(self) -> None:
        self.instance = bindings.Instance()
        self.extern = bindings.Extern()
        self.values = (ctypes.c_uint64 * 32)()
        self.trap = ctypes.c_void_p()
        self.address_instance = ctypes.addressof(self.instance)
        self.address_extern = ctypes.addressof(self.extern)
        self.of = self.address_extern + bindings.EXTERN_OF
        self.address_values = ctypes.addressof(self.values)
        self.address_trap = ctypes.addressof(self.trap)


_spare_scratch: list[_Scratch] = []
_NO_OPERATIONS: Final[HostcallTable] = {}
_memories: "dict[Pointer, memoryview[int]]" = {}
"""The memory of each slot, as large as it may become: only `memory_size` says how much of it is there to be touched."""
_memory_words: "dict[Pointer, memoryview[int]]" = {}
"""The same, in 64-bit words."""

_TRAP_STACK_OVERFLOW: Final[int] = 0
_TRAP_TEXTS: Final[dict[int, str]] = {
    1: "memory access out of bounds",
    2: "misaligned memory access",
    3: "table access out of bounds",
    4: "indirect call to null",
    5: "indirect call type mismatch",
    6: "integer overflow",
    7: "integer divide by zero",
    8: "invalid conversion to integer",
    9: "unreachable code reached",
}


class Isolate:
    """One fresh instance of a module.

    Concurrency: the linker's thread only. Raises (constructor): SystemFault `IsolatesExhausted` when the pool is full.
    """

    __slots__ = (
        "_scratch", "_store", "base", "context", "cpu", "dead", "failure", "host", "hostcalls",
        "hostcalls_left", "linker", "memory", "memory_size", "module", "parked", "tickets_open",
    )  # fmt: skip

    def __init__(
        self,
        linker: "Linker",
        module: "CompiledModule",
        host: IsolateHost,
        hostcalls: HostcallTable,
        cpu: CpuBudget,
        *,
        is_building: bool = False,
    ) -> None:
        self.linker = linker
        self.module = module
        self.host = host
        self.hostcalls = hostcalls
        self.hostcalls_left = limits.HOSTCALLS_PER_CALL_MAX
        self.tickets_open = 0
        self.parked: bytes | None = None
        self.failure: BaseException | None = None
        self.dead = False
        self.memory_size = 0
        self.base = 0
        self.cpu = cpu
        self._store = 0
        prepared = module.prepared.get(id(linker)) or linker.prepare(module)
        ticks = cpu.first_ticks()
        if ticks == 0:
            raise cpu.spent()
        try:
            self._scratch = scratch = _spare_scratch.pop()
        except IndexError:  # other threads take from it too
            self._scratch = scratch = _Scratch()
        self._store = store = bindings.store_new(linker.engine.address, None, None)
        self.context = context = bindings.store_context(store)
        limit_store(store, cpu.memory_bytes_max)
        bindings.store_epoch_deadline_callback(store, linker.at_deadline, None, None)
        bindings.set_epoch_deadline(context, ticks)
        error = bindings.instance_pre_instantiate(prepared, context, scratch.address_instance, scratch.address_trap)
        if error or scratch.trap.value:
            self._fail_to_start(error)
        self._find_memory()
        if module.has_initializer and not is_building:
            self._initialize()

    def _fail_to_start(self, error: Pointer | None) -> None:
        trap = self._scratch.trap.value
        message = bindings.take_error(error) if error else bindings.take_trap(trap or 0)[1]
        self._scratch.trap.value = None
        self.close()
        if "maximum concurrent" in message:
            raise SystemFault("IsolatesExhausted", "Every isolate of this process is in use. Try again in a moment.")
        raise DeveloperError("GuestTrapped", f"The module could not be instantiated: {message}")

    def _initialize(self) -> None:
        """Runs the guest's set-up, before any call: the host answers no operation meanwhile."""
        served, self.hostcalls = self.hostcalls, _NO_OPERATIONS
        try:
            self._call(b"_initialize", None)
        except BaseException:
            self.close()
            raise
        self.hostcalls = served
        self.parked = None

    def _find_memory(self) -> None:
        scratch, context = self._scratch, self.context
        found = bindings.instance_export_get(context, scratch.address_instance, b"memory", 6, scratch.address_extern)
        assert found, "the module's check demands a memory"
        self.base = base = bindings.memory_data(context, scratch.of)
        memory = _memories.get(base)
        if memory is None:
            memory = _memories[base] = bindings.view_of(base, limits.GUEST_MEMORY_BYTES_MAX)
            _memory_words[base] = memory.cast("Q")
        self.memory = memory
        self.memory_size = self.module.memory_bytes
        if self.module.steps_at < 0:
            at = self.global_value(STEPS_EXPORT)  # the same in each instance: it cannot change and nothing is imported
            is_word = at % STEPS_BYTES == 0 and at + STEPS_BYTES <= self.memory_size
            self.module.steps_at = at // STEPS_BYTES if is_word else 0

    # -- entering the guest --------------------------------------------------------------------------------------

    def invoke(self, request: bytes) -> tuple[int, bytes]:
        """Runs one call. Shape: (DONE, JSON of the value) | (FAILED, error object) | (PENDING, empty)."""
        return self._enter(b"invoke", request)

    def resume(self, completions: bytes) -> tuple[int, bytes]:
        """Goes on after tickets were answered; like `invoke`."""
        return self._enter(b"resume", completions)

    def describe(self) -> tuple[int, bytes]:
        """What the module offers (see ABI.md, *Describe*)."""
        return self._unpack(self._call(b"describe", None))

    def call_raw(self, export: str, parked: bytes | None) -> int:
        """Any export by name, for building images: with `len(parked)` after parking, or without arguments."""
        self.parked = parked
        return self._call(export.encode(), None if parked is None else len(parked))

    def _enter(self, export: bytes, payload: bytes) -> tuple[int, bytes]:
        self.parked = payload
        return self._unpack(self._call(export, len(payload)))

    def _call(self, export: bytes, argument: int | None) -> int:
        """Runs an export with at most one i32 and returns its result as an unsigned 64-bit number."""
        scratch, context, linker = self._scratch, self.context, self.linker
        assert not self.dead, "an isolate is never entered after a trap"
        if not bindings.instance_export_get(
            context, scratch.address_instance, export, len(export), scratch.address_extern
        ):
            raise DeveloperError("GuestProtocolError", f"The module has no export {export.decode()}.")
        values = scratch.values
        values[0] = argument or 0
        outer, linker.current = linker.current, self
        ticker = linker.engine.ticker
        ticker.entries += 1
        if ticker.asleep:
            ticker.wake()
        begin_ns = perf_counter_ns()
        error = bindings.func_call_unchecked(context, scratch.of, scratch.address_values, 1, scratch.address_trap)
        self.cpu.guest_elapsed_ns += perf_counter_ns() - begin_ns
        linker.current = outer
        if error or scratch.trap.value:
            self._raise_trap(error)
        return values[0]

    def _unpack(self, packed: int) -> tuple[int, bytes]:
        status, length, at = packed >> 60, packed >> 32 & 0xFFF_FFFF, packed & 0xFFFF_FFFF
        if status == PENDING:
            if self.tickets_open == 0:
                raise GuestFault("GuestProtocolError", "The guest waits for a ticket it does not hold.")
            return PENDING, b""
        if status > PENDING:
            raise GuestFault("GuestProtocolError", f"The guest returned the unknown status {status}.")
        if length > limits.GUEST_PAYLOAD_BYTES_MAX:
            raise DeveloperError("ResultTooLarge", _RESULT_TOO_LARGE)
        if at + length > self.memory_size:
            self.check_range(at + length)
        return status, ctypes.string_at(self.base + at, length)

    def _raise_trap(self, error: Pointer | None) -> None:
        """Turns a trap into the exception that caused it; the isolate is dead from here on."""
        self.dead = True
        trap, self._scratch.trap.value = self._scratch.trap.value, None
        if error:
            message = bindings.take_error(error)
            raise self.failure or SystemFault("InternalServerError", f"wasmtime refused a call: {message}")
        code, message = bindings.take_trap(trap or 0)
        if self.failure is not None:
            raise self.failure
        if code == _TRAP_STACK_OVERFLOW:
            raise DeveloperError("StackOverflow", "The function's stack overflowed. Recurse less deeply.")
        text = _TRAP_TEXTS.get(code, message) if code is not None else message
        raise DeveloperError("GuestTrapped", f"The function's WebAssembly trapped: {text}.")

    # -- guest memory --------------------------------------------------------------------------------------------

    def check_range(self, end: int) -> None:
        """Raises GuestFault `GuestPointerInvalid` where `end` lies past the memory as it is now."""
        if end > self.memory_size:
            self._read_memory_size()
            if end > self.memory_size:
                raise GuestFault("GuestPointerInvalid", "The guest passed a pointer or a length outside its memory.")

    def read(self, at: int, length: int) -> bytes:
        self.check_range(at + length)
        return ctypes.string_at(self.base + at, length)

    def write(self, at: int, data: bytes) -> None:
        self.check_range(at + len(data))
        ctypes.memmove(self.base + at, data, len(data))

    def all_memory(self) -> bytes:
        """The whole memory as it is now, for building images."""
        self._read_memory_size()
        return ctypes.string_at(self.base, self.memory_size)

    def global_value(self, export: str) -> int:
        """The value of an exported i32 global, unsigned, for building images."""
        extern, value = bindings.Extern(), bindings.Val()
        address = ctypes.addressof(extern)
        found = bindings.instance_export_get(
            self.context, self._scratch.address_instance, export.encode(), len(export), address
        )
        assert found, f"no export {export}"
        bindings.global_get(self.context, address + bindings.EXTERN_OF, ctypes.addressof(value))
        return value.of.i32 & 0xFFFF_FFFF

    def _read_memory_size(self) -> None:
        extern = bindings.Extern()  # not the scratch's: a guest is on the stack and its function handle is there
        address = ctypes.addressof(extern)
        bindings.instance_export_get(self.context, self._scratch.address_instance, b"memory", 6, address)
        self.memory_size = bindings.memory_data_size(self.context, address + bindings.EXTERN_OF)

    # -- tickets and operations ----------------------------------------------------------------------------------

    def open_ticket(self, ticket: int) -> int:
        self.tickets_open += 1
        if self.tickets_open > limits.TICKETS_OPEN_MAX:
            raise GuestFault(
                "TooManyConcurrentOperations",
                f"More than {limits.TICKETS_OPEN_MAX} operations are open. Await some of them.",
            )
        return ticket

    def unknown_operation(self, name: bytes) -> DeveloperError:
        return DeveloperError("UnknownOperation", f"Unknown async operation {name.decode('utf-8', 'replace')}")

    def steps(self) -> int:
        """What the guest says it has used of its own budget (ABI.md, *Steps*). Not while it runs, nor once closed."""
        at = self.module.steps_at
        return _memory_words[self.base][at] if at > 0 and self.base else 0

    def close(self) -> None:
        """Drops the instance; its slot is wiped before anybody else gets it."""
        store, self._store = self._store, 0
        if store:
            self.cpu.steps += self.steps()
            self.cpu.hostcalls += limits.HOSTCALLS_PER_CALL_MAX - self.hostcalls_left
            bindings.store_delete(store)  # storage writes meanwhile: 8 % more transfers
            _spare_scratch.append(self._scratch)


def limit_store(store: Pointer, memory_bytes_max: int) -> None:
    """Says what a store's guest may grow to, from now on."""
    bindings.store_limiter(store, memory_bytes_max, limits.GUEST_TABLE_ELEMENTS_MAX, 1, limits.GUEST_TABLES_MAX, 1)


_RESULT_TOO_LARGE: Final[str] = (
    f"The function's result is larger than {limits.GUEST_PAYLOAD_BYTES_MAX // limits.MIB} MiB as JSON. "
    "Return less, or paginate."
)
