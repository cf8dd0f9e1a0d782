"""The database as plain Python: documents in a dict, order and ranges by comparing values, filters by evaluating them.

Nothing of what it decides is the database's own: order is that of Python's tuples, numbers are Python's.
"""

import math
import struct
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from skerry.value import UNDEFINED, Int64, encode

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


def place(value: Any) -> tuple[Any, ...]:
    """Where a value stands in the order of all values, as a tuple that Python compares."""
    if value is UNDEFINED:
        return (0,)
    if value is None:
        return (1,)
    if isinstance(value, bool):
        return (4, value)
    if isinstance(value, Int64):
        return (2, value.value)
    if isinstance(value, int | float):
        bits = struct.unpack(">q", struct.pack(">d", value))[0]
        return (3, bits if bits >= 0 else -(bits & (1 << 63) - 1) - 1)
    if isinstance(value, str):
        return (5, value.encode())
    if isinstance(value, bytes):
        return (6, value)
    if isinstance(value, list):
        return (7, tuple([place(element) for element in value]))
    return (8, tuple([(name.encode(), place(value[name])) for name in sorted(value, key=str.encode)]))


def position(document: dict[str, Any], fields: list[str]) -> tuple[Any, ...]:
    """Where a document stands in an index over the fields."""
    return tuple([place(field(document, path)) for path in (*fields, "_creationTime", "_id")])


def ordered(documents: list[dict[str, Any]], fields: list[str], descending: bool = False) -> list[dict[str, Any]]:
    """The documents in the order of an index."""
    return sorted(documents, key=lambda document: position(document, fields), reverse=descending)


TESTS: dict[str, Callable[[Any, Any], bool]] = {
    "Eq": lambda a, b: a == b,
    "Gt": lambda a, b: a > b,
    "Gte": lambda a, b: a >= b,
    "Lt": lambda a, b: a < b,
    "Lte": lambda a, b: a <= b,
}


def in_range(document: dict[str, Any], expressions: list[tuple[str, str, Any]]) -> bool:
    """Whether a document lies in a range whose values are decoded."""
    return all(TESTS[kind](place(field(document, path)), place(value)) for kind, path, value in expressions)


@st.composite
def ranges(
    draw: st.DrawFn, fields: list[str], of: st.SearchStrategy[Any] = values, **of_fields: st.SearchStrategy[Any]
) -> list[tuple[str, str, Any]]:
    """A legal range over the fields of an index; a field's values are drawn `of` it."""

    def value(path: str) -> Any:
        return draw(of_fields.get(path, of))

    equal = draw(st.integers(0, len(fields)))
    expressions: list[tuple[str, str, Any]] = [("Eq", path, value(path)) for path in fields[:equal]]
    if equal < len(fields):
        path = fields[equal]
        expressions += [
            (kind, path, value(path)) for kind in draw(st.sampled_from([[], ["Gt"], ["Gte"], ["Lt"], ["Lte"]]))
        ]
        if expressions and expressions[-1][0] in ("Gt", "Gte") and draw(st.booleans()):
            expressions.append((draw(st.sampled_from(["Lt", "Lte"])), path, value(path)))
    return expressions


# -- filters ---------------------------------------------------------------------------------------------------------


class Refused(Exception):
    """A filter asks for what there is not: arithmetic on what is no number, a condition that is no boolean."""


_COMPARED: dict[str, Callable[[Any, Any], bool]] = {
    "$eq": lambda a, b: a == b,
    "$neq": lambda a, b: a != b,
    "$lt": lambda a, b: a < b,
    "$lte": lambda a, b: a <= b,
    "$gt": lambda a, b: a > b,
    "$gte": lambda a, b: a >= b,
}


def evaluated(expression: dict[str, Any], document: dict[str, Any]) -> Any:
    """A filter expression's value for a document. Raises: Refused."""
    ((name, operand),) = expression.items()
    if name == "$literal":
        return operand
    if name == "$field":
        return field(document, operand)
    if name in _COMPARED:
        left, right = [place(evaluated(each, document)) for each in operand]
        return _COMPARED[name](left, right)
    if name == "$and":
        return all(_condition(evaluated(each, document)) for each in operand)
    if name == "$or":
        return any(_condition(evaluated(each, document)) for each in operand)
    if name == "$not":
        return not _condition(evaluated(operand, document))
    if name == "$neg":
        return _calculated("$neg", [evaluated(operand, document)])
    return _calculated(name, [evaluated(each, document) for each in operand])


def _condition(value: Any) -> bool:
    if not isinstance(value, bool):
        raise Refused
    return value


def _calculated(name: str, numbers: list[Any]) -> Any:
    if all(isinstance(number, Int64) for number in numbers):
        result = _of_integers(name, *[number.value for number in numbers])
        if not -(2**63) <= result < 2**63:
            raise Refused
        return Int64(result)
    if all(isinstance(number, int | float) and not isinstance(number, bool) for number in numbers):
        return _of_floats(name, *[float(number) for number in numbers])
    raise Refused


def _of_integers(name: str, a: int, b: int = 0) -> int:
    if name == "$neg":
        return -a
    if name in ("$div", "$mod") and not b:
        raise Refused
    towards_zero = 0 if not b else abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
    return {"$add": a + b, "$sub": a - b, "$mul": a * b, "$div": towards_zero, "$mod": a - b * towards_zero}[name]


def _of_floats(name: str, a: float, b: float = 0.0) -> float:
    if name == "$neg":
        return -a
    if name == "$div":
        if b:
            return a / b
        return math.copysign(math.inf, a) * math.copysign(1, b) if a and not math.isnan(a) else math.nan
    if name == "$mod":
        return math.fmod(a, b) if b and not math.isinf(a) else math.nan
    return {"$add": a + b, "$sub": a - b, "$mul": a * b}[name]


PATHS = ("a", "b", "o.x", "o", "missing", "_id", "_creationTime")


@st.composite
def expressions(draw: st.DrawFn, of: st.SearchStrategy[Any] = values, depth: int = 3) -> dict[str, Any]:
    """A filter expression of any operator, with decoded literals; mostly one that gives a boolean."""
    inner = expressions(of, depth - 1)
    kind = draw(st.sampled_from(("compare", "compare", "compare", "logic", "logic", "number"))) if depth else "leaf"
    if kind == "leaf" or (kind == "number" and depth < 2):
        return draw(
            st.one_of(of.map(lambda value: {"$literal": value}), st.sampled_from(PATHS).map(lambda p: {"$field": p}))
        )
    if kind == "compare":
        leaf = st.one_of(expressions(of, 0), expressions(of, 0), operations(of))
        return {draw(st.sampled_from(sorted(_COMPARED))): [draw(leaf), draw(leaf)]}
    if kind == "logic":
        name = draw(st.sampled_from(("$and", "$or", "$not")))
        return {name: draw(inner) if name == "$not" else draw(st.lists(inner, max_size=3))}
    return draw(operations(of))


def operations(of: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Arithmetic on fields and literals, mostly on numbers."""
    number = st.sampled_from([{"$literal": n} for n in (0, 1, 2, -3, 0.5, Int64(2), Int64(0), Int64(-(2**63)))])
    leaf = st.one_of(number, st.sampled_from([{"$field": "a"}, {"$field": "b"}]), expressions(of, 0))
    pairs = st.tuples(st.sampled_from(("$add", "$sub", "$mul", "$div", "$mod")), st.lists(leaf, min_size=2, max_size=2))
    return st.one_of(pairs.map(lambda pair: {pair[0]: pair[1]}), leaf.map(lambda operand: {"$neg": operand}))


def spelled_expression(expression: dict[str, Any]) -> dict[str, Any]:
    """A filter expression as it stands in a query's JSON."""
    ((name, operand),) = expression.items()
    if name == "$literal":
        return {name: spelled(operand)}
    if name == "$field":
        return expression
    if isinstance(operand, list):
        return {name: [spelled_expression(each) for each in operand]}
    return {name: spelled_expression(operand)}


Operator = tuple[str, Any]
"""`filter` and an expression, or `limit` and a number."""


@st.composite
def operators(draw: st.DrawFn, of: st.SearchStrategy[Any] = values) -> list[Operator]:
    """Up to three operators of a query."""
    one = st.one_of(st.tuples(st.just("filter"), expressions(of)), st.tuples(st.just("limit"), st.integers(0, 6)))
    return draw(st.one_of(st.just([]), st.lists(one, max_size=3)))


def spelled_operators(chosen: list[Operator]) -> list[dict[str, Any]]:
    """Operators as they stand in a query's JSON."""
    return [{name: spelled_expression(what) if name == "filter" else what} for name, what in chosen]


def passes(document: dict[str, Any], chosen: list[Operator], left: list[int]) -> bool:
    """Whether a document comes through the operators; `left` is what is left of each limit. Raises: Refused."""
    for at, (name, what) in enumerate(chosen):
        if name == "limit":
            left[at] -= 1
        elif not _condition(evaluated(what, document)):
            return False
    return True


def queried(documents: list[dict[str, Any]], chosen: list[Operator]) -> list[dict[str, Any]]:
    """What is left of ordered documents behind the operators. Raises: Refused."""
    left = [what if name == "limit" else 1 for name, what in chosen]
    found: list[dict[str, Any]] = []
    for document in documents:
        if 0 in left:
            break
        if passes(document, chosen, left):
            found.append(document)
    return found
