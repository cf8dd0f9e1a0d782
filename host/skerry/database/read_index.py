"""Which read sets a commit touches: those of live queries and of kept answers, indexed by document and by range.

A range that several queries read is kept once, so that finding those that a key touches costs the logarithm of the
number of different ranges in its index, and what it finds.
"""

from collections.abc import Iterable
from typing import Any, Generic, Protocol, TypeVar, cast

import intervaltree

from skerry.database.commit_log import CommitRecord
from skerry.database.read_set import ReadSet
from skerry.database.scan import Range

Reader = TypeVar("Reader")
_BEHIND_EVERY_KEY = b"\xff" * 64


class _Tree(Protocol):
    """Of the library's tree of intervals, which says nothing of types, what is used here."""

    def addi(self, begin: bytes, end: bytes, data: Range) -> None: ...
    def removei(self, begin: bytes, end: bytes, data: Range) -> None: ...
    def at(self, p: bytes) -> Iterable[Any]: ...
    def is_empty(self) -> bool: ...


def _new_tree() -> _Tree:
    return cast("_Tree", cast("Any", intervaltree).IntervalTree())


class ReadIndex(Generic[Reader]):
    """The read sets of `Reader`s, which are compared by identity."""

    def __init__(self) -> None:
        self._documents: dict[bytes, set[Reader]] = {}
        self._readers: dict[Range, set[Reader]] = {}
        self._trees: dict[int, _Tree] = {}
        self._read: dict[Reader, ReadSet] = {}

    def put(self, reader: Reader, read: ReadSet) -> None:
        """Makes this the reader's read set; what it had before is forgotten."""
        before = self._read.get(reader)
        if before is not None:
            if before.documents == read.documents and before.ranges == read.ranges:
                return
            self.drop(reader)
        self._read[reader] = read
        for key in read.documents:
            self._documents.setdefault(key, set()).add(reader)
        for given in read.ranges:
            number, lower, upper = given
            if upper is not None and lower >= upper:
                continue
            readers = self._readers.get(given)
            if readers is None:
                readers = self._readers[given] = set()
                tree = self._trees.get(number)
                if tree is None:
                    tree = self._trees[number] = _new_tree()
                tree.addi(lower, _end(upper), given)
            readers.add(reader)

    def drop(self, reader: Reader) -> None:
        """Forgets a reader."""
        read = self._read.pop(reader, None)
        if read is None:
            return
        for key in read.documents:
            readers = self._documents.get(key)
            if readers is not None:
                readers.discard(reader)
                if not readers:
                    del self._documents[key]
        for given in read.ranges:
            readers = self._readers.get(given)
            if readers is None:
                continue
            readers.discard(reader)
            if not readers:
                del self._readers[given]
                number, lower, upper = given
                tree = self._trees[number]
                tree.removei(lower, _end(upper), given)
                if tree.is_empty():
                    del self._trees[number]

    def touched(self, record: CommitRecord) -> set[Reader]:
        """The readers of something that a commit changed."""
        found: set[Reader] = set()
        if not self._read:
            return found
        for key in record.documents():
            readers = self._documents.get(key)
            if readers is not None:
                found |= readers
        for number, key in record.keys_in(set(self._trees)):
            for interval in self._trees[number].at(key):
                found |= self._readers[interval.data]
        return found

    def __len__(self) -> int:
        return len(self._read)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is kept of anybody."""
        return not (self._read or self._documents or self._readers or self._trees)


def _end(upper: bytes | None) -> bytes:
    return _BEHIND_EVERY_KEY if upper is None else upper
