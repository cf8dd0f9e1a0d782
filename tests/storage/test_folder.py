"""The folders on disk: layout, format, lock."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from skerry.errors import SystemFault
from skerry.limits import DEPLOYMENT_NAME_CHARS_MAX, STORAGE_LOCK_RETRY_SECONDS, STORAGE_LOCK_SECONDS_MAX
from skerry.storage import folder as folder_module
from skerry.storage.folder import DataFolder, DeploymentFolder, Hold


def test_layout(tmp_path: Path) -> None:
    root = tmp_path / "far" / "data"
    data = DataFolder(root)
    deployment = data.deployment("happy-otter-1")
    assert (root / "FORMAT").read_text() == "skerry-data 1\n"
    assert (root / "deployments" / "happy-otter-1" / "FORMAT").read_text() == "skerry-deployment 2\n"
    assert deployment.trees == root / "deployments" / "happy-otter-1" / "trees"
    assert data.deployment_names() == ["happy-otter-1"]
    assert root.stat().st_mode & 0o077 == 0
    deployment.close()
    data.close()
    DataFolder(root).close()


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "A", "-a", "a-", "a" * (DEPLOYMENT_NAME_CHARS_MAX + 1), "a\n", "é"]
)
def test_what_is_no_deployment_name(tmp_path: Path, name: str) -> None:
    data = DataFolder(tmp_path / "data")
    data.deployment("a" * DEPLOYMENT_NAME_CHARS_MAX).close()
    with pytest.raises(ValueError, match="not a deployment name"):
        data.deployment(name)
    data.close()


def test_a_second_serve_on_the_same_folder_is_refused(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from skerry.storage.folder import DataFolder\n"
        "from skerry.errors import SystemFault\n"
        "try: DataFolder(Path(sys.argv[1]))\n"
        "except SystemFault as fault: print(fault.code)\n"
        "else: print('open')\n"
    )

    def other_process() -> str:
        command = [sys.executable, "-c", program, str(tmp_path / "data")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()

    data = DataFolder(tmp_path / "data")
    assert other_process() == "DataFolderInUse"
    with pytest.raises(SystemFault) as caught:
        DataFolder(tmp_path / "data")
    assert caught.value.code == "DataFolderInUse"
    data.close()
    assert other_process() == "open"


@pytest.mark.parametrize("other", ["skerry-deployment 1", "skerry-deployment 3"])
def test_another_format_is_refused_and_left_alone(tmp_path: Path, other: str) -> None:
    DeploymentFolder(tmp_path / "d").close()
    (tmp_path / "d" / "FORMAT").write_text(f"{other}\n")
    with pytest.raises(SystemFault) as caught:
        DeploymentFolder(tmp_path / "d")
    assert caught.value.code == "DataFolderFormat"
    assert other in caught.value.message


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "photo").write_text("mine")
    with pytest.raises(SystemFault) as caught:
        DataFolder(tmp_path)
    assert caught.value.code == "DataFolderFormat"
    assert [entry.name for entry in tmp_path.iterdir()] == ["photo"]


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    DeploymentFolder(tmp_path / "d").close()
    assert (tmp_path / "d" / "trees").is_dir()


def test_deleting_a_deployment_needs_it_closed(tmp_path: Path) -> None:
    data = DataFolder(tmp_path / "data")
    deployment = data.deployment("one")
    with pytest.raises(SystemFault) as caught:
        data.delete_deployment("one")
    assert caught.value.code == "DataFolderInUse"
    deployment.close()
    data.delete_deployment("one")
    assert list((tmp_path / "data" / "deployments").iterdir()) == []
    data.close()


def test_a_deletion_that_was_interrupted_is_finished(tmp_path: Path) -> None:
    data = DataFolder(tmp_path / "data")
    data.deployment("one").close()
    half = tmp_path / "data" / "deployments" / ".one.deleted"
    (half / "trees").mkdir(parents=True)
    data.delete_deployment("one")  # both what was renamed before and what is there by that name now
    data.delete_deployment("one")  # nothing is left to do
    assert list((tmp_path / "data" / "deployments").iterdir()) == []
    assert data.deployment_names() == []
    data.close()


def test_the_hosts_own_folder_is_no_deployments(tmp_path: Path) -> None:
    DeploymentFolder(tmp_path / "host", DeploymentFolder.HOST_FORMAT).close()
    with pytest.raises(SystemFault) as caught:
        DeploymentFolder(tmp_path / "host")
    assert caught.value.code == "DataFolderFormat"


def test_a_folder_may_be_shared_and_then_nobody_has_it_alone(tmp_path: Path) -> None:
    one = DeploymentFolder(tmp_path / "d", hold=Hold.SHARED)
    other = DeploymentFolder(tmp_path / "d", hold=Hold.SHARED)
    with pytest.raises(SystemFault, match="in use"):
        DeploymentFolder(tmp_path / "d")
    one.close()
    other.close()
    alone = DeploymentFolder(tmp_path / "d")
    with pytest.raises(SystemFault, match="in use"):
        DeploymentFolder(tmp_path / "d", hold=Hold.SHARED)
    alone.close()


def test_a_lent_folder_is_locked_by_another(tmp_path: Path) -> None:
    above = DataFolder(tmp_path / "data")
    lent = DataFolder(tmp_path / "data", Hold.LENT)
    lent.close()
    with pytest.raises(SystemFault, match="in use"):
        DataFolder(tmp_path / "data")
    above.close()


def test_a_lock_is_waited_for_and_not_for_ever(tmp_path: Path) -> None:
    first = DeploymentFolder(tmp_path / "d")
    with pytest.raises(SystemFault, match="in use"):
        DeploymentFolder(tmp_path / "d", lock_seconds_max=2 * STORAGE_LOCK_RETRY_SECONDS)
    opened: list[DeploymentFolder] = []
    waiting = threading.Thread(
        target=lambda: opened.append(DeploymentFolder(tmp_path / "d", lock_seconds_max=STORAGE_LOCK_SECONDS_MAX))
    )
    waiting.start()
    assert not opened
    first.close()
    waiting.join(STORAGE_LOCK_SECONDS_MAX)
    opened[0].close()


def test_a_process_that_is_being_started_keeps_no_folder_locked(tmp_path: Path) -> None:
    folder = DeploymentFolder(tmp_path / "d")
    ends, begins = os.pipe()
    child = os.fork()
    if not child:  # a fork without a program yet: it has a copy of each descriptor
        os.read(ends, 1)
        os._exit(0)
    try:
        folder.close()
        DeploymentFolder(tmp_path / "d").close()
    finally:
        os.write(begins, b"x")
        os.waitpid(child, 0)
        os.close(ends)
        os.close(begins)


def test_of_processes_that_make_a_folder_at_once_one_makes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = folder_module._create

    def make_after_another(path: Path, expected_format: str) -> None:
        make(path, expected_format)
        (path / "data").touch()
        make(path, expected_format)

    monkeypatch.setattr(folder_module, "_create", make_after_another)
    DeploymentFolder(tmp_path / "d", hold=Hold.SHARED).close()
