"""The serving process: one event loop, the main port, the port of HTTP actions, and an orderly end.

A server stops in this order: it takes no new connections, calls under way are answered (for a bounded time), the
deployment closes, the data folder is unlocked. The clock and the machine's entropy enter here and are parameters from
here on.
"""

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

import uvicorn
import uvloop
from starlette.types import ASGIApp

from skerry.admin.host import DEFAULT_NAME, Host, HostOptions, HostShare
from skerry.admin.hosted import Hosted
from skerry.admin.keys import Keys, open_keys
from skerry.admin.open_files import deployments_open_max, raise_open_files
from skerry.admin.way_out import WaysOut
from skerry.functions.metering import CallLog
from skerry.functions.right_of_way import descriptor_of, get_right_of_way
from skerry.http.acceptor import Acceptor
from skerry.http.addresses import Addresses, addressed_by, origin_for
from skerry.http.all_metrics import Peers
from skerry.http.app import ServerState, make_app, make_site_app
from skerry.http.connection import BoundedProtocol
from skerry.http.front import Front
from skerry.http.moving import Addressed, Arrivals, MovableProtocol, Moves, hand_on
from skerry.http.port import PortShare
from skerry.http.serve_options import ServeOptions
from skerry.isolate import share_actions_memory
from skerry.jail import JAIL
from skerry.limits import CALL_LOG_SECONDS, GIL_SWITCH_SECONDS, HANDOVER_RETRY_SECONDS, HTTP_SHUTDOWN_SECONDS_MAX
from skerry.storage.folder import DataFolder, Hold
from skerry.supervisor.channel import Channel
from skerry.supervisor.listeners import BACKLOG, listen, origin_of

_COMPILED_FOLDER: Final = "compiled"
_COLLECTOR_THRESHOLDS: Final = (20_000, 20, 20)
"""Objects, young collections and middle collections that make the garbage collector look one generation further."""


@dataclass(frozen=True, slots=True)
class Serving:
    """A server that takes calls.

    Shape: `deployment` is the default one; `stop` may be called from the loop's thread, any number of times.
    """

    data: Path
    url: str
    site_url: str
    keys: Keys
    deployment: Hosted
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
    """One process that is everything: it holds the data folder's lock, listens and serves."""
    with contextlib.ExitStack() as cleanup:
        cleanup.callback(DataFolder(options.data).close)
        listeners = [cleanup.enter_context(listen(options.host, port)) for port in (options.port, options.site_port)]
        await serve_on(options, listeners, None, on_ready)


async def serve_on(
    options: ServeOptions, listeners: "Sequence[socket.socket]", share: "Share | None", on_ready: OnReady
) -> None:
    """Serves on listening sockets, the API's and that of HTTP actions, until SIGTERM or SIGINT.

    The data folder is locked, by this process or by the one that started it. Shape: `share` is this worker's share of
    the work, None where it has all of it. Raises: as `serve`.
    """
    loop = asyncio.get_running_loop()
    workers = 1 if share is None else share.workers
    open_max = deployments_open_max(raise_open_files(), workers)
    JAIL.share(workers)
    if workers > 1:
        share_actions_memory(workers)
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    ways_out = WaysOut(options.allow_egress)
    folder = DataFolder(options.data, Hold.LENT)
    url, site_url = (origin_of(listener) for listener in listeners)
    keys = open_keys(options.data, DEFAULT_NAME, options.admin_key, os.urandom, options.host_credential)
    cloud, site = options.cloud_origin or url, options.site_origin or site_url
    host_share = None if share is None else share.of_host
    host = Host(folder, _host_options(options, keys, ways_out, cloud, site, host_share, open_max), loop)
    try:
        await host.start()
        state = ServerState()
        app = make_app(
            host,
            state=state,
            redacted=options.production,
            domain=options.domain,
            entropy=os.urandom,
            monotonic=time.perf_counter,
            call_soon=loop.call_soon,
            call_soon_threadsafe=loop.call_soon_threadsafe,
            peers=None if share is None else share.peers(keys.host_credential),
        )
        _calm_the_collector()
        _take_the_lock_back_soon()
        serving = Serving(options.data, url, site_url, keys, host.default, loop, stopping.set)
        addressed = addressed_by(Addresses(options.domain), DEFAULT_NAME)
        moves = [None, None] if share is None else [share.moves(port, addressed) for port in range(2)]
        ports = [_Port(app, listeners[0], moves[0]), _Port(make_site_app(host, options.domain), listeners[1], moves[1])]
        if share is not None:
            share.ports = ports
        await _run(ports, state, stopping, lambda: on_ready(serving), host.drain)
    finally:
        await host.close()
        ways_out.close()


def _host_options(
    options: ServeOptions, keys: Keys, ways_out: WaysOut, cloud: str, site: str, share: HostShare | None, open_max: int
) -> HostOptions:
    def environment(name: str) -> dict[str, str]:
        is_default = name == DEFAULT_NAME
        return {
            "CONVEX_CLOUD_URL": cloud if is_default else origin_for(name, cloud, options.domain),
            "CONVEX_SITE_URL": site if is_default else origin_for(name, site, options.domain),
        }

    return HostOptions(
        clock_ns=time.time_ns,
        monotonic=time.monotonic,
        entropy=os.urandom,
        host_key=keys.host_key,
        default_key=keys.admin_key,
        credential=keys.host_credential,
        compiled_cache=compiled_folder(options.data),
        production=options.production,
        environment=environment,
        ways_out=ways_out,
        call_log=_call_log() if options.log_calls else None,
        share=share,
        open_max=open_max,
    )


def _call_log() -> CallLog:
    """A line of JSON for each call on standard error, some moments after it."""
    loop, log = asyncio.get_running_loop(), logging.getLogger("skerry.calls")
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    return CallLog(
        lambda write: loop.call_later(CALL_LOG_SECONDS, lambda: None if loop.is_closed() else _on_thread(loop, write))
    )


def _on_thread(loop: asyncio.AbstractEventLoop, write: Callable[[], None]) -> None:
    loop.run_in_executor(None, write)


def _take_the_lock_back_soon() -> None:
    """Makes a thread that computes in Python give the global lock up soon after another asks for it.

    The loop thread asks at each hostcall of each call, and the usual 5 ms, each time, are what a neighbour's call in
    the background would cost it.
    """
    sys.setswitchinterval(GIL_SWITCH_SECONDS)
    get_right_of_way().watch(descriptor_of(asyncio.get_running_loop()))


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

    def __init__(
        self, config: uvicorn.Config, listener: socket.socket, front: Front | None, moves: Moves | None
    ) -> None:
        super().__init__(config)
        self._listener = listener
        self._front = front
        self._share: PortShare | None = None
        self._moves = moves
        self.listening = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup([])
            loop = asyncio.get_running_loop()
            self._share = PortShare(loop, self._front)
            acceptor = Acceptor(loop, self._listener, self.make_protocol)
            self.servers.append(cast("asyncio.Server", acceptor))
        finally:
            self.listening.set()

    def make_protocol(self) -> BoundedProtocol:
        """What a new connection is served by."""
        assert self._share is not None, "nothing is taken before the server has started"
        if self._moves is None or not self._moves.has_others:
            return BoundedProtocol(self.config, self.server_state, self.lifespan.state, self._share)
        made = MovableProtocol(self.config, self.server_state, self.lifespan.state, self._share)
        made.moves = self._moves
        return made


class _Port:
    """One listening socket with its application. Shape: `moves` None where connections never change their process."""

    def __init__(self, app: ASGIApp, listener: socket.socket, moves: Moves | None = None) -> None:
        self._listener = listener
        self._moves = moves
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
            backlog=BACKLOG,
        )
        self.server = _QuietServer(config, listener, app if isinstance(app, Front) else None, moves)

    async def serve(self) -> None:
        await self.server.serve(sockets=[self._listener])

    def retire(self) -> None:
        """Takes no more connections, and hands those it has to this worker's successor as they come to rest."""
        assert self._moves is not None
        self._moves.is_leaving = True
        for server in self.server.servers:
            server.close()

    def hand_on(self) -> bool:
        """Hands on what has come to rest; false when nothing is left."""
        assert self._moves is not None
        connections = list(self.server.server_state.connections)
        for connection in connections:
            assert isinstance(connection, BoundedProtocol)
            hand_on(connection, self._moves)
        return bool(connections)


class Share:
    """One worker's share of the work of a server, and what it hears from its supervisor.

    Shape: `of_host` is its share of the deployments; `ports` are set once they are there.
    """

    def __init__(self, index: int, door: Channel, doors: Sequence[Channel], of_host: HostShare | None = None) -> None:
        self.of_host = of_host
        self._index = index
        self._door = door
        self._doors = doors
        self.ports: list[_Port] = []

    def moves(self, port: int, addressed: Addressed | None) -> Moves:
        """What a port's connections need for moving."""
        return Moves(self._index, port, self._doors, addressed)

    @property
    def workers(self) -> int:
        """How many workers share the machine."""
        return len(self._doors)

    def peers(self, credential: str) -> Peers | None:
        """The other workers, None where there are none."""
        return Peers(self._index, self._doors, credential) if len(self._doors) > 1 else None

    def open_door(self) -> None:
        """Takes what other workers hand over."""
        make = [port.server.make_protocol for port in self.ports]
        arrivals = Arrivals(asyncio.get_running_loop(), self._door, make)
        self.ports[0].server.servers.append(cast("asyncio.Server", arrivals))

    async def retire(self) -> None:
        """Hands every connection on, for a bounded time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HTTP_SHUTDOWN_SECONDS_MAX):
                for port in self.ports:
                    port.retire()
                while True:
                    left = [port for port in self.ports if port.hand_on()]
                    if not left:
                        break
                    await asyncio.sleep(HANDOVER_RETRY_SECONDS)
