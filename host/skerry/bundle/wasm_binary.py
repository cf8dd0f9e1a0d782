"""A small, strict, bounded reader of WebAssembly modules, and the writer that its reader needs.

It reads the outside of a module: sections, imports, exports, memories, tables, globals, element segments' modes,
data segments, start. Function bodies are skipped: the WebAssembly engine validates those. Its input is hostile:
every count is checked against a named bound before anything is allocated for it, every length against the bytes
that are left, integers must have their shortest-possible range, and each section must end exactly where it said it
would.

Only what the host runs is accepted: one memory at most, 32-bit, not shared; function references only; no tags, no
extended constant expressions. Everything else is `GuestModuleInvalid`.

Deliberately absent: text format, names, instructions.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NoReturn, TypeVar

from skerry.errors import ClientError
from skerry.limits import (
    MODULE_BYTES_MAX,
    MODULE_DATA_SEGMENTS_MAX,
    MODULE_ELEMENT_SEGMENTS_MAX,
    MODULE_EXPORTS_MAX,
    MODULE_FUNCTIONS_MAX,
    MODULE_GLOBALS_MAX,
    MODULE_IMPORTS_MAX,
    MODULE_NAME_BYTES_MAX,
    MODULE_SECTIONS_MAX,
    MODULE_TABLE_ELEMENTS_MAX,
    MODULE_TYPES_MAX,
)

MAGIC: Final = b"\0asm\1\0\0\0"

CUSTOM, TYPE, IMPORT, FUNCTION, TABLE, MEMORY, GLOBAL, EXPORT, START, ELEMENT, CODE, DATA, DATA_COUNT = range(13)

# The order sections must come in: the data count stands before the code.
_SECTION_ORDER: Final = {
    section: rank
    for rank, section in enumerate(
        (TYPE, IMPORT, FUNCTION, TABLE, MEMORY, GLOBAL, EXPORT, START, ELEMENT, DATA_COUNT, CODE, DATA)
    )
}

EXTERNAL_KINDS: Final = ("func", "table", "memory", "global")
VALUE_TYPES: Final = {0x7F: "i32", 0x7E: "i64", 0x7D: "f32", 0x7C: "f64", 0x70: "funcref"}

_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True)
class Section:
    """One section. Shape: `id`, and its payload's bounds in the module's bytes; custom sections carry their `name`."""

    id: int
    start: int
    end: int
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes of a memory (pages) or table (elements)."""

    minimum: int
    maximum: int | None


@dataclass(frozen=True, slots=True)
class FunctionType:
    params: tuple[str, ...]
    results: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Import:
    """One import. Shape: `kind` of `EXTERNAL_KINDS`; `type` where it is a function."""

    module: str
    name: str
    kind: str
    type: FunctionType | None


@dataclass(frozen=True, slots=True)
class Export:
    """One export. Shape: `kind` of `EXTERNAL_KINDS`; `index` in the index space of that kind."""

    name: str
    kind: str
    index: int


@dataclass(frozen=True, slots=True)
class Global:
    """One global defined here. Shape: `initial` is the constant of an integer global, None for other expressions."""

    type: str
    mutable: bool
    initial: int | None


@dataclass(frozen=True, slots=True)
class DataSegment:
    """One data segment. Shape: `offset` of an active segment with a constant offset, else None; payload bounds."""

    active: bool
    offset: int | None
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Module:
    """The outside of one module; indexes count imports first, as in the binary."""

    raw: bytes
    sections: tuple[Section, ...]
    types: tuple[FunctionType, ...]
    imports: tuple[Import, ...]
    function_types: tuple[int, ...]
    tables: tuple[Limits, ...]
    memories: tuple[Limits, ...]
    globals: tuple[Global, ...]
    exports: tuple[Export, ...]
    start: int | None
    element_segments_active: tuple[bool, ...]
    data: tuple[DataSegment, ...]

    def type_of_export(self, name: str) -> FunctionType | None:
        """The type of the function exported as `name`, None where there is none."""
        for export in self.exports:
            if export.name == name and export.kind == "func":
                return self.type_of_function(export.index)
        return None

    def type_of_function(self, index: int) -> FunctionType:
        imported = [item.type for item in self.imports if item.type is not None]
        if index < len(imported):
            return imported[index]
        return self.types[self.function_types[index - len(imported)]]


def parse_module(raw: bytes) -> Module:
    """The outside of the module in `raw`. Raises: ClientError `GuestModuleInvalid`. Limits: `MODULE_*`."""
    if len(raw) > MODULE_BYTES_MAX:
        _invalid(f"it has {len(raw)} bytes, the limit is {MODULE_BYTES_MAX}")
    if raw[:8] != MAGIC:
        _invalid("it does not begin as a WebAssembly module of version 1")
    sections = _read_sections(raw)
    readers = {section.id: Reader(raw, section.start, section.end) for section in sections if section.id != CUSTOM}

    def items(section: int, read: Callable[["Reader"], _Item], bound: int, what: str) -> tuple[_Item, ...]:
        reader = readers.get(section)
        if reader is None:
            return ()
        found = reader.vector(read, bound, what)
        reader.expect_end(what)
        return found

    types = items(TYPE, _read_type, MODULE_TYPES_MAX, "types")
    imports = items(IMPORT, lambda reader: _read_import(reader, types), MODULE_IMPORTS_MAX, "imports")
    function_types = items(FUNCTION, lambda reader: reader.index(len(types), "type"), MODULE_FUNCTIONS_MAX, "functions")
    tables = items(TABLE, _read_table, 1, "tables")
    memories = items(MEMORY, lambda reader: reader.limits(0x10000, "memory"), 1, "memories")
    globals_ = items(GLOBAL, _read_global, MODULE_GLOBALS_MAX, "globals")
    spaces = {
        "func": len(function_types) + _count(imports, "func"),
        "table": len(tables) + _count(imports, "table"),
        "memory": len(memories) + _count(imports, "memory"),
        "global": len(globals_) + _count(imports, "global"),
    }
    exports = items(EXPORT, lambda reader: _read_export(reader, spaces), MODULE_EXPORTS_MAX, "exports")
    if len({export.name for export in exports}) != len(exports):
        _invalid("two exports have the same name")
    if spaces["table"] > 1 or spaces["memory"] > 1:
        _invalid("it has more than one table or memory")
    bodies = items(CODE, _skip_body, MODULE_FUNCTIONS_MAX, "function bodies")
    if len(bodies) != len(function_types):
        _invalid("the numbers of functions and of function bodies differ")
    return Module(
        raw,
        sections,
        types,
        imports,
        function_types,
        tables,
        memories,
        globals_,
        exports,
        _read_start(readers.get(START), spaces["func"]),
        items(ELEMENT, _read_element_segment, MODULE_ELEMENT_SEGMENTS_MAX, "element segments"),
        items(DATA, _read_data_segment, MODULE_DATA_SEGMENTS_MAX, "data segments"),
    )


class Reader:
    """A cursor over one section's payload that cannot leave it."""

    __slots__ = ("end", "position", "raw")

    def __init__(self, raw: bytes, start: int, end: int) -> None:
        self.raw = raw
        self.position = start
        self.end = end

    def byte(self) -> int:
        if self.position >= self.end:
            _invalid("a section ends in the middle of an item")
        value = self.raw[self.position]
        self.position += 1
        return value

    def unsigned(self, bits: int = 32) -> int:
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
            if shift >= bits:
                _invalid("an integer is too long")
        if value >> bits:
            _invalid("an integer is out of range")
        return value

    def signed(self, bits: int) -> int:
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
            if shift >= bits:
                _invalid("an integer is too long")
        if byte & 0x40:
            value -= 1 << shift
        if not -(1 << bits - 1) <= value < 1 << bits - 1:
            _invalid("an integer is out of range")
        return value

    def skip(self, length: int) -> int:
        """The position before `length` bytes that are passed over."""
        start = self.position
        if length > self.end - start:
            _invalid("a length points past the end of its section")
        self.position = start + length
        return start

    def name(self) -> str:
        length = self.unsigned()
        if length > MODULE_NAME_BYTES_MAX:
            _invalid(f"a name has {length} bytes, the limit is {MODULE_NAME_BYTES_MAX}")
        start = self.skip(length)
        try:
            return self.raw[start : start + length].decode()
        except UnicodeDecodeError:
            _invalid("a name is not UTF-8")

    def index(self, size: int, what: str) -> int:
        value = self.unsigned()
        if value >= size:
            _invalid(f"a {what} index is out of range")
        return value

    def vector(self, read: Callable[["Reader"], _Item], bound: int, what: str) -> tuple[_Item, ...]:
        count = self.unsigned()
        if count > bound:
            _invalid(f"it has {count} {what}, the limit is {bound}")
        return tuple(read(self) for _ in range(count))

    def limits(self, bound: int, what: str) -> Limits:
        flags = self.byte()
        if flags > 1:
            _invalid(f"a {what} is shared or 64-bit")
        minimum = self.unsigned()
        maximum = self.unsigned() if flags else None
        if minimum > bound or (maximum is not None and not minimum <= maximum <= 0xFFFFFFFF):
            _invalid(f"the size of a {what} is out of range")
        return Limits(minimum, maximum)

    def value_type(self) -> str:
        kind = VALUE_TYPES.get(self.byte())
        if kind is None:
            _invalid("a value type is not one the host runs")
        return kind

    def constant(self) -> int | None:
        """The value of an integer constant expression; None for the other one-instruction expressions."""
        opcode = self.byte()
        value: int | None = None
        if opcode == 0x41:
            value = self.signed(32)
        elif opcode == 0x42:
            value = self.signed(64)
        elif opcode in (0x43, 0x44):
            self.skip(4 if opcode == 0x43 else 8)
        elif opcode in (0x23, 0xD2):
            self.unsigned()
        elif opcode == 0xD0:
            self.value_type()
        else:
            _invalid("a constant expression is not a single constant")
        if self.byte() != 0x0B:
            _invalid("a constant expression is not a single constant")
        return value

    def expect_end(self, what: str) -> None:
        if self.position != self.end:
            _invalid(f"the section of {what} has bytes left over")


def encode_unsigned(value: int) -> bytes:
    """The shortest LEB128 form of a non-negative integer."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def encode_signed(value: int) -> bytes:
    """The shortest signed LEB128 form of an integer."""
    out = bytearray()
    while not -0x40 <= value < 0x40:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value & 0x7F)
    return bytes(out)


def encode_name(name: str) -> bytes:
    raw = name.encode()
    return encode_unsigned(len(raw)) + raw


def encode_section(section: int, payload: bytes) -> bytes:
    return bytes((section,)) + encode_unsigned(len(payload)) + payload


def encode_export(export: Export) -> bytes:
    kind = bytes((EXTERNAL_KINDS.index(export.kind),))
    return encode_name(export.name) + kind + encode_unsigned(export.index)


def encode_limits(limits: Limits) -> bytes:
    if limits.maximum is None:
        return b"\0" + encode_unsigned(limits.minimum)
    return b"\1" + encode_unsigned(limits.minimum) + encode_unsigned(limits.maximum)


def _invalid(reason: str) -> NoReturn:
    raise ClientError("GuestModuleInvalid", f"The module cannot be used: {reason}.")


def _count(imports: tuple[Import, ...], kind: str) -> int:
    return sum(item.kind == kind for item in imports)


def _read_sections(raw: bytes) -> tuple[Section, ...]:
    reader = Reader(raw, len(MAGIC), len(raw))
    sections: list[Section] = []
    rank = -1
    while reader.position < reader.end:
        if len(sections) >= MODULE_SECTIONS_MAX:
            _invalid(f"it has more than {MODULE_SECTIONS_MAX} sections")
        section = reader.byte()
        length = reader.unsigned()
        start = reader.skip(length)
        name = None
        if section == CUSTOM:
            name = Reader(raw, start, start + length).name()
        elif _SECTION_ORDER.get(section, -1) <= rank:
            _invalid("a section is unknown, doubled or out of order")
        else:
            rank = _SECTION_ORDER[section]
        sections.append(Section(section, start, start + length, name))
    return tuple(sections)


def _read_type(reader: Reader) -> FunctionType:
    if reader.byte() != 0x60:
        _invalid("a type is not a function type")
    params = reader.vector(Reader.value_type, 1000, "parameters")
    return FunctionType(params, reader.vector(Reader.value_type, 1000, "results"))


def _read_import(reader: Reader, types: tuple[FunctionType, ...]) -> Import:
    module, name, kind = reader.name(), reader.name(), reader.byte()
    if kind == 0:
        return Import(module, name, "func", types[reader.index(len(types), "type")])
    if kind == 1:
        _read_table(reader)
    elif kind == 2:
        reader.limits(0x10000, "memory")
    elif kind == 3:
        reader.value_type()
        reader.byte()
    else:
        _invalid("an import is of an unknown kind")
    return Import(module, name, EXTERNAL_KINDS[kind], None)


def _read_table(reader: Reader) -> Limits:
    if reader.byte() != 0x70:
        _invalid("a table holds something other than function references")
    return reader.limits(MODULE_TABLE_ELEMENTS_MAX, "table")


def _read_global(reader: Reader) -> Global:
    kind, mutability = reader.value_type(), reader.byte()
    if mutability > 1:
        _invalid("a global is neither constant nor mutable")
    return Global(kind, mutability == 1, reader.constant())


def _read_export(reader: Reader, spaces: dict[str, int]) -> Export:
    name, kind = reader.name(), reader.byte()
    if kind >= len(EXTERNAL_KINDS):
        _invalid("an export is of an unknown kind")
    return Export(name, EXTERNAL_KINDS[kind], reader.index(spaces[EXTERNAL_KINDS[kind]], EXTERNAL_KINDS[kind]))


def _read_start(reader: Reader | None, functions: int) -> int | None:
    if reader is None:
        return None
    index = reader.index(functions, "function")
    reader.expect_end("the start function")
    return index


def _read_element_segment(reader: Reader) -> bool:
    """Whether the segment is active (written at instantiation and gone after it)."""
    flags = reader.unsigned()
    if flags > 7:
        _invalid("an element segment is of an unknown form")
    active = not flags & 1
    if active:
        if flags & 2:
            reader.unsigned()
        reader.constant()
    if flags & 3 and reader.byte() not in (0x00, 0x70):
        _invalid("an element segment holds something other than function references")
    reader.vector(Reader.constant if flags & 4 else Reader.unsigned, MODULE_TABLE_ELEMENTS_MAX, "table elements")
    return active


def _read_data_segment(reader: Reader) -> DataSegment:
    flags = reader.unsigned()
    if flags > 2:
        _invalid("a data segment is of an unknown form")
    if flags == 2 and reader.unsigned() != 0:
        _invalid("a data segment names a second memory")
    offset = None if flags == 1 else reader.constant()
    length = reader.unsigned()
    start = reader.skip(length)
    return DataSegment(flags != 1, None if offset is None else offset & 0xFFFFFFFF, start, start + length)


def _skip_body(reader: Reader) -> None:
    reader.skip(reader.unsigned())
