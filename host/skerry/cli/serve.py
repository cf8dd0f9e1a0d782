"""`skerry serve`: one deployment on two ports, until it is told to stop. Also what `dev` shares with it.

This process is the supervisor: it holds the data folder and the ports, and its workers serve. The web framework takes a
third of a second and tens of megabytes to load, so it is imported only by what serves.
"""

import contextlib
import logging
import os
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import click

from skerry.admin.keys import ADMIN_KEY_VARIABLE, HOST_CREDENTIAL_VARIABLE, Keys, is_guessable, open_keys
from skerry.cli.options import data_option
from skerry.cli.output import Output, current, speaking
from skerry.http.serve_options import ServeOptions
from skerry.jail import JAIL, WALL_NAMES
from skerry.limits import WORKERS_MAX
from skerry.storage.folder import DataFolder
from skerry.supervisor.listeners import listen, origin_of
from skerry.supervisor.quarantine_file import quarantine_file
from skerry.supervisor.supervisor import Plan, Supervisor

CLOUD_ORIGIN_VARIABLE = "CONVEX_CLOUD_ORIGIN"
SITE_ORIGIN_VARIABLE = "CONVEX_SITE_ORIGIN"
PORT_DEFAULT = 3210
SITE_PORT_DEFAULT = 3211
_PORT = click.IntRange(0, 65535)
_DEPLOYMENT: Final = "local"
_WORKER: Final = "skerry.http.worker"
_log: Final = logging.getLogger("skerry.serve")


@click.command("serve", short_help="Serve deployments until Ctrl-C.")
@data_option
@click.option("--port", type=_PORT, default=PORT_DEFAULT, show_default=True, help="The port of the API; 0 for any.")
@click.option(
    "--site-port", type=_PORT, default=SITE_PORT_DEFAULT, show_default=True, help="The port of HTTP actions; 0 for any."
)
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--domain", help="Deployments are subdomains of this, beside those of localhost.")
@click.option(
    "--workers",
    type=click.IntRange(1, WORKERS_MAX),
    default=1,
    show_default=True,
    help="Processes that share the deployments; no more than there are cores.",
)
@click.option("--production", is_flag=True, help="Hide functions' messages and log lines from callers.")
@click.option(
    "--require-walls", is_flag=True, help="Take no bundle unless this machine confines its compilation entirely."
)
@click.option(
    "--allow-egress",
    multiple=True,
    metavar="HOST:PORT",
    help="Let actions reach a server that is refused otherwise, such as localhost:3000; repeatable.",
)
@click.option("--log-calls", is_flag=True, help="Write one line of JSON for each call to standard error.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object when the server is ready.")
@speaking
def serve_command(
    data: Path,
    port: int,
    site_port: int,
    host: str,
    domain: str | None,
    workers: int,
    production: bool,
    require_walls: bool,
    allow_egress: tuple[str, ...],
    log_calls: bool,
    as_json: bool,
) -> None:
    """Serves the deployment called local, and those that were created beside it, until SIGTERM or Ctrl-C. SIGHUP
    replaces its processes while they serve."""
    from skerry.http.addresses import check_domain

    out = current()
    log_to_errors()
    if require_walls:
        JAIL.require(WALL_NAMES)
    try:
        checked = None if domain is None else check_domain(domain)
    except ValueError as error:
        raise click.UsageError(f"--domain: {error}") from None
    chosen = replace(
        options(data, host, port, site_port, production, allow_egress, require_walls, checked), log_calls=log_calls
    )
    with contextlib.ExitStack() as cleanup:
        cleanup.callback(DataFolder(chosen.data).close)
        listeners = [cleanup.enter_context(listen(host, number)) for number in (port, site_port)]
        keys = open_keys(chosen.data, _DEPLOYMENT, chosen.admin_key, os.urandom, chosen.host_credential)
        for name, given in (
            (ADMIN_KEY_VARIABLE, chosen.admin_key),
            (HOST_CREDENTIAL_VARIABLE, chosen.host_credential),
        ):
            if given is not None and is_guessable(given):
                _log.warning("%s is so short that it can be guessed: use a long random one", name)
        url, site_url = (origin_of(listener) for listener in listeners)
        plan = Plan([sys.executable, "-m", _WORKER], chosen.to_json(), workers, listeners, quarantine_file(chosen.data))

        def ready(reports: list[dict[str, Any]]) -> None:
            announce(out, Announcement(_DEPLOYMENT, url, site_url, keys))

        Supervisor(plan, time.monotonic).run(ready)
    out.note("stopped")


def options(
    data: Path,
    host: str,
    port: int,
    site_port: int,
    production: bool,
    allow_egress: tuple[str, ...],
    require_walls: bool = False,
    domain: str | None = None,
) -> ServeOptions:
    """What to serve, with the keys and the public addresses of the environment.

    Raises: click.BadParameter.
    """
    given, credential, cloud, site = (
        os.environ.get(name) or None
        for name in (ADMIN_KEY_VARIABLE, HOST_CREDENTIAL_VARIABLE, CLOUD_ORIGIN_VARIABLE, SITE_ORIGIN_VARIABLE)
    )
    if allow_egress:
        from skerry.egress import EgressPolicy

        try:
            EgressPolicy.of(allow=allow_egress)
        except ValueError as error:
            raise click.BadParameter(f"{error}.", param_hint="--allow-egress") from error
    return ServeOptions(
        data.absolute(),
        host,
        port,
        site_port,
        production,
        given,
        cloud,
        site,
        allow_egress,
        require_walls,
        credential,
        domain,
    )


@dataclass(frozen=True, slots=True)
class Announcement:
    """What there is to say of a server that is ready."""

    deployment: str
    url: str
    site_url: str
    keys: Keys


def announce(out: Output, serving: Announcement) -> None:
    """Says where the server is and how to reach it, on the first line that programs may wait for."""
    given = bool(os.environ.get(ADMIN_KEY_VARIABLE))
    key = serving.keys.admin_key
    shown = f"(from {ADMIN_KEY_VARIABLE})" if given else key
    text = "\n".join(
        [
            f"Skerry serves deployment '{serving.deployment}'.",
            f"  API           {serving.url}",
            f"  HTTP actions  {serving.site_url}",
            f"  admin key     {shown}",
            "",
            "To deploy to it and call it from another terminal:",
            f"  export CONVEX_SELF_HOSTED_URL='{serving.url}'",
            "  export CONVEX_SELF_HOSTED_ADMIN_KEY=" + (f'"${ADMIN_KEY_VARIABLE}"' if given else f"'{key}'"),
            "",
        ]
    )
    fields = {
        "url": serving.url,
        "siteUrl": serving.site_url,
        "deployment": serving.deployment,
        "adminKey": None if given else key,
        "pid": os.getpid(),
    }
    out.done(fields, text)


def log_to_errors() -> None:
    """Sends the server's own log to standard error."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
