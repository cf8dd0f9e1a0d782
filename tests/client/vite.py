"""The chat example's page as `npm run dev` serves it: a copy of the example with its pinned packages, and Vite."""

import os
import re
import shutil
import subprocess
import threading
from pathlib import Path

from skerry.bundle.node import find_node, install_packages, node_environment
from tests.client.browser import not_run
from tests.conftest import REPOSITORY

CHAT = REPOSITORY / "examples" / "chat"
NODE_MIN = (20, 19)
STOP_SECONDS_MAX = 20


class ViteServer:
    """Vite in development mode on a copy of the example. Shape: `url` is the page's."""

    def __init__(self, folder: Path, deployment_url: str) -> None:
        node = find_node(lambda _: None)
        if tuple(map(int, node.version.split(".")[:2])) < NODE_MIN:
            not_run(f"Vite needs Node {'.'.join(map(str, NODE_MIN))} or newer, and {node.version} is here. Install it.")
        packages = install_packages(node, CHAT, "chat")
        shutil.copytree(CHAT, folder, ignore=shutil.ignore_patterns("node_modules", ".skerry"))
        # Vite writes beside its packages and serves nothing outside of the folder: they are there, and not by a link.
        shutil.copytree(packages / "node_modules", folder / "node_modules", symlinks=True, copy_function=_link)
        self._process = subprocess.Popen(
            [node.executable, "node_modules/vite/bin/vite.js", "--clearScreen", "false"],
            cwd=folder,
            env={**node_environment(), "VITE_CONVEX_URL": deployment_url, "NO_COLOR": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.url = self._address()

    def _address(self) -> str:
        assert self._process.stdout is not None
        said: list[str] = []
        for line in self._process.stdout:
            said.append(line)
            if (found := re.search(r"http://127\.0\.0\.1:\d+/", line)) is not None:
                self._drain = threading.Thread(target=self._process.stdout.read)
                self._drain.start()
                return found[0]
        self._process.communicate()
        raise AssertionError(f"Vite ended: {''.join(said)}")

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(STOP_SECONDS_MAX)
        self._drain.join()
        assert self._process.stdout is not None
        self._process.stdout.close()


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)
