"""Commit timestamps, stale snapshots, and limits of called functions, as functions in TypeScript see them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from skerry import limits
from skerry.database import retain
from skerry.errors import SkerryError
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


@pytest.mark.parametrize("is_patient", [False, True])
def test_queries_that_share_a_time_read_one_state(app: World, is_patient: bool) -> None:
    """As the queries of a batch do, whatever is written between them and wherever they run."""
    app.mutation("r:add", {"value": {"n": 1}})
    assert app.deployment.version is not None
    at = ReadTime()
    first = app.call("query", "r:all", {}, at=at)
    for n in range(3):
        app.mutation("r:add", {"value": {"n": n}})
    app.deployment.version.functions["r:all"].slowness = SLOW if is_patient else 0
    second = app.call("query", "r:all", {}, at=at)
    assert app.deployment.lane.calls_patient == is_patient
    assert first.value == second.value and len(orjson.loads(first.value)) == 1
    assert first.ts == second.ts == at.ts
    assert len(app.query("r:all")) == 4


def test_a_time_that_is_not_kept_or_not_yet_there_is_refused(app: World) -> None:
    first = app.call("mutation", "r:add", {"value": {"n": 1}}).ts
    assert first is not None
    app.mutation("r:add", {"value": {"n": 2}})
    newest = app.deployment.database.durable_ts
    for ts, code, status in ((first - 1, "OutOfRetention", 503), (newest + 1, "TimestampInFuture", 400)):
        if code == "OutOfRetention":
            while retain(app.deployment.database, newest, 50):
                app.mutation("r:add", {"value": {"n": 3}})
        for is_patient in (False, True):
            assert app.deployment.version is not None
            app.deployment.version.functions["r:all"].slowness = SLOW if is_patient else 0
            at = ts if code == "OutOfRetention" else app.deployment.database.durable_ts + 1
            with pytest.raises(SkerryError, check=lambda e, code=code: e.code == code) as caught:
                app.call("query", "r:all", {}, at=ReadTime(at))
            assert caught.value.spec.http_status == status
    assert app.deployment.lane.in_flight == 0


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


# -- every way to read -----------------------------------------------------------------------------------------------

INVALID = {"isConvexSystemError": True, "paginationError": "InvalidCursor"}


def test_cursors_of_others_are_refused_in_the_form_that_clients_know(app: World) -> None:
    for n in range(5):
        app.now_ns += 1_000_000
        app.mutation("r:add", {"value": {"n": n}})
    first = app.query("r:list", {"numItems": 2, "cursor": None})
    cursor = first["continueCursor"]
    assert [row["n"] for row in app.query("r:list", {"numItems": 2, "cursor": cursor})["page"]] == [2, 3]
    for path, args in (
        ("r:listAlike", {"numItems": 2, "cursor": cursor}),
        ("r:list", {"numItems": 2, "cursor": cursor, "order": "desc"}),
        ("r:list", {"numItems": 2, "cursor": cursor[:-4]}),
        ("r:list", {"numItems": 2, "cursor": None, "endCursor": "forged"}),
    ):
        result = app.call("query", path, args)
        assert not result.ok and "InvalidCursor" in result.error_message, path
        assert orjson.loads(result.error_data or b"null") == INVALID
    data, message = app.query("r:catchBadCursor")
    assert data == INVALID and "InvalidCursor" in message


def test_the_ways_to_read(app: World) -> None:
    for n in (3, 1, 2):
        app.mutation("r:add", {"value": {"n": n}})
    assert app.query("r:ways") == {
        "iterated": [1, 2],
        "taken": [1, 2],
        "none": None,
        "one": 1,
        "got": [1, 1],
        "count": 3,
        "normalized": [True, None, None],
    }


@pytest.mark.parametrize(
    ("how", "text"),
    [
        ("unique", "unique() query returned more than one result"),
        ("otherTable", 'Id<"items">'),
        ("userBySystem", "User tables cannot be accessed with db.system."),
        ("systemByUser", "System tables can only be accessed"),
    ],
)
def test_reading_that_fails_says_why(app: World, how: str, text: str) -> None:
    for n in range(2):
        app.mutation("r:add", {"value": {"n": n}})
    assert text in app.failure("query", "r:fails", {"how": how})


def test_system_tables_are_there_and_empty(app: World) -> None:
    assert app.query("r:system") == [[], None, None, True, [], None, None, _ONE_PAGE]


_ONE_PAGE = (
    "This query or mutation function ran multiple paginated queries. Convex only supports a single paginated query in "
    "each function."
)


def test_a_function_near_a_limit_is_warned(app: World) -> None:
    most = limits.TRANSACTION_RANGES_READ_MAX
    at = -(-most * limits.USAGE_WARNING_PERCENT // 100)
    assert app.call("query", "r:readMany", {"count": at - 1}).log_lines == []
    (line,) = app.call("query", "r:readMany", {"count": at}).log_lines
    assert line.startswith(f"[WARN] Many reads in a single function execution (actual: {at}, limit: {most}).")
    assert app.call("query", "r:readMany", {"count": most}).ok
    text = app.failure("query", "r:readMany", {"count": most + 1})
    assert f"Too many reads in a single function execution (limit: {most}). Consider using smaller limits" in text
