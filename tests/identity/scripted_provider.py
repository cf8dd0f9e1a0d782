"""A provider that answers what a test says, on loopback, over a real socket; and the real way out to it."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from skerry.admin.way_out import WayOut, WaysOut
from tests.identity import signing

DISCOVERY = "/.well-known/openid-configuration"


class ScriptedProvider:
    """Shape: `answers` by path, each a status, headers and a body; `asked` counts requests by path; while `held` is
    not set, nobody is answered."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, dict[str, str], bytes]] = {}
        self.asked: Counter[str] = Counter()
        self.held = asyncio.Event()
        self.held.set()
        self.came = asyncio.Event()
        self.domain = ""

    def serve_keys(self, *keys: dict[str, Any], **headers: str) -> None:
        """Answers as a provider should."""
        self.answer(DISCOVERY, {"issuer": self.domain, "jwks_uri": self.domain + "/keys"})
        self.answer("/keys", json.loads(signing.jwks(*keys)), **headers)

    def answer(self, path: str, body: Any, status: int = 200, **headers: str) -> None:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.answers[path] = (status, {"content-type": "application/json", **named}, raw)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            path = head.split(b" ")[1].decode()
            self.asked[path] += 1
            self.came.set()
            await self.held.wait()
            status, headers, body = self.answers.get(path, (404, {}, b"{}"))
            lines = [f"HTTP/1.1 {status} X", f"content-length: {len(body)}", "connection: close"]
            lines += [f"{name}: {value}" for name, value in headers.items()]
            writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def scripted_provider(allow: bool = True) -> AsyncIterator[tuple[ScriptedProvider, WayOut]]:
    provider = ScriptedProvider()
    server = await asyncio.start_server(provider.handle, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    provider.domain = f"http://localhost:{port}"
    ways = WaysOut([f"localhost:{port}"] if allow else [])
    way_out = ways.make()
    try:
        yield provider, way_out
    finally:
        provider.held.set()
        await way_out.close()
        ways.close()
        server.close()
        await server.wait_closed()
