"""A closed deployment is opened when something of it is due; a paused one runs nothing."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from skerry import limits
from skerry.schedule.due_mark import DueMark, read_due
from tests.admin.world import HostWorld
from tests.fixtures import shared
from tests.fixtures.hands import HandTimers
from tests.fixtures.world import NOW_MS
from tests.schedule.world import ASKED_MAX, schedule_bundle

HOUR_MS = 3_600_000


class ClockedHost(HostWorld):
    """A host whose clock and timers are the test's."""

    def __init__(self, folder: Path, compiled: Path, **more: Any) -> None:
        self.timers = HandTimers()
        super().__init__(folder, compiled, timers=self.timers, **more)

    def pass_ms(self, ms: float) -> None:
        self.now_ns += int(ms * 1_000_000)
        self.timers.advance(ms / 1000)

    def until(self, is_so: Callable[[], object]) -> None:
        async def turn() -> None:
            for _ in range(ASKED_MAX):
                if is_so():
                    return
                await asyncio.sleep(0.001)
            raise AssertionError("it never comes to that")

        self.wait(turn())

    def due(self, name: str) -> int | None:
        return read_due(self.folder.deployment_path(name))

    def notes(self, name: str) -> list[Any]:
        return self.value(name, "query", "jobs:notes")


@pytest.fixture
def host(base: Path, tmp_path: Path) -> Iterator[ClockedHost]:
    with ClockedHost(tmp_path / "data", shared.compiled(base)) as made:
        made.create("one", "two")
        for name in ("one", "two"):
            made.deploy(name, schedule_bundle(base))
        yield made


def close_all(host: ClockedHost) -> None:
    host.sweep(limits.DEPLOYMENT_IDLE_SECONDS * 2)
    assert not host.hosted("one").is_open and not host.hosted("two").is_open


def test_what_is_due_opens_a_closed_deployment_and_no_other(host: ClockedHost) -> None:
    host.value("one", "mutation", "jobs:after", {"ms": HOUR_MS, "n": 1})
    host.value("two", "mutation", "jobs:after", {"ms": 3 * HOUR_MS, "n": 2})
    assert host.due("one") == 0, "while it is open, a crash has to lead back to it"
    close_all(host)
    assert host.due("one") == pytest.approx(NOW_MS + HOUR_MS, abs=1000)
    for _ in range(2):
        host.pass_ms(HOUR_MS)
    host.until(lambda: host.hosted("one").is_open)
    assert not host.hosted("two").is_open
    assert_comes(host, "one", [1])
    close_all(host)
    assert host.due("one") is None, "nothing is left to be done"
    host.pass_ms(2 * HOUR_MS)
    host.until(lambda: host.hosted("two").is_open)
    assert not host.hosted("one").is_open


def assert_comes(host: ClockedHost, name: str, notes: list[Any]) -> None:
    for _ in range(ASKED_MAX):
        if host.notes(name) == notes:
            return
    raise AssertionError(host.notes(name))


def test_a_deployment_without_schedules_leaves_no_mark(host: ClockedHost) -> None:
    assert host.due("one") is None
    close_all(host)
    assert host.due("one") is None


def test_after_a_restart_what_is_due_runs_without_a_call(base: Path, tmp_path: Path) -> None:
    with ClockedHost(tmp_path / "data", shared.compiled(base)) as host:
        host.create("one")
        host.deploy("one", schedule_bundle(base))
        host.value("one", "mutation", "jobs:after", {"ms": HOUR_MS, "n": 1})
        now_ns = host.now_ns
    with ClockedHost(tmp_path / "data", shared.compiled(base)) as host:
        host.now_ns = now_ns
        assert not host.hosted("one").is_open
        host.pass_ms(HOUR_MS + 1000)
        host.until(lambda: host.hosted("one").is_open)
        assert_comes(host, "one", [1])


def test_a_paused_deployment_runs_nothing_until_it_is_resumed(host: ClockedHost) -> None:
    host.value("one", "mutation", "jobs:after", {"ms": HOUR_MS, "n": 1})
    host.value("two", "mutation", "jobs:after", {"ms": HOUR_MS, "n": 2})
    host.sweep(0)
    host.wait(host.host.pause("one"))
    close_all(host)
    host.wait(host.host.pause("two"))
    host.pass_ms(HOUR_MS + 1000)
    host.settle()
    assert not host.hosted("one").is_open and not host.hosted("two").is_open
    for name in ("one", "two"):
        host.wait(host.host.resume(name))
    host.pass_ms(1)
    host.until(lambda: host.hosted("one").is_open and host.hosted("two").is_open)
    assert_comes(host, "one", [1])
    assert_comes(host, "two", [2])


def test_pausing_an_open_deployment_stops_what_it_would_begin(host: ClockedHost) -> None:
    host.value("one", "mutation", "jobs:after", {"ms": HOUR_MS, "n": 1})
    host.wait(host.host.pause("one"))
    host.pass_ms(HOUR_MS + 1000)
    host.wait(host.host.resume("one"))
    assert_comes(host, "one", [1])


def test_one_that_cannot_be_opened_is_tried_again(host: ClockedHost, monkeypatch: pytest.MonkeyPatch) -> None:
    host.value("one", "mutation", "jobs:after", {"ms": HOUR_MS, "n": 1})
    close_all(host)
    make = host.host._opener.make

    def refuse(name: str) -> Any:
        raise OSError("no such disk")

    monkeypatch.setattr(host.host._opener, "make", refuse)
    host.pass_ms(HOUR_MS + 1000)
    host.settle()
    assert host.timers.waiting(limits.SCHEDULED_OPEN_AGAIN_SECONDS) == 1
    monkeypatch.setattr(host.host._opener, "make", make)
    host.seconds += limits.DEPLOYMENT_REOPEN_SECONDS
    host.pass_ms(limits.SCHEDULED_OPEN_AGAIN_SECONDS * 1000 + 1)
    host.until(lambda: host.hosted("one").is_open)
    assert_comes(host, "one", [1])


def test_a_mark_is_never_later_than_what_is_scheduled(tmp_path: Path) -> None:
    mark = DueMark(tmp_path)
    assert not mark.covers(5)
    mark.cover()
    assert (read_due(tmp_path), mark.covers(5)) == (0, True)
    mark.settle(1000.5)
    assert read_due(tmp_path) == 1000
    mark = DueMark(tmp_path)
    assert [mark.covers(due_ms) for due_ms in (999, 1000, 1000.5, 2000)] == [False, True, True, True]
    mark.settle(None)
    assert read_due(tmp_path) is None
    (tmp_path / "due").write_bytes(b"soon")
    assert read_due(tmp_path) == 0, "what cannot be read is looked at"
