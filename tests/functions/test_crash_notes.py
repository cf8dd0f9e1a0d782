"""What a thread notes about the module it runs: while a guest is on it, and no longer."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from skerry.functions import crash_notes
from skerry.functions.crash_notes import crash_number_of, keep_crash_notes, note_of_this_thread
from tests.fixtures.hostile_bundle import hostile_bundle
from tests.fixtures.world import World


class History(list[int]):
    """A note that remembers every store."""

    def __init__(self) -> None:
        super().__init__([0])
        self.stored: list[int] = []

    def __setitem__(self, at: Any, number: Any) -> None:
        self.stored.append(number)
        super().__setitem__(at, number)


class Notes:
    """Keeps the notes by thread."""

    def __init__(self) -> None:
        self.of_thread: dict[int, History] = {}
        self.modules: list[tuple[str, str]] = []

    def note(self) -> Any:
        return self.of_thread.setdefault(threading.get_ident(), History())

    def number_of(self, deployment: str, digest: str) -> int:
        if (deployment, digest) not in self.modules:
            self.modules.append((deployment, digest))
        return 1 + self.modules.index((deployment, digest))


@pytest.fixture
def notes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Notes]:
    monkeypatch.setattr(crash_notes, "_notes", None)
    monkeypatch.setattr(crash_notes, "_of_thread", type(crash_notes._of_thread)())
    made = Notes()
    keep_crash_notes(made)
    yield made


def test_a_call_is_noted_on_its_thread_while_it_runs(notes: Notes, base: Path, compiled: Path, tmp_path: Path) -> None:
    with World(tmp_path / "data", compiled, name="noted") as world:
        digest = world.activate(hostile_bundle(base))["version"]
        number = notes.number_of("noted", digest)
        assert notes.modules == [("noted", digest)]
        described = [history.stored for history in notes.of_thread.values()]
        assert described == [[number, 0]]

        assert world.query("h:ping") == "pong"
        loop = notes.of_thread[threading.get_ident()]
        assert loop.stored == [number, 0]
        world.failure("query", "h:noSuchFunction")
        assert loop.stored == [number, 0], "no guest was entered"

        world.deployment.lane.cpu_ms_max = 300
        looping = world.start("query", "h:loop", {})
        assert loop.stored == [number, 0, number, 0], "its slice was spent here"
        while not any(history[0] for history in [*notes.of_thread.values()]):  # a thread may begin meanwhile
            assert not looping.done()
        world.finish(looping)
        assert not any(history[0] for history in notes.of_thread.values())


def test_without_a_keeper_notes_go_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crash_notes, "_of_thread", type(crash_notes._of_thread)())
    note = note_of_this_thread()
    note[0] = crash_number_of("any", "00" * 32)
    assert note_of_this_thread() is note
    assert note[0] != 0
