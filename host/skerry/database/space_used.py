"""How much a deployment's data take and may take, as far as is known between two looks at the storage.

What is committed between two looks is added as if nothing of it replaced anything. What waits beside the storage, to be
written there later, counts as if it were there.

Concurrency: `is_full` any thread; everything else the loop thread.
"""

from skerry.database.usage import Usage


class SpaceUsed:
    """Units: bytes. Shape: `waiting_bytes` of `used_bytes` lie beside the storage; who put them there says so."""

    def __init__(self) -> None:
        self.used_bytes = 0
        self.waiting_bytes = 0
        self._most: int | None = None

    @property
    def is_full(self) -> bool:
        """Whether mutations that begin now cannot add to the data."""
        return self._most is not None and self.used_bytes >= self._most

    def looked_at(self, used_bytes: int, bytes_max: int | None) -> None:
        """Takes note of what the data take and may take (None: whatever the disk gives)."""
        self.used_bytes = used_bytes + self.waiting_bytes
        self._most = bytes_max

    def charge(self, n_bytes: int) -> None:
        """Counts what is about to be written beside transactions. Raises: DeveloperError `StorageQuotaReached`."""
        if self.is_full:
            Usage().grow(n_bytes)
        self.used_bytes += n_bytes
