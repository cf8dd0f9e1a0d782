"""Building guests from C: what is refused, and that results depend on nothing but their inputs."""

from pathlib import Path

import pytest

from skerry.bundle import engine_build
from skerry.bundle.engine_build import build_c_guest, build_engine
from skerry.errors import SystemFault

SOURCE = '#include "skerry.h"\nSKERRY_GUEST(SKERRY_DESCRIPTION(""), {"none", NULL})\n'


def test_other_sources_than_the_pinned_ones_are_refused(tmp_path: Path) -> None:
    other = tmp_path / "quickjs_ng-0.17.0.2.tar.gz"
    other.write_bytes(b"not the sources")
    with pytest.raises(SystemFault, match="not the pinned") as caught:
        build_engine(tmp_path / "cache", sdist=other)
    assert caught.value.code == "EngineBuildFailed"


def test_a_parser_with_other_functions_is_refused() -> None:
    add_frames = engine_build._with_frames  # pyright: ignore[reportPrivateUsage] - the step that guards a version change
    with pytest.raises(SystemFault, match="parser is not the one"):
        add_frames("int main(void) { return 0; }")


def test_a_compiler_error_is_reported_with_its_text() -> None:
    with pytest.raises(SystemFault, match="undeclared") as caught:
        build_c_guest("int f(void) { return undeclared_name; }")
    assert caught.value.code == "EngineBuildFailed"


def test_the_same_source_gives_the_same_module() -> None:
    assert build_c_guest(SOURCE) == build_c_guest(SOURCE)


def test_another_source_gives_another_module() -> None:
    assert build_c_guest(SOURCE) != build_c_guest(SOURCE.replace('""', 'SKERRY_FUNCTION("a:b", "query")'))
