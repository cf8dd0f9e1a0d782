"""Worlds over each storage engine."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.database.world import World, lmdb_world, memory_world


@pytest.fixture(params=["memory", "lmdb"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    world = memory_world() if request.param == "memory" else lmdb_world(tmp_path)
    yield world
    world.engine.close()


@pytest.fixture
def memory() -> Iterator[World]:
    world = memory_world()
    yield world
    world.engine.close()
