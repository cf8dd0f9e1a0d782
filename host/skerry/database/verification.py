"""Checking a deployment's trees against each other: documents, indexes, history, commit log, catalog.

```
walk = Verification(snapshot)
for _ in walk.steps():      each step is bounded; whoever drives it may rest in between
    ...
walk.counts, walk.differences, walk.difference_count
```

What must agree, and what is looked at:

* every document can be read, lies where its `_id` says, in a table of the catalog, with the size its header says and
  a timestamp that the log knows (where the log goes back that far), and fits its table's validator;
* every document has its entry in each stored index, and no index has an entry besides;
* every change in the log that replaced a version has that version, which is the one it says; a change that wrote is
  the document of today or was followed by one that is; a deletion left nothing; milestones are where they must be;
* there is no version and no milestone that no change in the log leads to, and no entry of an index, or of an index's
  history, that belongs to nobody.

Shape: a difference has a stable code, the exact place (tree and key in hexadecimal) and a sentence. All of them are
counted, the first `VERIFY_DIFFERENCES_MAX` are kept. Strays are searched one by one only where the counts say that
there are some, so a sound deployment costs one look-up for each document and index.

Memory: constant, but for the keys of some recent commits. Deliberately absent: repairing; the LMDB file's own
structure, which reading all of it exercises; bundles, which are files.

Concurrency: one thread; the snapshot may be guarded.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

from skerry.database.catalog import Catalog, Index, Table, creation_tail
from skerry.database.catalog_store import counted_up_to, imported_garbage, load_catalog, unfinished_indexes
from skerry.database.commit_log import Change, read_entry
from skerry.database.history import dropped_in_part, retained_ts
from skerry.database.search_counts import NONE, Counts, counts_key, difference, plus, read_counts
from skerry.database.stored import HEADER_BYTES, SIZE_MASK, commit_ts_of, is_before_milestone, parse_document
from skerry.database.walking import chunks, count_items
from skerry.errors import DeveloperError, SystemFault
from skerry.limits import VERIFY_COMMITS_REMEMBERED, VERIFY_DIFFERENCES_MAX, VERIFY_STEP_ITEMS
from skerry.storage import Item, StorageSnapshot, Tree, index_end, index_prefix
from skerry.value import Mismatch, encode_document_id
from skerry.value.check import check_document

_KEY_BYTES: Final = 20
_TS_BYTES: Final = 8

DIFFERENCE_CODES: Final = {
    "CatalogDamaged": "The catalog of tables and indexes cannot be read.",
    "DocumentOfNoTable": "A document lies under a table number that no table has.",
    "DocumentUnreadable": "A document's bytes are not what a commit writes.",
    "DocumentMisplaced": "A document's own id is not that of the place where it lies.",
    "DocumentSizeWrong": "A document has another size than its header says.",
    "DocumentUnfit": "A document does not fit the schema that is enforced.",
    "DocumentNotInLog": "A document's timestamp belongs to no commit that wrote it.",
    "DocumentLost": "A commit wrote a document that is not there, and no commit deleted it.",
    "DocumentStale": "A document is older than a commit that wrote it.",
    "DocumentOfDeleted": "A document is there that a later commit deleted.",
    "IndexEntryMissing": "A document has no entry in an index of its table.",
    "IndexEntryStray": "An index has an entry that no document makes.",
    "SearchCountsWrong": "A search index counts other documents or tokens than it holds.",
    "IndexOfNobody": "There are entries under an index number that is nobody's.",
    "IndexHistoryOfNobody": "There is history under an index number that is nobody's.",
    "IndexHistoryUnknownCommit": "A key left an index with a commit that the log does not know.",
    "CommitLogUnreadable": "An entry of the commit log cannot be read.",
    "VersionMissing": "A commit replaced a version that is not kept.",
    "VersionWrong": "A commit replaced another version than the one that is kept.",
    "VersionStray": "A version is kept that no commit replaced.",
    "MilestoneMissing": "A milestone of a document's history is missing.",
    "MilestoneStray": "A milestone is there that no commit left.",
}
"""Every code of a difference, and what it means."""


class Difference(NamedTuple):
    """One difference: its code in `DIFFERENCE_CODES`, where it is, and what is there."""

    code: str
    place: str
    says: str


class Verification:
    """One walk over a snapshot. `counts` and `differences` grow with the steps."""

    def __init__(self, snapshot: StorageSnapshot) -> None:
        self.differences: list[Difference] = []
        self.difference_count = 0
        self.counts = {
            "documents": 0,
            "indexEntries": 0,
            "indexHistory": 0,
            "commits": 0,
            "versions": 0,
            "milestones": 0,
        }
        self._snapshot = snapshot
        self._catalog: Catalog | None = None
        self._newest = 0
        self._garbage: frozenset[int] = frozenset()
        self._unfinished: set[int] = set()
        self._built_up_to = counted_up_to(snapshot)
        self._retained = retained_ts(snapshot)
        self._partly_ts, self._partly_done = dropped_in_part(snapshot)
        self._found: dict[int, int] = {}
        self._counted: dict[int, Counts] = {}
        self._written_in = lru_cache(VERIFY_COMMITS_REMEMBERED)(self._read_written)

    @property
    def is_sound(self) -> bool:
        """Whether nothing was found so far."""
        return not self.difference_count

    def report(self) -> dict[str, Any]:
        """What was found, for whoever asked."""
        return {
            "isSound": self.is_sound,
            "counts": self.counts,
            "differenceCount": self.difference_count,
            "differences": [difference._asdict() for difference in self.differences],
        }

    def steps(self) -> Iterator[None]:
        """The walk, in pieces of at most `VERIFY_STEP_ITEMS` items."""
        try:
            self._catalog = load_catalog(self._snapshot)
        except SystemFault as error:
            self._differs("CatalogDamaged", Tree.META, b"", error.message)
            return
        newest = self._snapshot.scan_chunk(Tree.COMMIT_LOG, b"", None, True, 1)
        self._newest = int.from_bytes(newest[0][0], "big") if newest else 0
        garbage = imported_garbage(self._snapshot)
        self._garbage = frozenset(garbage)
        self._unfinished.update(unfinished_indexes(self._snapshot), *garbage.values())
        yield from self._documents(self._catalog)
        yield from self._indexes(self._catalog)
        self._counts(self._catalog)
        yield from self._log()
        yield from self._index_history(self._catalog)

    # -- documents and indexes ---------------------------------------------------------------------------------------

    def _documents(self, catalog: Catalog) -> Iterator[None]:
        for items in chunks(self._snapshot, Tree.DOCUMENTS, b"", None, VERIFY_STEP_ITEMS):
            for key, stored in items:
                self.counts["documents"] += 1
                self._document(catalog, key, stored)
            yield

    def _document(self, catalog: Catalog, key: bytes, stored: bytes) -> None:
        space = int.from_bytes(key[:4], "big")
        if space in self._garbage:
            return  # it is being cleared away, or filled
        table = catalog.spaces.get(space) if len(key) == _KEY_BYTES else None
        if table is None:
            self._differs("DocumentOfNoTable", Tree.DOCUMENTS, key, "no table has this number")
            return
        try:
            document = parse_document(stored[HEADER_BYTES:])
            is_here = document["_id"] == encode_document_id(table.number, key[4:])
            tail = creation_tail(document["_creationTime"], key[4:])
            size = check_document(document)
        except (ValueError, KeyError, TypeError, AssertionError, AttributeError, DeveloperError) as error:
            self._differs("DocumentUnreadable", Tree.DOCUMENTS, key, f"{table.name}: {type(error).__name__}")
            return
        if not is_here:
            self._differs("DocumentMisplaced", Tree.DOCUMENTS, key, f"{table.name}: it says {document['_id']!r:.80}")
            return
        if size != int.from_bytes(stored[:4], "big") & SIZE_MASK:
            self._differs("DocumentSizeWrong", Tree.DOCUMENTS, key, f"{table.name}: it has {size} bytes")
        self._stamp(table, key, commit_ts_of(stored))
        self._fits(catalog, table, key, document)
        for index in table.stored:
            self._entries_of(index, table, document, tail, key)
        for index in table.searches:
            length = difference({key: (0, index.length(document))})
            self._counted[index.number] = plus(self._counted.get(index.number, NONE), length)

    def _stamp(self, table: Table, key: bytes, timestamp: int) -> None:
        """A document's commit: known where the log goes back that far."""
        if timestamp > self._newest or (
            timestamp > max(self._retained, table.since_ts)
            and key not in self._written_in(timestamp.to_bytes(_TS_BYTES, "big"))
        ):
            self._differs("DocumentNotInLog", Tree.DOCUMENTS, key, f"{table.name}: written at {timestamp}")

    def _fits(self, catalog: Catalog, table: Table, key: bytes, document: dict[str, Any]) -> None:
        if table.validator is None:
            return
        try:
            table.validator.check({name: value for name, value in document.items() if name[0] != "_"}, catalog.resolve)
        except Mismatch as mismatch:
            self._differs("DocumentUnfit", Tree.DOCUMENTS, key, f"{table.name}: {mismatch}")
        except DeveloperError as error:
            self._differs("DocumentUnfit", Tree.DOCUMENTS, key, f"{table.name}: {error.code}")

    def _entries_of(self, index: Index, table: Table, document: dict[str, Any], tail: bytes, key: bytes) -> None:
        """The document's entries in an index: all there, and counted."""
        for entry in _keys_of(index, document, tail):
            full = index_prefix(index.number) + entry
            if self._snapshot.get(Tree.INDEXES, full) is None:
                if key > self._built_up_to.get(index.number, key):
                    continue  # it is being built, and has not come so far
                self._differs("IndexEntryMissing", Tree.INDEXES, full, f"{table.name}.{index.name} of {key.hex()}")
            else:
                self._found[index.number] = self._found.get(index.number, 0) + 1

    def _indexes(self, catalog: Catalog) -> Iterator[None]:
        """The entries of each index counted, and strays searched where there are more than documents made."""
        owners = {index.number: (table, index) for table in catalog.tables.values() for index in table.stored}
        lower: bytes | None = b""
        while lower is not None and (first := self._snapshot.scan_chunk(Tree.INDEXES, lower, None, False, 1)):
            number = int.from_bytes(first[0][0][:4], "big")
            present = 0
            for n_items in count_items(self._snapshot, number, VERIFY_STEP_ITEMS):
                present += n_items
                self.counts["indexEntries"] += n_items
                yield
            if number not in owners:
                if number not in self._unfinished:
                    self._differs("IndexOfNobody", Tree.INDEXES, index_prefix(number), f"{present} entries")
            elif present != self._found.get(number, 0):
                yield from self._strays(*owners[number])
            lower = index_end(number)

    def _counts(self, catalog: Catalog) -> None:
        """The counts of search indexes, but for those that are still being built."""
        for table in catalog.tables.values():
            for index in table.searches:
                says, holds = read_counts(self._snapshot, index.number), self._counted.get(index.number, NONE)
                if says != holds and index not in table.hidden:
                    key = counts_key(index.number)
                    self._differs(
                        "SearchCountsWrong", Tree.META, key, f"{table.name}.{index.name}: {says}, not {holds}"
                    )

    def _strays(self, table: Table, index: Index) -> Iterator[None]:
        first, end = index_prefix(index.number), index_end(index.number)
        for items in chunks(self._snapshot, Tree.INDEXES, first, end, VERIFY_STEP_ITEMS):
            for full, _ in items:
                if not self._makes(table, index, full[4:]):
                    self._differs("IndexEntryStray", Tree.INDEXES, full, f"{table.name}.{index.name}")
            yield

    def _makes(self, table: Table, index: Index, entry: bytes) -> bool:
        internal_id = entry[-16:]
        stored = self._snapshot.get(Tree.DOCUMENTS, table.prefix + internal_id)
        if stored is None:
            return False
        try:
            document = parse_document(stored[HEADER_BYTES:])
            return entry in _keys_of(index, document, creation_tail(document["_creationTime"], internal_id))
        except (ValueError, KeyError, TypeError, AttributeError, DeveloperError):
            return True  # the document is the difference, and was found as one

    def _index_history(self, catalog: Catalog) -> Iterator[None]:
        numbers = {index.number for table in catalog.tables.values() for index in table.stored}
        numbers.update(self._unfinished)
        told: set[int] = set()
        for items in chunks(self._snapshot, Tree.INDEX_HISTORY, b"", None, VERIFY_STEP_ITEMS):
            for full, stamp in items:
                self.counts["indexHistory"] += 1
                number = int.from_bytes(full[:4], "big")
                timestamp = int.from_bytes(stamp, "big")
                if number not in numbers and number not in told:
                    told.add(number)
                    self._differs("IndexHistoryOfNobody", Tree.INDEX_HISTORY, index_prefix(number), "no such index")
                if timestamp > self._newest or (
                    timestamp > self._retained and self._snapshot.get(Tree.COMMIT_LOG, stamp) is None
                ):
                    self._differs("IndexHistoryUnknownCommit", Tree.INDEX_HISTORY, full, f"at {timestamp}")
            yield

    # -- the commit log and what it leads to -------------------------------------------------------------------------

    def _log(self) -> Iterator[None]:
        versions = milestones = 0
        for items in chunks(self._snapshot, Tree.COMMIT_LOG, b"", None, VERIFY_STEP_ITEMS // 8):
            for stamp, raw in items:
                self.counts["commits"] += 1
                try:
                    changes = read_entry(raw)[1]
                except SystemFault:
                    self._differs("CommitLogUnreadable", Tree.COMMIT_LOG, stamp, f"{len(raw)} bytes")
                    continue
                skipped = self._partly_done if stamp == self._partly_ts else 0
                for at, change in enumerate(changes):
                    self._follow(stamp, change)
                    if at >= skipped and change.previous_ts:
                        n_versions, n_milestones = self._kept(stamp, change)
                        versions += n_versions
                        milestones += n_milestones
                    if at % VERIFY_STEP_ITEMS == VERIFY_STEP_ITEMS - 1:
                        yield
            yield
        yield from self._extra(Tree.REPLACED, "versions", versions, "VersionStray")
        yield from self._extra(Tree.DOCUMENT_HISTORY, "milestones", milestones, "MilestoneStray")

    def _follow(self, stamp: bytes, change: Change) -> None:
        """What a change did is still so, or was followed by another change."""
        if self._is_replaced(change.key):
            return
        current = self._snapshot.get(Tree.DOCUMENTS, change.key)
        timestamp = int.from_bytes(stamp, "big")
        if not change.is_written:
            if current is not None and commit_ts_of(current) <= timestamp:
                self._differs("DocumentOfDeleted", Tree.DOCUMENTS, change.key, f"deleted at {timestamp}")
        elif current is None:
            after, end = change.key + (timestamp + 1).to_bytes(_TS_BYTES, "big"), change.key + b"\xff" * (_TS_BYTES + 1)
            if not self._snapshot.scan_chunk(Tree.DOCUMENT_HISTORY, after, end, False, 1):
                self._differs("DocumentLost", Tree.DOCUMENTS, change.key, f"written at {timestamp}")
        elif commit_ts_of(current) < timestamp:
            self._differs("DocumentStale", Tree.DOCUMENTS, change.key, f"written again at {timestamp}")

    def _is_replaced(self, key: bytes) -> bool:
        """Whether an import has put other contents in the place of those that a document was among."""
        assert self._catalog is not None
        return int.from_bytes(key[:4], "big") not in self._catalog.spaces

    def _kept(self, stamp: bytes, change: Change) -> tuple[int, int]:
        """The version that a change replaced, and the milestone that goes with it; how many of each are there."""
        place = stamp + change.key
        stored = self._snapshot.get(Tree.REPLACED, place)
        if stored is None:
            self._differs("VersionMissing", Tree.REPLACED, place, f"of {change.previous_ts}")
            return 0, 0
        if len(stored) < HEADER_BYTES or commit_ts_of(stored) != change.previous_ts:
            self._differs("VersionWrong", Tree.REPLACED, place, f"not of {change.previous_ts}")
            return 1, 0
        if change.is_written and not is_before_milestone(stored):
            return 1, 0
        milestone = change.key + stamp
        if self._is_replaced(change.key):  # these go at once, versions in the order of the log
            return 1, 0 if self._snapshot.get(Tree.DOCUMENT_HISTORY, milestone) is None else 1
        if self._snapshot.get(Tree.DOCUMENT_HISTORY, milestone) is None:
            self._differs("MilestoneMissing", Tree.DOCUMENT_HISTORY, milestone, "not there")
            return 1, 0
        return 1, 1

    def _extra(self, tree: Tree, name: str, expected: int, code: str) -> Iterator[None]:
        """Counts a tree of the history, and searches it for strays where there are more items than changes."""
        for items in chunks(self._snapshot, tree, b"", None, VERIFY_STEP_ITEMS):
            self.counts[name] += len(items)
            yield
        if self.counts[name] == expected:
            return
        for items in chunks(self._snapshot, tree, b"", None, VERIFY_STEP_ITEMS):
            for item in items:
                if not self._belongs(tree, item):
                    self._differs(code, tree, item[0], "no commit leads here")
            yield

    def _belongs(self, tree: Tree, item: Item) -> bool:
        key = item[0]
        is_version = tree is Tree.REPLACED
        stamp = key[:_TS_BYTES] if is_version else key[-_TS_BYTES:]
        document = key[_TS_BYTES:] if is_version else key[:-_TS_BYTES]
        raw = self._snapshot.get(Tree.COMMIT_LOG, stamp)
        if raw is None:
            return False
        try:
            changes = read_entry(raw)[1]
        except SystemFault:
            return True  # the entry is the difference, and was found as one
        skipped = self._partly_done if stamp == self._partly_ts else 0
        for change in changes[skipped:]:
            if change.key == document and change.previous_ts:
                if is_version or not change.is_written:
                    return True
                stored = self._snapshot.get(Tree.REPLACED, stamp + document)
                return stored is None or is_before_milestone(stored)
        return False

    # -- inside ------------------------------------------------------------------------------------------------------

    def _read_written(self, stamp: bytes) -> frozenset[bytes]:
        """The documents that a commit in the log wrote."""
        raw = self._snapshot.get(Tree.COMMIT_LOG, stamp)
        try:
            return frozenset(change.key for change in read_entry(raw)[1] if change.is_written) if raw else frozenset()
        except SystemFault:
            return frozenset()

    def _differs(self, code: str, tree: Tree, key: bytes, says: str) -> None:
        assert code in DIFFERENCE_CODES
        self.difference_count += 1
        if len(self.differences) < VERIFY_DIFFERENCES_MAX:
            self.differences.append(Difference(code, f"{tree.name.lower()}/{key[:64].hex()}", says))


def verify(snapshot: StorageSnapshot) -> Verification:
    """All of the walk at once; for tests, and for deployments that nobody serves."""
    walk = Verification(snapshot)
    for _ in walk.steps():
        pass
    return walk


def _keys_of(index: Index, document: dict[str, Any], tail: bytes) -> Sequence[bytes]:
    """The entries that a document has in an index."""
    return index.keys(document, tail)


__all__ = ["DIFFERENCE_CODES", "Difference", "Verification", "verify"]
