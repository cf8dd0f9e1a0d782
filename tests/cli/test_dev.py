"""`skerry dev`: an edit becomes the live version, a mistake leaves the last good one."""

import json
import select
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.test_build import small_app
from tests.http.serving import READY_SECONDS_MAX, RunningServer

SOURCE = "import { queryGeneric } from 'convex/server';\nexport const answer = queryGeneric(async () => %s);\n"


class Dev:
    """A running `skerry dev` and what it says."""

    def __init__(self, app: Path, running: RunningServer) -> None:
        self.app = app
        self.server = running
        self._said = b""

    def save(self, source: str) -> None:
        (self.app / "convex" / "numbers.ts").write_text(source)

    def value(self) -> object:
        return self.server.call("query", "numbers:answer").get("value")

    def wait_for(self, words: str) -> str:
        """All it said up to and including `words`, which are then forgotten."""
        stream = self.server.process.stderr
        assert stream is not None
        until = time.monotonic() + READY_SECONDS_MAX
        while words.encode() not in self._said:
            ready, _, _ = select.select([stream], [], [], max(0.0, until - time.monotonic()))
            assert ready, f"it never said {words!r}, but: {self._said.decode()}"
            piece = stream.read1()  # type: ignore[attr-defined]  # a pipe in binary mode is buffered
            assert piece, f"it ended before it said {words!r}: {self._said.decode()}"
            self._said += piece
        at = self._said.index(words.encode()) + len(words)
        said, self._said = self._said[:at], self._said[at:]
        return said.decode()


@pytest.fixture
def dev(tmp_path: Path) -> Iterator[Callable[..., Dev]]:
    started: list[RunningServer] = []

    def start(source: str, package: str = "{}") -> Dev:
        app = small_app(tmp_path / "app", source)
        (app / "package.json").write_text(package)
        started.append(RunningServer(["dev", str(app)]))
        return Dev(app, started[-1])

    yield start
    for running in started:
        assert running.stop()[0] == 0


@pytest.mark.parametrize(
    ("scripts", "told"),
    [
        ({"dev": "vite"}, "npm install && VITE_CONVEX_URL={url} npm run dev\n"),
        ({"dev": "npm-run-all convex dev dev:frontend", "dev:frontend": "next dev"}, "npm run dev:frontend\n"),
        ({"dev": "convex dev"}, None),
        ("no scripts", None),
    ],
)
def test_how_to_see_the_apps_page_is_told(dev: Callable[..., Dev], scripts: object, told: str | None) -> None:
    running = dev(SOURCE % 1, json.dumps({"scripts": scripts}))
    said = running.wait_for("deployed 1 functions")
    assert ("the app's page" in said) == (told is not None)
    assert told is None or told.format(url=running.server.url) in said


def test_an_edit_goes_live_and_a_mistake_does_not(dev: Callable[[str], Dev]) -> None:
    running = dev(SOURCE % 1)
    running.wait_for("deployed 1 functions")
    assert running.value() == 1

    running.save(SOURCE % 2)
    assert "convex/numbers.ts" in running.wait_for("numbers.ts)")
    assert running.value() == 2

    running.save(SOURCE % "(")
    said = running.wait_for("the last good version stays live")
    assert "convex/numbers.ts:2:" in said
    assert running.value() == 2

    running.save((SOURCE % 3) + "throw new Error('at load');\n")
    said = running.wait_for("the last good version stays live")
    assert "at load" in said
    assert running.value() == 2

    running.save(SOURCE % 4)
    running.wait_for("deployed 1 functions")
    assert running.value() == 4
    assert (running.app / ".skerry" / "deployments").is_dir()


def test_an_app_that_never_built_can_be_corrected(dev: Callable[[str], Dev]) -> None:
    running = dev("export const answer = (;\n")
    running.wait_for("nothing is live yet; correct it and save")
    assert "Could not find" in running.server.call("query", "numbers:answer")["errorMessage"]
    running.save(SOURCE % 5)
    running.wait_for("deployed 1 functions")
    assert running.value() == 5
