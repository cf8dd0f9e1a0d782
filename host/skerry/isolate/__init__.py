"""Isolates: guests in fresh WebAssembly instances. The only room that imports wasmtime.

`engine` the hardened engine and its ticker; `action_engine` the one of actions; `compiled` native code and its cache;
`linker` the imports of ABI.md; `wasi` the deterministic rest; `isolate` one call's instance; `bindings` the C functions
underneath.
"""

from skerry.isolate.action_engine import (
    ActionBudget,
    ActionModule,
    ActionWorld,
    Outran,
    get_action_world,
    share_actions_memory,
)
from skerry.isolate.build_runner import BuildRunner, build_runner_at
from skerry.isolate.compiled import CompiledModule, ModuleCache, Precompiled, compile_jailed
from skerry.isolate.engine import Engine, get_engine
from skerry.isolate.entropy import EntropyStream
from skerry.isolate.isolate import (
    DONE,
    FAILED,
    PENDING,
    CpuBudget,
    CpuSlice,
    Hostcall,
    HostcallTable,
    Isolate,
    IsolateHost,
    SliceSpent,
)
from skerry.isolate.linker import GuestFault, Linker, linker_of_this_thread

__all__ = [
    "DONE",
    "FAILED",
    "PENDING",
    "ActionBudget",
    "ActionModule",
    "ActionWorld",
    "BuildRunner",
    "CompiledModule",
    "CpuBudget",
    "CpuSlice",
    "Engine",
    "EntropyStream",
    "GuestFault",
    "Hostcall",
    "HostcallTable",
    "Isolate",
    "IsolateHost",
    "Linker",
    "ModuleCache",
    "Outran",
    "Precompiled",
    "SliceSpent",
    "build_runner_at",
    "compile_jailed",
    "get_action_world",
    "share_actions_memory",
    "get_engine",
    "linker_of_this_thread",
]
