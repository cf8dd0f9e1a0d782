"""What a host does about versions that crashed its process: refuses them, lists them, lets them run again."""

from pathlib import Path

import pytest

from skerry.admin.host import HostShare
from skerry.errors import SystemFault
from tests.admin.world import HostWorld
from tests.fixtures import shared


class View:
    """What a supervisor keeps from being run; `answers` is false while it says nothing."""

    def __init__(self) -> None:
        self.modules: set[tuple[str, str]] = set()
        self.answers = True

    def has(self, deployment: str, digest: str) -> bool:
        return (deployment, digest) in self.modules

    def listed(self) -> list[tuple[str, str]]:
        return sorted(self.modules)

    async def lift(self, deployment: str) -> None:
        if not self.answers:
            raise SystemFault("QuarantineUnchanged", "It said nothing.")
        self.modules = {module for module in self.modules if module[0] != deployment}


@pytest.fixture
def view() -> View:
    return View()


@pytest.fixture
def world(tmp_path: Path, base: Path, view: View) -> HostWorld:
    share = HostShare(owns=lambda name: True, succeeds=False, quarantine=view)
    return HostWorld(tmp_path / "host", shared.compiled(base), share=share, idle_seconds=1)


def test_a_quarantined_version_runs_again_once_that_is_lifted(world: HostWorld, view: View, base: Path) -> None:
    with world:
        world.create("one", "two")
        for name in ("one", "two"):
            world.deploy(name, shared.bundle("c", base))
        digest = world.wait(_version(world, "one"))
        world.sweep(2)  # closes both
        view.modules = {("one", digest), ("two", digest)}
        with pytest.raises(SystemFault, match="crashed the server"):
            world.wait(world.call("one", "query", "counters:read", {"name": "x"}))
        view.answers = False
        with pytest.raises(SystemFault, match="said nothing"):
            world.wait(world.host.lift_quarantine("one"))
        view.answers = True
        assert world.wait(world.host.lift_quarantine("one")) == [digest]
        assert world.host.quarantined() == [("two", digest)]
        assert world.wait(_version(world, "one")) == digest
        assert world.wait(world.host.lift_quarantine("one")) == []


def test_another_version_and_the_end_of_a_deployment_lift_its_quarantine(world: HostWorld, view: View) -> None:
    with world:
        world.create("one")
        view.modules = {("one", "0" * 64), ("local", "1" * 64)}
        world.wait(world.host.activated("one"))
        assert world.host.quarantined() == [("local", "1" * 64)]
        view.modules.add(("one", "2" * 64))
        view.answers = False
        world.wait(world.host.activated("one"))  # it is live nevertheless
        view.answers = True
        world.wait(world.host.delete("one"))
        assert world.host.quarantined() == [("local", "1" * 64)]


async def _version(world: HostWorld, name: str) -> str | None:
    async with world.hosted(name).using() as deployment:
        return deployment.describe()["version"]
