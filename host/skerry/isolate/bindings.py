"""The few functions of wasmtime's C library that a call needs, bound without the wrapper's conversions.

`wasmtime` (the PyPI package) converts types on every call and looks exports up by wrapping all of them: right for
tools, too dear for a path that runs thousands of times a second. Here each function is bound once with plain integers
for pointers.

Two handles on the same library: through `PyDLL` a call keeps the GIL (right for anything that returns within a
microsecond or two: dropping and retaking the lock would cost more), through `CDLL` it lets go of it (right for
running guest code, compiling and anything that may take longer). Callbacks take the GIL themselves.

Source: wasmtime's C API headers (`wasmtime/store.h`, `func.h`, `instance.h`, `linker.h`, `trap.h`).
"""

import ctypes
from collections.abc import Callable
from typing import Any, Final

# The raw bindings are untyped modules of the wasmtime package; everything that leaves this file is typed.
from wasmtime import _ffi as ffi

_LIBRARY: Final[str] = str(ffi.filename)
_keeping_gil = ctypes.PyDLL(_LIBRARY)
_releasing_gil = ctypes.CDLL(_LIBRARY)

Pointer = int
"""An address as an integer; 0 is null (ctypes hands null back as None: see `or 0` at the call sites)."""

_PTR = ctypes.c_void_p
_SIZE = ctypes.c_size_t


def _bind(library: ctypes.CDLL, name: str, result: Any, *arguments: Any) -> Callable[..., Any]:
    function = library[name]  # indexing makes a fresh function object, so the two handles never share argument types
    function.restype = result
    function.argtypes = arguments
    return function


# -- short calls: the GIL is kept --------------------------------------------------------------------------------
store_new = _bind(_keeping_gil, "wasmtime_store_new", _PTR, _PTR, _PTR, _PTR)
store_context = _bind(_keeping_gil, "wasmtime_store_context", _PTR, _PTR)
store_limiter = _bind(
    _keeping_gil, "wasmtime_store_limiter", None, _PTR, *[ctypes.c_int64] * 5
)  # store, memory bytes, table elements, instances, tables, memories
set_epoch_deadline = _bind(_keeping_gil, "wasmtime_context_set_epoch_deadline", None, _PTR, ctypes.c_uint64)
engine_increment_epoch = _bind(_keeping_gil, "wasmtime_engine_increment_epoch", None, _PTR)
instance_pre_instantiate = _bind(
    _keeping_gil, "wasmtime_instance_pre_instantiate", _PTR, _PTR, _PTR, _PTR, _PTR
)  # pre, context, instance out, trap out -> error
instance_pre_delete = _bind(_keeping_gil, "wasmtime_instance_pre_delete", None, _PTR)
instance_export_get = _bind(
    _keeping_gil, "wasmtime_instance_export_get", ctypes.c_bool, _PTR, _PTR, ctypes.c_char_p, _SIZE, _PTR
)
memory_data = _bind(_keeping_gil, "wasmtime_memory_data", _PTR, _PTR, _PTR)
memory_data_size = _bind(_keeping_gil, "wasmtime_memory_data_size", _SIZE, _PTR, _PTR)
global_get = _bind(_keeping_gil, "wasmtime_global_get", None, _PTR, _PTR, _PTR)
trap_new = _bind(_keeping_gil, "wasmtime_trap_new", _PTR, ctypes.c_char_p, _SIZE)
trap_code = _bind(_keeping_gil, "wasmtime_trap_code", ctypes.c_bool, _PTR, _PTR)
trap_delete = _bind(_keeping_gil, "wasm_trap_delete", None, _PTR)
trap_message = _bind(_keeping_gil, "wasm_trap_message", None, _PTR, _PTR)
error_message = _bind(_keeping_gil, "wasmtime_error_message", None, _PTR, _PTR)
error_new = _bind(_keeping_gil, "wasmtime_error_new", _PTR, ctypes.c_char_p)
error_delete = _bind(_keeping_gil, "wasmtime_error_delete", None, _PTR)
byte_vec_delete = _bind(_keeping_gil, "wasm_byte_vec_delete", None, _PTR)

# -- calls that may take long: the GIL is released ---------------------------------------------------------------
func_call_unchecked = _bind(
    _releasing_gil, "wasmtime_func_call_unchecked", _PTR, _PTR, _PTR, _PTR, _SIZE, _PTR
)  # context, func, values, count, trap out -> error
store_delete = _bind(_releasing_gil, "wasmtime_store_delete", None, _PTR)  # it wipes: others have use for the GIL

# -- set-up ------------------------------------------------------------------------------------------------------
linker_new = _bind(_keeping_gil, "wasmtime_linker_new", _PTR, _PTR)
linker_define_func_unchecked = _bind(
    _keeping_gil,
    "wasmtime_linker_define_func_unchecked",
    _PTR,
    _PTR,
    ctypes.c_char_p,
    _SIZE,
    ctypes.c_char_p,
    _SIZE,
    *[_PTR] * 4,
)  # linker, module, name, type, callback, env, finalizer -> error
linker_instantiate_pre = _bind(_keeping_gil, "wasmtime_linker_instantiate_pre", _PTR, _PTR, _PTR, _PTR)
store_epoch_deadline_callback = _bind(
    _keeping_gil, "wasmtime_store_epoch_deadline_callback", None, _PTR, _PTR, _PTR, _PTR
)

HostFunction = ctypes.CFUNCTYPE(_SIZE, _PTR, _PTR, _PTR, _SIZE)
"""An unchecked host function: (env, caller, address of the values, count) -> trap or 0. A value takes 16 bytes."""

EpochCallback = ctypes.CFUNCTYPE(_SIZE, _PTR, _PTR, ctypes.POINTER(ctypes.c_uint64), ctypes.POINTER(ctypes.c_uint8))
"""What a store asks at its epoch deadline: (context, data, ticks to add out, kind out) -> error or 0."""

Extern = ffi.wasmtime_extern_t
EXTERN_OF: Final[int] = Extern.of.offset
DEADLINE_CONTINUE: Final[int] = 0
Instance = ffi.wasmtime_instance_t
ByteVec = ffi.wasm_byte_vec_t
Val = ffi.wasmtime_val_t


def view_of(address: Pointer, size: int) -> "memoryview[int]":
    """The bytes at an address, for as long as they are there; slicing it costs half of what `ctypes.string_at` does."""
    view: Any = memoryview((ctypes.c_ubyte * size).from_address(address))
    return view.cast("B")


def address_of(managed: Any) -> Pointer:
    """The address behind a pointer that the wasmtime package manages (`engine.ptr()`, `module.ptr()`, ...)."""
    address = ctypes.cast(managed, _PTR).value
    assert address
    return address


def take_trap(trap: Pointer) -> tuple[int | None, str]:
    """The code (None for a trap of the host's own) and the message of a trap, which is freed."""
    code = ctypes.c_uint8()
    has_code = trap_code(trap, ctypes.addressof(code))
    message = _take_text(trap_message, trap)
    trap_delete(trap)
    return (code.value if has_code else None), message


def take_error(error: Pointer) -> str:
    """The message of an error, which is freed."""
    message = _take_text(error_message, error)
    error_delete(error)
    return message


def _take_text(read: Callable[..., Any], source: Pointer) -> str:
    text: Any = ByteVec()
    read(source, ctypes.addressof(text))
    try:
        return ctypes.string_at(text.data, text.size).decode("utf-8", "replace").rstrip("\0")
    finally:
        byte_vec_delete(ctypes.addressof(text))
