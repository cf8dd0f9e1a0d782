"""The command line of the benches: `tools/bench [all|database|micro|http|live|mixed|noisy|search|start|vectors]`."""

import secrets
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import click

from bench.apps import bench_folder
from bench.database_bench import run_database
from bench.effort import EFFORTS, Effort
from bench.http_bench import run_http
from bench.live_bench import run_live
from bench.micro_bench import run_micro
from bench.mixed_bench import run_mixed
from bench.noisy_bench import run_noisy
from bench.report import Section, machine, machine_line, write_json
from bench.search_bench import run_search
from bench.serve_app import serve_app
from bench.start_bench import run_start
from skerry.vectors.lazily import keep_single_threaded

Bench = Callable[[Path, Effort, int], list[Section]]


def run_vectors(folder: Path, effort: Effort, seed: int) -> list[Section]:
    """The bench of vectors, whose packages are loaded as a server loads them."""
    keep_single_threaded()
    from bench.vector_bench import run_vectors

    return run_vectors(folder, effort, seed)


_BENCHES: dict[str, Bench] = {
    "database": run_database,
    "micro": run_micro,
    "http": run_http,
    "live": run_live,
    "mixed": run_mixed,
    "noisy": run_noisy,
    "search": run_search,
    "start": run_start,
    "vectors": run_vectors,
}


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Measures Skerry on this machine, and prints what it finds beside the targets."""


def _command(name: str, benches: dict[str, Bench], text: str) -> None:
    @cli.command(name, help=text)
    @click.option(
        "--quick", is_flag=True, help="About a minute in all: fewer repetitions, less data. The same as --effort quick."
    )
    @click.option("--effort", "effort_name", type=click.Choice(list(EFFORTS)), default="full", show_default=True)
    @click.option("--seed", type=int, help="Of the load's choices; drawn and printed if not given.")
    @click.option(
        "--json",
        "json_path",
        type=click.Path(path_type=Path, dir_okay=False),
        help="Write everything there as JSON too.",
    )
    @click.option(
        "--scratch",
        type=click.Path(path_type=Path, file_okay=False),
        help="Where data folders are made; removed afterwards.",
    )
    def command(quick: bool, effort_name: str, seed: int | None, json_path: Path | None, scratch: Path | None) -> None:
        chosen = secrets.randbelow(2**31) if seed is None else seed
        _run(benches, EFFORTS["quick" if quick else effort_name], chosen, json_path, scratch)


def _run(benches: dict[str, Bench], effort: Effort, seed: int, json_path: Path | None, scratch: Path | None) -> None:
    sections: list[Section] = []
    with tempfile.TemporaryDirectory(prefix="data-", dir=scratch or bench_folder()) as temporary:
        folder = Path(temporary)
        facts = machine(folder)
        click.echo(f"{machine_line(facts)}\n\nSeed {seed}, effort {effort.name}.\n")
        for name, bench in benches.items():
            print(f"measuring: {name}", file=sys.stderr, flush=True)
            for section in bench(folder, effort, seed):
                click.echo(section.markdown() + "\n")
                sections.append(section)
    if json_path is not None:
        write_json(json_path, facts, seed, effort.name, sections)


_command("all", _BENCHES, "Everything below.")
_command("database", {"database": run_database}, "Documents: growth, storage, imports, backfill, and calls beside.")
_command("micro", {"micro": run_micro}, "One call inside the process, and where each microsecond goes.")
_command("http", {"http": run_http}, "Throughput of a server under load, and whether its books balance.")
_command("live", {"live": run_live}, "How soon subscribers hear of a commit, and what they cost.")
_command("mixed", {"mixed": run_mixed}, "How quick small calls stay while a mutation of a second runs.")
_command("noisy", {"noisy": run_noisy}, "What a deployment notices of a neighbour that does its worst.")
_command("search", {"search": run_search}, "What searches read and take among more and more messages.")
_command("start", {"start": run_start}, "Idle memory, first answers, build and redeploy.")
_command("vectors", {"vectors": run_vectors}, "What vector searches take and find, and what vectors take.")


@cli.command("serve")
@click.option("--port", type=click.IntRange(1, 65535), required=True)
@click.option(
    "--data", type=click.Path(path_type=Path, file_okay=False), required=True, help="The data folder, made if missing."
)
def serve_command(port: int, data: Path) -> None:
    """Serves the bench app, deployed before the port answers, for other load generators."""
    serve_app(data, port)


if __name__ == "__main__":
    cli(prog_name="tools/bench")
