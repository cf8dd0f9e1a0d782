"""The host's side of the guest ABI: the imports, bound once for each thread that runs guests.

A `Linker` belongs to one thread. It holds the native callbacks of `hostcall`, `take` and the small deterministic part
of WASI, and `current`, the isolate whose guest is on the stack right now: a callback has no other way to know for
whom it runs, and one thread has at most one guest on its stack (a nested function call happens while the outer guest
is suspended on a ticket).

**No exception crosses into the guest.** A callback that fails records the exception on the isolate and returns a
trap; `Isolate.enter` raises the recorded exception again on the other side. A `DeveloperError` of a hostcall is no
trap but an error status: the guest sees it as an exception it may catch.

**Every pointer is hostile.** Ranges are checked against the memory's size of that moment before a byte is read or
written. The memory never moves (engine setting), so its base address holds for the isolate's life; only its size is
read again when a range lies past what was known.

Contract: `guest_sdk/ABI.md`.
"""

import ctypes
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, cast

import orjson
import wasmtime

from skerry import limits
from skerry.errors import DeveloperError
from skerry.isolate import bindings
from skerry.isolate.bindings import Pointer
from skerry.isolate.engine import Engine, get_engine
from skerry.isolate.thread_stack import check_stack
from skerry.isolate.wasi import wasi_functions

if TYPE_CHECKING:
    from skerry.isolate.compiled import CompiledModule
    from skerry.isolate.isolate import Isolate

STATUS_ANSWERED: Final[int] = 0
STATUS_FAILED: Final[int] = 1 << 28  # in the upper 32 bits of the result: 1 << 60
STATUS_TICKET: Final[int] = 2 << 28

_I32 = wasmtime.ValType.i32
_I64 = wasmtime.ValType.i64

_IMPORT_ARGUMENTS_MAX: Final[int] = 8
"""Of the imports below; wasmtime lays each out in 16 bytes."""
_NUMBERS_KEPT_MAX: Final[int] = 256

ImportFunction = Callable[["Isolate", Any], int]
"""An import's body: (isolate, values) -> result; values[4 * n] is argument n's low 32 bits. It may raise."""


class GuestFault(DeveloperError):
    """A guest broke the ABI or spent a bound that cannot be answered with a status: the call ends with a trap."""


def error_payload(error: DeveloperError) -> bytes:
    """The error object of ABI.md for a failed hostcall."""
    payload: dict[str, Any] = {"name": "Error", "message": error.message, "code": error.code}
    if error.data is not None:
        payload["data"] = error.data
    return orjson.dumps(payload)


class Linker:
    """The imports of one thread, and the instances prepared from them.

    Shape: `is_patient` where no caller waits for each microsecond: budgets hear of hostcalls then. `current` is None
    while no guest runs. Concurrency: one thread only. Raises: SystemFault `ThreadStackTooSmall`.
    """

    def __init__(self, engine: Engine, *, is_patient: bool = False) -> None:
        check_stack()
        self._is_patient = is_patient
        self.engine = engine
        self.current: Isolate | None = None
        self._address: Pointer = bindings.linker_new(engine.address)
        engine.ticker.watched.append(self.is_running)
        self._kept: list[Any] = []  # native callbacks and types must outlive the linker
        self._numbers: dict[Pointer, memoryview[int]] = {}  # by address: arguments mostly lie where they lay before
        deadline = bindings.EpochCallback(self._look_at_budget)
        self._kept.append(deadline)
        self.at_deadline: Pointer = ctypes.cast(deadline, ctypes.c_void_p).value or 0
        self._define("skerry", "hostcall", [_I32() for _ in range(8)], [_I64()], self._make_hostcall())
        self._define("skerry", "take", [_I32(), _I32()], [_I32()], self._make_callback(_take))
        for name, parameters, results, function in wasi_functions():
            types = {"i": _I32, "I": _I64}
            self._define(
                "wasi_snapshot_preview1",
                name,
                [types[letter]() for letter in parameters],
                [types[letter]() for letter in results],
                self._make_callback(function),
            )

    def is_running(self) -> bool:
        """Whether a guest is on a stack right now. Any thread."""
        return self.current is not None

    def prepare(self, module: "CompiledModule") -> Pointer:
        """The module with its imports resolved, ready to be instantiated; kept with the module.

        Raises: ValueError where the module imports something that is not offered (the bundle's check says so before).
        """
        prepared = module.prepared.get(id(self))
        if prepared is None:
            out = ctypes.c_void_p()
            error = bindings.linker_instantiate_pre(self._address, module.address, ctypes.addressof(out))
            if error:
                raise ValueError(bindings.take_error(error))
            prepared = out.value or 0
            module.prepared[id(self)] = prepared
        return prepared

    def _look_at_budget(self, _context: int, _data: int, ticks_more: Any, kind: Any) -> int:
        """What the engine calls at an isolate's deadline: more ticks, or an error that ends the call."""
        isolate = self.current
        try:
            assert isolate is not None
            ticks = isolate.cpu.ticks()
            if ticks == 0:
                raise isolate.cpu.spent()
        except BaseException as error:
            if isolate is not None and isolate.failure is None:
                isolate.failure = error
            return bindings.error_new(b"deadline") or 0
        ticks_more[0] = ticks
        kind[0] = bindings.DEADLINE_CONTINUE
        return 0

    def _define(self, module: str, name: str, parameters: list[Any], results: list[Any], callback: Any) -> None:
        signature = wasmtime.FuncType(parameters, results)
        self._kept += [signature, callback]
        error = bindings.linker_define_func_unchecked(
            self._address,
            module.encode(),
            len(module),
            name.encode(),
            len(name),
            bindings.address_of(signature.ptr()),
            ctypes.cast(callback, ctypes.c_void_p),
            None,
            None,
        )
        assert not error, bindings.take_error(error)

    def _numbers_at(self, address: Pointer) -> "memoryview[int]":
        """An import's arguments, where its result goes too: argument n's low 32 bits are at 4 * n."""
        if len(self._numbers) >= _NUMBERS_KEPT_MAX:
            self._numbers.clear()
        view = self._numbers[address] = bindings.view_of(address, 4 * _IMPORT_ARGUMENTS_MAX * 4).cast("I")
        return view

    def _make_callback(self, function: ImportFunction) -> Any:
        def run(_env: int, _caller: int, at: Pointer, _count: int) -> int:
            isolate = self.current
            try:
                assert isolate is not None
                values = self._numbers.get(at) or self._numbers_at(at)
                values[0] = function(isolate, values)
                return 0
            except BaseException as error:
                return _trap(isolate, error)

        return bindings.HostFunction(run)

    def _make_hostcall(self) -> Any:
        """The hottest function of the host: everything it touches is local, and it allocates only what it returns."""
        numbers, numbers_at, is_patient = self._numbers, self._numbers_at, self._is_patient
        name_max, argument_max = limits.HOSTCALL_NAME_BYTES_MAX, limits.HOSTCALL_ARGUMENT_BYTES_MAX
        result_max, long = limits.HOSTCALL_RESULT_BYTES_MAX, limits.JSON_WHOLE_BYTES_MAX

        def hostcall(_env: int, _caller: int, at: Pointer, _count: int) -> int:
            isolate = self.current
            try:
                values = numbers.get(at) or numbers_at(at)
            except BaseException as error:
                return _trap(isolate, error)
            out_at, out_capacity = values[24], values[28]
            try:
                assert isolate is not None
                name_at, name_length, argument_at, argument_length = values[0], values[4], values[8], values[12]
                raw_at, raw_length, size = values[16], values[20], isolate.memory_size
                name_end, argument_end, raw_end, out_end = (
                    name_at + name_length, argument_at + argument_length, raw_at + raw_length, out_at + out_capacity
                )  # fmt: skip
                if name_end > size or argument_end > size or raw_end > size or out_end > size:
                    isolate.check_range(max(name_end, argument_end, raw_end, out_end))
                isolate.parked = None
                isolate.hostcalls_left -= 1
                if is_patient or isolate.hostcalls_left < 0:
                    _asked(isolate)
                if name_length > name_max or argument_length > long or raw_length > argument_max:
                    if name_length > name_max or argument_length > argument_max or raw_length > argument_max:
                        raise DeveloperError("HostcallTooLarge", _HOSTCALL_TOO_LARGE)
                    isolate.cpu.leave_slice()
                memory = isolate.memory
                name = bytes(memory[name_at:name_end])
                handler = isolate.hostcalls.get(name)
                if handler is None:
                    raise isolate.unknown_operation(name)
                raw = bytes(memory[raw_at:raw_end]) if raw_length else None
                answer = handler(isolate.host, bytes(memory[argument_at:argument_end]), raw)
                if type(answer) is int:
                    values[0] = isolate.open_ticket(answer)
                    values[1] = STATUS_TICKET
                    return 0
                result, status = cast("bytes", answer), STATUS_ANSWERED
                length = len(result)
                if length > result_max:
                    raise DeveloperError("HostcallTooLarge", _RESULT_TOO_LARGE)
            except DeveloperError as error:
                if isolate is None or isinstance(error, GuestFault):
                    return _trap(isolate, error)
                try:
                    result, status = error_payload(error), STATUS_FAILED
                except BaseException as unwritable:
                    return _trap(isolate, unwritable)
                memory, length = isolate.memory, len(result)
            except BaseException as error:
                return _trap(isolate, error)
            if length <= out_capacity:
                memory[out_at : out_at + length] = result
            else:
                isolate.parked = result
            values[0] = length
            values[1] = status
            return 0

        return bindings.HostFunction(hostcall)


_of_thread = threading.local()


def linker_of_this_thread(*, is_patient: bool = False) -> Linker:
    """The calling thread's linker, made at first use and kept (such threads are few and stay): so is `is_patient`."""
    linker: Linker | None = getattr(_of_thread, "linker", None)
    if linker is None:
        linker = _of_thread.linker = Linker(get_engine(), is_patient=is_patient)
    return linker


def _asked(isolate: "Isolate") -> None:
    if isolate.hostcalls_left < 0:
        raise GuestFault("TooManyHostcalls", _TOO_MANY_HOSTCALLS)
    isolate.cpu.asked()


def _take(isolate: "Isolate", values: Any) -> int:
    parked, at, capacity = isolate.parked, values[0], values[4]
    if parked is None or capacity < len(parked):
        raise GuestFault("GuestProtocolError", "The guest called take with nothing parked or with too small a buffer.")
    isolate.check_range(at + capacity)
    isolate.memory[at : at + len(parked)] = parked
    isolate.parked = None
    return len(parked)


def _trap(isolate: "Isolate | None", error: BaseException) -> int:
    if isolate is not None and isolate.failure is None:
        isolate.failure = error
    return bindings.trap_new(b"host", 4) or 0


_TOO_MANY_HOSTCALLS: Final[str] = (
    f"The function made more than {limits.HOSTCALLS_PER_CALL_MAX} calls to the host. "
    "Read and write in fewer, larger steps."
)
_HOSTCALL_TOO_LARGE: Final[str] = (
    f"The arguments of an operation are larger than {limits.HOSTCALL_ARGUMENT_BYTES_MAX // limits.MIB} MiB. "
    "Send less at once."
)
_RESULT_TOO_LARGE: Final[str] = (
    f"The result of an operation is larger than {limits.HOSTCALL_RESULT_BYTES_MAX // limits.MIB} MiB. "
    "Ask for less at once."
)
