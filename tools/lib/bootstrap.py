"""Makes the project's own environment, `.venv`, from the lock files: once, and again when the lock changes.

Standard library only: this runs on whatever Python 3.11+ the machine has, before anything is installed.
tools/lib/env.sh calls it when its own quick check fails.

- **Where pip comes from.** Debian splits `ensurepip` off into python3-venv, so a Python without it is the normal case.
  Then the environment is made without pip and the packages are installed by the first of: a pip of another
  interpreter, the pip wheel that Debian keeps for itself, a pip wheel from the configured index (its hash is in
  requirements-pip.lock), and, as root, `apt-get install`. If none works, one sentence says which command mends it.
- **Node.** A `node` on the PATH is used if it is new enough; otherwise one is installed from its wheel.
- **Interrupted or doubled.** One set-up runs at a time (a file lock; others wait). The stamp `.venv/.skerry-ready`, a
  copy of the lock file, is written last: an environment without it is thrown away and made anew.

Deliberately absent: a build of the package itself. A `.pth` file puts `host/` on the path, so edits count at once.
"""

import fcntl
import hashlib
import importlib.util
import json
import math
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / ".skerry-ready"
LOCK = ROOT / "requirements.lock"
NODE_LOCK = ROOT / "requirements-node.lock"
PIP_LOCK = ROOT / "requirements-pip.lock"
DISTRO_WHEELS = Path("/usr/share/python-wheels")
NODE_MAJOR_MIN = 18
PROGRESS_EVERY_SECONDS = 5.0
FETCH_TIMEOUT_SECONDS = 60.0

# A way to run pip for the new environment: the words before `install`.
PipCommand = list[str]


class SetupError(Exception):
    """Set-up cannot go on; the message says what to do."""


def main() -> int:
    (ROOT / ".cache").mkdir(exist_ok=True)
    with open(ROOT / ".cache" / "setup.lock", "w") as lock:
        _lock_or_wait(lock.fileno())
        try:
            if not _is_ready():
                _make()
            if not _node_is_there():
                say("no Node found: installing one into .venv")
                _install(_pip_of_existing(), NODE_LOCK)
        except SetupError as error:
            say(str(error))
            return 1
        except KeyboardInterrupt:
            say("interrupted; the next run starts the set-up again")
            return 130
    return 0


def say(text: str) -> None:
    print(f"skerry: {text}", file=sys.stderr, flush=True)


def _lock_or_wait(descriptor: int) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say("another set-up is under way, waiting for it")
        fcntl.flock(descriptor, fcntl.LOCK_EX)


def _is_ready() -> bool:
    python = VENV / "bin" / "python"
    return os.access(python, os.X_OK) and STAMP.exists() and STAMP.read_bytes() == LOCK.read_bytes()


def _make() -> None:
    started = time.monotonic()
    say(f"setting up .venv with Python {sys.version.split()[0]} (once; a minute or two)")
    if VENV.exists():
        shutil.rmtree(VENV)
    pip = _create_environment()
    _install(pip, LOCK)
    # The same pip everywhere, also where it was borrowed: building the engine fetches its sources with it.
    _install(pip, PIP_LOCK)
    site_packages = next((VENV / "lib").glob("python3*/site-packages"))
    # Relative, so that a checkout can be moved with its environment.
    (site_packages / "skerry.pth").write_text(os.path.relpath(ROOT / "host", site_packages) + "\n")
    STAMP.write_bytes(LOCK.read_bytes())
    say(f"set up in {time.monotonic() - started:.0f} s")


# -- pip ---------------------------------------------------------------------------------------------------------


def _create_environment() -> PipCommand:
    """Creates an empty .venv and returns a pip that installs into it."""
    if _has_ensurepip():
        made = subprocess.run([sys.executable, "-m", "venv", str(VENV)], capture_output=True, text=True)
        if made.returncode == 0:
            return _pip_of_existing()
    subprocess.run([sys.executable, "-m", "venv", "--clear", "--without-pip", str(VENV)], check=True)
    sources: list[Callable[[], Iterator[PipCommand]]] = [
        _pip_of_other_interpreters,
        _pip_of_distribution,
        _pip_from_index,
        _pip_after_apt_get,
    ]
    for source in sources:
        for pip in source():
            if _answers([*pip, "--version"]):
                return pip
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    raise SetupError(
        f"this Python has neither ensurepip nor pip. Run:  apt-get install python{version}-venv  "
        "(or install pip for it another way), then start this again."
    )


def _has_ensurepip() -> bool:
    # A leftover folder counts as a namespace package, which has no origin.
    spec = importlib.util.find_spec("ensurepip")
    return spec is not None and spec.origin is not None


def _pip_of_existing() -> PipCommand:
    """A pip for the environment as it is: its own, or the first foreign one that answers."""
    own = [str(VENV / "bin" / "python"), "-m", "pip"]
    if _answers([*own, "--version"]):
        return own
    for source in (_pip_of_other_interpreters, _pip_of_distribution, _pip_from_index):
        for pip in source():
            if _answers([*pip, "--version"]):
                return pip
    raise SetupError("no pip found for .venv. Remove .venv and start this again.")


def _pip_of_other_interpreters() -> Iterator[PipCommand]:
    target = ["--python", str(VENV / "bin" / "python")]
    yield [sys.executable, "-m", "pip", *target]
    for name in ("python3", "python3.14", "python3.13", "python3.12", "python3.11"):
        if found := shutil.which(name):
            yield [found, "-m", "pip", *target]
    for name in ("pip3", "pip"):
        if found := shutil.which(name):
            yield [found, *target]


def _pip_of_distribution() -> Iterator[PipCommand]:
    for wheel in sorted(DISTRO_WHEELS.glob("pip-*.whl"), reverse=True):
        yield [str(VENV / "bin" / "python"), f"{wheel}/pip"]


def _pip_from_index() -> Iterator[PipCommand]:
    """A pip wheel from the index that the machine is configured for, accepted only with a locked hash."""
    index = os.environ.get("PIP_INDEX_URL") or _configured_index()
    if not index:
        return
    locked = PIP_LOCK.read_text()
    version = re.findall(r"^pip==(\S+)", locked, re.M)[0]
    page_url = f"{index.rstrip('/')}/pip/"
    name = f"pip-{version}-py3-none-any.whl"
    try:
        link = _link_on_page(_fetch(page_url).decode(), page_url, name)
        body = _fetch(link) if link else b""
    except OSError as error:
        say(f"could not fetch pip from the configured index: {error}")
        return
    if f"sha256:{hashlib.sha256(body).hexdigest()}" not in locked:
        say("the configured index offers no pip with the locked hash")
        return
    wheel = Path(tempfile.mkdtemp(prefix="pip-", dir=ROOT / ".cache")) / name
    wheel.write_bytes(body)
    yield [str(VENV / "bin" / "python"), f"{wheel}/pip"]


def _pip_after_apt_get() -> Iterator[PipCommand]:
    """On a Debian, as root: the missing package is installed, and the environment's own pip made with it."""
    apt_get = shutil.which("apt-get")
    if apt_get is None or os.geteuid() != 0 or not sys.executable.startswith("/usr/bin/"):
        return
    package = f"python{sys.version_info.major}.{sys.version_info.minor}-venv"
    say(f"this Python has no ensurepip: running apt-get install {package}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run([apt_get, "update", "-qq"], env=environment, stdout=sys.stderr)
    done = subprocess.run(
        [apt_get, "install", "-y", "-qq", "--no-install-recommends", package], env=environment, stdout=sys.stderr
    )
    if done.returncode == 0 and _answers([sys.executable, "-m", "venv", "--clear", str(VENV)]):
        yield [str(VENV / "bin" / "python"), "-m", "pip"]


def _configured_index() -> str | None:
    """`index-url` of the pip configuration files, read by hand because there is no pip to ask."""
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    files = [os.environ.get("PIP_CONFIG_FILE", ""), home / "pip" / "pip.conf", Path.home() / ".pip" / "pip.conf"]
    for file in [*files, "/etc/pip.conf"]:
        try:
            found = re.search(r"^\s*index-url\s*[=:]\s*(\S+)", Path(file).read_text(), re.M)
        except OSError:
            continue
        if found:
            return found[1]
    return None


def _fetch(url: str) -> bytes:
    request = urllib.request.Request(url, headers={"Accept": "application/vnd.pypi.simple.v1+json, text/html;q=0.5"})
    with urllib.request.urlopen(request, timeout=FETCH_TIMEOUT_SECONDS) as response:
        return response.read()


def _link_on_page(page: str, page_url: str, name: str) -> str | None:
    """The address of file `name` on an index page, which is JSON (PEP 691) or HTML (PEP 503)."""
    if page.lstrip().startswith("{"):
        links = [file["url"] for file in json.loads(page)["files"] if file["filename"] == name]
    else:
        links = re.findall(rf'href="([^"]*{re.escape(name)}[^"]*)"', page)
    return urllib.parse.urljoin(page_url, links[0]) if links else None


def _answers(command: list[str]) -> bool:
    return subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0


# -- installing --------------------------------------------------------------------------------------------------


def _install(pip: PipCommand, lock: Path) -> None:
    total = len(re.findall(r"^\S+==(?!.*sys_platform == 'win32')", lock.read_text(), re.M))
    command = [*pip, "install", "--disable-pip-version-check", "--no-input", "--progress-bar", "off"]
    command += ["--only-binary", ":all:", "--require-hashes", "-r", str(lock)]
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        assert process.stdout is not None
        tail = _show_progress(process.stdout, total)
        status = process.wait()
        errors.seek(0)
        complaint = errors.read()
    if status != 0:
        lines = [line for line in (tail + complaint.splitlines()) if not line.startswith("WARNING")]
        raise SetupError("pip could not install the locked packages:\n" + "\n".join(lines[-12:]))


def _show_progress(lines: Iterator[str], total: int) -> list[str]:
    """Prints how far pip has come every few seconds; returns its last lines."""
    tail: list[str] = []
    count = 0
    shown = time.monotonic()
    for line in lines:
        tail = [*tail[-8:], line.rstrip()]
        if line.startswith(("Collecting ", "Processing ")):
            count += 1
        elif line.startswith("Installing collected packages"):
            say(f"  unpacking {count} packages")
            shown = math.inf
        if time.monotonic() - shown >= PROGRESS_EVERY_SECONDS:
            shown = time.monotonic()
            say(f"  {count} of {total} packages fetched")
    return tail


# -- Node --------------------------------------------------------------------------------------------------------


def _node_is_there() -> bool:
    node = VENV / "bin" / "node"
    if node.exists():
        return True
    found = shutil.which("node")
    if found is None:
        return False
    answer = subprocess.run([found, "--version"], capture_output=True, text=True).stdout
    major = re.match(r"v(\d+)\.", answer)
    return major is not None and int(major[1]) >= NODE_MAJOR_MIN


if __name__ == "__main__":
    if sysconfig.get_platform().startswith("win"):
        sys.exit("skerry: Linux or macOS only")
    sys.exit(main())
