"""History older than the retention goes, in bounded steps, and what is younger stays."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from skerry import limits
from skerry.database import retained_ts
from skerry.functions.terms import Terms
from skerry.functions.upkeep import Upkeep
from skerry.storage.interface import Tree
from skerry.storage.lmdb_engine import LmdbEngine
from tests.database.world import World
from tests.fixtures.world import World as DeployedWorld


def _commits(world: World) -> int:
    snapshot = world.engine.snapshot()
    try:
        return sum(1 for _ in snapshot.scan(Tree.COMMIT_LOG, b"", None, False))
    finally:
        snapshot.close()


def _write(world: World, count: int) -> None:
    for number in range(count):
        transaction = world.begin()
        transaction.insert("notes", {"number": number})
        world.database.commit(transaction, b"{}", lambda _: None)
    world.settle()


def _upkeep(world: World, engine: LmdbEngine) -> Upkeep:
    loop: Any = asyncio.new_event_loop()
    try:
        return Upkeep(world.database, engine, lambda: int(world.now_ms * 1e6), loop, Terms())
    finally:
        loop.close()


def test_nothing_young_is_dropped(tmp_path: Path) -> None:
    engine = LmdbEngine(tmp_path / "d")
    world = World(engine)
    _write(world, 5)
    before = _commits(world)
    world.now_ms += limits.HISTORY_RETENTION_S * 1000 - 1000
    assert _upkeep(world, engine).step() is False
    assert _commits(world) == before
    engine.close()


def test_old_history_goes_in_bounded_steps(tmp_path: Path) -> None:
    engine = LmdbEngine(tmp_path / "d")
    world = World(engine)
    _write(world, limits.UPKEEP_COMMITS_MAX + 10)
    before = _commits(world)
    world.now_ms += limits.HISTORY_RETENTION_S * 1000 + 1000
    upkeep = _upkeep(world, engine)
    assert upkeep.step() is True
    engine.commit([(Tree.META, b"test fence", b"1")]).result(20)
    assert _commits(world) == before - limits.UPKEEP_COMMITS_MAX
    assert upkeep.step() is False
    engine.commit([(Tree.META, b"test fence", b"2")]).result(20)
    assert _commits(world) == 1, "the newest entry stays: it holds the last timestamp"
    snapshot = engine.snapshot()
    assert retained_ts(snapshot) > 0
    snapshot.close()
    engine.close()


def test_a_closed_deployment_is_kept_up_no_more(tmp_path: Path, compiled: Path) -> None:
    with DeployedWorld(tmp_path / "data", compiled) as world:
        upkeep = world.deployment._upkeep
        world.wait(asyncio.sleep(0))
        assert upkeep._timer is not None
    assert upkeep._timer is None


def test_a_deployment_closed_before_its_upkeep_began_has_none(tmp_path: Path, compiled: Path) -> None:
    with DeployedWorld(tmp_path / "data", compiled) as world:
        upkeep = world.deployment._upkeep
        upkeep.stop()
        world.wait(asyncio.sleep(0))
        assert upkeep._timer is None


def test_a_turn_that_fails_is_followed_by_another(
    empty: DeployedWorld, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(limits, "UPKEEP_INTERVAL_S", 0)
    upkeep, turns = empty.deployment._upkeep, 0

    def step() -> bool:
        nonlocal turns
        turns += 1
        raise ValueError("what nobody foresaw")

    monkeypatch.setattr(upkeep, "step", step)
    empty.until(lambda: turns >= 2)
    assert "what nobody foresaw" in caplog.text
