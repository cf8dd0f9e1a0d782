"""`tools/bench database`: what documents take on disk and on the clock, in numbers, in bulk, and beside other calls.

    growth      a document and a range of a hundred among more and more documents, in process (`growth_bench`)
    storage     notes that mutations wrote one by one: what the file takes for each, with its history and without
    imports     JSON lines and a snapshot archive through the server's routes, and what memory the server takes for it
    backfill    an index that a deploy adds, on a deployment that nobody asks and on one that serves mutations
    foreground  the p99 of those mutations, beside the backfill and beside an import, over what it is when all is quiet

The foreground is transfers between accounts, so many at a time as `_FOREGROUND`, as fast as they are answered. A
document is about 200 bytes of JSON as it is stored, its id and creation time among them.
"""

import json
import random
import shutil
import threading
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from bench.apps import BENCH_APP, GROUP_SIZE, build, bundle_of
from bench.effort import Effort
from bench.growth_bench import run_growth
from bench.load import Load, run_loads
from bench.report import Row, Section
from bench.server import Memory, Server

_FOREGROUND = 8
_ACCOUNTS_MAX = 20_000
_BUILT_MAX = 300_000
_PER_SECOND_IMPORTED = 20_000
_PER_SECOND_BUILT = 50_000
_PER_SECOND_BUILT_BESIDE = 10_000
_BESIDE_MAX = 3.0
_OVERHEAD_MAX = 4.0
_OVERHEAD_WITH_HISTORY_MAX = 7.0
# Of what a document takes in the trees: its key and its header.
_AROUND_DOCUMENT = 20 + 12
_RETENTION_S = 10
_WAIT_SECONDS_MAX = 300
_POLL_SECONDS = 0.05
_INDEX = '.index("by_grp", ["grp", "seq"])'


def run_database(folder: Path, effort: Effort, seed: int) -> list[Section]:
    """The tables, in the order above."""
    return [
        run_growth(folder, effort, seed),
        _storage(folder, effort, seed),
        *_bulk(folder, effort, seed),
    ]


# -- storage -----------------------------------------------------------------------------------------------------------


def _storage(folder: Path, effort: Effort, seed: int) -> Section:
    """What one note takes, when it was just written, when it was changed once, and when its history is dropped."""
    section = Section("Storage for a document of 200 bytes with two indexes, written one by one by mutations")
    with Server(folder / "storage") as server:
        server.deploy(bundle_of(BENCH_APP).read_bytes())
        empty_bytes = server.storage()["file"]["dataBytes"]

        def row(what: str, at_most: float | None) -> None:
            storage = server.storage_job("space")
            (notes,) = [table for table in storage["job"]["result"]["tables"] if table["name"] == "notes"]
            documents = notes["documents"]
            of_document = notes["documentBytes"] / documents - _AROUND_DOCUMENT
            taken = (storage["file"]["dataBytes"] - empty_bytes) / documents
            note = f"{taken:.0f} bytes for {of_document:.0f}; {documents:,} documents"
            if notes["versions"]:
                note += f", {notes['versions']:,} versions that were replaced"
            section.rows.append(Row(what, taken / of_document, "x", at_most=at_most, note=note))

        load = Load("note", 1, effort.connections, 0, 2 * effort.window_s, seed)
        run_loads(server, [load])
        row("documents, indexes, commit log with call records", _OVERHEAD_WITH_HISTORY_MAX)
        run_loads(server, [replace(load, workload="move-note", seed=seed + 1)])
        row("the same when as many mutations have changed one", None)
        server.post("/api/skerry/storage/settings", {"historyRetentionSeconds": _RETENTION_S})
        _until(lambda: server.storage_job("space")["job"]["result"]["commits"] <= 1)
        row("when the history has been dropped", _OVERHEAD_MAX)
        compacted = server.storage_job("compact")["job"]["result"]
        section.lines.append(
            f"- The file was {compacted['beforeBytes'] / 1e6:.1f} MB and is {compacted['afterBytes'] / 1e6:.1f} MB "
            "once it was compacted."
        )
    return section


# -- imports, backfill, and calls beside them --------------------------------------------------------------------------


def _bulk(folder: Path, effort: Effort, seed: int) -> list[Section]:
    accounts = min(effort.accounts, _ACCOUNTS_MAX)
    most = effort.documents[-1]
    few, some = max(most // 10, 1), min(most, _BUILT_MAX)
    files = Files(folder / "files", random.Random(seed))
    foreground = Load(
        "transfer", accounts, min(_FOREGROUND, effort.connections), effort.warmup_s, effort.window_s, seed
    )
    imports = Section("Imports through the server's routes, from the first byte sent to the answer")
    order = {"tableName": "notes", "format": "jsonLines"}
    with Server(folder / "few") as server:  # of its own, because a replaced table is cleared away afterwards
        server.deploy(bundle_of(BENCH_APP).read_bytes())
        _import(server, imports, "JSON lines", files.lines("notes", few), few, order)
    with Server(folder / "bulk") as server:
        server.deploy(bundle_of(BENCH_APP).read_bytes())
        server.seed(accounts)
        _import(server, imports, "JSON lines", files.lines("notes", most), most, order)
        archive = files.archive("docs", some)
        _import(server, imports, "snapshot archive", archive, some, {"format": "zip"})
        beside = Section(f"{foreground.connections} transfers at a time, and what goes on beside them")
        quiet = run_loads(server, [foreground])[0]
        beside.rows.append(_p99_row("p99, quiet", quiet, None))
        backfill = Section(f"An index that a deploy adds to {some:,} documents")
        _backfill(server, files, foreground, backfill, beside, quiet, some)
        _import_beside(server, files.lines("notes", some), foreground, beside, quiet)
    return [imports, backfill, beside]


def _import(server: Server, section: Section, what: str, file: Path, documents: int, query: dict[str, str]) -> None:
    with Memory(server) as memory:
        begin = time.perf_counter()
        written = server.import_file(file, {**query, "mode": "replace"})
        seconds = time.perf_counter() - begin
    if written != documents:
        raise RuntimeError(f"{what}: {written} documents were imported of {documents}")
    note = f"{seconds:.1f} s; the server's own memory grew by {memory.grown_mb:.1f} MB at most"
    section.rows.append(
        Row(f"{what}, {documents:,} documents", documents / seconds, "/s", at_least=_PER_SECOND_IMPORTED, note=note)
    )


def _backfill(
    server: Server,
    files: "Files",
    foreground: Load,
    backfill: Section,
    beside: Section,
    quiet: dict[str, Any],
    documents: int,
) -> None:
    without, also_without = (files.bundle(name, _INDEX, "") for name in ("without", "also-without"))
    with_index = bundle_of(BENCH_APP).read_bytes()
    for bundle in (without, also_without):  # their machine code is kept from here on, as that of the first one is
        server.deploy(bundle)
        _settled(server)
    plain_s = _seconds(lambda: server.deploy(without))
    built_s = _seconds(lambda: server.deploy(with_index))
    rate = documents / max(built_s - plain_s, 1e-3)
    note = f"the deploy {built_s:.2f} s, one that adds no index {plain_s:.2f} s"
    backfill.rows.append(Row("deployment idle", rate, "/s", at_least=_PER_SECOND_BUILT, note=note))
    server.deploy(without)
    _settled(server)
    with Progress(lambda: _documents_built(server)) as progress:
        deploying = threading.Thread(target=server.deploy, args=(with_index,))
        deploying.start()
        report = run_loads(server, [foreground])[0]
        rate, has_ended = progress.rate, not deploying.is_alive()
        deploying.join()
    note = "it ended before the load did" if has_ended else "as long as the load ran"
    backfill.rows.append(
        Row("beside the transfers", rate, "/s", at_least=_PER_SECOND_BUILT_BESIDE, note=note),
    )
    beside.rows.append(_p99_row("p99, beside the backfill", report, quiet))
    _add_ratio(beside, "the backfill", report, quiet)


def _import_beside(server: Server, file: Path, foreground: Load, beside: Section, quiet: dict[str, Any]) -> None:
    import_id = server.upload(file, {"tableName": "notes", "format": "jsonLines", "mode": "replace"})
    _until(lambda: server.import_state(import_id)["state"] == "waiting_for_confirmation")
    with Progress(lambda: server.import_state(import_id).get("rowsWritten", 0)) as progress:
        server.post("/api/perform_import", {"importId": import_id})
        report = run_loads(server, [foreground])[0]
        rate, ended = progress.rate, server.import_state(import_id)["state"]
    if ended not in ("in_progress", "completed"):
        raise RuntimeError(f"the import {ended}: {server.import_state(import_id)}")
    note = "as long as the load ran" if ended == "in_progress" else "it ended before the load did"
    beside.rows.append(Row("import beside them, documents", rate, "/s", note=note))
    beside.rows.append(_p99_row("p99, beside the import", report, quiet))
    _add_ratio(beside, "the import", report, quiet)
    _until(lambda: server.import_state(import_id)["state"] == "completed")


def _p99_row(what: str, report: dict[str, Any], quiet: dict[str, Any] | None) -> Row:
    note = f"p50 {report['p50_us'] / 1e3:.2f} ms, {report['per_second']:,.0f}/s, {report['errors']} errors"
    if quiet is not None:
        note += f", p50 {report['p50_us'] / quiet['p50_us']:.1f} times the quiet one"
    return Row(what, report["p99_us"] / 1e3, "ms", note=note)


def _add_ratio(section: Section, what: str, report: dict[str, Any], quiet: dict[str, Any]) -> None:
    ratio = report["p99_us"] / quiet["p99_us"]
    section.rows.append(Row(f"p99 beside {what} to the quiet one", ratio, "x", at_most=_BESIDE_MAX))
    if report["errors"]:
        section.lines.append(f"- Beside {what} {report['errors']} calls did not succeed: {report['first_failure']}")


class Progress:
    """Looks at a count of documents while it is entered. Shape: `rate` in documents a second, as far as it has come."""

    def __init__(self, count: Callable[[], int]) -> None:
        self._count = count
        self._seen: list[tuple[float, int]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> "Progress":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def rate(self) -> float:
        """Documents a second from the first to the last look that found more than the one before."""
        found = [(at_s, max(0, n - before)) for (_, before), (at_s, n) in pairwise(self._seen)]
        forward = [(at_s, more) for at_s, more in found if more]
        if len(forward) < 2:
            return 0
        return sum(more for _, more in forward[1:]) / (forward[-1][0] - forward[0][0])

    def _look(self) -> None:
        while not self._stop.wait(_POLL_SECONDS):
            self._seen.append((time.perf_counter(), self._count()))


class Files:
    """What is imported and deployed, made in a folder."""

    def __init__(self, folder: Path, chance: random.Random) -> None:
        folder.mkdir()
        self._folder = folder
        self._chance = chance

    def lines(self, kind: str, count: int) -> Path:
        """JSON lines of so many documents without ids, in an order that is that of none of their indexes."""
        path = self._folder / f"{kind}-{count}.jsonl"
        body = "b" * 90
        with path.open("w") as file:
            for n in range(count):
                if kind == "notes":
                    owner, at = self._chance.randrange(100_000), self._chance.randrange(100_000)
                    file.write(f'{{"owner":{owner},"at":{at},"body":"{body}"}}\n')
                else:
                    group = self._chance.randrange(max(1, count // GROUP_SIZE))
                    file.write(f'{{"grp":{group},"seq":{n},"author":"author {n % 7}","body":"{body[:70]}"}}\n')
        return path

    def archive(self, table: str, count: int) -> Path:
        """A snapshot archive with one table."""
        path = self._folder / f"{table}-{count}.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.write(self.lines(table, count), f"{table}/documents.jsonl")
        return path

    def bundle(self, name: str, text: str, instead: str) -> bytes:
        """A bench app whose schema has another text in the place of one, and which is called so."""
        app = self._folder / name
        shutil.copytree(BENCH_APP, app)
        schema = app / "convex" / "schema.ts"
        raw = schema.read_text()
        if raw.count(text) != 1:
            raise RuntimeError(f"{schema} has {text!r} {raw.count(text)} times")
        schema.write_text(raw.replace(text, instead) + f"\nexport const called = {json.dumps(name)};\n")
        return build(app)


def _documents_built(server: Server) -> int:
    return max(index.get("documents", 0) for index in server.get("/api/skerry/schema")["indexes"])


def _settled(server: Server) -> None:
    """Waits until a deployment has nothing to do for its schema."""
    _until(lambda: not server.get("/api/skerry/schema")["isWorking"])


def _until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _WAIT_SECONDS_MAX
    while not is_so():
        if time.monotonic() > deadline:
            raise RuntimeError(f"what was waited for has not come in {_WAIT_SECONDS_MAX} s")
        time.sleep(_POLL_SECONDS)


def _seconds(work: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin
