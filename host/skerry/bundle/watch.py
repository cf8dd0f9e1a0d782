"""Watching an app's folder, so that an edit becomes a new version at once.

What counts as a change: files of the functions folder, `convex.json`, `package.json`, lock files and `tsconfig.json`
of the app; and, outside the functions folder, code files of the app itself (functions import them). What is never
looked at: `node_modules`, folders that start with a dot, generated and built output.

Concurrency: `watch` blocks its thread until the caller's event is set.
"""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from watchfiles import Change, DefaultFilter
from watchfiles import watch as watch_files

from skerry.bundle.sources import CODE_EXTENSIONS

DEBOUNCE_MS: Final = 30
_STEP_MS: Final = 10
_WAKE_MS: Final = 200
_SKIPPED_FOLDERS: Final = frozenset({"node_modules", "dist", "build", "__pycache__"})
_PROJECT_FILES: Final = frozenset(
    {"convex.json", "package.json", "package-lock.json", "pnpm-lock.yaml", "yarn.lock", "tsconfig.json"}
)


class AppFilter(DefaultFilter):
    """Says which changed paths below an app's folder matter."""

    def __init__(self, root: Path) -> None:
        super().__init__()
        self._root = root

    def __call__(self, change: Change, path: str) -> bool:
        try:
            parts = Path(path).relative_to(self._root).parts
        except ValueError:
            return False
        if not parts or any(part.startswith(".") or part in _SKIPPED_FOLDERS for part in parts[:-1]):
            return False
        name = parts[-1]
        if name.startswith((".", "#")) or name.endswith("~"):
            return False
        suffix = Path(name).suffix
        return name in _PROJECT_FILES or suffix in CODE_EXTENSIONS or suffix in (".json", ".txt")


def watch_app(root: Path, stop: threading.Event) -> Iterator[list[str]]:
    """Yields the changed paths, relative to the app's folder and in order, once a burst of changes is over; ends after
    `stop`.
    """
    root = root.resolve()
    for changes in watch_files(
        root,
        watch_filter=AppFilter(root),
        debounce=DEBOUNCE_MS,
        step=_STEP_MS,
        stop_event=stop,
        rust_timeout=_WAKE_MS,
        yield_on_timeout=False,
        raise_interrupt=False,
    ):
        yield sorted({Path(path).relative_to(root).as_posix() for _, path in changes})
