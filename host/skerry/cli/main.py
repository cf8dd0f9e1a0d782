"""The command line: `skerry <command>`. Each command is in a module of its own name."""

import importlib
import sys
from collections.abc import Sequence
from typing import Final

import click

from skerry import __version__
from skerry.cli.output import EXIT_INTERRUPTED

# Where each command is. A command's module is loaded when it is used: `serve` is a process that must stay small.
_COMMANDS: Final = {
    "dev": "dev:dev_command",
    "serve": "serve:serve_command",
    "build": "build:build_command",
    "verify": "build:verify_command",
    "deploy": "deploy:deploy_command",
    "run": "run:run_command",
    "import": "transfer:import_command",
    "export": "transfer:export_command",
    "versions": "deployments:versions_command",
    "crons": "crons:crons_command",
    "rollback": "deployments:rollback_command",
    "deployments": "deployments:deployments_command",
    "quotas": "shares:quotas_command",
    "usage": "shares:usage_command",
    "keys": "deployments:keys_command",
    "admin": "backups:admin_command",
    "doctor": "doctor:doctor_command",
    "quarantine": "quarantine:quarantine_command",
}


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        where = _COMMANDS.get(cmd_name)
        if where is None:
            return None
        module, _, name = where.partition(":")
        command = getattr(importlib.import_module(f"skerry.cli.{module}"), name)
        assert isinstance(command, click.Command)
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="skerry")
def cli() -> None:
    """A backend that runs your functions as WebAssembly over a transactional document database."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; the exit code."""
    try:
        code = cli.main(arguments, prog_name="skerry", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 1
    return code if isinstance(code, int) else 0


if __name__ == "__main__":
    sys.exit(main())
