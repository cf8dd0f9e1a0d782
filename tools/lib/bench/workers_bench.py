"""What worker processes are worth: commits a second over many deployments, with one worker and with more.

Run it with a bundle that has a mutation that commits:
    PYTHONPATH=host:tools/lib python3 tools/lib/bench/workers_bench.py BUNDLE [FUNCTION [ARGS [DEPLOYMENTS [WORKERS]]]]

Two loads for each count of workers, each over one connection for each deployment: a timetable of 10 commits a second
for each, and as many as they take. The load generator runs on the same machine and takes a part of it.
"""

import asyncio
import http.client
import json
import sys
import tempfile
import time
from base64 import b64encode
from hashlib import sha256
from pathlib import Path

import uvloop

from bench.server import Server

RATE = 10
SECONDS = 5.0


def make(server: Server, credential: str, name: str, bundle: bytes) -> None:
    """A deployment with the bundle live."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request(
        "POST", "/host/deployments", json.dumps({"name": name}), {"Authorization": f"Bearer {credential}"}
    )
    key = json.loads(connection.getresponse().read())["adminKey"]
    digest = b64encode(sha256(bundle).digest()).decode()
    headers = {"Authorization": f"Convex {key}", "Content-Digest": f"sha-256=:{digest}:", "Host": f"{name}.localhost"}
    connection.request("POST", "/api/skerry/deploy", bundle, headers)
    answer = connection.getresponse()
    raw = answer.read()
    assert answer.status == 200, raw
    connection.close()


async def call_for(port: int, name: str, body: bytes, every_s: float, until: float, took: list[float]) -> None:
    """Calls one deployment on one connection; when a call is late, the next one is not."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    request = (
        f"POST /api/mutation HTTP/1.1\r\nHost: {name}.localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    )
    due = time.perf_counter()
    while due < until:
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        answer = await reader.readexactly(length)
        assert b'"success"' in answer, answer
        now = time.perf_counter()
        took.append(now - due)
        due = max(due + every_s, now) if every_s == 0 else due + every_s
        await asyncio.sleep(max(0.0, due - now))
    writer.close()


async def load(port: int, names: list[str], body: bytes, every_s: float) -> str:
    """Calls all deployments; what came of it."""
    took: list[float] = []
    began = time.perf_counter()
    await asyncio.gather(*(call_for(port, name, body, every_s, began + SECONDS, took) for name in names))
    elapsed = time.perf_counter() - began
    took.sort()
    p50, p99 = (took[int(len(took) * share)] * 1e3 for share in (0.5, 0.99))
    return f"{len(took) / elapsed:,.0f} commits/s, p50 {p50:.1f} ms, p99 {p99:.1f} ms"


def measure(bundle: bytes, body: bytes, deployments: int, workers: int) -> None:
    """Prints the figures of one count of workers."""
    names = [f"d{number}" for number in range(deployments)]
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        with Server(data, "--workers", str(workers)) as server:
            credential = (data / "host.credential").read_text().strip()
            for name in names:
                make(server, credential, name, bundle)
            uvloop.run(load(server.port, names, body, 0))  # warms everything up
            before, began = server.cpu_s(), time.perf_counter()
            timed = uvloop.run(load(server.port, names, body, 1 / RATE))
            cores = server.cpu_s().since(before).workers / (time.perf_counter() - began)
            print(f"{workers} workers, {deployments} deployments at {RATE}/s: {timed}, {cores:.2f} cores")
            free = uvloop.run(load(server.port, names, body, 0))
            print(f"{workers} workers, as many as they take: {free}", flush=True)


def main() -> None:
    bundle, function, args, deployments, *counts = [
        *sys.argv[1:],
        *("", "probe:slowWrite", '{"rounds": 1}', "100", "1", "2")[len(sys.argv) - 1 :],
    ]
    body = json.dumps({"path": function, "args": json.loads(args)}).encode()
    for workers in counts:
        measure(Path(bundle).read_bytes(), body, int(deployments), int(workers))


if __name__ == "__main__":
    main()
