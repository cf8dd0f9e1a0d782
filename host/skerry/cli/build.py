"""`skerry build` and `skerry verify`: an app as one file, and the proof that it is what its sources say."""

import os
import re
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from skerry.admin.keys import open_build_key
from skerry.bundle.build import InstantiateAt, build_app, verify_bundle
from skerry.bundle.bundle_file import Bundle
from skerry.bundle.esbuild import Bundler
from skerry.bundle.folders import cache_folder
from skerry.bundle.image import ImageBuilder
from skerry.cli.output import Output, current, speaking
from skerry.cli.typecheck import typecheck
from skerry.isolate import ModuleCache, get_engine
from skerry.isolate.build_runner import build_runner_at

APP = click.Path(path_type=Path, exists=True, file_okay=False)


def _clock_ms(_context: click.Context, _parameter: click.Parameter, value: str | None) -> int | None:
    """Milliseconds since the Unix epoch, from a number or an ISO date."""
    if value is None:
        return None
    if re.fullmatch(r"\d{1,15}", value):
        return int(value)
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise click.BadParameter(
            "give milliseconds since 1970 or an ISO date, for example 2026-01-31T12:00:00Z"
        ) from None
    moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    milliseconds = int(moment.timestamp() * 1000)
    if milliseconds < 0:
        raise click.BadParameter("the clock starts in 1970")
    return milliseconds


@click.command("build", short_help="Write APP as one file, a bundle.")
@click.argument("app", type=APP)
@click.option("-o", "--out", type=click.Path(path_type=Path, dir_okay=False), help="Where to write the bundle.")
@click.option("--clock", callback=_clock_ms, help="The time that modules see while they load; now if not given.")
@click.option("--typecheck", "check_types", is_flag=True, help="Run the app's own TypeScript compiler first.")
@click.option("--json", "as_json", is_flag=True, help="The result as JSON.")
@speaking
def build_command(app: Path, out: Path | None, clock: int | None, check_types: bool, as_json: bool) -> None:
    """Bundles the functions folder of APP, loads it once in the engine and writes the result as one file."""
    output = current()
    bundle = build_folder(app, output, check_types=check_types, clock_ms=clock)
    raw = bundle.to_bytes()
    path = out or Path(f"{app.resolve().name}.skerry")
    partial = path.with_name(f".{path.name}.{os.getpid()}.new")
    partial.write_bytes(raw)
    partial.replace(path)
    functions = len(bundle.manifest.functions)
    output.done(
        {"bundle": str(path), "digest": bundle.digest, "bytes": len(raw), **_content(bundle)},
        f"{path}: {functions} functions, {len(raw) / 1e6:.1f} MB, digest {bundle.digest[:16]}, "
        f"built in {output.seconds():.1f} s",
    )


@click.command("verify", short_help="Check that BUNDLE is what its sources say.")
@click.argument("bundle", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--json", "as_json", is_flag=True, help="The result as JSON.")
@speaking
def verify_command(bundle: Path, as_json: bool) -> None:
    """Rebuilds BUNDLE from the sources, clock and seed recorded in it and compares every byte."""
    output = current()
    verified = verify_bundle(bundle, instantiate_at=build_instances(), progress=output.progress)
    output.done(
        {"bundle": str(bundle), "digest": verified.digest, **_content(verified)},
        f"{bundle}: its {len(verified.sources())} sources give the same bytes again, digest {verified.digest[:16]}",
    )


def build_folder(
    app: Path,
    output: Output,
    *,
    check_types: bool = False,
    clock_ms: int | None = None,
    bundler: Bundler | None = None,
    instances: InstantiateAt | None = None,
    image_builder: ImageBuilder | None = None,
) -> Bundle:
    """The bundle of an app's folder. Raises: ClientError as `build_app`, `TypecheckFailed`."""
    if check_types:
        output.progress("checking types")
        typecheck(app)
    clock_ms = time.time_ns() // 1_000_000 if clock_ms is None else clock_ms
    instances = instances or build_instances()
    return build_app(
        app,
        clock_ms=clock_ms,
        instantiate_at=instances,
        progress=output.progress,
        bundler=bundler,
        image_builder=image_builder,
    )


def build_instances() -> InstantiateAt:
    """Instances for a build outside a server, their compiled code kept in the user's cache."""
    folder = cache_folder() / "compiled"
    return build_runner_at(ModuleCache(get_engine(), folder, open_build_key(folder, os.urandom)))


def _content(bundle: Bundle) -> dict[str, Any]:
    manifest = bundle.manifest
    return {"functions": manifest.functions, "clockMs": manifest.clock_ms, "seed": manifest.seed}
