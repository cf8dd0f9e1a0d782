"""What many deployments on one host cost: memory while most are idle, and the first call of one that is closed.

Run it with a bundle that has a query without arguments:
    PYTHONPATH=host python3 tools/lib/bench/host_bench.py BUNDLE [FUNCTION] [DEPLOYMENTS] [ACTIVE]
"""

import asyncio
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

from skerry.admin.host import Host, HostOptions
from skerry.functions.request import CallRequest
from skerry.storage.folder import DataFolder

PAGE_BYTES = resource.getpagesize()
MIB = 1024 * 1024


def resident_mib() -> float:
    """Memory of this process that is in RAM."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES / MIB


async def first_call(host: Host, name: str, function: str) -> float:
    """Milliseconds of one call, whatever it answers."""
    hosted = host.find(name)
    assert hosted is not None
    began = time.perf_counter()
    result = await hosted.run(CallRequest(kind="query", path=function, args=b"{}", request_id="bench"))
    assert result.ok, result.error_message
    return (time.perf_counter() - began) * 1000


async def measure(data: Path, bundle: bytes, function: str, deployments: int, active: int) -> None:
    """Prints the figures."""
    idle = [0.0]
    options = HostOptions(
        clock_ns=time.time_ns,
        monotonic=lambda: time.monotonic() + idle[0],
        entropy=os.urandom,
        host_key=bytes(32),
        default_key="local|bench",
        credential="host|bench",
        compiled_cache=data / "compiled",
        production=False,
        environment=lambda name: {},
    )
    host = Host(DataFolder(data), options, asyncio.get_running_loop())
    await host.start()
    await host.default.activate(bundle)
    await first_call(host, "local", function)
    empty = resident_mib()
    began = time.perf_counter()
    names = [f"d{number}" for number in range(deployments)]
    await asyncio.gather(*map(host.create, names))
    print(f"{deployments} deployments created in {time.perf_counter() - began:.1f} s")
    for name in names[:active]:
        hosted = host.find(name)
        assert hosted is not None
        await hosted.activate(bundle)
        await first_call(host, name, function)
    print(f"{active} of {deployments} active: {resident_mib() - empty:.0f} MiB above a host with one deployment")
    host.sweep()
    idle[0] = 2 * options.idle_seconds
    host.sweep()
    while host.open_count > 1:  # noqa: ASYNC110 - closing ends without an event to wait for
        await asyncio.sleep(0.01)
    print(f"all closed: {resident_mib() - empty:.0f} MiB above")
    times = sorted([await first_call(host, name, function) for name in names[:active]])
    print(f"first call of a closed deployment: median {times[len(times) // 2]:.1f} ms, worst {times[-1]:.1f} ms")
    print(f"and its next call: {await first_call(host, names[0], function):.2f} ms")
    await host.close()


def main() -> None:
    bundle, function, deployments, active = [*sys.argv[1:], *("", "probe:echo", "2000", "20")[len(sys.argv) - 1 :]]
    with tempfile.TemporaryDirectory() as folder:
        sizes = int(deployments), int(active)
        asyncio.run(measure(Path(folder) / "data", Path(bundle).read_bytes(), function, *sizes))


if __name__ == "__main__":
    main()
