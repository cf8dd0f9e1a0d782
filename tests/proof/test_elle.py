"""The checker of histories knows each anomaly when it sees one, and finds none in what was serial."""

from collections.abc import Iterator
from random import Random
from typing import Any

import pytest

from tests.fixtures.effort import TIMES, chance
from tests.proof.elle import Operation, Transaction, anomalies, shortest_cycle


def read(key: str, *elements: int) -> Operation:
    return ("read", key, list(elements))


def append(key: str, element: int) -> Operation:
    return ("append", key, element)


def transactions(*all_operations: list[Operation], **how: Any) -> list[Transaction]:
    """Transactions that were all under way at the same time."""
    return [Transaction(operations, begin=0, end=10, **how) for operations in all_operations]


def failed(*operations: Operation) -> Transaction:
    return Transaction(list(operations), "failed", 0, 10)


def unanswered(*operations: Operation) -> Transaction:
    return Transaction(list(operations), "unknown", 0, None)


HAND_MADE: dict[str, tuple[str, list[Transaction]]] = {
    "write cycle": (
        "G0",
        transactions(
            [append("x", 1), append("y", 1)],
            [append("x", 2), append("y", 2)],
            [read("x", 1, 2), read("y", 2, 1)],
        ),
    ),
    "aborted read": ("G1a", [failed(append("x", 1)), *transactions([read("x", 1)])]),
    "intermediate read": (
        "G1b",
        transactions([append("x", 1), append("x", 2)], [read("x", 1)], [read("x", 1, 2)]),
    ),
    "circular information flow": (
        "G1c",
        transactions([append("x", 1), read("y", 1)], [append("y", 1), read("x", 1)]),
    ),
    "circular information flow through a write": (
        "G1c",
        transactions([append("x", 1), append("y", 2)], [read("x", 1), append("y", 1)], [read("y", 1, 2)]),
    ),
    "read skew": (
        "G-single",
        transactions(
            [append("x", 1), append("y", 1)],
            [read("x", 1), read("y")],
            [read("x", 1), read("y", 1)],
        ),
    ),
    "lost update": (
        "G-single",
        transactions([read("x"), append("x", 1)], [read("x"), append("x", 2)], [read("x", 1, 2)]),
    ),
    "write skew": (
        "G2",
        transactions(
            [read("x"), append("y", 1)],
            [read("y"), append("x", 1)],
            [read("x", 1), read("y", 1)],
        ),
    ),
    "two readers that see two writers in different orders": (
        "G2",
        transactions(
            [append("x", 1)],
            [append("y", 1)],
            [read("x", 1), read("y")],
            [read("x"), read("y", 1)],
            [read("x", 1), read("y", 1)],
        ),
    ),
    "two orders of one list": (
        "incompatible order",
        transactions([append("x", 1)], [append("x", 2)], [read("x", 1, 2)], [read("x", 2)]),
    ),
    "an element twice": ("duplicate", transactions([append("x", 1)], [read("x", 1, 1)])),
    "an element of nobody's": ("from nowhere", transactions([read("x", 7)])),
    "own append not seen": ("internal", transactions([append("x", 1), read("x")], [read("x", 1)])),
    "a list that changes under its reader": (
        "internal",
        transactions([append("x", 1)], [read("x"), read("x", 1)]),
    ),
    "a commit that is gone": ("lost", transactions([append("x", 1)], [read("x")])),
    "half of one that nobody was told of": (
        "torn",
        [unanswered(append("x", 1), append("y", 1)), *transactions([read("x", 1), read("y")])],
    ),
    "a read of the past": (
        "strict G-single",
        [
            Transaction([append("x", 1)], "ok", 0, 1),
            Transaction([read("x")], "ok", 2, 3),
            Transaction([read("x", 1)], "ok", 4, 5),
        ],
    ),
    "a read of the future": (
        "strict G1c",
        [Transaction([read("x", 1)], "ok", 0, 1), Transaction([append("x", 1)], "ok", 2, 3)],
    ),
    "writes in the wrong order": (
        "strict G0",
        [
            Transaction([append("x", 1)], "ok", 0, 1),
            Transaction([append("x", 2)], "ok", 2, 3),
            Transaction([read("x", 2, 1)], "ok", 2, 5),
        ],
    ),
    "an element appended twice": ("bad history", transactions([append("x", 1)], [append("x", 1)], [read("x", 1)])),
}


@pytest.mark.parametrize("name", HAND_MADE)
def test_it_names_what_is_wrong(name: str) -> None:
    kind, history = HAND_MADE[name]
    found = anomalies(history)
    assert kind in [anomaly.kind for anomaly in found], found


FINE: dict[str, list[Transaction]] = {
    "nothing": [],
    "a failed one that nobody saw": [failed(append("x", 1)), *transactions([read("x")])],
    "one without an answer that was not": [
        unanswered(append("x", 1), append("y", 1)),
        *transactions([read("x"), read("y")]),
    ],
    "one without an answer that was": [
        unanswered(append("x", 1), append("y", 1)),
        *transactions([read("x", 1), read("y", 1)]),
    ],
    "one without an answer that came later": [
        unanswered(append("x", 1)),
        Transaction([read("x")], "ok", 20, 21),
        Transaction([read("x", 1)], "ok", 22, 23),
    ],
    "its own appends between reads": transactions(
        [read("x"), append("x", 1), read("x", 1), append("x", 2)],
        [read("x", 1, 2)],
    ),
    "overlapping ones in either order": [
        Transaction([append("x", 1)], "ok", 0, 9),
        Transaction([read("x")], "ok", 8, 12),
        Transaction([read("x", 1)], "ok", 9, 12),
    ],
}


@pytest.mark.parametrize("name", FINE)
def test_it_finds_nothing_in(name: str) -> None:
    assert anomalies(FINE[name]) == []


def serial_history(random: Random, count: int) -> list[Transaction]:
    """Transactions that took effect one after the other, at a moment between their begin and their end."""
    lists: dict[str, list[int]] = {key: [] for key in "abc"}
    history: list[Transaction] = []
    for number in range(count):
        status = random.choices(("ok", "failed", "unknown"), (8, 1, 1))[0]
        took_effect = status == "ok" or (status == "unknown" and random.random() < 0.5)
        state = {key: list(elements) for key, elements in lists.items()}
        operations: list[Operation] = []
        for step in range(random.randint(1, 4)):
            key = random.choice("abc")
            if random.random() < 0.5:
                operations.append(read(key, *state[key]))
            else:
                state[key].append(number * 10 + step)
                operations.append(append(key, number * 10 + step))
        if took_effect:
            lists = state
        at = number * 10
        end = None if status == "unknown" else at + random.randint(1, 60)
        history.append(Transaction(operations, status, at - random.randint(1, 60), end))
    history.append(Transaction([read(key, *lists[key]) for key in "abc"], "ok", count * 10 + 100, count * 10 + 101))
    return history


def test_it_finds_nothing_in_what_was_serial_and_something_where_one_read_is_older() -> None:
    for round_ in range(30 * TIMES):
        random = chance(f"serial history {round_}")
        history = serial_history(random, 60)
        assert anomalies(history) == []
        number, key, element = random.choice(list(_answered_before_they_were_read(history)))
        was = history[number]
        changed = [
            read(key, *what[: what.index(element)])
            if (name, of) == ("read", key) and element in what
            else (name, of, what)
            for name, of, what in was.operations
        ]
        history[number] = Transaction(changed, was.status, was.begin, was.end)
        assert anomalies(history), (was, changed)


def _answered_before_they_were_read(history: list[Transaction]) -> Iterator[tuple[int, str, int]]:
    """Reader, list and element, where the element's writer was answered before the reader began."""
    writers = {
        (key, element): transaction
        for transaction in history
        for name, key, element in transaction.operations
        if name == "append"
    }
    for number, transaction in enumerate(history[:-1]):
        for name, key, elements in transaction.operations:
            for element in elements if name == "read" and transaction.status == "ok" else ():
                end = writers[key, element].end
                if end is not None and end < transaction.begin:
                    yield number, key, element


def test_the_cycle_it_shows_has_few_anti_dependencies_and_few_edges() -> None:
    long = [(1, "wr", 2), (2, "wr", 3), (3, "ww", 1)]
    assert shortest_cycle(long) is not None
    assert shortest_cycle([*long, (1, "rw", 3)]) in (long, long[1:] + long[:1], long[2:] + long[:2])
    assert len(shortest_cycle([*long, (2, "wr", 1)]) or ()) == 2
    assert shortest_cycle([(n, "ww", n + 1) for n in range(5000)]) is None
