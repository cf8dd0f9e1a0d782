"""Which transactions beside the lane are under way, and since which timestamp: commits after it stay known for them.

Concurrency: any thread.
"""

from threading import Lock


class DetachedMarks:
    """Shape: a mark is a number that `set` gives and `drop` forgets."""

    def __init__(self) -> None:
        self._since: dict[int, int] = {}
        self._count = 0
        self._lock = Lock()

    def set(self, timestamp: int) -> int:
        """The mark of a transaction that begins at the timestamp or later."""
        with self._lock:
            mark = self._count
            self._count += 1
            self._since[mark] = timestamp
        return mark

    def drop(self, mark: int) -> None:
        """Forgets a mark."""
        with self._lock:
            self._since.pop(mark, None)

    def oldest(self, otherwise: int) -> int:
        """The earliest timestamp that a transaction under way began at, `otherwise` where there is none."""
        with self._lock:
            return min(self._since.values(), default=otherwise)

    def __bool__(self) -> bool:
        return bool(self._since)
