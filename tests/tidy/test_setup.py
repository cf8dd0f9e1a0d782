"""The set-up script where something is missing: ensurepip, every pip but an index, the stamp of an environment."""

import contextlib
import hashlib
import http.server
import importlib.util
import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tests.tidy.source_files import REPOSITORY

WHEEL = b"the bytes of a wheel"
NAME = "pip-1.0-py3-none-any.whl"


@pytest.fixture
def bootstrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module, working on a checkout of its own."""
    spec = importlib.util.spec_from_file_location("bootstrap", REPOSITORY / "tools" / "lib" / "bootstrap.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    venv = tmp_path / ".venv"
    for name, path in {
        "ROOT": tmp_path,
        "VENV": venv,
        "STAMP": venv / ".skerry-ready",
        "LOCK": tmp_path / "requirements.lock",
        "PIP_LOCK": tmp_path / "requirements-pip.lock",
    }.items():
        monkeypatch.setattr(module, name, path)
    (tmp_path / ".cache").mkdir()
    (tmp_path / "requirements.lock").write_text("")
    digest = hashlib.sha256(WHEEL).hexdigest()
    (tmp_path / "requirements-pip.lock").write_text(f"pip==1.0 \\\n    --hash=sha256:{digest}\n")
    monkeypatch.delenv("PIP_INDEX_URL", raising=False)
    return module


@pytest.fixture
def index() -> Iterator[Callable[[dict[str, bytes]], str]]:
    """Serves path -> body on this machine and answers with the index's address."""
    with contextlib.ExitStack() as stack:

        def serve(bodies: dict[str, bytes]) -> str:
            class Handler(http.server.BaseHTTPRequestHandler):
                def do_GET(self) -> None:
                    body = bodies.get(self.path)
                    self.send_response(200 if body is not None else 404)
                    self.end_headers()
                    self.wfile.write(body or b"")

                def log_message(self, *_: object) -> None:
                    pass

            server = stack.enter_context(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler))
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            stack.callback(thread.join)
            stack.callback(server.shutdown)
            return f"http://127.0.0.1:{server.server_port}/simple"

        yield serve


JSON_PAGE = json.dumps({"files": [{"filename": NAME, "url": f"../../files/{NAME}"}]}).encode()
HTML_PAGE = f'<a href="../../files/{NAME}#sha256=00">{NAME}</a>'.encode()


@pytest.mark.parametrize("page", [JSON_PAGE, HTML_PAGE], ids=["json", "html"])
def test_pip_comes_from_the_configured_index(
    bootstrap: ModuleType,
    index: Callable[[dict[str, bytes]], str],
    page: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = index({"/simple/pip/": page, f"/files/{NAME}": WHEEL})
    config = tmp_path / "pip.conf"
    config.write_text(f"[global]\nindex-url = {url}\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(config))
    ((_, wheel),) = bootstrap._pip_from_index()
    assert Path(wheel).parent.read_bytes() == WHEEL


def test_pip_with_another_hash_is_refused(
    bootstrap: ModuleType, index: Callable[[dict[str, bytes]], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = index({"/simple/pip/": JSON_PAGE, f"/files/{NAME}": WHEEL + b"!"})
    monkeypatch.setenv("PIP_INDEX_URL", url)
    assert list(bootstrap._pip_from_index()) == []


def test_an_index_that_does_not_answer_is_passed_over(
    bootstrap: ModuleType, index: Callable[[dict[str, bytes]], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", index({}))
    assert list(bootstrap._pip_from_index()) == []


def test_without_any_pip_the_message_names_the_command(bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "_has_ensurepip", lambda: False)
    monkeypatch.setattr(bootstrap, "_answers", lambda command: False)
    monkeypatch.setattr(bootstrap, "_pip_after_apt_get", lambda: iter(()))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("HOME", str(bootstrap.ROOT))
    with pytest.raises(bootstrap.SetupError, match=r"apt-get install python3\.\d+-venv"):
        bootstrap._create_environment()


def test_a_leftover_folder_is_no_ensurepip(
    bootstrap: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Debian can leave an empty `ensurepip` folder, which Python takes for a namespace package."""
    (tmp_path / "lib" / "ensurepip").mkdir(parents=True)
    monkeypatch.delitem(sys.modules, "ensurepip", raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path / "lib")])
    assert not bootstrap._has_ensurepip()


def test_an_environment_without_its_stamp_is_not_ready(bootstrap: ModuleType) -> None:
    python = bootstrap.VENV / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    assert not bootstrap._is_ready()
    bootstrap.STAMP.write_text("")
    assert bootstrap._is_ready()
    bootstrap.LOCK.write_text("moved==2.0\n")
    assert not bootstrap._is_ready()
