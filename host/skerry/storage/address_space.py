"""The address space that the storage maps of one process may reserve together.

A map is reserved far larger than its file, which costs nothing but addresses; this account keeps many deployments
(and the guest memories beside them) from running a process out of them. Deliberately absent: disk space, which a
quota or the disk itself ends.
"""

import threading

from skerry.errors import SystemFault
from skerry.limits import STORAGE_ADDRESS_SPACE_BYTES_MAX


class AddressSpace:
    """A budget of bytes, shared by the engines of a process.

    Concurrency: any thread.
    """

    def __init__(self, bytes_max: int = STORAGE_ADDRESS_SPACE_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._bytes_used = 0
        self._lock = threading.Lock()

    @property
    def bytes_used(self) -> int:
        return self._bytes_used

    def reserve(self, n_bytes: int) -> None:
        """Take bytes from the budget.

        Raises: SystemFault StorageFull when they are not there.
        """
        with self._lock:
            if self._bytes_used + n_bytes > self._bytes_max:
                raise SystemFault("StorageFull", "The storage maps of this process are at their address space budget.")
            self._bytes_used += n_bytes

    def release(self, n_bytes: int) -> None:
        """Give bytes back."""
        with self._lock:
            assert n_bytes <= self._bytes_used
            self._bytes_used -= n_bytes


PROCESS_ADDRESS_SPACE = AddressSpace()
