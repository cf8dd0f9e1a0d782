"""`skerry import` and `skerry export` against a real server, as processes."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.http.serving import RunningServer, serve, skerry


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with serve(tmp_path_factory.mktemp("transfers") / "data") as running:
        yield running


@pytest.fixture
def names(own: RunningServer) -> dict[str, str | None]:
    return {"CONVEX_SELF_HOSTED_URL": own.url, "CONVEX_SELF_HOSTED_ADMIN_KEY": own.admin_key}


def test_out_and_in_again(names: dict[str, str | None], tmp_path: Path) -> None:
    file = tmp_path / "users.jsonl"
    file.write_text("".join(json.dumps({"name": f"user {n}"}) + "\n" for n in range(3_000)))
    done = skerry("import", "--table", "users", file, **names)
    assert done.returncode == 0, done.stderr
    assert "imported 3,000 documents" in done.stdout and "100%" in done.stderr
    rows = tmp_path / "more.csv"
    rows.write_text("name,age\nAda,36\n")
    done = skerry("import", "--table", "users", rows, "--append", "--json", **names)
    assert json.loads(done.stdout)["documents"] == 1
    array = tmp_path / "notes.json"
    array.write_text('[{"text": "a"},\n {"text": "b"}]')
    assert skerry("import", "--table", "notes", array, **names).returncode == 0
    array.write_text('[{"text": "c"}]')
    assert "imported 1 document into" in skerry("import", "--table", "notes", array, "--replace", "-y", **names).stdout
    done = skerry("export", "--path", tmp_path, "--json", **names)
    told = json.loads(done.stdout)
    archive = Path(told["path"])
    assert told["documents"] == 3_002 and archive.parent == tmp_path and told["bytes"] == archive.stat().st_size
    assert archive.name == f"snapshot_{told['timestamp']}.zip"
    done = skerry("import", archive, "--replace-all", "-y", **names)
    assert done.returncode == 0, done.stderr
    again = tmp_path / "again.zip"
    assert skerry("export", "--path", again, **names).returncode == 0
    assert again.read_bytes() == archive.read_bytes()
    assert not list(tmp_path.glob("*.part"))


def test_a_bad_line_is_named(names: dict[str, str | None], tmp_path: Path) -> None:
    file = tmp_path / "bad.jsonl"
    file.write_text('{"a": 1}\n{"a": }\n')
    done = skerry("import", "--table", "bad", file, "--json", **names)
    assert done.returncode == 1
    told = json.loads(done.stdout)["error"]
    assert told["code"] == "ImportRefused" and "bad.jsonl, line 2: Not valid JSON" in told["message"]
    assert "Nothing was imported" in done.stderr


def test_what_would_be_lost_is_asked_about(names: dict[str, str | None], tmp_path: Path) -> None:
    file = tmp_path / "kept.jsonl"
    file.write_text('{"a": 1}\n')
    assert skerry("import", "--table", "kept", file, **names).returncode == 0
    done = skerry("import", "--table", "kept", file, **names)
    assert done.returncode == 1 and "already exists" in done.stderr
    done = skerry("import", "--table", "kept", file, "--replace", "--json", **names)
    assert json.loads(done.stdout)["error"]["code"] == "ImportCanceled"
    assert "replace the contents of table kept" in done.stderr
    assert skerry("import", "--table", "kept", file, "--replace", "-y", **names).returncode == 0


def test_a_disk_that_takes_no_archive(names: dict[str, str | None], tmp_path: Path) -> None:
    done = skerry("export", "--path", tmp_path / "nowhere" / "a.zip", "--json", **names)
    assert done.returncode == 1 and json.loads(done.stdout)["error"]["code"] == "FileUnusable"


@pytest.mark.parametrize(
    "arguments",
    [
        ["a.txt", "--table", "t"],
        ["a.csv"],
        ["a.zip", "--table", "t"],
        ["gone.csv", "--table", "t"],
        ["a.csv", "--format", "xml"],
    ],
)
def test_usage(names: dict[str, str | None], tmp_path: Path, arguments: list[str]) -> None:
    for name in ("a.txt", "a.csv", "a.zip"):
        (tmp_path / name).write_text("")
    assert skerry("import", tmp_path / arguments[0], *arguments[1:], **names).returncode == 2


def test_it_needs_the_admin_key(own: RunningServer, tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("a\n1\n")
    for arguments in (["import", str(file), "--table", "t"], ["export", "--path", str(tmp_path / "a.zip")]):
        done = skerry(*arguments, "--url", own.url, "--json")
        assert json.loads(done.stdout)["error"]["code"] == "AdminKeyMissing"
        done = skerry(*arguments, "--url", own.url, "--admin-key", "local|no", "--json")
        assert json.loads(done.stdout)["error"]["code"] == "BadDeployKey"
