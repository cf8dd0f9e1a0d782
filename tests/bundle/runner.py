"""A small host of the guest ABI directly on wasmtime, for the tests of engines and images alone.

It answers hostcalls from a table of Python functions and keeps what the guest sends to its log. The real host is the
isolate; this one has no limits beyond an epoch deadline and exists so that guests are tested without it.
"""

import hashlib
import json
import struct
import threading
from collections.abc import Callable
from typing import Any

import wasmtime

STACK_BYTES = 4 * 1024 * 1024
KINDS = ("query", "mutation", "action", "httpAction")
STATUSES = ("done", "failed", "pending")

_I32, _I64 = wasmtime.ValType.i32(), wasmtime.ValType.i64()


class Refused(Exception):
    """Raised by an operation to answer with the failed status."""

    def __init__(self, message: str, code: str = "Refused", data: Any = None) -> None:
        super().__init__(message)
        self.error = {"message": message, "code": code, **({} if data is None else {"data": data})}


class Ticketed(Exception):
    """Raised by an operation to answer with a ticket."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class GuestRunner:
    """One instance of a guest. Shape: `now_ns` is its clock; `ops` its hostcalls; `output` what it wrote to its log."""

    def __init__(self, module: "bytes | Compiled", *, stack_bytes: int = STACK_BYTES) -> None:
        self.compiled = module if isinstance(module, Compiled) else Compiled(module, stack_bytes)
        self.store = wasmtime.Store(self.compiled.engine)
        self.store.set_epoch_deadline(1)
        self.parked = b""
        self.output = b""
        self.now_ns = 1_700_000_000_123_000_000
        self.clock_reads = 0
        self.hostcalls: list[tuple[str, str, bytes]] = []
        self.ops: dict[str, Callable[[str, bytes], bytes]] = {"entropy": self._entropy, "log": self._log}
        self._drawn = 0
        linker = wasmtime.Linker(self.compiled.engine)
        for item in self.compiled.module.imports:
            linker.define_func(item.module, item.name, item.type, getattr(self, f"_import_{item.name}"))
        self.exports = linker.instantiate(self.store, self.compiled.module).exports(self.store)
        self._memory = self.exports["memory"]

    # -- what the image builder calls ------------------------------------------------------------------------
    def call(self, export: str, parked: bytes | None) -> int:
        if parked is None:
            result = self.exports[export](self.store)
        else:
            self.parked = parked
            result = self.exports[export](self.store, len(parked))
        return (result or 0) & 0xFFFFFFFFFFFFFFFF

    def read(self, pointer: int, length: int) -> bytes:
        if pointer + length > self._memory.data_len(self.store):
            raise IndexError("guest pointer")
        return bytes(self._memory.read(self.store, pointer, pointer + length))

    def memory(self) -> bytes:
        return self.read(0, self._memory.data_len(self.store))

    def global_value(self, export: str) -> int:
        return self.exports[export].value(self.store) & 0xFFFFFFFF

    # -- calls -----------------------------------------------------------------------------------------------
    def boot(self) -> "GuestRunner":
        self.call("_initialize", None)
        assert self.call("skerry_boot", None) == 0
        return self

    def eval(self, source: str, name: str = "test.js") -> tuple[str, Any]:
        packed = self.call("skerry_eval", struct.pack("<I", len(name)) + name.encode() + source.encode())
        status, payload = self.unpack(packed)
        return status, payload.decode() if status == "done" else json.loads(payload)

    def invoke(
        self, name: str, arguments: str = "[{}]", kind: str = "query", request_id: str = "r1"
    ) -> tuple[str, Any]:
        parts = (name.encode(), request_id.encode(), arguments.encode())
        request = struct.pack("<IIII", KINDS.index(kind), *map(len, parts)) + b"".join(parts)
        return self.result(self.call("invoke", request))

    def resume(self, *completions: tuple[int, int, bytes]) -> tuple[str, Any]:
        headers = b"".join(struct.pack("<III", ticket, status, len(body)) for ticket, status, body in completions)
        bodies = b"".join(body for _, _, body in completions)
        return self.result(self.call("resume", struct.pack("<I", len(completions)) + headers + bodies))

    def result(self, packed: int) -> tuple[str, Any]:
        status, payload = self.unpack(packed)
        return status, None if status == "pending" else json.loads(payload)

    def unpack(self, packed: int) -> tuple[str, bytes]:
        return STATUSES[packed >> 60], self.read(packed & 0xFFFFFFFF, packed >> 32 & 0x0FFFFFFF)

    def interrupt_after(self, seconds: float) -> threading.Timer:
        """A started timer that ends the running call; cancel it."""
        timer = threading.Timer(seconds, self.compiled.engine.increment_epoch)
        timer.start()
        return timer

    # -- imports ---------------------------------------------------------------------------------------------
    def _import_hostcall(self, *given: int) -> int:
        op_at, op_size, arg_at, arg_size, raw_at, raw_size, out, capacity = (value & 0xFFFFFFFF for value in given)
        op, argument = self.read(op_at, op_size).decode(), self.read(arg_at, arg_size).decode()
        raw = self.read(raw_at, raw_size)
        self.hostcalls.append((op, argument, raw))
        status = 0
        try:
            run = self.ops.get(op)
            if run is None:
                raise Refused(f"no operation {op}", "UnknownOperation")
            answer = run(argument, raw)
        except Refused as error:
            status, answer = 1, json.dumps(error.error).encode()
        except Ticketed as ticket:
            return 2 << 60 | ticket.number
        if len(answer) <= capacity:
            self._memory.write(self.store, answer, out)
            self.parked = b""
        else:
            self.parked = answer
        return status << 60 | len(answer)

    def _import_take(self, pointer: int, capacity: int) -> int:
        parked, self.parked = self.parked, b""
        if not parked or capacity & 0xFFFFFFFF < len(parked):
            raise wasmtime.Trap("GuestProtocolError")
        self._memory.write(self.store, parked, pointer & 0xFFFFFFFF)
        return len(parked)

    def _import_clock_time_get(self, clock: int, precision: int, out: int) -> int:
        self.clock_reads += 1
        self._memory.write(self.store, struct.pack("<Q", self.now_ns), out & 0xFFFFFFFF)
        return 0

    def _import_random_get(self, pointer: int, length: int) -> int:
        self._memory.write(self.store, self._draw(length), pointer & 0xFFFFFFFF)
        return 0

    def _import_fd_write(self, descriptor: int, vectors: int, count: int, written: int) -> int:
        total = 0
        for index in range(count):
            pointer, length = struct.unpack("<II", self.read(vectors + 8 * index, 8))
            self.output += self.read(pointer, length)
            total += length
        self._memory.write(self.store, struct.pack("<I", total), written)
        return 0

    def _import_fd_close(self, descriptor: int) -> int:
        return 8

    def _import_fd_seek(self, *given: int) -> int:
        return 8

    def _import_fd_fdstat_get(self, descriptor: int, out: int) -> int:
        return 8

    def _import_proc_exit(self, code: int) -> None:
        raise wasmtime.Trap("GuestExited")

    def _draw(self, length: int) -> bytes:
        self._drawn += 1
        return hashlib.shake_128(str(self._drawn).encode()).digest(length)

    def _entropy(self, argument: str, raw: bytes) -> bytes:
        return self._draw(json.loads(argument)["length"])

    def _log(self, argument: str, raw: bytes) -> bytes:
        self.output += json.loads(argument)["message"].encode() + b"\n"
        return b"null"


class Compiled:
    """A module compiled by an engine of its own, with epochs and the given WebAssembly stack."""

    def __init__(self, module: bytes, stack_bytes: int = STACK_BYTES) -> None:
        config = wasmtime.Config()
        config.epoch_interruption = True
        wasmtime._ffi.wasmtime_config_async_stack_size_set(config.ptr(), 2 * stack_bytes)  # unused, but larger
        config.max_wasm_stack = stack_bytes
        self.engine = wasmtime.Engine(config)
        self.module = wasmtime.Module(self.engine, module)
