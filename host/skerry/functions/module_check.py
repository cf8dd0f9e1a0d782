"""What a module must look like before it is compiled: ABI version 1, nothing more (guest_sdk/ABI.md).

The check reads the binary with a bounded parser; it costs no compilation and no instance. Imports beyond the ABI, a
start function, memories and tables over the limits are refused here, each with a sentence that names it.
"""

from typing import Final, NoReturn

from skerry import limits
from skerry.bundle.wasm_binary import Module, parse_module
from skerry.errors import ClientError
from skerry.isolate.wasi import wasi_functions

_PAGE_BYTES: Final = 64 * 1024
_EXPORTS: Final[dict[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "skerry_abi_version": ((), ("i32",)),
    "describe": ((), ("i64",)),
    "invoke": (("i32",), ("i64",)),
    "resume": (("i32",), ("i64",)),
}
_LETTERS: Final = {"i": "i32", "I": "i64"}
_IMPORTS: Final[dict[tuple[str, str], tuple[tuple[str, ...], tuple[str, ...]]]] = {
    ("skerry", "hostcall"): (("i32",) * 8, ("i64",)),
    ("skerry", "take"): (("i32",) * 2, ("i32",)),
    **{
        ("wasi_snapshot_preview1", name): (
            tuple(_LETTERS[letter] for letter in parameters),
            tuple(_LETTERS[letter] for letter in results),
        )
        for name, parameters, results, _ in wasi_functions()
    },
}


def check_module(wasm: bytes) -> Module:
    """The parsed module. Raises: ClientError `GuestModuleInvalid`."""
    module = parse_module(wasm)
    if module.start is not None:
        _refuse("it has a start function; run set-up code from _initialize")
    _check_imports(module)
    _check_exports(module)
    _check_memory(module)
    if len(module.tables) > limits.GUEST_TABLES_MAX:
        _refuse(f"it has {len(module.tables)} tables, more than {limits.GUEST_TABLES_MAX}")
    for table in module.tables:
        if table.minimum > limits.GUEST_TABLE_ELEMENTS_MAX:
            _refuse(f"a table starts with {table.minimum} elements, more than {limits.GUEST_TABLE_ELEMENTS_MAX}")
    return module


def _check_imports(module: Module) -> None:
    for entry in module.imports:
        expected = _IMPORTS.get((entry.module, entry.name))
        if entry.kind != "func" or expected is None:
            _refuse(f"it imports {entry.module}.{entry.name}, which this host does not offer")
        if entry.type is None or (entry.type.params, entry.type.results) != expected:
            _refuse(f"it imports {entry.module}.{entry.name} with another type than guest_sdk/ABI.md gives")


def _check_exports(module: Module) -> None:
    for name, (parameters, results) in _EXPORTS.items():
        found = module.type_of_export(name)
        if found is None or (found.params, found.results) != (parameters, results):
            _refuse(f"it does not export {name} with the type that guest_sdk/ABI.md gives")
    initializer = module.type_of_export("_initialize")
    if initializer is not None and (initializer.params or initializer.results):
        _refuse("its _initialize takes or gives values")


def _check_memory(module: Module) -> None:
    exported = [export for export in module.exports if export.name == "memory" and export.kind == "memory"]
    if len(module.memories) != 1 or len(exported) != 1:
        _refuse("it must have one memory and export it as memory")
    memory = module.memories[0]
    pages_max = limits.GUEST_MEMORY_BYTES_MAX // _PAGE_BYTES
    if memory.minimum > pages_max:
        _refuse(f"its memory starts with {memory.minimum} pages, more than {pages_max}")
    if memory.maximum is None or memory.maximum > pages_max:
        _refuse(f"its memory must declare a maximum of at most {pages_max} pages")


def _refuse(why: str) -> NoReturn:
    raise ClientError("GuestModuleInvalid", f"The module is not a guest of this host: {why}.")
