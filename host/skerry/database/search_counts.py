"""How many documents a search index holds, and of how many tokens: what scores are made with besides the postings.

Each search index has one entry in the META tree: 8 bytes of documents, 8 bytes of tokens. A transaction notes for each
document it writes the length before and after; the commit adds the differences, on the loop thread, to the newest
values and writes the sums. So they are exact in every snapshot, and a transaction that reads them conflicts with
nobody: they are not in its read set, on purpose.

While an index is being built, a document counts once its entries are there whatever becomes of it: who builds it says
up to which document key that is so (`Database.counted_up_to`).
"""

from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from skerry.database.catalog import SearchedIndex
from skerry.storage import StorageSnapshot, Tree, Write

if TYPE_CHECKING:
    from skerry.database.overlay import Overlay
    from skerry.database.transaction import Transaction

COUNTS_PREFIX: Final = b"search/"
_BYTES: Final = 8


class Counts(NamedTuple):
    """Documents with at least one term, and their tokens."""

    documents: int
    tokens: int


Lengths = dict[int, dict[bytes, tuple[int, int]]]
"""By index number and document key: a document's length before a transaction and after it, 0 where it has no term."""

NONE: Final = Counts(0, 0)


def counts_key(number: int) -> bytes:
    return COUNTS_PREFIX + number.to_bytes(4, "big")


def read_counts(snapshot: StorageSnapshot, number: int) -> Counts:
    """The counts of an index in a snapshot."""
    raw = snapshot.get(Tree.META, counts_key(number))
    return NONE if raw is None else Counts(int.from_bytes(raw[:_BYTES], "big"), int.from_bytes(raw[_BYTES:], "big"))


def counts_write(number: int, counts: Counts) -> Write:
    """What stores the counts of an index."""
    raw = counts.documents.to_bytes(_BYTES, "big") + counts.tokens.to_bytes(_BYTES, "big")
    return (Tree.META, counts_key(number), raw)


def difference(lengths: dict[bytes, tuple[int, int]], up_to: bytes | None = None) -> Counts:
    """What the writes of a transaction add; of documents with larger keys than `up_to`, where given, nothing."""
    documents = tokens = 0
    for key, (before, after) in lengths.items():
        if up_to is None or key <= up_to:
            documents += (after > 0) - (before > 0)
            tokens += after - before
    return Counts(documents, tokens)


def plus(counts: Counts, more: Counts) -> Counts:
    """The sum, never below nothing."""
    return Counts(max(0, counts.documents + more.documents), max(0, counts.tokens + more.tokens))


def added(overlay: "Overlay", snapshot: StorageSnapshot, number: int, more: Counts) -> Write:
    """Adds to the newest counts of an index, and gives what stores them; nothing else goes to storage first."""
    newest = overlay.counts.get(number)
    overlay.counts[number] = counts = plus(read_counts(snapshot, number) if newest is None else newest, more)
    return counts_write(number, counts)


def counts_of(transaction: "Transaction", number: int) -> Counts:
    """The counts of an index as a transaction sees them; not in its read set."""
    overlay = transaction.overlay
    counts = None if overlay is None else overlay.counts.get(number)
    if counts is None:
        counts = read_counts(transaction.snapshot, number)
    own = transaction.lengths.get(number)
    return plus(counts, difference(own)) if own else counts


def measure(
    transaction: "Transaction",
    indexes: tuple[SearchedIndex, ...],
    key: bytes,
    old: dict[str, Any] | None,
    document: dict[str, Any] | None,
) -> None:
    """Note how long a document was and is in the search indexes of its table; before its keys are made."""
    undo, usage = transaction.undo, transaction.usage
    for index in indexes:
        if old is not None and document is not None and index.has_same_text(old, document):
            continue
        for version in (old, document):
            if version is not None:
                usage.analyse(index.text_chars(version))
        lengths = transaction.lengths.setdefault(index.number, {})
        previous = lengths.get(key)
        before = previous[0] if previous is not None else 0 if old is None else index.length(old)
        lengths[key] = (before, 0 if document is None else index.length(document))
        if undo is not None:
            undo.append(partial(_put_back, lengths, key, previous))


class Tally:
    """The counts of a table that is filled with copies of another's documents while these are still written to.

    A document that is written while it runs counts as it was written last; others as they were copied.
    """

    __slots__ = ("_indexes", "_sums", "_written")

    def __init__(self, indexes: tuple[SearchedIndex, ...]) -> None:
        self._indexes = indexes
        self._sums = {index.number: NONE for index in indexes}
        self._written: dict[int, dict[bytes, tuple[int, int]]] = {index.number: {} for index in indexes}

    def add(self, key: bytes, document: dict[str, Any]) -> None:
        """Count a document that was copied, or that is new."""
        for index in self._indexes:
            if key not in self._written[index.number]:
                more = difference({key: (0, index.length(document))})
                self._sums[index.number] = plus(self._sums[index.number], more)

    def write(self, key: bytes, counted: dict[str, Any] | None, document: dict[str, Any] | None) -> None:
        """Count a document that was written: `counted` is it as it was copied, None where it was not."""
        for index in self._indexes:
            written = self._written[index.number]
            before = written[key][0] if key in written else 0 if counted is None else index.length(counted)
            written[key] = (before, 0 if document is None else index.length(document))

    def writes(self) -> list[Write]:
        """What stores the counts."""
        return [
            counts_write(number, plus(sum_, difference(self._written[number]))) for number, sum_ in self._sums.items()
        ]


def _put_back(lengths: dict[bytes, tuple[int, int]], key: bytes, previous: tuple[int, int] | None) -> None:
    if previous is None:
        del lengths[key]
    else:
        lengths[key] = previous
