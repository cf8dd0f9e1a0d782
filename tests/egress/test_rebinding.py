"""Names that change their mind: what is connected to is what was checked, in every attempt anew.

127.0.0.2 is allowed and stands for a public address; 127.0.0.1 is inward. Servers listen on both, on the same port.
"""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import pytest

from skerry import limits
from skerry.egress import Egress, EgressBounds, EgressPolicy, Resolve
from tests.egress.world import INSIDE, OUTSIDE, Server, code_of, egress, get, redirect, reply, run, serving

FRESH_NEVER = EgressBounds(check_seconds=0)


@contextlib.asynccontextmanager
async def _both() -> AsyncIterator[tuple[Server, Server]]:
    """The outer server and the inner one, on one port."""
    async with serving(reply(b"outer")) as outer, serving(reply(b"secret"), host=INSIDE, port=outer.port) as inner:
        yield outer, inner


def _turns(*answers: list[str]) -> tuple[Resolve, list[str]]:
    """A resolver that gives these answers in turn, the last for ever, and what it was asked."""
    asked: list[str] = []

    async def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        return answers[min(len(asked), len(answers)) - 1]

    return resolve, asked


def test_a_name_that_turns_inward_after_the_first_answer() -> None:
    async def work() -> None:
        async with _both() as (outer, inner):
            resolve, asked = _turns([OUTSIDE], [INSIDE])
            async with egress(outer.port, resolve=resolve, bounds=FRESH_NEVER) as way:
                url = f"http://rebind.test:{outer.port}/"
                assert (await get(way, url))[1] == b"outer"
                assert len(asked) == 1  # the check and the connection share one answer
                assert await code_of(get(way, url)) == "EgressRefused"
                assert inner.connections == 0

    run(work())


def test_a_redirect_to_the_same_name_is_looked_up_again() -> None:
    async def work() -> None:
        async with _both() as (outer, inner):
            outer.answer = redirect("/again")
            resolve, asked = _turns([OUTSIDE], [INSIDE])
            async with egress(outer.port, resolve=resolve, bounds=FRESH_NEVER) as way:
                assert await code_of(get(way, f"http://rebind.test:{outer.port}/")) == "EgressRefused"
                assert len(asked) == 2
                assert inner.connections == 0

    run(work())


def test_of_mixed_answers_only_the_good_addresses_are_used() -> None:
    async def work() -> None:
        async with _both() as (outer, inner):
            resolve, _ = _turns([INSIDE, "169.254.169.254", OUTSIDE, "::ffff:127.0.0.1"])
            async with egress(outer.port, resolve=resolve) as way:
                assert (await get(way, f"http://mixed.test:{outer.port}/"))[1] == b"outer"
                assert inner.connections == 0

    run(work())


def test_a_good_address_that_does_not_answer_is_no_way_to_a_bad_one() -> None:
    async def work() -> None:
        async with serving(reply(b"secret"), host=INSIDE) as inner:
            resolve, _ = _turns([OUTSIDE, INSIDE])  # nothing listens on the good one
            async with egress(inner.port, resolve=resolve) as way:
                assert await code_of(get(way, f"http://mixed.test:{inner.port}/")) == "EgressFailed"
                assert inner.connections == 0

    run(work())


def test_the_next_good_address_is_tried() -> None:
    async def work() -> None:
        async with serving(reply()) as server:
            resolve, _ = _turns(["127.0.0.4", OUTSIDE])  # nothing listens on the first
            policy = EgressPolicy.of(allow=[f"127.0.0.0/29:{server.port}"])
            async with Egress(policy, resolve) as way:
                assert (await get(way, f"http://two.test:{server.port}/"))[1] == b"hello"

    run(work())


def test_addresses_beyond_the_bound_are_not_looked_at() -> None:
    async def work() -> None:
        async with serving(reply()) as server:
            for before, code in ((limits.EGRESS_ADDRESSES_MAX - 1, ""), (limits.EGRESS_ADDRESSES_MAX, "EgressRefused")):
                resolve, _ = _turns([INSIDE] * before + [OUTSIDE])
                async with egress(server.port, resolve=resolve) as way:
                    url = f"http://many.test:{server.port}/"
                    if code:
                        assert await code_of(get(way, url)) == code
                    else:
                        assert (await get(way, url))[1] == b"hello"

    run(work())


@pytest.mark.parametrize("answer", [[], ["fe80::1%1"], ["0.0.0.0"], ["::"], ["::1"], ["255.255.255.255"]])
def test_answers_that_lead_nowhere(answer: list[str]) -> None:
    async def work() -> None:
        resolve, _ = _turns(answer)
        async with egress(resolve=resolve) as way:
            assert await code_of(get(way, "http://x.test/")) in ("EgressRefused", "EgressFailed")

    run(work())


class Misrouting(asyncio.SelectorEventLoop):
    """A loop whose sockets end elsewhere than they were told."""

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        await super().sock_connect(sock, (INSIDE, address[1]))


def test_a_socket_that_ends_elsewhere_is_not_used() -> None:
    """The last wall: whatever went wrong before, the kernel is asked whom the socket is connected to."""

    async def work() -> None:
        async with serving(reply(b"secret"), host=INSIDE) as inner, egress(inner.port) as way:
            assert await code_of(get(way, f"http://a.test:{inner.port}/")) == "EgressRefused"
            assert not inner.seen

    with asyncio.Runner(loop_factory=Misrouting) as runner:
        runner.run(work())


# -- the same over a real name server ----------------------------------------------------------------------------


class NameServer(asyncio.DatagramProtocol):
    """Answers A questions with one address, each time the next one, at a time to live of nothing."""

    def __init__(self, addresses: list[str]) -> None:
        self.addresses = addresses
        self.asked = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        address = self.addresses[min(self.asked, len(self.addresses) - 1)]
        self.asked += 1
        head = data[:2] + struct.pack(">HHHHH", 0x8180, 1, 1, 0, 0)
        answer = struct.pack(">HHHIH", 0xC00C, 1, 1, 0, 4) + socket.inet_aton(address)
        self.transport.sendto(head + data[12:] + answer, addr)


def _asking(port: int) -> Resolve:
    """A resolver that asks that name server, in one datagram, for one address."""

    async def resolve(host: str, _: int) -> list[str]:
        loop = asyncio.get_running_loop()
        labels = b"".join(bytes([len(label)]) + label.encode() for label in host.rstrip(".").split("."))
        question = b"\x12\x34" + struct.pack(">HHHHH", 0x0100, 1, 0, 0, 0) + labels + b"\x00" + struct.pack(">HH", 1, 1)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.setblocking(False)
            asking.connect((INSIDE, port))
            await loop.sock_sendall(asking, question)
            answer = await loop.sock_recv(asking, 512)
        assert answer[:2] == question[:2]
        return [socket.inet_ntoa(answer[-4:])]

    return resolve


def test_a_rebinding_name_server() -> None:
    async def work() -> None:
        loop = asyncio.get_running_loop()
        make: Callable[[], NameServer] = lambda: NameServer([OUTSIDE, INSIDE])  # noqa: E731 - typed for the loop
        transport, server = await loop.create_datagram_endpoint(make, (INSIDE, 0))
        port = transport.get_extra_info("sockname")[1]
        async with (
            _both() as (outer, inner),
            egress(outer.port, resolve=_asking(port), bounds=FRESH_NEVER) as way,
        ):
            url = f"http://rebind.test:{outer.port}/"
            assert (await get(way, url))[1] == b"outer"
            assert server.asked == 1
            assert await code_of(get(way, url)) == "EgressRefused"
            assert server.asked == 2
            assert inner.connections == 0
        transport.close()

    run(work())
