"""Filter expressions of a query, compiled to closures over decoded documents.

Evaluation is charged before it runs: each expression node is a step, and comparing two values of unknown size costs
the document's size besides, so a guest cannot buy long comparisons with short queries. Short-circuited branches are
charged as if they had run.

Source: protocol reference 4.4.
"""

from collections.abc import Callable
from math import fmod, inf, nan
from typing import Any, Final, cast

from skerry.database.catalog import value_at
from skerry.errors import DeveloperError
from skerry.limits import FILTER_BYTES_PER_STEP, FILTER_NESTING_MAX
from skerry.value import UNDEFINED, Int64, UndefinedAt, compare, decode, size_of
from skerry.value.kinds import kind_of

Evaluate = Callable[[dict[str, Any]], Any]

_INT64_MIN: Final = -(2**63)
_INT64_MAX: Final = 2**63 - 1


class Filter:
    """A compiled filter: `keeps(document)`, and what one evaluation costs."""

    __slots__ = ("_evaluate", "per_document_size", "steps")

    def __init__(self, expression: Any) -> None:
        cost = _Cost()
        self._evaluate = _compile(expression, cost, FILTER_NESTING_MAX)
        self.steps = cost.steps
        self.per_document_size = cost.open_comparisons

    def cost(self, document_size: int) -> int:
        """The steps that evaluating a document of this size is charged with."""
        return self.steps + self.per_document_size * (document_size // FILTER_BYTES_PER_STEP)

    def keeps(self, document: dict[str, Any]) -> bool:
        """Whether the filter is true of the document. Raises: DeveloperError `InvalidFilter`."""
        result = self._evaluate(document)
        if result is True or result is False:
            return result
        raise _error(f"A filter must be a boolean, not {_kind(result)}.")


class _Cost:
    __slots__ = ("open_comparisons", "steps")

    def __init__(self) -> None:
        self.steps = 0
        self.open_comparisons = 0


def _compile(expression: Any, cost: _Cost, room: int) -> Evaluate:
    if type(expression) is not dict or len(cast("dict[str, Any]", expression)) != 1:
        raise _error("An expression must be an object with exactly one operator.")
    if not room:
        raise _error(f"A filter is nested more than {FILTER_NESTING_MAX} levels deep.")
    ((name, operand),) = cast("dict[str, Any]", expression).items()
    cost.steps += 1
    if name == "$literal":
        value = decode(operand, undefined=UndefinedAt.ROOT)
        cost.steps += 0 if value is UNDEFINED else size_of(value) // FILTER_BYTES_PER_STEP
        return lambda document: value
    if name == "$field":
        return _compile_field(operand)
    if name in _COMPARISONS:
        left, right = _operands(name, operand, cost, room)
        cost.open_comparisons += 1
        return _COMPARISONS[name](left, right)
    if name in _ARITHMETIC:
        left, right = _operands(name, operand, cost, room)
        return _arithmetic(_ARITHMETIC[name], left, right)
    if name in ("$and", "$or"):
        if type(operand) is not list:
            raise _error(f"{name} takes an array of expressions.")
        parts = [_compile(part, cost, room - 1) for part in cast("list[Any]", operand)]
        return _all_of(parts) if name == "$and" else _any_of(parts)
    if name == "$not":
        inner = _compile(operand, cost, room - 1)
        return lambda document: not _boolean("$not", inner(document))
    if name == "$neg":
        return _negation(_compile(operand, cost, room - 1))
    raise _error(f"{name} is not an operator.")


def _operands(name: str, operand: Any, cost: _Cost, room: int) -> tuple[Evaluate, Evaluate]:
    if type(operand) is not list or len(cast("list[Any]", operand)) != 2:
        raise _error(f"{name} takes an array of two expressions.")
    left, right = cast("list[Any]", operand)
    return _compile(left, cost, room - 1), _compile(right, cost, room - 1)


def _compile_field(path: Any) -> Evaluate:
    if type(path) is not str:
        raise _error("$field takes a path of field names.")
    names = tuple(path.split("."))
    if len(names) == 1:
        name = names[0]
        return lambda document: document.get(name, UNDEFINED)
    return lambda document: value_at(document, names)


def _all_of(parts: list[Evaluate]) -> Evaluate:
    def evaluate(document: dict[str, Any]) -> bool:
        return all(_boolean("$and", part(document)) for part in parts)

    return evaluate


def _any_of(parts: list[Evaluate]) -> Evaluate:
    def evaluate(document: dict[str, Any]) -> bool:
        return any(_boolean("$or", part(document)) for part in parts)

    return evaluate


def _boolean(name: str, value: Any) -> bool:
    if value is True or value is False:
        return value
    raise _error(f"{name} takes booleans, not {_kind(value)}.")


_COMPARISONS: Final[dict[str, Callable[[Evaluate, Evaluate], Evaluate]]] = {
    "$eq": lambda left, right: lambda document: compare(left(document), right(document)) == 0,
    "$neq": lambda left, right: lambda document: compare(left(document), right(document)) != 0,
    "$lt": lambda left, right: lambda document: compare(left(document), right(document)) < 0,
    "$lte": lambda left, right: lambda document: compare(left(document), right(document)) <= 0,
    "$gt": lambda left, right: lambda document: compare(left(document), right(document)) > 0,
    "$gte": lambda left, right: lambda document: compare(left(document), right(document)) >= 0,
}


# -- arithmetic ------------------------------------------------------------------------------------------------------


def _arithmetic(operator: "_Operator", left: Evaluate, right: Evaluate) -> Evaluate:
    name, on_floats, on_integers = operator

    def evaluate(document: dict[str, Any]) -> Any:
        a, b = left(document), right(document)
        kind_a, kind_b = kind_of(a), kind_of(b)
        if kind_a is Int64 and kind_b is Int64:
            return _int64(name, on_integers(a.value, b.value))
        if (kind_a is float or kind_a is int) and (kind_b is float or kind_b is int):
            return on_floats(float(a), float(b))
        raise _error(f"{name} takes two numbers of one type, not {_kind(a)} and {_kind(b)}.")

    return evaluate


def _negation(inner: Evaluate) -> Evaluate:
    def evaluate(document: dict[str, Any]) -> Any:
        value = inner(document)
        if type(value) is Int64:
            return _int64("$neg", -value.value)
        if type(value) is float or type(value) is int:
            return -float(value)
        raise _error(f"$neg takes a number, not {_kind(value)}.")

    return evaluate


def _int64(name: str, value: int) -> Int64:
    if not _INT64_MIN <= value <= _INT64_MAX:
        raise _error(f"{name} overflows int64.")
    return Int64(value)


def _divide_floats(left: float, right: float) -> float:
    if right:
        return left / right
    if left != left or not left:
        return nan
    return inf if (left > 0) == (str(right)[0] != "-") else -inf


def _remainder_floats(left: float, right: float) -> float:
    return nan if not right or left in (inf, -inf) else fmod(left, right)


def _divide_integers(left: int, right: int) -> int:
    if not right:
        raise _error("$div divides by zero.")
    quotient = abs(left) // abs(right)
    return quotient if (left < 0) == (right < 0) else -quotient


def _remainder_integers(left: int, right: int) -> int:
    if not right:
        raise _error("$mod divides by zero.")
    remainder = abs(left) % abs(right)
    return -remainder if left < 0 else remainder


_Operator = tuple[str, Callable[[float, float], float], Callable[[int, int], int]]
_ARITHMETIC: Final[dict[str, _Operator]] = {
    "$add": ("$add", lambda a, b: a + b, lambda a, b: a + b),
    "$sub": ("$sub", lambda a, b: a - b, lambda a, b: a - b),
    "$mul": ("$mul", lambda a, b: a * b, lambda a, b: a * b),
    "$div": ("$div", _divide_floats, _divide_integers),
    "$mod": ("$mod", _remainder_floats, _remainder_integers),
}


def _kind(value: Any) -> str:
    return {
        bool: "a boolean",
        str: "a string",
        bytes: "bytes",
        list: "an array",
        dict: "an object",
        Int64: "an int64",
        int: "a float64",
        float: "a float64",
        type(None): "null",
    }.get(cast("type[Any]", type(value)), "undefined")


def _error(message: str) -> DeveloperError:
    return DeveloperError("InvalidFilter", message)
