"""The cache of compiled modules, shared with the other folders of tests."""

from pathlib import Path

import pytest

from skerry.isolate import ModuleCache
from tests.fixtures import shared


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run's own temporary folder."""
    return tmp_path_factory.getbasetemp()


@pytest.fixture(scope="session")
def cache(base: Path) -> ModuleCache:
    return shared.module_cache(base)
