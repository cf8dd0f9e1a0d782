"""The app of the proofs, built once in a run."""

import functools
import re
import shutil
from pathlib import Path

from skerry.bundle.build import build_app
from skerry.isolate import build_runner_at
from tests.fixtures import shared
from tests.fixtures.bundles import CLOCK_MS

FOLDER = Path(__file__).parent / "app"


@functools.cache
def proof_bundle(base: Path) -> bytes:
    """The bundle; `base` is the run's own temporary folder."""
    return _built(FOLDER, base)


@functools.cache
def indexed_bundle(base: Path) -> bytes:
    """The same functions over a schema with one more index for each list."""
    folder = base / "proof-indexed"
    shutil.copytree(FOLDER, folder)
    schema = folder / "convex" / "schema.ts"
    before = schema.read_text()
    after = re.sub(r'\.index\("by_key", \["key"', r'.index("by_words", ["words", "key"])\g<0>', before)
    assert after.count("by_words") == 3
    schema.write_text(after)
    return _built(folder, base)


def _built(folder: Path, base: Path) -> bytes:
    runner = build_runner_at(shared.module_cache(base))
    return build_app(folder, clock_ms=CLOCK_MS, instantiate_at=runner).to_bytes()
