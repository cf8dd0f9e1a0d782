"""Descriptors: a server takes what the machine gives, and opens no more deployments than that is enough for."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from skerry.admin.open_files import deployments_open_max
from skerry.limits import DEPLOYMENT_OPEN_FILES, DEPLOYMENTS_OPEN_MAX, DEPLOYMENTS_OPENING_MAX, OPEN_FILES_ASSUMED
from tests.admin.world import HostWorld
from tests.fixtures import shared

HOST = Path(__file__).parents[2] / "host"
RAISED = """
import resource
from skerry.admin.open_files import raise_open_files
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 128))
assert raise_open_files() == 128
assert resource.getrlimit(resource.RLIMIT_NOFILE) == (128, 128)
assert raise_open_files() == 128
"""


@pytest.mark.parametrize("workers", [1, 2, 64])
def test_workers_share_how_many_deployments_are_open(workers: int) -> None:
    most = deployments_open_max(1 << 20, workers)
    assert most == max(DEPLOYMENTS_OPENING_MAX + 1, DEPLOYMENTS_OPEN_MAX // workers)


def test_the_soft_limit_becomes_the_hard_one() -> None:
    subprocess.run([sys.executable, "-c", RAISED], check=True, env={**os.environ, "PYTHONPATH": str(HOST)})


@pytest.mark.parametrize(
    ("files", "deployments"),
    [
        (OPEN_FILES_ASSUMED, DEPLOYMENTS_OPEN_MAX),
        (2 * DEPLOYMENT_OPEN_FILES * DEPLOYMENTS_OPEN_MAX, DEPLOYMENTS_OPEN_MAX),
        (2 * DEPLOYMENT_OPEN_FILES * DEPLOYMENTS_OPEN_MAX - 1, DEPLOYMENTS_OPEN_MAX - 1),
        (1024, 64),
        (20, DEPLOYMENTS_OPENING_MAX + 1),
    ],
)
def test_deployments_have_half_of_the_descriptors(files: int, deployments: int) -> None:
    assert deployments_open_max(files) == deployments


def test_an_open_deployment_takes_no_more_descriptors_than_are_counted_for_it(tmp_path: Path, base: Path) -> None:
    def taken() -> int:
        return len(os.listdir("/proc/self/fd"))

    with HostWorld(tmp_path / "data", shared.compiled(base)) as world:
        names = [f"d{number}" for number in range(5)]
        world.create(*names)
        world.deploy("local", shared.bundle("c", base))
        before = taken()
        for name in names:
            world.deploy(name, shared.bundle("c", base))
            assert world.value(name, "query", "f:add", {"x": 1, "y": 2}) == 3
        assert 0 < taken() - before <= DEPLOYMENT_OPEN_FILES * len(names)
