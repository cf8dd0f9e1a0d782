"""Who may import what. The tables are the architecture; ARCHITECTURE.md explains them, and a test compares the two."""

import ast
from collections.abc import Iterator

import pytest

from tests.tidy.source_files import PACKAGE, REPOSITORY, imported_modules, module_name, package_files

# A room is a folder or a file directly under host/skerry/. It may import itself and what its row names, nothing else
# of ours.
BASE = {"errors", "limits", "types"}
DATA = BASE | {"value"}
ROOMS: dict[str, set[str]] = {
    "limits": set(),
    "errors": set(),
    "types": {"limits"},
    "supervisor": BASE,
    "value": BASE,
    "storage": DATA,
    "database": DATA | {"storage"},
    "jail": BASE,  # its child process finds the jobs' rooms by a table of names
    "isolate": DATA | {"jail"},  # no storage, no database: it reaches data only through the hostcall table it is given
    "egress": BASE,  # no data: whoever fetches hands in what is sent and takes what comes back
    "identity": DATA,  # no network of its own: it is handed the deployment's way out
    "bundle": DATA | {"jail", "isolate"},
    "vectors": DATA | {"storage", "database"},
    "schedule": DATA | {"storage", "database"},  # it hands what is due to whoever can run functions
    "functions": DATA | {"storage", "database", "isolate", "identity", "bundle", "vectors", "schedule"},
    "transfer": DATA | {"storage", "database"},  # files in, files out: no deployment, no requests
    "backup": DATA | {"storage", "database", "bundle", "functions"},
    "admin": DATA
    | {"storage", "database", "isolate", "egress", "identity", "bundle", "schedule", "functions"}
    | {"transfer", "backup"},
    "sync": DATA | {"storage", "database", "functions"},
    "http": DATA
    | {"supervisor", "storage", "database", "jail", "isolate", "identity", "bundle", "functions", "transfer", "backup"}
    | {"admin", "sync"},
    "cli": DATA
    | {"supervisor", "storage", "database", "jail", "isolate", "egress", "bundle", "functions", "backup"}
    | {"admin", "http"},
    "__main__": {"cli"},
    "__init__": set(),
}

# Modules of others (and of the standard library) that only some rooms may touch.
RESERVED: dict[str, set[str]] = {
    "lmdb": {"storage"},
    "wasmtime": {"isolate"},
    "jwt": {"identity"},
    "numpy": {"vectors"},
    "usearch": {"vectors"},
    "cronsim": {"schedule"},
    "fastapi": {"http"},
    "starlette": {"http"},
    "uvicorn": {"http", "cli"},
    "uvloop": {"http", "cli"},
    "click": {"cli"},
    "rich": {"cli"},
    "watchfiles": {"bundle", "cli"},
    "subprocess": {"supervisor", "jail", "bundle", "cli"},
    "socket": {"supervisor", "http", "cli", "egress"},
    "http.client": {"cli"},
    "http.server": set(),
    "urllib.request": {"cli"},
    "requests": set(),
    "httpx": set(),
    "aiohttp": {"egress"},
    "yarl": {"egress"},
    "pickle": set(),
    "marshal": set(),
    "random": set(),
}


def violations(source: str, importer: str, is_package: bool = False) -> Iterator[str]:
    room = room_of(importer)
    allowed = ROOMS.get(room)
    if allowed is None:
        yield f"{importer}: room {room!r} has no row in ROOMS"
        return
    for line, name in imported_modules(ast.parse(source), importer, is_package):
        if name == "skerry" or name.startswith("skerry."):
            target = name.split(".")[1] if "." in name else "__init__"
            # The package itself holds nothing but its version.
            if target not in {room, "__version__", *allowed}:
                yield f"{importer}:{line} imports {name}; {room} may import {sorted(allowed)}"
        for reserved, rooms in RESERVED.items():
            if (name == reserved or name.startswith(reserved + ".")) and room not in rooms:
                yield f"{importer}:{line} imports {name}, reserved for {sorted(rooms) or 'nobody'}"


def room_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def test_every_file_of_the_host_keeps_the_rules() -> None:
    found = [
        violation
        for path in package_files()
        for violation in violations(path.read_text(), module_name(path), path.name == "__init__.py")
    ]
    assert not found, "\n".join(found)


def test_rules_form_no_cycle() -> None:
    order: list[str] = []
    waiting = dict(ROOMS)
    while waiting:
        ready = [room for room, needs in waiting.items() if needs <= set(order)]
        assert ready, f"rooms that need each other: {sorted(waiting)}"
        for room in ready:
            order.append(room)
            del waiting[room]


@pytest.mark.parametrize(
    ("importer", "source", "named"),
    [
        ("skerry.value.order", "from skerry.storage import interface", "skerry.storage.interface"),
        ("skerry.value.order", "import skerry.database.transaction", "skerry.database.transaction"),
        ("skerry.isolate.engine", "def f():\n    from skerry.database import Database", "skerry.database.Database"),
        ("skerry.database.lane", "from ..storage import x\nfrom ..isolate import y", "skerry.isolate.y"),
        ("skerry.database.lane", "import lmdb", "lmdb"),
        ("skerry.functions.runner", "from wasmtime import Engine", "wasmtime.Engine"),
        ("skerry.functions.runner", "import fastapi.responses", "fastapi.responses"),
        ("skerry.functions.runner", "import skerry", "skerry"),
        ("skerry.storage.engine", "import pickle", "pickle"),
        ("skerry.attic.junk", "", "attic"),
    ],
)
def test_a_planted_violation_is_found(importer: str, source: str, named: str) -> None:
    found = list(violations(source, importer))
    assert len(found) == 1
    assert named in found[0]


def test_a_relative_import_in_a_package_file_is_resolved() -> None:
    assert not list(violations("from .order import compare", "skerry.value", is_package=True))
    assert list(violations("from ..storage import x", "skerry.value", is_package=True))


def test_the_walk_finds_the_host() -> None:
    names = {module_name(path) for path in package_files()}
    assert {"skerry", "skerry.errors", "skerry.limits"} <= names


def test_architecture_shows_the_same_rules() -> None:
    """The row of each room in ARCHITECTURE.md names exactly the rooms it may import."""
    documented: dict[str, set[str]] = {}
    for line in (REPOSITORY / "ARCHITECTURE.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `") and len(cells) == 3 and cells[0].strip("`") in ROOMS:
            documented[cells[0].strip("`")] = {word.strip(" `") for word in cells[2].split(",")} - {"-"}
    rooms = {room: needs for room, needs in ROOMS.items() if not room.startswith("__")}
    assert documented == rooms


def test_a_host_file_lies_where_its_room_is() -> None:
    assert room_of(module_name(PACKAGE / "storage" / "interface.py")) == "storage"
    assert room_of(module_name(PACKAGE / "errors.py")) == "errors"
    assert room_of(module_name(PACKAGE / "__init__.py")) == "__init__"
