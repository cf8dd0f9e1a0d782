"""`skerry deploy`: an app or a bundle made live on a server, in one step."""

from base64 import b64encode
from collections.abc import Generator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from threading import Event, Thread
from typing import Any, Final, cast

import click

from skerry.bundle.bundle_file import read_bundle
from skerry.cli.build import build_folder
from skerry.cli.client import ADMIN_KEY_VARIABLE, URL_VARIABLE, Server
from skerry.cli.output import Output, current, speaking
from skerry.errors import ClientError
from skerry.limits import BUNDLE_FILE_BYTES_MAX

_PROGRESS_SECONDS: Final = 0.5


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
    headers = {"Content-Type": "application/zip", "Content-Digest": f"sha-256=:{digest}:"}
    with _progress_of(Server(url, admin_key), output):
        answer = server.post("/api/skerry/deploy", raw, headers)
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


def progress_line(told: dict[str, Any]) -> str:
    """What a server's answer about its schema means for a push under way; empty where there is none."""
    push: Any = told.get("push")
    if not isinstance(push, dict):
        return ""
    indexes = cast("list[dict[str, Any]]", told.get("indexes", []))
    building = [
        f"{index['table']}.{index['index']} {index.get('documents', 0):,} documents"
        for index in indexes
        if index.get("state") == "building"
    ]
    if building:
        return "building " + ", ".join(building)
    return f"checking documents: {cast('dict[str, Any]', push).get('documentsJudged', 0):,}"


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
