"""Runs a file of Node tests, with the pinned npm packages beside it, against a server."""

import re
import shutil
import subprocess
from pathlib import Path

from skerry.bundle.node import tool_packages
from tests.http.serving import RunningServer, environment

CONVEX_VERSION = "1.48.0"


def run_suite(script: Path, server: RunningServer, folder: Path, **variables: str) -> None:
    """Every test of the file passes, and none is left out. Shape: `variables` are in the tests' environment."""
    node, packages = tool_packages(lambda _: None)
    assert f'"version": "{CONVEX_VERSION}"' in (packages / "node_modules" / "convex" / "package.json").read_text()
    (folder / "node_modules").symlink_to(packages / "node_modules")
    shutil.copy(script, folder)
    done = subprocess.run(
        [node.executable, "--test", script.name],
        cwd=folder,
        env=environment(SKERRY_URL=server.url, SKERRY_KEY=server.admin_key, **variables),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    passed = re.search(r"pass (\d+)", done.stdout)
    assert passed is not None
    assert int(passed[1]) == len(re.findall(r"^test\(", script.read_text(), re.M)), done.stdout
