"""The unmodified `ConvexClient` of the pinned npm package, in Node, against a real server."""

from pathlib import Path

from tests.client.node_suite import run_suite
from tests.http.serving import RunningServer

SCRIPT = Path(__file__).parent / "live_client.mjs"


def test_the_npm_client_that_watches(server: RunningServer, tmp_path: Path) -> None:
    run_suite(SCRIPT, server, tmp_path)
