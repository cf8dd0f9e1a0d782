"""Types of an app, checked by the app's own TypeScript compiler when asked for: deploying never needs it."""

import subprocess
from pathlib import Path
from typing import Final

from skerry.bundle.node import find_node
from skerry.bundle.sources import find_sources
from skerry.errors import ClientError

TYPECHECK_SECONDS_MAX: Final = 300


def typecheck(app: Path) -> None:
    """Raises: ClientError `TypecheckFailed` with what the compiler said; as `find_sources`, `find_node`."""
    sources = find_sources(app)
    compiler = next(
        (
            folder / "node_modules/typescript/bin/tsc"
            for folder in (sources.root, *sources.root.parents)
            if (folder / "node_modules/typescript/bin/tsc").is_file()
        ),
        None,
    )
    if compiler is None:
        raise ClientError(
            "TypecheckFailed", f"{app} has no TypeScript compiler: run npm install --save-dev typescript."
        )
    project = sources.root / sources.functions_folder
    if not (project / "tsconfig.json").is_file():
        project = sources.root
    node = find_node(lambda _: None)
    command = [node.executable, str(compiler), "--noEmit", "--pretty", "false", "-p", str(project)]
    try:
        done = subprocess.run(command, cwd=sources.root, capture_output=True, text=True, timeout=TYPECHECK_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        raise ClientError("TypecheckFailed", f"The type check took longer than {TYPECHECK_SECONDS_MAX} s.") from None
    if done.returncode:
        raise ClientError("TypecheckFailed", f"The app has type errors:\n{(done.stdout + done.stderr).strip()}")
