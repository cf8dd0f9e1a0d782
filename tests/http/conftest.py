"""One bundle and one server for all tests of this folder that leave it as it was."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.http.apps import shared_bundle
from tests.http.serving import RunningServer, serve


@pytest.fixture(scope="session")
def app_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shared_bundle(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="session")
def server(app_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with serve(tmp_path_factory.mktemp("server") / "data") as running:
        answer = running.deploy(app_bundle.read_bytes())
        assert answer.status == 200, answer
        yield running
