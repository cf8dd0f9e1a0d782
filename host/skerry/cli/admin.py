"""`skerry admin`: looking after the storage of a deployment, while it serves.

A job on the server is begun and then asked after until it is done; interrupting the command leaves the job running.
"""

import time
from pathlib import Path
from typing import Any, Final, cast

import click
import orjson

from skerry.cli.client import ADMIN_KEY_VARIABLE, URL_VARIABLE, Server
from skerry.cli.output import EXIT_FAILED, Output, current, speaking
from skerry.database import Verification
from skerry.errors import ClientError, SystemFault
from skerry.limits import KIB
from skerry.storage.folder import DataFolder
from skerry.storage.lmdb_engine import LmdbEngine

_JSON: Final = {"Content-Type": "application/json"}
_PLACE: Final = "/api/skerry/storage"
_ASK_SECONDS: Final = 0.2
_UNITS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_DIFFERENCES_SHOWN: Final = 20

Fields = dict[str, Any]

url_option = click.option("--url", help=f"The server; {URL_VARIABLE} if not given.")
key_option = click.option("--admin-key", help=f"An admin key of the deployment; {ADMIN_KEY_VARIABLE} if not given.")
json_option = click.option("--json", "as_json", is_flag=True, help="The result as JSON.")


@click.group("admin", short_help="Look after the data of a deployment: space, checks, backups.")
def admin_command() -> None:
    """Measures, checks, compacts and backs up a deployment that serves, and sets how long its history is kept."""


@admin_command.command("space", short_help="Show what takes the space, per table and index.")
@url_option
@key_option
@json_option
@speaking
def space_command(url: str | None, admin_key: str | None, as_json: bool) -> None:
    """Counts documents, index entries and history of each table, in the background of the deployment."""
    output = current()
    shown = _job(keyed_server(url, admin_key), output, "space", "counting")
    result = shown["job"]["result"]
    fields = {"space": result, "file": shown["file"], "settings": shown["settings"]}
    output.done(fields, _space_text(result, shown))


@admin_command.command("verify", short_help="Check documents, indexes, history and commit log against each other.")
@click.option(
    "--data",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="A data folder that no server uses, instead of a server.",
)
@click.option("--deployment", default="local", show_default=True, help="Which deployment of the data folder.")
@url_option
@key_option
@json_option
@speaking
def verify_command(data: Path | None, deployment: str, url: str | None, admin_key: str | None, as_json: bool) -> None:
    """Walks all that is stored and names each difference with a code and its place. Exit code 1 where there is one."""
    output = current()
    if data is None:
        result: Fields = _job(keyed_server(url, admin_key), output, "verify", "verifying")["job"]["result"]
    else:
        result = _verify_folder(data, deployment, output)
    output.done(result, _verify_text(result))
    if not result["isSound"]:
        raise SystemExit(EXIT_FAILED)


@admin_command.command("compact", short_help="Make the storage file as small as its data.")
@url_option
@key_option
@json_option
@speaking
def compact_command(url: str | None, admin_key: str | None, as_json: bool) -> None:
    """Copies the data into a new file beside the old one and puts it in its place, while the deployment serves."""
    output = current()
    result = _job(keyed_server(url, admin_key), output, "compact", "compacting")["job"]["result"]
    before, after = size_text(result["beforeBytes"]), size_text(result["afterBytes"])
    output.done(result, f"{before} before, {after} now; writes waited {result['pauseMs']} ms")


@admin_command.command("retention", short_help="Show or set how long history is kept.")
@click.argument("duration", required=False)
@url_option
@key_option
@json_option
@speaking
def retention_command(duration: str | None, url: str | None, admin_key: str | None, as_json: bool) -> None:
    """Shows how long the past of documents is kept, or sets it to DURATION, such as 90s, 30m, 2h, 7d, or default."""
    server = keyed_server(url, admin_key)
    if duration is None:
        shown = server.get(_PLACE)
    else:
        body = orjson.dumps({"historyRetentionSeconds": _seconds(duration)})
        shown = server.post(_PLACE + "/settings", body, _JSON)
    settings = cast("Fields", shown["settings"])
    current().done(settings, _retention_text(settings))


def keyed_server(url: str | None, admin_key: str | None) -> Server:
    """The server of the admin key. Raises: ClientError `AdminKeyMissing`."""
    server = Server(url, admin_key)
    server.need_admin_key()
    return server


def size_text(n_bytes: int) -> str:
    """A size as people read it."""
    amount = float(n_bytes)
    for unit in ("B", "KiB", "MiB"):
        if amount < KIB:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= KIB
    return f"{amount:.1f} GiB"


def _job(server: Server, output: Output, kind: str, doing: str) -> Fields:
    """Begins a job and waits for its end; what the server then shows. Raises: what ended it, under its own code."""
    shown = server.post(_PLACE + "/jobs", orjson.dumps({"kind": kind}), _JSON)
    while True:
        job = shown.get("job")
        if not isinstance(job, dict) or cast("Fields", job)["kind"] != kind:
            raise ClientError("ServerAnswerInvalid", "The server was restarted, or began another job: begin it again.")
        fields = cast("Fields", job)
        if fields["state"] == "done":
            return shown
        if fields["state"] == "failed":
            raise SystemFault(fields["error"]["code"], fields["error"]["message"])
        output.bar(doing, fields["done"], fields["total"])
        time.sleep(_ASK_SECONDS)
        shown = server.get(_PLACE)


def _verify_folder(data: Path, name: str, output: Output) -> Fields:
    folder = DataFolder(data)
    try:
        try:
            place = folder.deployment_path(name)
        except ValueError as error:
            raise click.UsageError(str(error)) from error
        if not place.is_dir():
            raise ClientError("DeploymentNotFound", f"{data} has no deployment {name!r}.")
        engine = LmdbEngine(place)
        try:
            total = sum(engine.items().values())
            snapshot = engine.snapshot()
            found = Verification(snapshot)
            for _ in found.steps():
                output.bar("verifying", sum(found.counts.values()), total)
            snapshot.close()
        finally:
            engine.close()
    finally:
        folder.close()
    return found.report()


def _verify_text(result: Fields) -> str:
    counts = ", ".join(f"{count:,} {_words(name)}" for name, count in result["counts"].items())
    if result["isSound"]:
        return f"sound: {counts}"
    shown = result["differences"][:_DIFFERENCES_SHOWN]
    lines = [f"{entry['code']:<26} {entry['place']}  {entry['says']}" for entry in shown]
    return "\n".join([*lines, f"{result['differenceCount']:,} differences in {counts}"])


def _space_text(result: Fields, shown: Fields) -> str:
    lines = [f"{'':<40} {'count':>14} {'bytes':>14} {'history':>14} {'bytes':>14}"]

    def row(name: str, *numbers: int) -> None:
        lines.append(f"{name:<40}" + "".join(f" {number:>14,}" for number in numbers))

    for table in result["tables"]:
        past, past_bytes = table["versions"] + table["milestones"], table["versionBytes"] + table["milestoneBytes"]
        row(table["name"], table["documents"], table["documentBytes"], past, past_bytes)
        for index in table["indexes"]:
            row("  " + index["name"], index["entries"], index["entryBytes"], index["history"], index["historyBytes"])
    row("commit log", result["commits"], result["commitBytes"])
    if result["unowned"]:
        row("being cleared or filled", result["unowned"], result["unownedBytes"])
    file = shown["file"]
    sizes = [size_text(file[name]) for name in ("bytes", "dataBytes", "freeBytes")]
    lines.append("file {}, of it data {}, free {}".format(*sizes))
    lines.append(_retention_text(shown["settings"]))
    return "\n".join(lines)


def _retention_text(settings: Fields) -> str:
    own = "set for this deployment" if "historyRetentionSeconds" in settings["set"] else "the default"
    return f"history is kept for {settings['historyRetentionSeconds']:,} s ({own})"


def _seconds(text: str) -> int | None:
    if text == "default":
        return None
    number, unit = (text[:-1], _UNITS[text[-1]]) if text[-1:] in _UNITS else (text, 1)
    if not number.isascii() or not number.isdigit():
        raise click.UsageError(f"{text!r} is no duration: write 90s, 30m, 2h, 7d or default")
    return int(number) * unit


def _words(name: str) -> str:
    return "".join(" " + char.lower() if char.isupper() else char for char in name)
