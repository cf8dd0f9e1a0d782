"""Bringing connections to the newest state: how many in a turn, in which order, and what they share."""

from collections.abc import Callable
from functools import partial

import pytest

from skerry import limits
from skerry.http.sync_updates import Updates


class Client:
    """A connection that notes its turns. Shape: `then` is done within them."""

    def __init__(self, name: int, told: list[int], then: Callable[[], None] | None = None) -> None:
        self.name = name
        self.told = told
        self.then = then

    def update(self) -> None:
        self.told.append(self.name)
        if self.then is not None:
            self.then()


def test_bound_of_the_connections_of_a_turn() -> None:
    turns: list[Callable[[], None]] = []
    told: list[int] = []
    updates = Updates(turns.append)
    count = limits.SYNC_UPDATES_PER_TURN_MAX
    for name in range(count + 1):
        updates.ask(Client(name, told))
    assert len(turns) == 1
    turns.pop()()
    assert told == list(range(count)) and len(turns) == 1
    turns.pop()()
    assert told == list(range(count + 1)) and turns == []
    updates.ask(Client(0, told))
    assert len(turns) == 1


def test_one_that_asks_in_its_turn_or_fails_holds_up_nobody(caplog: pytest.LogCaptureFixture) -> None:
    turns: list[Callable[[], None]] = []
    told: list[int] = []
    updates = Updates(turns.append)
    updates.ask(Client(1, told, lambda: updates.ask(Client(4, told))))
    updates.ask(Client(2, told, partial(next, iter(()))))
    updates.ask(Client(3, told))
    while turns:
        turns.pop()()
    assert told == [1, 2, 3, 4]
    assert "could not be brought" in caplog.text


def test_connections_that_are_told_the_same_send_one_object() -> None:
    turns: list[Callable[[], None]] = []
    updates = Updates(turns.append)
    way = ((0, 0), 0, (1, 0), 7, ((3, b'"type":"QueryUpdated"}'),), ())
    text = updates.transitions.make(way)
    assert updates.transitions.make(way) is text and b'"queryId":3,' in text
    updates.ask(Client(1, []))
    turns.pop()()
    again = updates.transitions.make(way)
    assert again == text and again is not text, "nothing is kept once all were told"
