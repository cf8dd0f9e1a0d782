"""A scan: the keys of an index range as a transaction sees them, lazily, in either direction.

Three sorted sources are merged: the storage snapshot, the overlay of commits that are not durable yet, and the
transaction's own writes. Storage is read in chunks; each chunk defines a stretch of the range, into which the marks
of the two layers are merged. A scan is *live*: `next_key` gives the first key behind the last one as the
transaction is now, so a write between two steps is seen exactly if it lies ahead. Only a change of this index's own
layer costs a new merge of the present chunk.

What was read is the part of the range up to the last key given out, or all of it once the end was reached.
"""

from typing import Final

from skerry.database.catalog import Index, Table
from skerry.database.overlay import IndexLayer, Overlay
from skerry.limits import SCAN_CHUNK_KEYS_FIRST, SCAN_CHUNK_KEYS_LONG, SCAN_CHUNK_KEYS_MAX
from skerry.storage import Charge, StorageSnapshot, Tree

Range = tuple[int, bytes, bytes | None]
"""An index range read: index number, first key, first key behind it (None for no end)."""

_TABLE_BYTES: Final = 4


class IndexScan:
    """A position in an index range."""

    __slots__ = (
        "_base",
        "_base_done",
        "_buffer",
        "_buffer_at",
        "_charge_transaction",
        "_chunk",
        "_documents_prefix",
        "_has_gathered",
        "_horizon",
        "_layers",
        "_overlay",
        "_snapshot",
        "_version",
        "after",
        "exhausted",
        "lower",
        "number",
        "reverse",
        "upper",
    )

    def __init__(
        self,
        snapshot: StorageSnapshot,
        overlay: Overlay | None,
        layers: dict[int, IndexLayer],
        table: Table,
        index: Index,
        lower: bytes,
        upper: bytes | None,
        reverse: bool,
        charge: Charge,
        first_chunk: int = SCAN_CHUNK_KEYS_FIRST,
    ) -> None:
        self._snapshot = snapshot
        self._charge_transaction = charge
        self._has_gathered = False
        self._overlay = None if overlay is None else overlay.indexes
        self._layers = layers
        self._documents_prefix = table.prefix if index is table.by_id else None
        self.number = index.number
        self.lower = lower
        self.upper = upper
        self.reverse = reverse
        self.after: bytes | None = None
        empty = upper is not None and lower >= upper
        self.exhausted = False
        self._base: list[bytes] = []
        self._base_done = empty
        self._horizon: bytes | None = None
        self._buffer: list[bytes] = []
        self._buffer_at = 0
        self._version = -1
        self._chunk = first_chunk

    def next_key(self) -> bytes | None:
        """The next key, or None at the end of the range."""
        layer = self._layers.get(self.number)
        if layer is not None and layer.version != self._version:
            self._version = layer.version
            if self.after is not None or self._horizon is not None:
                self._merge(self.after)
        if self._buffer_at >= len(self._buffer) and not self._refill():
            self.exhausted = True
            return None
        key = self._buffer[self._buffer_at]
        self._buffer_at += 1
        self.after = key
        return key

    def next_keys(self, count_max: int) -> list[bytes]:
        """At least one and at most this many of the next keys, as many as are at hand; none at the end of the range.

        Limits: the layers must not change before the keys are used.
        """
        key = self.next_key()
        if key is None:
            return []
        at = self._buffer_at
        rest = self._buffer[at : at + count_max - 1]
        if rest:
            self._buffer_at = at + len(rest)
            self.after = rest[-1]
        return [key, *rest]

    def read_range(self) -> Range:
        """The part of the range that has been read so far."""
        if self.exhausted:
            return (self.number, self.lower, self.upper)
        if self.after is None:
            return (self.number, self.lower, self.lower)
        if self.reverse:
            return (self.number, self.after, self.upper)
        return (self.number, self.lower, self.after + b"\0")

    def _refill(self) -> bool:
        """Fill the buffer from the next chunk that has a key; False at the end."""
        first = self._horizon is None and self.after is None and self._buffer_at == 0
        while first or not self._base_done:
            first = False
            start = self._horizon if self._horizon is not None else None
            if not self._base_done:
                self._fetch()
            self._merge(start)
            if self._buffer:
                return True
        return False

    def _fetch(self) -> None:
        """Read the next chunk of the snapshot."""
        lower, upper = self.lower, self.upper
        if self._horizon is not None:
            if self.reverse:
                upper = self._horizon
            else:
                lower = self._horizon + b"\0"
        count = self._chunk
        prefix = self._documents_prefix
        if prefix is None:
            keys = self._snapshot.scan_index_keys(self.number, lower, upper, self.reverse, count, self._charge)
        else:
            end = (int.from_bytes(prefix, "big") + 1).to_bytes(_TABLE_BYTES, "big") if upper is None else prefix + upper
            items = self._snapshot.scan_chunk(Tree.DOCUMENTS, prefix + lower, end, self.reverse, count)
            keys = [key[_TABLE_BYTES:] for key, _ in items]
        self._base = keys
        if len(keys) < count:
            self._base_done = True
        else:
            self._horizon = keys[-1]
            # Each chunk gathers its whole run of long keys anew, so a run is read in few large chunks.
            self._chunk = SCAN_CHUNK_KEYS_LONG if self._has_gathered else min(count * 4, SCAN_CHUNK_KEYS_MAX)

    def _charge(self, n_bytes: int) -> None:
        """Charge what storage gathers to bring keys with a long common prefix into order."""
        self._has_gathered = True
        self._charge_transaction(n_bytes)

    def _merge(self, start: bytes | None) -> None:
        """Make the buffer of what lies behind `start` in the stretch that the present chunk covers."""
        reverse = self.reverse
        base = self._base
        if start is not None and base:
            base = [key for key in base if (key < start if reverse else key > start)]
        own = self._layers.get(self.number)
        below = None if self._overlay is None else self._overlay.get(self.number)
        if own is not None or below is not None:
            lower, upper = self._stretch(start)
            marks: dict[bytes, int] = {}
            for layer in (below, own):
                if layer is not None and (upper is None or lower < upper):
                    entries = layer.entries
                    for key in layer.keys_between(lower, upper):
                        marks[key] = entries[key]
            if own is not None:
                self._version = own.version
            if marks:
                base = [key for key in base if key not in marks] + [key for key, mark in marks.items() if mark > 0]
                base.sort(reverse=reverse)
        self._buffer = base
        self._buffer_at = 0

    def _stretch(self, start: bytes | None) -> tuple[bytes, bytes | None]:
        """The bounds of the stretch between `start` and the end of the present chunk."""
        horizon = None if self._base_done else self._horizon
        if self.reverse:
            return (self.lower if horizon is None else horizon), (self.upper if start is None else start)
        return (
            self.lower if start is None else start + b"\0",
            self.upper if horizon is None else horizon + b"\0",
        )
