"""The ten anomalies of the Hermitage suite, by their names: each schedule is played by hand on real transactions, and
the anomaly does not come about.

Each is played by transactions beside the lane, by the lane against them (also with commits that are not durable yet),
with every step in a sub-transaction after one that failed, and by mutations of a real app on background threads. That a
schedule really interleaved is shown in each: one side conflicts and is run again (`commit()` is False), or reads what
another one has replaced since.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.database.world import lmdb_world, memory_world
from tests.fixtures.world import World as AppWorld
from tests.proof.apps import proof_bundle
from tests.proof.sides import HandStage, PatientStage

Stage = HandStage | PatientStage

BOTH = {"x": 10, "y": 20}
HANDS = {
    "beside the lane": lambda _: HandStage(memory_world(), ("detached",)),
    "beside the lane, on disk": lambda path: HandStage(lmdb_world(path), ("detached",)),
    "in the lane": lambda _: HandStage(memory_world(), ("lane",)),
    "the lane against one beside it": lambda _: HandStage(memory_world(), ("lane", "detached")),
    "one beside it against the lane": lambda _: HandStage(memory_world(), ("detached", "lane")),
    "before commits are durable": lambda _: HandStage(memory_world(), ("lane", "detached"), held=True),
    "in the lane, before commits are durable": lambda _: HandStage(memory_world(), ("lane",), held=True),
    "in sub-transactions": lambda _: HandStage(memory_world(), ("detached",), nested=True),
}


@pytest.fixture(scope="module")
def app(compiled: Path, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AppWorld]:
    with AppWorld(tmp_path_factory.mktemp("hermitage"), compiled) as world:
        world.activate(proof_bundle(base))
        yield world


@pytest.fixture(params=[*HANDS, "mutations of an app"])
def stage(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    if request.param in HANDS:
        made = HANDS[request.param](tmp_path)
        made.begin(BOTH)
        yield made
        made.world.engine.close()
    else:
        patient = PatientStage(request.getfixturevalue("app"), monkeypatch)
        patient.world.mutation("proof:run", {"steps": [["remove", key] for key in ("x", "y", "z", "w", "lost")]})
        patient.begin(BOTH)
        yield patient


def test_g0_write_cycles(stage: Stage) -> None:
    """Two write both cells in turns: what is left is all of one's, never one cell of each."""
    one, two = stage.side(), stage.side()
    one.do("set", "x", 11)
    two.do("set", "x", 12)
    one.do("set", "y", 21)
    assert one.commit()
    two.do("set", "y", 22)
    assert not two.commit()
    assert stage.state() == {"x": 12, "y": 22}


def test_g1a_aborted_reads(stage: Stage) -> None:
    """What is given up was seen by nobody."""
    one, two = stage.side(), stage.side()
    one.do("set", "x", 101)
    assert one.do("get", "x") == 101
    assert two.do("get", "x") == 10
    one.abort()
    assert two.do("get", "x") == 10
    two.do("set", "y", 21)
    assert two.commit(), "what was given up conflicts with nobody"
    assert stage.state() == {"x": 10, "y": 21}


def test_g1b_intermediate_reads(stage: Stage) -> None:
    """A value that its writer replaced before it committed was seen by nobody."""
    one, two = stage.side(), stage.side()
    one.do("set", "x", 101)
    assert two.do("get", "x") == 10
    one.do("set", "x", 11)
    assert one.commit()
    assert two.do("get", "x") == 10, "it reads what was there when it began"
    two.do("set", "y", 21)
    assert not two.commit()
    assert two.answers[:2] == [11, 11], "and run again, the last value"


def test_g1c_circular_information_flow(stage: Stage) -> None:
    """Two that each read what the other one writes do not both see the other."""
    one, two = stage.side(), stage.side()
    one.do("set", "x", 11)
    two.do("set", "y", 22)
    assert one.do("get", "y") == 20
    assert two.do("get", "x") == 10
    assert one.commit()
    assert not two.commit()
    assert one.answers[1] == 20 and two.answers[1] == 11, "the second saw the first, the first not the second"
    assert stage.state() == {"x": 11, "y": 22}


def test_otv_observed_transaction_vanishes(stage: Stage) -> None:
    """Who saw one write of a transaction sees its others too, and goes on seeing them."""
    one = stage.side()
    one.do("set", "x", 11)
    one.do("set", "y", 19)
    assert one.commit()
    stage.durable()
    two, three = stage.side(), stage.side()
    two.do("set", "x", 12)
    assert three.do("get", "x") == 11
    two.do("set", "y", 18)
    assert two.commit()
    assert three.do("get", "y") == 19, "not 18 beside 11"
    assert three.do("get", "x") == 11
    three.do("set", "z", 1)
    assert not three.commit()
    assert three.answers[:3] == [12, 18, 12]


def test_pmp_predicate_many_preceders(stage: Stage) -> None:
    """A range that was read empty stays so: a new document in it is seen by no later read."""
    one, two = stage.side(), stage.side()
    assert one.do("between", 30, 40) == []
    assert one.do("divisible", 3) == []
    two.do("set", "z", 30)
    assert two.commit()
    assert one.do("between", 25, 35) == []
    assert one.do("divisible", 3) == []
    one.do("set", "w", 50)
    assert not one.commit()
    assert one.answers[:4] == [[30]] * 4


def test_pmp_for_predicates_of_writes(stage: Stage) -> None:
    """What is removed because of its value is what has it: the value changes under the remover, who looks again."""
    one, two = stage.side(), stage.side()
    one.do("add", "x", 10)
    one.do("add", "y", 10)
    assert two.do("between", 20, 20) == [20], "that is y; with one's writes it is x"
    assert one.commit()
    two.do("remove", "y")
    assert not two.commit()
    assert two.answers[0] == [20]
    assert stage.state() == {"x": 20}


def test_p4_lost_update(stage: Stage) -> None:
    """Two add to what they read: both sums count."""
    one, two = stage.side(), stage.side()
    assert one.do("add", "x", 1) == 11
    assert two.do("add", "x", 1) == 11
    assert one.commit()
    assert not two.commit()
    assert two.answers == [12]
    assert stage.state() == {"x": 12, "y": 20}


def test_g_single_read_skew(stage: Stage) -> None:
    """One read before and one after another's commit belong to one state."""
    one, two = stage.side(), stage.side()
    assert one.do("get", "x") == 10
    assert two.do("get", "x") == 10
    assert two.do("get", "y") == 20
    two.do("set", "x", 12)
    two.do("set", "y", 18)
    assert two.commit()
    assert one.do("get", "y") == 20
    assert one.do("between", 15, 25) == [20]
    one.do("set", "z", 1)
    assert not one.commit()
    assert one.answers[:2] == [12, 18]


def test_g2_item_write_skew(stage: Stage) -> None:
    """Two read both cells and each writes another one: they do not both commit on what they read."""
    one, two = stage.side(), stage.side()
    for side in (one, two):
        assert [side.do("get", "x"), side.do("get", "y")] == [10, 20]
    one.do("set", "x", 11)
    two.do("set", "y", 21)
    assert one.commit()
    assert not two.commit()
    assert two.answers[:2] == [11, 20]


@pytest.mark.parametrize("look", [("divisible", 3), ("between", 30, 50)], ids=["by a filter", "in an index range"])
def test_g2_anti_dependency_cycles(stage: Stage, look: tuple[str, float]) -> None:
    """Two find nothing of a kind and each adds one of it: they do not both commit on having found nothing."""
    one, two = stage.side(), stage.side()
    for side in (one, two):
        assert side.do(*look) == []
    one.do("set", "z", 30)
    two.do("set", "w", 42)
    assert one.commit()
    assert not two.commit()
    assert two.answers[0] == [30]
    assert stage.state() == {**BOTH, "z": 30, "w": 42}


def test_disjoint_sides_do_not_conflict(stage: Stage) -> None:
    """The control of the control: a conflict tells of a shared cell, not of having been there at the same time."""
    one, two = stage.side(), stage.side()
    one.do("add", "x", 1)
    two.do("add", "y", 1)
    assert two.do("between", 19, 25) == [21]
    assert one.commit()
    assert two.commit()
    assert stage.state() == {"x": 11, "y": 21}
