"""What transactions of the proofs do, step by step: on plain Python, and on a real transaction.

A step is a tuple: its name and operands. On cells (a table of unique keys with numbers, indexed by both):
`get key`, `set key value`, `add key amount` (gives the sum), `remove key`, `between low high` (an index range),
`divisible by` (a filter over the whole table). On lists: `read key`, `append key element`. And `nested steps fails`, a
sub-transaction that is rolled back where it fails, and `fail`.

`tests/proof/app` holds the same for functions.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import permutations
from typing import Any

from orjson import loads

from skerry.database import Transaction
from tests.database.world import range_query, scan_query

Step = tuple[Any, ...]
State = dict[str, float]


class Failed(Exception):
    """The step `fail` was reached."""


def on_model(state: State, step: Step) -> Any:
    """Does a step on a plain dictionary of cells and gives what it answers."""
    name, *operands = step
    if name == "get":
        return state.get(operands[0])
    if name == "set":
        state[operands[0]] = operands[1]
        return None
    if name == "add":
        state[operands[0]] = state.get(operands[0], 0) + operands[1]
        return state[operands[0]]
    if name == "remove":
        state.pop(operands[0], None)
        return None
    if name == "between":
        low, high = operands
        return sorted(value for value in state.values() if low <= value <= high)
    if name == "divisible":
        return sorted(value for value in state.values() if value % operands[0] == 0)
    assert name == "nested", name
    inner, fails = operands
    if fails:
        return None
    return [on_model(state, each) for each in inner]


def _cell(transaction: Transaction, key: str) -> dict[str, Any] | None:
    query = range_query("cells.by_key", [("Eq", "key", key)], None, [{"limit": 2}])
    found = loads(transaction.collect_query(query))
    assert len(found) < 2, "a key that is unique is there twice"
    return found[0] if found else None


def _set(transaction: Transaction, key: str, value: float) -> None:
    found = _cell(transaction, key)
    if found is None:
        transaction.insert("cells", {"key": key, "value": value})
    else:
        transaction.patch(found["_id"], {"value": value})


def _add(transaction: Transaction, key: str, amount: float) -> float:
    found = _cell(transaction, key)
    value = (0 if found is None else found["value"]) + amount
    _set(transaction, key, value)
    return value


def _get(transaction: Transaction, key: str) -> float | None:
    found = _cell(transaction, key)
    if found is None:
        return None
    again = transaction.get(found["_id"])
    assert again is not None and loads(again) == found, "an index and its documents do not agree"
    return found["value"]


def _remove(transaction: Transaction, key: str) -> None:
    found = _cell(transaction, key)
    if found is not None:
        transaction.delete(found["_id"])


def _between(transaction: Transaction, low: float, high: float) -> list[float]:
    query = range_query("cells.by_value", [("Gte", "value", low), ("Lte", "value", high)])
    return [found["value"] for found in loads(transaction.collect_query(query))]


def _divisible(transaction: Transaction, by: float) -> list[float]:
    condition = {"filter": {"$eq": [{"$mod": [{"$field": "value"}, {"$literal": by}]}, {"$literal": 0}]}}
    found = loads(transaction.collect_query(scan_query("cells", None, [condition])))
    return sorted(each["value"] for each in found)


def _nested(transaction: Transaction, inner: Sequence[Step], fails: bool) -> list[Any] | None:
    transaction.savepoint()
    answers = [on_transaction(transaction, each) for each in inner]
    if fails:
        transaction.rollback()
        return None
    transaction.release()
    return answers


def _fail(_transaction: Transaction) -> None:
    raise Failed


_STEPS: dict[str, Callable[..., Any]] = {
    "get": _get,
    "set": _set,
    "add": _add,
    "remove": _remove,
    "between": _between,
    "divisible": _divisible,
    "nested": _nested,
    "fail": _fail,
}


def on_transaction(transaction: Transaction, step: Step) -> Any:
    """Does a step in a real transaction and gives what it answers. Raises: Failed."""
    return _STEPS[step[0]](transaction, *step[1:])


Done = tuple[Sequence[Step], Sequence[Any]]
"""The steps of a transaction that committed, and what they answered."""


def serial_order(
    before: State, done: Sequence[Done], after: State, precedes: Callable[[int, int], bool] = lambda i, j: False
) -> tuple[int, ...] | None:
    """An order in which the transactions, one after the other, would have answered the same and left the same.

    Shape: `precedes(i, j)` says that i was answered before j began, so it must come first.
    None where there is none: then what happened was not (strictly) serialisable.
    """
    for order in permutations(range(len(done))):
        if any(precedes(late, early) for n, late in enumerate(order) for early in order[:n]):
            continue
        state = dict(before)
        if all(_replays(state, *done[index]) for index in order) and state == after:
            return order
    return None


def _replays(state: State, steps: Iterable[Step], answers: Iterable[Any]) -> bool:
    return all(on_model(state, step) == answer for step, answer in zip(steps, answers, strict=True))
