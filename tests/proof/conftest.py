"""What the proofs share: the folder of a run and its compiled modules."""

from pathlib import Path

import pytest

from tests.fixtures import shared


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run's own temporary folder."""
    return tmp_path_factory.getbasetemp()


@pytest.fixture(scope="session")
def compiled(base: Path) -> Path:
    return shared.compiled(base)
