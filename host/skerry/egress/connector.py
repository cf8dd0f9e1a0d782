"""Where connections come from: look a name up, check each address, connect to one that passed, prove it.

The HTTP library brings the pool of idle connections; how a connection is made is ours from end to end, so that no
resolver, no proxy, no cache of names and no race between addresses of the library's stands between the check and the
socket. The addresses that are tried are those that passed in this very attempt. Where a name has good and refused
addresses, the good ones are used: what is refused is never touched, so refusing wholly would protect nothing, and names
on networks that translate addresses would not work.

Invariants: the peer of every socket, as the kernel names it, is the checked address and not the socket itself; a
deployment has at most EGRESS_CONNECTIONS_MAX sockets; nothing is shared with another connector but the TLS context,
which keeps no sessions for clients.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING, Any

import aiohttp

from skerry.egress.connection import Connection, OnBytes
from skerry.egress.policy import EgressPolicy
from skerry.egress.resolver import Resolve
from skerry.errors import DeveloperError
from skerry.limits import EGRESS_ADDRESSES_MAX, EGRESS_IDLE_SECONDS_MAX

if TYPE_CHECKING:
    from aiohttp.client_proto import ResponseHandler
    from aiohttp.connector import Connection as Lease

Address = IPv4Address | IPv6Address

ATTEMPT_SECONDS_MIN = 1.0


class CheckedConnector(aiohttp.BaseConnector):
    """Connections of one deployment under its policy."""

    def __init__(
        self, policy: EgressPolicy, resolve: Resolve, tls: Callable[[], ssl.SSLContext], on_bytes: OnBytes
    ) -> None:
        # The library's own limit is off: places bound the connections in use, and `_make_room` the idle ones.
        super().__init__(keepalive_timeout=EGRESS_IDLE_SECONDS_MAX, limit=0)
        self._policy = policy
        self._resolve = resolve
        self._tls = tls
        self._on_bytes = on_bytes
        self._live: dict[Connection, None] = {}
        self._connecting = 0

    @property
    def sockets(self) -> int:
        """How many connections are open, in use or idle."""
        return len(self._live)

    def abort_all(self) -> None:
        """Drops every connection at once, sent or not."""
        for connection in list(self._live):
            connection.abort()

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: Any,
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - the library's signature
    ) -> "Lease":
        """A connection for one request, idle until now or new."""
        if self._closed:
            raise closed_fault()
        lease = await super().connect(req, traces, timeout)
        assert isinstance(lease.protocol, Connection)
        lease.protocol.begin_exchange()
        return lease

    def _release(self, key: Any, protocol: "ResponseHandler", *, should_close: bool = False) -> None:
        assert isinstance(protocol, Connection)
        protocol.end_exchange()
        super()._release(key, protocol, should_close=should_close)

    async def _create_connection(
        self,
        req: aiohttp.ClientRequest,
        traces: Any,
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - the library's signature
    ) -> Connection:
        host, port = req.url.raw_host, req.url.port
        assert host is not None and port is not None and req.proxy is None
        seconds = self._policy.bounds.connect_seconds
        self._connecting += 1
        try:
            async with asyncio.timeout(seconds) as scope:
                addresses = await self._checked_addresses(host, port)
                checked_at = self._loop.time()
                self._make_room()
                deadline = scope.when()
                assert deadline is not None
                connection = await self._connect_to_one(addresses, host, port, req.is_ssl(), deadline)
                connection.checked_at = checked_at
                return connection
        except TimeoutError as error:
            sentence = f"No connection to {host} came about within {seconds:g} s."
            raise DeveloperError("EgressTimedOut", sentence) from error
        finally:
            self._connecting -= 1

    async def _checked_addresses(self, host: str, port: int) -> list[Address]:
        """The addresses of a host that may be connected to now; at least one."""
        try:
            found: list[Address] = [ip_address(host)]
        except ValueError:
            found = await self._look_up(host, port)
        passed: list[Address] = []
        kind = "none"
        for address in found[:EGRESS_ADDRESSES_MAX]:
            refused = self._policy.refusal(host, port, address)
            if refused is None:
                passed.append(address)
            else:
                kind = refused
        if not passed:
            if kind == "port":
                raise DeveloperError("EgressRefused", f"Functions may not connect to port {port} of {host}.")
            sentence = f"Functions may not connect to {host}:{port}: it is no public address ({kind})."
            raise DeveloperError("EgressRefused", sentence)
        return passed

    async def _look_up(self, host: str, port: int) -> list[Address]:
        seconds = self._policy.bounds.lookup_seconds
        try:
            async with asyncio.timeout(seconds):
                texts = await self._resolve(host, port)
        except TimeoutError as error:
            raise DeveloperError("EgressTimedOut", f"The name {host} was not found within {seconds:g} s.") from error
        except (OSError, UnicodeError) as error:
            raise DeveloperError("EgressFailed", f"The name {host} was not found.") from error
        if not texts:
            raise DeveloperError("EgressFailed", f"The name {host} has no address.")
        return [ip_address(text) for text in texts]

    async def _connect_to_one(
        self, addresses: list[Address], host: str, port: int, secure: bool, deadline: float
    ) -> Connection:
        """Tries the addresses in their order, each for its share of the time that is left."""
        last: Exception | None = None
        for position, address in enumerate(addresses):
            share = (deadline - self._loop.time()) / (len(addresses) - position)
            try:
                async with asyncio.timeout(max(share, ATTEMPT_SECONDS_MIN)):
                    return await self._connect_to(address, host, port, secure)
            except ssl.SSLCertVerificationError as error:
                sentence = f"The TLS certificate of {host} is not valid: {error.verify_message}."
                raise DeveloperError("EgressFailed", sentence) from error
            except ssl.SSLError as error:
                raise DeveloperError("EgressFailed", f"TLS with {host} failed.") from error
            except (OSError, TimeoutError) as error:
                last = error
        if isinstance(last, TimeoutError):
            raise last
        raise DeveloperError("EgressFailed", f"{host}:{port} does not accept connections.") from last

    async def _connect_to(self, address: Address, host: str, port: int, secure: bool) -> Connection:
        made = socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6, socket.SOCK_STREAM)
        try:
            made.setblocking(False)
            await self._loop.sock_connect(made, (str(address), port))
            self._prove_peer(made, address, host, port)
        except BaseException:
            made.close()
            raise
        _, connection = await self._loop.create_connection(
            self._new_connection,
            sock=made,
            ssl=self._tls() if secure else None,
            # Certificates carry names without the last dot.
            server_hostname=host.removesuffix(".") if secure else None,
        )
        if connection.transport is not None:  # the peer may have closed it already
            self._live[connection] = None
        if self._closed:
            connection.abort()
            raise closed_fault()
        return connection

    def _prove_peer(self, made: socket.socket, address: Address, host: str, port: int) -> None:
        """The lowest point: the kernel says whom the socket is connected to, and from where."""
        peer, own = made.getpeername(), made.getsockname()
        is_checked = ip_address(peer[0]) == address and peer[1] == port
        if not is_checked or (peer[0] == own[0] and self._policy.refusal(host, port, address) is not None):
            raise DeveloperError(
                "EgressRefused", f"Functions may not connect to {host}:{port}: it is no public address."
            )

    def _new_connection(self) -> Connection:
        return Connection(self._loop, self._policy.bounds, self._on_bytes, self._forget)

    def _forget(self, connection: Connection) -> None:
        self._live.pop(connection, None)

    def _make_room(self) -> None:
        """Drops the longest-lived idle connections until one more socket keeps the bound."""
        excess = len(self._live) + self._connecting - self._policy.bounds.connections
        if excess > 0:
            for connection in [each for each in self._live if not each.in_exchange][:excess]:
                self._forget(connection)
                connection.abort()


def closed_fault() -> DeveloperError:
    return DeveloperError("EgressFailed", "The deployment is closing; fetch again once it is back.")
