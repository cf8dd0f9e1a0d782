"""Values and validators as text for error messages, never longer than asked for.

The text stops growing at its bound, and so does the work, but for sorting the names of the objects on the way. Objects
print with sorted field names, float64 always with a point, int64 with an `n`.

Source: protocol reference 1.9.
"""

from typing import Any, Final

import orjson

from skerry.limits import VALIDATION_MESSAGE_PART_CHARS_MAX
from skerry.value.kinds import Int64, kind_of

CUT_MARK: Final = "…"


class BoundedText:
    """Text that takes pieces until it is full, then ends in `CUT_MARK` and ignores the rest."""

    __slots__ = ("_pieces", "room")

    def __init__(self, chars_max: int) -> None:
        self._pieces: list[str] = []
        self.room = chars_max

    def add(self, piece: str) -> bool:
        """Whether there is room for more."""
        if self.room <= 0:
            return False
        if len(piece) > self.room:
            piece = piece[: self.room - 1] + CUT_MARK
        self._pieces.append(piece)
        self.room -= len(piece)
        return self.room > 0

    def __str__(self) -> str:
        return "".join(self._pieces)


def render_value(value: Any, *, chars_max: int = VALIDATION_MESSAGE_PART_CHARS_MAX) -> str:
    """A decoded value for an error message, at most `chars_max` characters long."""
    out = BoundedText(chars_max)
    _render(value, out)
    return str(out)


def quote(text: str, room: int) -> str:
    """A string in double quotes with JSON escapes; only about `room` characters of it are looked at."""
    cut = text if len(text) <= room else text[:room]
    try:
        return orjson.dumps(cut).decode()
    except TypeError:  # a lone surrogate
        return '"' + cut.encode("ascii", "backslashreplace").decode() + '"'


def _render(value: Any, out: BoundedText) -> None:
    kind = kind_of(value)
    if kind is str:
        out.add(quote(value, out.room))
    elif kind is dict:
        _render_dict(value, out)
    elif kind is list:
        _render_list(value, out)
    else:
        out.add(_scalar(value, out.room))


def _render_dict(value: dict[str, Any], out: BoundedText) -> None:
    out.add("{")
    for position, name in enumerate(sorted(value)):
        if not out.add(", " if position else ""):
            return
        out.add((name if name.isidentifier() else quote(name, out.room)) + ": ")
        _render(value[name], out)
    out.add("}")


def _render_list(value: list[Any], out: BoundedText) -> None:
    out.add("[")
    for position, element in enumerate(value):
        if not out.add(", " if position else ""):
            return
        _render(element, out)
    out.add("]")


def _scalar(value: Any, room: int) -> str:
    if value is None:
        return "null"
    if value is True:
        return "true"
    if value is False:
        return "false"
    kind = kind_of(value)
    if kind is Int64:
        return f"{value.value}n"
    if kind is bytes:
        return "bytes(" + value[: max(room, 0)].hex() + ")"
    if kind is int or kind is float:
        return _number(float(value))
    return repr(value)


def _number(value: float) -> str:
    if value != value:
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "Infinity" if value > 0 else "-Infinity"
    return repr(value)
