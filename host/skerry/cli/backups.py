"""`skerry admin backup` and `skerry admin restore`: a deployment in one file, and a new deployment out of such files.

A backup is read again once it has arrived, so that what is there afterwards is known to be whole.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlencode

import click
import orjson

from skerry.backup.file import Head, Lines, load_head
from skerry.cli.admin import admin_command, json_option, key_option, keyed_server, size_text, url_option
from skerry.cli.client import HOST_CREDENTIAL_VARIABLE, Server
from skerry.cli.deployments import new_deployment
from skerry.cli.output import Output, counted, current, speaking
from skerry.cli.shares import quota_change
from skerry.errors import ClientError
from skerry.limits import BACKUP_PIECE_BYTES

__all__ = ["admin_command"]

_PARTIAL: Final = ".part"


@admin_command.command("backup", short_help="Write the deployment into one file, while it serves.")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--since",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="The backup before: write only what has changed since it.",
)
@url_option
@key_option
@json_option
@speaking
def backup_command(file: Path, since: Path | None, url: str | None, admin_key: str | None, as_json: bool) -> None:
    """Writes data, schema, code and settings as of one moment into FILE, a gzip of lines of text with a digest."""
    output = current()
    server = keyed_server(url, admin_key)
    if file.exists():
        raise ClientError("FileUnusable", f"{file} exists already: name another file.")
    place = "/api/skerry/backup"
    if since is not None:
        head, digest, _ = _read(since, output, f"reading {since.name}")
        place += f"?since={head.ts}&previous={digest}"
    partial = file.with_name(file.name + _PARTIAL)
    try:
        with partial.open("wb") as target:
            written = 0

            def take(piece: bytes) -> None:
                nonlocal written
                target.write(piece)
                written += len(piece)
                output.bar("backing up", 0, 0, size_text(written))

            server.download(place, take)
        head, digest, documents = _read(partial, output, "checking")
        partial.rename(file)
    finally:
        partial.unlink(missing_ok=True)
    fields = {"file": str(file), "bytes": written, "documents": documents, "ts": str(head.ts), "sha256": digest}
    kind = "what has changed in" if since is not None else "all of"
    size = f"{counted(documents, 'document')}, {size_text(written)}"
    output.done(fields, f"wrote {kind} {head.deployment} to {file}: {size}")


@admin_command.command("restore", short_help="Make a new deployment out of a backup and its increments.")
@click.argument("name")
@click.argument(
    "files", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False), metavar="FILE..."
)
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="QUOTA=N",
    help="Set a quota of the new deployment, as `skerry quotas` does; --set storage-bytes=N lets a larger one in.",
)
@url_option
@click.option("--host-credential", help=f"The host credential; {HOST_CREDENTIAL_VARIABLE} if not given.")
@json_option
@speaking
def restore_command(
    name: str,
    files: tuple[Path, ...],
    changes: tuple[str, ...],
    url: str | None,
    host_credential: str | None,
    as_json: bool,
) -> None:
    """Makes the deployment NAME out of FILES, a full backup and its increments in their order: all of it or nothing."""
    output = current()
    asked = {quota: value for quota, value in map(quota_change, changes) if value is not None}
    server = Server(url, None, host_credential)
    server.need_host_credential()
    total = sum(file.stat().st_size for file in files)
    place = "/host/deployments/" + quote(name, safe="")
    made = server.upload(f"{place}/restore?{urlencode(asked)}", _pieces(files, total, output), total)
    label = orjson.dumps({"scope": "admin", "label": "made with the restore"})
    key = server.post(place + "/keys", label, {"Content-Type": "application/json"}).get("key")
    text = f"restored {counted(int(made['documents']), 'document')} into {name}"
    output.done({**made, "adminKey": key, "url": server.url_of(name)}, f"{text}\n{new_deployment(server, name, key)}")


def _read(file: Path, output: Output, doing: str) -> tuple[Head, str, int]:
    """The head, digest and number of documents of a backup that is whole. Raises: ClientError `BackupInvalid`."""
    with file.open("rb") as source:
        lines = Lines(source.read)
        head: Head | None = None
        documents = 0
        size = file.stat().st_size
        for kind, text in lines:
            if kind == b"H":
                head = load_head(text)
            documents += kind == b"D"
            if not documents % 1_000:
                output.bar(doing, source.tell(), size, "")
        if head is None:
            raise ClientError("BackupInvalid", f"{file} is no backup.")
        return head, lines.digest, documents


def _pieces(files: tuple[Path, ...], total: int, output: Output) -> Iterator[bytes]:
    sent = 0
    for file in files:
        with file.open("rb") as source:
            while piece := source.read(BACKUP_PIECE_BYTES):
                yield piece
                sent += len(piece)
                output.bar("sending", sent, total, size_text(sent))
    output.bar("restoring", 0, 0, "")
