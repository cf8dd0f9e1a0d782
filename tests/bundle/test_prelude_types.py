"""The prelude's types: a pinned TypeScript compiler finds nothing wrong with it, and would."""

import shutil
import subprocess
from pathlib import Path

import pytest

from skerry.bundle.node import find_node, install_packages

COMPILER = Path(__file__).with_name("typescript")


def compile_prelude(repository: Path, folder: Path, *, broken: bool) -> str:
    """What the compiler says of the prelude; empty where nothing is wrong."""
    source = repository / "guest_sdk" / "javascript" / "prelude"
    node = find_node(print)
    compiler = install_packages(node, COMPILER, "typescript") / "node_modules" / "typescript" / "bin" / "tsc"
    shutil.copytree(source / "src", folder / "src")
    shutil.copyfile(source / "tsconfig.json", folder / "tsconfig.json")
    packages = install_packages(node, source, "prelude-packages") / "node_modules"
    (folder / "node_modules").symlink_to(packages, target_is_directory=True)
    if broken:
        (folder / "src" / "broken.ts").write_text("export const wrong: number = 'text';\n")
    command = [node.executable, str(compiler), "--project", str(folder), "--pretty", "false"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    assert (done.returncode == 0) == (not done.stdout)
    return done.stdout


@pytest.mark.parametrize("broken", [False, True])
def test_the_prelude_has_its_types(repository: Path, tmp_path: Path, broken: bool) -> None:
    said = compile_prelude(repository, tmp_path, broken=broken)
    assert said.startswith("src/broken.ts(1,14): error TS2322") if broken else said == "", said
