"""Landlock without a single rule: this process, and every thread it starts later, opens no file at all.

From version 4 of the interface on it neither connects nor listens over TCP, from version 6 on it signals no process
and reaches no abstract socket outside of itself.

Source: the kernel's `Documentation/userspace-api/landlock.rst`.
"""

import ctypes
import os
from typing import Final

from skerry.jail import system

_CREATE_RULESET: Final = 444
_RESTRICT_SELF: Final = 446
_ASK_VERSION: Final = 1
_FILE_RIGHTS_BITS: Final[dict[int, int]] = {1: 13, 2: 14, 3: 15, 4: 15}  # and 16 from version 5 on
_FILE_RIGHTS_BITS_NOW: Final = 16
_VERSION_OF_TCP: Final = 4
_VERSION_OF_SCOPES: Final = 6


def close_everything() -> str:
    """Restricts the calling thread; needs "no new privileges". Returns what is closed. Raises: OSError."""
    version = system.raw(_CREATE_RULESET, None, ctypes.c_size_t(0), _ASK_VERSION)
    handled = [(1 << _FILE_RIGHTS_BITS.get(version, _FILE_RIGHTS_BITS_NOW)) - 1]
    closed = "files"
    if version >= _VERSION_OF_TCP:
        handled.append(0b11)
        closed += ", TCP"
    if version >= _VERSION_OF_SCOPES:
        handled.append(0b11)
        closed += ", signals, abstract sockets"
    attributes = (ctypes.c_uint64 * len(handled))(*handled)
    ruleset = system.raw(_CREATE_RULESET, attributes, ctypes.c_size_t(ctypes.sizeof(attributes)), 0)
    try:
        system.raw(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)
    return f"no way to {closed} (version {version})"
