"""Deployments in which the fixture guests are active."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from skerry.isolate import ModuleCache
from tests.fixtures import shared
from tests.fixtures.bundles import languages
from tests.fixtures.hands import FetchDouble
from tests.fixtures.world import World


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run's own temporary folder."""
    return tmp_path_factory.getbasetemp()


@pytest.fixture(scope="session")
def compiled(base: Path) -> Path:
    return shared.compiled(base)


@pytest.fixture(scope="session")
def cache(base: Path) -> ModuleCache:
    return shared.module_cache(base)


@pytest.fixture(scope="module", params=languages())
def world(request: pytest.FixtureRequest, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Each language's fixture guest, in a deployment that the tests of a module share."""
    with World(tmp_path_factory.mktemp("data"), shared.compiled(base), way_out=FetchDouble()) as made:
        made.activate(shared.bundle(request.param, base))
        yield made


@pytest.fixture
def empty(tmp_path: Path, compiled: Path) -> Iterator[World]:
    """A deployment without code."""
    with World(tmp_path / "data", compiled) as made:
        yield made


@pytest.fixture
def scripted(empty: World, base: Path) -> World:
    """A deployment of its own with the TypeScript guest."""
    empty.activate(shared.bundle("javascript", base))
    return empty
