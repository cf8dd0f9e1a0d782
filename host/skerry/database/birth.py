"""What new documents of one transaction get: internal ids and creation times, made from its seed and its time."""

from hashlib import blake2b
from math import inf, nextafter
from typing import Final

_RANDOM_BYTES: Final = 10
_BLOCK_BYTES: Final = 60
_SEED_BYTES_MAX: Final = 64


class Birth:
    """The source of internal ids and creation times; `last` is the newest creation time given out, else 0."""

    __slots__ = ("_blocks", "_left", "_now_ms", "_prefix", "_seed", "last")

    def __init__(self, now_ms: float, seed: bytes) -> None:
        self._now_ms = now_ms
        self._seed = seed[:_SEED_BYTES_MAX]
        self._prefix = b""
        self._blocks = 0
        self._left = b""
        self.last = 0.0

    def creation_time(self) -> float:
        """The transaction's time, and on each further call the next float64 after the last."""
        now = self.last = self._now_ms if self.last < self._now_ms else nextafter(self.last, inf)
        return now

    def internal_id(self) -> bytes:
        """6 bytes of time, so that new documents lie together on disk, and 10 bytes from the seed."""
        left = self._left
        if not left:
            if not self._blocks:
                self._prefix = int(self._now_ms).to_bytes(6, "big")
            left = blake2b(self._blocks.to_bytes(8, "big"), digest_size=_BLOCK_BYTES, key=self._seed).digest()
            self._blocks += 1
        self._left = left[_RANDOM_BYTES:]
        return self._prefix + left[:_RANDOM_BYTES]
