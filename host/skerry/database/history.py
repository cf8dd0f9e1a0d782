"""The past of a deployment: what history is kept, how a past state is read, and how the past is dropped.

What is stored. A document version carries the timestamp of the commit that wrote it. When a commit at T replaces
version v, it puts v beside the commit log, under (T, document key): such keys only grow, so all the versions that a
group of commits replaces land on the same few pages, where a place for each document would dirty a page for each.
The version of today leads to the one before, that one further back. So that this chain is never long, every
`HISTORY_MILESTONE_VERSIONS`-th version of a document leaves a *milestone* under (document key, T), and so does its
deletion, from which nothing else leads back. When a commit takes a key out of an index, it notes T under that key in
the index history. So each version is stored once, an insert writes no history at all, and an update that touches no
index writes none for indexes.

Reading at t. A document: the current version if its timestamp is at most t. Else the chain, entered at the document's
first milestone behind t, or at the current version where there is none: the first version at or behind t is the
answer, and where the chain ends before, there was no document. That is at most `HISTORY_MILESTONE_VERSIONS` steps, of
one look-up each, however many versions lie between. An index: its keys of today and those taken out after t are
candidates; a candidate counts if the document as of t still makes that key. So an index history needs no timestamps
of additions.

Dropping. `retain` walks the commit log from its oldest entry: the commit at T made exactly the version it replaced
unreachable for every read at or after T, and the versions go in the order in which they came. Its cost follows the
changes dropped, and disk follows data and retention, not uptime. A step is bounded by changes and bytes as well as by
commits, for it holds the loop thread up: of a large commit it drops a part, and writes down how far it came.

Concurrency: reads on any thread with a snapshot of its own; `retain` on the loop thread.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from skerry.database.catalog import Index, Table, creation_tail
from skerry.database.commit_log import Change, read_entry
from skerry.database.stored import HEADER_BYTES, commit_ts_of, is_before_milestone, parse_document, timestamp_bytes
from skerry.errors import SystemFault
from skerry.limits import COMMIT_TS_MAX, RETENTION_CHUNK_BYTES, RETENTION_CHUNK_CHANGES, RETENTION_CHUNK_COMMITS
from skerry.storage import StorageSnapshot, Tree, Write

if TYPE_CHECKING:
    from skerry.database.database import Database

RETAINED_KEY: Final = b"retained"
_BEGUN_KEY: Final = b"retained in part"
_TIMESTAMP_BYTES: Final = 8
_BEHIND: Final = b"\xff" * (_TIMESTAMP_BYTES + 1)


def retained_ts(snapshot: StorageSnapshot) -> int:
    """The oldest timestamp that can be read, 0 where nothing has been dropped."""
    raw = snapshot.get(Tree.META, RETAINED_KEY)
    return 0 if raw is None else int.from_bytes(raw, "big")


def dropped_in_part(snapshot: StorageSnapshot) -> tuple[bytes, int]:
    """The commit that is being dropped: its timestamp as it stands in keys, and how many of its changes are gone."""
    raw = snapshot.get(Tree.META, _BEGUN_KEY)
    return (b"", 0) if raw is None else (raw[:_TIMESTAMP_BYTES], int.from_bytes(raw[_TIMESTAMP_BYTES:], "big"))


def read_document_at(snapshot: StorageSnapshot, table: Table, internal_id: bytes, timestamp: int) -> bytes | None:
    """The JSON of a document as of a timestamp, or None. Raises: SystemFault `OutOfRetention`."""
    must_be_retained(snapshot, timestamp)
    stored = version_at(snapshot, table.prefix + internal_id, timestamp)
    return None if stored is None else stored[HEADER_BYTES:]


def read_index_at(
    snapshot: StorageSnapshot, table: Table, index: Index, lower: bytes, upper: bytes | None, timestamp: int, count: int
) -> list[bytes]:
    """The JSON of up to `count` first documents of an index range as of a timestamp. Raises: SystemFault
    `OutOfRetention`.

    Limits: reads every key of the range, now or taken out since, until it has found enough.
    """
    must_be_retained(snapshot, timestamp)
    prefix = index.number.to_bytes(4, "big")
    first = prefix + lower
    end = (index.number + 1).to_bytes(4, "big") if upper is None else prefix + upper
    gone = [
        key[4:]
        for key, removed in snapshot.scan(Tree.INDEX_HISTORY, first, end, False)
        if int.from_bytes(removed, "big") > timestamp
    ]
    present = [key for key, _ in snapshot.scan_index(index.number, lower, upper, False)]
    documents: list[bytes] = []
    for key in sorted({*gone, *present}):
        stored = version_at(snapshot, table.prefix + key[-16:], timestamp)
        if stored is not None and makes_key(index, stored, key):
            documents.append(stored[HEADER_BYTES:])
            if len(documents) == count:
                break
    return documents


def retain(database: "Database", before_ts: int, budget_commits: int, is_over: Callable[[], bool] | None = None) -> int:
    """Drop what only reads before `before_ts` need, up to `budget_commits` commits of it; how much of the budget was
    spent. All of it is spent as well where the step came to one of its own bounds: a commit may be large, and then
    several steps drop it.

    Call it now and then with what retention allows, until it answers less than the budget; each call is one storage
    batch that shares the next sync. The newest commit log entry always stays: it holds the last timestamp. `is_over`
    is asked before each change but the first, and ends the step.
    Limits: RETENTION_CHUNK_COMMITS, RETENTION_CHUNK_CHANGES, RETENTION_CHUNK_BYTES.
    """
    with_room = min(budget_commits, RETENTION_CHUNK_COMMITS)
    snapshot = database.engine.snapshot()
    try:
        step = _Step(database, snapshot, is_over or _never)
        newest = snapshot.scan_chunk(Tree.COMMIT_LOG, b"", None, True, 1)
        end = (before_ts + 1).to_bytes(_TIMESTAMP_BYTES, "big")
        dropped = 0
        if newest:
            for stamp, raw in snapshot.scan(Tree.COMMIT_LOG, b"", min(end, newest[0][0]), False):
                if dropped == with_room or not step.drop(stamp, raw):
                    dropped = with_room
                    break
                dropped += 1
    finally:
        snapshot.close()
    if step.writes:
        database.engine.submit(step.writes)
    return dropped


class _Step:
    """The deletes of one step. Shape: `writes` what it comes to so far."""

    def __init__(self, database: "Database", snapshot: StorageSnapshot, is_over: Callable[[], bool]) -> None:
        self._is_over = is_over
        self._database = database
        self._snapshot = snapshot
        self.writes: list[Write] = []
        self._changes_left = RETENTION_CHUNK_CHANGES
        self._bytes_left = RETENTION_CHUNK_BYTES
        # A commit that a step did not come to the end of: its timestamp, and how many changes are dropped.
        self._begun = snapshot.get(Tree.META, _BEGUN_KEY)

    def drop(self, stamp: bytes, raw: bytes) -> bool:
        """Drops a commit, or as much of it as there is room for; whether it was all."""
        if self._changes_left <= 0 or self._bytes_left <= 0 or (self.writes and self._is_over()):
            return False
        self._bytes_left -= len(raw)
        changes = read_entry(raw)[1]
        begun = self._begun
        done = int.from_bytes(begun[_TIMESTAMP_BYTES:], "big") if begun and begun.startswith(stamp) else 0
        while done < len(changes):
            if self._changes_left <= 0 or (done and self._bytes_left <= 0) or (self.writes and self._is_over()):
                self._write_down(stamp, done)
                return False
            self._drop_change(stamp, changes[done])
            done += 1
        self.writes.append((Tree.COMMIT_LOG, stamp, None))
        self._write_down(stamp, 0)
        return True

    def _write_down(self, stamp: bytes, done: int) -> None:
        self.writes.append((Tree.META, RETAINED_KEY, stamp))
        if done or self._begun:
            self._begun = stamp + done.to_bytes(4, "big") if done else None
            self.writes.append((Tree.META, _BEGUN_KEY, self._begun))

    def _drop_change(self, stamp: bytes, change: Change) -> None:
        """The deletes that dropping one change of a commit asks for. Safe to be done again."""
        if not change.previous_ts:
            return
        database, snapshot, writes = self._database, self._snapshot, self.writes
        self._changes_left -= 1
        key = stamp + change.key
        stored = snapshot.get(Tree.REPLACED, key)
        writes.append((Tree.REPLACED, key, None))
        if not change.is_written or (stored and is_before_milestone(stored)):
            writes.append((Tree.DOCUMENT_HISTORY, change.key + stamp, None))
        table = database.catalog.spaces.get(int.from_bytes(change.key[:4], "big"))
        if not stored or table is None:
            return
        self._bytes_left -= len(stored)
        document = parse_document(stored[HEADER_BYTES:])
        tail = creation_tail(document["_creationTime"], change.key[4:])
        for index in table.stored:
            for entry in index.keys(document, tail):
                full = index.number.to_bytes(4, "big") + entry
                removed = snapshot.get(Tree.INDEX_HISTORY, full)
                if removed is not None and removed <= stamp and not database.is_key_pending(index.number, entry):
                    writes.append((Tree.INDEX_HISTORY, full, None))


def oldest_ts(snapshot: StorageSnapshot) -> int:
    """The timestamp of the oldest commit whose history is kept, 0 where there is no commit."""
    items = snapshot.scan_chunk(Tree.COMMIT_LOG, b"", None, False, 1)
    return int.from_bytes(items[0][0], "big") if items else 0


def _never() -> bool:
    return False


def version_at(snapshot: StorageSnapshot, key: bytes, timestamp: int) -> bytes | None:
    """The stored form under a document key as of a timestamp that is retained, or None."""
    current = snapshot.get(Tree.DOCUMENTS, key)
    if current is not None and commit_ts_of(current) <= timestamp:
        return current
    behind = key + (timestamp + 1).to_bytes(_TIMESTAMP_BYTES, "big") if timestamp < COMMIT_TS_MAX else key + _BEHIND
    milestones = snapshot.scan_chunk(Tree.DOCUMENT_HISTORY, behind, key + _BEHIND, False, 1)
    if milestones:
        stamp = milestones[0][0][-_TIMESTAMP_BYTES:]
    elif current is not None:
        stamp = timestamp_bytes(current)
    else:
        return None
    while True:
        stored = snapshot.get(Tree.REPLACED, stamp + key)
        if stored is None or commit_ts_of(stored) <= timestamp:
            return stored
        stamp = timestamp_bytes(stored)


def makes_key(index: Index, stored: bytes, key: bytes) -> bool:
    """Whether a stored version has this index key."""
    document: dict[str, Any] = parse_document(stored[HEADER_BYTES:])
    return key in index.keys(document, creation_tail(document["_creationTime"], key[-16:]))


def must_be_retained(snapshot: StorageSnapshot, timestamp: int) -> None:
    """Raises: SystemFault `OutOfRetention`."""
    oldest = retained_ts(snapshot)
    if timestamp < oldest:
        raise SystemFault(
            "OutOfRetention",
            f"Timestamp {timestamp} lies before {oldest}, the oldest that is kept. Read at a newer one.",
        )


__all__ = [
    "dropped_in_part",
    "makes_key",
    "must_be_retained",
    "oldest_ts",
    "read_document_at",
    "read_index_at",
    "retain",
    "retained_ts",
    "version_at",
]
