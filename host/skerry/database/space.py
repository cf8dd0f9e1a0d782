"""What takes the space of a deployment: its trees walked, everything counted under the table or index it belongs to.

```
walk = SpaceWalk(snapshot)
for _ in walk.steps(): ...       each step is bounded, as in `verification`
walk.report()
```

Units: bytes of keys and values. The engine's pages take more: half-filled ones, branches, what is free in the file.
What belongs to no table any more, or not yet (a schema change or an import clears or fills it), is `unowned`.

Concurrency: one thread; the snapshot may be guarded.
"""

from collections.abc import Iterator
from typing import Any

from skerry.database.catalog import Index, Table
from skerry.database.catalog_store import load_catalog
from skerry.database.walking import chunks
from skerry.limits import VERIFY_STEP_ITEMS
from skerry.storage import StorageSnapshot, Tree

_TS_BYTES = 8


class SpaceWalk:
    """One walk over a snapshot. Shape: `done` counts the items that were looked at."""

    def __init__(self, snapshot: StorageSnapshot) -> None:
        self.done = 0
        self._snapshot = snapshot
        self._counted: dict[tuple[Tree, int], list[int]] = {}

    def steps(self) -> Iterator[None]:
        """The walk, in pieces of at most `VERIFY_STEP_ITEMS` items."""
        for tree in (Tree.DOCUMENTS, Tree.INDEXES, Tree.REPLACED, Tree.DOCUMENT_HISTORY, Tree.INDEX_HISTORY):
            owner_at = _TS_BYTES if tree is Tree.REPLACED else 0
            for items in chunks(self._snapshot, tree, b"", None, VERIFY_STEP_ITEMS):
                for key, value in items:
                    self._count(tree, int.from_bytes(key[owner_at : owner_at + 4], "big"), len(key) + len(value))
                yield
        for tree in (Tree.COMMIT_LOG, Tree.META):
            for items in chunks(self._snapshot, tree, b"", None, VERIFY_STEP_ITEMS):
                for key, value in items:
                    self._count(tree, 0, len(key) + len(value))
                yield

    def report(self) -> dict[str, Any]:
        """What was found. Raises: SystemFault `DataFolderFormat` for a damaged catalog."""
        catalog = load_catalog(self._snapshot)
        left = dict(self._counted)

        def take(tree: Tree, owner: int) -> list[int]:
            return left.pop((tree, owner), [0, 0])

        def of_index(index: Index) -> dict[str, Any]:
            entries, entry_bytes = take(Tree.INDEXES, index.number)
            gone, gone_bytes = take(Tree.INDEX_HISTORY, index.number)
            return {
                "name": index.name,
                "entries": entries,
                "entryBytes": entry_bytes,
                "history": gone,
                "historyBytes": gone_bytes,
            }

        def of_table(table: Table) -> dict[str, Any]:
            documents, document_bytes = take(Tree.DOCUMENTS, table.space)
            versions, version_bytes = take(Tree.REPLACED, table.space)
            milestones, milestone_bytes = take(Tree.DOCUMENT_HISTORY, table.space)
            return {
                "name": table.name,
                "documents": documents,
                "documentBytes": document_bytes,
                "versions": versions,
                "versionBytes": version_bytes,
                "milestones": milestones,
                "milestoneBytes": milestone_bytes,
                "indexes": [of_index(index) for index in table.stored],
            }

        tables = [of_table(catalog.tables[name]) for name in sorted(catalog.tables) if name[0] != "_"]
        commits, commit_bytes = take(Tree.COMMIT_LOG, 0)
        _, meta_bytes = take(Tree.META, 0)
        unowned = [sum(counts) for counts in zip(*left.values(), strict=True)] if left else [0, 0]
        return {
            "tables": tables,
            "commits": commits,
            "commitBytes": commit_bytes,
            "metaBytes": meta_bytes,
            "unowned": unowned[0],
            "unownedBytes": unowned[1],
        }

    def _count(self, tree: Tree, owner: int, n_bytes: int) -> None:
        self.done += 1
        counted = self._counted.get((tree, owner))
        if counted is None:
            counted = self._counted[tree, owner] = [0, 0]
        counted[0] += 1
        counted[1] += n_bytes


__all__ = ["SpaceWalk"]
