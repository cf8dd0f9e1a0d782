"""The unmodified `ConvexClient` of the PyPI package against a real server.

Its calls wait without an end, so each test runs in a process of its own that is given one.
"""

import importlib.metadata
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from tests.http.serving import RunningServer, environment

CONVEX_VERSION = "0.8.1"
SECONDS_MAX = 60
SCRIPT = Path(__file__).parent / "python_client.py"
PARTS = ("queries", "failures", "subscribes", "orders", "reconnects", "admin")


@pytest.mark.skipif(
    importlib.util.find_spec("convex") is None,
    reason="THE PyPI CLIENT WAS NOT TESTED: `convex` has no wheel for this machine. Run this on Linux.",
)
@pytest.mark.parametrize("part", PARTS)
def test_the_client_of_pypi(server: RunningServer, part: str) -> None:
    assert importlib.metadata.version("convex") == CONVEX_VERSION
    done = subprocess.run(
        [sys.executable, str(SCRIPT), part],
        env=environment(SKERRY_URL=server.url, SKERRY_KEY=server.admin_key),
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    assert done.returncode == 0 and done.stdout.endswith(f"{part} passed\n"), done.stdout + done.stderr


def test_every_part_is_run() -> None:
    source = SCRIPT.read_text()
    assert [line[4 : line.index("(")] for line in source.splitlines() if line.startswith("def ")] == list(PARTS)
