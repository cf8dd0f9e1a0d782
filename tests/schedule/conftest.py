"""Deployments in which the app of scheduled functions is active."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixtures import shared
from tests.schedule.world import Clocked, schedule_bundle


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.getbasetemp()


@pytest.fixture
def world(base: Path, tmp_path: Path) -> Iterator[Clocked]:
    with Clocked(tmp_path / "data", shared.compiled(base)) as made:
        made.activate(schedule_bundle(base))
        yield made
