"""Every bound is named in a test, and every error code is both raised by the host and named in a test.

Naming is not proving, but what is nowhere named is proved nowhere.
"""

import importlib
import re
from pathlib import Path

from tests.tidy.source_files import PACKAGE, REPOSITORY, package_files

# Bounds that no call can reach alone, each with its reason.
NOT_REACHABLE: dict[str, str] = {}


def test_words_are_found_in_tests_and_host() -> None:
    assert "test_words_are_found_in_tests_and_host" in _words_of_tests()
    assert "isinstance" in _words_of_host()
    assert "test_words_are_found_in_tests_and_host" not in _words_of_host()


def test_every_bound_is_named_in_a_test() -> None:
    names = {name for name in vars(importlib.import_module("skerry.limits")) if name.endswith(("_MAX", "_MIN"))}
    missing = sorted(names - _words_of_tests() - set(NOT_REACHABLE))
    assert not missing, missing


def test_every_error_code_is_raised_and_tested() -> None:
    codes = set(importlib.import_module("skerry.errors").ERRORS)
    missing = {"never raised": sorted(codes - _words_of_host()), "untested": sorted(codes - _words_of_tests())}
    assert missing == {"never raised": [], "untested": []}


def _words_of_tests() -> set[str]:
    files = [path for path in (REPOSITORY / "tests").rglob("*") if path.suffix in (".py", ".js", ".ts", ".json")]
    return _words([path for path in files if "node_modules" not in path.parts])


def _words_of_host() -> set[str]:
    return _words([path for path in package_files() if path != PACKAGE / "errors.py"])


def _words(files: list[Path]) -> set[str]:
    return {word for path in files for word in re.findall(r"\w+", path.read_text())}
