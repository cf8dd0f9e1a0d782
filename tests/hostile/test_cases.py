"""Every attack of the tables: its exact outcome, and after it every deployment serves on.

`pytest tests/hostile -s` prints the names.
"""

import re
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.conftest import REPOSITORY
from tests.hostile import (
    cases_actions,
    cases_bundles,
    cases_compiled,
    cases_http,
    cases_keys,
    cases_script,
    cases_sockets,
)
from tests.hostile.case import Case, agrees
from tests.hostile.ground import Ground

TABLES = (cases_script, cases_compiled, cases_actions, cases_bundles, cases_http, cases_keys, cases_sockets)
CASES: list[Case] = [case for table in TABLES for case in table.CASES]
CASES_MIN = 150


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    with Ground(tmp_path_factory.getbasetemp(), tmp_path_factory.mktemp("ground") / "data") as made:
        made.check_alive()
        yield made


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_attack(ground: Ground, case: Case) -> None:
    actual = case.run(ground)
    assert agrees(actual, case.expected), f"{case.attempt}\nis      {actual!r:.600}\nshould  {case.expected!r:.600}"
    ground.check_alive()


def test_the_cases_are_counted_and_named() -> None:
    names = Counter(case.name for case in CASES)
    assert max(names.values()) == 1, names.most_common(1)
    assert len(CASES) >= CASES_MIN
    lines = [f"{case.wall}: {case.name}" for case in sorted(CASES, key=lambda case: case.wall)]
    print("", f"{len(CASES)} attacks", *lines, sep="\n")  # noqa: T201 - for who wants the list: pytest -s


def test_the_security_notes_name_every_wall_and_its_tests() -> None:
    text = (REPOSITORY / "SECURITY.md").read_text()
    how, _, proofs = text.partition("### Each wall and the tests that prove it")
    tests = dict(_rows(proofs.partition("\n## ")[0]))
    assert list(tests) == [wall for wall, _ in _rows(how.partition("## Walls up today")[2])]
    for wall, cell in tests.items():
        paths = re.findall(r"`([^`]+)`", cell)
        assert paths and all((REPOSITORY / path).exists() for path in paths), wall
    named = {wall for wall, cell in tests.items() if "`tests/hostile`" in cell}
    assert {case.wall for case in CASES} <= named


def _rows(text: str) -> list[tuple[str, str]]:
    """First and second cell of a table's rows."""
    lines = [line.split("|") for line in text.splitlines() if line.startswith("| ")]
    return [(cells[1].strip(), cells[2].strip()) for cells in lines[1:]]
