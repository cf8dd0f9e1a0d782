"""`skerry deployments`, `skerry keys`, `skerry rollback` and `skerry versions`: operating a host and what lies on it.

What operates the host takes its credential; what operates one deployment takes one of its keys. A key is shown by the
command that made it, and by no other.
"""

import time
from datetime import UTC, datetime
from typing import Any, Final, cast
from urllib.parse import quote

import click
import orjson

from skerry.cli.client import ADMIN_KEY_VARIABLE, HOST_CREDENTIAL_VARIABLE, URL_VARIABLE, Server, server_for
from skerry.cli.output import current, speaking

_JSON: Final = {"Content-Type": "application/json"}
_MS_PER_DAY: Final = 86_400_000
_ACTIONS: Final = ("create", "list", "pause", "resume", "delete")
_KEY_ACTIONS: Final = ("create", "list", "revoke")

Fields = dict[str, Any]


@click.command("deployments", short_help="Create, list, pause, resume or delete deployments of a host.")
@click.argument("action", type=click.Choice(_ACTIONS))
@click.argument("name", required=False)
@click.option("--url", help=f"The server; {URL_VARIABLE} if not given.")
@click.option("--host-credential", help=f"The host credential; {HOST_CREDENTIAL_VARIABLE} if not given.")
@click.option("--yes", is_flag=True, help="Delete without asking.")
@click.option("--json", "as_json", is_flag=True, help="The result as JSON.")
@speaking
def deployments_command(
    action: str, name: str | None, url: str | None, host_credential: str | None, yes: bool, as_json: bool
) -> None:
    """Does ACTION (create, list, pause, resume, delete) with the deployment NAME of a host, or with all (list)."""
    output = current()
    server = Server(url, None, host_credential)
    server.need_host_credential()
    if action == "list":
        listed = _dicts(server.get("/host/deployments").get("deployments"))
        lines = [f"{entry['name']:<32} {entry['state']:<9} created {_date(entry['createdMs'])}" for entry in listed]
        output.done({"deployments": listed}, "\n".join(lines))
        return
    if name is None:
        raise click.UsageError(f"`skerry deployments {action}` needs the NAME of a deployment")
    place = "/host/deployments/" + quote(name, safe="")
    if action == "create":
        made = server.post("/host/deployments", orjson.dumps({"name": name}), _JSON)
        text = f"created deployment {name}\n{new_deployment(server, name, made.get('adminKey'))}"
        output.done({**made, "url": server.url_of(name)}, text)
    elif action == "delete":
        if not yes and not as_json:
            click.confirm(f"Delete {name} with all of its data, code and keys?", abort=True, err=True)
        output.done(server.delete(place), f"deleted deployment {name}")
    else:
        changed = server.post(f"{place}/{action}", b"", _JSON)
        output.done(changed, f"deployment {name} is {changed.get('state')}")


@click.command("keys", short_help="Create, list or revoke the keys of a deployment.")
@click.argument("action", type=click.Choice(_KEY_ACTIONS))
@click.argument("key_id", metavar="[ID]", required=False)
@click.option("--scope", type=click.Choice(("deploy", "read", "admin")), help="What a new key is for.")
@click.option("--label", default="", help="A word to know a new key by.")
@click.option(
    "--days", type=click.FloatRange(min=0, min_open=True), help="How long a new key works; for ever if not given."
)
@click.option("--deployment", help="Which deployment, with the host credential; that of the admin key if not given.")
@click.option("--url", help=f"The server; {URL_VARIABLE} if not given.")
@click.option("--admin-key", help=f"An admin key of the deployment; {ADMIN_KEY_VARIABLE} if not given.")
@click.option("--host-credential", help=f"The host credential; {HOST_CREDENTIAL_VARIABLE} if not given.")
@click.option("--json", "as_json", is_flag=True, help="The result as JSON.")
@speaking
def keys_command(
    action: str,
    key_id: str | None,
    scope: str | None,
    label: str,
    days: float | None,
    deployment: str | None,
    url: str | None,
    admin_key: str | None,
    host_credential: str | None,
    as_json: bool,
) -> None:
    """Does ACTION (create, list, revoke) with keys of a deployment; revoke takes the ID that list shows."""
    output = current()
    server, place = server_for(deployment, url, admin_key, host_credential)
    place += "/keys"
    if action == "list":
        listed = _dicts(server.get(place).get("keys"))
        output.done({"keys": listed}, "\n".join(map(_key_line, listed)))
    elif action == "create":
        if scope is None:
            raise click.UsageError("a new key needs its --scope: deploy, read or admin")
        expires_ms = None if days is None else time.time_ns() // 1_000_000 + int(days * _MS_PER_DAY)
        fields = {"scope": scope, "label": label, "expiresMs": expires_ms}
        made = server.post(place, orjson.dumps(fields), _JSON)
        output.done(made, f"{made.get('key')}\n(key {made.get('id')}, scope {scope}; shown this once)")
    elif key_id is None:
        raise click.UsageError("`skerry keys revoke` needs the ID of a key; `skerry keys list` shows them")
    else:
        output.done(server.delete(f"{place}/{quote(key_id, safe='')}"), f"revoked key {key_id}")


@click.command("versions", short_help="List the versions that a deployment keeps.")
@click.option("--url", help=f"The server; {URL_VARIABLE} if not given.")
@click.option("--admin-key", help=f"A key of the deployment; {ADMIN_KEY_VARIABLE} if not given.")
@click.option("--json", "as_json", is_flag=True, help="The result as JSON.")
@speaking
def versions_command(url: str | None, admin_key: str | None, as_json: bool) -> None:
    """Lists the versions that can be gone back to, the live one first, then by when each was last live."""
    server = Server(url, admin_key)
    server.need_admin_key()
    listed = _dicts(server.get("/api/skerry/versions").get("versions"))
    lines = [
        f"{entry['version'][:16]}  {_date(entry['activatedMs'])}  {entry['functions']} functions"
        + ("  live" if entry["active"] else "")
        for entry in listed
    ]
    current().done({"versions": listed}, "\n".join(lines))


@click.command("rollback", short_help="Make a version live again that the server has kept.")
@click.argument("version", required=False)
@click.option("--url", help=f"The server; {URL_VARIABLE} if not given.")
@click.option("--admin-key", help=f"A key of the deployment; {ADMIN_KEY_VARIABLE} if not given.")
@click.option("--json", "as_json", is_flag=True, help="The result as JSON.")
@speaking
def rollback_command(version: str | None, url: str | None, admin_key: str | None, as_json: bool) -> None:
    """Makes VERSION (the beginning of its digest), or the version before the live one, live again."""
    server = Server(url, admin_key)
    server.need_admin_key()
    answer = server.post("/api/skerry/rollback", orjson.dumps({"version": version}), _JSON)
    current().done(answer, f"version {str(answer.get('version'))[:16]} is live on {server.url}")


def new_deployment(server: Server, name: str, key: Any) -> str:
    """What whoever made a deployment is told of it: where it is, and its key."""
    return f"  url        {server.url_of(name)}\n  admin key  {key}  (shown this once)"


def _dicts(value: Any) -> list[Fields]:
    return cast("list[Fields]", value) if isinstance(value, list) else []


def _key_line(entry: Fields) -> str:
    expires = entry["expiresMs"]
    until = "does not expire" if expires is None else f"until {_date(expires)}"
    return f"{entry['id']}  {entry['scope']:<6}  {until}  {entry['label']}".rstrip()


def _date(ms: Any) -> str:
    return datetime.fromtimestamp(int(ms) / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
