"""Attacks with uploads: archives, digests, modules and descriptions that no deployment takes. The version before stays live."""

import io
import zipfile
from collections.abc import Callable
from typing import Any

import wasmtime

from skerry import limits
from skerry.bundle.bundle_file import SOURCE_MAP, make_bundle, read_bundle
from tests.fixtures.bundles import wrap
from tests.hostile.case import Case, Outcome
from tests.hostile.cases_http import refused
from tests.hostile.cases_script import fails
from tests.hostile.ground import Ground, outcome_of

WALL = "bundles"
JAIL = "compiling and image building"
_EXPORTS = """(func (export "skerry_abi_version") (result i32) i32.const 1)
  (func (export "describe") (result i64) i64.const 0)
  (func (export "invoke") (param i32) (result i64) i64.const 0)
  (func (export "resume") (param i32) (result i64) i64.const 0)"""


def _module(text: str = "", memory: str = '(memory (export "memory") 1 16)') -> bytes:
    return bytes(wasmtime.wat2wasm(f"(module {text} {memory} {_EXPORTS})"))


def _number(value: int) -> bytes:
    """LEB128."""
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def _custom(size: int, name: bytes = b"padding") -> bytes:
    content = _number(len(name)) + name + bytes(size)
    return _module() + b"\0" + _number(len(content)) + content


def _described(text: str) -> bytes:
    data = text.replace("\\", "\\\\").replace('"', '\\"')
    packed = len(text) << 32 | 1024
    return bytes(
        wasmtime.wat2wasm(
            f'(module (memory (export "memory") 64 64) (data (i32.const 1024) "{data}") '
            + _EXPORTS.replace("i64.const 0", f"i64.const {packed}", 1)
            + ")"
        )
    )


def _function(name: str) -> str:
    return f'{{"name":"{name}","kind":"query","visibility":"public","args":{{"type":"any"}},"returns":null}}'


def _zip(change: Callable[[list[zipfile.ZipInfo]], None], **how: Any) -> bytes:
    """A right bundle, written once more with a change."""
    right = zipfile.ZipFile(io.BytesIO(wrap(_module())))
    infos = right.infolist()
    contents = {info.filename: right.read(info) for info in infos}
    change(infos)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for info in infos:
            archive.writestr(info, contents.get(info.orig_filename, b"x"), **how)
        archive.comment = b""
    return out.getvalue()


def _renamed(name: str) -> bytes:
    def change(infos: list[zipfile.ZipInfo]) -> None:
        infos.append(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)))

    return _zip(change)


_INVALID = "BundleInvalid"
_ARCHIVES: list[tuple[str, Callable[[], bytes], Outcome]] = [
    ("nothing", lambda: b"", refused(400, _INVALID, "it is too short")),
    ("no archive", lambda: b"x" * 1000, refused(400, _INVALID, "it does not end as a zip without a comment")),
    ("a name that leaves the folder", lambda: _renamed("sources/../../x"), refused(400, _INVALID, "that no bundle has")),
    ("an absolute name", lambda: _renamed("/etc/passwd"), refused(400, _INVALID, "that no bundle has")),
    ("a name with a backslash", lambda: _renamed("sources\\..\\x"), refused(400, _INVALID, "that no bundle has")),
    ("a name of look-alikes", lambda: _renamed("im\u0430ge.wasm"), refused(400, _INVALID, "that no bundle has")),
    ("compressed entries", lambda: _zip(lambda _: None, compress_type=zipfile.ZIP_DEFLATED), refused(400, _INVALID, "its entries are compressed")),
    ("bytes in front", lambda: b"#!/bin/sh\n" + wrap(_module()), refused(400, _INVALID, "it is not laid out as")),
    ("entries out of order", lambda: _zip(lambda infos: infos.reverse()), refused(400, _INVALID, "it is not laid out as")),
    ("a link", lambda: _zip(lambda infos: setattr(infos[0], "external_attr", 0o120777 << 16)), refused(400, _INVALID, "it is not laid out as")),
    ("another date", lambda: _zip(lambda infos: setattr(infos[0], "date_time", (2026, 1, 1, 0, 0, 0))), refused(400, _INVALID, "it is not laid out as")),
    ("an extra field", lambda: _zip(lambda infos: setattr(infos[0], "extra", b"\x99\x99\x04\x00abcd")), refused(400, _INVALID, "it is not laid out as")),
    ("a digest of nothing", lambda: wrap(_module()).replace(b"digest", b"digesT"), refused(400, _INVALID, "")),
]  # fmt: skip

_MODULE = "GuestModuleInvalid"
_MODULES: list[tuple[str, str, Callable[[], bytes], Outcome]] = [
    ("a section of 50 MB that means nothing", WALL, lambda: _custom(50_000_000), refused(400, "DescriptionInvalid", "")),
    ("names that are no UTF-8", WALL, lambda: _custom(0, b"\xff\xfe"), refused(400, _MODULE, "")),
    ("100,001 functions", JAIL, lambda: _module("(func)" * 100_001), refused(400, _MODULE, "")),
    ("60,000 locals", JAIL, lambda: _module(f"(func (local {'i64 ' * 60_000}))"), refused(400, _MODULE, "")),
    ("50,000 locals", JAIL, lambda: _module(f"(func (local {'i64 ' * 50_000}))"), refused(400, "DescriptionInvalid", "")),
    ("a branch to 300,000 places", JAIL, lambda: _module(f"(func (param i32) (block (br_table {'0 ' * 300_000} (local.get 0))))"), refused(400, _MODULE, "exceeds the implementation limit")),
    ("5,000 blocks in each other", JAIL, lambda: _module(f"(func {'block ' * 5_000} {'end ' * 5_000})"), refused(400, "DescriptionInvalid", "")),
    ("10,001 types", WALL, lambda: _module("".join(f"(type (func (param {'i32 ' * (n % 100)} {'i64 ' * (n // 100)})))" for n in range(10_001))), refused(400, _MODULE, "")),
    ("1,001 globals", WALL, lambda: _module("(global i32 (i32.const 0))" * 1_001), refused(400, _MODULE, "")),
    ("101 exports", WALL, lambda: _module("".join(f'(func (export "f{n}"))' for n in range(101))), refused(400, _MODULE, "")),
    ("data outside memory", WALL, lambda: _module('(data (i32.const 65535) "ab")'), refused(400, "ModuleLoadFailed", "")),
    ("elements outside the table", WALL, lambda: _module("(table 1 funcref) (func $f) (elem (i32.const 5) $f)"), refused(400, "ModuleLoadFailed", "")),
    ("vectors of nobody's", WALL, lambda: _module("(func (result v128) (i32x4.relaxed_trunc_f32x4_s (v128.const i32x4 0 0 0 0)))"), refused(400, _MODULE, "")),
    ("exceptions", WALL, lambda: _module("(tag (param i32)) (func (throw 0 (i32.const 1)))"), refused(400, _MODULE, "")),
    ("garbage collection", WALL, lambda: _module("(type (struct (field i32)))"), refused(400, _MODULE, "")),
    ("a tail call", WALL, lambda: _module("(func $f (return_call $f))"), refused(400, _MODULE, "")),
    ("a wait on shared memory", WALL, lambda: _module("(func (result i32) (memory.atomic.wait32 (i32.const 0) (i32.const 0) (i64.const -1)))"), refused(400, _MODULE, "")),
]  # fmt: skip

_TOO_MANY = ",".join(_function(f"f:x{n}") for n in range(limits.FUNCTIONS_MAX + 1))
_DESCRIPTION = "DescriptionInvalid"
_DESCRIPTIONS: list[tuple[str, str]] = [
    ("16,385 functions", f'{{"abi":1,"functions":[{_TOO_MANY}]}}'),
    ("a function's name with a zero byte", f'{{"abi":1,"functions":[{_function("f:x" + chr(92) + "u0000")}]}}'),
    ("a function's name that leaves the folder", f'{{"abi":1,"functions":[{_function("../../f:x")}]}}'),
    ("a function's name of look-alikes", f'{{"abi":1,"functions":[{_function(chr(92) + "u0430live:ping")}]}}'),
    ("one function twice", f'{{"abi":1,"functions":[{_function("f:x")},{_function("f:x")}]}}'),
    ("a kind of nobody's", f'{{"abi":1,"functions":[{_function("f:x").replace("query", "root")}]}}'),
    ("functions that are an object", '{"abi":1,"functions":{"length":1}}'),
    ("a million lists", '{"abi":1,"functions":[' + "[]," * 999_999 + "[]]}"),
    ("an ABI of 1e999", '{"abi":1e999,"functions":[]}'),
    ("a validator of 5,000 levels", f'{{"abi":1,"functions":[{_function("f:x").replace(chr(34) + "any" + chr(34), "[" * 5000 + "]" * 5000)}]}}'),
]  # fmt: skip


def _deploy(raw: Callable[[], bytes], **headers: str) -> Callable[[Ground], Outcome]:
    def run(ground: Ground) -> Outcome:
        before = _version(ground)
        outcome = outcome_of(ground.deploy("script", raw(), **headers))
        assert _version(ground) == before
        return outcome

    return run


def _version(ground: Ground) -> Any:
    header = {"Authorization": f"Convex {ground.keys['script']}"}
    return ground.ask("script", "GET", "/api/skerry/versions", None, header).json()


def _by_neighbour(ground: Ground) -> Outcome:
    header = {"Authorization": f"Convex {ground.keys['neighbour']}"}
    return outcome_of(ground.deploy("script", wrap(_module()), **header))


_MAP = b'{"version":3,"sources":["%b"],"mappings":"%b"}'
_PLAIN = fails("Uncaught Error: plain\n")
_MAPS: list[tuple[str, Callable[[], bytes], Outcome]] = [
    ("fifteen million lines", lambda: _MAP % (b"a", b";" * 15_000_000), _PLAIN),
    ("three million places", lambda: _MAP % (b"a", b"AAAA," * 3_000_000 + b"AAAA"), _PLAIN),
    ("five million lists", lambda: b'{"version":3,"sources":["a"],"mappings":"","x":[' + b"[]," * 5_000_000 + b"[]]}", _PLAIN),
    ("numbers past 32 bits", lambda: _MAP % (b"a", b"9" * 1000 + b"A"), _PLAIN),
    ("no map", lambda: b"nothing", _PLAIN),
]  # fmt: skip


def _mapped(raw: Callable[[], bytes]) -> Callable[[Ground], Outcome]:
    """What a trace of the attacked deployment reads like with another source map."""

    def run(ground: Ground) -> Outcome:
        entries = {**read_bundle(ground.bundles["script"]).entries, SOURCE_MAP: raw()}
        try:
            assert ground.deploy("script", make_bundle(entries).to_bytes()).status == 200
            return ground.call("script", "query", "errors:run", {"what": "codeRetry"})
        finally:
            assert ground.deploy("script", ground.bundles["script"]).status == 200

    return run


_DIGESTS: list[tuple[str, str, Outcome]] = [
    ("another digest", "sha-256=:" + "A" * 43 + "=:", refused(400, "DigestMismatch", "")),
    ("another algorithm", "sha-512=:AAAA:", refused(400, "DigestRequired", "")),
    ("a digest of one byte", "sha-256=:AA==:", refused(400, "DigestMismatch", "")),
    ("no digest", "", refused(400, "DigestRequired", "")),
]

CASES = [
    *(Case(f"archive: {name}", WALL, name, _deploy(raw), want) for name, raw, want in _ARCHIVES),
    *(Case(f"upload: {name}", WALL, digest, _deploy(lambda: wrap(_module()), **{"Content-Digest": digest}), want) for name, digest, want in _DIGESTS),
    *(Case(f"source map: {name}", "time and memory of a call", name, _mapped(raw), want) for name, raw, want in _MAPS),
    Case("upload: with the neighbour's key", "administration", "deploys to script", _by_neighbour, refused(403, "BadDeployKey", "")),
    *(Case(f"module: {name}", wall, name, _deploy(lambda raw=raw: wrap(raw())), want) for name, wall, raw, want in _MODULES),
    *(
        Case(f"describe: {name}", WALL, name, _deploy(lambda text=text: wrap(_described(text))), refused(400, _DESCRIPTION, ""))
        for name, text in _DESCRIPTIONS
    ),
]  # fmt: skip
