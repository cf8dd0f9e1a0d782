"""Every target runs its seeds, and a fixed walk of the fuzzer from there; `tools/fuzz` walks as long as one likes."""

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.fuzz import targets

SEEDS = Path(__file__).parent / "seeds"
# How many inputs a target gets here: about ten seconds each on a slow machine.
RUNS = {
    "abi": 2_000,
    "addresses": 40_000,
    "backups": 8_000,
    "bundle": 8_000,
    "fetches": 20_000,
    "files": 8_000,
    "identifiers": 40_000,
    "keys": 20_000,
    "requests": 20_000,
    "sockets": 2_000,
    "stacks": 60_000,
    "validators": 60_000,
    "values": 20_000,
    "wasm": 60_000,
}
SEEDS_PER_TARGET_MIN = 5
FOUND_SECONDS_MAX = 600


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the targets keep files."""
    made = tmp_path_factory.mktemp("fuzz")
    targets.prepare(made)
    yield made
    targets.close()


def test_every_target_is_walked_and_has_seeds() -> None:
    assert targets.TARGETS.keys() == RUNS.keys() == {path.name for path in SEEDS.iterdir()}
    assert all(len(list((SEEDS / name).iterdir())) >= SEEDS_PER_TARGET_MIN for name in RUNS)


@pytest.mark.parametrize("name", RUNS)
def test_seeds_keep_the_promises_of_their_target(folder: Path, name: str) -> None:
    for seed in sorted((SEEDS / name).iterdir()):
        targets.TARGETS[name](seed.read_bytes())


@pytest.mark.skipif(find_spec("atheris") is None, reason="atheris has no wheel for this Python or machine")
@pytest.mark.parametrize("name", RUNS)
def test_a_walk_from_the_seeds_finds_nothing(folder: Path, repository: Path, name: str) -> None:
    command = [sys.executable, "-m", "tests.fuzz.fuzz", name, "--runs", str(RUNS[name]), "--folder", str(folder / name)]
    done = subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": f"{repository / 'host'}:{repository}"},
        cwd=repository,
        capture_output=True,
        text=True,
        timeout=FOUND_SECONDS_MAX,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert f"stat::number_of_executed_units: {RUNS[name]}" in done.stderr, done.stderr[-4000:]
