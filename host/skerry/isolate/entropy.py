"""The generator behind a call's randomness: the same bytes for the same seed, unpredictable without it.

SHAKE-256 over the seed and a block counter: a standard extendable-output function, so a replay years later on another
machine gives the same bytes. Seeds are secrets: a guest sees the stream, never the seed.
"""

import hashlib
from typing import Final

_BLOCK_BYTES: Final[int] = 512


class EntropyStream:
    """A stream of bytes from a seed of at least 16 bytes."""

    __slots__ = ("_block", "_left", "_seed")

    def __init__(self, seed: bytes) -> None:
        assert len(seed) >= 16, "a seed has at least 128 bits"
        self._seed = seed
        self._block = 0
        self._left = b""

    def take(self, length: int) -> bytes:
        """The next `length` bytes."""
        while len(self._left) < length:
            numbered = self._block.to_bytes(8, "little") + self._seed
            self._left += hashlib.shake_256(numbered).digest(max(_BLOCK_BYTES, length))
            self._block += 1
        taken, self._left = self._left[:length], self._left[length:]
        return taken
