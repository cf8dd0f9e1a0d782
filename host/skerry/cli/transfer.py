"""`skerry import` and `skerry export`: documents into a server, and a snapshot out of it."""

import os
import time
from pathlib import Path
from typing import Any, Final

import click
import orjson

from skerry.cli.client import ADMIN_KEY_VARIABLE, URL_VARIABLE, Server
from skerry.cli.output import Output, counted, current, speaking
from skerry.errors import ERRORS, ClientError
from skerry.value import Int64, decode

_JSON: Final = {"Content-Type": "application/json"}
_PART_BYTES: Final = 5 * 1024 * 1024
_POLL_SECONDS: Final = 0.2
_FORMATS: Final = {".jsonl": "jsonLines", ".ndjson": "jsonLines", ".json": "jsonArray", ".csv": "csv", ".zip": "zip"}


@click.command("import", short_help="Bring documents from a file into a server.")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--table", help="The table; a snapshot (zip) names its own.")
@click.option(
    "--format", "kind", type=click.Choice(["jsonLines", "jsonArray", "csv", "zip"]), help="By its suffix if not given."
)
@click.option("--append", "mode", flag_value="append", help="Add to the documents that a table has.")
@click.option("--replace", "mode", flag_value="replace", help="Replace the documents that the imported tables have.")
@click.option("--replace-all", "mode", flag_value="replaceAll", help="Likewise, and empty every other table.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask before documents are replaced.")
@click.option("--url", help=f"The server; {URL_VARIABLE} if not given.")
@click.option("--admin-key", help=f"The admin key; {ADMIN_KEY_VARIABLE} if not given.")
@click.option("--json", "as_json", is_flag=True, help="The result as JSON.")
@speaking
def import_command(
    file: Path,
    table: str | None,
    kind: str | None,
    mode: str | None,
    yes: bool,
    url: str | None,
    admin_key: str | None,
    as_json: bool,
) -> None:
    """Imports FILE: JSON lines, a JSON array, CSV, or a snapshot that `skerry export` wrote.

    All of it appears at once, or nothing. Without --append or --replace the tables must be empty.
    """
    output = current()
    kind = kind or _FORMATS.get(file.suffix.lower())
    if kind is None:
        raise click.UsageError("the format is not known by the file's suffix: give --format")
    if (table is None) != (kind == "zip"):
        raise click.UsageError(
            "--table is for one table's file; a snapshot (zip) names its own" if table else "give --table"
        )
    server = Server(url, admin_key)
    server.need_admin_key()
    wanted = {"mode": mode or "requireEmpty", "format": kind, "tableName": table, "fileName": file.name}
    import_id = _upload(server, output, file, wanted)
    state = _watch(server, output, import_id, until=("waiting_for_confirmation",))
    if state["state"] == "waiting_for_confirmation":
        if state["require_manual_confirmation"] and not yes and not _confirmed(output, state["message_to_confirm"]):
            server.post("/api/cancel_import", orjson.dumps({"importId": import_id}), _JSON)
            raise ClientError("ImportCanceled", "The import was not confirmed. Nothing of it was kept.")
        server.post("/api/perform_import", orjson.dumps({"importId": import_id}), _JSON)
        try:
            state = _watch(server, output, import_id, until=())
        except KeyboardInterrupt:
            server.post("/api/cancel_import", orjson.dumps({"importId": import_id}), _JSON)
            raise
    if state["state"] == "failed":
        code = str(state.get("code"))
        raise ClientError(code if code in ERRORS else "ImportRefused", str(state["error_message"]))
    rows = _number(state["num_rows_written"])
    seconds = output.seconds()
    pace = f"{seconds:.1f} s ({rows / max(seconds, 1e-3):,.0f}/s)"
    output.done(
        {"url": server.url, "documents": rows},
        f"imported {counted(rows, 'document')} into {server.url} in {pace}",
    )


@click.command("export", short_help="Write a snapshot of a server's documents to a file.")
@click.option(
    "--path", type=click.Path(path_type=Path), required=True, help="The archive to write, or a folder for it."
)
@click.option("--include-file-storage", "with_storage", is_flag=True, help="With the files (there are none yet).")
@click.option("--url", help=f"The server; {URL_VARIABLE} if not given.")
@click.option("--admin-key", help=f"The admin key; {ADMIN_KEY_VARIABLE} if not given.")
@click.option("--json", "as_json", is_flag=True, help="The result as JSON.")
@speaking
def export_command(path: Path, with_storage: bool, url: str | None, admin_key: str | None, as_json: bool) -> None:
    """Exports the documents as of one moment, while the server goes on serving."""
    output = current()
    server = Server(url, admin_key)
    server.need_admin_key()
    server.post(f"/api/export/request/zip?includeStorage={'true' if with_storage else 'false'}", b"", _JSON)
    while True:
        state = _decoded(server.get("/api/skerry/exports/latest"))
        if state["state"] in ("completed", "failed"):
            break
        output.progress(f"exporting {state.get('table', '')}: {_number(state.get('rowsWritten', 0)):,} documents")
        time.sleep(_POLL_SECONDS)
    if state["state"] == "failed":
        raise ClientError("ExportNotFound", f"The export failed: {state['error_message']}")
    export_id = str(state["zip_object_key"])
    target = path / f"snapshot_{export_id}.zip" if path.is_dir() else path
    output.progress(f"writing {target}")
    size = _download(server, f"/api/export/zip/{export_id}", target)
    rows = _number(state["rowsWritten"])
    output.done(
        {"url": server.url, "path": str(target), "documents": rows, "bytes": size, "timestamp": export_id},
        f"exported {counted(rows, 'document')} to {target} ({size / 1e6:.1f} MB) in {output.seconds():.1f} s",
    )


def _upload(server: Server, output: Output, file: Path, wanted: dict[str, Any]) -> str:
    total = file.stat().st_size
    token = str(server.post("/api/import/start_upload", b"", _JSON)["uploadToken"])
    tokens: list[str] = []
    sent = 0
    with file.open("rb") as source:
        while (piece := source.read(_PART_BYTES)) or not tokens:
            tokens.append(
                server.post_piece(f"/api/import/upload_part?uploadToken={token}&partNumber={len(tokens) + 1}", piece)
            )
            sent += len(piece)
            output.bar("uploading", sent, total, f"{sent / 1e6:.1f} MB")
    body = orjson.dumps({"import": wanted, "uploadToken": token, "partTokens": tokens})
    return str(server.post("/api/import/finish_upload", body, _JSON)["importId"])


def _watch(server: Server, output: Output, import_id: str, until: tuple[str, ...]) -> dict[str, Any]:
    """Shows how an import gets on, until it has ended or comes to one of these states."""
    while True:
        state = _decoded(server.get(f"/api/skerry/imports/{import_id}"))
        if state["state"] in ("completed", "failed", *until):
            return state
        if "rowsWritten" in state:
            done, total = _number(state["bytesRead"]), _number(state["bytesTotal"])
            output.bar("importing", done, total, f"{_number(state['rowsWritten']):,} documents")
        else:
            output.progress("checking the file")
        time.sleep(_POLL_SECONDS)


def _confirmed(output: Output, message: str) -> bool:
    output.end_progress()
    output.note(message)
    if output.as_json:
        return False
    return click.confirm("Go on?", default=False, err=True)


def _download(server: Server, path: str, target: Path) -> int:
    """Writes an answer to a file that appears when it is whole; its bytes."""
    part = target.with_name(target.name + ".part")
    try:
        with part.open("wb") as file:
            server.download(path, file.write)
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    return target.stat().st_size


def _decoded(answer: dict[str, Any]) -> dict[str, Any]:
    return decode(answer)


def _number(value: Any) -> int:
    return value.value if isinstance(value, Int64) else int(value)
