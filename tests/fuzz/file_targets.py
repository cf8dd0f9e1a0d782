"""A target of the files that are imported: rows of every format, and snapshot archives."""

import io
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

from skerry.backup.file import Lines, Writer, dump_head, load_head
from skerry.errors import ClientError, DeveloperError
from skerry.transfer.archive import Archive
from skerry.transfer.pieces import Unreadable
from skerry.transfer.rows import fields_of, rows_of
from skerry.value import check_document, dumps, dumps_export, loads

_KINDS = ("jsonLines", "jsonArray", "csv")


def files(data: bytes) -> None:
    """A row is read to a value that is written down and read again the same, in whatever pieces it comes."""
    if data.startswith(b"PK"):
        _archive(data)
        return
    kind = _KINDS[data[0] % 3] if data else "csv"
    found = [_rows(kind, data[1:], size) for size in (1 << 16, 3)]
    assert found[0] == found[1]


def _rows(kind: str, raw: bytes, size: int) -> list[tuple[int, bytes]]:
    stream = io.BytesIO(raw)
    read: list[tuple[int, bytes]] = []
    last = 1
    try:
        for line, row in rows_of(kind, lambda n_bytes: stream.read(min(n_bytes, size))):
            assert line >= last
            last = line
            if row is None:
                continue
            try:
                fields = fields_of(row)
                check_document(fields)
            except DeveloperError:
                continue
            text = dumps(fields)
            assert dumps(loads(text)) == text
            assert dumps(fields_of(dumps_export(fields), is_export=True)) == text
            read.append((line, text))
    except Unreadable as error:
        assert error.line >= 1 and error.message.endswith(".")
        read.append((error.line, error.message.encode()))
    return read


def _archive(raw: bytes) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "archive.zip"
        path.write_bytes(raw)
        try:
            with Archive(path) as archive:
                for table in archive.tables:
                    for _ in archive.rows(table):
                        pass
        except (ClientError, Unreadable):
            pass


def backups(data: bytes) -> None:
    """A backup is refused, or is read as what was written; a head is refused or says what it said."""
    if data[:1] == b"\x1f":
        raw = data
    else:
        writer = Writer()
        lines = [(line[:1] or b"D", line[2:]) for line in data.split(b"\n")]
        for kind, text in lines:
            writer.line(kind, text)
        raw = writer.end()
    try:
        read = list(Lines(BytesIO(raw).read))
    except ClientError as error:
        assert error.code == "BackupInvalid"
        return
    assert raw is data or read == lines
    try:
        head = load_head(read[0][1])
    except ClientError as error:
        assert error.code == "BackupInvalid"
        return
    assert load_head(dump_head(head)) == head
