"""A deployment that searches no vectors pays nothing for them."""

import subprocess
import sys

from tests.http.serving import environment

PROGRAM = """
import sys
import skerry.cli.main, skerry.functions.deployment, skerry.http.server
loaded = {name.partition(".")[0] for name in sys.modules}
assert "skerry" in loaded
print(sorted(loaded & {"numpy", "usearch", "numkong", "simsimd", "tqdm"}))
"""


def test_nothing_loads_numpy_or_the_library_before_the_first_search() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, env=environment())
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[]\n"
