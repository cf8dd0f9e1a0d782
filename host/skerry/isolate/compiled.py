"""Compiled modules, and the disk cache they come from.

Compiled code is native code: whoever can write it can run anything. So nothing that was uploaded is ever
deserialised. A cache file is made by this host from wasm it compiled itself, lies in a folder of its own, and carries
a MAC under the host's key over everything that its content depends on: the wasm's digest, wasmtime's version, the
engine's settings, the processor's features. A file is verified and then mapped through the same descriptor, so that
what runs is the file that was verified; files appear whole, under a name of their own, and are never written again. A
file that does not verify is ignored and made anew. Mapped code takes memory for the pages that run, which several
processes share, and nothing for its copy of the module's memory. Files that nothing has used for long go when new ones
need their place. Whoever could change a file in place is this server's own user, who can read the key as well.

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
from io import FileIO
from pathlib import Path
from typing import Final

import wasmtime

from skerry import limits
from skerry.errors import SystemFault
from skerry.isolate import bindings
from skerry.isolate.bindings import Pointer
from skerry.isolate.engine import Engine
from skerry.jail import run_job

_MAGIC: Final[bytes] = b"skerry compiled module 2\n"
_MAC_BYTES: Final[int] = 32
_PAGE_BYTES: Final[int] = 65536
_END_BYTES: Final[int] = len(_MAGIC) + _MAC_BYTES  # behind the code, so that the file is what the engine maps
STEPS_EXPORT: Final = "skerry_steps_used"
STEPS_BYTES: Final[int] = 8
_PIECE_BYTES: Final[int] = 256 * 1024
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
    `memory_bytes` of a fresh instance; `steps_at`, the word of memory where it counts its steps (0 nowhere, below 0
    to be asked of an instance); `remap` maps the same code for another engine, None where it is not in a file.
    """

    def __init__(self, module: wasmtime.Module, digest: str, remap: "Remap | None" = None) -> None:
        self.module = module
        self.digest = digest
        self._remap = remap
        self.address: Pointer = bindings.address_of(module.ptr())
        self.has_initializer = any(export.name == "_initialize" for export in module.exports)
        memories = [export.type for export in module.exports if export.name == "memory"]
        self.memory_bytes: int = sum(m.limits.min for m in memories if isinstance(m, wasmtime.MemoryType)) * _PAGE_BYTES
        self.steps_at = -1 if any(_counts_steps(export) for export in module.exports) else 0
        self.prepared: dict[int, Pointer] = {}  # linker -> instance prepared from it
        weakref.finalize(self, _delete_prepared, self.prepared)

    def for_engine(self, engine: Engine) -> "CompiledModule":
        """The same code on another engine of the same settings. Blocks for some milliseconds."""
        module = None if self._remap is None else self._remap(engine, self.digest)
        if module is None:
            module = wasmtime.Module.deserialize(engine.wasmtime, self.module.serialize())
        return CompiledModule(module, self.digest, self._remap)


Remap = Callable[[Engine, str], wasmtime.Module | None]
"""How a module in a file is mapped: (engine, digest) -> the module, None where the file is gone or not ours."""


def _counts_steps(export: wasmtime.ExportType) -> bool:
    kind = export.type
    is_address = isinstance(kind, wasmtime.GlobalType) and not kind.mutable and str(kind.content) == "i32"
    return is_address and export.name == STEPS_EXPORT


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
        self._of_engine = f"\0{engine.fingerprint()}\0{_processor_fingerprint()}\0"
        self._loaded: weakref.WeakValueDictionary[str, CompiledModule] = weakref.WeakValueDictionary()
        if folder is not None:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def load(self, wasm: bytes) -> CompiledModule:
        """The compiled form of `wasm`: the one that is in use already, or from the cache where it is there.

        Raises: ValueError with the engine's words where the wasm is not a valid module; as the `Compiler`.
        """
        digest = _digest_of(wasm)
        found = self.find(digest)
        if found is None:
            compiled = self._compile(wasm, digest)[0]
            found = self.find(digest)  # mapped it takes less memory
            if found is None:
                found = self._loaded[digest] = CompiledModule(compiled, digest)
        return found

    def find(self, digest: str) -> CompiledModule | None:
        """The module of that digest: the one that is in use, or from the cache; None where neither has it."""
        found = self._loaded.get(digest)
        if found is None:
            module = self._map(self._engine, digest) or self._deserialize(digest)
            if module is None:
                return None
            found = self._loaded[digest] = CompiledModule(module, digest, self._map)
        return found

    def _map(self, engine: Engine, digest: str) -> wasmtime.Module | None:
        """The module mapped from its file, once that has been verified."""
        path = self._path(digest)
        if path is None:
            return None
        try:
            with path.open("rb", buffering=0) as file:
                os.utime(file.fileno())  # it is in use: `_forget_unused` goes by this time
                if not self._is_ours(file, digest):
                    return None
                return wasmtime.Module.deserialize_file(engine.wasmtime, f"/proc/self/fd/{file.fileno()}")
        except (OSError, wasmtime.WasmtimeError):  # gone, no /proc, or an engine that only calls itself the same
            return None

    def _is_ours(self, file: FileIO, digest: str) -> bool:
        """Whether the file's MAC is this host's over its code. It takes no memory for the code, and not the GIL."""
        left = os.fstat(file.fileno()).st_size - _END_BYTES
        mac = hmac.new(self._key, self._context(digest), "sha256")
        piece = memoryview(bytearray(_PIECE_BYTES))
        while left > 0:
            length = file.readinto(piece[: min(left, _PIECE_BYTES)])
            if not length:
                return False
            mac.update(piece[:length])
            left -= length
        return left == 0 and hmac.compare_digest(file.read(_END_BYTES + 1) or b"", _MAGIC + mac.digest())

    def _deserialize(self, digest: str) -> wasmtime.Module | None:
        """The module copied from its file, where it cannot be mapped."""
        code = self._read(digest)
        try:
            return None if code is None else wasmtime.Module.deserialize(self._engine.wasmtime, code)
        except wasmtime.WasmtimeError:  # of an engine that calls itself the same and is built otherwise
            return None

    def machine_code(self, wasm: bytes) -> bytes:
        """The machine code of `wasm`, for a process that runs the same engine. Raises: as `load`."""
        digest = _digest_of(wasm)
        return self._read(digest) or self._compile(wasm, digest)[1]

    def _compile(self, wasm: bytes, digest: str) -> tuple[wasmtime.Module, bytes]:
        module, code = self._compiler(self._engine, wasm)
        self._write(digest, code)
        return module, code

    def _forget_unused(self, folder: Path) -> None:
        """Keeps the files that were used last: at most `COMPILED_FILES_KEPT_MAX`, which take at most
        `COMPILED_FILES_BYTES_MAX` and no more than the disk has left beside them."""
        files = sorted(map(_age_and_size, folder.iterdir()))
        disk = os.statvfs(folder)
        bytes_left = disk.f_bavail * disk.f_frsize + sum(size for _, size, _ in files)
        bytes_left = min(limits.COMPILED_FILES_BYTES_MAX, bytes_left // 2)
        for count, (_, size, path) in enumerate(files):
            bytes_left -= size
            if count >= limits.COMPILED_FILES_KEPT_MAX or (bytes_left < 0 and count > 0):
                path.unlink(missing_ok=True)

    def _path(self, digest: str) -> Path | None:
        return None if self._folder is None else self._folder / f"{digest}.cwasm"

    def _context(self, digest: str) -> bytes:
        return (digest + self._of_engine).encode()

    def _read(self, digest: str) -> bytes | None:
        """The machine code that the cache has for a module, verified."""
        path = self._path(digest)
        if path is None:
            return None
        try:
            content = path.read_bytes()
            os.utime(path)
        except OSError:
            return None
        code = content[:-_END_BYTES]
        mac = hmac.digest(self._key, self._context(digest) + code, "sha256")
        return code if hmac.compare_digest(content[-_END_BYTES:], _MAGIC + mac) else None

    def _write(self, digest: str, code: bytes) -> None:
        path = self._path(digest)
        if path is None:
            return
        temporary = path.with_suffix(f".{os.getpid()}.{threading.get_ident()}.tmp")
        try:
            with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(code)
                file.write(_MAGIC + hmac.digest(self._key, self._context(digest) + code, "sha256"))
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


def _age_and_size(path: Path) -> tuple[int, int, Path]:
    """What sorts files by their last use, the newest first."""
    try:
        status = path.stat()
        return -status.st_mtime_ns, status.st_size, path
    except OSError:  # another process forgot it first
        return 0, 0, path


def _processor_fingerprint() -> str:
    """The processor's features: code compiled for one set of them must not run on another."""
    try:
        text = Path("/proc/cpuinfo").read_text("ascii", "replace")
    except OSError:
        return ""
    flags = next((line for line in text.splitlines() if line.startswith(("flags", "Features"))), "")
    return hashlib.sha256(flags.encode()).hexdigest()


assert ctypes.sizeof(ctypes.c_void_p) == 8, "the engine's settings assume 64-bit addresses"
