"""Which readers a commit touches: compared with asking each of them."""

from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from skerry.database import CommitRecord, Range, ReadSet, WriteIndex
from skerry.database.read_index import ReadIndex


class Commit:
    """A commit that touched these documents and index keys."""

    def __init__(self, documents: set[bytes], keys: list[tuple[int, bytes]]) -> None:
        self._documents = documents
        self._keys = keys

    def documents(self) -> list[bytes]:
        return list(self._documents)

    def keys_in(self, numbers: set[int]) -> list[tuple[int, bytes]]:
        return [(number, key) for number, key in self._keys if number in numbers]

    def touches(self, read: ReadSet) -> bool:
        written = WriteIndex()
        written.add(self._documents, self._keys)
        return read.touched_by(written)

    @property
    def as_record(self) -> CommitRecord:
        return cast("CommitRecord", cast("Any", self))


KEYS = st.binary(max_size=3)
DOCUMENTS = st.binary(min_size=1, max_size=1)
RANGES = st.tuples(st.integers(0, 2), KEYS, st.none() | KEYS)
READS = st.builds(
    lambda documents, ranges: ReadSet(documents, cast("list[Range]", ranges)),
    st.sets(DOCUMENTS, max_size=3),
    st.lists(RANGES, max_size=4),
)
COMMITS = st.builds(Commit, st.sets(DOCUMENTS, max_size=3), st.lists(st.tuples(st.integers(0, 3), KEYS), max_size=4))


class Reader:
    pass


@given(st.lists(st.tuples(st.integers(0, 4), st.none() | READS), max_size=20), st.lists(COMMITS, max_size=5))
def test_it_finds_exactly_those_whose_read_set_is_touched(
    changes: list[tuple[int, ReadSet | None]], commits: list[Commit]
) -> None:
    index: ReadIndex[Reader] = ReadIndex()
    readers = [Reader() for _ in range(5)]
    reads: dict[Reader, ReadSet] = {}
    for number, read in changes:
        if read is None:
            index.drop(readers[number])
            reads.pop(readers[number], None)
        else:
            index.put(readers[number], read)
            reads[readers[number]] = read
    for commit in commits:
        assert index.touched(commit.as_record) == {reader for reader, read in reads.items() if commit.touches(read)}
    for reader in readers:
        index.drop(reader)
    assert len(index) == 0 and index.is_empty
