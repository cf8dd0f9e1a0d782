"""Reading from LMDB: one read transaction as a snapshot.

The hot room of storage: a point read is one call into LMDB, a short scan is one cursor and a plain loop. Keys are taken
as they are stored until a long one turns up; only then does a scan go through `key_layout.logical_items`, which gathers
runs. What comes out are copies (bytes), so nothing points into the map once a call has returned.

Deliberately absent: caching, and any lock. A snapshot is used by one thread at a time; the engine ends it only while
it is not in use.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Any, Final, Protocol

import lmdb

from skerry.errors import SystemFault
from skerry.limits import STORAGE_LMDB_KEY_BYTES_MAX
from skerry.storage.environment import Home
from skerry.storage.interface import Charge, Item, Tree, index_end, index_prefix
from skerry.storage.key_layout import (
    LONG_BYTES,
    PREFIX_BYTES,
    logical_items,
    logical_value,
    physical_key,
    physical_lower,
    physical_upper,
)

_PAST_EVERY_KEY: Final = b"\xff" * (STORAGE_LMDB_KEY_BYTES_MAX + 1)


class ReadSource(Protocol):
    """What a snapshot needs of its engine."""

    def home(self) -> Home:
        """The environment to read, entered."""
        ...

    def forget(self, snapshot: "LmdbSnapshot") -> None:
        """Drop a closed snapshot from those that a reopening has to end."""
        ...


class LmdbSnapshot:
    """One durable state of an environment; see `StorageSnapshot`."""

    __slots__ = ("__weakref__", "_dbs", "_engine", "_home", "_txn")

    def __init__(self, engine: ReadSource) -> None:
        self._engine = engine
        self._home: Home | None = None
        self._begin()

    def __del__(self) -> None:
        # Whoever drops a snapshot without closing it must not keep the environment open.
        if getattr(self, "_home", None) is not None:
            self._end()

    def get(self, tree: Tree, key: bytes) -> bytes | None:
        try:
            if len(key) <= PREFIX_BYTES:
                return self._txn.get(key, None, self._dbs[tree])
            stored = self._txn.get(physical_key(key), None, self._dbs[tree])
            return None if stored is None else logical_value(key, stored)
        except lmdb.BadValsizeError:  # the empty key, which no tree holds
            return None
        except lmdb.Error as error:
            raise _read_fault(error) from error

    def scan(
        self, tree: Tree, lower: bytes, upper: bytes | None, reverse: bool, charge: Charge | None = None
    ) -> Iterator[Item]:
        try:
            pairs = self._pairs(tree, physical_lower(lower), physical_upper(upper), reverse)
            yield from logical_items(pairs, lower, upper, reverse, charge)
        except lmdb.Error as error:
            raise _read_fault(error) from error

    def scan_index(
        self, index_number: int, lower: bytes, upper: bytes | None, reverse: bool, charge: Charge | None = None
    ) -> Iterator[Item]:
        first, end = _index_bounds(index_number, lower, upper)
        for key, value in self.scan(Tree.INDEXES, first, end, reverse, charge):
            yield key[4:], value

    def scan_chunk(
        self, tree: Tree, lower: bytes, upper: bytes | None, reverse: bool, max_items: int, charge: Charge | None = None
    ) -> list[Item]:
        items: list[Item] = []
        append = items.append
        floor = physical_lower(lower)
        end = physical_upper(upper)
        stop = _PAST_EVERY_KEY if end is None else end
        is_long = len(lower) > PREFIX_BYTES
        try:
            for item in islice(self._pairs(tree, floor, end, reverse), max_items):
                key = item[0]
                if key >= stop or key < floor:
                    return items
                if len(key) == LONG_BYTES or is_long:
                    return self._chunk_with_runs(tree, lower, upper, reverse, max_items, charge)
                append(item)
        except lmdb.Error as error:
            raise _read_fault(error) from error
        return items

    def scan_index_keys(
        self,
        index_number: int,
        lower: bytes,
        upper: bytes | None,
        reverse: bool,
        max_items: int,
        charge: Charge | None = None,
    ) -> list[bytes]:
        first, end = _index_bounds(index_number, lower, upper)
        floor = physical_lower(first)
        stop = physical_upper(end)
        past = _PAST_EVERY_KEY if stop is None else stop
        is_long = len(first) > PREFIX_BYTES
        keys: list[bytes] = []
        append = keys.append
        try:
            for key in islice(self._keys(Tree.INDEXES, floor, stop, reverse), max_items):
                if key >= past or key < floor:
                    return keys
                if len(key) == LONG_BYTES or is_long:
                    items = self._chunk_with_runs(Tree.INDEXES, first, end, reverse, max_items, charge)
                    return [key[4:] for key, _ in items]
                append(key[4:])
        except lmdb.Error as error:
            raise _read_fault(error) from error
        return keys

    def renew(self) -> None:
        self._end()
        self._begin()

    def close(self) -> None:
        self._end()
        self._engine.forget(self)

    def end(self) -> None:
        """End the snapshot for a reopening of the environment; its next use raises SnapshotGone."""
        self._end()

    def _end(self) -> None:
        self._txn.abort()
        home, self._home = self._home, None
        if home is not None:
            home.leave()

    def _begin(self) -> None:
        home = self._engine.home()
        try:
            self._txn, self._dbs = home.env.begin(), home.dbs
        except lmdb.Error as error:
            home.leave()
            raise _read_fault(error) from error
        self._home = home

    def _pairs(self, tree: Tree, first: bytes, end: bytes | None, reverse: bool) -> Iterator[Item]:
        """Stored pairs from where a scan begins, without its other end."""
        cursor = self._cursor_at(tree, first, end, reverse)
        if cursor is None:
            return iter(())
        return cursor.iterprev(True, True) if reverse else cursor.iternext(True, True)

    def _keys(self, tree: Tree, first: bytes, end: bytes | None, reverse: bool) -> Iterator[bytes]:
        """As `_pairs`, the keys alone: a value costs LMDB's binding another step outside the global lock."""
        cursor = self._cursor_at(tree, first, end, reverse)
        if cursor is None:
            return iter(())
        return cursor.iterprev(True, False) if reverse else cursor.iternext(True, False)

    def _cursor_at(self, tree: Tree, first: bytes, end: bytes | None, reverse: bool) -> Any:
        """A cursor where a scan begins, None where it is known to be empty."""
        cursor = self._txn.cursor(self._dbs[tree])
        if not reverse:
            return cursor if cursor.set_range(first) else None
        if end is not None and cursor.set_range(end):
            return cursor if cursor.prev() else None
        return cursor if cursor.last() else None

    def _chunk_with_runs(
        self, tree: Tree, lower: bytes, upper: bytes | None, reverse: bool, max_items: int, charge: Charge | None
    ) -> list[Item]:
        return list(islice(self.scan(tree, lower, upper, reverse, charge), max_items))


def _index_bounds(index_number: int, lower: bytes, upper: bytes | None) -> tuple[bytes, bytes | None]:
    prefix = index_prefix(index_number)
    return prefix + lower, index_end(index_number) if upper is None else prefix + upper


def _read_fault(error: lmdb.Error) -> SystemFault:
    return SystemFault("SnapshotGone", f"The storage snapshot has ended ({type(error).__name__}); begin again.")
