"""`skerry usage` and `skerry quotas`: what deployments have used, and what they may use.

Usage of one deployment takes a key of it, or the host credential; quotas are the host operator's.
"""

from typing import Any, cast

import click
import orjson

from skerry.cli.client import ADMIN_KEY_VARIABLE, HOST_CREDENTIAL_VARIABLE, URL_VARIABLE, server_for
from skerry.cli.output import current, speaking


@click.command("usage", short_help="Show what a deployment has used.")
@click.argument("name", required=False)
@click.option("--url", help=f"The server; {URL_VARIABLE} if not given.")
@click.option("--admin-key", help=f"A key of the deployment; {ADMIN_KEY_VARIABLE} if not given.")
@click.option("--host-credential", help=f"The host credential, for NAME; {HOST_CREDENTIAL_VARIABLE} if not given.")
@click.option("--json", "as_json", is_flag=True, help="The result as JSON.")
@speaking
def usage_command(
    name: str | None, url: str | None, admin_key: str | None, host_credential: str | None, as_json: bool
) -> None:
    """Shows what the deployment NAME of a host, or that of the key, has used since it was created."""
    server, place = server_for(name, url, admin_key, host_credential)
    found = server.get(place + "/usage")
    current().done(found, _lines(found.get("usage")))


@click.command("quotas", short_help="Show or set what a deployment may use.")
@click.argument("name")
@click.option(
    "--set", "changes", multiple=True, metavar="QUOTA=N", help="Set one; `QUOTA=default` unsets it. Repeatable."
)
@click.option("--url", help=f"The server; {URL_VARIABLE} if not given.")
@click.option("--host-credential", help=f"The host credential; {HOST_CREDENTIAL_VARIABLE} if not given.")
@click.option("--json", "as_json", is_flag=True, help="The result as JSON.")
@speaking
def quotas_command(
    name: str, changes: tuple[str, ...], url: str | None, host_credential: str | None, as_json: bool
) -> None:
    """Shows the quotas in force for the deployment NAME of a host, or sets some of them, at once and for good."""
    asked = dict(map(quota_change, changes))
    server, place = server_for(name, url, None, host_credential)
    place += "/quotas"
    if asked:
        found = server.post(place, orjson.dumps(asked), {"Content-Type": "application/json"})
    else:
        found = server.get(place)
    current().done(found, _lines(found.get("inForce"), found.get("set")))


def quota_change(text: str) -> tuple[str, int | None]:
    """What an option of the form QUOTA=N sets. Raises: click.UsageError."""
    quota, equals, value = text.partition("=")
    if equals and value == "default":
        return quota.replace("-", "_"), None
    if not equals or not value.isascii() or not value.isdigit():
        raise click.UsageError(f"--set takes QUOTA=N or QUOTA=default, not {text!r}")
    return quota.replace("-", "_"), int(value)


def _lines(shown: Any, own: Any = None) -> str:
    """A line for each number; those that are set for the deployment alone are marked."""
    numbers = cast("dict[str, Any]", shown) if isinstance(shown, dict) else {}
    mine = cast("dict[str, Any]", own) if isinstance(own, dict) else {}
    return "\n".join(f"{name:<28} {value:>20,}" + ("  set" if name in mine else "") for name, value in numbers.items())
