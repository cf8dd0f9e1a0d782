"""Builds WebAssembly guests from C: the JavaScript engine and the fixtures of the guest ABI.

The engine is QuickJS-NG as it is published in one pinned source distribution, with our C files around it. Nothing
but pip and the `ziglang` package is needed: pip fetches the source distribution (and checks its digest before it
looks into it), zig compiles it. Results are kept in a cache folder under the digest of everything that went into
them (sources, flags, compiler version), so a rebuild happens exactly when one of those changes. An installed
package carries the engine prebuilt, and then nothing here runs a compiler.

Invariants: the same inputs give the same bytes (compilation happens in a folder with relative paths, and debug
information is left out); a file appears in the cache whole or not at all.

Deliberately absent: any other way to reach the network, and a fallback compiler.
"""

import fcntl
import hashlib
import importlib.metadata
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from skerry.bundle.node import Progress
from skerry.errors import SystemFault
from skerry.limits import GUEST_MEMORY_BYTES_MAX

QUICKJS_DISTRIBUTION: Final = "quickjs-ng"
QUICKJS_VERSION: Final = "0.17.0.2"
QUICKJS_SHA256: Final = "43d2e48272208721a7aaea8e3f02d4b9318f12ef20cc4f5421b59d9a470706ef"
QUICKJS_FOLDER: Final = f"quickjs_ng-{QUICKJS_VERSION}/upstream-quickjs/"
QUICKJS_SOURCES: Final = ("dtoa.c", "libunicode.c")  # engine.c and regexp.c include the others

# The parser looks at its depth in a helper, so its recursive functions need frames that count (stack.h).
QUICKJS_FRAMES: Final = (
    ("int js_parse_unary(JSParseState *s, int parse_flags)\n{\n", "STACK_BYTES_PER_EXPRESSION"),
    ("int js_parse_cond_expr(JSParseState *s, int parse_flags)\n{\n", "STACK_BYTES_PER_CONDITIONAL"),
    (
        "int js_parse_statement_or_decl(JSParseState *s,\n" + " " * 50 + "int decl_mask)\n{\n",
        "STACK_BYTES_PER_STATEMENT",
    ),
    ("JSParseExportEnum export_flag,\n" + " " * 47 + "JSFunctionDef **pfd)\n{\n", "STACK_BYTES_PER_FUNCTION"),
)

# Changes to the engine's source: where our allocator (arena.c) goes in, after the engine's own, before its first use;
# the two kinds of things that are made while a script is compiled and that calls touch, functions and atoms; where
# JSON text is read and written (json.c); where the engine throws for a spent budget (budget.c); new functions, whose
# first two properties need no look-up; and async functions, whose promises need no resolving functions (promise.c).
QUICKJS_CHANGES: Final = (
    (
        "\nvoid *js_calloc_rt(JSRuntime *rt, size_t count, size_t size)\n{\n",
        '\n#include "../arena.c"\n\nvoid *js_calloc_rt(JSRuntime *rt, size_t count, size_t size)\n{\n',
    ),
    (
        "fd->byte_code.size;\n\n    b = js_mallocz(ctx, function_size);\n",
        "fd->byte_code.size;\n\n    b = hot_function_mallocz(ctx, fd->source, function_size);\n",
    ),
    (
        "        if (str->atom_type == 0) {\n            p = str;\n",
        "        if (str->atom_type == 0 && hot_may_adopt(str)) {\n            p = str;\n",
    ),
    (
        "            p = js_malloc_rt(rt, sizeof(JSString) +\n",
        "            p = hot_atom_malloc(rt, sizeof(JSString) +\n",
    ),
    (
        "static JSValue JS_ToQuotedString(JSContext *ctx, JSValueConst val1)\n{\n",
        '#include "../json.c"\n\nstatic JSValue JS_ToQuotedString(JSContext *ctx, JSValueConst val1)\n{\n',
    ),
    (
        "        c = string_getc(p, &i);\n        switch(c) {\n        case '\\t':\n            c = 't';\n",
        """        if (json_write_plain_run(b, p, &i))
            goto fail;
        if (i >= p->len)
            break;
        c = string_getc(p, &i);
        switch(c) {
        case '\\t':
            c = 't';
""",
    ),
    (
        "    if (string_buffer_init(s->ctx, b, 48))\n        goto fail;\n\n    p = *pp;\n",
        """    i = json_read_plain_string(s->ctx, pp, s->buf_end, &s->token.u.str.str);
    if (i) {
        s->token.val = TOK_STRING;
        s->token.u.str.sep = '"';
        return i > 0 ? 0 : -1;
    }
    if (string_buffer_init(s->ctx, b, 48))
        goto fail;

    p = *pp;
""",
    ),
    ("js_float64(strtod((const char *)p_start, NULL));\n", "json_number(p_start, p);\n"),
    (
        """    JS_DefinePropertyValue(ctx, func_obj, JS_ATOM_length, js_int32(len),
                           JS_PROP_CONFIGURABLE);
    JS_DefinePropertyValue(ctx, func_obj, JS_ATOM_name,
                           JS_AtomToString(ctx, name), JS_PROP_CONFIGURABLE);
""",
        """    add_new_property(ctx, func_obj, JS_ATOM_length, js_int32(len), JS_PROP_CONFIGURABLE);
    add_new_property(ctx, func_obj, JS_ATOM_name, JS_AtomToString(ctx, name), JS_PROP_CONFIGURABLE);
""",
    ),
    (
        """    promise = JS_NewPromiseCapability(ctx, s->resolving_funcs);
    if (JS_IsException(promise))
        goto fail;

    if (async_func_init(""",
        """    promise = new_pending_promise(ctx);
    if (JS_IsException(promise))
        goto fail;
    s->resolving_funcs[0] = js_dup(promise);

    if (async_func_init(""",
    ),
    (
        """            ret2 = JS_Call(ctx, s->resolving_funcs[1], JS_UNDEFINED,
                           1, vc(&error));
""",
        "            ret2 = settle_promise(ctx, s->resolving_funcs[0], error, true);\n",
    ),
    (
        """            ret2 = JS_Call(ctx, s->resolving_funcs[0], JS_UNDEFINED,
                           1, vc(&value));
""",
        "            ret2 = settle_promise(ctx, s->resolving_funcs[0], value, false);\n",
    ),
    (
        "    if (js_check_stack_overflow(rt, alloca_size))\n        return JS_ThrowStackOverflow(caller_ctx);\n",
        """    if (is_stack_low(alloca_size))
        return JS_CallInternal_deep(caller_ctx, func_obj, this_obj, new_target, argc, argv, flags);
    if (js_check_stack_overflow(rt, alloca_size))
        return JS_ThrowStackOverflow(caller_ctx);
""",
    ),
    (
        '    JS_ThrowInternalError(ctx, "interrupted");\n',
        '    JS_ThrowInternalError(ctx, "interrupted");\n    note_spent_budget(ctx);\n',
    ),
)

# Functions that recurse and so go on on the deep stack (stack.h), as (name, condition, the runtime). The parser and the
# compiler of patterns begin there, as each of their steps takes much.
QUICKJS_DEEP: Final = (
    ("JS_CallInternal", "", "caller_ctx->rt"),  # its condition: above
    ("js_call_c_function", "is_stack_low(0)", "ctx->rt"),
    ("js_call_bound_function", "is_stack_low(sizeof(JSValue) * argc)", "ctx->rt"),
    ("async_func_resume", "is_stack_low(0)", "ctx->rt"),
    ("JS_FlattenIntoArray", "is_stack_low(0)", "ctx->rt"),
    ("json_parse_value", "is_stack_low(0)", "s->ctx->rt"),
    ("internalize_json_property", "is_stack_low(0)", "ctx->rt"),
    ("js_json_to_str", "is_stack_low(0)", "ctx->rt"),
    ("js_compile_regexp", "is_on_small_stack()", "ctx->rt"),
    ("__JS_EvalInternal", "is_on_small_stack()", "ctx->rt"),
)

# The linker's C stack, below the data: overflowing it traps. The engine's own limits and its deep stack: stack.h.
C_STACK_BYTES: Final = 80 * 1024
C_GUEST_STACK_BYTES: Final = 256 * 1024

# WebAssembly as the host runs it: no SIMD, no reference types, no multi-value, nothing newer.
TARGET_FLAGS: Final = (
    "-target",
    "wasm32-wasi",
    "-mcpu=mvp+bulk_memory+sign_ext+nontrapping_fptoint+mutable_globals",
    "-mexec-model=reactor",
    "-fno-sanitize=undefined",
    "-s",
    f"-Wl,--max-memory={GUEST_MEMORY_BYTES_MAX}",
)
ENGINE_FLAGS: Final = (
    f"-Wl,-z,stack-size={C_STACK_BYTES}",
    "-Wl,--export=skerry_steps_used",  # budget.c
    "-O3",
    "-DNDEBUG",
    "-D_GNU_SOURCE",
    "-D_WASI_EMULATED_SIGNAL",
    "-D_WASI_EMULATED_PROCESS_CLOCKS",
    "-lwasi-emulated-signal",
)
C_GUEST_FLAGS: Final = (
    f"-Wl,-z,stack-size={C_GUEST_STACK_BYTES}",
    "-O2",
    "-DNDEBUG",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wno-unused-parameter",
    "-Wno-missing-field-initializers",
)

_PACKAGE: Final = Path(__file__).resolve().parent
_REPOSITORY: Final = _PACKAGE.parents[2]
_PREBUILT: Final = _PACKAGE / "_built" / "engine.wasm"
_ENGINE_SOURCES: Final = _REPOSITORY / "guest_sdk" / "javascript" / "engine"
_C_SDK: Final = _REPOSITORY / "guest_sdk" / "c"


def engine_wasm(
    cache_dir: Path | None = None, *, sdist: Path | None = None, progress: Progress = lambda _: None
) -> bytes:
    """The bytes of the JavaScript engine guest: prebuilt where the package carries it, else from the cache or built.

    Raises: SystemFault `EngineBuildFailed` when a source or the compiler is missing or fails.
    """
    if _PREBUILT.is_file():
        return _PREBUILT.read_bytes()
    return build_engine(cache_dir, sdist=sdist, progress=progress).read_bytes()


def build_engine(
    cache_dir: Path | None = None, *, sdist: Path | None = None, progress: Progress = lambda _: None
) -> Path:
    """The path of the built engine in the cache; builds it first where it is not there.

    `sdist` is the pinned source distribution, for builds without a network. Raises: SystemFault `EngineBuildFailed`.
    """
    cache = cache_dir or default_cache_dir()
    sources = _read_sources(_ENGINE_SOURCES)
    flags = (*ENGINE_FLAGS, *TARGET_FLAGS)
    pinned = QUICKJS_SHA256 + repr((QUICKJS_FRAMES, QUICKJS_CHANGES, QUICKJS_DEEP))
    built = cache / "engine" / f"{_digest(sources, flags, pinned)}.wasm"
    if not built.is_file():
        progress("building the JavaScript engine (once; about a minute)")
        with _locked(cache / "engine.lock"):
            if not built.is_file():
                upstream = _read_upstream(sdist or _download_sdist(cache))
                upstream["quickjs.c"] = _with_deep_calls(
                    _with_changes(_with_frames(upstream["quickjs.c"].decode()))
                ).encode()
                files = {**{f"upstream/{name}": text for name, text in upstream.items()}, **sources}
                units = ("engine.c", "regexp.c", *(f"upstream/{name}" for name in QUICKJS_SOURCES), "hot_memory.c")
                _compile(files, units, ("-Iupstream", *flags), built, cache)
    return built


def build_c_guest(source: str, cache_dir: Path | None = None, *, extra_flags: Sequence[str] = ()) -> bytes:
    """The module compiled from one C source that may include `skerry.h`.

    Raises: SystemFault `EngineBuildFailed` with the compiler's message.
    """
    cache = cache_dir or default_cache_dir()
    files = {"guest.c": source.encode(), **_read_sources(_C_SDK)}
    flags = (*C_GUEST_FLAGS, *TARGET_FLAGS, *extra_flags)
    built = cache / "c_guest" / f"{_digest(files, flags, '')}.wasm"
    if not built.is_file():
        _compile(files, ("guest.c",), ("-I.", *flags), built, cache)
    return built.read_bytes()


def default_cache_dir() -> Path:
    """The cache folder: inside a checkout its `.cache/skerry`, for an installed package the user's cache folder."""
    if _ENGINE_SOURCES.is_dir():
        return _REPOSITORY / ".cache" / "skerry"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "skerry"


def _read_sources(folder: Path) -> dict[str, bytes]:
    if not folder.is_dir():
        raise SystemFault(
            "EngineBuildFailed", f"No guest sources at {folder}, and the package carries no built engine."
        )
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.suffix in (".c", ".h")}


def _digest(files: Mapping[str, bytes], flags: Sequence[str], pinned: str) -> str:
    parts = [*flags, pinned, _zig_version()]
    parts += [f"{name}:{hashlib.sha256(text).hexdigest()}" for name, text in sorted(files.items())]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def _zig_version() -> str:
    try:
        return importlib.metadata.version("ziglang")
    except importlib.metadata.PackageNotFoundError as error:
        raise SystemFault(
            "EngineBuildFailed", "Building a guest from C needs the `ziglang` package: install it."
        ) from error


def _download_sdist(cache: Path) -> Path:
    target = cache / "sdist"
    name = f"{QUICKJS_DISTRIBUTION.replace('-', '_')}-{QUICKJS_VERSION}.tar.gz"
    if not (target / name).is_file():
        target.mkdir(parents=True, exist_ok=True)
        pinned = target / "requirements.txt"  # pip checks the digest before it looks into the archive
        pinned.write_text(f"{QUICKJS_DISTRIBUTION}=={QUICKJS_VERSION} --hash=sha256:{QUICKJS_SHA256}\n")
        options = ["--no-deps", "--no-binary", ":all:", "--require-hashes", "--dest", str(target), "-r", str(pinned)]
        _run([sys.executable, "-m", "pip", "download", "--quiet", *options], target, os.environ)
    return target / name


def _read_upstream(sdist: Path) -> dict[str, bytes]:
    """The engine's C files out of the source distribution, its digest checked; nothing is unpacked to disk."""
    if not sdist.is_file() or hashlib.sha256(sdist.read_bytes()).hexdigest() != QUICKJS_SHA256:
        raise SystemFault(
            "EngineBuildFailed", f"{sdist} is not the pinned {QUICKJS_DISTRIBUTION} {QUICKJS_VERSION} sources."
        )
    with tarfile.open(sdist) as archive:
        return dict(_upstream_files(archive))


def _with_frames(source: str) -> str:
    for opening, size in QUICKJS_FRAMES:
        before, found, after = source.partition(opening)
        if not found or opening in after:
            raise SystemFault(
                "EngineBuildFailed", f"The engine's parser is not the one whose frames are known: {opening!r}."
            )
        source = f"{before}{opening}    STACK_FRAME({size});\n{after}"
    return source


def _with_changes(source: str) -> str:
    for found, changed in QUICKJS_CHANGES:
        if source.count(found) != 1:
            raise SystemFault("EngineBuildFailed", f"The engine's allocator is not the one that is known: {found!r}.")
        source = source.replace(found, changed)
    return source


def _with_deep_calls(source: str) -> str:
    for name, condition, runtime in QUICKJS_DEEP:
        heads = list(re.finditer(rf"^static (\w+) {name}\(([^)]*)\)\n\{{\n", source, re.MULTILINE))
        if len(heads) != 1:
            raise SystemFault("EngineBuildFailed", f"The engine's functions are not those that are known: {name}.")
        kind, parameters = heads[0].groups()
        arguments = ", ".join(re.findall(r"\w+(?=,|$)", parameters))
        wrapper = f"ON_DEEP_STACK({kind}, {name}, {runtime}, ({parameters}), ({arguments}))\n\n"
        switch = f"    if ({condition})\n        return {name}_deep({arguments});\n" if condition else ""
        source = f"{source[: heads[0].start()]}{wrapper}{heads[0][0]}{switch}{source[heads[0].end() :]}"
    return source


def _upstream_files(archive: tarfile.TarFile) -> Iterator[tuple[str, bytes]]:
    for member in archive:
        name = member.name.removeprefix(QUICKJS_FOLDER)
        content = archive.extractfile(member) if member.isfile() else None
        if content is not None and name != member.name and "/" not in name and name.endswith((".c", ".h")):
            yield name, content.read()


def _compile(files: Mapping[str, bytes], units: Sequence[str], flags: Sequence[str], built: Path, cache: Path) -> None:
    built.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        folder = Path(scratch)
        for name, text in files.items():
            path = folder / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(text)
        environment = {
            "PATH": os.environ.get("PATH", ""),
            "HOME": scratch,
            "ZIG_GLOBAL_CACHE_DIR": str(cache / "zig"),
            "ZIG_LOCAL_CACHE_DIR": str(cache / "zig"),
        }
        _run([sys.executable, "-m", "ziglang", "cc", *flags, *units, "-o", "out.wasm"], folder, environment)
        os.replace(folder / "out.wasm", built)


def _run(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> None:
    ran = subprocess.run(command, cwd=folder, env=dict(environment), capture_output=True, text=True, check=False)
    if ran.returncode != 0:
        raise SystemFault(
            "EngineBuildFailed", f"`{' '.join(command[1:4])}` failed:\n{(ran.stderr or ran.stdout)[-4000:]}"
        )


@contextmanager
def _locked(path: Path) -> Generator[None]:
    """Lets one process at a time build; the lock goes with the process."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
