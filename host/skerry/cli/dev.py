"""`skerry dev`: a server on this machine whose app follows every edit.

The server runs on the main thread's event loop. One thread beside it watches; another builds and activates, and it
alone uses the bundler, which it keeps running so that a rebuild parses only what changed. A version that does not build
leaves the last good one live.
"""

import asyncio
import contextlib
import os
import queue
import shlex
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import orjson

from skerry.bundle.build import InstantiateAt
from skerry.bundle.esbuild import Bundler
from skerry.bundle.jail_jobs import jailed_image_builder
from skerry.bundle.watch import watch_app
from skerry.cli.build import APP, build_folder
from skerry.cli.output import Output, current, speaking
from skerry.cli.serve import PORT_DEFAULT, SITE_PORT_DEFAULT, Announcement, announce, log_to_errors, options
from skerry.errors import SkerryError
from skerry.isolate import ModuleCache, compile_jailed, get_engine
from skerry.isolate.build_runner import build_runner_at

if TYPE_CHECKING:
    from skerry.http.server import Serving

_PORT: Final = click.IntRange(0, 65535)

# How long after Ctrl-C this side hears of it, at most.
_STOP_SECONDS: Final = 1.0

# Failures of the machine or the network: no edit of the app mends them.
_NOT_THE_APPS: Final = {"NodeNotFound", "NpmInstallFailed", "EngineBuildFailed", "PreludeBuildFailed"}


@click.command("dev", short_help="Serve APP here and redeploy it on every change.")
@click.argument("app", type=APP, default=Path())
@click.option("--data", type=click.Path(path_type=Path, file_okay=False), help="The data folder; .skerry in APP.")
@click.option("--port", type=_PORT, default=PORT_DEFAULT, show_default=True, help="The port of the API; 0 for any.")
@click.option(
    "--site-port", type=_PORT, default=SITE_PORT_DEFAULT, show_default=True, help="The port of HTTP actions; 0 for any."
)
@click.option(
    "--allow-egress",
    multiple=True,
    metavar="HOST:PORT",
    help="Let actions reach a server that is refused otherwise, such as localhost:3000; repeatable.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object when the server is ready.")
@speaking
def dev_command(
    app: Path, data: Path | None, port: int, site_port: int, allow_egress: tuple[str, ...], as_json: bool
) -> None:
    """Serves APP on this machine, and rebuilds and redeploys it on every change."""
    from skerry.http.server import serve

    out = current()
    log_to_errors()
    stop = threading.Event()

    async def ready(serving: "Serving") -> None:
        announce(out, Announcement(serving.deployment.name, serving.url, serving.site_url, serving.keys))
        if (line := _page_line(app, serving.url)) is not None:
            out.note(line)
        follower = _Follower(app, serving, out, stop)
        ended: asyncio.Future[None] = serving.loop.create_future()

        def end(error: BaseException | None) -> None:
            if error is not None and not ended.done():
                ended.set_exception(error)

        def follow() -> None:
            error: BaseException | None = None
            try:
                follower.run()
            except BaseException as raised:
                error = raised
            with contextlib.suppress(RuntimeError):  # the loop has ended first
                serving.loop.call_soon_threadsafe(end, error)

        threading.Thread(target=follow, name="skerry dev: builds", daemon=True).start()
        try:
            await ended  # which is until the server stops, or following fails
        finally:
            stop.set()

    try:
        serve(options(data or app / ".skerry", "127.0.0.1", port, site_port, False, allow_egress), ready)
    finally:
        stop.set()
    out.note("stopped")


def _page_line(app: Path, url: str) -> str | None:
    """How to see the page that the app brings; None where its package.json names no way to serve one."""
    try:
        scripts: dict[str, Any] = orjson.loads((app / "package.json").read_bytes())["scripts"]
        # In apps made from Convex's templates `dev` starts their command too, which has no part here.
        name = next(name for name in ("dev:frontend", "dev") if "convex dev" not in scripts.get(name, "convex dev"))
        variable = f"VITE_CONVEX_URL={shlex.quote(url)} " if "vite" in scripts[name] else ""
    except (OSError, ValueError, LookupError, TypeError, AttributeError, StopIteration):
        return None
    steps = ["npm ci"] if (app / "package-lock.json").is_file() else ["npm install"]
    steps = [] if (app / "node_modules").is_dir() else steps
    folder = shlex.quote(os.path.relpath(app))
    commands = " && ".join([f"cd {folder}", *steps, f"{variable}npm run {name}"])
    return f"To see the app's page, from another terminal, and open what it shows:\n  {commands}\n"


class _Follower:
    """Keeps the served version equal to the folder."""

    def __init__(self, app: Path, serving: "Serving", out: Output, stop: threading.Event) -> None:
        self._app = app
        self._serving = serving
        self._out = out
        self._stop = stop
        self._changes: queue.SimpleQueue[list[str] | Exception | None] = queue.SimpleQueue()

    def run(self) -> None:
        """Builds now and after each change, until `stop` is set."""
        from skerry.http.server import compiled_folder

        # Watching starts before the first build reads a file, so that no edit falls between the two.
        threading.Thread(target=self._watch, name="skerry dev: watches", daemon=True).start()
        folder, key = compiled_folder(self._serving.data), self._serving.keys.host_key
        cache = ModuleCache(get_engine(), folder, key, compile_jailed)
        instances = build_runner_at(cache)
        self._image_builder = jailed_image_builder(cache)
        with Bundler(self._out.progress) as bundler:
            version = self._deploy(bundler, instances, "", "first build")
            while (changed := self._next_change()) is not None:
                shown = ", ".join(changed[:3]) + (f" and {len(changed) - 3} more" if len(changed) > 3 else "")
                version = self._deploy(bundler, instances, version, shown)

    def _watch(self) -> None:
        try:
            for changed in watch_app(self._app, self._stop):
                self._changes.put(changed)
            self._changes.put(None)
        except Exception as error:
            self._changes.put(error)

    def _next_change(self) -> list[str] | None:
        """What has changed since the last build began; None once the server stops. Blocks."""
        changed: set[str] = set()
        while True:
            item = self._changes.get()
            if isinstance(item, Exception):
                raise item
            if item is None:
                return None
            changed.update(item)
            if self._changes.empty():
                return sorted(changed)

    def _deploy(self, bundler: Bundler, instances: InstantiateAt, live: str, reason: str) -> str:
        """The version that is live afterwards."""
        started = time.monotonic()
        try:
            bundle = build_folder(
                self._app, self._out, bundler=bundler, instances=instances, image_builder=self._image_builder
            )
            self._out.progress("activating")
            activating = asyncio.run_coroutine_threadsafe(
                self._serving.deployment.activate(bundle.to_bytes()), self._serving.loop
            )
            activating.result()
        except SkerryError as error:
            # Ctrl-C ends npm and the compiler too: that is no failure of theirs.
            if error.code in _NOT_THE_APPS and self._stop.wait(_STOP_SECONDS):
                return live
            again = "save any file to try again" if error.code in _NOT_THE_APPS else "correct it and save"
            self._out.failed(error, "the last good version stays live" if live else f"nothing is live yet; {again}")
            return live
        except (RuntimeError, asyncio.CancelledError):
            if self._stop.is_set():  # the loop has ended under the last deploy
                return live
            raise
        self._out.end_progress()
        seconds = time.monotonic() - started
        clock = time.strftime("%H:%M:%S")
        self._out.note(f"{clock} deployed {len(bundle.manifest.functions)} functions in {seconds:.2f} s ({reason})")
        return bundle.digest
