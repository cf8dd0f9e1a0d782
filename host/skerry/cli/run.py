"""`skerry run`: one call of one function, with the value on standard output and log lines beside it."""

import sys
from typing import Any
from urllib.parse import quote

import click
import orjson

from skerry.cli.client import ADMIN_KEY_VARIABLE, URL_VARIABLE, Server
from skerry.cli.output import EXIT_FAILED, current, speaking

_HEADERS = {"Content-Type": "application/json"}


@click.command("run", short_help="Call one function and print its result.")
@click.argument("function")
@click.argument("args", default="{}")
@click.option("--url", help=f"The server; {URL_VARIABLE} if not given.")
@click.option("--admin-key", help=f"The admin key; {ADMIN_KEY_VARIABLE} if not given.")
@click.option("--json", "as_json", is_flag=True, help="The whole answer as JSON.")
@speaking
def run_command(function: str, args: str, url: str | None, admin_key: str | None, as_json: bool) -> None:
    """Calls FUNCTION (messages:list) with ARGS, a JSON object, and prints the result.

    With the admin key it may call internal functions; without one, public functions only.
    """
    output = current()
    server = Server(url, admin_key)
    fields: dict[str, Any] = {"args": _parsed(args), "format": "convex_encoded_json"}
    if server.admin_key is not None:
        fields["path"] = function
        answer = server.post("/api/function", orjson.dumps(fields), _HEADERS)
    else:
        answer = server.post(_public_route(function), orjson.dumps(fields), _HEADERS)
    failed = answer.get("status") != "success"
    if as_json:
        print(orjson.dumps({"ok": not failed, **answer}).decode())
    else:
        for line in answer.get("logLines", ()):
            output.note(str(line))
        if failed:
            output.note(str(answer.get("errorMessage", "")).rstrip())
            if answer.get("errorData") is not None:
                output.note("data: " + _pretty(answer["errorData"]))
        else:
            print(_pretty(answer.get("value")))
    if failed:
        sys.exit(EXIT_FAILED)


def _parsed(args: str) -> dict[str, Any]:
    try:
        parsed: Any = orjson.loads(args)
    except (ValueError, UnicodeEncodeError) as error:
        raise click.UsageError(
            f"""ARGS is not JSON ({error}); quote it for the shell: '{{"name": "value"}}'"""
        ) from None
    if not isinstance(parsed, dict):
        raise click.UsageError("""ARGS is a JSON object of the function's arguments, for example '{"limit": 10}'""")
    return parsed  # pyright: ignore[reportUnknownVariableType]  # JSON: any object will do


def _public_route(function: str) -> str:
    module, _, name = function.partition(":")
    module = module.removesuffix(".js")
    return "/api/run/" + "/".join(quote(part, safe="") for part in [*module.split("/"), name or "default"])


def _pretty(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()
