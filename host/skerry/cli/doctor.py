"""`skerry doctor`: what protects this host and what does not, line by line.

Exit code 0 where nothing is bad, 1 otherwise.
"""

import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Final

import click

from skerry import jail
from skerry.admin.checkup import Finding, Level, check_host
from skerry.cli.options import data_option
from skerry.cli.output import EXIT_FAILED, current, speaking
from skerry.errors import SkerryError
from skerry.supervisor.quarantine_file import load_quarantine, quarantine_file

_WATCHED: Final = ("wasmtime", "lmdb", "uvicorn", "cryptography")
_SECONDS_MAX: Final = 60
_MARKS: Final = {Level.OK: "ok  ", Level.NOTE: "note", Level.BAD: "BAD "}


@click.command("doctor", short_help="Say what protects this host and what does not.")
@data_option
@click.option("--online", is_flag=True, help="Ask the package index whether newer releases exist.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@speaking
def doctor_command(data: Path, online: bool, as_json: bool) -> None:
    """Checks the machine, the walls around compiling, and the data folder; changes nothing."""
    out = current()
    out.progress("Looking at the machine")
    findings = check_host(data.absolute())
    findings.append(_quarantined(data.absolute()))
    out.progress("Trying the walls of the jail")
    findings += _walls()
    if online:
        out.progress("Asking for newer releases")
        findings += [_release(name) for name in _WATCHED]
    bad = sum(finding.level is Level.BAD for finding in findings)
    width = max(len(finding.name) for finding in findings)
    lines = [f"{_MARKS[finding.level]}  {finding.name:<{width}}  {finding.says}" for finding in findings]
    lines.append(f"{len(findings)} checks, {bad} bad.")
    fields = {"bad": bad, "findings": [{"name": f.name, "level": f.level, "says": f.says} for f in findings]}
    out.done(fields, "\n".join(lines))
    if bad:
        sys.exit(EXIT_FAILED)


def _quarantined(data: Path) -> Finding:
    """Whether versions are kept from running because they crashed the server."""
    try:
        modules = load_quarantine(quarantine_file(data))
    except SkerryError as error:
        return Finding("quarantine", Level.BAD, error.message)
    except OSError as error:
        return Finding("quarantine", Level.NOTE, f"{quarantine_file(data)} cannot be read: {error.strerror}.")
    if not modules:
        return Finding("quarantine", Level.OK, "No version is quarantined.")
    named = ", ".join(sorted({module.deployment for module in modules}))
    return Finding(
        "quarantine",
        Level.NOTE,
        f"{len(modules)} versions crashed the server and are not run: of {named}. `skerry quarantine` lists and lifts.",
    )


def _walls() -> list[Finding]:
    """The walls around a process that compiles what strangers upload."""
    try:
        walls = jail.walls()
    except SkerryError as error:
        return [Finding("jail", Level.BAD, f"No process could be confined: {error.message}")]
    finally:
        jail.JAIL.close()
    return [Finding(f"jail: {wall.name}", Level.OK if wall.up else Level.BAD, wall.why) for wall in walls]


def _release(name: str) -> Finding:
    """Whether the package index has a newer release of a package than the one in use."""
    used = version(name)
    command = [sys.executable, "-m", "pip", "index", "versions", name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS_MAX, check=False)
    except subprocess.TimeoutExpired:
        return Finding(name, Level.NOTE, f"{used}; the package index did not answer.")
    found = re.search(r"Available versions: ([^,\s]+)", done.stdout)
    if found is None:
        return Finding(name, Level.NOTE, f"{used}; the package index could not be asked with pip.")
    if found[1] != used:
        return Finding(
            name, Level.NOTE, f"{used} is in use and {found[1]} is out: read what it fixes, then move the lock."
        )
    return Finding(name, Level.OK, f"{used} is the newest release.")
