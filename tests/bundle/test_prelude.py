"""The prelude's bundling where its sources are damaged; test_engine*.py use the prelude that came out well."""

import shutil
from pathlib import Path

import pytest

from skerry.bundle import prelude
from skerry.errors import SystemFault


def test_a_prelude_that_does_not_bundle_is_a_coded_fault(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = repository / "guest_sdk" / "javascript" / "prelude"
    shutil.copytree(source, tmp_path / "javascript" / "prelude", ignore=shutil.ignore_patterns("node_modules"))
    for file in (tmp_path / "javascript" / "prelude" / "src").glob("*.ts"):
        file.write_text("this is not TypeScript\n")
    monkeypatch.setattr(prelude, "guest_sdk_folder", lambda: tmp_path)
    with pytest.raises(SystemFault) as caught:
        prelude.prelude_script(lambda _: None)
    assert caught.value.code == "PreludeBuildFailed"
    assert ".ts:1" in caught.value.message
