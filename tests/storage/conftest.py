"""What stands between the programs of these tests and the disk."""

import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.storage.test_durability import HERE, TIMEOUT_S


@pytest.fixture(scope="session")
def interposer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled `interpose.c`."""
    if find_spec("ziglang"):
        compiler = [sys.executable, "-m", "ziglang", "cc"]
    elif shutil.which("cc"):
        compiler = ["cc"]
    else:
        pytest.skip("needs a C compiler: ziglang, of the dev extra, or cc")
    library = tmp_path_factory.mktemp("interpose") / "interpose.so"
    command = [*compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(HERE / "interpose.c"), "-ldl", "-lpthread"]
    subprocess.run(command, check=True, capture_output=True, timeout=TIMEOUT_S)
    return library
