"""The command line: `skerry <command>`. Each command is in a module of its own name."""

import sys
from collections.abc import Sequence

import click

from skerry import __version__
from skerry.cli.build import build_command, verify_command
from skerry.cli.deploy import deploy_command
from skerry.cli.deployments import deployments_command, keys_command, rollback_command, versions_command
from skerry.cli.dev import dev_command
from skerry.cli.doctor import doctor_command
from skerry.cli.output import EXIT_INTERRUPTED
from skerry.cli.run import run_command
from skerry.cli.serve import serve_command
from skerry.cli.shares import quotas_command, usage_command


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="skerry")
def cli() -> None:
    """A backend that runs your functions as WebAssembly over a transactional document database."""


for command in (
    dev_command,
    serve_command,
    build_command,
    verify_command,
    deploy_command,
    run_command,
    versions_command,
    rollback_command,
    deployments_command,
    quotas_command,
    usage_command,
    keys_command,
    doctor_command,
):
    cli.add_command(command)


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
