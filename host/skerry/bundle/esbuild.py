"""The bundler: an app's modules as one script, made by esbuild in a Node process of ours.

One process serves any number of builds (guest_sdk/javascript/toolchain/bundler.mjs); a watching command keeps it, and
a rebuild then parses only what changed. The script depends on the sources, the pinned packages and the options alone,
never on where folders lie.

Concurrency: a `Bundler` belongs to one thread at a time; `bundle` blocks until the answer is there.
"""

import contextlib
import os
import select
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, cast

import orjson

from skerry.bundle.folders import guest_sdk_folder
from skerry.bundle.node import Progress, node_environment, tool_packages
from skerry.bundle.sources import AppSources
from skerry.errors import ClientError, SystemFault
from skerry.limits import BUNDLER_ANSWER_BYTES_MAX, DIAGNOSTICS_SHOWN_MAX, SOURCE_LINE_CHARS_MAX

BUNDLER_ANSWER_SECONDS_MAX: Final = 120.0
_READ_BYTES: Final = 1 << 20
_CLOSE_SECONDS_MAX: Final = 2.0


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One message of the compiler. Shape: `file` relative to the app (None where there is none), `line` from 1,
    `column` from 0.
    """

    text: str
    file: str | None = None
    line: int = 0
    column: int = 0
    source_line: str = ""
    notes: tuple[str, ...] = ()

    def render(self) -> str:
        """The message as people read it: place, text, the line and a caret under the column."""
        place = f"{self.file}:{self.line}:{self.column + 1}: " if self.file else ""
        lines = [f"{place}{self.text}"]
        # A line longer than that is generated code: showing it helps nobody.
        if 0 < len(self.source_line) <= SOURCE_LINE_CHARS_MAX:
            lines += [f"    {self.source_line}", "    " + " " * self.column + "^"]
        return "\n".join([*lines, *(f"    note: {note}" for note in self.notes)])

    def to_json(self) -> dict[str, Any]:
        return {
            "text": self.text,
            "file": self.file,
            "line": self.line,
            "column": self.column,
            "sourceLine": self.source_line,
            "notes": list(self.notes),
        }


class CompileError(ClientError):
    """Raised where the app's code does not compile; `data` is the list of diagnostics as JSON."""

    def __init__(self, diagnostics: tuple[Diagnostic, ...]) -> None:
        shown = [diagnostic.render() for diagnostic in diagnostics[:DIAGNOSTICS_SHOWN_MAX]]
        if len(diagnostics) > len(shown):
            shown.append(f"... and {len(diagnostics) - len(shown)} more")
        super().__init__("CompileFailed", "\n".join(shown), [diagnostic.to_json() for diagnostic in diagnostics])
        self.diagnostics = diagnostics


@dataclass(frozen=True, slots=True)
class Script:
    """A bundled app: the script, its source map, every source that went in (`app/...`, `up1/...`, `tools/...`) and
    what imports led to.
    """

    text: str
    source_map: str
    sources: Mapping[str, str]
    resolutions: Mapping[str, str]
    warnings: tuple[Diagnostic, ...] = field(default=())


class Bundler:
    """A bundler process, started at the first build and again if it has ended."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._process: subprocess.Popen[bytes] | None = None
        self._packages = Path()

    def bundle(
        self, sources: AppSources, *, packages: Path | None = None, resolutions: Mapping[str, str] | None = None
    ) -> Script:
        """The app as one script.

        `packages` and `resolutions` repeat an earlier build: where the pinned packages were, and what each bare
        import led to.
        Raises: CompileError; ClientError `NodeNotFound`, `NpmInstallFailed`; SystemFault `BundlerFailed`.
        """
        process = self._running()
        answer = self._ask(
            process,
            {
                "root": str(sources.root),
                "entries": [{"name": entry.name, "path": entry.path} for entry in sources.entries],
                "node": list(sources.node_modules),
                # Real paths on both sides: the bundler follows links.
                "packages": os.path.realpath(packages or self._packages / "node_modules"),
                "resolutions": None if resolutions is None else dict(resolutions),
            },
        )
        if "errors" in answer:
            raise CompileError(tuple(_diagnostic(item) for item in answer["errors"]))
        return Script(
            text=answer["script"],
            source_map=answer["map"],
            sources=answer["sources"],
            resolutions=answer["resolutions"],
            warnings=tuple(_diagnostic(item) for item in answer["warnings"]),
        )

    def close(self) -> None:
        """Ends the process, if there is one."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None and process.stdout is not None
        with contextlib.suppress(OSError):
            process.stdin.close()
        try:
            process.wait(_CLOSE_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()

    def __enter__(self) -> "Bundler":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        self.close()
        node, self._packages = tool_packages(self._progress)
        script = guest_sdk_folder() / "javascript" / "toolchain" / "bundler.mjs"
        self._process = subprocess.Popen(
            [node.executable, str(script), str(self._packages)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=node_environment(),
        )
        return self._process

    def _ask(self, process: subprocess.Popen[bytes], request: dict[str, Any]) -> dict[str, Any]:
        assert process.stdin is not None
        try:
            process.stdin.write(orjson.dumps(request) + b"\n")
            process.stdin.flush()
            line = self._read_line(process)
            return cast("dict[str, Any]", orjson.loads(line))
        except (OSError, EOFError, orjson.JSONDecodeError) as error:
            process.kill()
            self.close()
            raise SystemFault(
                "BundlerFailed", f"The bundler process failed ({error or type(error).__name__}): build again."
            ) from error

    def _read_line(self, process: subprocess.Popen[bytes]) -> bytes:
        assert process.stdout is not None
        descriptor = process.stdout.fileno()
        parts: list[bytes] = []
        size = 0
        while not parts or not parts[-1].endswith(b"\n"):
            ready, _, _ = select.select([descriptor], [], [], BUNDLER_ANSWER_SECONDS_MAX)
            if not ready:
                raise EOFError(f"no answer within {BUNDLER_ANSWER_SECONDS_MAX:.0f} s")
            part = os.read(descriptor, _READ_BYTES)
            size += len(part)
            if not part:
                raise EOFError("it ended")
            if size > BUNDLER_ANSWER_BYTES_MAX:
                raise EOFError("the app is too large to bundle")
            parts.append(part)
        return b"".join(parts)


def _diagnostic(item: Mapping[str, Any]) -> Diagnostic:
    return Diagnostic(
        text=item["text"],
        file=item.get("file"),
        line=item.get("line", 0),
        column=item.get("column", 0),
        source_line=item.get("source_line", ""),
        notes=tuple(item.get("notes", ())),
    )
