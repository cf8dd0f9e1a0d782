"""The engine guest, the prelude and a bundler, made once for all tests of this folder."""

from collections.abc import Iterator

import pytest

from skerry.bundle.build import Parts
from skerry.bundle.engine_build import engine_wasm
from skerry.bundle.esbuild import Bundler
from skerry.bundle.prelude import prelude_script
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


@pytest.fixture(scope="session")
def bundler() -> Iterator[Bundler]:
    with Bundler(lambda _: None) as kept:
        yield kept


@pytest.fixture(scope="session")
def parts(engine: bytes) -> Parts:
    return Parts(engine, prelude_script(lambda _: None))
