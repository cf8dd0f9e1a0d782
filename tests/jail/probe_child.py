"""A child of the jail whose jobs try its walls. It is another program than the host's: no table of the host names them.

Options (JSON): `only` the walls to put up (None for all), `refused` walls that this "machine" refuses, `limits` to set
lower.
"""

import errno
import json
import os
import sys
from collections.abc import Callable

from skerry import limits
from skerry.jail import child
from skerry.jail.confine import Confinement
from skerry.jail.process import ChildProcess, _import_path

PROGRAM = "import sys; sys.path += sys.argv[2:]; from tests.jail.probe_child import main; main(sys.argv[1])"
JOBS = {b"probe": ("tests.jail.probes", "probe"), b"compile": child.JOBS[b"compile"]}


class Chosen(Confinement):
    def __init__(self, only: list[str] | None, refused: list[str]) -> None:
        super().__init__()
        self.only, self.refused = only, refused

    def _try(self, name: str, raise_wall: Callable[[], str | None], closes: str) -> None:
        if self.only is not None and name not in self.only:
            return
        super()._try(name, self._refuse if name in self.refused else raise_wall, closes)

    def _refuse(self) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))


def main(options: str) -> None:
    chosen = json.loads(options)
    for name, value in chosen.get("limits", {}).items():
        setattr(limits, name, value)
    child.run(Chosen(chosen.get("only"), chosen.get("refused", [])), JOBS)


def starter(**options: object) -> Callable[[Callable[[], float]], ChildProcess]:
    """What `Jail` starts such children with."""
    command = [sys.executable, "-I", "-S", "-B", "-c", PROGRAM, json.dumps(options), *_import_path()]
    return lambda monotonic: ChildProcess(monotonic, command)
