"""The format of a backup: lines of text in gzip, closed by a digest. `zcat FILE | less` shows all of it.

    H {head}      what this is: see `Head`
    V {version}   a version of code that is kept: its digest and the bytes of its bundle, which follow
    C base64      a piece of that bundle
    R name        in an increment: the table has other contents altogether, all of which follow
    D {document}  a document as a guest receives it, `_id` and `_creationTime` included; it replaces one of its id
    X id          in an increment: the document is gone
    E {end}       how many lines there were, and the SHA-256 of all bytes of them

The head names what is in the file (`contents`). A later server may put more in, under kinds of lines that are not used
yet and a new name in `contents`, and the version stays what it is: a server that does not know the name refuses the
file whole instead of leaving something out, and one that does reads older files, which do not have it.

Files of one chain (a full backup and its increments) may be put behind each other: gzip is made for that. Text and
gzip, because both are in Python's standard library, will be readable for as long as there are computers, need no
seeking to write or to read, and compress documents well; the digest is ours because gzip's checksum is no proof.

Reading believes nothing: lines are bounded, unpacking stops at a bound of output however little input made it, and a
file counts only once its end was right. What a line says is judged by whoever restores.
"""

import zlib
from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import Any, Final, NamedTuple, cast

import orjson

from skerry.errors import ClientError, SkerryError
from skerry.limits import BACKUP_LINE_BYTES_MAX, BACKUP_PIECE_BYTES

FORMAT: Final = "skerry backup"
VERSION: Final = 1
CONTENTS: Final = ("documents", "schema", "code", "settings")
"""What this server writes and can restore."""

_GZIP: Final = 31
_LEVEL: Final = 1
_DIGEST_CHARS: Final = 64
_REFUSAL: Final = "The backup cannot be restored: "

Read = Callable[[int], bytes]
"""Gives up to so many of the next bytes, none at the end."""


class Head(NamedTuple):
    """What a backup says of itself. Units: timestamps in ns of the deployment's commits, `created_ms` since the epoch.

    Shape: `since` and `previous` (the digest of the file that this one continues) are None for a full backup; `tables`
    are names and numbers, `versions` as they are kept, `documents` an estimate for progress.
    """

    deployment: str
    ts: int
    since: int | None
    previous: str | None
    created_ms: int
    documents: int
    tables: list[tuple[str, int]]
    schema: dict[str, Any] | None
    settings: dict[str, Any]
    versions: list[tuple[str, int, int, int]]
    contents: list[str]


class Writer:
    """Lines on their way into a file: `take` gives what there is to be written by now."""

    def __init__(self) -> None:
        self._packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP)
        self._digest = sha256()
        self._lines: list[bytes] = []
        self._count = 0
        self.waiting_bytes = 0

    def line(self, kind: bytes, text: bytes) -> None:
        """Adds one."""
        line = b"%s %s\n" % (kind, text)
        self._lines.append(line)
        self._count += 1
        self.waiting_bytes += len(line)

    def take(self) -> bytes:
        """Packs what was added."""
        raw = b"".join(self._lines)
        self._lines.clear()
        self.waiting_bytes = 0
        self._digest.update(raw)
        return self._packer.compress(raw)

    def end(self) -> bytes:
        """The rest of the file."""
        packed = self.take()
        self.line(b"E", orjson.dumps({"lines": self._count, "sha256": self._digest.hexdigest()}))
        return packed + self.take() + self._packer.flush()


def dump_head(head: Head) -> bytes:
    """The text of a head."""
    return orjson.dumps({"format": FORMAT, "version": VERSION, **head._asdict()})


def load_head(text: bytes) -> Head:
    """The head of a text. Raises: ClientError `BackupInvalid`."""
    fields = parse(text)
    if fields.get("format") != FORMAT:
        raise invalid("this is no backup: its first line says something else.")
    if fields.get("version") != VERSION:
        raise invalid(f"it is of version {fields.get('version')!r:.20}; this server reads {VERSION}.")
    try:
        head = Head(**{name: fields[name] for name in Head._fields})
    except KeyError as error:
        raise invalid(f"its head has no {error}.") from None
    schema: Any = head.schema
    settings: Any = head.settings
    is_plain = (
        _is_text(head.deployment)
        and _is_count(head.ts)
        and (head.since is None or _is_count(head.since))
        and (head.previous is None or _is_text(head.previous))
        and (head.since is None) == (head.previous is None)
        and all(map(_is_count, (head.created_ms, head.documents)))
        and _are_rows(head.tables, (_is_text, _is_count))
        and (schema is None or isinstance(schema, dict))
        and isinstance(settings, dict)
        and _are_rows(head.versions, (_is_text, _is_count, _is_count, _is_count))
        and _are_texts(head.contents)
    )
    if not is_plain:
        raise invalid("its head has a field of another kind than a backup's.")
    unknown = sorted(set(head.contents) - set(CONTENTS))
    if unknown:
        raise invalid(f"it holds {', '.join(unknown)}, which this server does not know: use a newer one.")
    return head


class Lines:
    """The lines of one file or several behind each other, each file checked to its end.

    Shape: iterating gives kind and text, ends left out; `digest` is the last ended file's, `line` where it stands.
    Raises: ClientError `BackupInvalid`.
    """

    def __init__(self, read: Read) -> None:
        self.digest = ""
        self.files = 0
        self.line = 0
        self._read = read

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        data = self._read(BACKUP_PIECE_BYTES)
        while data:
            unpacker = zlib.decompressobj(_GZIP)
            self.files += 1
            self.line = 0
            yield from self._file(self._unpacked(unpacker, data))
            data = unpacker.unused_data or self._read(BACKUP_PIECE_BYTES)

    def _unpacked(self, unpacker: Any, data: bytes) -> Iterator[bytes]:
        """The text of one file, in bounded pieces."""
        try:
            while not unpacker.eof:
                text = unpacker.decompress(data, BACKUP_PIECE_BYTES)
                data = unpacker.unconsumed_tail
                if text:
                    yield text
                elif not data and not unpacker.eof:
                    data = self._read(BACKUP_PIECE_BYTES)
                    if not data:
                        raise self._wrong("the file ends too early.")
        except zlib.error as error:
            raise self._wrong(f"the file is damaged: {error}.") from None

    def _file(self, pieces: Iterator[bytes]) -> Iterator[tuple[bytes, bytes]]:
        digest = sha256()
        rest = b""
        ended = False
        for piece in pieces:
            *lines, rest = (rest + piece).split(b"\n")
            if len(rest) > BACKUP_LINE_BYTES_MAX:
                raise self._wrong("a line is too long.")
            for line in lines:
                if ended or len(line) > BACKUP_LINE_BYTES_MAX:
                    raise self._wrong("there is more behind the end." if ended else "a line is too long.")
                self.line += 1
                kind, space, text = line[:1], line[1:2], line[2:]
                if space != b" " or (kind == b"H") is not (self.line == 1):
                    raise self._wrong("this is no line of a backup.")
                if kind == b"E":
                    self._end(text, digest.hexdigest())
                    ended = True
                else:
                    digest.update(line + b"\n")
                    yield kind, text
        if rest or not ended:
            raise self._wrong("the file ends too early.")

    def _end(self, text: bytes, digest: str) -> None:
        fields = parse(text)
        if fields.get("sha256") != digest or fields.get("lines") != self.line - 1:
            raise self._wrong("the digest at its end is that of other contents.")
        self.digest = digest

    def _wrong(self, why: str) -> ClientError:
        return invalid(why, f"file {self.files}, line {self.line + 1}: ")


def parse(text: bytes) -> dict[str, Any]:
    """A JSON object. Raises: ClientError `BackupInvalid`."""
    try:
        parsed = orjson.loads(text)
    except ValueError as error:
        raise invalid(f"a line is no JSON: {error}.") from None
    if not isinstance(parsed, dict):
        raise invalid("a line is no JSON object.")
    return cast("dict[str, Any]", parsed)


def invalid(why: str, where: str = "") -> ClientError:
    """The refusal of a backup."""
    return ClientError("BackupInvalid", _REFUSAL + where + why)


def at(error: SkerryError, where: str) -> ClientError:
    """The refusal of a backup for something that was found at a place in it."""
    return invalid(error.message.removeprefix(_REFUSAL), where)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= _DIGEST_CHARS


def _are_texts(values: Any) -> bool:
    return isinstance(values, list) and all(_is_text(value) for value in cast("list[Any]", values))


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**64


def _are_rows(rows: Any, kinds: tuple[Callable[[Any], bool], ...]) -> bool:
    if not isinstance(rows, list):
        return False
    return all(
        isinstance(row, list)
        and len(cast("list[Any]", row)) == len(kinds)
        and all(is_kind(value) for is_kind, value in zip(kinds, cast("list[Any]", row), strict=True))
        for row in cast("list[Any]", rows)
    )
