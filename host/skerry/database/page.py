"""Pages of a query: a stretch of its result between two cursors.

Without an end cursor a page ends after `page_size` documents, at the end of the range, or when a cap on what it
reads is spent. With one it holds everything between the cursors, so that a page that is run again keeps its bounds
while documents come and go; the query journal is the end cursor of the run before.

Source: protocol reference 4.5.
"""

from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

import orjson

from skerry.database.cursor import Position, open_cursor, seal_cursor
from skerry.database.query import Plan
from skerry.database.search_stream import SearchStream
from skerry.database.stream import QueryStream
from skerry.errors import DeveloperError
from skerry.limits import (
    PAGE_DOCUMENTS_MAX,
    PAGE_SPLIT_DOCUMENTS,
    PAGE_SPLIT_PERCENT,
    QUERY_FINGERPRINT_BYTES,
    SCAN_CHUNK_KEYS_MAX,
    TRANSACTION_BYTES_READ_MAX,
    TRANSACTION_DOCUMENTS_READ_MAX,
)

if TYPE_CHECKING:
    from skerry.database.transaction import Transaction

_SPLIT_REQUIRED: Final = "SplitRequired"
_SPLIT_RECOMMENDED: Final = "SplitRecommended"


class PageRequest:
    """The checked arguments of one page. Shape: `function` is whose cursors are taken and given."""

    __slots__ = ("bytes_max", "cursor", "end_cursor", "function", "page_size", "rows_max")

    def __init__(
        self, cursor: Any, end_cursor: Any, page_size: Any, rows_max: Any, bytes_max: Any, function: bytes
    ) -> None:
        self.function = function
        for text in (cursor, end_cursor):
            if text is not None and type(text) is not str:
                raise DeveloperError("InvalidArgument", "A cursor must be a text or null.")
        page_size = _count("pageSize", page_size)
        rows_max = None if rows_max is None else _count("maximumRowsRead", rows_max)
        bytes_max = None if bytes_max is None else _count("maximumBytesRead", bytes_max)
        if page_size < 1:
            raise DeveloperError("InvalidPageSize", "Must request at least 1 document while paginating")
        if page_size > PAGE_DOCUMENTS_MAX:
            raise DeveloperError("InvalidPageSize", f"Requested too many items: {page_size}")
        if (rows_max is not None and rows_max < 1) or (bytes_max is not None and bytes_max < 1):
            raise DeveloperError("InvalidPageSize", "maximumRowsRead and maximumBytesRead must be greater than 0")
        self.cursor = cursor
        self.end_cursor = end_cursor
        self.page_size = page_size
        self.rows_max = TRANSACTION_DOCUMENTS_READ_MAX if rows_max is None else rows_max
        self.bytes_max = TRANSACTION_BYTES_READ_MAX if bytes_max is None else bytes_max


def read_page(transaction: "Transaction", plan: Plan, request: PageRequest) -> bytes:
    """The JSON answer of one page; leaves its end cursor as the transaction's query journal.

    Raises: DeveloperError `InvalidCursor` and the read limits.
    """
    page_key = transaction.page_key
    fingerprint = blake2b(request.function, digest_size=QUERY_FINGERPRINT_BYTES, key=plan.fingerprint()).digest()
    start = None if request.cursor is None else open_cursor(page_key, fingerprint, request.cursor)
    end = None if request.end_cursor is None else open_cursor(page_key, fingerprint, request.end_cursor)
    transaction.usage.read_range()
    if start is not None and start.key is None:
        return _answer(transaction, fingerprint, [], start, [], None)
    lower, upper = _between(plan, start, end)
    chunk = min(request.page_size, SCAN_CHUNK_KEYS_MAX)
    stream: QueryStream
    if plan.search is None:
        stream = QueryStream(transaction, plan, lower, upper, chunk)
    else:
        stream = SearchStream(transaction, plan, None if start is None else start.key, None if end is None else end.key)
    documents, positions, split = _fill(stream, request) if end is None else _fill_to_bound(stream)
    if end is not None:
        position = end
    elif split == _SPLIT_REQUIRED or len(documents) == request.page_size:
        position = Position(stream.position)
    else:
        position = Position(None)
    if split is None and _is_large(stream, request, len(documents)):
        split = _SPLIT_RECOMMENDED
    return _answer(transaction, fingerprint, documents, position, positions, split)


def _fill(stream: QueryStream, request: PageRequest) -> tuple[list[bytes], list[bytes], str | None]:
    """Documents up to the page size or a cap; their positions; SplitRequired where a cap ended the page."""
    documents: list[bytes] = []
    positions: list[bytes] = []
    rows_max, bytes_max = request.rows_max, request.bytes_max
    while len(documents) < request.page_size:
        if stream.rows_read >= rows_max or stream.bytes_read >= bytes_max:
            return documents, positions, _SPLIT_REQUIRED
        step = stream.step()
        if step is None:
            break
        if step is not True:
            documents.append(step)
            positions.append(_position(stream))
    return documents, positions, None


def _fill_to_bound(stream: QueryStream) -> tuple[list[bytes], list[bytes], str | None]:
    documents: list[bytes] = []
    positions: list[bytes] = []
    while True:
        document = stream.next()
        if document is None:
            return documents, positions, None
        documents.append(document)
        positions.append(_position(stream))


def _position(stream: QueryStream) -> bytes:
    position = stream.position
    assert position is not None
    return position


def _between(plan: Plan, start: Position | None, end: Position | None) -> tuple[bytes, bytes | None]:
    """The part of the plan's range behind `start` up to and including `end`."""
    lower, upper = plan.lower, plan.upper
    after = None if start is None else start.key
    last = None if end is None else end.key
    if plan.reverse:
        if after is not None:
            upper = after if upper is None else min(upper, after)
        if last is not None:
            lower = max(lower, last)
        return lower, upper
    if after is not None:
        lower = max(lower, after + b"\0")
    if last is not None:
        upper = last + b"\0" if upper is None else min(upper, last + b"\0")
    return lower, upper


def _count(name: str, value: Any) -> int:
    if type(value) is float and value.is_integer():
        return int(value)
    if type(value) is int:
        return value
    raise DeveloperError("InvalidArgument", f"{name} must be a whole number.")


def _is_large(stream: QueryStream, request: PageRequest, count: int) -> bool:
    return (
        stream.rows_read > request.rows_max * PAGE_SPLIT_PERCENT // 100
        or stream.bytes_read > request.bytes_max * PAGE_SPLIT_PERCENT // 100
        or count > PAGE_SPLIT_DOCUMENTS
    )


def _answer(
    transaction: "Transaction",
    fingerprint: bytes,
    documents: list[bytes],
    position: Position,
    positions: list[bytes],
    status: str | None,
) -> bytes:
    page_key = transaction.page_key
    cursor = seal_cursor(page_key, fingerprint, position)
    transaction.journal_out = cursor
    split: Any = None
    if len(positions) > 2:
        split = seal_cursor(page_key, fingerprint, Position(positions[len(positions) // 2]))
    rest = orjson.dumps(
        {
            "isDone": position.key is None,
            "continueCursor": cursor,
            "splitCursor": split,
            "pageStatus": status,
        }
    )
    return b"".join((b'{"page":[', b",".join(documents), b"],", rest[1:]))
