"""Images built in the jail: the bytes and the errors are those of a build in this process."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from skerry.bundle.build import Parts, default_parts
from skerry.bundle.image import ImageBuilder, Script, build_image
from skerry.bundle.jail_jobs import jailed_image_builder
from skerry.errors import SkerryError
from skerry.isolate import ModuleCache, build_runner_at, compile_jailed, get_engine

SCRIPTS = [
    Script("first.js", b"globalThis.seen = [Date.now(), Math.random()];"),
    Script("second.js", b"seen.push(1);"),
]


@pytest.fixture(scope="module")
def parts() -> Parts:
    return default_parts(lambda _: None)


@pytest.fixture
def jailed(tmp_path: Path) -> ImageBuilder:
    return jailed_image_builder(ModuleCache(get_engine(), tmp_path, b"key", compile_jailed), followed=False)


def here(engine: bytes, scripts: Sequence[Script], clock_ms: int, seed: bytes) -> bytes:
    modules = ModuleCache(get_engine(), None, b"key")
    return build_image(engine, scripts, build_runner_at(modules)(clock_ms, seed))


def test_the_jail_builds_the_same_image_as_this_process(jailed: ImageBuilder, parts: Parts) -> None:
    scripts = [Script("prelude.js", parts.prelude, seldom=True), *SCRIPTS]
    made = jailed(parts.engine, scripts, 1_767_225_600_000, b"\1" * 32)
    assert made == here(parts.engine, scripts, 1_767_225_600_000, b"\1" * 32)
    assert made != jailed(parts.engine, scripts, 1_767_225_600_001, b"\1" * 32)
    assert made != jailed(parts.engine, scripts, 1_767_225_600_000, b"\2" * 32)


FAILING = {
    "throws": b"throw new TypeError('no');",
    "does not parse": b"let let = 1;",
    "does not end": b"for (;;) {}",
    "takes all memory": b"const all = []; for (;;) all.push(new Uint8Array(1e6).fill(1));",
}


@pytest.mark.parametrize("name", FAILING)
def test_an_image_fails_in_the_jail_as_it_does_in_this_process(jailed: ImageBuilder, parts: Parts, name: str) -> None:
    scripts = [Script("app.js", FAILING[name])]
    refusals: list[SkerryError] = []
    for build in (jailed, here):
        with pytest.raises(SkerryError) as caught:
            build(parts.engine, scripts, 0, b"\1" * 32)
        refusals.append(caught.value)
    inside, outside = refusals
    assert type(inside) is type(outside)
    assert (inside.code, inside.message, inside.data) == (outside.code, outside.message, outside.data)
