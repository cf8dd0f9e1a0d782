"""`skerry deploy`: an app or a bundle made live on a server, in one step."""

from base64 import b64encode
from collections.abc import Callable, Generator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from secrets import token_hex
from threading import Event, Thread
from time import sleep
from typing import Any, Final, cast

import click

from skerry.bundle.bundle_file import read_bundle
from skerry.cli.build import build_folder
from skerry.cli.client import ADMIN_KEY_VARIABLE, URL_VARIABLE, Server
from skerry.cli.output import Output, current, speaking
from skerry.errors import ERRORS, ClientError
from skerry.limits import BUNDLE_FILE_BYTES_MAX

_PROGRESS_SECONDS: Final = 0.5
_ASKED_IN_VAIN_MAX: Final = 20  # times in a row, for a push that a server does not know
_LOST: Final = frozenset({"ServerUnreachable", "ServerAnswerInvalid"})
"""What an answer that was lost on the way looks like."""
_PASSING: Final = _LOST | {"ShuttingDown"}


@click.command("deploy", short_help="Put APP or a bundle on a server.")
@click.argument("app", type=click.Path(path_type=Path, exists=True))
@click.option("--url", help=f"The server; {URL_VARIABLE} if not given.")
@click.option("--admin-key", help=f"The admin key; {ADMIN_KEY_VARIABLE} if not given.")
@click.option("--typecheck", "check_types", is_flag=True, help="Run the app's own TypeScript compiler first.")
@click.option("--json", "as_json", is_flag=True, help="The result as JSON.")
@speaking
def deploy_command(app: Path, url: str | None, admin_key: str | None, check_types: bool, as_json: bool) -> None:
    """Uploads APP, an app's folder or a built bundle, and makes it live: calls see the old version or the new one."""
    output = current()
    server = Server(url, admin_key)
    server.need_admin_key()
    raw = _bundle_bytes(app, output, check_types)
    output.progress(f"uploading {len(raw) / 1e6:.1f} MB to {server.url}")
    digest = b64encode(sha256(raw).digest()).decode()
    name = token_hex(16)
    headers = {"Content-Type": "application/zip", "Content-Digest": f"sha-256=:{digest}:", "Skerry-Push": name}
    with _progress_of(Server(url, admin_key), output):
        try:
            answer = server.post("/api/skerry/deploy", raw, headers)
        except ClientError as error:
            if error.code not in _LOST:
                raise
            answer = outcome_of(server, name, error)
    version, functions = str(answer.get("version")), answer.get("functions")
    count = len(functions) if isinstance(functions, list) else 0  # pyright: ignore[reportUnknownArgumentType]  # only counted
    output.done(
        {"url": server.url, "version": version, "functions": functions},
        f"deployed {count} functions to {server.url} in {output.seconds():.1f} s, version {version[:16]}",
    )


@contextmanager
def _progress_of(server: Server, output: Output) -> Generator[None]:
    """Tells what the server is doing, for as long as that takes."""
    ended = Event()

    def tell() -> None:
        last = ""
        while not ended.wait(_PROGRESS_SECONDS):
            try:
                line = progress_line(server.get("/api/skerry/schema"))
            except ClientError:  # the answer to the deploy is what counts
                continue
            if line and line != last and not ended.is_set():
                output.progress(line)
                last = line

    teller = Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield
    finally:
        ended.set()


def outcome_of(
    server: Server, name: str, lost: ClientError, pause: Callable[[float], object] = sleep
) -> dict[str, Any]:
    """The answer to a push that did not come, `lost`: the server is asked until it knows how the push ended.

    Raises: ClientError as the push failed; `lost`, where the server does not answer at all; `PushOutcomeUnknown`.
    """
    in_vain = 0
    has_answered = False
    while in_vain < _ASKED_IN_VAIN_MAX:
        try:
            pushes: dict[str, Any] = server.get("/api/skerry/schema").get("pushes") or {}
            has_answered = True
            outcome = next((ended for ended in pushes.get("ended", ()) if ended["name"] == name), None)
            if outcome is not None:
                return _answer_of(server, outcome)
            in_vain = 0 if name in pushes.get("underWay", ()) else in_vain + 1
        except ClientError as error:
            if error.code not in _PASSING:
                raise
            if not has_answered:
                raise lost from None
            in_vain += 1
        pause(_PROGRESS_SECONDS)
    raise ClientError(
        "PushOutcomeUnknown",
        f"The connection to {server.url} was lost, and the server does not know the push: it did not arrive whole, "
        "or the server was restarted. See what is live (skerry versions), and push again where it is another version.",
    )


def _answer_of(server: Server, outcome: dict[str, Any]) -> dict[str, Any]:
    """What the push would have been answered with, from what its server remembers."""
    if "code" in outcome:
        code = str(outcome["code"])
        raise ClientError(code if code in ERRORS else "ServerAnswerInvalid", str(outcome.get("message")))
    live = server.get("/api/skerry/functions")
    return live if live.get("version") == outcome["version"] else {"version": outcome["version"]}


def progress_line(told: dict[str, Any]) -> str:
    """What a server's answer about its schema means for a push under way; empty where there is none."""
    push: Any = told.get("push")
    if not isinstance(push, dict):
        return ""
    indexes = cast("list[dict[str, Any]]", told.get("indexes", []))
    building = [
        f"{index['table']}.{index['index']} {index.get('documents', 0):,} documents{_percent(index)}"
        for index in indexes
        if index.get("state") == "building"
    ]
    if building:
        return "building " + ", ".join(building)
    judging = cast("dict[str, Any]", push)
    count = f"{judging.get('documentsJudged', 0):,}"
    return f"checking documents: {count}" + (f", {judging['table']}{_percent(judging)}" if "table" in judging else "")


def _percent(told: dict[str, Any]) -> str:
    return f" (about {told['percent']} %)" if "percent" in told else ""


def _bundle_bytes(app: Path, output: Output, check_types: bool) -> bytes:
    if app.is_dir():
        return build_folder(app, output, check_types=check_types).to_bytes()
    if check_types:
        raise click.UsageError("--typecheck needs the app's folder: a bundle is built already")
    if app.stat().st_size > BUNDLE_FILE_BYTES_MAX:
        raise ClientError("BundleTooLarge", f"{app} has more than {BUNDLE_FILE_BYTES_MAX} bytes.")
    raw = app.read_bytes()
    read_bundle(raw)
    return raw
