"""A host driven in process: clocks and randomness in the test's hand, the loop run by the test."""

import asyncio
import hashlib
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import orjson

from skerry.admin.host import Host, HostOptions
from skerry.admin.hosted import Hosted
from skerry.functions.request import CallResult
from skerry.storage.folder import DataFolder
from tests.fixtures.world import FOUND_SECONDS_MAX, HOST_KEY, NOW_MS, request

T = TypeVar("T")

DEFAULT_KEY = "local|the-admin-key-of-tests"
CREDENTIAL = "host|the-credential-of-tests"


class HostWorld:
    """One host on a loop of its own. Close it."""

    def __init__(self, folder: Path, compiled: Path, **more: Any) -> None:
        self.loop = asyncio.new_event_loop()
        self.now_ns = NOW_MS * 1_000_000
        self.seconds = 1_000.0
        self._drawn = 0
        self.folder = DataFolder(folder)
        options = HostOptions(
            clock_ns=lambda: self.now_ns,
            monotonic=lambda: self.seconds,
            entropy=self._entropy,
            host_key=HOST_KEY,
            default_key=DEFAULT_KEY,
            credential=CREDENTIAL,
            compiled_cache=compiled,
            production=False,
            environment=lambda name: {"CONVEX_CLOUD_URL": f"http://{name}.localhost"},
            **more,
        )
        self.host = self.wait(self._make(options))
        self.wait(self.host.start())

    async def _make(self, options: HostOptions) -> Host:
        return Host(self.folder, options, self.loop)

    def _entropy(self, length: int) -> bytes:
        self._drawn += 1
        return hashlib.shake_128(b"host %d" % self._drawn).digest(length)

    def __enter__(self) -> "HostWorld":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if not self.loop.is_closed():
            self.wait(self.host.close())
            self.crash()

    def crash(self) -> None:
        """Ends the loop and unlocks the folder, whatever is under way."""
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()
        self.folder.close()

    def wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(asyncio.wait_for(coroutine, FOUND_SECONDS_MAX))

    def create(self, *names: str) -> None:
        for name in names:
            self.wait(self.host.create(name))

    def hosted(self, name: str) -> Hosted:
        found = self.host.find(name)
        assert found is not None, name
        return found

    def deploy(self, name: str, bundle: bytes) -> None:
        async def activate() -> None:
            async with self.hosted(name).activating() as deployment:
                await deployment.activate(bundle)

        self.wait(activate())

    async def call(self, name: str, kind: str, path: str, args: Any = None) -> CallResult:
        return await self.hosted(name).run(request(kind, path, args))

    def value(self, name: str, kind: str, path: str, args: Any = None) -> Any:
        """What a function returns."""
        result = self.wait(self.call(name, kind, path, args))
        assert result.ok, result.error_message
        return orjson.loads(result.value)

    def settle(self) -> None:
        """Waits for the closings that a sweep began."""

        async def all_tasks() -> None:
            while self.host._tasks:
                await asyncio.gather(*self.host._tasks)

        self.wait(all_tasks())

    def sweep(self, seconds: float) -> None:
        """Lets time pass, sweeps twice (what was used is seen by the first), and waits for what is closed."""
        self.host.sweep()
        self.seconds += seconds
        self.host.sweep()
        self.settle()
