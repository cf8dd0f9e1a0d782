"""The documentation says what the code does: error codes, limits, routes, commands and flags."""

import ast
import importlib
import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from tests.tidy.source_files import PACKAGE, REPOSITORY

DOCS = REPOSITORY / "docs"


@pytest.fixture(scope="module")
def gen_docs() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gen_docs", REPOSITORY / "tools" / "lib" / "gen_docs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", ["errors.md", "limits.md"])
def test_page_is_what_the_module_says(gen_docs: ModuleType, page: str) -> None:
    assert gen_docs.pages()[DOCS / page] == (DOCS / page).read_text(), "run: python3 tools/lib/gen_docs.py"


def test_every_error_code_and_every_bound_has_its_row() -> None:
    """Independent of the generator's own reading of the modules."""
    errors = importlib.import_module("skerry.errors").ERRORS
    assert set(_first_cells("errors.md")) == set(errors)
    names = {name for name in vars(importlib.import_module("skerry.limits")) if name.isupper()}
    assert set(_first_cells("limits.md")) == names - {"KIB", "MIB", "GIB"}


def test_every_error_code_and_every_bound_is_defined_once() -> None:
    defined = re.findall(r"^([A-Z][A-Z0-9_]*)(?::[^=]+)? =", (PACKAGE / "limits.py").read_text(), re.M)
    assert sorted(defined) == sorted(set(defined))
    tables = [node for node in ast.walk(ast.parse((PACKAGE / "errors.py").read_text())) if isinstance(node, ast.Dict)]
    codes = [key.value for table in tables for key in table.keys if isinstance(key, ast.Constant)]
    assert sorted(map(str, codes)) == sorted(set(map(str, codes)))


def test_gen_docs_check_agrees() -> None:
    done = subprocess.run([sys.executable, str(REPOSITORY / "tools" / "lib" / "gen_docs.py"), "--check"])
    assert done.returncode == 0


def test_every_proof_that_is_named_exists() -> None:
    pages = [REPOSITORY / name for name in ("README.md", "ARCHITECTURE.md", "SECURITY.md")]
    named = {name for page in pages for name in re.findall(r"`(tests/[\w/.-]+)`", page.read_text())}
    assert named
    missing = sorted(name for name in named if not (REPOSITORY / name).exists())
    assert not missing, missing


# -- routes ------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not any((PACKAGE / "http").glob("*.py")), reason="the http room is not there yet")
def test_routes_are_the_documented_ones() -> None:
    """`skerry.http.routes.ROUTES` holds (method, path) of everything that is served."""
    served = {(method, path) for method, path, *_ in importlib.import_module("skerry.http.routes").ROUTES}
    rows = re.findall(r"^\| `([A-Z]+)` \| `(\S+)` \|", (DOCS / "http.md").read_text(), re.M)
    documented = set(rows)
    assert len(rows) == len(documented)
    assert {(method, _plain(path)) for method, path in served} == documented


def _plain(path: str) -> str:
    """`/api/run/{path:path}` as the page writes it: without the converter."""
    return re.sub(r":\w+}", "}", path)


# -- commands ----------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not any((PACKAGE / "cli").glob("*.py")), reason="the cli room is not there yet")
def test_commands_and_flags_are_the_documented_ones() -> None:
    group: Any = importlib.import_module("skerry.cli.main").cli
    commands = [(name, group.get_command(None, name)) for name in group.list_commands(None)]
    for name, command in [pair for pair in commands if hasattr(pair[1], "commands")]:
        commands.remove((name, command))
        commands += [(f"{name} {inner}", one) for inner, one in command.commands.items()]
    actual = {name: set(_flags(command)) for name, command in commands if not command.hidden}
    assert actual == _documented_commands()


def _flags(command: Any) -> Iterator[str]:
    for parameter in command.params:
        if parameter.param_type_name == "option" and not parameter.hidden:
            yield max(parameter.opts, key=len)


def _documented_commands() -> dict[str, set[str]]:
    commands: dict[str, set[str]] = {}
    current: set[str] = set()
    for line in (DOCS / "cli.md").read_text().splitlines():
        if heading := re.match(r"### `skerry ((?:admin )?[\w-]+)", line):
            current = commands[heading[1]] = set()
        elif flag := re.match(r"\| `(--[\w-]+)", line):
            current.add(flag[1])
    return commands


def test_the_page_of_commands_is_understood() -> None:
    commands = _documented_commands()
    assert set(commands) >= {
        "dev",
        "serve",
        "build",
        "verify",
        "deploy",
        "run",
        "rollback",
        "deployments",
        "keys",
        "doctor",
    }
    assert {"--data", "--port", "--site-port"} <= commands["serve"]


def _first_cells(page: str) -> list[str]:
    return re.findall(r"^\| `([A-Za-z][A-Za-z0-9_]*)` \|", (DOCS / page).read_text(), re.M)
