"""kill -9 while functions are scheduled and run: mutations that were acknowledged run once, actions at most once."""

import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

from skerry.database import verify
from skerry.schedule.jobs import LOST_ACTION
from tests.conftest import REPOSITORY
from tests.fixtures import shared
from tests.fixtures.effort import TIMES
from tests.schedule.world import Clocked, schedule_bundle

ROUNDS = 3 * TIMES
ANSWERS_BEFORE_KILL = 60
DAY_MS = 86_400_000


def test_killed_at_any_moment_mutations_run_once_and_actions_at_most_once(base: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    bundle.write_bytes(schedule_bundle(base))
    answered: set[int] = set()
    for round_ in range(ROUNDS):
        answered |= schedule_until_killed(tmp_path / "data", shared.compiled(base), bundle, round_ * 1_000_000)
    with Clocked(tmp_path / "data", shared.compiled(base), stream=b"afterwards") as world:
        world.pass_ms(DAY_MS)
        world.asked_until(lambda: not under_way(world))
        check(world, answered)


def under_way(world: Clocked) -> list[str]:
    kinds = [document["state"]["kind"] for document in world.query("jobs:scheduled")]
    return [kind for kind in kinds if kind in ("pending", "inProgress")]


def check(world: Clocked, answered: set[int]) -> None:
    notes = Counter(world.notes())
    ended = {document["args"][0]["n"]: document for document in world.query("jobs:scheduled")}
    assert answered <= set(ended)
    for n, document in ended.items():
        name, state = document["name"], document["state"]
        if name == "jobs.js:note":
            assert (notes[n], state) == (1, {"kind": "success"})
        elif name == "jobs.js:fails":
            assert (notes[n], state["kind"]) == (0, "failed")
            assert "not today" in state["error"]
        elif state["kind"] == "success":
            assert notes[n] == 1
        else:
            assert state == {"kind": "failed", "error": LOST_ACTION}
            assert notes[n] <= 1, "it may have done its work and not lived to say so"
    snapshot = world.deployment.database.snapshot_beside()
    try:
        assert verify(snapshot).difference_count == 0
    finally:
        snapshot.close()


def schedule_until_killed(folder: Path, compiled: Path, bundle: Path, begin: int) -> set[int]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.schedule.busy_scheduler", folder, compiled, bundle, str(begin)],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": f"{REPOSITORY / 'host'}:{REPOSITORY}"},
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    answered: set[int] = set()
    for line in process.stdout:
        if line.endswith(b"\n"):
            answered.add(int(line))
        if len(answered) == ANSWERS_BEFORE_KILL:
            process.send_signal(signal.SIGKILL)  # what is still in the pipe was answered too
    process.stdout.close()
    assert process.wait() == -signal.SIGKILL, "it ended by itself"
    return answered
