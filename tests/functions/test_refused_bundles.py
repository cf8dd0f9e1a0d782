"""Bundles that no deployment takes: each refused with its code, the active version untouched."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import wasmtime

from skerry import limits
from skerry.bundle.bundle_file import read_bundle
from skerry.errors import ClientError
from skerry.functions import version as version_room
from skerry.isolate import ModuleCache, get_engine
from tests.fixtures import bundles, shared
from tests.fixtures.bundles import wrap, wrap_honestly
from tests.fixtures.guests import c_guest, wat_guest
from tests.fixtures.world import World


@pytest.fixture(scope="module")
def serving(base: Path, compiled: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with World(tmp_path_factory.mktemp("serving"), compiled) as made:
        made.activate(shared.bundle("c", base))
        yield made


@pytest.fixture(autouse=True)
def untouched(serving: World) -> Iterator[None]:
    """After every refusal the old version answers, and no file of the new one is kept."""
    before = serving.deployment.describe()
    yield
    assert serving.deployment.describe() == before
    assert serving.query("f:add", {"x": 1, "y": 2}) == 3
    assert [path.name for path in serving.deployment._kept.folder.iterdir()] == [before["version"]]


def refusal(serving: World, raw: bytes) -> ClientError:
    with pytest.raises(ClientError) as caught:
        serving.activate(raw)
    return caught.value


def guest_of(text: str, memory: str = '(memory (export "memory") 1 16)') -> bytes:
    return bytes(
        wasmtime.wat2wasm(f"""(module {text} {memory}
          (func (export "skerry_abi_version") (result i32) i32.const 1)
          (func (export "describe") (result i64) i64.const 0)
          (func (export "invoke") (param i32) (result i64) i64.const 0)
          (func (export "resume") (param i32) (result i64) i64.const 0))""")
    )


NATIVE = wasmtime.Module(get_engine().wasmtime, wat_guest("finds_table")).serialize()
PAGES_MAX = limits.GUEST_MEMORY_BYTES_MAX // 65536
ELEMENTS_MAX = limits.GUEST_TABLE_ELEMENTS_MAX
FLIPS = 400
MODULES: dict[str, Callable[[], bytes]] = {
    "no wasm": lambda: b"not wasm at all",
    "text": lambda: b"(module)",
    "empty": lambda: b"",
    "truncated": lambda: c_guest("functions")[:1000],
    "compiled code": lambda: bytes(NATIVE),
    "a component": lambda: bytes(wasmtime.wat2wasm("(component)")),
    "no exports": lambda: bytes(wasmtime.wat2wasm("(module)")),
    "huge memory": lambda: wat_guest("huge_memory"),
    "huge table": lambda: wat_guest("huge_table"),
    "imported memory": lambda: wat_guest("imported_memory"),
    "start section": lambda: wat_guest("start_loops"),
    "two memories": lambda: wat_guest("two_memories"),
    "no maximum": lambda: wat_guest("unlimited_memory"),
    "no memory": lambda: guest_of("", ""),
    "memory one page past": lambda: guest_of("", f'(memory (export "memory") {PAGES_MAX + 1} {PAGES_MAX + 1})'),
    "maximum one page past": lambda: guest_of("", f'(memory (export "memory") 1 {PAGES_MAX + 1})'),
    "table one element past": lambda: guest_of(f"(table {ELEMENTS_MAX + 1} funcref)"),
    "one table too many": lambda: guest_of("(table 1 funcref)" * (limits.GUEST_TABLES_MAX + 1)),
    "shared memory": lambda: guest_of("", '(memory (export "memory") 1 16 shared)'),
    "64-bit memory": lambda: guest_of("", '(memory (export "memory") i64 1 16)'),
    "unknown import": lambda: c_guest("unknown_import"),
    "unknown WASI import": lambda: c_guest("unknown_wasi_import"),
    "missing export": lambda: c_guest("missing_export"),
    "export of another type": lambda: c_guest("wrong_export_type"),
    "import of another type": lambda: guest_of('(import "skerry" "take" (func (param i64) (result i32)))'),
    "imported global": lambda: guest_of('(import "skerry" "take" (global i32))'),
    "other ABI version": lambda: c_guest("wrong_abi_version"),
    "invalid code": lambda: guest_of("").replace(b"\x42\x00\x0b", b"\x41\x00\x0b", 1),
}


@pytest.mark.parametrize("module", MODULES)
def test_a_module_that_is_no_guest_is_refused(serving: World, module: str) -> None:
    assert refusal(serving, wrap(MODULES[module]())).code == "GuestModuleInvalid"


def test_what_lies_at_the_bounds_is_no_reason_to_refuse(serving: World) -> None:
    at_bounds = guest_of(f"(table {ELEMENTS_MAX} funcref)", f'(memory (export "memory") {PAGES_MAX} {PAGES_MAX})')
    assert refusal(serving, wrap(at_bounds)).code == "DescriptionInvalid", "it describes itself with nothing"


@pytest.mark.parametrize(
    ("guest", "code"),
    [
        ("describe_garbage", "DescriptionInvalid"),
        ("describe_hostcall", "DescriptionInvalid"),
        ("describe_giant", "ModuleLoadFailed"),
        ("describe_fails", "ModuleLoadFailed"),
        ("describe_loops", "ModuleLoadFailed"),
        ("initialize_loops", "ModuleLoadFailed"),
        ("initialize_exits", "ModuleLoadFailed"),
    ],
)
def test_a_guest_that_cannot_describe_itself_is_refused(
    serving: World, monkeypatch: pytest.MonkeyPatch, guest: str, code: str
) -> None:
    monkeypatch.setattr(limits, "MODULE_LOAD_CPU_MS_MAX", 200)
    assert refusal(serving, wrap(c_guest(guest))).code == code


def described_as(text: str) -> bytes:
    """A guest that gives this text as its description."""
    packed = len(text) << 32 | 1024
    data = text.replace('"', '\\"')
    return bytes(
        wasmtime.wat2wasm(f"""(module (memory (export "memory") 1 16) (data (i32.const 1024) "{data}")
          (func (export "skerry_abi_version") (result i32) i32.const 1)
          (func (export "describe") (result i64) i64.const {packed})
          (func (export "invoke") (param i32) (result i64) i64.const 0)
          (func (export "resume") (param i32) (result i64) i64.const 0))""")
    )


FUNCTION = '{"name":"f:x","kind":"query","visibility":"public","args":{"type":"any"},"returns":null}'
DESCRIPTIONS = {
    "other ABI": '{"abi":2,"functions":[]}',
    "no list": '{"abi":1,"functions":{}}',
    "no object": '{"abi":1,"functions":[1]}',
    "no kind": '{"abi":1,"functions":[{"name":"f:x","visibility":"public"}]}',
    "twice": f'{{"abi":1,"functions":[{FUNCTION},{FUNCTION}]}}',
    "bad name": f'{{"abi":1,"functions":[{FUNCTION.replace("f:x", "../f:x")}]}}',
    "bad validator": f'{{"abi":1,"functions":[{FUNCTION.replace("any", "nothing")}]}}',
    "deep": "[" * 5000,
}


@pytest.mark.parametrize("name", DESCRIPTIONS)
def test_a_description_that_is_none_is_refused(serving: World, name: str) -> None:
    assert refusal(serving, wrap(described_as(DESCRIPTIONS[name]))).code == "DescriptionInvalid"


@pytest.mark.parametrize("lie", ["functions", "schema", "features"])
def test_a_manifest_that_lies_is_refused(serving: World, cache: ModuleCache, lie: str) -> None:
    wasm = c_guest("matrix")
    said = bundles.describe(wasm, cache)
    lies: dict[str, Any] = {"functions": said["functions"][1:], "schema": None, "features": ["crons"]}
    told = {key: lies[key] if key == lie else said[key] for key in lies}
    assert refusal(serving, wrap(wasm, **told)).code == "ManifestMismatch"


@pytest.mark.parametrize("damage", ["flipped", "truncated", "longer", "empty"])
def test_a_damaged_bundle_is_refused(serving: World, base: Path, damage: str) -> None:
    raw = shared.bundle("c", base)
    middle = len(raw) // 2
    damaged = {
        "flipped": raw[:middle] + bytes([raw[middle] ^ 1]) + raw[middle + 1 :],
        "truncated": raw[:-1],
        "longer": raw + b"\0",
        "empty": b"",
    }[damage]
    assert refusal(serving, damaged).code in ("BundleInvalid", "BundleDigestMismatch")


def test_functions_may_be_many_and_no_more(serving: World, monkeypatch: pytest.MonkeyPatch, cache: ModuleCache) -> None:
    count = len(bundles.describe(c_guest("hostile"), cache)["functions"])
    monkeypatch.setattr(limits, "FUNCTIONS_MAX", count)
    version_room.Description(_description(cache))
    monkeypatch.setattr(limits, "FUNCTIONS_MAX", count - 1)
    assert refusal(serving, wrap_honestly(c_guest("hostile"), cache)).code == "DescriptionInvalid"


def _description(cache: ModuleCache) -> bytes:
    return orjson.dumps(bundles.describe(c_guest("hostile"), cache))


def test_a_module_with_damaged_bytes_is_refused_or_says_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is flipped: a coded refusal, or a module that still works. Never another error."""
    monkeypatch.setattr(limits, "MODULE_LOAD_CPU_MS_MAX", 20)
    cache = ModuleCache(get_engine(), None, b"a key")
    whole = described_as('{"abi":1,"language":"c","functions":[],"schema":null,"features":[]}')
    rng = random.Random("damaged modules")
    codes: set[str] = set()
    for _ in range(FLIPS):
        at, bit = rng.randrange(len(whole)), 1 << rng.randrange(8)
        damaged = whole[:at] + bytes([whole[at] ^ bit]) + whole[at + 1 :]
        try:
            version_room.check_version(read_bundle(wrap(damaged)), cache, "local")
        except ClientError as error:
            codes.add(error.code)
    assert codes >= {"GuestModuleInvalid", "DescriptionInvalid"}
    assert codes <= {"GuestModuleInvalid", "DescriptionInvalid", "ModuleLoadFailed", "ManifestMismatch"}
