"""The same image, arguments, snapshot, seed and time give the same bytes: of results, logs, reads and writes."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.conftest import REPOSITORY
from tests.fixtures import shared
from tests.fixtures.bundles import languages
from tests.fixtures.world import World
from tests.functions.tracing import CALLS, traces

SEED = bytes(range(32))
OTHER = bytes(range(1, 33))
SEEDED = {"f:random", "f:insert", "f:callMutation", "f:catchSub"}


@pytest.fixture(scope="module", params=languages())
def fresh(request: pytest.FixtureRequest, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Each language's guest over an empty database."""
    with World(tmp_path_factory.mktemp("fresh"), shared.compiled(base), name=request.param) as made:
        made.activate(shared.bundle(request.param, base))
        yield made


@pytest.fixture(scope="module")
def first(fresh: World) -> list[Any]:
    return traces(fresh, SEED, patient=False)


def test_a_call_gives_the_same_twice(fresh: World, first: list[Any]) -> None:
    assert traces(fresh, SEED, patient=False) == first
    assert [trace["path"] for trace in first] == [path for path, _ in CALLS]
    assert any(trace["writes"] for trace in first) and any(trace["ranges"] for trace in first)
    counts = {trace["steps"] > 0 for trace in first}
    assert counts == {fresh.deployment.name == "javascript"}, "whoever counts its steps counts some in each call"


def test_a_call_gives_the_same_inline_and_patient(fresh: World, first: list[Any]) -> None:
    assert traces(fresh, SEED, patient=True) == first


def test_another_seed_changes_what_is_random_and_nothing_else(fresh: World, first: list[Any]) -> None:
    other = traces(fresh, OTHER, patient=False)
    differ = {one["path"] for one, two in zip(first, other, strict=True) if one != two}
    assert differ == SEEDED


def test_a_call_gives_the_same_in_another_process(
    fresh: World, first: list[Any], base: Path, compiled: Path, tmp_path: Path
) -> None:
    name = fresh.deployment.name
    bundle = tmp_path / "bundle"
    bundle.write_bytes(shared.bundle(name, base))
    done = subprocess.run(
        [sys.executable, "-m", "tests.functions.tracing", name, bundle, tmp_path / "data", compiled, SEED.hex()],
        cwd=REPOSITORY,
        env={"PYTHONPATH": f"{REPOSITORY / 'host'}:{REPOSITORY}", "PYTHONHASHSEED": "7"},
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert orjson.loads(done.stdout) == first
