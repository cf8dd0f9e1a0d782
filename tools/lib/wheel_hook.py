"""Puts the built JavaScript engine and its prelude into the wheel, so that an installed package compiles nothing.

Hatchling calls it (pyproject.toml, `tool.hatch.build.targets.wheel.hooks`). Both files come from `skerry.bundle`,
which keeps them in the checkout's cache under the digest of their inputs: the same checkout gives the same bytes.
"""

import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

INSIDE_THE_WHEEL = "skerry/bundle/_built"


class EngineHook(BuildHookInterface):
    """Adds `skerry/bundle/_built/` to a wheel; an editable install builds on first use instead."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        sys.path.insert(0, str(Path(self.root) / "host"))
        from skerry.bundle.engine_build import engine_wasm
        from skerry.bundle.prelude import prelude_script

        folder = Path(self.root) / ".cache" / "wheel"
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in {"engine.wasm": engine_wasm(), "prelude.js": prelude_script(print)}.items():
            (folder / name).write_bytes(content)
            build_data["force_include"][str(folder / name)] = f"{INSIDE_THE_WHEEL}/{name}"
