"""The reader of WebAssembly modules: what it reads, and that hostile bytes are only ever refused."""

import random

import pytest
import wasmtime

from skerry.bundle import wasm_binary
from skerry.bundle.wasm_binary import (
    DATA,
    ELEMENT,
    EXPORT,
    FUNCTION,
    GLOBAL,
    IMPORT,
    MAGIC,
    TABLE,
    TYPE,
    FunctionType,
    Limits,
    Reader,
    encode_section,
    encode_signed,
    encode_unsigned,
    parse_module,
)
from skerry.errors import ClientError
from tests.fixtures.guests import c_guest, wat_guest

EVERYTHING = """
(module
  (type (func (param i32 i64) (result f64)))
  (import "skerry" "hostcall" (func (type 0)))
  (memory (export "memory") 3 7)
  (table 5 5 funcref)
  (global (mut i32) (i32.const -7))
  (global i64 (i64.const 9000000000))
  (func (export "invoke") (type 0) f64.const 1)
  (func)
  (start 2)
  (elem (i32.const 1) func 1 2)
  (elem func 1)
  (data (i32.const 16) "abc")
  (data "passive"))
"""


def refusal(raw: bytes) -> str:
    with pytest.raises(ClientError) as caught:
        parse_module(raw)
    assert caught.value.code == "GuestModuleInvalid"
    return caught.value.message


def test_the_outside_of_a_module_is_read() -> None:
    module = parse_module(bytes(wasmtime.wat2wasm(EVERYTHING)))
    assert module.memories == (Limits(3, 7),)
    assert module.tables == (Limits(5, 5),)
    assert [(item.type, item.mutable, item.initial) for item in module.globals] == [
        ("i32", True, -7),
        ("i64", False, 9_000_000_000),
    ]
    assert [(item.module, item.name, item.kind) for item in module.imports] == [("skerry", "hostcall", "func")]
    assert [(item.name, item.kind, item.index) for item in module.exports] == [
        ("memory", "memory", 0),
        ("invoke", "func", 1),
    ]
    assert module.type_of_export("invoke") == FunctionType(("i32", "i64"), ("f64",))
    assert module.type_of_export("memory") is None
    assert module.start == 2
    assert module.element_segments_active == (True, False)
    assert [(segment.active, segment.offset, module.raw[segment.start : segment.end]) for segment in module.data] == [
        (True, 16, b"abc"),
        (False, None, b"passive"),
    ]


@pytest.mark.parametrize("name", ["functions", "hostile", "unknown_import", "missing_export"])
def test_modules_of_the_compiler_are_read(name: str) -> None:
    assert parse_module(c_guest(name)).memories[0].maximum is not None


@pytest.mark.parametrize("name", ["huge_table", "two_memories"])
def test_modules_beyond_what_the_host_runs_are_refused(name: str) -> None:
    refusal(wat_guest(name))


def test_every_prefix_of_a_module_is_refused_or_read_without_another_error() -> None:
    raw = bytes(wasmtime.wat2wasm(EVERYTHING))
    for length in range(len(raw)):
        try:
            parse_module(raw[:length])
        except ClientError:
            continue


@pytest.mark.parametrize("seed", range(8))
def test_random_damage_raises_nothing_but_a_refusal(seed: int) -> None:
    generator = random.Random(seed)
    original = bytes(wasmtime.wat2wasm(EVERYTHING))
    for _ in range(2000):
        raw = bytearray(original)
        for _ in range(generator.randrange(1, 4)):
            raw[generator.randrange(8, len(raw))] = generator.choice((0, 1, 0x7F, 0x80, 0xFF, generator.randrange(256)))
        try:
            parse_module(bytes(raw))
        except ClientError as error:
            assert error.code == "GuestModuleInvalid"


COUNTED = [
    (TYPE, "MODULE_TYPES_MAX", b"\x60\0\0", b""),
    (IMPORT, "MODULE_IMPORTS_MAX", b"\0\0\0\0", encode_section(TYPE, b"\1\x60\0\0")),
    (GLOBAL, "MODULE_GLOBALS_MAX", b"\x7f\0\x41\0\x0b", b""),
    (ELEMENT, "MODULE_ELEMENT_SEGMENTS_MAX", b"\1\0\0", b""),
    (DATA, "MODULE_DATA_SEGMENTS_MAX", b"\1\0", b""),
]


@pytest.mark.parametrize(("section", "limit", "item", "before"), COUNTED)
def test_counts_are_read_at_their_bound_and_refused_past_it(
    section: int, limit: str, item: bytes, before: bytes
) -> None:
    bound = getattr(wasm_binary, limit)
    parse_module(MAGIC + before + encode_section(section, encode_unsigned(bound) + item * bound))
    assert str(bound) in refusal(
        MAGIC + before + encode_section(section, encode_unsigned(bound + 1) + item * (bound + 1))
    )


def test_functions_are_read_at_their_bound_and_refused_past_it() -> None:
    types = encode_section(TYPE, b"\1\x60\0\0")
    for count, read in ((wasm_binary.MODULE_FUNCTIONS_MAX, True), (wasm_binary.MODULE_FUNCTIONS_MAX + 1, False)):
        functions = encode_section(FUNCTION, encode_unsigned(count) + b"\0" * count)
        raw = MAGIC + types + functions + encode_section(wasm_binary.CODE, encode_unsigned(count) + b"\2\0\x0b" * count)
        if read:
            assert len(parse_module(raw).function_types) == count
        else:
            assert "functions" in refusal(raw)


def test_exports_are_read_at_their_bound_and_refused_past_it() -> None:
    def module(count: int) -> bytes:
        exports = b"".join(b"\2" + f"{index:02x}".encode()[:2] + b"\2\0" for index in range(count))
        return (
            MAGIC
            + encode_section(wasm_binary.MEMORY, b"\1\1\1\1")
            + encode_section(EXPORT, encode_unsigned(count) + exports)
        )

    bound = wasm_binary.MODULE_EXPORTS_MAX
    assert len(parse_module(module(bound)).exports) == bound
    assert "exports" in refusal(module(bound + 1))


def test_names_are_read_at_their_bound_and_refused_past_it() -> None:
    def module(length: int) -> bytes:
        return MAGIC + encode_section(0, encode_unsigned(length) + b"n" * length)

    bound = wasm_binary.MODULE_NAME_BYTES_MAX
    assert parse_module(module(bound)).sections[0].name == "n" * bound
    assert "name" in refusal(module(bound + 1))


def test_sections_are_read_at_their_bound_and_refused_past_it() -> None:
    bound = wasm_binary.MODULE_SECTIONS_MAX
    assert len(parse_module(MAGIC + encode_section(0, b"\0") * bound).sections) == bound
    assert "sections" in refusal(MAGIC + encode_section(0, b"\0") * (bound + 1))


def test_tables_are_read_at_their_bound_and_refused_past_it() -> None:
    bound = wasm_binary.MODULE_TABLE_ELEMENTS_MAX
    assert parse_module(MAGIC + encode_section(TABLE, b"\1\x70\0" + encode_unsigned(bound))).tables[0].minimum == bound
    refusal(MAGIC + encode_section(TABLE, b"\1\x70\0" + encode_unsigned(bound + 1)))


def test_a_module_is_read_at_its_bound_and_refused_past_it() -> None:
    def module(size: int) -> bytes:
        padding = b"\0" + bytes(size - len(MAGIC) - 6)  # a custom section without a name
        raw = MAGIC + encode_section(0, padding)
        assert len(raw) == size
        return raw

    bound = wasm_binary.MODULE_BYTES_MAX
    assert len(parse_module(module(bound)).sections) == 1
    assert str(bound) in refusal(module(bound + 1))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\0asm\2\0\0\0",
        MAGIC + b"\x0e\0",
        MAGIC + encode_section(TYPE, b"\0") * 2,
        MAGIC + encode_section(EXPORT, b"\0") + encode_section(TYPE, b"\0"),
        MAGIC + encode_section(TYPE, b"\0\0"),
        MAGIC + encode_section(wasm_binary.MEMORY, b"\1\3\1\1"),
        MAGIC + encode_section(wasm_binary.MEMORY, b"\1\4\1"),
        MAGIC + encode_section(wasm_binary.MEMORY, b"\1\1\2\1"),
        MAGIC + encode_section(wasm_binary.START, b"\0"),
        MAGIC + encode_section(FUNCTION, b"\0") + encode_section(wasm_binary.CODE, b"\1\2\0\x0b"),
        MAGIC + encode_section(TYPE, b"\xff\xff\xff\xff\x7f"),
        MAGIC + encode_section(TYPE, b"\x80\x80\x80\x80\x80\0"),
        MAGIC + b"\1\xff\xff\xff\xff\x0f",
    ],
)
def test_malformed_modules_are_refused(raw: bytes) -> None:
    refusal(raw)


@pytest.mark.parametrize("value", [0, 1, 63, 64, -1, -64, -65, 127, 128, 2**31 - 1, -(2**31)])
def test_integers_come_back_as_they_were_written(value: int) -> None:
    raw = encode_signed(value)
    assert Reader(raw, 0, len(raw)).signed(32) == value
    raw = encode_unsigned(value & 0xFFFFFFFF)
    assert Reader(raw, 0, len(raw)).unsigned() == value & 0xFFFFFFFF
