"""What files of imports and exports take: bounds of parts, uploads and all together; who makes room for whom."""

from pathlib import Path

import pytest

from skerry import limits
from skerry.admin.transfer_files import Part, TransferFiles, Upload
from skerry.errors import ClientError


def part(upload: Upload, number: int, n_bytes: int) -> str:
    arriving = Part(upload, number)
    try:
        arriving.write(b"x" * n_bytes)
    except ClientError:
        arriving.discard()
        raise
    return arriving.finish()


def refused(code: str) -> "pytest.RaisesExc[ClientError]":
    return pytest.raises(ClientError, check=lambda error: error.code == code)


def test_parts_at_their_bound_and_one_past_it(tmp_path: Path) -> None:
    assert limits.IMPORT_PART_BYTES_MAX < limits.IMPORT_UPLOAD_BYTES_MAX
    files = TransferFiles(lambda: 0)
    upload = Upload("token", tmp_path, files, files.hold(None), part_bytes_max=6)
    assert part(upload, 1, 6) == "token-1"
    with refused("ImportTooLarge"):
        part(upload, 2, 7)
    assert files.bytes == 6
    part(upload, 1, 4)
    assert files.bytes == 4, "the same part again takes the place of the one before"
    assert upload.joined(["token-1"]).read_bytes() == b"xxxx"


def test_a_file_at_its_bound_and_one_past_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "IMPORT_UPLOAD_BYTES_MAX", 10)
    files = TransferFiles(lambda: 0)
    upload = Upload("token", tmp_path, files, files.hold(None), part_bytes_max=6)
    part(upload, 1, 6)
    with refused("ImportTooLarge"):
        part(upload, 2, 5)
    part(upload, 2, 4)
    part(upload, 1, 6)
    with refused("ImportNotFound"):
        upload.joined(["token-1", "token-3"])
    assert len(upload.joined(["token-1", "token-2"]).read_bytes()) == files.bytes == 10


def test_a_part_that_failed_is_no_part(tmp_path: Path) -> None:
    files = TransferFiles(lambda: 0)
    upload = Upload("token", tmp_path, files, files.hold(None), part_bytes_max=6)
    part(upload, 1, 6)
    with refused("ImportTooLarge"):
        part(upload, 1, 7)
    assert files.bytes == 0
    with refused("ImportNotFound"):
        upload.joined(["token-1"])


def test_all_together_at_the_quota_and_one_past_it() -> None:
    files = TransferFiles(lambda: 0, bytes_max=10)
    first, second = files.hold(None), files.hold(None)
    files.grow(first, 6)
    with refused("TransferQuotaReached"):
        files.grow(second, 5)
    files.grow(second, 4)
    files.grow(first, -3)
    files.grow(second, 3)
    files.release(second)
    files.release(second)
    files.grow(first, 7)
    assert files.bytes == 10


def test_what_is_idle_makes_room_the_longest_idle_first() -> None:
    now = 0.0
    files = TransferFiles(lambda: now, bytes_max=10)
    gone: list[str] = []
    kept = files.hold(None)
    files.grow(kept, 1)
    for name in ("old", "older"):
        files.grow(files.hold(lambda name=name: gone.append(name)), 3)
    now = 1.0
    touched = files.hold(lambda: gone.append("touched"))
    files.grow(touched, 3)
    wanting = files.hold(lambda: gone.append("wanting"))
    now = limits.TRANSFER_IDLE_SECONDS - 0.5
    with refused("TransferQuotaReached"):
        files.grow(wanting, 1)
    now = float(limits.TRANSFER_IDLE_SECONDS)
    files.touch(touched)
    files.grow(wanting, 2)
    assert gone == ["old"], "one made room enough"
    files.grow(wanting, 3)
    assert gone == ["old", "older"]
    with refused("TransferQuotaReached"):
        files.grow(wanting, 2)
    now *= 3
    files.grow(wanting, 4)
    assert gone == ["old", "older", "touched"]
    with refused("TransferQuotaReached"):
        files.grow(wanting, 1)
