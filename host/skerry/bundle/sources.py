"""Which files of an app are its modules, and under which names they are called.

An app is a folder. Its functions folder is `convex/`, or what `functions` in `convex.json` names. Every code file in
it is an entry module, called by its path without the extension, except what Convex's own tools leave out:
`_generated/`, names that begin with `.` or `#` or hold a space or more than one dot (tests), other kinds of files,
and folders of nested components. `schema`, `auth.config` and `convex.config` are modules too: what they declare is
read from them.

Refused, with a sentence that says what to change: module paths that could not be called, two files for one module and
`_deps/` (kept for bundlers). Modules that ask for the Node runtime are left out, and calling them is refused.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import orjson

from skerry.errors import ClientError
from skerry.limits import (
    APP_ENTRY_MODULES_MAX,
    CONVEX_JSON_BYTES_MAX,
    MODULE_PATH_COMPONENT_CHARS_MAX,
    SOURCE_FILE_BYTES_MAX,
)

CODE_EXTENSIONS: Final = frozenset({".ts", ".tsx", ".mts", ".cts", ".js", ".jsx", ".mjs", ".cjs"})
# Two dots in the name, and still modules: at the top of the functions folder only.
_DOTTED_MODULES: Final = frozenset({"auth.config", "convex.config"})
# What describes the app must load where the app does.
_ISOLATE_ONLY: Final = frozenset({"schema", "http", "crons", "auth.config", "convex.config"})
_COMPONENT: Final = re.compile(r"[A-Za-z0-9_.]+")
_TOKEN_BEFORE_DIRECTIVES: Final = re.compile(r"\s+|//[^\n]*|/\*.*?\*/|;", re.DOTALL)
_DIRECTIVE: Final = re.compile(r"""(?:"([^"\\\n]*)"|'([^'\\\n]*)')""")


@dataclass(frozen=True, slots=True)
class EntryModule:
    """One module of an app: the name it is called by (`users/admin`) and its file, relative to the app's folder, with
    `/`.
    """

    name: str
    path: str


@dataclass(frozen=True, slots=True)
class AppSources:
    """An app's folder, its functions folder relative to it, and its entry modules in the order of their names.

    Shape: `node_modules` names the modules that ask for the Node runtime: they are left out of the image, and calling
    one of their functions says so.
    """

    root: Path
    functions_folder: str
    entries: tuple[EntryModule, ...]
    node_modules: tuple[str, ...] = ()


def find_sources(root: Path) -> AppSources:
    """The entry modules of the app in the folder `root`.

    Raises: ClientError `AppInvalid`.
    Limits: APP_ENTRY_MODULES_MAX, MODULE_PATH_COMPONENT_CHARS_MAX, SOURCE_FILE_BYTES_MAX, CONVEX_JSON_BYTES_MAX.
    """
    # Not resolved through links inside: a linked file keeps the name it is linked under.
    root = root.resolve()
    if not root.is_dir():
        raise ClientError("AppInvalid", f"{root} is not a folder.")
    functions_folder = _functions_folder(root)
    folder = root / functions_folder
    if not folder.is_dir():
        raise ClientError(
            "AppInvalid",
            f"{root} has no functions folder {functions_folder}/: make it, or name another in convex.json under "
            "`functions`.",
        )
    entries: dict[str, EntryModule] = {}
    node_modules: set[str] = set()
    for relative in _code_files(folder):
        name = _module_name(relative, functions_folder)
        path = f"{functions_folder}/{relative}"
        if name in entries:
            raise ClientError(
                "AppInvalid", f"{path} and {entries[name].path} would both be the module {name}: rename one of them."
            )
        if len(entries) >= APP_ENTRY_MODULES_MAX:
            raise ClientError("AppInvalid", f"{functions_folder}/ has more than {APP_ENTRY_MODULES_MAX} modules.")
        entries[name] = EntryModule(name, path)
        if _asks_for_node(folder / relative, path):
            if name in _ISOLATE_ONLY:
                raise ClientError("AppInvalid", f'{path} cannot run in Node: remove the directive "use node".')
            node_modules.add(name)
    served = tuple(entries[name] for name in sorted(entries) if name not in node_modules)
    return AppSources(root, functions_folder, served, tuple(sorted(node_modules)))


def uses_node_runtime(text: str) -> bool:
    """Whether the directives that begin a module ask for the Node runtime."""
    at = 0
    while True:
        skipped = _TOKEN_BEFORE_DIRECTIVES.match(text, at)
        if skipped:
            at = skipped.end()
            continue
        directive = _DIRECTIVE.match(text, at)
        if directive is None:
            return False
        if (directive[1] or directive[2]) == "use node":
            return True
        at = directive.end()


def _functions_folder(root: Path) -> str:
    file = root / "convex.json"
    if not file.is_file():
        return "convex"
    if file.stat().st_size > CONVEX_JSON_BYTES_MAX:
        raise ClientError("AppInvalid", f"convex.json is larger than {CONVEX_JSON_BYTES_MAX} bytes.")
    try:
        parsed: Any = orjson.loads(file.read_bytes())
    except orjson.JSONDecodeError as error:
        raise ClientError("AppInvalid", f"convex.json is not JSON: {error}") from None
    if not isinstance(parsed, dict):
        raise ClientError("AppInvalid", "convex.json must hold an object.")
    chosen = cast("dict[str, Any]", parsed).get("functions", "convex")
    inside = os.path.normpath(chosen) if isinstance(chosen, str) and chosen else ".."
    if inside in (".", "..") or inside.startswith("../") or os.path.isabs(inside):
        raise ClientError("AppInvalid", "`functions` in convex.json must name a folder inside the app's folder.")
    return inside


def _code_files(folder: Path) -> list[str]:
    found: list[str] = []
    for here, folders, files in os.walk(folder, followlinks=False):
        inside = Path(here).relative_to(folder).as_posix()
        prefix = "" if inside == "." else inside + "/"
        if prefix and any(name.startswith("convex.config.") for name in files):
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not _is_skipped_folder(name, at_top=not prefix))
        found.extend(prefix + name for name in sorted(files) if _is_module_file(name, at_top=not prefix))
    return found


def _is_skipped_folder(name: str, *, at_top: bool) -> bool:
    return name.startswith((".", "#")) or " " in name or name == "node_modules" or (at_top and name == "_generated")


def _is_module_file(name: str, *, at_top: bool) -> bool:
    stem, extension = os.path.splitext(name)
    if extension not in CODE_EXTENSIONS or name.startswith((".", "#")) or " " in name:
        return False
    return "." not in stem or (at_top and stem in _DOTTED_MODULES)


def _module_name(relative: str, functions_folder: str) -> str:
    name = os.path.splitext(relative)[0]
    if name.startswith(("_deps/", "_system/")):
        raise ClientError(
            "AppInvalid",
            f"{functions_folder}/{relative}: the folder {name.partition('/')[0]}/ is reserved, move the file.",
        )
    for component in name.split("/"):
        if len(component) > MODULE_PATH_COMPONENT_CHARS_MAX:
            raise ClientError(
                "AppInvalid",
                f"{functions_folder}/{relative}: a part of a module's path may have "
                f"{MODULE_PATH_COMPONENT_CHARS_MAX} characters.",
            )
        if not _COMPONENT.fullmatch(component) or not any(c.isalnum() for c in component):
            raise ClientError(
                "AppInvalid",
                f"{functions_folder}/{relative}: rename it, a module's path is made of letters, digits, underscores "
                "and periods.",
            )
    return name


def _asks_for_node(file: Path, path: str) -> bool:
    if file.stat().st_size > SOURCE_FILE_BYTES_MAX:
        raise ClientError("AppInvalid", f"{path} is larger than {SOURCE_FILE_BYTES_MAX} bytes.")
    return uses_node_runtime(file.read_text("utf-8", errors="replace").removeprefix("\ufeff"))
