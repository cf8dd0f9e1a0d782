"""Live queries of a deployment: when they run, how often, and what their watchers hear."""

from collections.abc import Callable
from typing import Any, cast

import pytest

from skerry import limits
from skerry.database import CommitRecord, ReadSet
from skerry.errors import SystemFault
from skerry.functions.request import CallRequest, CallResult
from skerry.sync import live_query
from skerry.sync import reactor as reactor_module
from skerry.sync.live_query import LiveQuery, Span, Superseded
from skerry.sync.reactor import Reactor

DOCUMENT = b"d" * 20


class Commit:
    is_switch = False

    def __init__(self, ts: int, key: bytes) -> None:
        self.commit_ts = ts
        self._key = key

    def documents(self) -> list[bytes]:
        return [self._key]

    def keys_in(self, numbers: set[int]) -> list[tuple[int, bytes]]:
        return []


class World:
    """A reactor whose runs end when the test says so."""

    def __init__(self) -> None:
        self.ts = 1
        self.runs: list[Callable[[Any], None]] = []
        self.heard: list[tuple[str, LiveQuery]] = []
        self.reached: list[int] = []
        self.reactor = Reactor(
            lambda _, done: self.runs.append(done),
            lambda run: run(),
            lambda: self.ts,
            lambda live: CallRequest(kind="query", path=live.key[0], args=b"{}", request_id="0" * 16),
            False,
        )

    def stale(self, live: LiveQuery) -> None:
        self.heard.append(("stale", live))

    def settled(self, live: LiveQuery) -> None:
        self.heard.append(("settled", live))

    def reach(self, ts: int) -> None:
        self.reached.append(ts)

    def moved(self, live: LiveQuery, other: LiveQuery) -> None:
        self.heard.append(("moved", other))

    def commit(self, key: bytes = DOCUMENT) -> None:
        self.ts += 1
        self.reactor.committed(cast("CommitRecord", cast("Any", Commit(self.ts, key))))

    def finish(
        self, value: bytes = b"1", *, ts: int | None = None, key: bytes = DOCUMENT, journal: str | None = None
    ) -> None:
        result = CallResult(True, value, [], self.ts if ts is None else ts)
        result.journal = journal
        result.reads = ReadSet({key}, [])
        self.runs.pop(0)(result)

    def words(self) -> list[str]:
        heard, self.heard = self.heard, []
        return [word for word, _ in heard]


@pytest.fixture
def world() -> World:
    return World()


def test_a_query_runs_once_for_each_commit_that_touches_it_however_many_watch(world: World) -> None:
    watchers = [World() for _ in range(3)]
    lives = {world.reactor.watch(("m:q",), None, watcher) for watcher in watchers}
    assert len(lives) == 1 and len(world.runs) == 1
    world.finish()
    assert [watcher.words() for watcher in watchers] == [["settled"]] * 3
    world.commit(b"e" * 20)
    assert not world.runs and world.reactor.runs == 1, "it has read nothing of that"
    world.commit()
    assert world.reactor.runs == 2
    world.finish()
    assert [watcher.words() for watcher in watchers] == [["stale", "settled"]] * 3


def test_who_comes_to_a_page_that_has_grown_begins_one_anew(world: World) -> None:
    early, late, later = World(), World(), World()
    grown = world.reactor.watch(("m:page",), None, early)
    world.finish(journal="up to 5")
    assert world.reactor.watch(("m:page",), None, World()) is grown, "nothing has changed: a page begun now is the same"
    world.commit()
    world.finish()
    fresh = world.reactor.watch(("m:page",), None, late)
    assert fresh is not grown and fresh.journal is None
    assert world.reactor.watch(("m:page",), "up to 5", World()) is grown, "who comes back with the page has it again"
    world.finish(journal="up to 3")
    world.commit()
    assert len(world.runs) == 2 and world.reactor.n_live == 2, "pages with different ends"
    world.finish()
    world.finish()

    # A page that came to the same end is the same query from its second run on, and runs once with it.
    assert world.reactor.watch(("m:page",), None, later) not in (fresh, grown)
    world.finish(journal="up to 3")
    assert world.reactor.n_live == 3
    for watcher in (early, late, later):
        watcher.words()
    world.commit()
    assert len(world.runs) == 2 and world.reactor.n_live == 2
    assert ("moved", fresh) in later.heard and fresh.watchers == {late, later}
    world.finish()
    world.finish()
    assert [watcher.words()[-1] for watcher in (early, late, later)] == ["settled"] * 3
    world.reactor.forget(fresh, late)
    world.reactor.forget(fresh, later)
    assert world.reactor.n_live == 1


def test_a_run_that_a_commit_overtook_runs_again_and_is_shown_at_its_own_time_only(world: World) -> None:
    live = world.reactor.watch(("m:q",), None, world)
    world.commit()
    world.finish(ts=1)
    assert world.words() == [] and len(world.runs) == 1
    assert world.reached == [1] and live.result_at(1) is not None and live.result_at(2) is None
    world.commit(b"e" * 20)
    world.finish(ts=2)
    assert world.words() == ["settled"], "what overtook it touched something else"


def test_several_commits_during_a_run_cost_one_more_run(world: World) -> None:
    world.reactor.watch(("m:q",), None, world)
    world.finish()
    for _ in range(5):
        world.commit()
    assert len(world.runs) == 1 and world.reactor.runs == 2
    world.finish()
    assert world.words() == ["settled", "stale", "settled"]


def test_other_code_makes_every_query_run_again_also_one_that_is_running(world: World) -> None:
    live = world.reactor.watch(("m:q",), None, world)
    world.reactor.all_stale()
    world.finish(b"old")
    assert world.words() == [] and live.result is None
    world.finish(b"new")
    world.reactor.all_stale()
    assert world.words() == ["settled", "stale"] and len(world.runs) == 1


def test_a_fault_of_the_host_is_told_and_the_next_watcher_runs_it_anew(world: World) -> None:
    live = world.reactor.watch(("m:q",), None, world)
    world.runs.pop(0)(SystemFault("TooManyConcurrentRequests", "Later."))
    assert world.words() == ["settled"] and live.fault is not None and not live.is_valid
    world.reactor.watch(("m:q",), None, World())
    world.finish()
    assert live.fault is None and live.is_valid


def test_a_query_nobody_watches_is_forgotten_also_while_it_runs(world: World) -> None:
    live = world.reactor.watch(("m:q",), None, world)
    world.reactor.forget(live, world)
    assert world.reactor.n_live == 0
    world.finish()
    world.commit()
    assert world.words() == [] and not world.runs
    again = world.reactor.watch(("m:q",), None, world)
    assert again is not live


def test_a_run_outlived_by_what_is_remembered_runs_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    assert limits.SYNC_COMMITS_REMEMBERED_MAX > 3
    monkeypatch.setattr(reactor_module, "SYNC_COMMITS_REMEMBERED_MAX", 3)
    world.reactor.watch(("m:q",), None, world)
    for _ in range(3):
        world.commit(b"e" * 20)
    world.finish(ts=1)
    assert world.words() == ["settled"]
    other = World()
    other.reactor.watch(("m:q",), None, other)
    for _ in range(4):
        other.commit(b"e" * 20)
    other.finish(ts=1)
    assert other.words() == [] and len(other.runs) == 1


def test_another_catalog_makes_every_query_run_again_also_one_that_is_running(world: World) -> None:
    world.reactor.watch(("m:q",), None, world)
    world.finish()
    world.reactor.watch(("m:r",), None, world)
    world.ts += 1
    world.reactor.committed(CommitRecord(world.ts, [], [], 0))
    assert len(world.runs) == 2, "an import leaves no read set leading anywhere"
    world.finish(ts=world.ts - 1)
    assert len(world.runs) == 2, "what ran over the catalog before is thrown away"
    world.finish()
    world.finish()
    assert world.words() == ["settled", "stale", "settled", "settled"] and not world.runs


def test_what_a_run_saw_of_a_commit_that_is_still_to_come_is_told_to_nobody(world: World) -> None:
    world.reactor.watch(("m:q",), None, world)
    world.finish(ts=world.ts + 1)
    assert world.words() == [] and not world.runs
    world.commit()
    assert world.words() == ["settled"] and not world.runs, "it had seen that commit"


def test_other_code_costs_one_run_of_what_had_not_begun() -> None:
    world, waiting = World(), list[Callable[[], None]]()
    world.reactor = Reactor(
        lambda _, done: world.runs.append(done),
        waiting.append,
        lambda: world.ts,
        lambda live: CallRequest(kind="query", path=live.key[0], args=b"{}", request_id="0" * 16),
        False,
    )
    world.reactor.watch(("m:q",), None, world)
    world.reactor.all_stale()
    waiting.pop()()
    world.finish()
    assert world.words() == ["settled"] and not waiting


def test_whatever_fails_its_watchers_hear_of_it_once_and_the_reactor_goes_on(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_request: CallRequest, _done: Callable[[Any], None]) -> None:
        raise RuntimeError("no call")

    begin = world.reactor._begin  # pyright: ignore[reportPrivateUsage]
    world.reactor._begin = refuse  # pyright: ignore[reportPrivateUsage]
    live = world.reactor.watch(("m:q",), None, world)
    assert world.words() == ["settled"] and live.fault is not None and live.fault.code == "InternalServerError"
    assert len(caplog.records) == 1
    world.reactor._begin = begin  # pyright: ignore[reportPrivateUsage]
    world.reactor.watch(("m:q",), None, world)
    world.runs.pop(0)(cast("Any", "no outcome"))
    assert world.words() == ["settled"] and live.fault is not None and len(caplog.records) == 2
    world.reactor.watch(("m:q",), None, world)
    world.finish()
    assert world.words() == ["settled"] and live.fault is None and live.is_valid
    world.commit()
    assert len(world.runs) == 1


def test_a_commit_that_cannot_be_looked_at_makes_every_query_run_again(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.reactor.watch(("m:q",), None, world)
    world.finish()
    world.ts += 1
    world.reactor.committed(cast("CommitRecord", None))
    assert len(world.runs) == 1 and len(caplog.records) == 1


def test_what_superseded_results_take_is_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Superseded()
    live = LiveQuery(("m:q",), None)
    monkeypatch.setattr(live_query, "SYNC_SUPERSEDED_BYTES_MAX", 10)
    for ts in range(4):
        kept.keep(live, Span(ts, ts + 1, b"1234"))
    assert (kept.n_bytes, len(live.past)) == (8, 2), "the third would be past the bound"
    kept.forget(1)
    assert (kept.n_bytes, len(live.past)) == (4, 1)
    kept.keep(live, Span(5, 6, b"123456"))
    assert kept.n_bytes == 10, "at the bound"
    kept.clear()
    assert kept.n_bytes == 0 and not live.past
