"""The bundle of an app that searches vectors."""

import functools
from pathlib import Path

from skerry.bundle.build import build_app
from skerry.isolate import build_runner_at
from tests.fixtures import shared
from tests.fixtures.bundles import CLOCK_MS

FOLDER = Path(__file__).parents[1] / "fixtures" / "vectors"


@functools.cache
def vector_bundle(base: Path) -> bytes:
    runner = build_runner_at(shared.module_cache(base))
    return build_app(FOLDER, clock_ms=CLOCK_MS, instantiate_at=runner).to_bytes()
