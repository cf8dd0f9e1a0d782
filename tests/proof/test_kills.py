"""kill -9 while commits, an index being built, an import, dropping the past and compaction run: what was acknowledged
is there, what belongs together is whole, and all trees agree.
"""

import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

from orjson import loads

from skerry.database import verify
from skerry.storage.lmdb_engine import LmdbEngine
from tests.conftest import REPOSITORY
from tests.database.world import World, range_query, scan_query
from tests.fixtures.effort import TIMES, chance

ROUNDS = 6 * TIMES
LINES_MAX = 400


class Acknowledged:
    """What the killed processes said. Shape: `imports` the count of the last import of the last process."""

    def __init__(self) -> None:
        self.commits: dict[int, int] = {}
        self.imports: int | None = None
        self.said: Counter[str] = Counter()

    def hear(self, line: str) -> None:
        word, *rest = line.split()
        self.said[word] += 1
        if word == "commit":
            self.commits[int(rest[0])] = int(rest[1])
        elif word == "import":
            self.imports = int(rest[0])


def write_until_killed(folder: Path, first: int, lines: int, acknowledged: Acknowledged) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.proof.busy_writer", str(folder), str(first)],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": f"{REPOSITORY / 'host'}:{REPOSITORY}"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for count, line in enumerate(process.stdout, 1):
        if line.endswith("\n"):
            acknowledged.hear(line)  # what is still in the pipe was acknowledged too
        if count == lines:
            process.send_signal(signal.SIGKILL)
    process.stdout.close()
    assert process.wait() == -signal.SIGKILL, "it ended by itself"


def check(folder: Path, acknowledged: Acknowledged) -> None:
    world = World(LmdbEngine(folder))
    snapshot = world.engine.snapshot()
    found = verify(snapshot)
    snapshot.close()
    assert found.is_sound, found.differences
    left, right, imported = (
        loads(world.read(lambda t, table=table: t.collect_query(scan_query(table))))
        for table in ("left", "right", "imported")
    )
    others = {row["_id"]: row for row in right}
    assert len(left) == len(right) and all(others[row["other"]]["n"] == row["n"] for row in left), "a pair is torn"
    assert set(acknowledged.commits) <= {row["n"] for row in left}
    assert all(row["change"] == 2 for row in left)
    assert [row["n"] for row in imported] == list(range(len(imported))), "an import is there in part"
    if acknowledged.imports is not None:
        assert len(imported) in (acknowledged.imports, acknowledged.imports + 1), "or the next one, not told of"
    if "by_n" in world.database.catalog.tables["right"].indexes:
        by_n = loads(world.read(lambda t: t.collect_query(range_query("right.by_n", []))))
        assert [row["n"] for row in by_n] == sorted(row["n"] for row in right)
    world.engine.close()


def test_killed_while_everything_runs(tmp_path: Path) -> None:
    acknowledged = Acknowledged()
    random = chance("kills")
    for round_ in range(ROUNDS):
        acknowledged.imports = None
        write_until_killed(tmp_path / "d", round_ * 1_000_000, random.randint(1, LINES_MAX), acknowledged)
        check(tmp_path / "d", acknowledged)
    assert {"commit", "import", "building", "schema", "compacted", "retained"} <= set(acknowledged.said), (
        acknowledged.said
    )
