"""Kept answers of mutations: found while they count, forgotten in bounded steps, and in nobody's way."""

from collections.abc import Callable
from pathlib import Path

import pytest

from skerry import limits
from skerry.backup.taking import Taking
from skerry.database import answer_write, answers, find_answer, first_answer_ts, forget_answers, verify
from skerry.storage import StorageSnapshot, Tree, Write
from tests.database.world import World

SECOND_NS = 1_000_000_000
PERIOD_NS = limits.ANSWERS_PERIOD_SECONDS * SECOND_NS
KEPT_NS = limits.ANSWERS_KEPT_SECONDS * SECOND_NS
# The first moment of a period, so that each bound is met on the nanosecond.
BEGIN_NS = 3_000 * PERIOD_NS


def keep(world: World, *answered: tuple[bytes, int], says: bytes = b"said") -> None:
    world.engine.commit([answer_write(name, ts, says) for name, ts in answered]).result(20)


def kept(world: World) -> int:
    world.engine.commit([]).result(20)
    snapshot = world.engine.snapshot()
    try:
        return sum(1 for key, _ in snapshot.scan(Tree.META, b"", None, False) if key.startswith(answers.PREFIX))
    finally:
        snapshot.close()


def find(world: World, name: bytes, now_ns: int) -> answers.Answer | None:
    snapshot: StorageSnapshot = world.engine.snapshot()
    try:
        return find_answer(lambda key: snapshot.get(Tree.META, key), now_ns, name)
    finally:
        snapshot.close()


@pytest.mark.parametrize("ts", [BEGIN_NS, BEGIN_NS + PERIOD_NS - 1])
def test_an_answer_is_found_for_as_long_as_it_is_to_be_kept(world: World, ts: int) -> None:
    keep(world, (b"a", ts))
    for now_ns in (ts, ts + PERIOD_NS, ts + KEPT_NS):
        assert not forget_answers(world.database, now_ns) and kept(world) == 1
        assert find(world, b"a", now_ns) == (ts, b"said")
    assert find(world, b"b", ts) is None


def test_a_period_is_forgotten_once_the_last_of_its_answers_counts_no_more(world: World) -> None:
    last = BEGIN_NS + PERIOD_NS - 1
    keep(world, (b"a", BEGIN_NS), (b"b", last), (b"c", last + 1))
    forget_answers(world.database, last + KEPT_NS)
    assert kept(world) == 3
    forget_answers(world.database, last + KEPT_NS + 1)
    assert kept(world) == 1
    assert find(world, b"c", last + KEPT_NS + 1) == (last + 1, b"said")
    assert find(world, b"a", last + KEPT_NS + 1) is None


@pytest.mark.parametrize("past", [0, 1])
def test_bound_of_the_answers_that_a_step_forgets(world: World, past: int) -> None:
    count = limits.ANSWERS_STEP_KEYS + past
    keep(world, *[(number.to_bytes(8, "big"), BEGIN_NS) for number in range(count)])
    now_ns = BEGIN_NS + KEPT_NS + PERIOD_NS
    assert forget_answers(world.database, now_ns) is True
    assert kept(world) == past
    assert forget_answers(world.database, now_ns) is False
    assert kept(world) == 0


@pytest.mark.parametrize("past", [0, 1])
def test_bound_of_the_bytes_that_a_step_reads(world: World, past: int) -> None:
    header = len(answer_write(b"", 0, b"")[2] or b"")
    half = bytes(limits.ANSWERS_STEP_BYTES // 2 - header)
    keep(world, (b"a", BEGIN_NS), says=half[past:])
    keep(world, (b"b", BEGIN_NS), (b"c", BEGIN_NS), says=half)
    forget_answers(world.database, BEGIN_NS + KEPT_NS + PERIOD_NS)
    assert kept(world) == 1 - past


def test_answers_are_sound_and_stay_out_of_backups(world: World) -> None:
    world.insert_all("t", [{"n": 1}])
    plain = _backup(world)
    keep(world, (b"a", world.database.durable_ts), says=b"a word that only the answer has")
    snapshot = world.engine.snapshot()
    try:
        assert verify(snapshot).is_sound
    finally:
        snapshot.close()
    assert _backup(world) == plain


def _backup(world: World) -> bytes:
    snapshot = world.engine.snapshot()
    try:
        taking = Taking(snapshot, _no_bundle, name="d", now_ms=1, documents=1)
        return b"".join(taking.pieces())
    finally:
        snapshot.close()


def _no_bundle(digest: str) -> Path:
    raise AssertionError(digest)


def test_an_answer_counts_as_what_its_mutation_wrote(world: World) -> None:
    def commit(also: Callable[[int], list[Write]] | None) -> int:
        before = world.database.space.used_bytes
        transaction = world.begin()
        transaction.insert("notes", {"text": "same"})
        world.database.commit(transaction, b"{}", lambda _: None, also)
        world.settle()
        return world.database.space.used_bytes - before

    def answer(ts: int) -> list[Write]:
        return [answer_write(b"name", ts, b"x" * 1000)]

    def fail(ts: int) -> list[Write]:
        raise ValueError(ts)

    commit(None)
    ((_, key, value),) = answer(1)
    assert value is not None and commit(answer) - commit(None) == len(key) + len(value)
    with pytest.raises(ValueError):
        commit(fail)
    assert commit(None), "the lane goes on"
    source = {"type": "FullTableScan", "tableName": "notes", "order": None}
    there = world.read(lambda t: t.collect_query({"source": source, "operators": []}))
    assert there.count(b'"same"') == 5 - 1, "nothing of what failed"


def test_periods_before_the_oldest_answer_are_not_looked_in(world: World) -> None:
    world.insert_all("t", [{"n": 1}])
    newest = world.database.durable_ts
    assert first_answer_ts(world.database) == newest, "there is none yet"
    oldest = newest - KEPT_NS
    keep(world, (b"b", newest), (b"a", oldest))
    since = first_answer_ts(world.database)
    assert since == oldest
    asked: list[bytes] = []

    def stored(key: bytes) -> None:
        asked.append(key)

    counts: list[int] = []
    for since_ts in (0, oldest, newest):
        assert find_answer(stored, newest, b"c", since_ts) is None
        counts.append(len(asked))
        asked.clear()
    assert counts == [3, 3, 1]
