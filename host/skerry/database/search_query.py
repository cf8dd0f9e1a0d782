"""What a search asks for: the terms of its text, and the equalities on filter fields that results must meet.

Source: protocol reference 4.4, 9.1.
"""

from typing import Any, Final, NamedTuple, cast

from skerry.database.catalog import value_at
from skerry.database.search_index import SearchIndex
from skerry.database.search_text import query_terms
from skerry.errors import DeveloperError
from skerry.limits import SEARCH_FILTERS_MAX
from skerry.value import UndefinedAt, decode, key_of


class Equality(NamedTuple):
    """A filter field's path, the key of the value that it must have, and the scope of the documents that have it."""

    path: tuple[str, ...]
    key: bytes
    scope: bytes


class Search:
    """A compiled search of one index. Shape: `terms` in their order, each once; the last one is a prefix too."""

    __slots__ = ("equalities", "index", "prefix", "terms")

    def __init__(self, index: SearchIndex, text: str, equalities: tuple[Equality, ...]) -> None:
        self.index = index
        self.equalities = equalities
        terms = query_terms(text)
        self.prefix = terms[-1] if terms else b""
        self.terms = tuple(dict.fromkeys(terms))

    def admits(self, document: dict[str, Any]) -> bool:
        """Whether a document meets the equalities."""
        return all(key_of(value_at(document, equality.path)) == equality.key for equality in self.equalities)


def compile_search(name: str, index: SearchIndex, filters: Any) -> Search:
    """The search of a source's filters.

    Raises: DeveloperError `InvalidQuery`, `IncorrectSearchField`, `DuplicateSearchFiltersError`,
    `IncorrectFilterFieldError`, `MissingSearchFilterError`, `TooManyFilterConditionsInSearchQueryError`.
    """
    if type(filters) is not list:
        raise _invalid("The filters of a search must be an array.")
    text: str | None = None
    equalities: list[Equality] = []
    for entry in cast("list[Any]", filters):
        kind, path, value = _filter(entry)
        if kind == "Eq":
            equalities.append(_equality(name, index, path, value))
            continue
        if path != index.search_field:
            raise DeveloperError(
                "IncorrectSearchField",
                f'Search query against {name} contains a search filter against "{path}", which doesn\'t match the '
                f'indexed `searchField` "{index.search_field}".',
            )
        if text is not None:
            raise DeveloperError(
                "DuplicateSearchFiltersError",
                f'Search query against {name} contains multiple search filters against "{path}". Only one is allowed.',
            )
        if type(value) is not str:
            raise _invalid("What is searched for must be a text.")
        text = value
    if text is None:
        raise DeveloperError(
            "MissingSearchFilterError",
            f"Search query against {name} does not contain any search filters. You must include a search filter like "
            f'`q.search("{index.search_field}", searchText)`.',
        )
    if len(equalities) > SEARCH_FILTERS_MAX:
        raise DeveloperError(
            "TooManyFilterConditionsInSearchQueryError",
            f"Search query against {name} has too many filter conditions. Max: {SEARCH_FILTERS_MAX} "
            f"Actual: {len(equalities)}",
        )
    return Search(index, text, tuple(equalities))


def _filter(entry: Any) -> tuple[str, str, Any]:
    if type(entry) is not dict:
        raise _invalid("A filter of a search must be an object.")
    fields = cast("dict[str, Any]", entry)
    kind, path = fields.get("type"), fields.get("fieldPath")
    if type(path) is not str or kind not in _KINDS:
        raise _invalid("A filter of a search must be Search or Eq with a fieldPath.")
    return kind, path, fields.get("value")


def _equality(name: str, index: SearchIndex, path: str, value: Any) -> Equality:
    if path not in index.filter_fields:
        raise DeveloperError(
            "IncorrectFilterFieldError",
            f'Search query against {name} contains an equality filter on "{path}" but that field isn\'t indexed for '
            "filtering in `filterFields`.",
        )
    at = index.filter_fields.index(path)
    decoded = decode(value, undefined=UndefinedAt.ROOT)
    return Equality(index.filter_paths[at], key_of(decoded), index.filter_scope(at, decoded))


_KINDS: Final = frozenset(("Search", "Eq"))


def _invalid(message: str) -> DeveloperError:
    return DeveloperError("InvalidQuery", message)
