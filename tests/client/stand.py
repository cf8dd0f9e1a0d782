"""A server, a browser and the pages in it: what the tests of pages stand on."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from tests.client.browser import Browser, Page
from tests.http.serving import RunningServer, serve


@dataclass
class Stand:
    """Shape: `start` keeps the server's port and data."""

    data: Path
    server: RunningServer
    browser: Browser
    pages: list[Page] = field(default_factory=list)

    def open_page(self, url: str) -> Page:
        self.pages.append(self.browser.open(url))
        return self.pages[-1]

    def close_pages(self) -> None:
        """Ends a test: what a page threw fails it."""
        thrown = [page.exceptions() for page in self.pages]
        while self.pages:
            self.pages.pop().close()
        assert not any(thrown), thrown

    def kill(self) -> None:
        self.server.stop(signal.SIGKILL)

    def start(self) -> None:
        self.server = serve(self.data, port=urlsplit(self.server.url).port or 0)


AnyStand = TypeVar("AnyStand", bound=Stand)


@contextmanager
def standing(kind: type[AnyStand], chromium: str, folder: Path, bundle: Path) -> Iterator[AnyStand]:
    """A stand whose server serves the bundle, ended whatever happens."""
    server = serve(folder / "data")
    try:
        assert server.deploy(bundle.read_bytes()).status == 200
        browser = Browser(chromium, folder / "profile")
        stand = kind(folder / "data", server, browser)
        try:
            yield stand
        finally:
            server = stand.server
            browser.close()
    finally:
        server.stop()
