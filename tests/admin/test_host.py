"""Many deployments in one process: opened once by those who call, closed when idle, paused, deleted, never mixed."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from skerry.admin.host import DEFAULT_NAME
from skerry.admin.registry import Quotas, State
from skerry.errors import SkerryError, SystemFault
from skerry.limits import (
    ACTIVATIONS_MAX,
    DEPLOYMENT_IDLE_SECONDS,
    DEPLOYMENT_OPENING_CALLS_MAX,
    DEPLOYMENT_REOPEN_SECONDS,
    DEPLOYMENTS_OPEN_MAX,
    DEPLOYMENTS_OPENING_MAX,
)
from tests.admin.world import HostWorld
from tests.fixtures import shared
from tests.fixtures.world import request


def refused(world: HostWorld, name: str) -> str:
    """The code that a call is refused with."""
    with pytest.raises(SkerryError) as caught:
        world.wait(world.call(name, "query", "f:add", {"x": 1, "y": 2}))
    return caught.value.code


def code_of(world: HostWorld, make: Callable[[], Any]) -> str:
    with pytest.raises(SkerryError) as caught:
        world.wait(make())
    return caught.value.code


def test_the_default_deployment_is_there_and_stays_open(host: HostWorld, base: Path) -> None:
    host.deploy(DEFAULT_NAME, shared.bundle("c", base))
    assert [record.name for record in host.host.registry.listed()] == [DEFAULT_NAME]
    host.sweep(DEPLOYMENT_IDLE_SECONDS * 2)
    assert host.host.default.is_open
    assert host.value(DEFAULT_NAME, "query", "f:add", {"x": 1, "y": 2}) == 3


def test_deployments_share_nothing(host: HostWorld, base: Path) -> None:
    host.create("one", "two")
    for name in ("one", "two"):
        host.deploy(name, shared.bundle("c", base))
    made = host.value("one", "mutation", "f:insert", {"n": 1, "body": "of one"})
    assert [note["_id"] for note in host.value("one", "query", "f:list", {"n": 1})] == [made]
    assert host.value("two", "query", "f:list", {"n": 1}) == []
    keys = {host.hosted(name)._deployment.database.page_key for name in ("one", "two")}  # type: ignore[union-attr]  # both are open
    assert len(keys) == 2, "a cursor of one deployment would be taken by another"


def test_a_deployment_opens_at_its_first_call_and_closes_when_idle(host: HostWorld, base: Path) -> None:
    host.create("one")
    assert not host.hosted("one").is_open
    host.deploy("one", shared.bundle("c", base))
    host.sweep(DEPLOYMENT_IDLE_SECONDS - 1)
    assert host.hosted("one").is_open
    host.sweep(DEPLOYMENT_IDLE_SECONDS)
    assert not host.hosted("one").is_open
    assert host.host.open_count == 1
    assert host.value("one", "query", "f:add", {"x": 1, "y": 2}) == 3
    assert host.hosted("one").opened_count == 2


def test_a_thousand_first_calls_open_it_once(host: HostWorld, base: Path) -> None:
    host.create("one")
    host.deploy("one", shared.bundle("c", base))
    host.sweep(DEPLOYMENT_IDLE_SECONDS)

    async def together() -> list[Any]:
        calls = (host.call("one", "mutation", "f:insert", {"n": 7, "body": str(n)}) for n in range(1_000))
        return await asyncio.gather(*calls)

    assert all(result.ok for result in host.wait(together()))
    assert host.hosted("one").opened_count == 2
    bodies = {note["body"] for note in host.value("one", "query", "f:list", {"n": 7})}
    assert bodies == {str(n) for n in range(1_000)}


def test_calls_that_wait_for_an_opening_at_the_bound_and_one_past_it(host: HostWorld) -> None:
    host.create("one")
    outcomes: list[Any] = []
    for _ in range(DEPLOYMENT_OPENING_CALLS_MAX + 1):
        host.hosted("one").call(request("query", "f:add", {}), outcomes.append)
    assert [outcome.code for outcome in outcomes] == ["TooManyConcurrentRequests"]
    host.wait(_use(host, "one"))
    assert len(outcomes) == DEPLOYMENT_OPENING_CALLS_MAX + 1


def test_the_one_idle_for_longest_makes_room(tmp_path: Path, base: Path) -> None:
    with HostWorld(tmp_path / "data", shared.compiled(base), open_max=3) as world:
        world.create("one", "two", "three")
        for name in ("one", "two"):
            world.deploy(name, shared.bundle("c", base))
            world.sweep(1)
        assert world.host.open_count == 3
        world.deploy("three", shared.bundle("c", base))
        world.settle()
        assert [name for name in ("one", "two", "three") if world.hosted(name).is_open] == ["two", "three"]
        assert world.host.open_count == 3


def test_no_room_where_all_are_busy(tmp_path: Path, base: Path) -> None:
    assert DEPLOYMENTS_OPEN_MAX > 2
    with HostWorld(tmp_path / "data", shared.compiled(base), open_max=2) as world:
        world.create("one", "two")

        async def while_one_is_busy() -> str:
            async with world.hosted("one").using():
                with pytest.raises(SystemFault) as caught:
                    async with world.hosted("two").using():
                        pass
                return caught.value.code

        assert world.wait(while_one_is_busy()) == "TooManyDeploymentsOpen"
        world.seconds += DEPLOYMENT_REOPEN_SECONDS
        world.deploy("two", shared.bundle("c", base))
        assert not world.hosted("one").is_open


def test_a_deployment_that_cannot_be_opened_hurts_nobody_else(host: HostWorld, base: Path, tmp_path: Path) -> None:
    host.create("one")
    host.deploy("one", shared.bundle("c", base))
    host.sweep(DEPLOYMENT_IDLE_SECONDS)
    folder = tmp_path / "data" / "deployments" / "one"
    (bundle,) = (folder / "bundles").iterdir()
    raw = bundle.read_bytes()
    bundle.unlink()
    (folder / "checked" / bundle.name).unlink()
    assert refused(host, "one") == "StorageFailed"
    bundle.write_bytes(raw)
    assert refused(host, "one") == "StorageFailed", "it is not tried again at every call"
    host.seconds += DEPLOYMENT_REOPEN_SECONDS
    assert host.value("one", "query", "f:add", {"x": 1, "y": 2}) == 3
    assert host.host.open_count == 2


def test_a_paused_deployment_refuses_and_comes_back(host: HostWorld, base: Path) -> None:
    host.create("one")
    host.deploy("one", shared.bundle("c", base))
    assert host.wait(host.host.pause("one")).state is State.PAUSED
    assert refused(host, "one") == "DeploymentPaused"
    assert code_of(host, lambda: _use(host, "one")) == "DeploymentPaused"
    host.wait(host.host.resume("one"))
    assert host.value("one", "query", "f:add", {"x": 1, "y": 2}) == 3


async def _use(host: HostWorld, name: str) -> None:
    async with host.hosted(name).using():
        pass


def test_calls_in_flight_finish_when_it_is_paused_or_deleted(host: HostWorld, base: Path) -> None:
    host.create("one", "two")

    async def end(name: str) -> Any:
        call = asyncio.ensure_future(host.call(name, "mutation", "f:insert", {"n": 1, "body": "x"}))
        await asyncio.sleep(0)
        await (host.host.pause(name) if name == "one" else host.host.delete(name))
        return await call

    for name in ("one", "two"):
        host.deploy(name, shared.bundle("c", base))
        assert host.wait(end(name)).ok


def test_deleting_takes_everything_and_frees_the_name(host: HostWorld, base: Path, tmp_path: Path) -> None:
    host.create("one")
    host.deploy("one", shared.bundle("c", base))
    host.value("one", "mutation", "f:insert", {"n": 1, "body": "x"})
    held = host.hosted("one")
    record, text = host.wait(host.host.create_key("one", "admin", "", None))
    host.wait(host.host.delete("one"))
    assert not (tmp_path / "data" / "deployments" / "one").exists()
    assert host.host.find("one") is None
    outcomes: list[Any] = []
    held.call(request("query", "f:list", {"n": 1}), outcomes.append)
    assert outcomes[0].code == "DeploymentNotFound"
    assert code_of(host, lambda: host.host.delete("one")) == "DeploymentNotFound"
    assert code_of(host, lambda: host.host.resume("one")) == "DeploymentNotFound"
    host.create("one")
    assert host.host.scope_of("one", text.encode()) is None
    assert host.host.registry.keys("one") == []
    host.deploy("one", shared.bundle("c", base))
    assert host.value("one", "query", "f:list", {"n": 1}) == []
    assert record.name == "one"


def test_a_deletion_that_a_crash_interrupted_is_finished(tmp_path: Path, base: Path) -> None:
    compiled = shared.compiled(base)
    with HostWorld(tmp_path / "data", compiled) as world:
        world.create("one", "two")
        for name in ("one", "two"):
            world.deploy(name, shared.bundle("c", base))
        for name in ("one", "two"):
            world.wait(world.host.registry.update(name, state=State.DELETING))
    two = tmp_path / "data" / "deployments" / "two"
    two.rename(two.with_name(".two.deleted"))
    with HostWorld(tmp_path / "data", compiled) as world:
        assert [record.name for record in world.host.registry.listed()] == [DEFAULT_NAME]
        assert [entry.name for entry in (tmp_path / "data" / "deployments").iterdir()] == [DEFAULT_NAME]
        world.create("one")


def test_what_lies_in_a_new_deployments_place_is_not_inherited(host: HostWorld, tmp_path: Path) -> None:
    (tmp_path / "data" / "deployments" / "old").mkdir()
    assert host.host.find("old") is None
    assert code_of(host, lambda: host.host.create("old")) == "DeploymentNameTaken"


@pytest.mark.parametrize(("change", "told"), [("pause", "DeploymentPaused"), ("delete", "DeploymentNotFound")])
def test_what_was_asked_is_done_though_its_asker_left(host: HostWorld, change: str, told: str) -> None:
    host.create("one")
    held = host.hosted("one")

    async def ask_and_leave() -> None:
        asked = asyncio.ensure_future(getattr(host.host, change)("one"))
        await asyncio.sleep(0)  # it begins
        asked.cancel()
        await asyncio.wait([asked])

    host.wait(ask_and_leave())
    host.settle()
    with pytest.raises(SkerryError, check=lambda error: error.code == told):
        host.wait(held.run(request("query", "f:add", {})))


def test_the_default_deployment_is_not_deleted(host: HostWorld) -> None:
    assert code_of(host, lambda: host.host.delete(DEFAULT_NAME)) == "DeploymentProtected"


def test_what_was_set_survives_a_restart(tmp_path: Path, base: Path) -> None:
    compiled = shared.compiled(base)
    with HostWorld(tmp_path / "data", compiled) as world:
        world.create("one")
        world.wait(world.host.pause("one"))
        world.wait(world.host.set_quotas("one", Quotas(storage_bytes=1_000)))
        world.host.registry.add_usage("one", {"calls": 2, "cpuUs": 30})
        world.host.registry.add_usage("one", {"calls": 1})
        assert world.host.registry.has_unsaved_usage
    with HostWorld(tmp_path / "data", compiled) as world:
        record = world.host.registry.find("one")
        assert record is not None
        assert (record.state, record.quotas.storage_bytes) == (State.PAUSED, 1_000)
        assert world.host.registry.usage("one") == {"calls": 3, "cpuUs": 30}
        assert not world.host.registry.has_unsaved_usage
        assert refused(world, "one") == "DeploymentPaused"


def test_a_closed_host_refuses(tmp_path: Path, base: Path) -> None:
    world = HostWorld(tmp_path / "data", shared.compiled(base))
    world.create("one")
    held = world.hosted("one")
    outcomes: list[Any] = []
    held.call(request("query", "f:add", {}), outcomes.append)
    world.wait(world.host.close())
    held.call(request("query", "f:add", {}), outcomes.append)
    assert [outcome.code for outcome in outcomes if isinstance(outcome, SkerryError)][-1] == "ShuttingDown"
    assert len(outcomes) == 2
    world.crash()


def test_a_closed_host_leaves_nothing_that_waited_to_open(tmp_path: Path, base: Path) -> None:
    world = HostWorld(tmp_path / "data", shared.compiled(base))
    names = [f"d{n}" for n in range(DEPLOYMENTS_OPENING_MAX + 2)]
    world.create(*names)
    outcomes: list[Any] = []

    async def call_all_and_close() -> None:
        for name in names:
            world.hosted(name).call(request("query", "f:add", {}), outcomes.append)
        openings = [world.hosted(name)._opening for name in names]
        assert None not in openings
        await world.host.close()
        await asyncio.gather(*filter(None, openings))

    world.wait(call_all_and_close())
    assert len(outcomes) == len(names)
    assert [name for name in names if world.hosted(name).is_open] == []
    world.crash()


def test_a_deletion_that_cannot_be_finished_keeps_no_other_from_being_served(tmp_path: Path, base: Path) -> None:
    compiled = shared.compiled(base)
    with HostWorld(tmp_path / "data", compiled) as world:
        world.create("one", "two")
        world.deploy("one", shared.bundle("c", base))
        world.deploy("two", shared.bundle("c", base))
        world.wait(world.host.registry.update("one", state=State.DELETING))
    (tmp_path / "data" / "deployments" / "one" / "FORMAT").write_text("skerry-deployment 0\n")
    with HostWorld(tmp_path / "data", compiled) as world:
        assert world.host.find("one") is None
        assert world.value("two", "query", "f:add", {"x": 1, "y": 2}) == 3
        assert code_of(world, lambda: world.host.create("one")) == "DeploymentNameTaken"


def test_openings_and_activations_at_once_are_bounded(host: HostWorld) -> None:
    opener = host.host._opener
    assert (opener.opening._value, opener.activating._value) == (DEPLOYMENTS_OPENING_MAX, ACTIVATIONS_MAX)
    names = [f"d{n}" for n in range(max(DEPLOYMENTS_OPENING_MAX, ACTIVATIONS_MAX) + 1)]
    host.create(*names)

    async def together() -> list[int]:
        busy = [0, 0]
        are_full = asyncio.Event()

        async def activate(name: str) -> None:
            async with host.hosted(name).activating():
                busy[0] += 1
                busy[1] = max(busy)
                if busy[0] == ACTIVATIONS_MAX:
                    are_full.set()
                await are_full.wait()
                busy[0] -= 1

        await asyncio.gather(*map(activate, names))
        return busy

    assert host.wait(together()) == [0, ACTIVATIONS_MAX]


def test_compiled_code_is_shared_by_the_deployments_that_run_it(host: HostWorld, base: Path) -> None:
    host.create("one", "two")
    for name in ("one", "two"):
        host.deploy(name, shared.bundle("c", base))

    async def module_of(name: str) -> Any:
        async with host.hosted(name).using() as deployment:
            assert deployment.version is not None
            return deployment.version.module

    assert host.wait(module_of("one")) is host.wait(module_of("two"))
