"""What a server's data folder says of a run once the server has stopped."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from skerry.database import read_index_at, verify
from skerry.database.catalog_store import load_catalog
from skerry.database.commit_log import read_entry
from skerry.storage import StorageSnapshot, Tree
from skerry.storage.lmdb_engine import LmdbEngine

DOCUMENTS_MAX = 10_000


class Afterwards:
    """A deployment's folder of a server that is not running."""

    def __init__(self, snapshot: StorageSnapshot) -> None:
        self._snapshot = snapshot
        self._catalog = load_catalog(snapshot)

    def differences(self) -> list[Any]:
        """What documents, indexes, history and log do not agree on."""
        return verify(self._snapshot).differences

    def calls(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Each commit that a call made, in their order: its timestamp and the call's record."""
        for key, raw in self._snapshot.scan(Tree.COMMIT_LOG, b"", None, False):
            record = read_entry(raw)[0]
            if record.startswith(b'{"v"'):
                yield int.from_bytes(key, "big"), orjson.loads(record)

    def overtaken(self) -> int:
        """How many calls committed on a snapshot older than the commit before theirs: they ran beside others."""
        count = before = 0
        for stamp, call in self.calls():
            count += call["snapshot_ts"] < before
            before = stamp
        return count

    def at(self, table: str, timestamp: int) -> list[dict[str, Any]]:
        """The documents of a table as of a timestamp."""
        found = self._catalog.tables[table]
        raw = read_index_at(self._snapshot, found, found.by_creation_time, b"", None, timestamp, DOCUMENTS_MAX)
        return [orjson.loads(document) for document in raw]

    def at_each_commit(self, table: str, of: Callable[[str], bool]) -> Iterator[list[dict[str, Any]]]:
        """The documents of a table behind each commit of a function that is chosen."""
        for stamp, call in self.calls():
            if of(call["function"]):
                yield self.at(table, stamp)


@contextmanager
def afterwards(data: Path) -> Iterator[Afterwards]:
    """What the data folder of a stopped server holds."""
    engine = LmdbEngine(data / "deployments" / "local")
    snapshot = engine.snapshot()
    try:
        yield Afterwards(snapshot)
    finally:
        snapshot.close()
        engine.close()
