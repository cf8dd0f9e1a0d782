"""One document as a transaction leaves it: what the commit, its log entry and the read sets of others are made from."""

from skerry.database.catalog import Table


class DocumentWrite:
    """The pending version of one document: `json` is None where it is deleted, `before` the stored form it replaces."""

    __slots__ = ("before", "internal_id", "json", "size", "table")

    def __init__(self, table: Table, internal_id: bytes, before: bytes | None, json: bytes | None, size: int) -> None:
        self.table = table
        self.internal_id = internal_id
        self.before = before
        self.json = json
        self.size = size
