"""Pages: they never skip or repeat, keep their bounds, and say when they should be split."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from orjson import loads

from skerry import limits
from skerry.database import page as page_module
from skerry.database.cursor import Position, open_cursor, seal_cursor
from skerry.errors import DeveloperError
from tests.database.world import World, memory_world, range_query, scan_query, table_schema


def fails(code: str, message: str | None = None):
    return pytest.raises(DeveloperError, check=lambda e: e.code == code and (message is None or message in e.message))


def page(
    world: World,
    query: Any,
    cursor: str | None,
    size: int,
    end: str | None = None,
    journal: str | None = None,
    **caps: int,
) -> dict[str, Any]:
    t = world.begin(writable=False, journal=journal)
    try:
        answer = loads(t.page(query, cursor, end, size, **caps))
        assert t.journal_out == answer["continueCursor"]
        return answer
    finally:
        t.abort()


def numbers(answer: dict[str, Any]) -> list[int]:
    return [row["n"] for row in answer["page"]]


@settings(max_examples=60)
@given(
    ns=st.lists(st.integers(0, 30), max_size=40),
    size=st.integers(1, 8),
    rows=st.one_of(st.none(), st.integers(1, 5)),
    descending=st.booleans(),
    data=st.data(),
)
def test_pages_never_skip_or_repeat_and_keep_their_bounds(ns, size, rows, descending, data) -> None:
    world = memory_world()
    world.schema(table_schema("t", {"by_n": ["n"]}))
    world.insert_all("t", [{"n": n} for n in ns])
    odd = {"filter": {"$neq": [{"$mod": [{"$field": "n"}, {"$literal": 3}]}, {"$literal": 0}]}}
    query = range_query("t.by_n", [], "desc" if descending else "asc", [odd])
    cursor, cursors, seen = None, [], []
    while True:
        answer = page(world, query, cursor, size, maximum_rows_read=rows)
        assert len(answer["page"]) <= size
        cursors.append((cursor, answer["continueCursor"], answer["splitCursor"]))
        seen += numbers(answer)
        cursor = answer["continueCursor"]
        if answer["isDone"]:
            break
    assert seen == sorted((n for n in ns if n % 3), reverse=descending)
    added = data.draw(st.lists(st.integers(0, 30), max_size=5))
    world.insert_all("t", [{"n": n} for n in added])
    again, halves = [], []
    for start, end, split in cursors:
        whole = page(world, query, start, 1, end)
        assert whole == page(world, query, start, size, None, end)
        again += numbers(whole)
        assert whole["continueCursor"] == end
        for left, right in [(start, split), (split, end)] if split else [(start, end)]:
            halves += numbers(page(world, query, left, 1, right))
    assert again == halves == sorted((n for n in [*ns, *added] if n % 3), reverse=descending)
    world.engine.close()


def test_a_page_that_ends_with_the_last_document_is_not_done(memory: World) -> None:
    memory.insert_all("t", [{"n": n} for n in range(4)])
    answer = page(memory, scan_query("t"), None, 4)
    assert numbers(answer) == [0, 1, 2, 3] and not answer["isDone"] and answer["pageStatus"] is None
    last = page(memory, scan_query("t"), answer["continueCursor"], 4)
    assert last == {**last, "page": [], "isDone": True, "splitCursor": None}
    beyond = page(memory, scan_query("t"), last["continueCursor"], 4)
    assert beyond["page"] == [] and beyond["isDone"] and beyond["continueCursor"] == last["continueCursor"]


def test_a_page_ended_by_a_cap_must_be_split(memory: World) -> None:
    memory.insert_all("t", [{"n": n} for n in range(10)])
    none = {"filter": {"$eq": [{"$field": "n"}, {"$literal": 99}]}}
    query = scan_query("t", None, [none])
    answer = page(memory, query, None, 100, maximum_rows_read=4)
    assert answer["page"] == [] and answer["pageStatus"] == "SplitRequired" and not answer["isDone"]
    t = memory.begin(writable=False)
    t.page(query, answer["continueCursor"], None, 100, 4)
    assert t.usage.documents_read == 4
    t.abort()
    assert page(memory, scan_query("t"), None, 100, maximum_bytes_read=1)["pageStatus"] == "SplitRequired"


def test_splitting_is_recommended_above_three_quarters(memory: World, monkeypatch: pytest.MonkeyPatch) -> None:
    memory.insert_all("t", [{"n": n} for n in range(10)])
    assert page(memory, scan_query("t"), None, 3, maximum_rows_read=4)["pageStatus"] is None
    assert page(memory, scan_query("t"), None, 4, maximum_rows_read=5)["pageStatus"] == "SplitRecommended"
    monkeypatch.setattr(page_module, "PAGE_SPLIT_DOCUMENTS", 4)
    assert page(memory, scan_query("t"), None, 4)["pageStatus"] is None
    assert page(memory, scan_query("t"), None, 5)["pageStatus"] == "SplitRecommended"


def test_the_split_cursor_halves_the_page(memory: World) -> None:
    memory.insert_all("t", [{"n": n} for n in range(10)])
    assert page(memory, scan_query("t"), None, 2)["splitCursor"] is None
    answer = page(memory, scan_query("t"), None, 6)
    assert numbers(page(memory, scan_query("t"), None, 1, answer["splitCursor"])) == [0, 1, 2]


def test_the_journal_bounds_a_page_that_is_run_again(memory: World) -> None:
    ids = memory.insert_all("t", [{"n": n} for n in range(5)])
    first = page(memory, scan_query("t"), None, 3)
    last = page(memory, scan_query("t"), first["continueCursor"], 3)
    memory.run(lambda t: t.delete(ids[1]))
    memory.insert_all("t", [{"n": 5}])
    assert numbers(page(memory, scan_query("t"), None, 3, journal=first["continueCursor"])) == [0, 2]
    again = page(memory, scan_query("t"), first["continueCursor"], 1, journal=last["continueCursor"])
    assert numbers(again) == [3, 4, 5] and again["isDone"]


def test_a_page_reads_only_what_it_covers(memory: World) -> None:
    memory.insert_all("t", [{"n": n} for n in range(9)])
    t = memory.begin(writable=False)
    first = loads(t.page(scan_query("t"), None, None, 3))
    (range_read,) = t.read_set.ranges
    assert range_read[1] == b"" and range_read[2] is not None
    t = memory.begin(writable=False)
    t.page(scan_query("t"), first["continueCursor"], None, 3)
    assert t.read_set.ranges[0][1] == range_read[2]


def test_cursors_are_of_their_query_and_of_this_deployment(memory: World) -> None:
    memory.insert_all("t", [{"n": n} for n in range(9)])
    cursor = page(memory, scan_query("t"), None, 3)["continueCursor"]
    assert cursor == page(memory, scan_query("t"), None, 3)["continueCursor"]
    other = pytest.raises(DeveloperError)
    with other as caught:
        page(memory, scan_query("t", "desc"), cursor, 3)
    assert caught.value.code == "InvalidCursor"
    assert caught.value.message.startswith(
        "InvalidCursor: Tried to run a query starting from a cursor, but it looks like this cursor is from a different "
        "query."
    )
    assert caught.value.data == {"isConvexSystemError": True, "paginationError": "InvalidCursor"}
    foreign = seal_cursor(b"f" * 64, b"\0" * limits.QUERY_FINGERPRINT_BYTES, Position(None))
    damaged = ("A" if cursor[0] != "A" else "B") + cursor[1:]
    for bad in ("", "abc", "é", foreign, damaged, cursor[:-4]):
        with fails("InvalidCursor", "Failed to parse cursor"):
            page(memory, scan_query("t"), bad, 3)


def test_cursors_at_the_bound_and_one_past_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import skerry.database.cursor as module

    mark = b"m" * limits.QUERY_FINGERPRINT_BYTES
    cursor = seal_cursor(b"k" * 64, mark, Position(b"key"))
    monkeypatch.setattr(module, "CURSOR_CHARS_MAX", len(cursor))
    assert open_cursor(b"k" * 64, mark, cursor).key == b"key"
    monkeypatch.setattr(module, "CURSOR_CHARS_MAX", len(cursor) - 1)
    with fails("InvalidCursor", "too long"):
        open_cursor(b"k" * 64, mark, cursor)


def test_errors_of_pages(memory: World) -> None:
    memory.insert_all("t", [{"n": 1}])
    query = scan_query("t")
    with fails("InvalidPageSize", "Must request at least 1 document while paginating"):
        page(memory, query, None, 0)
    assert page(memory, query, None, limits.PAGE_DOCUMENTS_MAX)["isDone"]
    with fails("InvalidPageSize", "Requested too many items: 32001"):
        page(memory, query, None, limits.PAGE_DOCUMENTS_MAX + 1)
    for cap in ("maximum_rows_read", "maximum_bytes_read"):
        with fails("InvalidPageSize", "maximumRowsRead and maximumBytesRead must be greater than 0"):
            page(memory, query, None, 1, **{cap: 0})
    bad: Any = "x"
    for arguments in ((None, bad), (5, 1), (None, 1.5)):
        with fails("InvalidArgument"):
            page(memory, query, *arguments)
    assert page(memory, scan_query("none"), None, 3)["isDone"]


def test_one_page_in_each_function(memory: World) -> None:
    t = memory.begin()
    t.page(scan_query("t"), None, None, 1)
    with fails("MultiplePaginatedQueries", "Convex only supports a single paginated query in each function."):
        t.page(scan_query("t"), None, None, 1)
    state = t.enter_function()
    t.page(scan_query("t"), None, None, 1)
    t.leave_function(state)
    with fails("MultiplePaginatedQueries"):
        t.page(scan_query("t"), None, None, 1)
