"""The database of a deployment: transactions over documents and indexes, committed one after another, durable in
groups.

In: operations of functions on documents, queries and pages, a schema. Out: documents as the JSON a guest receives,
read and write sets, and storage batches. Theory of operation:

**Layers.** A transaction reads through its own writes, then the overlay of commits that storage has not made
durable, then a storage snapshot. The lane (mutations of the loop thread, one after another) sees all three; queries
see only the snapshot; a detached transaction sees a snapshot of its own, on its own thread. `scan` merges the
layers for ranges.

**Keys.** A document lies under its document key: table number and internal id (20 bytes). An index entry is the
keys of the indexed values, the creation time and the internal id; its value is empty. `by_id` is the documents tree
itself.

**A commit** (`database`, `commit_log`) gets a timestamp in nanoseconds, always larger than the last, stamps its
documents with it, goes into the overlay at once and to storage as one batch. Bytes for an insert: the document, one
entry for each index, a commit log entry (the call record and 29 bytes a document). An update adds the version it
replaced, an index entry that goes away adds its key. History and what it can answer: `history`.

**Read and write sets.** Read: document keys, and index ranges cut to what was consumed. Written: documents before
and after, from which the touched index keys are worked out only when someone asks. A lane transaction that nobody
overtook needs no check. Every other one is checked against the write log, the commits since its begin, and gets
`Conflict` if they touched what it read; the catalog takes part as index 0.

**Schemas** (`schema_change`) become active in one commit, after the documents there are were judged and new indexes
built, in short steps (`steps`) between which the deployment serves: `judging`, `backfill`, `index_clearing`.

**Bounds.** Reads and writes are charged to the transaction (`usage`), filters before they run, index keys by their
bytes; commits that wait are bounded in number and bytes (`CommitterFullError`), plans, write log and retention
steps by number.

**Search indexes** (`search_index` and the modules beside it) have several keys for one document; all that holds for
index entries holds for theirs. **Imports** (`bulk`) fill tables that nobody sees yet, and switch them in by one commit.
**The past** (`past`, `stale`) is read by the same plans, over snapshots that look into the history.

Deliberately absent: HTTP, wasm, clocks and chance (arguments all), vectors (declared indexes are recorded here, and
searched by the room `vectors`, which hears of commits through `Database.on_commit`), and the decision when to retain.
"""

from skerry.database.answers import Answer, answer_write, find_answer, first_answer_ts, forget_answers
from skerry.database.backfill import BuildProgress, index_states
from skerry.database.catalog import CRON_TABLE, JOB_INDEX, JOB_TABLE, job_key
from skerry.database.commit_log import Change, CommitRecord, read_entry
from skerry.database.database import Database
from skerry.database.history import oldest_ts, read_document_at, read_index_at, retain, retained_ts
from skerry.database.read_set import ReadSet, WriteIndex
from skerry.database.scan import Range
from skerry.database.schema_change import SchemaChange, background_steps
from skerry.database.stale import stale_transaction
from skerry.database.steps import Steps
from skerry.database.system_documents import change_system, find_system, insert_system, remove_system
from skerry.database.transaction import DocumentWrite, FunctionState, Transaction
from skerry.database.verification import Difference, Verification, verify
from skerry.database.write_log import Conflict

__all__ = [
    "CRON_TABLE",
    "Answer",
    "BuildProgress",
    "Change",
    "CommitRecord",
    "Conflict",
    "Database",
    "Difference",
    "DocumentWrite",
    "FunctionState",
    "JOB_INDEX",
    "JOB_TABLE",
    "Range",
    "ReadSet",
    "SchemaChange",
    "Steps",
    "Transaction",
    "Verification",
    "WriteIndex",
    "answer_write",
    "background_steps",
    "change_system",
    "find_answer",
    "first_answer_ts",
    "find_system",
    "forget_answers",
    "index_states",
    "insert_system",
    "job_key",
    "oldest_ts",
    "read_document_at",
    "read_entry",
    "read_index_at",
    "remove_system",
    "retain",
    "retained_ts",
    "stale_transaction",
    "verify",
]
