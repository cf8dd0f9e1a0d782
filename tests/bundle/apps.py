"""Apps for the tests: written from a dictionary, evaluated by the small test host."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import wasmtime

from skerry.bundle.image import Runner
from skerry.errors import DeveloperError
from tests.bundle.runner import Compiled, GuestRunner

SERVER = "export { queryGeneric as query, mutationGeneric as mutation } from 'convex/server';\n"
CLOCK_MS = 1_750_000_000_000
MODULES_KEPT_MAX = 16

_modules: dict[bytes, Compiled] = {}


def write_app(folder: Path, files: dict[str, str]) -> Path:
    """The folder, with `files` written into it."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, "utf-8")
    return folder


class LimitedRunner(GuestRunner):
    """A runner whose calls end as the real one's do: with a coded error when they take too long."""

    call_seconds_max = 20.0
    draw_seed = b""

    def call(self, export: str, parked: bytes | None) -> int:
        timer = self.interrupt_after(self.call_seconds_max)
        try:
            return super().call(export, parked)
        except wasmtime.Trap as trap:
            raise DeveloperError("FunctionTimedOut", "The call took too long.") from trap
        finally:
            timer.cancel()

    def _draw(self, length: int) -> bytes:
        self._drawn += 1
        return hashlib.shake_128(self.draw_seed + str(self._drawn).encode()).digest(length)


def instantiate_at(clock_ms: int, seed: bytes) -> Callable[[bytes], Runner]:
    """Instances for a build, with clock and seed as given."""

    def instantiate(module: bytes) -> Runner:
        runner = LimitedRunner(_compiled(module))
        runner.now_ns = clock_ms * 1_000_000
        runner.draw_seed = seed
        return runner

    return instantiate


def run(image: bytes) -> LimitedRunner:
    """A fresh instance of an image, for calls."""
    return LimitedRunner(_compiled(image))


def _compiled(module: bytes) -> Compiled:
    digest = hashlib.sha256(module).digest()
    if digest not in _modules:
        if len(_modules) >= MODULES_KEPT_MAX:
            _modules.pop(next(iter(_modules)))
        _modules[digest] = Compiled(module)
    return _modules[digest]
