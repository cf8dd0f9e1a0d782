"""The process inside the jail: it confines itself, says which walls are up, does one job and ends.

Jobs are a table in this file. What a job is made of arrives through a pipe and is read only once every wall is up.
A job's module has, beside the job's function, `warm()`: it starts what needs threads or files, between the walls.
"""

import importlib
import os
import threading
from collections.abc import Callable, Sequence
from typing import Final, NoReturn

import orjson

from skerry import limits
from skerry.errors import SkerryError
from skerry.jail import messages
from skerry.jail.confine import Confinement

JOBS: Final[dict[bytes, tuple[str, str]]] = {
    b"compile": ("skerry.isolate.jail_jobs", "compile_module"),
    b"build-image": ("skerry.bundle.jail_jobs", "build_image_from"),
}
_READ_BYTES_MAX: Final = 1 << 20

Job = Callable[[Sequence[bytes]], bytes]


def main() -> NoReturn:
    run(Confinement(), JOBS)


def run(confinement: Confinement, table: dict[bytes, tuple[str, str]]) -> NoReturn:
    """Puts the walls up and does one job of the table."""
    confinement.enter_namespaces()
    os.nice(limits.JAIL_NICE)
    jobs = {name: _load(*where) for name, where in table.items()}
    confinement.shut()
    threading.stack_size(limits.GUEST_THREAD_STACK_BYTES + limits.MIB)
    worker = threading.Thread(target=_work, args=(confinement, jobs))  # the main thread's stack says its size in /proc
    worker.start()
    worker.join()
    os._exit(1)


def _work(confinement: Confinement, jobs: dict[bytes, "tuple[Job, Callable[[], None]]"]) -> NoReturn:
    for _, warm in jobs.values():
        warm()
    confinement.seal()
    walls = [[wall.name, wall.up, wall.why] for wall in confinement.walls]
    _write([orjson.dumps(walls)])
    name, *payload = messages.decode(_read_exactly, limits.JAIL_INPUT_BYTES_MAX)
    try:
        answer = [messages.DONE, jobs[name][0](payload)]
    except SkerryError as error:
        answer = [messages.REFUSED, orjson.dumps({"code": error.code, "message": error.message, "data": error.data})]
    _write(answer)
    os._exit(0)


def _load(module: str, function: str) -> tuple[Job, Callable[[], None]]:
    loaded = importlib.import_module(module)
    return getattr(loaded, function), loaded.warm


def _read_exactly(length: int) -> bytes:
    """The next bytes from the parent. Where it has closed the pipe, the process ends here."""
    chunks: list[bytes] = []
    while length:
        chunk = os.read(0, min(length, _READ_BYTES_MAX))
        if not chunk:
            os._exit(0)
        chunks.append(chunk)
        length -= len(chunk)
    return b"".join(chunks)


def _write(parts: Sequence[bytes]) -> None:
    for chunk in messages.encode(parts):
        view = memoryview(chunk)
        while view:
            view = view[os.write(1, view) :]
