"""Every interleaving of small programs, and drawn ones of larger programs: each has the outcome of some serial order,
one in which what was answered before another began comes first.
"""

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.database.world import memory_world
from tests.fixtures.effort import drawn
from tests.proof.sides import HandSide, HandStage
from tests.proof.steps import Done, State, Step, on_transaction, serial_order

BOTH: State = {"x": 10, "y": 20}
PROGRAMS: dict[str, tuple[list[Step], list[Step]]] = {
    "write cycles": ([("set", "x", 11), ("set", "y", 21)], [("set", "x", 12), ("set", "y", 22)]),
    "circular flow": ([("set", "x", 11), ("get", "y")], [("set", "y", 22), ("get", "x")]),
    "predicates": ([("between", 25, 45), ("divisible", 3), ("set", "w", 1)], [("set", "z", 30), ("add", "x", 20)]),
    "lost update": ([("add", "x", 1), ("get", "x")], [("add", "x", 2), ("get", "x")]),
    "read skew": ([("get", "x"), ("get", "y"), ("set", "w", 1)], [("set", "x", 12), ("set", "y", 18)]),
    "write skew": ([("get", "y"), ("set", "x", 11)], [("get", "x"), ("set", "y", 21)]),
    "anti-dependency": ([("divisible", 3), ("set", "z", 30)], [("divisible", 3), ("set", "w", 42)]),
    "removal": ([("remove", "x"), ("between", 0, 99)], [("add", "x", 1), ("between", 0, 99)]),
    "caught failure": (
        [("nested", [("add", "x", 5)], True), ("add", "y", 1)],
        [("nested", [("add", "y", 7)], True), ("nested", [("add", "x", 1)], False)],
    ),
}


def interleavings(first: int, second: int) -> Iterator[tuple[int, ...]]:
    """Every order of so many moves of side 0 and of side 1."""
    if not first or not second:
        yield (0,) * first + (1,) * second
        return
    for rest in interleavings(first - 1, second):
        yield (0, *rest)
    for rest in interleavings(first, second - 1):
        yield (1, *rest)


class Played:
    """A schedule that was played: `moves` name the side that does its next step, or commits behind its last."""

    def __init__(
        self, programs: Sequence[list[Step]], moves: Sequence[int], kinds: tuple[str, ...], held: bool
    ) -> None:
        stage = HandStage(memory_world(), kinds, held=held)
        stage.begin(BOTH)
        self.kinds = kinds
        self.held = held
        self.sides: dict[int, HandSide] = {}
        self.began: dict[int, int] = {}
        self.begun: dict[int, int] = {}  # of the attempt that committed
        self.committed: dict[int, int] = {}
        self.conflicts = 0
        left = [list(program) for program in programs]
        for time, index in enumerate(moves):
            if index not in self.sides:
                self.sides[index] = HandSide(stage.world, detached=kinds[index] == "detached")
                self.began[index] = self.begun[index] = time
            if left[index]:
                self.sides[index].do(*left[index].pop(0))
            else:
                if not self.sides[index].commit():
                    self.conflicts += 1
                    self.begun[index] = time
                if not held:
                    stage.durable()
                self.committed[index] = time
        self.after = stage.state()
        stage.world.engine.close()

    def check(self) -> None:
        sides = [self.sides[index] for index in sorted(self.sides)]
        done: list[Done] = [(side.steps, side.answers) for side in sides]
        assert serial_order(BOTH, done, self.after, self._precedes) is not None, (self.kinds, done, self.after)

    def _precedes(self, i: int, j: int) -> bool:
        """Without syncs that are held back, who has committed was answered."""
        return not self.held and self.committed[i] < self.begun[j]

    @property
    def overlapped(self) -> bool:
        return any(i != j and self.began[i] < self.began[j] < self.committed[i] for i in self.sides for j in self.sides)


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_interleaving_of_two_is_serial(name: str) -> None:
    programs = PROGRAMS[name]
    conflicts = 0
    for moves in interleavings(*[len(program) + 1 for program in programs]):
        for kinds, held in product(product(("lane", "detached"), repeat=2), (False, True)):
            played = Played(programs, moves, kinds, held)
            played.check()
            assert played.overlapped or not played.conflicts or held, "who ran alone conflicted"
            conflicts += played.conflicts
    assert conflicts > 10, "the schedules did not get in each other's way"


keys = st.sampled_from("xyzw")
numbers = st.integers(1, 45)
simple_steps: st.SearchStrategy[Step] = st.one_of(
    st.tuples(st.just("get"), keys),
    st.tuples(st.just("set"), keys, numbers),
    st.tuples(st.just("add"), keys, numbers),
    st.tuples(st.just("remove"), keys),
    st.tuples(st.just("between"), numbers, numbers),
    st.tuples(st.just("divisible"), st.integers(2, 3)),
)
nested_steps = st.tuples(st.just("nested"), st.lists(simple_steps, min_size=1, max_size=2), st.booleans())
steps = st.one_of(simple_steps, simple_steps, nested_steps)
sides = st.tuples(st.lists(steps, min_size=1, max_size=4), st.sampled_from(("lane", "detached")))


@st.composite
def schedules(draw: st.DrawFn) -> tuple[list[list[Step]], list[int], tuple[str, ...], bool]:
    """Programs of two to four sides, the order of their moves, where each runs, and whether syncs are held back."""
    drawn_sides: list[Any] = draw(st.lists(sides, min_size=2, max_size=4))
    moves = [index for index, (program, _) in enumerate(drawn_sides) for _ in range(len(program) + 1)]
    order = draw(st.permutations(moves))
    return [program for program, _ in drawn_sides], order, tuple(kind for _, kind in drawn_sides), draw(st.booleans())


@drawn(250)
@given(schedules())
def test_drawn_schedules_are_serial(schedule: tuple[list[list[Step]], list[int], tuple[str, ...], bool]) -> None:
    Played(*schedule).check()


def test_the_check_knows_what_is_not_serial() -> None:
    """Write skew, a lost update, a phantom and a vanished write, as answers that no order gives."""
    skew: list[Done] = [([("get", "y"), ("set", "x", 1)], [20, None]), ([("get", "x"), ("set", "y", 2)], [10, None])]
    assert serial_order(BOTH, skew, {"x": 1, "y": 2}) is None
    lost: list[Done] = [([("add", "x", 1)], [11]), ([("add", "x", 1)], [11])]
    assert serial_order(BOTH, lost, {"x": 11, "y": 20}) is None
    phantom: list[Done] = [
        ([("between", 0, 99), ("between", 0, 99)], [[10, 20], [10, 20, 30]]),
        ([("set", "z", 30)], [None]),
    ]
    assert serial_order(BOTH, phantom, {**BOTH, "z": 30}) is None
    vanished: list[Done] = [([("set", "x", 1)], [None])]
    assert serial_order(BOTH, vanished, BOTH) is None
    stale: list[Done] = [([("set", "x", 1)], [None]), ([("get", "x")], [10])]
    assert serial_order(BOTH, stale, {"x": 1, "y": 20}) == (1, 0)
    assert serial_order(BOTH, stale, {"x": 1, "y": 20}, lambda i, j: (i, j) == (0, 1)) is None


def test_the_model_and_a_transaction_do_the_same() -> None:
    world = memory_world()
    stage = HandStage(world, ("lane",))
    stage.begin(BOTH)
    side = stage.side()
    state = dict(BOTH)
    program: list[Any] = [step for programs in PROGRAMS.values() for program in programs for step in program]
    done: list[Done] = [(program, [side.do(*step) for step in program])]
    assert side.commit()
    assert serial_order(state, done, stage.state()) == (0,)
    assert world.read(lambda t: on_transaction(t, ("get", "nobody"))) is None
    world.engine.close()
