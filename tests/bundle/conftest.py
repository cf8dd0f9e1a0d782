"""The engine guest, built once for all tests of this folder."""

import pytest

from skerry.bundle.engine_build import engine_wasm
from tests.bundle.runner import Compiled, GuestRunner


@pytest.fixture(scope="session")
def engine() -> bytes:
    return engine_wasm()


@pytest.fixture(scope="session")
def compiled_engine(engine: bytes) -> Compiled:
    return Compiled(engine)


@pytest.fixture
def guest(compiled_engine: Compiled) -> GuestRunner:
    """A booted engine with nothing evaluated in it."""
    return GuestRunner(compiled_engine).boot()
