"""The unmodified `ConvexHttpClient` of the pinned npm package, in Node, against a real server."""

import re
import shutil
import subprocess
from pathlib import Path

from skerry.bundle.node import tool_packages
from tests.http.serving import RunningServer, environment

SCRIPT = Path(__file__).parent / "http_client.mjs"
CONVEX_VERSION = "1.48.0"


def test_the_npm_client(server: RunningServer, tmp_path: Path) -> None:
    node, packages = tool_packages(lambda _: None)
    assert f'"version": "{CONVEX_VERSION}"' in (packages / "node_modules" / "convex" / "package.json").read_text()
    (tmp_path / "node_modules").symlink_to(packages / "node_modules")
    shutil.copy(SCRIPT, tmp_path)
    done = subprocess.run(
        [node.executable, "--test", SCRIPT.name],
        cwd=tmp_path,
        env=environment(SKERRY_URL=server.url, SKERRY_KEY=server.admin_key),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    passed = re.search(r"pass (\d+)", done.stdout)
    assert passed is not None
    assert int(passed[1]) == len(re.findall(r"^test\(", SCRIPT.read_text(), re.M)), done.stdout
