"""History older than the retention goes, in bounded steps, and what is younger stays."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from skerry import limits
from skerry.database import answer_write, retain, retained_ts
from skerry.functions.terms import Terms
from skerry.functions.upkeep import Upkeep
from skerry.storage.interface import Tree
from skerry.storage.lmdb_engine import LmdbEngine
from tests.database.world import World, table_schema
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


def _upkeep(world: World, engine: LmdbEngine, terms: Terms | None = None, **more: Any) -> Upkeep:
    loop: Any = asyncio.new_event_loop()
    try:
        return Upkeep(
            world.database,
            engine,
            lambda: int(world.now_ms * 1e6),
            loop,
            terms or Terms(),
            elapsed_ns=lambda: 0,
            **more,
        )
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


class Bounded(Terms):
    """Terms with a quota of storage."""

    quota: int | None = None

    @property
    def storage_bytes(self) -> int | None:
        return self.quota


def test_at_its_quota_a_deployment_keeps_its_history_for_the_shortest_time(tmp_path: Path) -> None:
    engine = LmdbEngine(tmp_path / "d")
    world = World(engine)
    _write(world, 5)
    before = _commits(world)
    terms = Bounded()
    upkeep = _upkeep(world, engine, terms=terms)
    world.now_ms += limits.HISTORY_RETENTION_S_MIN * 1000 + 1000
    terms.quota = engine.data_bytes() + 1
    assert upkeep.step() is False and _commits(world) == before, "there is room"
    terms.quota = engine.data_bytes()
    world.now_ms -= 2000
    assert upkeep.step() is False and _commits(world) == before, "it is too young even so"
    world.now_ms += 2000
    upkeep.step()
    engine.commit([(Tree.META, b"test fence", b"1")]).result(20)
    assert _commits(world) == 1
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
    assert len([record for record in caplog.records if "The upkeep of" in record.getMessage()]) == 1
    assert empty.deployment.meter.background_failures >= turns - 1


def test_the_retention_in_force_is_the_deployments(tmp_path: Path) -> None:
    engine = LmdbEngine(tmp_path / "d")
    world = World(engine)
    _write(world, 5)
    world.now_ms += 61_000
    assert _upkeep(world, engine).step() is False
    assert _commits(world) == 5
    assert _upkeep(world, engine, retention_s=lambda: 60).step() is False
    engine.commit([]).result(20)
    assert _commits(world) == 1
    engine.close()


def test_a_step_ends_once_its_time_is_over(tmp_path: Path) -> None:
    engine = LmdbEngine(tmp_path / "d")
    world = World(engine)
    _write(world, 20)
    before, asked = _commits(world), 0

    def over() -> bool:
        nonlocal asked
        asked += 1
        return asked > 3

    assert retain(world.database, world.database.durable_ts, 100, over) == 100, "as if its budget were spent"
    engine.commit([]).result(20)
    assert before - 6 < _commits(world) < before
    assert retain(world.database, world.database.durable_ts, 100, lambda: True) == 100
    engine.commit([]).result(20)
    assert _commits(world) < before - 1, "each step drops something"
    engine.close()


def test_dropping_takes_a_larger_share_where_it_is_late(tmp_path: Path) -> None:
    engine = LmdbEngine(tmp_path / "d")
    world = World(engine)
    _write(world, 3)
    upkeep = _upkeep(world, engine)
    world.now_ms += (limits.HISTORY_RETENTION_S + limits.UPKEEP_LATE_SECONDS) * 1000 - 5
    calm = upkeep.rest_seconds(0.001)
    world.now_ms += 10
    late = upkeep.rest_seconds(0.001)
    assert calm == pytest.approx(0.001 * (100 / limits.UPKEEP_SHARE_PERCENT - 1))
    assert late == pytest.approx(0.001 * (100 / limits.UPKEEP_LATE_SHARE_PERCENT - 1))
    engine.close()


def test_the_space_in_use_reaches_a_plateau_under_steady_overwriting(tmp_path: Path) -> None:
    """500 documents with an index, each overwritten once in ten rounds of the retention time, for twenty of them."""
    engine = LmdbEngine(tmp_path / "d")
    world = World(engine)
    world.schema(table_schema("t", {"by_n": ["n"]}))
    ids = world.insert_all("t", [{"n": n, "text": "x" * 100} for n in range(500)])
    upkeep = _upkeep(world, engine, retention_s=lambda: 10)
    files: list[int] = []
    versions: list[int] = []
    for second in range(200):
        part = ids[(second % 10) * 50 :][:50]
        world.run(lambda t, part=part, second=second: [t.patch(one, {"n": second}) for one in part])
        world.now_ms += 1_000
        while upkeep.step():
            pass
        if second % 10 == 9:
            engine.commit([]).result(20)
            files.append(engine.usage.used_bytes)
            versions.append(engine.items()[Tree.REPLACED])
    assert max(versions[3:]) <= 50 * 12 and min(versions[3:]) > 0, versions
    assert max(files[10:]) <= max(files[3:10]) * 1.05, f"the file grew after the first rounds: {files}"
    engine.close()


def test_a_step_forgets_answers_of_mutations_that_count_no_more(tmp_path: Path) -> None:
    engine = LmdbEngine(tmp_path / "d")
    world = World(engine)
    now_ns = int(world.now_ms * 1e6)
    engine.commit([answer_write(n.to_bytes(2, "big"), now_ns, b"") for n in range(limits.ANSWERS_STEP_KEYS + 1)])
    upkeep = _upkeep(world, engine)
    assert upkeep.step() is False and _answers(engine) == limits.ANSWERS_STEP_KEYS + 1
    world.now_ms += (limits.ANSWERS_KEPT_SECONDS + limits.ANSWERS_PERIOD_SECONDS) * 1000
    assert upkeep.step() is True and _answers(engine) == 1
    assert upkeep.step() is False and _answers(engine) == 0
    engine.close()


def _answers(engine: LmdbEngine) -> int:
    engine.commit([]).result(20)
    snapshot = engine.snapshot()
    try:
        return sum(1 for key, _ in snapshot.scan(Tree.META, b"", None, False) if key.startswith(b"answered:"))
    finally:
        snapshot.close()
