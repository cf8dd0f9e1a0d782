"""How the command speaks: results on standard output, progress and mistakes on standard error, exit codes by kind.

With `--json` exactly one JSON object goes to standard output, whether the command succeeded (`{"ok": true, ...}`) or
not (`{"ok": false, "error": {"code", "message", "data"}}`). A mistake of the user never shows a stack trace.
"""

import functools
import sys
import time
from collections.abc import Callable
from typing import Any, Final, ParamSpec

import click
import orjson
from rich.console import Console
from rich.markup import escape
from rich.status import Status

from skerry.errors import ClientError, Family, SkerryError

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_SERVER: Final = 3
EXIT_BUSY: Final = 4
EXIT_INTERRUPTED: Final = 130
_BAR_CHARS: Final = 30

_EXIT_CODES: Final[dict[str, int]] = {
    "ServerUnreachable": EXIT_SERVER,
    "ServerAnswerInvalid": EXIT_SERVER,
    "AdminKeyMissing": EXIT_SERVER,
    "InvalidAdminKey": EXIT_SERVER,
    "BadAdminKey": EXIT_SERVER,
    "BadDeployKey": EXIT_SERVER,
    "HostCredentialMissing": EXIT_SERVER,
    "BadHostCredential": EXIT_SERVER,
    "KeyNotAllowed": EXIT_SERVER,
    "DataFolderInUse": EXIT_BUSY,
    "DataFolderFormat": EXIT_BUSY,
    "PortInUse": EXIT_BUSY,
    "WorkerUnstartable": EXIT_BUSY,
}

P = ParamSpec("P")


class Output:
    """What a command says, and how. Shape: `as_json` when standard output is for a program."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self._errors = Console(stderr=True, highlight=False, soft_wrap=True)
        self._status: Status | None = None
        self._told: tuple[str, int] | None = None
        self._started = time.monotonic()

    def progress(self, step: str) -> None:
        """Shows what is being done: a spinner where somebody watches, a line where it is a file."""
        if self._errors.is_terminal:
            if self._status is None:
                self._status = self._errors.status(escape(step))
                self._status.start()
            self._status.update(escape(step))
        else:
            self.note(step + " ...")

    def bar(self, step: str, done: int, total: int, said: str = "") -> None:
        """Shows how far a long step is: a bar where somebody watches, else a line for each tenth."""
        share = min(done / total, 1.0) if total else 0.0
        if self._errors.is_terminal:
            full = round(share * _BAR_CHARS)
            self.progress(f"{step} {'█' * full}{'░' * (_BAR_CHARS - full)} {share:4.0%}  {said}")
        elif self._told != (step, int(share * 10)):
            self._told = (step, int(share * 10))
            self.note(f"{step} {share:.0%}  {said}")

    def note(self, line: str) -> None:
        """One line beside the result."""
        self._errors.print(escape(line))

    def done(self, fields: dict[str, Any], text: str) -> None:
        """The result: `fields` for programs, `text` for people."""
        self.end_progress()
        line = orjson.dumps({"ok": True, **fields}).decode() if self.as_json else text
        print(line, flush=True)

    def failed(self, error: SkerryError, advice: str | None = None) -> None:
        """A failure: its sentence, then what to do about it."""
        self.end_progress()
        self._errors.print(f"[bold red]error[/]: {escape(error.message)}")
        self._errors.print(f"[dim]{escape(advice or error.spec.advice)} ({error.code})[/]")
        if self.as_json:
            described = {"code": error.code, "message": error.message, "data": error.data}
            print(orjson.dumps({"ok": False, "error": described}, default=str).decode(), flush=True)

    def end_progress(self) -> None:
        """Takes the spinner away."""
        if self._status is not None:
            self._status.stop()
            self._status = None

    def seconds(self) -> float:
        """Since the command began."""
        return time.monotonic() - self._started


def exit_code(error: SkerryError) -> int:
    """The exit code for an error that ended a command."""
    return _EXIT_CODES.get(error.code, EXIT_FAILED)


def speaking(command: Callable[P, None]) -> Callable[P, None]:
    """A command that turns what it raises into words and an exit code. It takes `as_json`, or speaks to people."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        out = Output(bool(kwargs.get("as_json")))
        click.get_current_context().obj = out
        try:
            command(*args, **kwargs)
        except SkerryError as error:
            out.failed(error)
            if error.spec.family is Family.SYSTEM and error.code == "InternalServerError":
                raise
            sys.exit(exit_code(error))
        except KeyboardInterrupt:
            out.end_progress()
            sys.exit(EXIT_INTERRUPTED)
        except OSError as error:
            named = f"{error.filename}: {error.strerror}" if error.filename else str(error)
            out.failed(ClientError("FileUnusable", f"{named}."))
            sys.exit(EXIT_FAILED)
        finally:
            out.end_progress()

    return wrapped


def counted(number: int, thing: str) -> str:
    """So many things, in words: `1 document`, `2,000 documents`."""
    return f"{number:,} {thing}" + ("" if number == 1 else "s")


def current() -> Output:
    """The output of the command that runs."""
    out: Any = click.get_current_context().obj
    assert isinstance(out, Output)
    return out
