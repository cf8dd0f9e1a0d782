"""How much memory the copies of vectors take: of one deployment, and of the process.

A copy asks before it grows. One that finds its deployment's share used up is too large; one that finds the process's
used up takes the place of a copy that nobody has searched for `VECTOR_IDLE_SECONDS`, which is made anew when somebody
asks for it again.

Concurrency: any thread.
"""

import threading
import time
from collections.abc import Callable
from typing import Final, Protocol

from skerry.errors import DeveloperError, SkerryError, SystemFault
from skerry.limits import MIB, VECTOR_DEPLOYMENT_BYTES_MAX, VECTOR_HOST_BYTES_MAX, VECTOR_IDLE_SECONDS


class Evictable(Protocol):
    """A copy whose memory can be taken."""

    asked_at: float

    def evict(self) -> bool:
        """Give all memory back, where that needs no waiting; whoever searches hears that the copy is gone."""
        ...


class VectorMemory:
    """What a process's copies take. Shape: `seconds` is a clock that only goes forward."""

    def __init__(
        self, *, bytes_max: int = VECTOR_HOST_BYTES_MAX, seconds: Callable[[], float] = time.monotonic
    ) -> None:
        self._bytes_max = bytes_max
        self.seconds = seconds
        self._lock = threading.Lock()
        self.used = 0
        self._copies: set[Evictable] = set()

    def enter(self, copy: Evictable) -> None:
        """From now on the copy may be evicted."""
        with self._lock:
            self._copies.add(copy)

    def leave(self, copy: Evictable) -> None:
        with self._lock:
            self._copies.discard(copy)

    def take(self, size: int, asking: Evictable) -> bool:
        """Count so many more bytes, where there are as many; copies that nobody uses make room."""
        tried: set[Evictable] = {asking}
        while True:
            with self._lock:
                if self.used + size <= self._bytes_max:
                    self.used += size
                    return True
                idle = [copy for copy in self._copies - tried if self._is_idle(copy)]
            if not idle:
                return False
            victim = min(idle, key=lambda copy: copy.asked_at)
            tried.add(victim)
            victim.evict()

    def give(self, size: int) -> None:
        with self._lock:
            self.used -= size

    def _is_idle(self, copy: Evictable) -> bool:
        return self.seconds() - copy.asked_at >= VECTOR_IDLE_SECONDS


class Share:
    """A deployment's part of it. Concurrency: its copies may ask on any thread."""

    def __init__(self, memory: VectorMemory, *, bytes_max: int = VECTOR_DEPLOYMENT_BYTES_MAX) -> None:
        self.memory = memory
        self._bytes_max = bytes_max
        self._lock = threading.Lock()
        self.used = 0

    def refusal(self, size: int, asking: Evictable) -> SkerryError | None:
        """Counts so many more bytes, or says why not."""
        with self._lock:
            if self.used + size > self._bytes_max:
                return DeveloperError(
                    "VectorIndexTooLarge",
                    f"The vector indexes of a deployment may take {self._bytes_max // MIB} MiB of memory and would "
                    "take more: use fewer dimensions, fewer vectors or fewer vector indexes.",
                )
            self.used += size
        if self.memory.take(size, asking):
            return None
        with self._lock:
            self.used -= size
        return SystemFault(
            "VectorIndexesUnavailable",
            "The server has no memory left for this vector index. Try again later, or give the server more.",
        )

    def give(self, size: int) -> None:
        with self._lock:
            self.used -= size
        self.memory.give(size)


_memory: Final = VectorMemory()


def get_vector_memory() -> VectorMemory:
    """The process's memory for vectors."""
    return _memory
