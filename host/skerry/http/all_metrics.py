"""The metrics of all workers in one page: whoever is asked asks the others over connections of their own.

A page of another worker comes over a socket pair whose one end is handed to that worker through its door, as a client's
connection would be, with a request for `PAGE_PATH` that carries the host credential: the other worker does nothing that
it does not do for an operator. One that does not answer in time is left out, and `skerry_worker_up` says so.
"""

import asyncio
import socket
from collections.abc import Sequence
from typing import Final

from skerry.limits import METRICS_PAGE_BYTES_MAX, METRICS_PEER_SECONDS_MAX
from skerry.supervisor.channel import Channel, ChannelEnded
from skerry.supervisor.handover import send_handover

PAGE_PATH: Final = "/metrics/worker"
"""Where a worker shows what it counts itself; everybody else asks for `/metrics`."""

_UP: Final = "skerry_worker_up"


class Peers:
    """The other workers of a server. Shape: `index` is this one among `doors`; `credential` is the host's."""

    def __init__(self, index: int, doors: Sequence[Channel], credential: str) -> None:
        self.index = index
        self._doors = doors
        head = (
            f"GET {PAGE_PATH} HTTP/1.1",
            "Host: localhost",
            "Connection: close",
            f"Authorization: Bearer {credential}",
        )
        self._request = "".join(f"{line}\r\n" for line in (*head, "")).encode()

    async def pages(self, own: bytes) -> dict[int, bytes | None]:
        """The page of each worker, by its index; None for one that did not answer in METRICS_PEER_SECONDS_MAX."""
        others = [index for index in range(len(self._doors)) if index != self.index]
        found = await asyncio.gather(*map(self._page, others))
        return {self.index: own, **dict(zip(others, found, strict=True))}

    async def _page(self, index: int) -> bytes | None:
        ours, theirs = socket.socketpair()
        try:
            ours.setblocking(False)
            with theirs:
                if not send_handover(self._doors[index], theirs.fileno(), 0, self._request):
                    return None
            async with asyncio.timeout(METRICS_PEER_SECONDS_MAX):
                return await _body_of(ours)
        except (OSError, TimeoutError, ChannelEnded):
            return None
        finally:
            ours.close()


async def _body_of(connection: socket.socket) -> bytes | None:
    """The body of the answer on a connection that ends with it, None where it is not one of status 200."""
    loop = asyncio.get_running_loop()
    received = bytearray()
    while piece := await loop.sock_recv(connection, 1 << 16):
        received += piece
        if len(received) > METRICS_PAGE_BYTES_MAX:
            return None
    head, _, body = bytes(received).partition(b"\r\n\r\n")
    return body if head.startswith(b"HTTP/1.1 200 ") else None


def merged(pages: dict[int, bytes | None]) -> bytes:
    """Pages in the text format as one: each family once, each sample with the label `worker`."""
    families: dict[str, tuple[list[str], list[str]]] = {}
    for index, page in sorted(pages.items()):
        if page is None:
            continue
        samples: list[str] = []
        for line in page.decode().splitlines():
            if line.startswith("# HELP "):
                heads, samples = families.setdefault(line.split(" ", 3)[2], ([], []))
                heads[:] = [line]
            elif line.startswith("# TYPE "):
                heads, samples = families.setdefault(line.split(" ", 3)[2], ([], []))
                heads[1:] = [line]
            elif line and line[0] != "#":
                samples.append(labelled(line, index))
    lines = [f"# HELP {_UP} Whether a worker showed what it counts.", f"# TYPE {_UP} gauge"]
    lines += [f'{_UP}{{worker="{index}"}} {int(page is not None)}' for index, page in sorted(pages.items())]
    for heads, samples in families.values():
        lines += heads + samples
    return "\n".join([*lines, ""]).encode()


def labelled(sample: str, index: int) -> str:
    """A sample's line with the label `worker` in front of its other labels."""
    name_end = min(at for at in (sample.find("{"), sample.find(" ")) if at >= 0)
    if sample[name_end] == "{":
        return f'{sample[:name_end]}{{worker="{index}",{sample[name_end + 1 :]}'
    return f'{sample[:name_end]}{{worker="{index}"}}{sample[name_end:]}'
