"""Commits that are not durable yet, and telling their callers what became of them."""

from collections.abc import Callable
from typing import Final

from skerry.database.catalog import Catalog
from skerry.database.commit_log import CommitRecord
from skerry.database.overlay import IndexLayer
from skerry.errors import SkerryError, SystemFault
from skerry.storage import StorageSnapshot, Tree

OnDurable = Callable[[int | BaseException], None]
UNSENT: Final = 1 << 63


class Pending:
    """A commit that is not durable yet; `sequence` is `UNSENT` until storage has it."""

    __slots__ = ("callbacks", "catalog", "layers", "record", "sequence", "size")

    def __init__(
        self, record: CommitRecord, layers: dict[int, IndexLayer], catalog: Catalog, size: int, on_durable: OnDurable
    ) -> None:
        self.record = record
        self.layers = layers
        self.catalog = catalog
        self.sequence = UNSENT
        self.size = size
        self.callbacks = [on_durable]


def last_commit_ts(snapshot: StorageSnapshot) -> int:
    """The timestamp of the newest commit in a snapshot, 0 where there is none."""
    items = snapshot.scan_chunk(Tree.COMMIT_LOG, b"", None, True, 1)
    return int.from_bytes(items[0][0], "big") if items else 0


def tell(done: list[Pending], lost: list[Pending], failure: BaseException | None) -> None:
    """Call every callback, whatever the others do; the first error of theirs is raised at the end."""
    raised: list[BaseException] = []
    error = (
        failure if failure is None or isinstance(failure, SkerryError) else SystemFault("StorageFailed", str(failure))
    )
    for entries, failed in ((done, False), (lost, True)):
        for entry in entries:
            answer = error if failed and error is not None else entry.record.commit_ts
            for callback in entry.callbacks:
                try:
                    callback(answer)
                except Exception as problem:  # one caller's bug must not keep the others waiting
                    raised.append(problem)
    if raised:
        raise raised[0]
