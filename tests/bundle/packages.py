"""Where the npm packages are that tests compare with."""

import os
from pathlib import Path

import pytest


def convex_package() -> Path:
    """The folder of the pinned npm package `convex`; skips the test where none is installed."""
    given = os.environ.get("SKERRY_TEST_CONVEX_DIR")
    if given:
        return Path(given)
    pytest.skip("the npm package convex is not installed: set SKERRY_TEST_CONVEX_DIR to its folder")
