"""The wasmtime engine, hardened, and the ticker that lets calls be interrupted.

Everything the host does not serve is off: threads, shared memory, 64-bit and several memories, garbage collection,
exceptions, tail calls, the component model; of SIMD only the deterministic part. NaNs are canonical. Code comes from
Cranelift (never Winch), bounds are checked by guard pages behind a full 4 GiB reservation, memory never moves, and
every instance comes from a pool whose slots are wiped before reuse.

**Deadlines are epochs.** `Ticker` advances the engine's epoch every `EPOCH_TICK_MS` while calls run and sleeps when
none do. What a call is entitled to is CPU time, which the deadline callback reads from its own thread; why not fuel,
with figures: ARCHITECTURE.md, "Deadlines and budgets".

One engine for queries and mutations, and a second one for actions once there is one (`action_engine`): types and
code are shared only within an engine, and nothing of one is ever handed to the other.
Source: wasmtime `docs/security.md`, `docs/examples-interrupting-wasm.md`.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Final

import wasmtime

from skerry import limits
from skerry.isolate import bindings
from skerry.isolate.thread_stack import use_large_stacks


@dataclass(frozen=True, slots=True)
class Pool:
    """How many instances an engine may have at once, and what each keeps of its memory for the next one."""

    slots: int
    memory_resident_bytes: int


CALL_POOL: Final[Pool] = Pool(limits.ISOLATES_MAX, limits.POOL_MEMORY_RESIDENT_BYTES)


def _make_config(size: Pool) -> wasmtime.Config:
    config = wasmtime.Config()
    config.strategy = "cranelift"
    config.cranelift_opt_level = "speed"
    config.cranelift_nan_canonicalization = True
    config.wasm_threads = False
    config.shared_memory = False
    config.wasm_memory64 = False
    config.wasm_multi_memory = False
    config.wasm_tail_call = False
    config.wasm_gc = False
    config.gc_support = False
    config.wasm_exceptions = False
    config.wasm_function_references = False
    config.wasm_component_model = False
    config.wasm_relaxed_simd = False
    config.wasm_stack_switching = False
    config.wasm_wide_arithmetic = False
    config.wasm_custom_page_sizes = False
    config.signals_based_traps = True
    config.memory_may_move = False
    config.memory_reservation = 4 * 1024 * limits.MIB
    config.memory_guard_size = 32 * limits.MIB
    config.memory_init_cow = True
    ffi: Any = bindings.ffi  # untyped
    ffi.wasmtime_config_async_stack_size_set(config.ptr(), 2 * limits.GUEST_STACK_BYTES_MAX)  # unused, but larger
    config.max_wasm_stack = limits.GUEST_STACK_BYTES_MAX
    config.epoch_interruption = True
    config.parallel_compilation = True
    _use_pool(config, size)
    return config


def _use_pool(config: wasmtime.Config, size: Pool) -> None:
    """Instances come from a pool: making one is a copy-on-write mapping, dropping one wipes the pages it touched."""
    ffi: Any = bindings.ffi  # untyped
    pool = ffi.wasmtime_pooling_allocation_config_new()
    ffi.wasmtime_pooling_allocation_config_total_core_instances_set(pool, size.slots)
    ffi.wasmtime_pooling_allocation_config_total_stacks_set(pool, 0)  # calls run on the thread's own
    ffi.wasmtime_pooling_allocation_config_total_memories_set(pool, size.slots)
    ffi.wasmtime_pooling_allocation_config_total_tables_set(pool, size.slots)
    ffi.wasmtime_pooling_allocation_config_max_memories_per_module_set(pool, 1)
    ffi.wasmtime_pooling_allocation_config_max_tables_per_module_set(pool, limits.GUEST_TABLES_MAX)
    ffi.wasmtime_pooling_allocation_config_max_memory_size_set(pool, limits.GUEST_MEMORY_BYTES_MAX)
    ffi.wasmtime_pooling_allocation_config_table_elements_set(pool, limits.GUEST_TABLE_ELEMENTS_MAX)
    ffi.wasmtime_pooling_allocation_config_linear_memory_keep_resident_set(pool, size.memory_resident_bytes)
    ffi.wasmtime_pooling_allocation_config_table_keep_resident_set(pool, limits.POOL_TABLE_RESIDENT_BYTES)
    ffi.wasmtime_pooling_allocation_config_max_unused_warm_slots_set(pool, size.slots)
    ffi.wasmtime_pooling_allocation_strategy_set(config.ptr(), pool)
    ffi.wasmtime_pooling_allocation_config_delete(pool)


class Engine:
    """A world of compiled code and of the instances made from it.

    Concurrency: compiling releases the GIL; everything else is cheap. Make one through `get_engine`.
    """

    def __init__(self, pool: Pool = CALL_POOL) -> None:
        self.wasmtime = wasmtime.Engine(_make_config(pool))
        self.address = bindings.address_of(self.wasmtime.ptr())
        self.ticker = Ticker(self.address)

    def fingerprint(self) -> str:
        """What compiled code depends on beside the wasm: engine version and the settings above (by their version)."""
        return f"wasmtime-{version('wasmtime')}/config-{_CONFIG_VERSION}/stack-{limits.GUEST_STACK_BYTES_MAX}"


_CONFIG_VERSION: Final[int] = 1
"""To be raised with any change of `_make_config` that changes compiled code."""


class Ticker:
    """Advances the engine's epoch every `EPOCH_TICK_MS` while there are calls, and sleeps while there are none.

    `wake` is called at every entry into a guest: one attribute read while the ticker runs. It goes to sleep after
    `EPOCH_IDLE_TICKS` ticks in which no guest was entered and none is running.
    """

    def __init__(self, engine_address: int) -> None:
        self._engine = engine_address
        self._wakened = threading.Event()
        self.asleep = True
        self.entries = 0  # into guests: rises before the ticker is asked to be awake
        self.watched: list[Callable[[], bool]] = []  # each linker's "is a guest on your stack?"
        self._thread = threading.Thread(target=self._run, name="skerry-epoch", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        self.asleep = False
        self._wakened.set()

    def _run(self) -> None:
        pause = threading.Event()  # never set: waiting on it is a sleep that needs no clock of its own
        tick_s = limits.EPOCH_TICK_MS / 1000
        while True:
            self._wakened.wait()
            self._wakened.clear()
            quiet_ticks, seen = 0, -1
            while quiet_ticks < limits.EPOCH_IDLE_TICKS:
                pause.wait(tick_s)
                bindings.engine_increment_epoch(self._engine)
                busy = self.entries != seen or any(is_running() for is_running in self.watched)
                quiet_ticks = 0 if busy else quiet_ticks + 1
                seen = self.entries
            self.asleep = True
            if self.entries != seen:  # a guest was entered between the last look and going to sleep
                self.wake()


_engine: Engine | None = None
_engine_lock = threading.Lock()


def get_engine(pool: Pool = CALL_POOL) -> Engine:
    """The process's engine for queries and mutations, made at first use.

    Shape: `pool` is for the first use; compiled code does not depend on it.
    """
    global _engine
    with _engine_lock:
        if _engine is None:
            use_large_stacks()
            _engine = Engine(pool)
        return _engine
