"""The server that the bench's actions fetch from: a process that answers every request with the same few bytes.

Its port is fixed, since functions of the bench app cannot be told one.
"""

import asyncio
import subprocess
import sys
from typing import cast

import uvloop

PORT = 32107
_ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 5\r\n\r\nhello"
_HEAD_END = b"\r\n\r\n"


class Peer:
    """The process, answering when made. Shape: `address` as host and port."""

    address = f"127.0.0.1:{PORT}"

    def __enter__(self) -> "Peer":
        self._process = subprocess.Popen([sys.executable, __file__], stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        if not self._process.stdout.readline():
            raise RuntimeError(f"nothing can be served on {self.address}: is another bench running?")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


class _Answering(asyncio.Protocol):
    """Requests without a body, counted by the ends of their heads."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._rest = b""

    def data_received(self, data: bytes) -> None:
        *whole, self._rest = (self._rest + data).split(_HEAD_END)
        self._transport.write(_ANSWER * len(whole))


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Answering, "127.0.0.1", PORT)
    print("ready", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve())
