"""`tools/bench start`: memory of an idle server, first answers, build and redeploy, all with the chat example."""

import shutil
import statistics
import time
from pathlib import Path
from typing import Any

from bench.apps import CHAT_APP, bundle_of
from bench.effort import Effort
from bench.report import Row, Section
from bench.server import Server
from skerry.bundle.build import build_app
from skerry.bundle.esbuild import Bundler
from skerry.isolate import ModuleCache, build_runner_at, get_engine

_ASKED: dict[str, Any] = {"channel": "general"}


def run_start(folder: Path, effort: Effort, seed: int) -> list[Section]:
    """The table of starts. Nothing here depends on the seed."""
    section = Section("Starting and deploying, with the chat example")
    bundle = bundle_of(CHAT_APP).read_bytes()
    data = folder / "start"
    with Server(data) as server:
        empty_mb = server.pss_mb()
        begin = time.perf_counter()
        server.deploy(bundle)
        deployed_s = time.perf_counter() - begin
        first_ms = _first_answer_ms(server)
        second_ms = _first_answer_ms(server)
        server.call("mutation", "messages:send", {"channel": "general", "author": "a", "body": "b"})
    restarts: list[float] = []
    ready: list[float] = []
    idle_mb = 0.0
    for _ in range(effort.restarts):
        with Server(data) as server:
            assert len(server.call("query", "messages:list", _ASKED)) == 1
            restarts.append(time.perf_counter() - server.begun_at)
            ready.append(server.started_s)
            idle_mb = server.pss_mb()
    section.rows = [
        Row(
            "idle server, one app deployed",
            idle_mb,
            "MB",
            at_most=150,
            note=f"PSS; {empty_mb:.0f} MB before the first deploy",
        ),
        Row(
            "first answer after restart",
            statistics.median(restarts),
            "s",
            at_most=3,
            note=f"ports open after {statistics.median(ready):.2f} s",
        ),
        Row(
            "first answer after deploy",
            first_ms,
            "ms",
            at_most=20,
            note=f"a new connection; the second one {second_ms:.1f} ms",
        ),
        Row("first deploy (upload, check, compile, describe, activate)", deployed_s, "s"),
    ]
    section.rows += _edit_and_redeploy(folder, data)
    return [section]


def _first_answer_ms(server: Server) -> float:
    begin = time.perf_counter()
    server.call("query", "messages:list", _ASKED)
    return (time.perf_counter() - begin) * 1e3


def _edit_and_redeploy(folder: Path, data: Path) -> list[Row]:
    """What `skerry dev` does for each saved file, with its bundler kept between builds."""
    app = folder / "chat"
    shutil.copytree(CHAT_APP / "convex", app / "convex")
    shutil.copy(CHAT_APP / "package.json", app)
    modules = ModuleCache(get_engine(), None, b"bench")
    builds: list[float] = []
    redeploys: list[float] = []
    source = app / "convex" / "messages.ts"
    with Server(data) as server, Bundler(lambda _: None) as bundler:
        for edit in range(3):
            source.write_text(source.read_text() + f"\nexport const edit{edit} = {edit};\n")
            begin = time.perf_counter()
            built = build_app(
                app, clock_ms=1_767_225_600_000 + edit, instantiate_at=build_runner_at(modules), bundler=bundler
            )
            raw = built.to_bytes()
            builds.append(time.perf_counter() - begin)
            server.deploy(raw)
            server.call("query", "messages:list", _ASKED)
            redeploys.append(time.perf_counter() - begin)
    return [
        Row("build, first", builds[0], "s", note="bundler started, engine and prelude from the cache"),
        Row("build after an edit", builds[-1], "s"),
        Row("edit to first answer of the new version", redeploys[-1], "s", at_most=1),
    ]
