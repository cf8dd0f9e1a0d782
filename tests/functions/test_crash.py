"""Killed while it commits, a deployment comes back with every answered mutation and no torn one."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.conftest import REPOSITORY
from tests.fixtures.hostile_bundle import hostile_bundle
from tests.fixtures.world import World

ROUNDS = 3
ANSWERS_BEFORE_KILL = 200


def test_killed_during_commits_every_answered_mutation_is_there(tmp_path: Path, compiled: Path, base: Path) -> None:
    bundle = tmp_path / "bundle"
    bundle.write_bytes(hostile_bundle(base))
    answered: set[int] = set()
    for round_ in range(ROUNDS):
        answered |= _commit_until_killed(tmp_path / "data", compiled, bundle, round_ * 1_000_000)
        with World(tmp_path / "data", compiled) as world:
            written = world.query("h:written")
            assert "torn" not in written
            assert len(written) == len(set(written)), "no mutation ran twice"
            assert answered <= set(written)


def _commit_until_killed(folder: Path, compiled: Path, bundle: Path, begin: int) -> set[int]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.functions.crash_server", folder, compiled, bundle, str(begin)],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": f"{REPOSITORY / 'host'}:{REPOSITORY}"},
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    answered: set[int] = set()
    for line in process.stdout:
        answered.add(int(line))
        if len(answered) == ANSWERS_BEFORE_KILL:
            process.send_signal(signal.SIGKILL)  # what is still in the pipe was answered too
    assert process.wait() == -signal.SIGKILL, "it ended by itself"
    process.stdout.close()
    return answered
