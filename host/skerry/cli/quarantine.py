"""`skerry quarantine`: versions that crashed the server and are not run any more."""

from typing import Any, Final, cast
from urllib.parse import quote

import click

from skerry.cli.client import HOST_CREDENTIAL_VARIABLE, URL_VARIABLE, Server
from skerry.cli.output import current, speaking

_ACTIONS: Final = ("list", "lift")


@click.command("quarantine", short_help="List versions that crashed the server, or let them run again.")
@click.argument("action", type=click.Choice(_ACTIONS))
@click.argument("name", required=False)
@click.option("--url", help=f"The server; {URL_VARIABLE} if not given.")
@click.option("--host-credential", help=f"The host credential; {HOST_CREDENTIAL_VARIABLE} if not given.")
@click.option("--json", "as_json", is_flag=True, help="The result as JSON.")
@speaking
def quarantine_command(
    action: str, name: str | None, url: str | None, host_credential: str | None, as_json: bool
) -> None:
    """Lists the versions that are quarantined, or lifts the quarantine of those of the deployment NAME."""
    output = current()
    server = Server(url, None, host_credential)
    server.need_host_credential()
    if action == "list":
        found = server.get("/host/quarantine")
        listed = cast("list[dict[str, Any]]", found.get("quarantined") or [])
        lines = [f"{entry['name']:<32} {entry['version'][:16]}" for entry in listed]
        output.done(found, "\n".join(lines) or "no version is quarantined")
        return
    if name is None:
        raise click.UsageError("`skerry quarantine lift` needs the NAME of a deployment")
    lifted = server.delete(f"/host/deployments/{quote(name, safe='')}/quarantine")
    count = len(cast("list[str]", lifted.get("lifted") or []))
    output.done(
        lifted, f"{count} versions of {name} may run again" if count else f"no version of {name} is quarantined"
    )
