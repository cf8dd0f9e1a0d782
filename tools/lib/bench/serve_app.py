"""`tools/bench serve`: the bench app behind a plain `skerry serve`, for load generators other than ours.

The app is deployed before the port answers: a server on another port takes the bundle and stops, then this process
becomes the server. What is measured is the product's own command, with nothing around it.
"""

import os
import sys
from pathlib import Path
from typing import NoReturn

from bench.apps import BENCH_APP, bundle_of
from bench.server import Server, environment


def serve_app(data: Path, port: int) -> NoReturn:
    """Never returns: becomes `skerry serve`."""
    bundle = bundle_of(BENCH_APP)
    data.mkdir(parents=True, exist_ok=True)
    deployed = data / "deployed"
    folder = data / "skerry"
    if not deployed.is_file() or deployed.read_text() != bundle.name:
        with Server(folder) as server:
            server.deploy(bundle.read_bytes())
        deployed.write_text(bundle.name)
    command = [sys.executable, "-m", "skerry", "serve", "--data", str(folder), "--port", str(port), "--site-port", "0"]
    os.execve(sys.executable, command, environment())
