"""The database as plain Python: documents in a dict, order and ranges by comparing values."""

from functools import cmp_to_key
from typing import Any

from hypothesis import strategies as st

from skerry.value import UNDEFINED, Int64, compare, encode

SCALARS: list[Any] = [
    UNDEFINED,
    None,
    Int64(-3),
    Int64(3),
    -1,
    0,
    -0.0,
    2.5,
    float("nan"),
    float("inf"),
    False,
    True,
    "",
    "a",
    "a\0",
    "a\0b",
    "ab",
    "é",
    "p" * 600,
    "p" * 600 + "q",
    b"",
    b"\0",
    b"\xff\xff",
    [],
    [1, "a"],
    [1],
    {},
    {"k": 1},
    {"k": 1, "l": None},
]
values = st.sampled_from(SCALARS)
small_values = st.sampled_from([UNDEFINED, None, 1, 2, 3, "a", "p" * 600 + "x", "p" * 600 + "y"])


def spelled(value: Any) -> Any:
    """A value as it stands in a query's JSON."""
    return {"$undefined": None} if value is UNDEFINED else encode(value)


def field(document: dict[str, Any], path: str) -> Any:
    found: Any = document
    for name in path.split("."):
        found = found.get(name, UNDEFINED) if isinstance(found, dict) else UNDEFINED
    return found


def ordered(documents: list[dict[str, Any]], fields: list[str], descending: bool = False) -> list[dict[str, Any]]:
    """The documents in the order of an index."""

    def order(left: dict[str, Any], right: dict[str, Any]) -> int:
        for path in (*fields, "_creationTime", "_id"):
            result = compare(field(left, path), field(right, path))
            if result:
                return result
        return 0

    return sorted(documents, key=cmp_to_key(order), reverse=descending)


TESTS = {
    "Eq": lambda order: order == 0,
    "Gt": lambda order: order > 0,
    "Gte": lambda order: order >= 0,
    "Lt": lambda order: order < 0,
    "Lte": lambda order: order <= 0,
}


def in_range(document: dict[str, Any], expressions: list[tuple[str, str, Any]]) -> bool:
    """Whether a document lies in a range whose values are decoded."""
    return all(TESTS[kind](compare(field(document, path), value)) for kind, path, value in expressions)


@st.composite
def ranges(draw: st.DrawFn, fields: list[str], of: st.SearchStrategy[Any] = values) -> list[tuple[str, str, Any]]:
    """A legal range over the fields of an index."""
    equal = draw(st.integers(0, len(fields)))
    expressions: list[tuple[str, str, Any]] = [("Eq", path, draw(of)) for path in fields[:equal]]
    if equal < len(fields):
        path = fields[equal]
        expressions += [
            (kind, path, draw(of)) for kind in draw(st.sampled_from([[], ["Gt"], ["Gte"], ["Lt"], ["Lte"]]))
        ]
        if expressions and expressions[-1][0] in ("Gt", "Gte") and draw(st.booleans()):
            expressions.append((draw(st.sampled_from(["Lt", "Lte"])), path, draw(of)))
    return expressions
