"""What a row of the tables is: a name, what is attempted, the exact outcome.

An outcome is `("value", what)`, `("fails", how the message begins)`, `("refused", status, code, part of the sentence)`,
for WebSockets `("socket", what was heard...)` with texts by how they begin,
for attacks in process `("code", the host's code, how the message begins)`, or what the row's own attempt gives.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Outcome = tuple[Any, ...]


@dataclass(frozen=True)
class Case:
    """One attack. Shape: `wall` the row of SECURITY.md's table that it tries; `run` gives what became of it."""

    name: str
    wall: str
    attempt: str
    run: Callable[[Any], Outcome]
    expected: Outcome


def agrees(actual: Outcome, expected: Outcome) -> bool:
    """Whether an outcome is the expected one: texts by how they begin, a refusal's sentence by its part."""
    if expected[0] == "value begins":
        return actual[0] == "value" and actual[1].startswith(expected[1])
    if actual[0] != expected[0] or len(actual) != len(expected):
        return False
    if expected[0] in ("fails", "code"):
        return actual[1:-1] == expected[1:-1] and actual[-1].startswith(expected[-1])
    if expected[0] == "refused":
        return actual[1:3] == expected[1:3] and expected[3] in actual[3]
    if expected[0] == "socket":
        return _begins_like(actual, expected)
    return actual == expected


def _begins_like(actual: Any, expected: Any) -> bool:
    if isinstance(expected, tuple):
        of_one_length = isinstance(actual, tuple) and len(actual) == len(expected)
        return of_one_length and all(map(_begins_like, actual, expected))
    if isinstance(expected, str):
        return isinstance(actual, str) and actual.startswith(expected)
    return actual == expected
