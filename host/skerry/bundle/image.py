"""The pre-initialiser: runs an engine up to the point where it is ready for calls, and keeps that state as a module.

Why it is possible: all of a guest's state that it can change is its linear memory, its mutable globals and its
table. This file makes sure that the last two are constant (the only mutable global is the stack pointer, back at
its initial value; the table cannot grow and no segment is left to write into it), so the memory alone is the state.
The image is then the engine's own code with that memory as its data section: an ordinary self-contained module.

Invariants: the image's bytes depend only on the engine and on the memory after the steps; an image exports the ABI
and nothing of the build. Where a step fails, no image comes out.

Deliberately absent: wasmtime. The caller gives a `Runner`, so that the isolate decides under which limits tenants'
code runs.
"""

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NoReturn, Protocol

from skerry.bundle.wasm_binary import (
    CUSTOM,
    DATA,
    DATA_COUNT,
    EXPORT,
    MAGIC,
    MEMORY,
    START,
    Export,
    Limits,
    Module,
    encode_export,
    encode_limits,
    encode_name,
    encode_section,
    encode_signed,
    encode_unsigned,
    parse_module,
)
from skerry.errors import ClientError

ABI_EXPORTS: Final = ("memory", "skerry_abi_version", "describe", "invoke", "resume", "skerry_steps_used")
IMAGE_SECTION: Final = "skerry.image"
IMAGE_VERSION: Final = 1
PAGE_BYTES: Final = 64 * 1024

_GLOBAL_EXPORT: Final = "skerry_image_global"
_ZERO_RUN_BYTES_MIN: Final = 32  # a gap shorter than this costs less as data than as another segment
_ZERO_RUN: Final = re.compile(rb"\0{%d,}" % _ZERO_RUN_BYTES_MIN)

STATUS_DONE: Final = 0


class Runner(Protocol):
    """One instance of a module, as the image builder drives it."""

    def call(self, export: str, parked: bytes | None) -> int:
        """The result of an export as unsigned 64 bits (0 for none), given the length of what was parked, if any."""
        ...

    def read(self, pointer: int, length: int) -> bytes: ...

    def memory(self) -> bytes:
        """All of its memory."""
        ...

    def global_value(self, export: str) -> int:
        """The value of an exported i32 global, unsigned."""
        ...


@dataclass(frozen=True, slots=True)
class Script:
    """A script evaluated into the image.

    Shape: `name` as stack traces show it; `source` is UTF-8; `seldom`: few of its functions run in an ordinary call.
    """

    name: str
    source: bytes
    seldom: bool = False


ImageBuilder = Callable[[bytes, Sequence[Script], int, bytes], bytes]
"""Where a build has its image made: (engine, scripts, clock in ms, seed) -> image. Raises: as `build_image`."""


def build_image(engine: bytes, scripts: Sequence[Script], instantiate: Callable[[bytes], Runner]) -> bytes:
    """The image of `engine` after evaluating `scripts` in order.

    Raises: ClientError `ImageBuildFailed` with the script's error object as data; `GuestModuleInvalid` for an engine
    that cannot be kept as its memory.
    """
    module = parse_module(engine)
    stack_pointer = _check_constant_state(module)
    runner = instantiate(_instrumented(module, stack_pointer))
    if module.type_of_export("_initialize") is not None:
        runner.call("_initialize", None)
    if runner.call("skerry_boot", None) != 0:
        raise ClientError("ImageBuildFailed", "The JavaScript engine did not start.")
    for script in scripts:
        name = script.name.encode()
        parked = (len(name) | script.seldom << 31).to_bytes(4, "little") + name + script.source
        _expect_done(runner, runner.call("skerry_eval", parked), script.name)
    _expect_done(runner, runner.call("skerry_freeze", None), "the end of module loading")
    if stack_pointer is not None and runner.global_value(_GLOBAL_EXPORT) != module.globals[stack_pointer].initial:
        _refuse("its stack pointer did not come back to where it began")
    return rewrite_with_memory(module, runner.memory())


def module_to_run(engine: bytes) -> bytes:
    """The module that `build_image` asks `instantiate` for. Raises: ClientError `GuestModuleInvalid`."""
    module = parse_module(engine)
    return _instrumented(module, _check_constant_state(module))


def rewrite_with_memory(module: Module, memory: bytes) -> bytes:
    """The module with `memory` as its data and only the ABI's exports. Deterministic."""
    if len(memory) % PAGE_BYTES or len(module.memories) != 1:
        _refuse("its memory is not a whole number of pages of its own")
    pages = Limits(len(memory) // PAGE_BYTES, module.memories[0].maximum)
    if pages.maximum is None or pages.minimum > pages.maximum:
        _refuse("its memory has no maximum, or is beyond it")
    exports = [export for export in module.exports if export.name in ABI_EXPORTS]
    replaced = {
        MEMORY: b"\1" + encode_limits(pages),
        EXPORT: _encode_exports(exports),
        DATA: _encode_data(memory),
    }
    out = [MAGIC]
    for section in module.sections:
        if section.id not in (CUSTOM, START, DATA_COUNT, DATA):
            payload = replaced.get(section.id, module.raw[section.start : section.end])
            out.append(encode_section(section.id, payload))
    out.append(encode_section(DATA, replaced[DATA]))
    out.append(encode_section(CUSTOM, encode_name(IMAGE_SECTION) + _image_note(module)))
    return b"".join(out)


def image_version(module: Module) -> int | None:
    """The version of the image format that `module` says it has, None where it is not an image."""
    for section in module.sections:
        if section.name == IMAGE_SECTION:
            start = section.start + len(encode_name(IMAGE_SECTION))
            return int.from_bytes(module.raw[start : start + 4], "little")
    return None


def _image_note(module: Module) -> bytes:
    return IMAGE_VERSION.to_bytes(4, "little") + hashlib.sha256(module.raw).digest()


def _check_constant_state(module: Module) -> int | None:
    """The index of the one mutable global, None without one; refuses modules whose state is more than their memory."""
    if any(item.kind != "func" for item in module.imports):
        _refuse("it imports something other than functions")
    if any(table.maximum != table.minimum for table in module.tables):
        _refuse("its table can grow")
    if not all(module.element_segments_active):
        _refuse("it holds element segments that can be written into its table later")
    if not all(segment.active and segment.offset is not None for segment in module.data):
        _refuse("it holds data segments that are not in its memory from the start")
    mutable = [index for index, item in enumerate(module.globals) if item.mutable]
    if len(mutable) > 1:
        _refuse("it has more mutable globals than a stack pointer")
    if not mutable:
        return None
    stack_pointer = module.globals[mutable[0]]
    if stack_pointer.type != "i32" or stack_pointer.initial is None:
        _refuse("its mutable global is not a stack pointer")
    return mutable[0]


def _instrumented(module: Module, stack_pointer: int | None) -> bytes:
    """The module with its stack pointer exported, so that it can be compared after the steps."""
    if stack_pointer is None:
        return module.raw
    exports = [*module.exports, Export(_GLOBAL_EXPORT, "global", stack_pointer)]
    out = [MAGIC]
    for section in module.sections:
        payload = module.raw[section.start : section.end]
        out.append(encode_section(section.id, _encode_exports(exports) if section.id == EXPORT else payload))
    return b"".join(out)


def _expect_done(runner: Runner, packed: int, name: str) -> None:
    if packed >> 60 != STATUS_DONE:
        error = runner.read(packed & 0xFFFFFFFF, packed >> 32 & 0x0FFFFFFF).decode("utf-8", "replace")
        raise ClientError("ImageBuildFailed", f"Loading {name} failed: {error or 'it waits for an answer'}", error)


def _encode_exports(exports: Sequence[Export]) -> bytes:
    return encode_unsigned(len(exports)) + b"".join(map(encode_export, exports))


def _encode_data(memory: bytes) -> bytes:
    runs: list[bytes] = []
    start = 0
    for gap in (*_ZERO_RUN.finditer(memory), None):
        end = len(memory) if gap is None else gap.start()
        if end > start:
            address = start if start < 2**31 else start - 2**32
            runs.append(b"\0\x41" + encode_signed(address) + b"\x0b" + encode_unsigned(end - start) + memory[start:end])
        start = len(memory) if gap is None else gap.end()
    return encode_unsigned(len(runs)) + b"".join(runs)


def _refuse(reason: str) -> NoReturn:
    raise ClientError("GuestModuleInvalid", f"The module cannot become an image: {reason}.")
