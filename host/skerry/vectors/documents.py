"""What an index takes from a document: its vector and what its filter fields hold.

A document whose field is no array of exactly the declared number of finite float64 is not indexed, silently: the
schema's validator is where a deployment says that all have one.
"""

from typing import Any, NamedTuple

from skerry.database.catalog import value_at
from skerry.database.stored import parse_document
from skerry.value import key_of
from skerry.value.kinds import kind_of
from skerry.vectors.question import Definition, finite_numbers, hash_of


class Row(NamedTuple):
    """Shape: `filters` in the order of the definition."""

    vector: list[float]
    filters: list[int]


class Extractor:
    """Takes rows from documents of one table for one index. Shape: `secret` (16 to 64 bytes) hashes filter values."""

    __slots__ = ("_definition", "_mark", "_secret")

    def __init__(self, definition: Definition, secret: bytes) -> None:
        self._definition = definition
        self._mark = b'"%b":' % definition.path[0].encode()
        self._secret = secret

    def row(self, json: bytes) -> Row | None:
        """The row of a document's canonical JSON, None where it is not indexed."""
        if self._mark not in json:  # canonical text has no escapes in names of fields
            return None
        definition = self._definition
        document = parse_document(json)
        found: Any = value_at(document, definition.path)
        if kind_of(found) is not list or len(found) != definition.dimensions:
            return None
        vector = finite_numbers(found)
        if vector is None:
            return None
        return Row(vector, [hash_of(key_of(value_at(document, path)), self._secret) for path in definition.filters])
