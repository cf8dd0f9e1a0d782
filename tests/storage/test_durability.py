"""Acknowledged means synced: held and failing syncs, failing writes, a full disk, and a killed process."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from skerry.limits import MIB
from skerry.storage.lmdb_engine import LmdbEngine
from tests.storage.fault_programs import numbers_there

HERE = Path(__file__).parent
TIMEOUT_S = 60


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path), **more}


def command(name: str, folder: Path) -> list[str]:
    return [sys.executable, str(HERE / "fault_programs.py"), name, str(folder)]


def run(name: str, folder: Path, **more: str) -> None:
    ended = subprocess.run(
        command(name, folder), env=environment(**more), capture_output=True, text=True, timeout=TIMEOUT_S
    )
    assert (ended.returncode, ended.stdout) == (0, "ok\n"), ended.stderr


@pytest.mark.parametrize("name", ["held_sync", "failed_sync", "failed_writes"])
def test_behind_the_interposer(name: str, tmp_path: Path, interposer: Path) -> None:
    run(name, tmp_path / "deployment", LD_PRELOAD=str(interposer))


def test_a_file_that_may_not_grow(tmp_path: Path) -> None:
    run("file_size_limit", tmp_path / "deployment")


def test_each_acknowledged_batch_survives_a_kill(tmp_path: Path) -> None:
    folder = tmp_path / "deployment"
    acknowledged: set[int] = set()
    for n_before_kill in (1, 50, 200):
        child = subprocess.Popen(
            command("commit_for_ever", folder), env=environment(), stdout=subprocess.PIPE, bufsize=0
        )
        assert child.stdout is not None
        lines: list[bytes] = []
        while len(lines) < n_before_kill:
            line = child.stdout.readline()
            assert line.endswith(b"\n"), "the child ended by itself"
            lines.append(line)
        child.send_signal(signal.SIGKILL)
        lines += child.stdout.read().splitlines(keepends=True)
        child.stdout.close()
        assert child.wait(TIMEOUT_S) == -signal.SIGKILL
        acknowledged |= {int(line) for line in lines if line.endswith(b"\n")}
        engine = LmdbEngine(folder, map_bytes=64 * MIB)
        there = numbers_there(engine)
        engine.close()
        assert acknowledged <= there
        assert there == set(range(1, max(there) + 1))
