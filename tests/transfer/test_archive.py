"""Snapshot archives of strangers: judged by their directory, and counted as they unpack."""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from zipfile import ZIP_BZIP2, ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

import pytest

from skerry import limits
from skerry.errors import ClientError
from skerry.limits import IMPORT_ARCHIVE_NAME_CHARS_MAX, IMPORT_ARCHIVE_RATIO_MAX, IMPORT_TABLE_NUMBER_MAX
from skerry.transfer.archive import Archive
from skerry.transfer.pieces import Unreadable

Entries = dict[str, bytes]


def pack(path: Path, entries: Entries, compression: int = ZIP_DEFLATED) -> Path:
    with ZipFile(path, "w", compression) as archive:
        for name, text in entries.items():
            archive.writestr(ZipInfo(name) if compression == ZIP_STORED else name, text)
    return path


@pytest.fixture
def at(tmp_path: Path) -> Path:
    return tmp_path / "snapshot.zip"


def refusal(path: Path) -> str:
    with pytest.raises(ClientError) as refused, Archive(path) as archive:
        for table in archive.tables:
            list(archive.rows(table))
    assert refused.value.code == "ImportRefused"
    return refused.value.message


def test_an_archive_tells_its_tables_wherever_they_lie(at: Path) -> None:
    for prefix in ("", "snapshot_1/", "a/b/"):
        entries = {
            f"{prefix}_tables/documents.jsonl": b'{"name":"a","id":10002}\n{"name":"b","id":10003}\n',
            f"{prefix}a/documents.jsonl": b'{"x":1}\n\n{"x":2}',
            f"{prefix}a/generated_schema.jsonl": b'"uniform"',
            f"{prefix}c/documents.jsonl": b"",
            f"{prefix}README.md": b"read",
            f"{prefix}_storage/documents.jsonl": b"",
        }
        with Archive(pack(at, entries)) as archive:
            assert archive.tables == ["a", "c"] and archive.numbers == {"a": 10002, "b": 10003}
            assert archive.is_export("a") and not archive.is_export("c")
            rows = [(line, row) for line, row in archive.rows("a") if row]
            assert rows == [(1, b'{"x":1}'), (3, b'{"x":2}')]


@pytest.mark.parametrize(
    "entries",
    [
        {"notes.txt": b""},
        {"documents.jsonl": b"{}"},
        {"../a/documents.jsonl": b"{}"},
        {"/a/documents.jsonl": b"{}"},
        {"x/../a/documents.jsonl": b"{}"},
        {"x\\a/documents.jsonl": b"{}"},
        {"C:/a/documents.jsonl": b"{}"},
        {"x//a/documents.jsonl": b"{}"},
        {"a\n/documents.jsonl": b"{}"},
        {"a b/documents.jsonl": b"{}"},
        {"_scheduled_jobs/documents.jsonl": b"{}"},
        {"x/a/documents.jsonl": b"{}", "y/b/documents.jsonl": b"{}"},
        {"_components/c/a/documents.jsonl": b"{}"},
        {"a/documents.jsonl": b"{}", "_storage/documents.jsonl": b"{}"},
        {"a/documents.jsonl": b"{}", "_storage/kg2abc.png": b"x"},
        {"a/documents.jsonl": b"{}", "_tables/documents.jsonl": b"{"},
        {"a/documents.jsonl": b"{}", "_tables/documents.jsonl": b'{"name":"a"}'},
        {"a/documents.jsonl": b"{}", "_tables/documents.jsonl": b'{"name":"a","id":0}'},
        {
            "a/documents.jsonl": b"{}",
            "_tables/documents.jsonl": b'{"name":"a","id":%d}' % (IMPORT_TABLE_NUMBER_MAX + 1),
        },
        {"a/documents.jsonl": b"{}", "_tables/documents.jsonl": b'{"name":"a","id":7}\n{"name":"b","id":7}'},
        {"a/documents.jsonl": b"{}", "_tables/documents.jsonl": b'{"name":"a","id":7}\n{"name":"a","id":8}'},
        {"x" * IMPORT_ARCHIVE_NAME_CHARS_MAX + "/a/documents.jsonl": b"{}"},
    ],
)
def test_archives_that_no_export_wrote(at: Path, entries: Entries) -> None:
    refusal(pack(at, entries))


def test_the_largest_table_number_is_taken(at: Path) -> None:
    tables = b'{"name":"a","id":%d}' % IMPORT_TABLE_NUMBER_MAX
    with Archive(pack(at, {"a/documents.jsonl": b"{}", "_tables/documents.jsonl": tables})) as archive:
        assert archive.numbers == {"a": IMPORT_TABLE_NUMBER_MAX}


def test_a_table_twice(at: Path) -> None:
    with ZipFile(at, "w") as archive, pytest.warns(UserWarning):
        for _ in range(2):
            archive.writestr("a/documents.jsonl", b"{}")
    assert "twice" in refusal(at)


def test_bombs(at: Path) -> None:
    assert "times its size" in refusal(pack(at, {"a/documents.jsonl": b"\n" * 4_000_000}))
    with Archive(pack(at, {"a/documents.jsonl": b"\n" * 4_000_000}, ZIP_STORED)) as archive:
        assert not [row for _, row in archive.rows("a") if row]
    assert IMPORT_ARCHIVE_RATIO_MAX < 1_000, "deflate reaches about a thousand"
    assert "another way" in refusal(pack(at, {"a/documents.jsonl": b"{}"}, ZIP_BZIP2))


def test_bounds_of_the_directory(at: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = {f"t{i}/documents.jsonl": b"{}" for i in range(4)}
    pack(at, entries)
    monkeypatch.setattr("skerry.transfer.archive.IMPORT_ARCHIVE_ENTRIES_MAX", 4)
    Archive(at).__exit__(None, None, None)
    monkeypatch.setattr("skerry.transfer.archive.IMPORT_ARCHIVE_ENTRIES_MAX", 3)
    refusal(at)
    monkeypatch.undo()
    assert limits.IMPORT_ARCHIVE_ENTRIES_MAX >= 2 * limits.TABLES_MAX
    monkeypatch.setattr("skerry.transfer.archive.IMPORT_ARCHIVE_UNPACKED_BYTES_MAX", 8)
    Archive(at).__exit__(None, None, None)
    monkeypatch.setattr("skerry.transfer.archive.IMPORT_ARCHIVE_UNPACKED_BYTES_MAX", 7)
    assert "unpacks" in refusal(at)
    monkeypatch.undo()
    directory = sum(46 + len(name) for name in entries)
    monkeypatch.setattr("skerry.transfer.archive.IMPORT_ARCHIVE_DIRECTORY_BYTES_MAX", directory)
    Archive(at).__exit__(None, None, None)
    monkeypatch.setattr("skerry.transfer.archive.IMPORT_ARCHIVE_DIRECTORY_BYTES_MAX", directory - 1)
    assert "directory" in refusal(at)


def _cut(raw: bytes) -> bytes:
    return raw[: len(raw) // 2]


def _encrypted(raw: bytes) -> bytes:
    at = raw.rindex(b"PK\1\2")
    return raw[: at + 8] + b"\1\0" + raw[at + 10 :]


def _smaller(raw: bytes) -> bytes:
    at = raw.rindex(b"PK\1\2")
    return raw[: at + 24] + (5).to_bytes(4, "little") + raw[at + 28 :]


def _flipped(raw: bytes) -> bytes:
    at = raw.index(b'"x"')
    return raw[:at] + b"XXX" + raw[at + 3 :]


def _over_each_other(raw: bytes) -> bytes:
    at = raw.rindex(b"PK\1\2")
    return raw[: at + 42] + bytes(4) + raw[at + 46 :]


@pytest.mark.parametrize(
    "damage", [_cut, _encrypted, _smaller, _flipped, _over_each_other, lambda raw: b"", lambda raw: raw[:-1]]
)
def test_damaged_archives(at: Path, damage: Callable[[bytes], bytes]) -> None:
    entries = {"a/documents.jsonl": b'{"x":1}\n' * 10, "b/documents.jsonl": b'{"x":2}\n' * 10}
    at.write_bytes(damage(pack(at, entries, ZIP_STORED).read_bytes()))
    with pytest.raises((ClientError, Unreadable)), Archive(at) as archive:
        for table in archive.tables:
            list(archive.rows(table))


def test_any_byte_may_be_wrong(at: Path) -> None:
    raw = pack(
        at, {"a/documents.jsonl": b'{"x":1}\n' * 10, "_tables/documents.jsonl": b'{"name":"a","id":9}'}
    ).read_bytes()
    for position in range(len(raw)):
        for byte in (0, 0xFF, raw[position] ^ 1):
            at.write_bytes(raw[:position] + bytes((byte,)) + raw[position + 1 :])
            try:
                with Archive(at) as archive:
                    for table in archive.tables:
                        list(archive.rows(table))
            except (ClientError, Unreadable):
                pass


def test_what_is_no_archive(at: Path) -> None:
    at.write_bytes(b"name,n\nAda,1\n")
    assert "no ZIP" in refusal(at)
    empty = io.BytesIO()
    zipfile.ZipFile(empty, "w").close()
    at.write_bytes(empty.getvalue())
    assert "no snapshot" in refusal(at)
