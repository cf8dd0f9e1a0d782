"""`skerry doctor` as a process: what it found, as lines and as JSON, and its exit code."""

import http.server
import json
import threading
from importlib.metadata import version
from pathlib import Path
from typing import ClassVar

from skerry.jail import WALL_NAMES
from tests.http.serving import skerry


def test_doctor_names_every_wall_and_exits_by_what_is_bad(tmp_path: Path) -> None:
    done = skerry("doctor", "--data", str(tmp_path), "--json")
    result = json.loads(done.stdout)
    findings = {finding["name"]: finding for finding in result["findings"]}
    assert {f"jail: {name}" for name in WALL_NAMES} <= findings.keys()
    assert {"python", "machine", "user", "disk", "file system"} <= findings.keys()
    bad = [name for name, finding in findings.items() if finding["level"] == "bad"]
    assert result["bad"] == len(bad)
    assert done.returncode == (1 if bad else 0)


def test_doctor_speaks_to_people(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    done = skerry("doctor", "--data", str(tmp_path))
    assert done.returncode == 1
    assert "BAD   data folder" in done.stdout
    assert "chmod go=" in done.stdout


class Index(http.server.BaseHTTPRequestHandler):
    """A package index: the release of each package that is in use, and for one of them a newer one."""

    newer: ClassVar[dict[str, str]] = {}

    def do_GET(self) -> None:
        name = self.path.strip("/").rpartition("/")[2]
        releases = [version(name), *([self.newer[name]] if name in self.newer else [])]
        links = [f'<a href="{name}-{release}-py3-none-any.whl">{name}</a>' for release in releases]
        body = f"<!DOCTYPE html><html><body>{''.join(links)}</body></html>".encode()
        self.send_response(200 if name != "lmdb" else 404)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def test_doctor_asks_an_index_for_newer_releases(tmp_path: Path) -> None:
    Index.newer = {"wasmtime": "999.1"}
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Index) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            done = skerry(
                "doctor", "--online", "--data", str(tmp_path), "--json",
                PIP_INDEX_URL=f"http://127.0.0.1:{server.server_port}/simple/", PIP_CONFIG_FILE="/dev/null",
                PIP_EXTRA_INDEX_URL=None, PIP_FIND_LINKS=None, PIP_NO_INDEX=None, PIP_DISABLE_PIP_VERSION_CHECK="1",
                PIP_RETRIES="0",
            )  # fmt: skip
        finally:
            server.shutdown()
            serving.join()
    found = {finding["name"]: finding for finding in json.loads(done.stdout)["findings"]}
    assert found["wasmtime"]["level"] == "note" and "999.1 is out" in found["wasmtime"]["says"]
    assert found["uvicorn"] == {
        "name": "uvicorn", "level": "ok", "says": f"{version('uvicorn')} is the newest release.",
    }  # fmt: skip
    assert found["lmdb"]["level"] == "note" and "could not be asked" in found["lmdb"]["says"]
