"""Long mutations beside the lane: they are not starved, and what comes between them is named."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from skerry import limits
from skerry.database import Conflict, Transaction
from skerry.errors import SystemFault
from skerry.functions.conflict_report import conflict_message, conflict_report
from tests.fixtures.reading_bundle import reading_bundle
from tests.fixtures.world import World

SLOW = 8


@pytest.fixture
def app(empty: World, base: Path) -> Iterator[World]:
    empty.activate(reading_bundle(base))
    empty.mutation("r:add", {"value": {"n": 0, "kind": "a"}})
    yield empty


def beside_the_lane(app: World, function: str, before_commit: Callable[[], None]) -> list[Any]:
    """Sends a function's calls to the background, and has something done just before each of its commits."""
    assert app.deployment.version is not None
    app.deployment.version.functions[function].slowness = SLOW
    database = app.deployment.database
    commit = database.commit
    attempts: list[Any] = []

    def hooked(transaction: Transaction, *rest: Any) -> None:
        if transaction.detached:
            attempts.append(transaction)
            before_commit()
        commit(transaction, *rest)

    database.commit = hooked  # pyright: ignore[reportAttributeAccessIssue] - the test's hand on the real one
    return attempts


def test_a_long_mutation_is_not_starved_by_short_ones_that_never_stop(app: World) -> None:
    quick: list[Any] = []
    attempts = beside_the_lane(app, "r:slowBump", lambda: quick.append(app.start("mutation", "r:bump")))
    result = app.finish(app.start("mutation", "r:slowBump"))
    assert result.ok, result.error_message
    assert len(attempts) == limits.CONFLICT_RETRIES_MAX + 1, "the lane was held for the last one"
    assert app.deployment.lane.conflicts == limits.CONFLICT_RETRIES_MAX
    counted = sorted([orjson.loads(result.value), *(orjson.loads(app.finish(future).value) for future in quick)])
    assert counted == list(range(1, 2 + len(quick))), "each saw all that was committed before it"
    (document,) = app.query("r:all")
    (line,) = result.log_lines
    assert line == (
        f"[WARN] This mutation was run {limits.CONFLICT_RETRIES_MAX + 1} times, because of conflicts. The last one: "
        f'r:bump changed document "{document["_id"]}" of table "items", which r:slowBump had read by its id.'
    )


@pytest.mark.parametrize(("kind", "conflicts"), [("a", True), ("b", False)])
def test_a_range_conflicts_with_a_write_inside_it_and_is_named(app: World, kind: str, conflicts: bool) -> None:
    added: list[Any] = []

    def add() -> None:
        if not added:
            added.append(app.start("mutation", "r:add", {"value": {"n": 7, "kind": kind}}))

    beside_the_lane(app, "r:slowCount", add)
    result = app.finish(app.start("mutation", "r:slowCount", {"kind": "a"}))
    assert orjson.loads(result.value) == (2 if conflicts else 1)
    document_id = orjson.loads(app.finish(added[0]).value)
    if not conflicts:
        assert result.log_lines == []
        return
    (line,) = result.log_lines  # it may have begun again before that write was durable
    assert line.endswith(
        f'r:add changed document "{document_id}" of table "items", which r:slowCount had read in a range of index '
        'items.by_kind that holds kind: "a", n: 7.0.'
    )


def test_a_conflict_that_ends_a_call_reads_as_documented(app: World) -> None:
    database = app.deployment.database
    reader = database.begin(writable=True, now_ms=1, seed=b"s" * 16, detached=True)
    (document,) = app.query("r:all")
    reader.get(document["_id"])
    reader.insert("counts", {})
    app.mutation("r:bump")
    with pytest.raises(Conflict) as caught:
        database.commit(reader, b"", lambda outcome: None)
    assert conflict_message(caught.value, "r:slow") == (
        'Documents read from or written to the "items" table changed while this mutation was being run and on every '
        f'subsequent retry. r:bump changed document "{document["_id"]}" of table "items", which r:slow had read by its '
        "id. See https://docs.convex.dev/error#1"
    )
    plain = Conflict("The storage failed while the transaction ran.")
    assert conflict_message(plain, "r:slow") == plain.message
    assert conflict_report(plain, "r:slow") == f"{plain.message} The function is r:slow."
    assert isinstance(plain, SystemFault) and plain.spec.http_status == 503
