"""What a transaction has read: document keys and index ranges, and the question whether writes touch them.

A `WriteIndex` gathers the keys that some commits touched, sorted by index, so that each range costs one binary
search no matter how many commits there were. A changed document touches its old and its new key in each of its
table's indexes, also where they are equal: whoever read the range read the document.
"""

from bisect import bisect_left
from collections.abc import Iterable

from skerry.database.scan import Range


class ReadSet:
    """Documents read by id (20-byte document keys) and index ranges `(index number, lower, upper)`."""

    __slots__ = ("documents", "ranges")

    def __init__(self, documents: set[bytes], ranges: list[Range]) -> None:
        self.documents = documents
        self.ranges = ranges

    def holds(self, number: int, key: bytes) -> bool:
        """Whether a key of an index lies in a range that was read."""
        return any(
            range_number == number and lower <= key and (upper is None or key < upper)
            for range_number, lower, upper in self.ranges
        )

    def touched_by(self, written: "WriteIndex") -> bool:
        """Whether any of the writes changed what was read."""
        if not self.documents.isdisjoint(written.documents):
            return True
        keys_of = written.sorted_keys()
        for number, lower, upper in self.ranges:
            keys = keys_of.get(number)
            if keys is not None:
                at = bisect_left(keys, lower)
                if at < len(keys) and (upper is None or keys[at] < upper):
                    return True
        return False


class WriteIndex:
    """The documents and index keys that some commits touched."""

    __slots__ = ("_keys", "_sorted", "documents")

    def __init__(self) -> None:
        self.documents: set[bytes] = set()
        self._keys: dict[int, list[bytes]] = {}
        self._sorted: dict[int, list[bytes]] | None = None

    def add(self, documents: Iterable[bytes], keys: Iterable[tuple[int, bytes]]) -> None:
        self.documents.update(documents)
        gathered = self._keys
        for number, key in keys:
            gathered.setdefault(number, []).append(key)
        self._sorted = None

    def sorted_keys(self) -> dict[int, list[bytes]]:
        if self._sorted is None:
            for keys in self._keys.values():
                keys.sort()
            self._sorted = self._keys
        return self._sorted
