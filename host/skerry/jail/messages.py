"""What parent and child say to each other over the jail's pipes: lists of byte strings with their lengths in front.

Neither side believes the other's lengths: a reader is told how much it may take in all.
"""

import struct
from collections.abc import Callable, Sequence
from typing import Final

PARTS_MAX: Final = 64
DONE: Final = b"done"  # the first part of an answer; the result follows
REFUSED: Final = b"refused"  # likewise; the job's error as JSON follows
_HEAD: Final = struct.Struct("<I")
_LENGTH: Final = struct.Struct("<Q")


class MessageInvalid(Exception):
    """What arrived is no message within the bounds, or its sender ended in the middle of it."""


def encode(parts: Sequence[bytes]) -> list[bytes]:
    """The message as chunks to be written one after another."""
    assert len(parts) <= PARTS_MAX
    return [_HEAD.pack(len(parts)) + b"".join(_LENGTH.pack(len(part)) for part in parts), *parts]


def decode(read_exactly: Callable[[int], bytes], bytes_max: int) -> list[bytes]:
    """The next message. Raises: MessageInvalid; what `read_exactly` raises."""
    (count,) = _HEAD.unpack(read_exactly(_HEAD.size))
    if count > PARTS_MAX:
        raise MessageInvalid(f"it has {count} parts")
    table = read_exactly(_LENGTH.size * count)
    lengths = [length for (length,) in _LENGTH.iter_unpack(table)]
    if sum(lengths) > bytes_max:
        raise MessageInvalid(f"it has {sum(lengths)} bytes")
    return [read_exactly(length) for length in lengths]
