"""Search indexes: which keys a document has in one, and what its keys say.

Everything a search reads is an index key, so own writes, pending commits, read sets and conflicts follow from what
holds for all index keys. A document with at least one term has, for each term:

    scope, term, 0, 255 - occurrences, length code, age, internal id      a *posting*

once in the scope of all documents, and once in a scope of its own for each filter field: the field's place and a
digest of the document's value (a missing field has one too). Within a scope a term's postings with equal occurrences
lie in the order of the score they give: shorter texts first, then newer documents. `age` is the creation time with its
bits turned, so that newer comes first.

One document in `SEARCH_SAMPLED_ONE_IN`, chosen by a hash of its id, has for each term:

    0x30, term, 0, hash of the id, internal id                            a *sample*

in the order of the hashes, so the first k of them tell how many documents have the term (a sketch of the k smallest).

Lengths are counted in tokens and kept as one byte, exactly up to 127 and to a sixteenth above. Scores are made of codes
alone, so that a posting and the document itself give the same.

Two documents whose filter values have one digest are told apart when the document is read.
"""

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any, Final

from skerry.database.catalog import SearchedIndex, value_at
from skerry.database.search_text import Terms, analyse
from skerry.limits import SEARCH_SAMPLED_ONE_IN, SEARCH_TERM_COUNT_MAX
from skerry.value import key_of

ALL_SCOPE: Final = b"\x10"
_FILTER_SCOPE: Final = b"\x20"
_SAMPLE: Final = b"\x30"
_DIGEST_BYTES: Final = 8
_INTERNAL_ID_BYTES: Final = 16
_TIME_BYTES: Final = 8
REST_BYTES: Final = _TIME_BYTES + _INTERNAL_ID_BYTES
"""What a posting ends with: age and internal id, which name a document and order equal scores."""
_ALL_ONES: Final = (1 << 8 * _TIME_BYTES) - 1
_SAMPLED_BELOW: Final = 256 // SEARCH_SAMPLED_ONE_IN
_EXACT: Final = 128
_STEPS: Final = 16


class SearchIndex(SearchedIndex):
    """A search index: the path of the field that is searched, and those that can be filtered by."""

    __slots__ = ("filter_fields", "filter_paths", "search_field", "search_path")

    kind = "search"

    def __init__(self, number: int, name: str, search_field: str, filter_fields: tuple[str, ...]) -> None:
        super().__init__(number, name, (search_field, *filter_fields), ())
        self.search_field = search_field
        self.search_path = self.paths[0]
        self.filter_fields = filter_fields
        self.filter_paths = self.paths[1:]
        self.definition = (self.kind, search_field, filter_fields)

    def text(self, document: dict[str, Any]) -> str | None:
        """The text of a document that is searched, None where there is none."""
        value = value_at(document, self.search_path)
        return value if type(value) is str else None

    def length(self, document: dict[str, Any]) -> int:
        text = self.text(document)
        return 0 if text is None else analyse(text)[1]

    def text_chars(self, document: dict[str, Any]) -> int:
        text = self.text(document)
        return 0 if text is None else len(text)

    def has_same_text(self, old: dict[str, Any], document: dict[str, Any]) -> bool:
        return self.text(old) == self.text(document)

    def keys(self, document: dict[str, Any], tail: bytes) -> Sequence[bytes]:
        text = self.text(document)
        if not text:
            return ()
        terms, length = analyse(text)
        return self._postings(terms, length, document, tail) if terms else ()

    def filter_scope(self, at: int, value: Any) -> bytes:
        """The scope of the documents whose filter field at this place has a value (`UNDEFINED` where it is missing)."""
        digest = blake2b(key_of(value), digest_size=_DIGEST_BYTES).digest()
        return _FILTER_SCOPE + bytes((at,)) + digest

    def _postings(self, terms: Terms, length: int, document: dict[str, Any], tail: bytes) -> list[bytes]:
        internal_id = tail[-_INTERNAL_ID_BYTES:]
        rest = bytes((length_code(length),)) + _age(tail) + internal_id
        ends: dict[int, bytes] = {}
        postings: list[bytes] = []
        for term, count in terms.items():
            end = ends.get(count)
            if end is None:
                end = ends[count] = bytes((0, SEARCH_TERM_COUNT_MAX - count)) + rest
            postings.append(term + end)
        keys = [ALL_SCOPE + posting for posting in postings]
        for at, path in enumerate(self.filter_paths):
            scope = self.filter_scope(at, value_at(document, path))
            keys += [scope + posting for posting in postings]
        digest = blake2b(internal_id, digest_size=_DIGEST_BYTES).digest()
        if digest[0] < _SAMPLED_BELOW:
            end = b"\0" + digest + internal_id
            keys += [_SAMPLE + term + end for term in terms]
        return keys


def sample_bounds(term: bytes) -> tuple[bytes, bytes]:
    """The key range of a term's samples."""
    return _SAMPLE + term + b"\0", _SAMPLE + term + b"\1"


def frequency_of_samples(samples: Sequence[bytes], is_full: bool) -> int:
    """How many documents have a term, by the first of its samples; `is_full` where there are more of them."""
    if not is_full:
        return len(samples) * SEARCH_SAMPLED_ONE_IN
    digest = int.from_bytes(samples[-1][-_DIGEST_BYTES - _INTERNAL_ID_BYTES : -_INTERNAL_ID_BYTES], "big")
    return ((len(samples) - 1) << 8 * _DIGEST_BYTES) // (digest + 1)


def length_code(length: int) -> int:
    """A text's length as a byte."""
    if length < _EXACT:
        return length
    power = length.bit_length() - _EXACT.bit_length()
    return _EXACT + power * _STEPS + ((length >> power + 3) & _STEPS - 1)


def coded_length(code: int) -> int:
    """The least length that has a code."""
    if code < _EXACT:
        return code
    power, step = divmod(code - _EXACT, _STEPS)
    return (_STEPS + step) << power + 3


LENGTHS: Final = tuple([coded_length(code) for code in range(256)])


def _age(tail: bytes) -> bytes:
    """The creation time in a key's end, turned so that newer is smaller."""
    time = int.from_bytes(tail[-REST_BYTES:-_INTERNAL_ID_BYTES], "big")
    return (_ALL_ONES ^ time).to_bytes(_TIME_BYTES, "big")


__all__ = [
    "ALL_SCOPE",
    "LENGTHS",
    "REST_BYTES",
    "SearchIndex",
    "coded_length",
    "frequency_of_samples",
    "length_code",
    "sample_bounds",
]
