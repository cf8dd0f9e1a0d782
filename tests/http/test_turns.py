"""Whose calls run when: turns by what calls cost, counted by the order in which they run."""

from collections.abc import Callable

import pytest

from skerry.functions.right_of_way import RightOfWay
from skerry.http.turns import TurnQueue, Turns
from skerry.limits import (
    HTTP_CALLS_PER_TURN_MAX,
    TURN_CALL_US_MIN,
    TURN_DEBT_US_MAX,
    TURN_QUANTUM_US,
    TURN_SHARED_US,
    TURNS_SHARED,
)


class Loop:
    """Runs what is asked for soon, one turn at a time."""

    def __init__(self) -> None:
        self.soon: list[Callable[[], None]] = []
        self.turns = 0

    def call_soon(self, callback: Callable[[], None]) -> None:
        self.soon.append(callback)

    def turn(self) -> None:
        soon, self.soon = self.soon, []
        for callback in soon:
            callback()
        self.turns += 1

    def run(self) -> None:
        while self.soon:
            self.turn()


class Deployment:
    """Calls that cost what the test says. Shape: `ran` is shared: who ran, in order; `ends` counts."""

    def __init__(self, name: str, turns: Turns, ran: list[str]) -> None:
        self.name = name
        self.loop_ns = 0
        self.ends = 0
        self._turns = turns
        self._ran = ran
        self.queue = TurnQueue(self, self._end)

    def _end(self) -> None:
        self.ends += 1

    def ask(self, times: int, cost_us: int = 0) -> None:
        for _ in range(times):
            self._turns.ask(self.queue, lambda: self._run(cost_us))

    def _run(self, cost_us: int) -> None:
        self.loop_ns += cost_us * 1_000
        self._ran.append(self.name if self.queue.is_running else f"{self.name}, which is not running")


def world(*names: str) -> tuple[Loop, list[str], list[Deployment]]:
    loop, ran = Loop(), list[str]()
    turns = Turns(loop.call_soon, RightOfWay())
    return loop, ran, [Deployment(name, turns, ran) for name in names]


def test_alone_a_deployment_runs_a_whole_turn_and_is_told_once() -> None:
    loop, ran, (one,) = world("one")
    one.ask(HTTP_CALLS_PER_TURN_MAX + 1, cost_us=TURN_QUANTUM_US)
    loop.turn()
    assert (len(ran), one.ends) == (HTTP_CALLS_PER_TURN_MAX, 1)
    loop.turn()
    assert (len(ran), one.ends, loop.soon) == (HTTP_CALLS_PER_TURN_MAX + 1, 2, [])
    one.ask(1)
    loop.turn()
    assert len(ran) == HTTP_CALLS_PER_TURN_MAX + 2, "it is woken again"


def test_a_flood_delays_another_by_one_quantum_however_long_it_is() -> None:
    loop, ran, (flood, quiet) = world("flood", "quiet")
    flood.ask(10_000, cost_us=TURN_CALL_US_MIN)
    quiet.ask(1)
    loop.run()
    assert ran.index("quiet") <= TURN_QUANTUM_US // (2 * TURN_CALL_US_MIN) + 1
    assert ran.count("flood") == 10_000


def test_costly_calls_are_paid_for_with_turns() -> None:
    """One call of eight quanta, then others have as much before its deployment comes again."""
    loop, ran, (heavy, light) = world("heavy", "light")
    heavy.ask(2, cost_us=8 * TURN_QUANTUM_US)
    light.ask(1_000, cost_us=TURN_QUANTUM_US // 2 - TURN_CALL_US_MIN)
    loop.run()
    between = ran.index("heavy", 1) - ran.index("heavy")
    assert 15 <= between <= 18, "about eight quanta of two calls each"


def test_two_that_always_ask_get_the_same_time() -> None:
    loop, ran, (small, large) = world("small", "large")
    small.ask(5_000, cost_us=100 - TURN_CALL_US_MIN)
    large.ask(5_000, cost_us=1_000 - TURN_CALL_US_MIN)
    while "small" not in ran or ran.count("small") < 2_000:
        loop.turn()
    assert 0.9 < ran.count("small") / (10 * ran.count("large")) < 1.1


def test_a_debt_lasts_while_others_ask_and_ends_with_them() -> None:
    loop, ran, (heavy, light) = world("heavy", "light")
    light.ask(1)
    heavy.ask(1, cost_us=4 * TURN_QUANTUM_US)
    loop.run()
    assert heavy.queue.credit_ns < 0
    heavy.ask(1)
    light.ask(3)
    loop.run()
    assert ran[2:] == ["light", "light", "light", "heavy"]
    heavy.ask(1, cost_us=4 * TURN_QUANTUM_US)
    loop.run()
    heavy.ask(1)
    loop.turn()
    assert ran[-1] == "heavy" and not loop.soon, "alone it owes nobody"


def test_a_debt_has_a_bound() -> None:
    loop, _, (heavy, light) = world("heavy", "light")
    light.ask(1)
    heavy.ask(1, cost_us=TURN_DEBT_US_MAX + TURN_QUANTUM_US)
    loop.run()
    assert heavy.queue.credit_ns == -TURN_DEBT_US_MAX * 1_000
    heavy.ask(1, cost_us=TURN_DEBT_US_MAX * 3)
    light.ask(1)
    loop.run()
    assert heavy.queue.credit_ns >= -TURN_DEBT_US_MAX * 1_000


def test_shared_turns_end_soon_so_that_what_arrives_is_seen_and_long_ones_come_back() -> None:
    loop, ran, (one, two) = world("one", "two")
    one.ask(1)
    two.ask(1)
    loop.run()
    del ran[:]
    one.ask(100, cost_us=TURN_SHARED_US // 4 - TURN_CALL_US_MIN)
    loop.turn()
    assert len(ran) == 4
    loop.run()
    for _ in range(TURNS_SHARED):
        one.ask(1)
        loop.run()
    del ran[:]
    one.ask(100, cost_us=TURN_SHARED_US)
    loop.turn()
    assert len(ran) == 100


def test_what_raises_takes_nobody_elses_turn(caplog: pytest.LogCaptureFixture) -> None:
    loop, ran = Loop(), list[str]()
    turns = Turns(loop.call_soon, RightOfWay())
    quiet = Deployment("quiet", turns, ran)

    def fail() -> None:
        raise ValueError("nobody foresaw this")

    broken = TurnQueue(quiet, fail)
    for _ in range(2):  # also in a later turn
        turns.ask(broken, fail)
        turns.ask(broken, lambda: ran.append("broken"))
        quiet.ask(1)
        loop.run()
    assert sorted(ran) == ["broken", "broken", "quiet", "quiet"]
    assert quiet.ends == 2
    assert [record.exc_info[1].args for record in caplog.records if record.exc_info] == [("nobody foresaw this",)] * 4


def test_background_work_gives_way_from_the_first_call_that_is_asked_for_until_all_have_run() -> None:
    loop, ran, way = Loop(), list[str](), RightOfWay()
    one = Deployment("one", Turns(loop.call_soon, way), ran)
    assert way.taken == 0
    one.ask(2)
    assert way.taken == 1
    loop.run()
    assert way.taken == 0 and len(ran) == 2 and not way.is_shared


def test_slices_are_short_from_the_second_deployment_that_asks_until_one_was_alone_for_long_enough() -> None:
    loop, way = Loop(), RightOfWay()
    turns = Turns(loop.call_soon, way)
    one, other = (Deployment(name, turns, []) for name in ("one", "other"))
    one.ask(1)
    assert not way.is_shared
    other.ask(1)
    loop.run()
    for _ in range(TURNS_SHARED - 1):
        assert way.is_shared
        other.ask(1)
        loop.run()
    assert not way.is_shared
