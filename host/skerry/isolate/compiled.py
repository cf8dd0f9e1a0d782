"""Compiled modules, and the disk cache they come from.

Compiled code is native code: whoever can write it can run anything. So nothing that was uploaded is ever
deserialised. A cache file is made by this host from wasm it compiled itself, lies in a folder of its own, and carries
a MAC under the host's key over everything that its content depends on: the wasm's digest, wasmtime's version, the
engine's settings, the processor's features. Bytes are verified first and deserialised from the very buffer that was
verified. A file that does not verify is ignored and made anew. Files that nothing has used for long go when new ones
come.

Source: wasmtime `Module::deserialize` (unsafe by contract).
"""

import ctypes
import hashlib
import hmac
import os
import threading
import weakref
from pathlib import Path
from typing import Final

import wasmtime

from skerry import limits
from skerry.isolate import bindings
from skerry.isolate.bindings import Pointer
from skerry.isolate.engine import Engine

_MAGIC: Final[bytes] = b"skerry compiled module 1\n"
_MAC_BYTES: Final[int] = 32
_WASM_MAGIC: Final[bytes] = b"\0asm\1\0\0\0"


class CompiledModule:
    """Native code of one wasm module, ready to be instantiated by any linker of the process.

    Shape: `digest` (hex sha256 of the wasm), `has_initializer` (an `_initialize` export is to be run in each isolate).
    """

    def __init__(self, module: wasmtime.Module, digest: str) -> None:
        self.module = module
        self.digest = digest
        self.address: Pointer = bindings.address_of(module.ptr())
        self.has_initializer = any(export.name == "_initialize" for export in module.exports)
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

    def __init__(self, engine: Engine, folder: Path | None, key: bytes) -> None:
        self._engine = engine
        self._folder = folder
        self._key = hmac.digest(key, b"compiled modules", "sha256")
        if folder is not None:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def load(self, wasm: bytes) -> CompiledModule:
        """The compiled form of `wasm`, from the cache where it is there.

        Raises: ValueError with the engine's words where the wasm is not a valid module.
        """
        if not wasm.startswith(_WASM_MAGIC):  # wasmtime would read it as the text format
            raise ValueError("it does not begin as a WebAssembly module")
        digest = hashlib.sha256(wasm).hexdigest()
        cached = self._read(digest)
        if cached is not None:
            return CompiledModule(cached, digest)
        try:
            module = wasmtime.Module(self._engine.wasmtime, wasm)
        except wasmtime.WasmtimeError as error:
            raise ValueError(str(error)) from error
        self._write(digest, bytes(module.serialize()))
        return CompiledModule(module, digest)

    def _forget_unused(self, folder: Path) -> None:
        """Keeps the files that were used last, `COMPILED_FILES_KEPT_MAX` of them."""
        for path in sorted(folder.iterdir(), key=_age_ns)[limits.COMPILED_FILES_KEPT_MAX :]:
            path.unlink(missing_ok=True)

    def _path(self, digest: str) -> Path | None:
        return None if self._folder is None else self._folder / f"{digest}.cwasm"

    def _mac(self, digest: str, code: bytes) -> bytes:
        context = f"{digest}\0{self._engine.fingerprint()}\0{_processor_fingerprint()}\0".encode()
        return hmac.digest(self._key, context + code, "sha256")

    def _read(self, digest: str) -> wasmtime.Module | None:
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
        try:
            return wasmtime.Module.deserialize(self._engine.wasmtime, code)
        except wasmtime.WasmtimeError:  # of an engine that calls itself the same and is built otherwise
            return None

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
