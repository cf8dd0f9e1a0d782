"""Where the build finds its own files: the guest SDK that it ships with, and the cache that survives between runs.

The cache holds only what can be made again (tool packages, engines, base images); deleting it costs time, never data.
"""

import os
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent.parent


def guest_sdk_folder() -> Path:
    """The folder `guest_sdk`: beside `host/` in a checkout, inside the package in a wheel."""
    for candidate in (_PACKAGE / "guest_sdk", _PACKAGE.parent.parent / "guest_sdk"):
        if (candidate / "ABI.md").is_file():
            return candidate
    raise FileNotFoundError(f"guest_sdk is neither in {_PACKAGE} nor beside it: the installation is incomplete.")


def cache_folder() -> Path:
    """The folder of derived files, not created here.

    SKERRY_CACHE_DIR names it; else it is `.cache/skerry` of a checkout, else `skerry` in the user's cache folder.
    """
    chosen = os.environ.get("SKERRY_CACHE_DIR")
    if chosen:
        return Path(chosen).resolve()
    checkout = _PACKAGE.parent.parent
    if (checkout / "guest_sdk" / "ABI.md").is_file():
        return checkout / ".cache" / "skerry"
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "skerry"
