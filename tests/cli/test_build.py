"""`skerry build` and `skerry verify`, as processes."""

import json
import shutil
from pathlib import Path

import pytest

from tests.http.apps import make_app
from tests.http.serving import skerry

CLOCK = "2026-01-02T03:04:05Z"
CLOCK_MS = 1_767_323_045_000


def small_app(folder: Path, source: str = "") -> Path:
    """An app of one module."""
    (folder / "convex").mkdir(parents=True)
    (folder / "package.json").write_text("{}")
    text = source or "import { queryGeneric } from 'convex/server';\nexport const one = queryGeneric(async () => 1);\n"
    (folder / "convex" / "numbers.ts").write_text(text)
    return folder


def test_the_same_clock_builds_the_same_bytes(app_bundle: Path, tmp_path: Path) -> None:
    app = make_app(tmp_path / "app")
    done = skerry("build", app, "-o", tmp_path / "again.skerry", "--clock", str(CLOCK_MS), "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["ok"] is True
    assert result["clockMs"] == CLOCK_MS
    assert (tmp_path / "again.skerry").read_bytes() == app_bundle.read_bytes()
    assert result["bytes"] == app_bundle.stat().st_size


def test_without_out_the_bundle_is_named_after_the_app(tmp_path: Path) -> None:
    app = small_app(tmp_path / "counter")
    done = skerry("build", app, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "counter.skerry").is_file()
    assert "1 functions" in done.stdout


def test_a_built_bundle_verifies(app_bundle: Path) -> None:
    done = skerry("verify", app_bundle, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["clockMs"] == CLOCK_MS


def test_a_damaged_bundle_does_not_verify(app_bundle: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.skerry"
    raw = bytearray(app_bundle.read_bytes())
    raw[len(raw) // 2] ^= 1
    damaged.write_bytes(raw)
    done = skerry("verify", damaged, "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"]["code"] in ("BundleInvalid", "BundleDigestMismatch")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("source", "code", "shown"),
    [
        ("export const a = (;\n", "CompileFailed", "numbers.ts:1:"),
        ("import './missing';\n", "CompileFailed", "numbers.ts:1:"),
        ("const a = 1;\nthrow new Error('too early');\n", "ModuleLoadFailed", "numbers.ts:2:"),
        ("export const a = 1;\nfor (;;) {}\n", "ModuleLoadFailed", ""),
    ],
)
def test_code_that_does_not_build_is_shown_with_its_line(tmp_path: Path, source: str, code: str, shown: str) -> None:
    app = small_app(tmp_path / "app", source)
    done = skerry("build", app, "--json", "--out", tmp_path / "x.skerry")
    assert done.returncode == 1
    error = json.loads(done.stdout)["error"]
    assert error["code"] == code
    assert shown in error["message"]
    assert shown in done.stderr
    assert not (tmp_path / "x.skerry").exists()
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["build"],
        ["build", "no-such-folder"],
        ["build", ".", "--clock", "yesterday"],
        ["build", ".", "--clock", "1960-01-01"],
        ["verify", "no-such-file"],
        ["nonsense"],
        ["serve", "--port", "70000"],
    ],
)
def test_a_wrong_command_line(arguments: list[str]) -> None:
    done = skerry(*arguments)
    assert done.returncode == 2
    assert "Error" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_that_is_no_app(tmp_path: Path) -> None:
    done = skerry("build", tmp_path, "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"]["code"] == "AppInvalid"


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    app = small_app(tmp_path / "app")
    done = skerry("build", app, "--json", "--out", tmp_path / "no" / "folder" / "x.skerry")
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"]["code"] == "FileUnusable"


def test_types_are_checked_only_when_asked_for(tmp_path: Path) -> None:
    app = small_app(tmp_path / "app", "export const wrong: number = 'text';\n")
    assert skerry("build", app, "--out", tmp_path / "x.skerry").returncode == 0
    # A compiler of the app's own, whose answer this test decides.
    compiler = app / "node_modules" / "typescript" / "bin" / "tsc"
    compiler.parent.mkdir(parents=True)
    compiler.write_text(
        "console.log('numbers.ts(1,14): error TS2322 ' + process.argv.slice(2).join(' '));process.exit(2);"
    )
    done = skerry("build", app, "--typecheck", "--json", "--out", tmp_path / "y.skerry")
    assert done.returncode == 1
    error = json.loads(done.stdout)["error"]
    assert error["code"] == "TypecheckFailed"
    assert "error TS2322 --noEmit" in error["message"]
    shutil.rmtree(app / "node_modules")
    missing = skerry("build", app, "--typecheck", "--json", "--out", tmp_path / "y.skerry")
    assert json.loads(missing.stdout)["error"]["code"] == "TypecheckFailed"
    assert "npm install" in missing.stderr


def test_help_is_there_for_every_command() -> None:
    for command in ("dev", "serve", "build", "verify", "deploy", "run"):
        done = skerry(command, "--help")
        assert done.returncode == 0
        assert "Usage: skerry " + command in done.stdout
