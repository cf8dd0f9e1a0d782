"""The app of the proofs, built once in a run."""

import functools
from pathlib import Path

from skerry.bundle.build import build_app
from skerry.isolate import build_runner_at
from tests.fixtures import shared
from tests.fixtures.bundles import CLOCK_MS


@functools.cache
def proof_bundle(base: Path) -> bytes:
    """The bundle; `base` is the run's own temporary folder."""
    runner = build_runner_at(shared.module_cache(base))
    return build_app(Path(__file__).parent / "app", clock_ms=CLOCK_MS, instantiate_at=runner).to_bytes()
