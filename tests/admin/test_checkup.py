"""What is found about a machine and a data folder: each fact as it is, and as it should not be."""

from pathlib import Path

import pytest

from skerry.admin import checkup
from skerry.admin.checkup import Finding, Level
from skerry.admin.keys import ADMIN_KEY_FILE, ADMIN_KEY_VARIABLE, HOST_CREDENTIAL_VARIABLE, HOST_KEY_FILE
from skerry.limits import ADMIN_KEY_CHARS_WANTED

KINDS = [("/", "ext4"), ("/mnt/far", "nfs4"), ("/run", "tmpfs"), ("/mnt/far/near", "xfs")]
MODES = [(0o700, Level.OK), (0o500, Level.OK), (0o701, Level.BAD), (0o740, Level.BAD)]


def by_name(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.name: finding for finding in findings}


def test_a_folder_that_is_not_there_is_no_fault(tmp_path: Path) -> None:
    (finding,) = checkup.check_data_folder(tmp_path / "none")
    assert (finding.name, finding.level) == ("data folder", Level.NOTE)


@pytest.mark.parametrize(("mode", "level"), MODES)
def test_a_folder_open_to_others_is_bad(tmp_path: Path, mode: int, level: Level) -> None:
    tmp_path.chmod(mode)
    found = by_name(checkup.check_data_folder(tmp_path))["data folder"]
    assert found.level is level
    assert level is Level.OK or f"chmod go= {tmp_path}" in found.says


@pytest.mark.parametrize("name", [ADMIN_KEY_FILE, HOST_KEY_FILE])
def test_a_secret_open_to_others_is_bad(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("what it holds")
    for mode, level in ((0o600, Level.OK), (0o604, Level.BAD)):
        (tmp_path / name).chmod(mode)
        found = by_name(checkup.check_data_folder(tmp_path))[f"secret {name}"]
        assert found.level is level
        assert "what it holds" not in found.says


@pytest.mark.parametrize(
    ("folder", "level"),
    [("/srv/data", Level.OK), ("/mnt/far/data", Level.BAD), ("/mnt/far/near/data", Level.OK), ("/run/x", Level.BAD)],
)
def test_the_innermost_mount_says_what_a_folder_lies_on(folder: str, level: Level) -> None:
    assert checkup.file_system(Path(folder), KINDS).level is level


def test_a_neighbour_of_a_mount_does_not_lie_on_it() -> None:
    assert checkup.file_system(Path("/runner"), KINDS).level is Level.OK


def test_bounds_of_the_machine() -> None:
    wanted = checkup.MEMORY_MAPS_WANTED
    assert [checkup.memory_maps(count).level for count in (None, wanted, wanted - 1)] == [
        Level.OK,
        Level.OK,
        Level.NOTE,
    ]
    assert [checkup.overcommit(mode).level for mode in (None, 0, 1, 2)] == [Level.OK, Level.OK, Level.OK, Level.BAD]


def test_every_finding_says_something(tmp_path: Path) -> None:
    findings = checkup.check_host(tmp_path)
    assert len(by_name(findings)) == len(findings) >= 10
    assert all(finding.says.endswith(".") for finding in findings)


def test_a_given_secret_at_the_length_that_is_wanted_and_one_short_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (ADMIN_KEY_VARIABLE, HOST_CREDENTIAL_VARIABLE):
        for characters, level in ((ADMIN_KEY_CHARS_WANTED, Level.OK), (ADMIN_KEY_CHARS_WANTED - 1, Level.BAD)):
            monkeypatch.setenv(name, "k" * characters)
            found = by_name(checkup.check_host(None))[name]
            assert found.level is level
            assert "kkk" not in found.says
        monkeypatch.delenv(name)
        assert name not in by_name(checkup.check_host(None))
