"""The job `compile`: from a checked module to machine code, inside the jail.

`warm` makes an engine of one slot and compiles a small module, so that all threads are there before the jail is sealed.
"""

from collections.abc import Sequence
from typing import Final

import wasmtime

from skerry.errors import ClientError
from skerry.isolate.engine import Pool, get_engine

_SMALL: Final[bytes] = bytes.fromhex("0061736d 01000000 01040160 0000 03030200 00 0a0702 0200 0b 0200 0b")
"""Two empty functions: more than one is what the compiler spreads over its threads."""

_POOL: Final = Pool(slots=1, memory_resident_bytes=0)
_NO_MEMORY: Final = "Cannot allocate memory"


def warm() -> None:
    wasmtime.Module(get_engine(_POOL).wasmtime, _SMALL).serialize()


def compile_module(payload: Sequence[bytes]) -> bytes:
    """Machine code for this machine and the host's engine. Raises: ClientError `GuestModuleInvalid`."""
    (wasm,) = payload
    try:
        return bytes(wasmtime.Module(get_engine().wasmtime, wasm).serialize())
    except wasmtime.WasmtimeError as error:
        if _NO_MEMORY in str(error):
            raise MemoryError from None
        raise ClientError("GuestModuleInvalid", f"The module does not validate: {error}") from None
