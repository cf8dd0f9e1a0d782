"""Images: the engine's memory after loading, kept as a module."""

from pathlib import Path

import pytest
import wasmtime

from skerry.bundle import image
from skerry.bundle.image import Script, build_image, image_version
from skerry.bundle.wasm_binary import parse_module
from skerry.errors import ClientError
from tests.bundle.runner import Compiled, GuestRunner

COUNTER = b"""
let loaded = 0; loaded++; const seen = new Map([["when", Date.now()], ["drawn", Math.random()]]);
__skerry.setInvoker(() => JSON.stringify([loaded++, seen.get("when"), seen.get("drawn"), Math.random(), Date.now()]));
"""


def runner_of(module: bytes) -> GuestRunner:
    return GuestRunner(module)


@pytest.fixture(scope="module")
def counter(engine: bytes) -> bytes:
    return build_image(engine, [Script("counter.js", COUNTER)], runner_of)


def test_a_call_starts_from_the_loaded_state_every_time(counter: bytes) -> None:
    compiled = Compiled(counter)
    results = []
    for now_ns in (1_000_000_000, 2_000_000_000):
        guest = GuestRunner(compiled)
        guest.now_ns = now_ns
        results.append(guest.invoke("a:b")[1])
    assert results[0][0] == results[1][0] == 1
    assert results[0][1:3] == results[1][1:3]
    assert [result[4] for result in results] == [1000, 2000]


def test_numbers_drawn_while_loading_say_nothing_about_those_of_a_call(counter: bytes) -> None:
    guest = GuestRunner(counter)
    guest.ops["entropy"] = lambda argument, raw: bytes(range(32))
    other = GuestRunner(counter)
    other.ops["entropy"] = lambda argument, raw: bytes(range(1, 33))
    assert guest.invoke("a:b")[1][3] != other.invoke("a:b")[1][3]


def test_an_image_has_the_exports_of_the_abi_alone(counter: bytes) -> None:
    module = parse_module(counter)
    assert sorted(export.name for export in module.exports) == sorted(image.ABI_EXPORTS)
    assert module.start is None
    assert image_version(module) == image.IMAGE_VERSION
    assert [section.name for section in module.sections if section.name] == [image.IMAGE_SECTION]


def test_the_engine_itself_is_no_image(engine: bytes) -> None:
    assert image_version(parse_module(engine)) is None


def test_the_same_inputs_give_the_same_image(engine: bytes, counter: bytes) -> None:
    assert build_image(engine, [Script("counter.js", COUNTER)], runner_of) == counter


def test_the_memory_of_an_image_is_the_memory_after_loading(engine: bytes) -> None:
    seen: list[GuestRunner] = []

    def remember(module: bytes) -> GuestRunner:
        seen.append(GuestRunner(module))
        return seen[0]

    built = build_image(engine, [Script("counter.js", COUNTER)], remember)
    assert GuestRunner(built).memory() == seen[0].memory()


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (b"throw new TypeError('at load')", "at load"),
        (b"let a = ;", "SyntaxError"),
        (b"Promise.reject(new Error('lost'))", "lost"),
        (b"new Promise(() => {})", "nothing can settle"),
    ],
)
def test_code_that_fails_while_it_loads_gives_no_image(engine: bytes, source: bytes, expected: str) -> None:
    with pytest.raises(ClientError, match=expected) as caught:
        build_image(engine, [Script("convex/bad.js", source)], runner_of)
    assert caught.value.code == "ImageBuildFailed"
    assert "convex/bad.js" in caught.value.message


REFUSED = {
    "a growing table": '(module (memory (export "memory") 1 2) (table 1 funcref))',
    "two mutable globals": '(module (memory (export "memory") 1 2) (global (mut i32) (i32.const 0)) (global (mut i32)'
    " (i32.const 0)))",
    "a global of another type": '(module (memory (export "memory") 1 2) (global (mut i64) (i64.const 0)))',
    "a passive element segment": '(module (memory (export "memory") 1 2) (table 1 1 funcref) (func) (elem func 0))',
    "passive data": '(module (memory (export "memory") 1 2) (data "abc"))',
    "an imported memory": '(module (import "a" "b" (memory 1 2)))',
    "no maximum": '(module (memory (export "memory") 1) (func (export "skerry_boot") (result i32) i32.const 0)'
    ' (func (export "skerry_freeze") (result i64) i64.const 0))',
    "a moved stack pointer": '(module (memory (export "memory") 1 2) (global (mut i32) (i32.const 64))'
    ' (func (export "skerry_boot") (result i32) i32.const 8 global.set 0 i32.const 0) (func'
    ' (export "skerry_freeze") (result i64) i64.const 0))',
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_module_whose_state_is_more_than_its_memory_is_refused(case: str) -> None:
    with pytest.raises(ClientError) as caught:
        build_image(bytes(wasmtime.wat2wasm(REFUSED[case])), [], runner_of)
    assert caught.value.code == "GuestModuleInvalid"


def test_the_image_builder_never_imports_wasmtime() -> None:
    assert "import wasmtime" not in Path(image.__file__).read_text()
