import queue
import threading
from pathlib import Path

import pytest
from watchfiles import Change

from skerry.bundle.watch import AppFilter, watch_app
from tests.bundle.apps import write_app

WAIT_SECONDS_MAX = 20.0


@pytest.mark.parametrize(
    ("path", "matters"),
    [
        ("convex/a.ts", True),
        ("convex/sub/b.jsx", True),
        ("convex.json", True),
        ("package-lock.json", True),
        ("tsconfig.json", True),
        ("src/shared.ts", True),
        ("convex/data.json", True),
        ("node_modules/x/index.js", False),
        (".git/index.ts", False),
        ("convex/.a.ts.swp", False),
        ("convex/a.ts~", False),
        ("convex/#a.ts", False),
        ("README.md", False),
        ("dist/a.js", False),
    ],
)
def test_which_changes_matter(tmp_path: Path, path: str, matters: bool) -> None:
    assert AppFilter(tmp_path)(Change.modified, str(tmp_path / path)) is matters
    assert AppFilter(tmp_path)(Change.modified, "/elsewhere/a.ts") is False


def test_an_edit_is_seen_and_the_watch_ends(tmp_path: Path) -> None:
    write_app(tmp_path, {"convex/a.ts": "1", "node_modules/x/i.js": "1"})
    stop = threading.Event()
    seen: queue.Queue[list[str]] = queue.Queue()

    def collect() -> None:
        for changed in watch_app(tmp_path, stop):
            seen.put(changed)

    watcher = threading.Thread(target=collect)
    watcher.start()
    try:
        # The watch may not have begun yet: edit until it notices.
        changed: list[str] | None = None
        for n in range(200):
            write_app(tmp_path, {"node_modules/x/i.js": str(n), "convex/a.ts": str(n)})
            try:
                changed = seen.get(timeout=WAIT_SECONDS_MAX / 200)
                break
            except queue.Empty:
                continue
        assert changed == ["convex/a.ts"]
    finally:
        stop.set()
        watcher.join(WAIT_SECONDS_MAX)
    assert not watcher.is_alive()
