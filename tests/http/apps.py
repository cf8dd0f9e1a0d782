"""The app that HTTP, command and client tests deploy: the chat example, and functions that probe the edges."""

import functools
import shutil
from pathlib import Path

from tests.conftest import REPOSITORY
from tests.http.serving import skerry

FUNCTIONS = Path(__file__).parent / "functions"


def make_app(folder: Path) -> Path:
    """An app's folder, written to `folder`."""
    shutil.copytree(REPOSITORY / "examples" / "chat" / "convex", folder / "convex")
    shutil.copy(REPOSITORY / "examples" / "chat" / "package.json", folder)
    for source in FUNCTIONS.iterdir():
        shutil.copy(source, folder / "convex")
    return folder


@functools.cache
def shared_bundle(base: Path) -> Path:
    """The bundle of that app, built once for all folders of tests; `base` is the run's own temporary folder."""
    folder = base / "shared-app"
    folder.mkdir()
    return build(make_app(folder / "app"), folder / "app.skerry")


def build(app: Path, bundle: Path) -> Path:
    """The bundle of an app, built by the command."""
    done = skerry("build", app, "--out", bundle, "--clock", "2026-01-02T03:04:05Z")
    assert done.returncode == 0, done.stderr
    return bundle
