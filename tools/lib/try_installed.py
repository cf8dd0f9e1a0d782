"""`try_installed.py SKERRY APP`: an installed `skerry dev` builds, deploys and serves an app, is called, and ends."""

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

SECONDS_MAX = 300


def main() -> int:
    command, app = sys.argv[1:]
    environment = {**os.environ, "SKERRY_CACHE_DIR": str(Path(app).parent / "cache")}
    server = subprocess.Popen(
        [command, "dev", app, "--port", "0", "--site-port", "0", "--json"],
        stdout=subprocess.PIPE,
        env=environment,
        cwd=Path(app).parent,
    )
    try:
        url = json.loads(_line(server))["url"]
        sent = {"channel": "general", "author": "Ada", "body": "from the wheel"}
        nothing, until = threading.Event(), time.monotonic() + SECONDS_MAX
        while True:
            try:
                _call(url, "mutation", "messages:send", sent)
                break
            except AssertionError:  # nothing is deployed yet
                if time.monotonic() > until or server.poll() is not None:
                    raise
                nothing.wait(0.5)
        listed = _call(url, "query", "messages:list", {"channel": "general"})
        assert "from the wheel" in json.dumps(listed), listed
    finally:
        server.send_signal(signal.SIGINT)
        code = server.wait(SECONDS_MAX)
    sys.stdout.write(f"the installed package deployed, wrote and read; it ended with {code}\n")
    return code


def _line(server: "subprocess.Popen[bytes]") -> bytes:
    assert server.stdout is not None
    assert select.select([server.stdout], [], [], SECONDS_MAX)[0], "it said nothing"
    return server.stdout.readline()


def _call(url: str, kind: str, path: str, args: object) -> object:
    body = json.dumps({"path": path, "args": args}).encode()
    request = urllib.request.Request(f"{url}/api/{kind}", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=SECONDS_MAX) as answer:
        answered = json.loads(answer.read())
    assert answered["status"] == "success", answered
    return answered["value"]


if __name__ == "__main__":
    sys.exit(main())
