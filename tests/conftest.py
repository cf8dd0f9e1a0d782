"""What every test gets: the repository's root, and a hypothesis profile without deadlines (time is never asserted)."""

from pathlib import Path

import pytest
from hypothesis import settings

REPOSITORY = Path(__file__).resolve().parent.parent

settings.register_profile("skerry", deadline=None, print_blob=True)
settings.load_profile("skerry")


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return REPOSITORY
