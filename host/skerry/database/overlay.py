"""Pending changes above a storage snapshot: ordered marks on index keys, and the documents that go with them.

Both a transaction's own writes and the writes of its predecessors that are not durable yet are layers of the same
kind; a read looks through them from the top. A mark is positive where the key was added, negative where it was
removed; the number is the timestamp of the commit in the overlay, and 1 in a transaction's own layer.

A layer sorts its keys only when it is scanned and keeps them sorted from then on, so that a transaction that never
scans what it writes never pays for order.
"""

from bisect import bisect_left, insort

from skerry.database.search_counts import Counts


class IndexLayer:
    """Marks on the keys of one index; `is_stored` is False for `by_id`, whose entries are the documents themselves."""

    __slots__ = ("entries", "is_stored", "order", "version")

    def __init__(self, is_stored: bool = True) -> None:
        self.is_stored = is_stored
        self.entries: dict[bytes, int] = {}
        self.order: list[bytes] | None = None
        self.version = 0

    def put(self, key: bytes, mark: int) -> None:
        entries = self.entries
        if self.order is not None and key not in entries:
            insort(self.order, key)
        entries[key] = mark
        self.version += 1

    def drop(self, key: bytes) -> None:
        """Forget a mark, so that what lies below shows again."""
        del self.entries[key]
        order = self.order
        if order is not None:
            del order[bisect_left(order, key)]
        self.version += 1

    def keys_between(self, lower: bytes, upper: bytes | None) -> list[bytes]:
        """The marked keys of `[lower, upper)`, ascending."""
        order = self.order
        if order is None:
            order = self.order = sorted(self.entries)
        return order[bisect_left(order, lower) : len(order) if upper is None else bisect_left(order, upper)]

    def copy(self) -> "IndexLayer":
        layer = IndexLayer(self.is_stored)
        layer.entries = self.entries.copy()
        return layer


class Overlay:
    """The writes of all commits that are not durable yet.

    Shape: `documents` maps a document key to the newest pending stored form, None where deleted; `indexes` maps an
    index number to its marks; `stamps` maps a document key to the commit that wrote it last; `counts` has the newest
    counts of the search indexes that any commit changed since storage was opened, durable or not: `clear` keeps them,
    because those of an index that is being built change beside commits.
    """

    __slots__ = ("counts", "documents", "indexes", "stamps")

    def __init__(self) -> None:
        self.documents: dict[bytes, bytes | None] = {}
        self.indexes: dict[int, IndexLayer] = {}
        self.stamps: dict[bytes, int] = {}
        self.counts: dict[int, Counts] = {}

    def copy(self) -> "Overlay":
        overlay = Overlay()
        overlay.documents = self.documents.copy()
        overlay.stamps = self.stamps.copy()
        overlay.counts = self.counts.copy()
        overlay.indexes = {number: layer.copy() for number, layer in self.indexes.items()}
        return overlay

    def clear(self) -> None:
        self.documents.clear()
        self.indexes.clear()
        self.stamps.clear()
