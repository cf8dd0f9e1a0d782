"""Commit timestamps, stale snapshots, and limits of called functions, as functions in TypeScript see them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from skerry import limits
from skerry.functions.request import ReadTime
from skerry.value import Int64, decode
from tests.fixtures.reading_bundle import reading_bundle
from tests.fixtures.world import World

SLOW = 8


@pytest.fixture
def app(empty: World, base: Path) -> Iterator[World]:
    empty.activate(reading_bundle(base))
    yield empty


def value(app: World, kind: str, path: str, args: Any = None) -> Any:
    result = app.call(kind, path, args or {})
    assert result.ok, result.error_message
    return decode(orjson.loads(result.value))


# -- commit timestamps -----------------------------------------------------------------------------------------------


def test_a_commit_timestamp_is_that_of_its_commit(app: World) -> None:
    stamps = {name: app.call("mutation", "r:stamp", {"name": name}).ts for name in ("one", "two", "three")}
    stamps["four"] = app.call("mutation", "r:stampThroughArguments", {"name": "four"}).ts
    events = value(app, "query", "r:all", {"table": "events"})
    assert {event["name"]: event["at"].value for event in events} == stamps
    newest = value(app, "query", "r:newestEvent")
    assert (newest["name"], newest["at"]) == ("four", Int64(stamps["four"] or 0))


def test_within_its_mutation_it_is_not_known_and_sorts_last(app: World) -> None:
    app.mutation("r:stamp", {"name": "earlier"})
    assert app.mutation("r:stampAndRead") == {
        "isPlaceholder": True,
        "nestedIsPlaceholder": True,
        "text": "[unresolved commit timestamp]",
        "names": ["earlier", "mine"],
        "grew": 1,
    }


@pytest.mark.parametrize("how", ["collect", "get", "plain"])
def test_a_mutation_cannot_return_what_is_not_known_yet(app: World, how: str) -> None:
    result = app.call("mutation", "r:returnStamp", {"how": how})
    assert (result.ok, result.error_code) == (False, "InvalidValue")
    assert "A commit timestamp is a value inside a mutation only" in result.error_message
    assert value(app, "query", "r:all", {"table": "events"}) == [], "what it wrote is gone with it"


@pytest.mark.parametrize(
    ("how", "text"),
    [
        ("range", "A commit timestamp is a value inside a mutation only"),
        ("filter", "A commit timestamp is a value inside a mutation only"),
        ("int64", "Value does not match validator"),
    ],
)
def test_it_stands_in_documents_only(app: World, how: str, text: str) -> None:
    assert text in app.failure("mutation", "r:misuseStamp", {"how": how})


def test_callers_cannot_send_one(app: World) -> None:
    args = {"name": "forged", "at": {"$commitTs": None}}
    result = app.call("mutation", "r:insertEvent", args)
    assert (result.ok, result.error_code) == (False, "InvalidValue")


def test_the_snapshot_lies_before_the_commit(app: World) -> None:
    app.mutation("r:stamp", {"name": "early"})
    early = value(app, "query", "r:newestEvent")["at"]
    result = app.call("mutation", "r:snapshots")
    own, nested, stale = decode(orjson.loads(result.value))
    late = value(app, "query", "r:newestEvent")["at"]
    assert early == own == nested == stale
    assert late == Int64(result.ts or 0)
    assert late.value > own.value
    assert value(app, "query", "r:snapshotTs") == late
    past = app.call("query", "r:snapshotTs", {}, at=ReadTime(early.value))
    assert decode(orjson.loads(past.value)) == early


# -- stale snapshots -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stale", [False, True])
@pytest.mark.parametrize("is_patient", [False, True])
def test_a_stale_snapshot_is_where_the_mutation_began_and_conflicts_with_nothing(
    app: World, stale: bool, is_patient: bool
) -> None:
    app.mutation("r:add", {"value": {"n": 0}})
    assert app.deployment.version is not None
    database = app.deployment.database
    commit, added = database.commit, list[Any]()

    def hooked(transaction: Any, *rest: Any) -> None:
        if transaction.detached and not added:
            added.append(app.start("mutation", "r:add", {"value": {"n": 2}}))
        commit(transaction, *rest)

    if is_patient:
        app.deployment.version.functions["r:staleCount"].slowness = SLOW
        database.commit = hooked  # pyright: ignore[reportAttributeAccessIssue] - the test's hand on the real one
    counted = app.mutation("r:staleCount", {"stale": stale})
    for future in added:
        app.finish(future)
    runs_again = is_patient and not stale
    assert counted == (1 if stale else 3 if runs_again else 2), "its own item, the first, and what came between"
    assert bool(app.deployment.lane.conflicts) is runs_again


def test_a_query_has_no_stale_snapshot(app: World) -> None:
    assert "`useStaleSnapshot` is only supported in mutations, not queries." in app.failure("query", "r:staleInQuery")


# -- limits of called functions --------------------------------------------------------------------------------------


def test_a_called_function_keeps_its_limits_and_is_rolled_back(app: World) -> None:
    for n in range(7):
        app.mutation("r:add", {"value": {"n": n}})
    metrics, read, items = app.mutation(
        "r:limited", {"limits": {"documentsWritten": 3, "documentsRead": 3}, "count": 3}
    )
    assert metrics["documentsWritten"] == {"used": 3, "remaining": 0}
    assert metrics["documentsRead"] == {"used": 3, "remaining": 0}
    assert metrics["databaseQueries"]["used"] == 1
    assert read == {"used": 10, "remaining": limits.TRANSACTION_DOCUMENTS_READ_MAX - 10}
    assert items == 10
    message, _, items = app.mutation("r:limited", {"limits": {"documentsWritten": 3}, "count": 4})
    assert "Too many writes in a single function execution (limit: 3)" in message
    assert items == 10, "what it wrote is gone, and its caller may go on"
    message, _, _ = app.mutation("r:limited", {"limits": {"documentsRead": 3}, "count": 4})
    assert "Too many documents read in a single function execution (limit: 3)." in message
    for name, text in (
        ("databaseQueries", "Too many reads"),
        ("bytesWritten", "Too many bytes written"),
        ("bytesRead", "Too many bytes read"),
    ):
        message, _, _ = app.mutation("r:limited", {"limits": {name: 0}, "count": 1})
        assert text in message and "(limit: 0" in message


def test_limits_can_be_lowered_and_not_raised(app: World) -> None:
    app.mutation("r:add", {"value": {"n": 1}})
    first, second, outer = app.query("r:limitedDeeper")
    assert first["documentsRead"] == {"used": 1, "remaining": 4}
    assert second["documentsRead"] == {"used": 1, "remaining": limits.TRANSACTION_DOCUMENTS_READ_MAX - 2}
    assert outer["documentsRead"] == {"used": 2, "remaining": limits.TRANSACTION_DOCUMENTS_READ_MAX - 2}
    assert outer["filesRead"] == {"used": 0, "remaining": 0}


@pytest.mark.parametrize(
    "bad", [{"documents": 1}, {"documentsRead": -1}, {"documentsRead": 0.5}, {"documentsRead": "1"}, []]
)
def test_limits_that_are_none_are_refused(app: World, bad: Any) -> None:
    message, _, _ = app.mutation("r:limited", {"limits": bad, "count": 1})
    assert "Invalid argument `transactionLimits`" in message
