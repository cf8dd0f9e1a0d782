"""Modules that pass the host's check and cost a compiler much: each a function from a size to the module's bytes."""

from collections.abc import Callable

from skerry.bundle.wasm_binary import encode_section, encode_unsigned

_MAGIC = b"\0asm\1\0\0\0"
_TYPES = bytes.fromhex("04 60017f017e 60000 17f 60000 17e 600000".replace(" ", ""))  # i32->i64, ->i32, ->i64, ->
_ABI = [(b"skerry_abi_version", 1), (b"describe", 2), (b"invoke", 0), (b"resume", 0)]
_ABI_BODIES = [b"\0\x41\1\x0b", b"\0\x42\0\x0b", b"\0\x42\0\x0b", b"\0\x42\0\x0b"]


def module(bodies: list[bytes]) -> bytes:
    """A guest whose further functions, () -> (), have these bodies (locals, code, end)."""
    types = [kind for _, kind in _ABI] + [3] * len(bodies)
    exports = b"".join(
        encode_unsigned(len(name)) + name + b"\0" + encode_unsigned(index) for index, (name, _) in enumerate(_ABI)
    )
    codes = b"".join(encode_unsigned(len(body)) + body for body in [*_ABI_BODIES, *bodies])
    sections = [
        (1, _TYPES),
        (3, encode_unsigned(len(types)) + bytes(types)),
        (5, b"\1\1\1\2"),
        (7, encode_unsigned(len(_ABI) + 1) + exports + b"\6memory\2\0"),
        (10, encode_unsigned(len(types)) + codes),
    ]
    return _MAGIC + b"".join(encode_section(number, payload) for number, payload in sections)


def many_functions(count: int) -> bytes:
    return module([b"\0\x0b"] * count)


def one_long_function(additions: int) -> bytes:
    """Values that depend on all before them, through loads and stores."""
    step = b"\x41\0\x41\0\x28\2\0\x41\7\x6a\x36\2\0"
    return module([b"\0" + step * additions + b"\x0b"])


def nested_blocks(depth: int) -> bytes:
    return module([b"\0" + b"\2\x40" * depth + b"\x0b" * depth + b"\x0b"])


def nested_loops_of_values(depth: int) -> bytes:
    """Loops in loops, each of which changes every local: much for whoever follows values through a function."""
    locals_count = 200
    change = b"".join(
        b"\x20"
        + encode_unsigned(n)
        + b"\x20"
        + encode_unsigned((n + 1) % locals_count)
        + b"\x6a\x21"
        + encode_unsigned(n)
        for n in range(locals_count)
    )
    code = (b"\3\x40" + change + b"\x20\0\x0d\0") * depth
    return module([b"\1" + encode_unsigned(locals_count) + b"\x7f" + code + b"\x0b" * depth + b"\x0b"])


def wide_tables(tables: int) -> bytes:
    """Jump tables of the largest size the format allows."""
    targets = 65_000
    table = b"\2\x40\x41\0\x0e" + encode_unsigned(targets) + b"\0" * targets + b"\0\x0b"
    return module([b"\0" + table * tables + b"\x0b"])


def many_locals(functions: int) -> bytes:
    body = b"\1" + encode_unsigned(49_000) + b"\x7e\x0b"
    return module([body] * functions)


HOSTILE: dict[str, Callable[[int], bytes]] = {
    shape.__name__: shape
    for shape in (
        many_functions,
        one_long_function,
        nested_blocks,
        nested_loops_of_values,
        wide_tables,
        many_locals,
    )
}
