"""The Python shapes of a document value, and the shapes Python has no type for.

A *decoded* value is: None, bool, float or int (both mean float64; an int is an integral float64 with |n| <= 2**53),
`Int64`, str, bytes, list and dict. `UNDEFINED` is a value only where the protocol lets an absent field be written down:
index ranges, filters and the top-level fields of a patch. `COMMIT_TS` is a value only within a mutation.

Deliberately absent: classes for the other types (a document is plain Python data, so that JSON parsers build it for
us), and arithmetic on `Int64`.

Source: protocol reference 1.1, 1.3.
"""

from collections.abc import Callable
from typing import Any, Final, TypeAlias, final

from skerry.errors import DeveloperError

INT64_MIN: Final = -(2**63)
INT64_MAX: Final = 2**63 - 1
FLOAT_INTEGER_MAX: Final = 2**53


@final
class Int64:
    """A 64-bit signed integer, never equal to a float64.

    Raises: DeveloperError `InvalidValue` for a number outside the range.
    """

    __slots__ = ("value",)

    def __init__(self, value: int) -> None:
        if not INT64_MIN <= value <= INT64_MAX:
            raise DeveloperError("InvalidValue", "An int64 must lie between -2^63 and 2^63 - 1.")
        self.value: Final = value

    def __eq__(self, other: object) -> bool:
        return type(other) is Int64 and self.value == other.value

    def __hash__(self) -> int:
        return hash((Int64, self.value))

    def __repr__(self) -> str:
        return f"Int64({self.value})"


@final
class Undefined:
    """The type of `UNDEFINED`, an absent field written down."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "UNDEFINED"

    def __bool__(self) -> bool:
        return False


UNDEFINED: Final = Undefined()


@final
class CommitTs:
    """The type of `COMMIT_TS`, which stands in a document for the timestamp of the commit that will write it.

    It is a value inside a mutation only, and becomes an `Int64` at its commit; until then it sorts as the largest one.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return "[unresolved commit timestamp]"


COMMIT_TS: Final = CommitTs()

# `type`, under a name whose result a type checker takes as it comes: dispatch must not narrow what it dispatches.
kind_of: Final[Callable[[Any], Any]] = type

Value: TypeAlias = (
    "bool | int | float | str | bytes | Int64 | CommitTs | list[Value] | dict[str, Value] | Undefined | None"
)


def normalize_number(number: int | float) -> int | float:
    """The one Python form of a float64: an int below 2**53 in size where the number is integral, else a float.

    Limits: a larger integer becomes the nearest float. -0.0, NaN and the infinities stay floats.
    """
    if type(number) is float:
        if number.is_integer() and -FLOAT_INTEGER_MAX < number < FLOAT_INTEGER_MAX:
            whole = int(number)
            return whole if whole or str(number)[0] != "-" else number
        return number
    if -FLOAT_INTEGER_MAX < number < FLOAT_INTEGER_MAX:
        return number
    try:
        return float(number)
    except OverflowError:
        raise DeveloperError("InvalidValue", "A number is too large for a float64.") from None
