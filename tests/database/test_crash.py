"""kill -9 while commits stream: what was acknowledged is there, and nothing is torn."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from orjson import loads

from skerry.database.commit_log import read_entry
from skerry.storage import Tree
from skerry.storage.lmdb_engine import LmdbEngine
from tests.database.world import World, documents, scan_query

ROUNDS = 4
LINES = 60


def test_acknowledged_commits_survive_a_kill_and_none_is_torn(tmp_path: Path, repository: Path) -> None:
    folder = tmp_path / "d"
    acknowledged: list[tuple[str, str, int]] = []
    for round_ in range(ROUNDS):
        process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("crash_writer.py")), str(folder)],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(repository / "host")},
        )
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(LINES * (round_ + 1))]
        process.send_signal(signal.SIGKILL)
        lines += process.stdout.read().splitlines(keepends=True)
        process.wait()
        process.stdout.close()
        for line in lines:
            if line.endswith(b"\n"):
                left, right, ts = line.decode().split()
                acknowledged.append((left, right, int(ts)))
        check(folder, acknowledged)
    assert len(acknowledged) >= LINES * ROUNDS


def check(folder: Path, acknowledged: list[tuple[str, str, int]]) -> None:
    world = World(LmdbEngine(folder))
    t = world.begin(writable=False)
    rows = {d["_id"]: d for d in documents(t.collect_query(scan_query("left")))}
    others = {d["_id"]: d for d in documents(t.collect_query(scan_query("right")))}
    t.abort()
    log = {
        int.from_bytes(key, "big"): read_entry(raw)
        for key, raw in world.engine.snapshot().scan(Tree.COMMIT_LOG, b"", None, False)
    }
    assert {row["other"] for row in rows.values()} == set(others), "a pair was torn"
    assert all(others[row["other"]]["n"] == row["n"] for row in rows.values())
    assert len(log) == len(rows) and all(len(changes) == 2 for _, changes in log.values())
    for left, right, ts in acknowledged:
        assert left in rows and right in others and ts in log
        assert loads(world.read(lambda q, i=left: q.get(i)))["other"] == right
    stamps = [ts for _, _, ts in acknowledged]
    assert stamps == sorted(set(stamps))
    world.engine.close()
