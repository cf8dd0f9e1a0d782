"""The file that remembers which modules are quarantined, so that a supervisor that ends forgets none of them.

One JSON object, replaced whole: `{"format": 1, "modules": [[deployment, digest], ...]}`. Only the supervisor writes it.
"""

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, cast

from skerry.errors import SystemFault
from skerry.limits import DEPLOYMENT_NAME_CHARS_MAX, QUARANTINED_MODULES_MAX
from skerry.supervisor.crash_page import RunningModule

_FORMAT: Final = 1
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


def quarantine_file(data: Path) -> Path:
    """Where it lies in a data folder."""
    return data / "host" / "quarantine.json"


def load_quarantine(path: Path) -> list[RunningModule]:
    """The modules in the file, oldest first; none where there is no file.

    Raises: SystemFault `DataFolderFormat`. Limits: QUARANTINED_MODULES_MAX.
    """
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return []
    try:
        parsed: Any = json.loads(text)
        if parsed["format"] != _FORMAT:
            raise ValueError
        modules = [RunningModule(*map(_text, entry)) for entry in cast("list[Any]", parsed["modules"])]
        if not all(_DIGEST.fullmatch(module.digest) and module.deployment for module in modules):
            raise ValueError
    except (ValueError, KeyError, TypeError):
        raise SystemFault(
            "DataFolderFormat",
            f"{path} cannot be read: it says which versions crashed the server. Remove it, and they run again.",
        ) from None
    return modules[-QUARANTINED_MODULES_MAX:]


def save_quarantine(path: Path, modules: Sequence[RunningModule]) -> None:
    """Replaces the file, durably. Raises: OSError, and the file is as it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(json.dumps({"format": _FORMAT, "modules": modules}).encode())
        file.flush()
        os.fsync(descriptor)
    new.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > DEPLOYMENT_NAME_CHARS_MAX + 1:
        raise ValueError
    return value
