"""Reading a snapshot archive: its directory is judged before anything is unpacked, and its entries are streams.

    [PREFIX/]_tables/documents.jsonl           names and numbers of the tables, optional
    [PREFIX/]TABLE/documents.jsonl             documents
    [PREFIX/]TABLE/generated_schema.jsonl      optional: the numbers are an export's (see `rows`)
    [PREFIX/]_storage/...                      files, not served yet: refused unless empty

Other entries are passed over. No entry's name is ever a path on disk, so one that climbs out is no danger; it is
refused all the same, because no export writes one. What the directory says of sizes is checked against the file:
entries do not overlap, and what comes out of one is counted.

Source: protocol reference 5.13, 5.14.
"""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from skerry.errors import ClientError, DeveloperError
from skerry.limits import (
    IMPORT_ARCHIVE_DIRECTORY_BYTES_MAX,
    IMPORT_ARCHIVE_ENTRIES_MAX,
    IMPORT_ARCHIVE_NAME_CHARS_MAX,
    IMPORT_ARCHIVE_RATIO_MAX,
    IMPORT_ARCHIVE_UNPACKED_BYTES_MAX,
    IMPORT_TABLE_NUMBER_MAX,
    MIB,
    TABLES_MAX,
)
from skerry.transfer.pieces import Unreadable
from skerry.transfer.rows import Row, fields_of, json_lines
from skerry.value import Int64, check_table_name

TABLES_ENTRY: Final = "_tables"
STORAGE_ENTRY: Final = "_storage"
_DOCUMENTS: Final = "documents.jsonl"
_SCHEMA: Final = "generated_schema.jsonl"
_COMPONENTS: Final = "_components"
_END: Final = b"PK\5\6"
_END_BYTES: Final = 22
_END64: Final = b"PK\6\6"
_LOCATOR64: Final = b"PK\6\7"
_COMMENT_BYTES_MAX: Final = 65_535
_ENCRYPTED: Final = 1


class Archive:
    """An archive on this disk, opened and judged.

    Shape: `tables` names those that it has documents of, `numbers` those whose number it tells.
    Raises: ClientError `ImportRefused`.
    """

    def __init__(self, path: Path) -> None:
        _check_directory_size(path)
        try:
            self._zip = ZipFile(path)
        except (BadZipFile, NotImplementedError, ValueError, struct.error, UnicodeDecodeError) as error:
            raise refused("", f"This is no ZIP archive, or not all of one: {error}.") from None
        try:
            self._entries: dict[str, ZipInfo] = {}
            self._exported: set[str] = set()
            self._judge()
            self.tables = sorted(name for name in self._entries if not name.startswith("_"))
            self.numbers = self._numbers()
        except BaseException:
            self._zip.close()
            raise

    def __enter__(self) -> "Archive":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._zip.close()

    @property
    def unpacked_bytes(self) -> int:
        """How much text there is, by the directory."""
        return sum(self._entries[name].file_size for name in self.tables)

    def is_export(self, table: str) -> bool:
        """Whether the table's numbers are an export's."""
        return table in self._exported

    def entry_name(self, table: str) -> str:
        """The name of a table's entry, for messages."""
        return self._entries[table].filename

    def rows(self, table: str) -> Iterator[tuple[int, Row]]:
        """The rows of a table. Raises: Unreadable, also where the archive is damaged."""
        line = 0
        try:
            with self._zip.open(self._entries[table]) as stream:
                for line, row in json_lines(_counted(stream, self._entries[table])):
                    yield line, row
        except (BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, struct.error) as error:
            raise Unreadable(line, f"the archive is damaged behind this line: {error}.") from None

    def _judge(self) -> None:
        infos = self._zip.infolist()
        if len(infos) > IMPORT_ARCHIVE_ENTRIES_MAX:
            raise refused("", f"The archive has {len(infos)} entries; {IMPORT_ARCHIVE_ENTRIES_MAX} are the most.")
        _check_overlap(infos)
        roots: set[tuple[str, ...]] = set()
        total = 0
        for info in infos:
            *folder, file = _parts(info)
            if not file or not folder or file not in (_DOCUMENTS, _SCHEMA):
                if STORAGE_ENTRY in folder[-1:] and file:
                    raise _no_files(info)
                continue
            *root, name = folder
            if _COMPONENTS in root or name == _COMPONENTS:
                raise refused(info.filename, "Components are not served yet: export without them.")
            roots.add(tuple(root))
            _check_entry(info)
            total += info.file_size
            if name not in (TABLES_ENTRY, STORAGE_ENTRY):
                _check_name(info, name)
            if file == _SCHEMA:
                self._exported.add(name)
            elif name in self._entries:
                raise refused(info.filename, f"The archive has the documents of {name} twice.")
            elif name == STORAGE_ENTRY and info.file_size:
                raise _no_files(info)
            else:
                self._entries[name] = info
        if len(roots) > 1:
            raise refused("", "The archive has tables in several folders: leave one of them.")
        if total > IMPORT_ARCHIVE_UNPACKED_BYTES_MAX:
            raise refused("", f"The archive unpacks to more than {IMPORT_ARCHIVE_UNPACKED_BYTES_MAX} bytes.")
        if not any(not name.startswith("_") for name in self._entries):
            raise refused("", "The archive has no TABLE/documents.jsonl: it is no snapshot.")

    def _numbers(self) -> dict[str, int]:
        """The table numbers that the archive tells."""
        numbers: dict[str, int] = {}
        if TABLES_ENTRY not in self._entries:
            return numbers
        where = self.entry_name(TABLES_ENTRY)
        try:
            for line, row in self.rows(TABLES_ENTRY):
                if row is None:
                    continue
                name, number = _table_row(line, row)
                if name in numbers or number in numbers.values():
                    raise Unreadable(line, f"the table {name[:64]!r} or its number is there twice.")
                numbers[name] = number
                if len(numbers) > TABLES_MAX:
                    raise Unreadable(line, f"there are more than {TABLES_MAX} tables.")
        except Unreadable as error:
            raise refused(where, error.message, error.line) from None
        return numbers


def _table_row(line: int, row: bytes | dict[str, Any]) -> tuple[str, int]:
    try:
        fields = fields_of(row, is_export=True)
    except DeveloperError as error:
        raise Unreadable(line, error.message) from None
    name, number = fields.get("name"), fields.get("id")
    value = number.value if isinstance(number, Int64) else number
    if type(name) is not str or type(value) is not int or not 1 <= value <= IMPORT_TABLE_NUMBER_MAX:
        raise Unreadable(line, f'a table is {{"name": ..., "id": 1 to {IMPORT_TABLE_NUMBER_MAX}}}.')
    return name, value


def refused(where: str, message: str, line: int | None = None) -> ClientError:
    """A refusal that says where and what. Shape: `where` names a file or an entry, or nothing."""
    place = where[:IMPORT_ARCHIVE_NAME_CHARS_MAX] + (
        "" if line is None else f", line {line}" if where else f"Line {line}"
    )
    return ClientError("ImportRefused", f"Hit an error while importing:\n{place}{': ' if place else ''}{message}")


def _parts(info: ZipInfo) -> list[str]:
    name = info.filename
    parts = name.split("/")
    is_plain = (
        name.isprintable() and "\\" not in name and ":" not in parts[0] and len(name) <= IMPORT_ARCHIVE_NAME_CHARS_MAX
    )
    if not is_plain or name.startswith("/") or any(part in (".", "..") for part in parts) or "" in parts[:-1]:
        raise refused("", f"The archive has an entry with a name that no export gives: {name[:64]!r}.")
    return parts


def _check_name(info: ZipInfo, table: str) -> None:
    try:
        check_table_name(table)
    except DeveloperError as error:
        raise refused(info.filename, error.message) from None


def _check_entry(info: ZipInfo) -> None:
    if info.flag_bits & _ENCRYPTED:
        raise refused(info.filename, "The entry is encrypted: store it without a password.")
    if info.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
        raise refused(info.filename, "The entry is compressed in another way than deflate.")
    if info.file_size > MIB and info.file_size > info.compress_size * IMPORT_ARCHIVE_RATIO_MAX:
        raise refused(
            info.filename,
            f"The entry unpacks to more than {IMPORT_ARCHIVE_RATIO_MAX} times its size: store it unpacked.",
        )


def _check_overlap(infos: list[ZipInfo]) -> None:
    """Entries that share bytes unpack to more than any archive of that size holds."""
    end = 0
    for info in sorted(infos, key=lambda info: info.header_offset):
        if info.header_offset < end:
            raise refused(info.filename, "Entries of the archive lie over each other.")
        end = info.header_offset + info.compress_size


def _no_files(info: ZipInfo) -> ClientError:
    return refused(info.filename, "File storage is not served yet: export without it.")


def _counted(stream: IO[bytes], info: ZipInfo) -> Any:
    """The stream's `read`, which ends with an error where more comes out than the directory says, or less."""
    left = [info.file_size]

    def read(n_bytes: int) -> bytes:
        piece = stream.read(n_bytes)
        left[0] -= len(piece)
        if left[0] < 0 or (not piece and left[0]):
            raise BadZipFile("an entry has another size than the directory says")
        return piece

    return read


def _check_directory_size(path: Path) -> None:
    """The directory is read as a whole, so its size is looked at first. Raises: ClientError `ImportRefused`."""
    size = path.stat().st_size
    with path.open("rb") as file:
        tail_bytes = min(size, _END_BYTES + _COMMENT_BYTES_MAX + 20)
        file.seek(size - tail_bytes)
        tail = file.read(tail_bytes)
        at = tail.rfind(_END)
        if at < 0 or len(tail) - at < _END_BYTES:
            raise refused("", "This is no ZIP archive, or not all of one: its end is missing.")
        entries, directory_bytes = struct.unpack_from("<HL", tail, at + 10)
        if at >= 20 and tail[at - 20 : at - 16] == _LOCATOR64:
            (where,) = struct.unpack_from("<Q", tail, at - 12)
            file.seek(min(where, size))
            end64 = file.read(56)
            if len(end64) < 56 or not end64.startswith(_END64):
                raise refused("", "The archive's directory is damaged.")
            entries, directory_bytes = struct.unpack_from("<QQ", end64, 32)
    if entries > IMPORT_ARCHIVE_ENTRIES_MAX or directory_bytes > IMPORT_ARCHIVE_DIRECTORY_BYTES_MAX:
        raise refused(
            "",
            f"The archive's directory is too large: {IMPORT_ARCHIVE_ENTRIES_MAX} entries and "
            f"{IMPORT_ARCHIVE_DIRECTORY_BYTES_MAX} bytes are the most.",
        )
