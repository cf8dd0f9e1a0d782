"""What many deployments on one host cost: memory while most are idle, and the first call of one that is closed.

    PYTHONPATH=host:tools/lib python3 tools/lib/bench/host_bench.py [DEPLOYMENTS [ACTIVE [DISTINCT [WORKERS]]]]

Every deployment has a folder, a storage and a live version of the bench app with a constant of its own. The first
DISTINCT have code that no other has, the rest repeat it in turns: a bundle and its machine code take 17 MB of disk. The
files are what activations would have written, without compiling each: the machine code of two of these apps differs in
the constant alone, which is checked with two that are really compiled. Measured is a real server over HTTP, supervisor
and workers, beside the same server on a folder with nothing but its default deployment.
"""

import asyncio
import http.client
import json
import os
import sys
import tempfile
import time
from hashlib import sha256
from pathlib import Path

import orjson

from bench.apps import BENCH_APP, bench_folder, bundle_of
from bench.server import Server
from skerry.admin.keys import open_keys
from skerry.admin.registry import Registry
from skerry.bundle.bundle_file import IMAGE, SOURCE_MAP, make_bundle, read_bundle
from skerry.functions.checked_versions import CheckedVersions
from skerry.functions.deployment import Deployment
from skerry.functions.function_table import Description
from skerry.functions.kept_versions import KeptVersion
from skerry.functions.version import check_version
from skerry.isolate import ModuleCache, get_engine
from skerry.storage.folder import DataFolder, DeploymentFolder
from skerry.storage.lmdb_engine import LmdbEngine

CONSTANT = b"s" * 88  # of examples/bench/convex/bank.ts, in the image's memory
CALL = json.dumps({"path": "app:add", "args": {"x": 1, "y": 2}, "format": "json"}).encode()
MEASURED_MAX = 100  # first calls while there is room for more open deployments


def variant(raw: bytes, number: int) -> bytes:
    """The same bytes with another constant in the place of the one."""
    assert raw.count(CONSTANT) == 1
    return raw.replace(CONSTANT, b"%088d" % number)


class Maker:
    """Writes what activations on a host would have written."""

    def __init__(self, data: Path) -> None:
        self._data = data
        self._bundle = read_bundle(bundle_of(BENCH_APP).read_bytes())
        self._key = open_keys(data, "local", "local|bench", os.urandom).host_key
        self._cache = ModuleCache(get_engine(), data / "compiled", self._key)
        module, self._description = check_version(self._bundle, self._cache, "bench")
        assert module.digest
        self._schema = orjson.dumps(Description(self._description).schema)
        self._code = self._cache.machine_code(self._bundle.image)
        other = self._cache.machine_code(variant(self._bundle.image, 0))
        assert other == variant(self._code, 0), "machine code is not as this bench takes it"
        self._cache._forget_unused = lambda folder: None  # pyright: ignore[reportPrivateUsage] -- once for each file here
        self._first: list[Path] = []

    async def make(self, deployments: int, distinct: int) -> None:
        loop = asyncio.get_running_loop()
        folder = DataFolder(self._data)
        registry = Registry(LmdbEngine(folder.host, folder_format=DeploymentFolder.HOST_FORMAT))
        for number in range(deployments):
            name = f"d{number}"
            await registry.create(name, time.time_ns() // 1_000_000)
            path = folder.deployment_path(name)
            empty = Deployment(
                path,
                name=name,
                clock_ns=time.time_ns,
                entropy=os.urandom,
                host_key=self._key,
                loop=loop,
                compiled_cache=None,
                production=False,
                modules=self._cache,
            )
            kept = self._write(path, number % distinct, number >= distinct)
            empty.database.apply_schema(self._schema, empty._kept.switch(kept)[1])  # pyright: ignore[reportPrivateUsage] -- as `activate`
            await empty.close()
        registry.close()
        folder.close()

    def _write(self, path: Path, number: int, is_repeated: bool) -> KeptVersion:
        if is_repeated:
            first = self._first[number]
            (made,) = (first / "bundles").iterdir()
            digest, size = made.name, made.stat().st_size
            os.link(made, path / "bundles" / digest)
            (path / "checked").mkdir()
            for kept in (first / "checked").iterdir():
                (path / "checked" / kept.name).write_bytes(kept.read_bytes())
        else:
            bundle = make_bundle({**self._bundle.entries, IMAGE: variant(self._bundle.image, number + 1)})
            raw = bundle.to_bytes()
            digest, size = bundle.digest, len(raw)
            (path / "bundles" / digest).write_bytes(raw)
            module = sha256(bundle.image).hexdigest()
            self._cache._write(module, variant(self._code, number + 1))  # pyright: ignore[reportPrivateUsage] -- as above
            checked = CheckedVersions(path / "checked", self._key)
            checked.keep(digest, module, self._description, bundle.entries[SOURCE_MAP])
            self._first.append(path)
        return KeptVersion(digest, 0, size, 1)


class Client:
    """One connection that is kept alive."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def call(self, name: str) -> float:
        """Milliseconds of one call."""
        began = time.perf_counter()
        headers = {"Host": f"{name}.localhost", "Content-Type": "application/json"}
        self._connection.request("POST", "/api/query", CALL, headers)
        answer = json.loads(self._connection.getresponse().read())
        took = (time.perf_counter() - began) * 1000
        assert answer.get("value") == 3, answer
        return took

    def close(self) -> None:
        self._connection.close()


def memory(server: Server) -> dict[str, float]:
    """MiB of a server's processes. Shape: `pss` in all; of it `anon`, `file` and `shmem`; `tables` are page tables."""
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
    total = dict.fromkeys(("pss", "anon", "file", "shmem", "tables"), 0.0)
    fields = {"Pss:": "pss", "Pss_Anon:": "anon", "Pss_File:": "file", "Pss_Shmem:": "shmem"}
    for pid in [str(server.process.pid), *children]:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
            name, value = line.split()[:2]
            if name in fields:
                total[fields[name]] += int(value) / 1024
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmPTE:"):
                total["tables"] += int(line.split()[1]) / 1024
    return total


def counts(server: Server) -> str:
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
    threads = sum(len(os.listdir(f"/proc/{pid}/task")) for pid in children)
    files = sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in children)
    return f"{threads} threads and {files} descriptors of workers and their children"


def shown(found: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.1f}" for name, value in found.items()) + " MiB"


def spread(times: list[float]) -> str:
    ordered = sorted(times)
    at = [ordered[min(len(ordered) - 1, len(ordered) * part // 100)] for part in (50, 90, 99)]
    return f"p50 {at[0]:.1f}, p90 {at[1]:.1f}, p99 {at[2]:.1f}, worst {ordered[-1]:.1f} ms of {len(ordered)}"


def measure(data: Path, active: int, distinct: int, workers: int, empty: dict[str, float] | None) -> dict[str, float]:
    """Prints what is found. Shape: `empty` is the memory of an empty host, None where this is one."""
    with Server(data, "--workers", str(workers)) as server:
        client = Client(server.port)
        if empty is None:
            found = memory(server)
            print(f"empty host: {shown(found)}; {counts(server)}")
            return found
        found = memory(server)
        print(f"all idle, above an empty host: {found['pss'] - empty['pss']:.1f} MiB ({shown(found)})")
        for number in range(active):
            for _ in range(20):
                client.call(f"d{number}")
        found = memory(server)
        print(f"{active} active, above an empty host: {found['pss'] - empty['pss']:.1f} MiB ({shown(found)})")
        print(f"  {counts(server)}")
        room = range(active, min(active + MEASURED_MAX, distinct))
        before = server.cpu_s()
        times = [client.call(f"d{number}") for number in room]
        cpu = server.cpu_s().since(before).workers / len(times) * 1000
        print(f"first call of an idle one: {spread(times)}; {cpu:.1f} ms of CPU each")
        print(f"  and its next call: {spread([client.call(f'd{number}') for number in room])}")
        past = range(active + MEASURED_MAX, distinct)
        if past:
            before = server.cpu_s()
            times = [client.call(f"d{number}") for number in past]
            cpu = server.cpu_s().since(before).workers / len(times) * 1000
            print(f"while others have to be closed for it: {spread(times)}; {cpu:.1f} ms of CPU each")
        found = memory(server)
        print(f"with as many open as may be: {found['pss'] - empty['pss']:.1f} MiB ({shown(found)}); {counts(server)}")
        client.close()
        return found


def main() -> None:
    given = [int(argument) for argument in sys.argv[1:]]
    deployments, active, distinct, workers = [*given, *(2_000, 20, 300, 1)[len(given) :]]
    with tempfile.TemporaryDirectory(prefix="host-", dir=bench_folder()) as scratch:
        empty, data = Path(scratch) / "empty", Path(scratch) / "data"
        began = time.perf_counter()
        DataFolder(data).close()
        asyncio.run(Maker(data).make(deployments, distinct))
        print(f"{deployments} deployments, {distinct} codes, made in {time.perf_counter() - began:.0f} s", flush=True)
        alone = measure(empty, active, distinct, workers, None)
        measure(data, active, distinct, workers, alone)


if __name__ == "__main__":
    main()
