"""Options that several commands take."""

from pathlib import Path

import click

data_option = click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(".skerry"),
    show_default=True,
    help="The data folder.",
)
