"""The bench app as a bundle, built once for each change of what it is made of."""

import hashlib
import time
from pathlib import Path

from skerry.bundle.build import build_app
from skerry.bundle.folders import cache_folder
from skerry.isolate import ModuleCache, build_runner_at, get_engine

REPOSITORY = Path(__file__).resolve().parents[3]
BENCH_APP = REPOSITORY / "examples" / "bench"
CHAT_APP = REPOSITORY / "examples" / "chat"
GROUP_SIZE = 100
# Modules see this time while they load: the same sources give the same bundle.
_CLOCK_MS = 1_767_225_600_000


def bench_folder() -> Path:
    """Where derived files of the benches lie."""
    folder = cache_folder() / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def build(app: Path) -> bytes:
    """The bundle of an app, built now."""
    modules = ModuleCache(get_engine(), None, b"bench")
    return build_app(app, clock_ms=_CLOCK_MS, instantiate_at=build_runner_at(modules)).to_bytes()


def bundle_of(app: Path) -> Path:
    """The file of an app's bundle: from the cache unless the app, the host or the guest SDK has changed."""
    kept = bench_folder() / f"{app.name}-{_digest(app)}.skerry"
    if not kept.is_file():
        scratch = kept.with_suffix(f".{time.monotonic_ns()}.new")
        scratch.write_bytes(build(app))
        scratch.replace(kept)
    return kept


def _digest(app: Path) -> str:
    digest = hashlib.sha256()
    for folder in (app / "convex", REPOSITORY / "host" / "skerry" / "bundle", REPOSITORY / "guest_sdk"):
        for path in sorted(folder.rglob("*")):
            if path.is_file() and not {"node_modules", "__pycache__"} & set(path.parts):
                digest.update(f"{path.relative_to(REPOSITORY)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]
