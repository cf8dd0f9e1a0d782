"""The prelude: the script that gives an engine its globals, bundled from guest_sdk/javascript/prelude.

An installed package carries it built. In a checkout it is bundled at first use, from the packages its own lock pins,
into the cache under the digest of everything it is made from.
"""

import hashlib
import os
import shutil
from pathlib import Path
from typing import Final

from skerry.bundle.folders import cache_folder, guest_sdk_folder
from skerry.bundle.node import Progress, find_node, install_packages, run_node
from skerry.errors import SystemFault

PRELUDE_NAME: Final = "prelude.js"

_BUILT: Final = Path(__file__).resolve().parent / "_built" / "prelude.js"


def prelude_script(progress: Progress) -> bytes:
    """The prelude's source text (UTF-8).

    Raises: ClientError `NodeNotFound`, `NpmInstallFailed`; SystemFault `PreludeBuildFailed`.
    """
    if _BUILT.is_file():
        return _BUILT.read_bytes()
    source = guest_sdk_folder() / "javascript" / "prelude"
    files = {name: source / name for name in ("package.json", "package-lock.json", "build.mjs")}
    files |= {
        path.relative_to(source).as_posix(): path for path in sorted((source / "src").rglob("*")) if path.is_file()
    }
    digest = hashlib.sha256()
    for name, path in files.items():
        digest.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    built = cache_folder() / "prelude" / f"{digest.hexdigest()[:24]}.js"
    if not built.is_file():
        progress("bundling the engine's prelude (once)")
        _bundle(progress, source, files, built)
    return built.read_bytes()


def _bundle(progress: Progress, source: Path, files: dict[str, Path], built: Path) -> None:
    node = find_node(progress)
    packages = install_packages(node, source, "prelude-packages")
    folder = built.with_suffix(f".build-{os.getpid()}")  # another process may be building the same
    shutil.rmtree(folder, ignore_errors=True)
    for name, path in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / name)
    (folder / "node_modules").symlink_to(packages / "node_modules", target_is_directory=True)
    output = folder / "prelude.js"
    said = run_node(node, [str(folder / "build.mjs"), str(output)], folder)
    if not output.is_file() or said is not None:
        raise SystemFault("PreludeBuildFailed", f"The engine's prelude could not be bundled: {said}")
    output.replace(built)
    shutil.rmtree(folder, ignore_errors=True)
