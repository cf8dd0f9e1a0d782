"""Jobs on a deployment that serves, compacting by itself, and settings that stay."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from skerry import limits
from skerry.errors import ClientError, SystemFault
from skerry.functions.care import Care, StorageSeen
from skerry.functions.settings import SETTINGS_KEY, Settings, checked_settings
from skerry.storage import Tree
from skerry.storage.compaction import COPY_FOLDER
from skerry.storage.lmdb_engine import LmdbEngine
from skerry.storage.memory_engine import MemoryEngine
from tests.database.world import World, table_schema
from tests.fixtures.world import World as DeployedWorld


def _job(world: DeployedWorld, kind: str) -> Any:
    care = world.deployment.care
    care.start(kind)
    world.until(lambda: not care.is_busy)
    assert care.job is not None
    return care.job.shown()


def _fill(world: DeployedWorld, count: int, keep: int) -> None:
    engine = world.deployment._engine
    value = b"v" * 5_000
    engine.commit([(Tree.REPLACED, b"%08d" % n, value) for n in range(count)]).result(20)
    engine.commit([(Tree.REPLACED, b"%08d" % n, None) for n in range(keep, count)]).result(20)


def test_the_space_of_an_empty_deployment(empty: DeployedWorld) -> None:
    shown = _job(empty, "space")
    assert shown["state"] == "done" and shown["result"]["tables"] == []
    assert shown["result"]["unowned"] == 0


def test_verifying_a_deployment_that_serves(empty: DeployedWorld) -> None:
    assert _job(empty, "verify")["result"]["isSound"]
    empty.deployment._engine.commit([(Tree.INDEXES, b"\0\0\x99\x99key", b"")]).result(20)
    shown = _job(empty, "verify")
    assert shown["state"] == "done" and not shown["result"]["isSound"]
    assert shown["result"]["differences"][0]["code"] == "IndexOfNobody"


def test_compacting_a_deployment_that_serves(empty: DeployedWorld, tmp_path: Path) -> None:
    _fill(empty, 400, 1)
    before = empty.deployment.care.seen()
    shown = _job(empty, "compact")
    assert shown["state"] == "done", shown
    assert shown["result"]["afterBytes"] < before.file_bytes // 4
    assert not empty.deployment._engine._retired or all(
        home.closed.wait(20) for home in empty.deployment._engine._retired
    ), "the deployment's own snapshot has left the old file"


def test_one_job_at_a_time_and_only_those_that_there_are(empty: DeployedWorld) -> None:
    care = empty.deployment.care
    with pytest.raises(ClientError, check=lambda e: e.code == "InvalidJob"):
        care.start("tidy")
    care.start("space")
    with pytest.raises(ClientError, check=lambda e: e.code == "JobInProgress"):
        care.start("verify")
    assert not empty.deployment.is_idle
    empty.until(lambda: not care.is_busy)
    assert empty.deployment.is_idle


def test_a_job_that_fails_says_why(empty: DeployedWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skerry.storage.compaction.COMPACTION_DISK_SPARE_BYTES", 2**62)
    shown = _job(empty, "compact")
    assert shown["state"] == "failed" and shown["error"]["code"] == "StorageFull"
    assert _job(empty, "space")["state"] == "done"


@pytest.mark.parametrize("kind", ["verify", "compact"])
def test_closing_ends_a_job(tmp_path: Path, compiled: Path, kind: str) -> None:
    with DeployedWorld(tmp_path / "data", compiled) as world:
        _fill(world, 400, 300)
        care = world.deployment.care
        care.start(kind)
        world.wait(asyncio.sleep(0))
    assert not care.is_busy and care.job is not None and care.job.state in ("done", "failed")
    with pytest.raises(SystemFault, check=lambda e: e.code == "ShuttingDown"):
        care.start(kind)
    assert not (tmp_path / "data" / COPY_FOLDER).exists()


FREE, FILE = limits.COMPACTION_FREE_BYTES_MIN, 100 * limits.COMPACTION_FREE_BYTES_MIN // limits.COMPACTION_FREE_PERCENT


@pytest.mark.parametrize(
    ("file_bytes", "free_bytes", "is_worth"),
    [(FILE, FREE, True), (FILE + 100, FREE, False), (FREE, FREE - 1, False), (FREE, FREE, True)],
)
def test_what_is_worth_compacting(file_bytes: int, free_bytes: int, is_worth: bool) -> None:
    assert StorageSeen(0, file_bytes, free_bytes).is_worth_compacting is is_worth


def test_compacting_by_itself(empty: DeployedWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "COMPACTION_FREE_BYTES_MIN", 256 * limits.KIB)
    now = [0.0]
    deployment = empty.deployment
    care = Care(deployment.database, deployment._engine, empty.loop, lambda: now[0])

    def turn(is_behind: bool = False) -> str | None:
        care.job = None
        care.turn(is_behind)
        began = care.job
        empty.until(lambda: not care.is_busy)
        return None if began is None else began.kind

    assert turn() is None, "nothing is free"
    _fill(empty, 400, 1)
    assert turn(is_behind=True) is None, "there is history to drop first"
    assert turn() == "compact"
    assert care.seen().free_bytes < 256 * limits.KIB
    _fill(empty, 400, 1)
    now[0] += limits.COMPACTION_INTERVAL_SECONDS - 1
    assert turn() is None, "it is too soon"
    now[0] += 1
    assert turn() == "compact"


# -- settings ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [limits.HISTORY_RETENTION_S_MIN, limits.HISTORY_RETENTION_S_MAX])
def test_retention_at_its_bounds(seconds: int) -> None:
    assert checked_settings({"historyRetentionSeconds": seconds}) == {"historyRetentionSeconds": seconds}


@pytest.mark.parametrize(
    "asked",
    [
        [],
        {"historyRetentionSeconds": limits.HISTORY_RETENTION_S_MIN - 1},
        {"historyRetentionSeconds": limits.HISTORY_RETENTION_S_MAX + 1},
        {"historyRetentionSeconds": True},
        {"historyRetentionSeconds": 60.0},
        {"other": 60},
    ],
)
def test_settings_that_there_are_not(asked: Any) -> None:
    with pytest.raises(ClientError, check=lambda e: e.code == "InvalidSettings"):
        checked_settings(asked)


def test_settings_stay_and_go_back() -> None:
    engine = MemoryEngine()
    settings = Settings(engine)
    assert settings.shown() == {"historyRetentionSeconds": limits.HISTORY_RETENTION_S, "set": []}
    asyncio.run(settings.change({"historyRetentionSeconds": 60}))
    assert settings.retention_s == Settings(engine).retention_s == 60
    with pytest.raises(ClientError):
        asyncio.run(settings.change({"historyRetentionSeconds": 1}))
    assert settings.retention_s == 60
    asyncio.run(settings.change({"historyRetentionSeconds": None}))
    assert Settings(engine).shown() == {"historyRetentionSeconds": limits.HISTORY_RETENTION_S, "set": []}
    engine.commit([(Tree.META, SETTINGS_KEY, b"{")]).result(1)
    with pytest.raises(SystemFault, check=lambda e: e.code == "DataFolderFormat"):
        Settings(engine)


def test_space_of_tables_with_history(tmp_path: Path) -> None:
    engine = LmdbEngine(tmp_path / "d")
    world = World(engine)
    world.schema(table_schema("t", {"by_n": ["n"]}))
    ids = world.insert_all("t", [{"n": n} for n in range(10)])
    world.run(lambda t: t.patch(ids[0], {"n": 50}))
    loop = asyncio.new_event_loop()
    care = Care(world.database, engine, loop)

    async def run() -> dict[str, Any]:
        job = care.start("space")
        await care.closed()
        assert job.result is not None, job.shown()
        return job.result

    result = loop.run_until_complete(run())
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
    (table,) = result["tables"]
    assert (table["name"], table["documents"], table["versions"]) == ("t", 10, 1)
    by_time, by_n = table["indexes"]
    assert (by_time["entries"], by_time["history"], by_n["entries"], by_n["history"]) == (10, 0, 10, 1)
    assert by_n["entryBytes"] > by_time["entryBytes"] > 10 * 20 and result["commits"] == 3
    engine.close()
