"""Where the npm packages are that tests compare with."""

import os
from functools import cache
from pathlib import Path

from skerry.bundle.node import tool_packages


@cache
def convex_package() -> Path:
    """The folder of the npm package `convex` that the toolchain pins; SKERRY_TEST_CONVEX_DIR names another one."""
    given = os.environ.get("SKERRY_TEST_CONVEX_DIR")
    if given:
        return Path(given)
    _, folder = tool_packages(lambda _: None)
    return folder / "node_modules" / "convex"
