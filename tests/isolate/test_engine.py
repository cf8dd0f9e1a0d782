"""The engine's settings, each by a module that needs what is switched off, and the bounds of its pool."""

import re
from importlib.metadata import version
from pathlib import Path

import pytest
import wasmtime

from skerry import limits
from skerry.errors import DeveloperError, SystemFault
from skerry.isolate import ModuleCache, get_engine
from tests.conftest import REPOSITORY
from tests.fixtures.guests import wat_guest
from tests.isolate.driver import open_isolate

REFUSED = {
    "threads": "(module (memory 1 1 shared))",
    "atomics": "(module (memory 1) (func (drop (i32.atomic.load (i32.const 0)))))",
    "64-bit memories": "(module (memory i64 1))",
    "several memories": "(module (memory 1) (memory 1))",
    "tail calls": "(module (func $f (return_call $f)))",
    "garbage collection": "(module (type (struct (field i32))))",
    "typed function references": "(module (type $t (func)) (func (param (ref $t))))",
    "exceptions": "(module (tag))",
    "relaxed SIMD": "(module (func (param v128) (result v128)"
    " (f32x4.relaxed_madd (local.get 0) (local.get 0) (local.get 0))))",
    "wide arithmetic": "(module (func (param i64 i64 i64 i64) (result i64 i64)"
    " (i64.add128 (local.get 0) (local.get 1) (local.get 2) (local.get 3))))",
    "custom page sizes": "(module (memory 1 1 (pagesize 1)))",
    "stack switching": "(module (type $f (func)) (type $c (cont $f)))",
}


@pytest.mark.parametrize("feature", REFUSED)
def test_what_no_guest_needs_does_not_compile(feature: str) -> None:
    wasm = bytes(wasmtime.wat2wasm(REFUSED[feature]))
    with pytest.raises(wasmtime.WasmtimeError):
        wasmtime.Module(get_engine().wasmtime, wasm)


def test_components_do_not_compile() -> None:
    wasm = bytes(wasmtime.wat2wasm("(component)"))
    with pytest.raises(wasmtime.WasmtimeError):
        wasmtime.Module(get_engine().wasmtime, wasm)


def test_what_guests_need_compiles() -> None:
    for text in (
        "(module (func (result i32 i32) i32.const 1 i32.const 2))",
        "(module (memory 1) (func (memory.fill (i32.const 0) (i32.const 0) (i32.const 9))))",
        "(module (func (param v128) (result v128) (i32x4.add (local.get 0) (local.get 0))))",
    ):
        wasmtime.Module(get_engine().wasmtime, bytes(wasmtime.wat2wasm(text)))


def test_the_engine_is_the_pinned_one() -> None:
    pins = [
        re.search(pattern, (REPOSITORY / file).read_text())
        for file, pattern in (
            ("pyproject.toml", r'"wasmtime==([\d.]+)"'),
            ("requirements.lock", r"(?m)^wasmtime==(\S+)"),
        )
    ]
    assert [pin and pin[1] for pin in pins] == [version("wasmtime")] * 2


def test_one_engine_serves_the_process(tmp_path: Path) -> None:
    assert get_engine() is get_engine()
    assert get_engine().fingerprint().startswith(f"wasmtime-{version('wasmtime')}/")


def test_nans_are_canonical(cache: ModuleCache) -> None:
    isolate = open_isolate(cache, wat_guest("makes_nan"))
    try:
        assert isolate.call_raw("describe", None) == 0x7FF8_0000_0000_0000
    finally:
        isolate.close()


def test_the_pool_is_exhausted_with_a_code_and_recovers(cache: ModuleCache) -> None:
    held = [open_isolate(cache, wat_guest("finds_table")) for _ in range(limits.ISOLATES_MAX)]
    try:
        with pytest.raises(SystemFault) as caught:
            open_isolate(cache, wat_guest("finds_table"))
        assert caught.value.code == "IsolatesExhausted"
    finally:
        for isolate in held:
            isolate.close()
    open_isolate(cache, wat_guest("finds_table")).close()


def module_of(memory: str = "1 1", tables: str = "") -> bytes:
    return bytes(
        wasmtime.wat2wasm(f"""(module (memory (export "memory") {memory}) {tables}
            (func (export "skerry_abi_version") (result i32) i32.const 1)
            (func (export "describe") (result i64) i64.const 0)
            (func (export "invoke") (param i32) (result i64) i64.const 0)
            (func (export "resume") (param i32) (result i64) i64.const 0))""")
    )


PAGES_MAX = limits.GUEST_MEMORY_BYTES_MAX // 65536
POOL = {
    "memory": (f"{PAGES_MAX} {PAGES_MAX}", "", f"{PAGES_MAX + 1} {PAGES_MAX + 1}", ""),
    "table": (
        "1 1",
        f"(table {limits.GUEST_TABLE_ELEMENTS_MAX} funcref)",
        "1 1",
        f"(table {limits.GUEST_TABLE_ELEMENTS_MAX + 1} funcref)",
    ),
    "tables": ("1 1", "(table 1 funcref)" * limits.GUEST_TABLES_MAX, "1 1", "(table 1 funcref)" * 5),
}


@pytest.mark.parametrize("what", POOL)
def test_the_pool_serves_its_bounds_and_nothing_past_them(cache: ModuleCache, what: str) -> None:
    assert limits.GUEST_TABLES_MAX == 4
    memory, tables, memory_over, tables_over = POOL[what]
    open_isolate(cache, module_of(memory, tables)).close()
    with pytest.raises((ValueError, DeveloperError)):
        open_isolate(cache, module_of(memory_over, tables_over)).close()


def test_an_empty_memory_is_a_memory(cache: ModuleCache) -> None:
    isolate = open_isolate(cache, module_of("0 1"))
    try:
        assert isolate.memory_size == 0
        assert isolate.invoke(b"x") == (0, b"")
        with pytest.raises(DeveloperError) as caught:
            isolate.read(0, 1)
        assert caught.value.code == "GuestPointerInvalid"
    finally:
        isolate.close()
