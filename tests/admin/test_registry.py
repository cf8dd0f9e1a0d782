"""A registry that several processes change: no name is given twice, and no usage is lost."""

import asyncio
import json
import subprocess
import sys
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from skerry.admin.registry import Registry
from skerry.errors import ClientError, SystemFault
from skerry.limits import REGISTRY_ATTEMPTS_MAX
from skerry.storage.folder import DeploymentFolder, Hold
from skerry.storage.lmdb_engine import LmdbEngine
from skerry.storage.memory_engine import MemoryEngine
from tests.http.serving import environment

PROCESSES = 3
ROUNDS = 30


def test_processes_that_change_a_registry_at_once_lose_nothing(tmp_path: Path) -> None:
    command = [sys.executable, str(Path(__file__).with_name("registry_writer.py")), str(tmp_path / "host"), str(ROUNDS)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environment()}
    writers = [subprocess.Popen(command, **pipes) for _ in range(PROCESSES)]
    for writer in writers:
        assert writer.stdout is not None and writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    created = [json.loads(writer.communicate()[0]) for writer in writers]
    assert [writer.returncode for writer in writers] == [0] * PROCESSES
    assert sorted(name for names in created for name in names) == sorted(f"n{number}" for number in range(ROUNDS))
    engine = LmdbEngine(tmp_path / "host", folder_format=DeploymentFolder.HOST_FORMAT, hold=Hold.SHARED)
    registry = Registry(engine, engine)
    assert registry.usage("n1") == {"calls": PROCESSES}
    assert registry.usage("n0") == {"calls": PROCESSES * (ROUNDS + 1)}
    registry.close()


class Crowded:
    """A shared engine where others came first, so many times."""

    last_change = 0

    def __init__(self, engine: MemoryEngine, refusals: int) -> None:
        self.engine = engine
        self.refusals = refusals

    def commit_after(self, change: int, writes: Any) -> "Future[bool]":
        self.refusals -= 1
        answer: Future[bool] = Future()
        if self.refusals < 0:
            self.engine.commit(writes).result()
        answer.set_result(self.refusals < 0)
        return answer


@pytest.mark.parametrize("past", [0, 1])
def test_a_change_is_tried_as_often_as_it_may_and_not_once_more(past: int) -> None:
    engine = MemoryEngine()
    registry = Registry(engine, Crowded(engine, REGISTRY_ATTEMPTS_MAX - 1 + past))
    if past:
        with pytest.raises(SystemFault) as caught:
            asyncio.run(registry.create("one", 1))
        assert caught.value.code == "RegistryBusy" and registry.find("one") is None
    else:
        assert asyncio.run(registry.create("one", 1)).name == "one"


class Overtaken:
    """A shared engine on which another process makes the same change first."""

    def __init__(self, engine: MemoryEngine) -> None:
        self.engine = engine
        self.last_change = 0

    def commit_after(self, change: int, writes: Any) -> "Future[bool]":
        self.engine.commit(writes).result()
        self.last_change += 1
        refused: Future[bool] = Future()
        refused.set_result(False)
        return refused


def test_processes_that_start_together_agree_on_who_made_a_deployment() -> None:
    engine = MemoryEngine()
    registry = Registry(engine, Overtaken(engine))
    with pytest.raises(ClientError) as caught:
        asyncio.run(registry.create("one", 1))
    assert caught.value.code == "DeploymentNameTaken"
    assert asyncio.run(registry.find_or_create("one", 2)).created_ms == 1
    engine = MemoryEngine()
    registry = Registry(engine, Overtaken(engine))
    assert asyncio.run(registry.find_or_create("one", 3)).created_ms == 3
    with pytest.raises(ClientError) as refused:
        asyncio.run(registry.find_or_create("No Name", 3))
    assert refused.value.code == "DeploymentNameInvalid"


def test_usage_that_could_not_be_saved_is_saved_the_next_time() -> None:
    engine = MemoryEngine()
    registry = Registry(engine, Crowded(engine, 0))

    async def use() -> None:
        await registry.create("one", 1)
        registry.add_usage("one", {"calls": 2})
        registry._shared = Crowded(engine, REGISTRY_ATTEMPTS_MAX)
        with pytest.raises(SystemFault):
            await registry.save_usage()
        assert registry.has_unsaved_usage and registry.usage("one") == {"calls": 2}
        registry._shared = Crowded(engine, 0)
        registry.add_usage("one", {"calls": 1, "hostcalls": 5})
        await registry.save_usage()
        assert not registry.has_unsaved_usage and registry.usage("one") == {"calls": 3, "hostcalls": 5}

    asyncio.run(use())
    assert Registry(engine).usage("one") == {"calls": 3, "hostcalls": 5}
