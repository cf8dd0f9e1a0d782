"""WASI preview 1 in the small deterministic form that libc start-up and compiled languages need.

Frozen time, the call's seeded generator, standard output and error as log lines, no arguments, no environment, no
files, no sockets. Leaving through `proc_exit` ends the call with `GuestExited`. Everything else of WASI is absent: a
module that imports it is refused.

The bodies are pure steps on the isolate's memory and its host object; they return WASI error numbers.
Source: WASI preview 1 `witx` (argument types and error numbers).
"""

import ctypes
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

from skerry import limits
from skerry.errors import DeveloperError

if TYPE_CHECKING:
    from skerry.isolate.isolate import Isolate

ERRNO_SUCCESS: Final[int] = 0
ERRNO_BADF: Final[int] = 8
ERRNO_FAULT: Final[int] = 21
ERRNO_INVAL: Final[int] = 28
ERRNO_SPIPE: Final[int] = 70

_CHARACTER_DEVICE: Final[int] = 2
_IO_VECTORS_MAX: Final[int] = 1024

WasiFunction = Callable[["Isolate", Any], int]


def wasi_functions() -> Iterator[tuple[str, str, str, WasiFunction]]:
    """Each served function: name, argument types and result types (i = i32, I = i64), body."""
    yield "clock_time_get", "iIi", "i", _clock_time_get
    yield "clock_res_get", "ii", "i", _clock_res_get
    yield "random_get", "ii", "i", _random_get
    yield "fd_write", "iiii", "i", _fd_write
    yield "fd_close", "i", "i", _on_standard_stream
    yield "fd_seek", "iIii", "i", _fd_seek
    yield "fd_fdstat_get", "ii", "i", _fd_fdstat_get
    yield "fd_prestat_get", "ii", "i", _no_such_descriptor
    yield "fd_prestat_dir_name", "iii", "i", _no_such_descriptor
    yield "environ_get", "ii", "i", _nothing
    yield "environ_sizes_get", "ii", "i", _no_sizes
    yield "args_get", "ii", "i", _nothing
    yield "args_sizes_get", "ii", "i", _no_sizes
    yield "sched_yield", "", "i", _nothing
    yield "proc_exit", "i", "", _proc_exit


def _clock_time_get(isolate: "Isolate", values: Any) -> int:
    if values[0] > 3:  # realtime, monotonic and the two CPU clocks all show the call's frozen time
        return ERRNO_INVAL
    isolate.write(values[8], isolate.host.clock_ns().to_bytes(8, "little"))
    return ERRNO_SUCCESS


def _clock_res_get(isolate: "Isolate", values: Any) -> int:
    isolate.write(values[4], (1_000_000).to_bytes(8, "little"))
    return ERRNO_SUCCESS


def _random_get(isolate: "Isolate", values: Any) -> int:
    at, length = values[0], values[4]
    if length > limits.ENTROPY_BYTES_MAX:
        return ERRNO_INVAL
    isolate.check_range(at + length)
    isolate.write(at, isolate.host.entropy(length))
    return ERRNO_SUCCESS


def _fd_write(isolate: "Isolate", values: Any) -> int:
    descriptor, vectors_at, vector_count, written_at = values[0], values[4], values[8], values[12]
    if descriptor not in (1, 2):
        return ERRNO_BADF
    if vector_count > _IO_VECTORS_MAX:
        return ERRNO_INVAL
    table = isolate.read(vectors_at, 8 * vector_count)
    kept: list[bytes] = []
    total = kept_length = 0
    for offset in range(0, len(table), 8):
        at = int.from_bytes(table[offset : offset + 4], "little")
        length = int.from_bytes(table[offset + 4 : offset + 8], "little")
        isolate.check_range(at + length)
        total += length
        piece = isolate.read(at, min(length, max(0, 2 * limits.LOG_LINE_BYTES_MAX - kept_length)))
        kept.append(piece)
        kept_length += len(piece)
    isolate.host.output("LOG" if descriptor == 1 else "ERROR", b"".join(kept))
    isolate.write(written_at, (total & 0xFFFFFFFF).to_bytes(4, "little"))
    return ERRNO_SUCCESS


def _fd_seek(isolate: "Isolate", values: Any) -> int:
    return ERRNO_SPIPE if values[0] <= 2 else ERRNO_BADF


def _fd_fdstat_get(isolate: "Isolate", values: Any) -> int:
    if values[0] > 2:
        return ERRNO_BADF
    isolate.write(values[4], bytes([_CHARACTER_DEVICE]) + bytes(23))
    return ERRNO_SUCCESS


def _on_standard_stream(isolate: "Isolate", values: Any) -> int:
    return ERRNO_SUCCESS if values[0] <= 2 else ERRNO_BADF


def _no_such_descriptor(isolate: "Isolate", values: Any) -> int:
    return ERRNO_BADF


def _nothing(isolate: "Isolate", values: Any) -> int:
    return ERRNO_SUCCESS


def _no_sizes(isolate: "Isolate", values: Any) -> int:
    for at in (values[0], values[4]):
        isolate.write(at, bytes(4))
    return ERRNO_SUCCESS


def _proc_exit(isolate: "Isolate", values: Any) -> int:
    code = ctypes.c_int32(values[0]).value
    raise DeveloperError("GuestExited", f"The guest left through exit({code}). Return from the function instead.")
