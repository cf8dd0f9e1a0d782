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
    *,
    function: bytes = b"",
    at_ts: int | None = None,
    **caps: int,
) -> dict[str, Any]:
    t = world.begin(writable=False, journal=journal, at_ts=at_ts)
    try:
        answer = loads(t.page(query, cursor, end, size, **caps, function=function))
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
    for size, first_half in [(3, 2), (4, 3), (5, 3), (6, 4)]:  # the half with the middle one is the first
        answer = page(memory, scan_query("t"), None, size)
        assert len(page(memory, scan_query("t"), None, 1, answer["splitCursor"])["page"]) == first_half


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


def test_cursors_are_of_their_function(memory: World) -> None:
    memory.insert_all("t", [{"n": n} for n in range(9)])
    query = scan_query("t")
    cursor = page(memory, query, None, 3, function=b"a:list")["continueCursor"]
    assert numbers(page(memory, query, cursor, 3, function=b"a:list")) == [3, 4, 5]
    for function in (b"a:other", b"b:list", b""):
        for start, end in ((cursor, None), (None, cursor)):
            with fails("InvalidCursor", "from a different query"):
                page(memory, query, start, 3, end, function=function)
        with fails("InvalidCursor", "from a different query"):
            page(memory, query, None, 3, None, cursor, function=function)


def test_cursors_are_of_their_index_as_it_was_defined(memory: World) -> None:
    memory.schema(table_schema("t", {"by": ["n"]}))
    memory.insert_all("t", [{"n": n, "m": -n} for n in range(9)])
    query = range_query("t.by", [])
    cursor = page(memory, query, None, 3)["continueCursor"]
    memory.schema(table_schema("t", {"by": ["n"], "more": ["m"]}))
    assert numbers(page(memory, query, cursor, 3)) == [3, 4, 5], "another deploy changes nothing"
    memory.schema(table_schema("t", {"by": ["m"], "more": ["n"]}))
    with fails("InvalidCursor", "from a different query"):
        page(memory, query, cursor, 3)
    absent = page(memory, scan_query("new"), None, 3)["continueCursor"]
    memory.insert_all("new", [{"n": 1}])
    assert numbers(page(memory, scan_query("new"), None, 3, absent)) == [1], "a table that came later is no other one"


class Reader:
    """Goes through a query page by page, and keeps the cursors between which its pages lie."""

    def __init__(self, world: World, query: Any, size: int, rows: int | None) -> None:
        self.world, self.query, self.size = world, query, size
        self.caps: dict[str, int] = {} if rows is None else {"maximum_rows_read": rows}
        self.cursors: list[str | None] = [None]
        self.seen: list[int] = []
        self.is_done = False

    def step(self) -> None:
        answer = page(self.world, self.query, self.cursors[-1], self.size, **self.caps)
        self.seen += numbers(answer)
        self.cursors.append(answer["continueCursor"])
        self.is_done = answer["isDone"]

    def again(self, at_ts: int | None = None) -> list[int]:
        """The pages as they are now: each between its two cursors, in one piece and in the pieces that splits give."""
        pages: list[int] = []
        for start, end in zip(self.cursors, self.cursors[1:], strict=False):
            whole = page(self.world, self.query, start, 1, end, at_ts=at_ts)
            assert whole["continueCursor"] == end and numbers(whole) == self.split(start, end, whole, at_ts)
            pages += numbers(whole)
        return pages

    def split(self, start: str | None, end: str | None, whole: dict[str, Any], at_ts: int | None) -> list[int]:
        middle = whole["splitCursor"]
        if middle is None:
            return numbers(whole)
        left = page(self.world, self.query, start, 1, middle, at_ts=at_ts)
        right = page(self.world, self.query, middle, 1, end, at_ts=at_ts)
        assert left["page"] and (right["page"] or len(whole["page"]) < 3)
        return self.split(start, middle, left, at_ts) + self.split(middle, end, right, at_ts)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_pages_partition_every_state_while_others_write(data: st.DataObject) -> None:
    """Between the pages documents come, go and move. What was there all along is seen once; and the pages between the
    cursors make up the whole result, at each state, also at those that are past."""
    world = memory_world()
    world.schema(table_schema("t", {"by_key": ["kind", "key"]}))
    keys = st.integers(0, 12)
    key_of_id: dict[str, int] = {}
    count = 0

    def write() -> None:
        nonlocal count
        t = world.begin()
        for _ in range(data.draw(st.integers(1, 3))):
            what = data.draw(st.sampled_from(["insert", "insert", "delete", "move"])) if key_of_id else "insert"
            if what == "insert":
                count += 1
                document_id = t.insert("t", {"kind": "a", "key": data.draw(keys), "n": count})
                key_of_id[document_id] = count
                continue
            document_id = data.draw(st.sampled_from(sorted(key_of_id)))
            if what == "delete":
                t.delete(document_id)
                del key_of_id[document_id]
            else:
                count += 1  # as another document, for whoever reads
                t.patch(document_id, {"key": data.draw(keys), "n": count})
                key_of_id[document_id] = count
        world.commit(t)
        world.settle()

    for _ in range(data.draw(st.integers(0, 8))):
        write()
    order = data.draw(st.sampled_from(["asc", "desc"]))
    odd = {"filter": {"$neq": [{"$mod": [{"$field": "n"}, {"$literal": 3}]}, {"$literal": 0}]}}
    has_filter = data.draw(st.booleans())
    query = range_query("t.by_key", [("Eq", "kind", "a"), ("Gte", "key", 2)], order, [odd] if has_filter else [])

    def whole(at_ts: int | None = None) -> list[int]:
        t = world.begin(writable=False, at_ts=at_ts)
        try:
            return [row["n"] for row in loads(t.collect_query(query))]
        finally:
            t.abort()

    reader = Reader(world, query, data.draw(st.integers(1, 4)), data.draw(st.one_of(st.none(), st.integers(1, 3))))
    states = {world.database.durable_ts: whole()}
    stayed, ever = set(whole()), set(whole())
    steps = 0
    while not reader.is_done:
        reader.step()
        steps += 1
        if not reader.is_done and steps < 12 and data.draw(st.booleans()):
            write()
            now = set(whole())
            stayed &= now
            ever |= now
            states[world.database.durable_ts] = whole()
    assert len(reader.seen) == len(set(reader.seen)), "nothing is repeated"
    assert stayed <= set(reader.seen) <= ever, "nothing that stayed is skipped"
    assert reader.again() == whole()
    for at_ts, state in states.items():
        assert reader.again(at_ts) == state
    for _ in range(2):
        write()
        assert reader.again() == whole()
    world.engine.close()
