"""`skerry crons`: what a deployment runs again and again, when it ran last and when it runs next."""

from datetime import UTC, datetime
from typing import Any

import click

from skerry.cli.client import ADMIN_KEY_VARIABLE, URL_VARIABLE, Server
from skerry.cli.output import current, speaking

_MS_PER_S = 1_000


@click.command("crons", short_help="List the crons of a deployment with their last and next run.")
@click.option("--url", help=f"The server; {URL_VARIABLE} if not given.")
@click.option("--admin-key", help=f"A key of the deployment; {ADMIN_KEY_VARIABLE} if not given.")
@click.option("--json", "as_json", is_flag=True, help="The result as JSON.")
@speaking
def crons_command(url: str | None, admin_key: str | None, as_json: bool) -> None:
    """Lists what `crons.ts` of the live version declares. Times are in UTC."""
    server = Server(url, admin_key)
    server.need_admin_key()
    crons: list[dict[str, Any]] = server.get("/api/skerry/crons")["crons"]
    current().done({"crons": crons}, "\n".join(map(_line, crons)) or "no crons")


def _line(cron: dict[str, Any]) -> str:
    last = "has not run yet"
    if cron["lastState"] is not None and cron["lastTime"] is not None:
        last = f"{_moment(cron['lastTime'])} {cron['lastState']['kind']}"
    skipped = f"  ({int(cron['skipped'])} left out)" if cron["skipped"] else ""
    what = f"{cron['name']:<24} {cron['schedule']:<16} {cron['function']}"
    return f"{what}  last {last}  next {_moment(cron['nextTime'])}{skipped}"


def _moment(ms: float) -> str:
    return datetime.fromtimestamp(ms / _MS_PER_S, UTC).strftime("%Y-%m-%d %H:%M:%S")
