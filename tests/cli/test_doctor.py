"""`skerry doctor` as a process: what it found, as lines and as JSON, and its exit code."""

import json
from pathlib import Path

from skerry.jail import WALL_NAMES
from tests.http.serving import skerry


def test_doctor_names_every_wall_and_exits_by_what_is_bad(tmp_path: Path) -> None:
    done = skerry("doctor", "--data", str(tmp_path), "--json")
    result = json.loads(done.stdout)
    findings = {finding["name"]: finding for finding in result["findings"]}
    assert {f"jail: {name}" for name in WALL_NAMES} <= findings.keys()
    assert {"python", "machine", "user", "disk", "file system"} <= findings.keys()
    bad = [name for name, finding in findings.items() if finding["level"] == "bad"]
    assert result["bad"] == len(bad)
    assert done.returncode == (1 if bad else 0)


def test_doctor_speaks_to_people(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    done = skerry("doctor", "--data", str(tmp_path))
    assert done.returncode == 1
    assert "BAD   data folder" in done.stdout
    assert "chmod go=" in done.stdout
