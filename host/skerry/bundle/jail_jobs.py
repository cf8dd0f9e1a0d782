"""The job `build-image`: an engine, scripts, a clock and a seed become an image, inside the jail.

The scripts are a tenant's; the engine, and its machine code, are the host's own. The guest runs under the same limits
as in the host's process (`skerry.isolate.build_runner`), so both give the same bytes.

Shape of the payload: a JSON head (`clockMs`, `seed` in hex, `scripts`: names and whether they run seldom), the engine,
the machine code of the engine as the builder changes it, then each script.
"""

from collections.abc import Sequence
from typing import Any, Final

import orjson

from skerry.bundle.image import ImageBuilder, Script, build_image, module_to_run
from skerry.isolate import BuildRunner, ModuleCache, Precompiled, get_engine, linker_of_this_thread
from skerry.jail import run_job

_SEED_BYTES: Final = 32


def jailed_image_builder(cache: ModuleCache, *, followed: bool = True) -> ImageBuilder:
    """Builds in the jail. `cache` gives the engine's machine code; `followed`: the image is compiled next."""

    def build(engine: bytes, scripts: Sequence[Script], clock_ms: int, seed: bytes) -> bytes:
        assert len(seed) == _SEED_BYTES
        listed = [[script.name, script.seldom] for script in scripts]
        head = orjson.dumps({"clockMs": clock_ms, "seed": seed.hex(), "scripts": listed})
        code = cache.machine_code(module_to_run(engine))
        return run_job("build-image", [head, engine, code, *(s.source for s in scripts)], followed=followed)

    return build


def warm() -> None:
    """Makes this thread's linker, whose callbacks need memory for code of their own."""
    get_engine()
    linker_of_this_thread()


def build_image_from(payload: Sequence[bytes]) -> bytes:
    """The image. Raises: ClientError and DeveloperError as `build_image`."""
    head, engine, code, *sources = payload
    fields: dict[str, Any] = orjson.loads(head)
    scripts = [Script(name, source, seldom) for (name, seldom), source in zip(fields["scripts"], sources, strict=True)]
    modules = Precompiled(get_engine(), code)
    seed = bytes.fromhex(fields["seed"])
    return build_image(engine, scripts, lambda wasm: BuildRunner(modules, wasm, fields["clockMs"], seed))
