"""Hosts in process, over folders of their own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.admin.world import HostWorld
from tests.fixtures import shared


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run's own temporary folder."""
    return tmp_path_factory.getbasetemp()


@pytest.fixture
def host(tmp_path: Path, base: Path) -> Iterator[HostWorld]:
    with HostWorld(tmp_path / "data", shared.compiled(base)) as made:
        yield made
