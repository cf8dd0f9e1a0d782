"""The serving process: one event loop, the main port, the port of HTTP actions, and an orderly end.

A server stops in this order: it takes no new connections, calls under way are answered (for a bounded time), the
deployment closes, the data folder is unlocked. The clock and the machine's entropy enter here and are parameters from
here on.
"""

import asyncio
import contextlib
import gc
import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, cast

import uvicorn
import uvloop
from starlette.types import ASGIApp

from skerry.admin.keys import Keys, open_keys
from skerry.admin.way_out import WaysOut
from skerry.errors import SystemFault
from skerry.functions.deployment import Deployment
from skerry.http.acceptor import Acceptor
from skerry.http.app import ServerState, make_app, site_app
from skerry.http.connection import BoundedProtocol
from skerry.http.front import Front
from skerry.http.port import PortShare
from skerry.limits import HTTP_SHUTDOWN_SECONDS_MAX
from skerry.storage.folder import DataFolder

DEPLOYMENT_NAME: Final = "local"
_COMPILED_FOLDER: Final = "compiled"
_BACKLOG: Final = 1024
_COLLECTOR_THRESHOLDS: Final = (20_000, 20, 20)
"""Objects, young collections and middle collections that make the garbage collector look one generation further."""


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """What a server is started with.

    Shape: a port of 0 means any free one; the origins are what clients reach the ports by, where they differ;
    `allow_egress` is what actions may reach beside the public internet (host:port).
    """

    data: Path
    host: str
    port: int
    site_port: int
    production: bool
    admin_key: str | None
    cloud_origin: str | None = None
    site_origin: str | None = None
    allow_egress: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Serving:
    """A server that takes calls. Shape: `stop` may be called from the loop's thread, any number of times."""

    data: Path
    url: str
    site_url: str
    keys: Keys
    deployment: Deployment
    loop: asyncio.AbstractEventLoop
    stop: Callable[[], None]


# Called once the ports are open; what it awaits runs beside the server and is cancelled when the server stops.
OnReady = Callable[[Serving], Awaitable[None]]


def serve(options: ServeOptions, on_ready: OnReady) -> None:
    """Serves until SIGTERM or SIGINT.

    Raises: SystemFault `DataFolderInUse`, `DataFolderFormat`, `PortInUse`; ClientError `InvalidAdminKey`; whatever
    `on_ready` raised.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(options, on_ready))


def compiled_folder(data: Path) -> Path:
    """Where a data folder keeps compiled code, under its host key."""
    return data / _COMPILED_FOLDER


async def _serve(options: ServeOptions, on_ready: OnReady) -> None:
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    with contextlib.ExitStack() as cleanup:
        folder = DataFolder(options.data)
        cleanup.callback(folder.close)
        main_socket = cleanup.enter_context(_listen(options.host, options.port))
        site_socket = cleanup.enter_context(_listen(options.host, options.site_port))
        keys = open_keys(options.data, DEPLOYMENT_NAME, options.admin_key, os.urandom)
        ways_out = WaysOut(options.allow_egress)
        cleanup.callback(ways_out.close)
        deployment = Deployment(
            folder.deployment_path(DEPLOYMENT_NAME),
            name=DEPLOYMENT_NAME,
            clock_ns=time.time_ns,
            entropy=os.urandom,
            host_key=keys.host_key,
            loop=loop,
            compiled_cache=compiled_folder(options.data),
            production=options.production,
            environment={
                "CONVEX_CLOUD_URL": options.cloud_origin or _url(main_socket),
                "CONVEX_SITE_URL": options.site_origin or _url(site_socket),
            },
            way_out=ways_out.make(),
        )
        try:
            state = ServerState()
            app = make_app(
                deployment,
                admin_key=keys.admin_key,
                state=state,
                redacted=options.production,
                entropy=os.urandom,
                monotonic=time.perf_counter,
                call_soon=loop.call_soon,
            )
            _calm_the_collector()
            serving = Serving(options.data, _url(main_socket), _url(site_socket), keys, deployment, loop, stopping.set)
            ports = [_Port(app, main_socket), _Port(site_app, site_socket)]
            await _run(ports, state, stopping, lambda: on_ready(serving), deployment.drain)
        finally:
            await deployment.close()


def _calm_the_collector() -> None:
    """Makes Python look for garbage cycles seldom, and never among what lives as long as the process.

    A call leaves no cycle behind unless it fails, while the usual threshold has the collector run at every other call
    and walk every module now and then, which all calls then wait for.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECTOR_THRESHOLDS)


async def _run(
    ports: "list[_Port]",
    state: ServerState,
    stopping: asyncio.Event,
    on_ready: Callable[[], Awaitable[None]],
    drain: Callable[[], None],
) -> None:
    """Runs the ports until `stopping` is set or one of the parts fails; `drain` hears of the end before callers do."""
    tasks = [asyncio.ensure_future(port.serve()) for port in ports]
    for port in ports:
        await port.server.listening.wait()
    beside = asyncio.ensure_future(on_ready())
    stop = asyncio.ensure_future(stopping.wait())
    try:
        waited_for = {stop, beside, *tasks}
        while not stop.done():
            done, waited_for = await asyncio.wait(waited_for, return_when=asyncio.FIRST_COMPLETED)
            if any(task in done for task in tasks) or (beside in done and beside.exception() is not None):
                break
    finally:
        state.draining = True
        drain()
        stop.cancel()
        beside.cancel()
        for port in ports:
            port.server.should_exit = True
        results = await asyncio.gather(beside, *tasks, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception):
            raise result


class _QuietServer(uvicorn.Server):
    """A uvicorn server that leaves signals to its process, which has two of them, and connections to an `Acceptor`."""

    def __init__(self, config: uvicorn.Config, listener: socket.socket, front: Front | None) -> None:
        super().__init__(config)
        self._listener = listener
        self._front = front
        self.listening = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup([])
            loop = asyncio.get_running_loop()
            share = PortShare(loop, self._front)
            acceptor = Acceptor(loop, self._listener, partial(self._make_protocol, share))
            self.servers.append(cast("asyncio.Server", acceptor))
        finally:
            self.listening.set()

    def _make_protocol(self, share: PortShare) -> BoundedProtocol:
        return BoundedProtocol(self.config, self.server_state, self.lifespan.state, share)


class _Port:
    """One listening socket with its application."""

    def __init__(self, app: ASGIApp, listener: socket.socket) -> None:
        self._listener = listener
        config = uvicorn.Config(
            app,
            http=BoundedProtocol,
            ws="none",
            lifespan="off",
            interface="asgi3",
            access_log=False,
            log_config=None,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=HTTP_SHUTDOWN_SECONDS_MAX,
            backlog=_BACKLOG,
        )
        self.server = _QuietServer(config, listener, app if isinstance(app, Front) else None)

    async def serve(self) -> None:
        await self.server.serve(sockets=[self._listener])


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        # What the library says names the address again; the system's words are enough.
        why = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        raise SystemFault("PortInUse", f"Cannot listen on {host} port {port}: {why}.") from None


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
