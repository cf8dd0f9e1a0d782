"""The unmodified `ConvexClient` of the PyPI package against a real server.

Its calls wait without an end, so each test runs in a process of its own that is given one.
"""

import importlib.metadata
import importlib.util
import signal
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.http.serving import RunningServer, environment, serve

CONVEX_VERSION = "0.8.1"
SECONDS_MAX = 60
SCRIPT = Path(__file__).parent / "python_client.py"
PARTS = ("queries", "failures", "subscribes", "orders", "reconnects", "admin", "watches_all", "awaits")


needs_client = pytest.mark.skipif(
    importlib.util.find_spec("convex") is None,
    reason="THE PyPI CLIENT WAS NOT TESTED: `convex` has no wheel for this machine. Run this on Linux.",
)


@needs_client
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


@needs_client
def test_it_goes_on_watching_after_the_server_was_killed(app_bundle: Path, tmp_path: Path) -> None:
    with ExitStack() as ending:
        server = ending.enter_context(serve(tmp_path / "data"))
        assert server.deploy(app_bundle.read_bytes()).status == 200
        client = ending.enter_context(
            subprocess.Popen(
                [sys.executable, str(SCRIPT), "outlives"],
                env=environment(SKERRY_URL=server.url),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        )
        ending.callback(client.kill)
        watchdog = threading.Timer(2 * SECONDS_MAX, client.kill)  # its reads have no end of their own
        watchdog.start()
        ending.callback(watchdog.join)
        ending.callback(watchdog.cancel)
        assert client.stdout is not None and client.stdin is not None

        def send(to: RunningServer) -> None:
            to.call("mutation", "messages:send", {"channel": "outlives", "author": "Ada", "body": "x"})

        assert client.stdout.readline() == "0\n"
        send(server)
        assert client.stdout.readline() == "1\n"
        server.stop(signal.SIGKILL)
        server = ending.enter_context(serve(tmp_path / "data", port=urlsplit(server.url).port or 0))
        send(server)
        while (heard := client.stdout.readline()) != "2\n":
            assert heard == "1\n", "nothing is heard but what is"
        client.stdin.close()
        assert client.stdout.read() == "outlives passed\n"
        assert client.wait() == 0


def test_every_part_is_run() -> None:
    source = SCRIPT.read_text()
    assert [line[4 : line.index("(")] for line in source.splitlines() if line.startswith("def ")] == [
        *PARTS,
        "outlives",
    ]
