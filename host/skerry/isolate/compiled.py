"""Compiled modules, and the disk cache they come from.

Compiled code is native code: whoever can write it can run anything. So nothing that was uploaded is ever
deserialised. A cache file is made by this host from wasm it compiled itself, lies in a folder of its own, and carries
a MAC under the host's key over everything that its content depends on: the wasm's digest, wasmtime's version, the
engine's settings, the processor's features. Bytes are verified first and deserialised from the very buffer that was
verified. A file that does not verify is ignored and made anew. Files that nothing has used for long go when new ones
come.

Strangers' modules are compiled in the jail (`compile_jailed`), and what comes out of it is run: that it is what the
module says rests on the compiler alone.

Source: wasmtime `Module::deserialize` (unsafe by contract).
"""

import ctypes
import hashlib
import hmac
import os
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Final

import wasmtime

from skerry import limits
from skerry.errors import SystemFault
from skerry.isolate import bindings
from skerry.isolate.bindings import Pointer
from skerry.isolate.engine import Engine
from skerry.jail import run_job

_MAGIC: Final[bytes] = b"skerry compiled module 1\n"
_MAC_BYTES: Final[int] = 32
_PAGE_BYTES: Final[int] = 65536
_WASM_MAGIC: Final[bytes] = b"\0asm\1\0\0\0"

Compiler = Callable[[Engine, bytes], tuple[wasmtime.Module, bytes]]
"""How a module is compiled: (engine, wasm) -> the module and its machine code.

Raises: ValueError or ClientError `GuestModuleInvalid` for what does not validate; as `skerry.jail.run_job`.
"""


def compile_here(engine: Engine, wasm: bytes) -> tuple[wasmtime.Module, bytes]:
    """Compiles in this process: for modules of whoever runs this process."""
    try:
        module = wasmtime.Module(engine.wasmtime, wasm)
    except wasmtime.WasmtimeError as error:
        raise ValueError(str(error)) from error
    return module, bytes(module.serialize())


def compile_jailed(engine: Engine, wasm: bytes) -> tuple[wasmtime.Module, bytes]:
    """Compiles in the jail: for modules of strangers."""
    code = run_job("compile", [wasm])
    try:
        return wasmtime.Module.deserialize(engine.wasmtime, code), code
    except wasmtime.WasmtimeError as error:
        raise SystemFault("JailFailed", f"The confined process gave no machine code of this engine: {error}") from error


class CompiledModule:
    """Native code of one wasm module, ready to be instantiated by any linker of the process.

    Shape: `digest` (hex sha256 of the wasm), `has_initializer` (an `_initialize` export is to be run in each isolate),
    `memory_bytes` of a fresh instance.
    """

    def __init__(self, module: wasmtime.Module, digest: str) -> None:
        self.module = module
        self.digest = digest
        self.address: Pointer = bindings.address_of(module.ptr())
        self.has_initializer = any(export.name == "_initialize" for export in module.exports)
        memories = [export.type for export in module.exports if export.name == "memory"]
        self.memory_bytes: int = sum(m.limits.min for m in memories if isinstance(m, wasmtime.MemoryType)) * _PAGE_BYTES
        self.prepared: dict[int, Pointer] = {}  # linker -> instance prepared from it
        weakref.finalize(self, _delete_prepared, self.prepared)


def _delete_prepared(prepared: dict[int, Pointer]) -> None:
    for address in prepared.values():
        bindings.instance_pre_delete(address)


class ModuleCache:
    """Compiles modules and keeps the results on disk.

    Shape: `folder` is created with mode 0700; `key` is the host's secret. Concurrency: any thread; compiling releases
    the GIL.
    """

    def __init__(self, engine: Engine, folder: Path | None, key: bytes, compiler: Compiler = compile_here) -> None:
        self._engine = engine
        self._compiler = compiler
        self._folder = folder
        self._key = hmac.digest(key, b"compiled modules", "sha256")
        self._loaded: weakref.WeakValueDictionary[str, CompiledModule] = weakref.WeakValueDictionary()
        if folder is not None:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def load(self, wasm: bytes) -> CompiledModule:
        """The compiled form of `wasm`: the one that is in use already, or from the cache where it is there.

        Raises: ValueError with the engine's words where the wasm is not a valid module; as the `Compiler`.
        """
        digest = _digest_of(wasm)
        shared = self._loaded.get(digest)
        if shared is None:
            shared = self._loaded[digest] = self._load(wasm, digest)
        return shared

    def _load(self, wasm: bytes, digest: str) -> CompiledModule:
        code = self._read(digest)
        if code is not None:
            try:
                return CompiledModule(wasmtime.Module.deserialize(self._engine.wasmtime, code), digest)
            except wasmtime.WasmtimeError:  # of an engine that calls itself the same and is built otherwise
                pass
        return CompiledModule(self._compile(wasm, digest)[0], digest)

    def machine_code(self, wasm: bytes) -> bytes:
        """The machine code of `wasm`, for a process that runs the same engine. Raises: as `load`."""
        digest = _digest_of(wasm)
        return self._read(digest) or self._compile(wasm, digest)[1]

    def _compile(self, wasm: bytes, digest: str) -> tuple[wasmtime.Module, bytes]:
        module, code = self._compiler(self._engine, wasm)
        self._write(digest, code)
        return module, code

    def _forget_unused(self, folder: Path) -> None:
        """Keeps the files that were used last, `COMPILED_FILES_KEPT_MAX` of them."""
        for path in sorted(folder.iterdir(), key=_age_ns)[limits.COMPILED_FILES_KEPT_MAX :]:
            path.unlink(missing_ok=True)

    def _path(self, digest: str) -> Path | None:
        return None if self._folder is None else self._folder / f"{digest}.cwasm"

    def _mac(self, digest: str, code: bytes) -> bytes:
        context = f"{digest}\0{self._engine.fingerprint()}\0{_processor_fingerprint()}\0".encode()
        return hmac.digest(self._key, context + code, "sha256")

    def _read(self, digest: str) -> bytes | None:
        """The machine code that the cache has for a module, verified."""
        path = self._path(digest)
        if path is None:
            return None
        try:
            content = path.read_bytes()
            os.utime(path)  # it is in use: `_forget_unused` goes by this time
        except OSError:
            return None
        code = content[len(_MAGIC) + _MAC_BYTES :]
        if not content.startswith(_MAGIC) or not hmac.compare_digest(
            content[len(_MAGIC) : len(_MAGIC) + _MAC_BYTES], self._mac(digest, code)
        ):
            return None
        return code

    def _write(self, digest: str, code: bytes) -> None:
        path = self._path(digest)
        if path is None:
            return
        temporary = path.with_suffix(f".{os.getpid()}.{threading.get_ident()}.tmp")
        try:
            with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(_MAGIC + self._mac(digest, code) + code)
            temporary.replace(path)
            self._forget_unused(path.parent)
        except OSError:
            temporary.unlink(missing_ok=True)  # a cache that cannot be written costs time, not correctness


class Precompiled:
    """One module whose machine code this process was given by its own host: what a builder in the jail runs."""

    def __init__(self, engine: Engine, code: bytes) -> None:
        self._engine = engine
        self._code = code

    def load(self, wasm: bytes) -> CompiledModule:
        return CompiledModule(wasmtime.Module.deserialize(self._engine.wasmtime, self._code), _digest_of(wasm))


def _digest_of(wasm: bytes) -> str:
    """Raises: ValueError for what wasmtime would read as the text format."""
    if not wasm.startswith(_WASM_MAGIC):
        raise ValueError("it does not begin as a WebAssembly module")
    return hashlib.sha256(wasm).hexdigest()


def _age_ns(path: Path) -> int:
    try:
        return -path.stat().st_mtime_ns
    except OSError:  # another process forgot it first
        return 0


def _processor_fingerprint() -> str:
    """The processor's features: code compiled for one set of them must not run on another."""
    try:
        text = Path("/proc/cpuinfo").read_text("ascii", "replace")
    except OSError:
        return ""
    flags = next((line for line in text.splitlines() if line.startswith(("flags", "Features"))), "")
    return hashlib.sha256(flags.encode()).hexdigest()


assert ctypes.sizeof(ctypes.c_void_p) == 8, "the engine's settings assume 64-bit addresses"
