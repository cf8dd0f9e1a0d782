"""Ranges and filters against a direct evaluator, operators in their order, and every error of a query."""

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from orjson import dumps as json_dumps
from orjson import loads

from skerry import limits
from skerry.database import filters as filters_module
from skerry.database import usage as usage_module
from skerry.database.query import compile_range
from skerry.errors import DeveloperError
from skerry.value import UNDEFINED, Int64, compare, dumps, key_of
from tests.database.model import SCALARS, field, in_range, ordered, ranges, spelled, values
from tests.database.world import World, documents, lmdb_world, memory_world, range_query, scan_query, table_schema

MISSING_ID = "j57fzzzzzzzzzzzzzzzzzzzzzzzzzkyr"


def fails(code: str, message: str | None = None):
    return pytest.raises(DeveloperError, check=lambda e: e.code == code and (message is None or message in e.message))


def clean(document: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if value is not UNDEFINED}


@pytest.fixture(scope="module", params=["memory", "lmdb"])
def full(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    """A table with every pair of interesting values, and indexes over them."""
    world = memory_world() if request.param == "memory" else lmdb_world(tmp_path_factory.mktemp("full"))
    world.schema(table_schema("t", {"by_a": ["a"], "by_a_b": ["a", "b"]}))
    pairs = [clean({"a": a, "b": b}) for a in SCALARS for b in SCALARS[::3]]
    ids = world.insert_all("t", pairs)
    from skerry.value import loads as decoded

    stored = [decoded(world.read(lambda t, i=i: t.get(i))) for i in ids]
    yield world, stored
    world.engine.close()


@settings(max_examples=120)
@given(data=st.data(), name=st.sampled_from(["by_a", "by_a_b"]), descending=st.booleans())
def test_ranges_hold_what_comparing_says(full, data: st.DataObject, name: str, descending: bool) -> None:
    world, stored = full
    fields = {"by_a": ["a"], "by_a_b": ["a", "b"]}[name]
    expressions = data.draw(ranges(fields))
    query = range_query(f"t.{name}", [(k, p, spelled(v)) for k, p, v in expressions], "desc" if descending else "asc")
    expected = ordered([d for d in stored if in_range(d, expressions)], fields, descending)
    assert world.read(lambda t: t.collect_query(query)) == b"[" + b",".join(map(dumps, expected)) + b"]"


@settings(max_examples=60)
@given(kinds=st.sampled_from([["Eq"], ["Gt"], ["Gte"], ["Lt"], ["Lte"], ["Gt", "Lte"], ["Gte", "Lt"]]), data=st.data())
def test_ranges_over_ids_and_creation_times(full, kinds: list[str], data: st.DataObject) -> None:
    world, stored = full
    ids = [d["_id"] for d in stored]
    near = st.sampled_from(
        [*ids[::40], ids[7][:-1], ids[7] + "0", "", "zzz", "j", MISSING_ID, "0400000000000000000000000000248"]
    )
    for path, index, of in (
        ("_id", "t.by_id", st.one_of(near, values)),
        (
            "_creationTime",
            "t.by_creation_time",
            st.one_of(st.sampled_from([d["_creationTime"] for d in stored]), values),
        ),
    ):
        expressions = [(kind, path, data.draw(of)) for kind in kinds]
        query = range_query(index, [(k, p, spelled(v)) for k, p, v in expressions])
        expected = ordered([d for d in stored if in_range(d, expressions)], [path])
        assert [d["_id"] for d in documents(world.read(lambda t, q=query: t.collect_query(q)))] == [
            d["_id"] for d in expected
        ]


def test_an_index_ends_with_the_creation_time(full) -> None:
    world, stored = full
    chosen = [d for d in stored if d.get("a") == "ab"][2]
    expressions = [
        ("Eq", "a", "ab"),
        ("Eq", "b", spelled(field(chosen, "b"))),
        ("Eq", "_creationTime", chosen["_creationTime"]),
    ]
    assert documents(world.read(lambda t: t.collect_query(range_query("t.by_a_b", expressions)))) == [
        loads(dumps(chosen))
    ]
    bounds = [("Eq", "a", "ab"), ("Gt", "_creationTime", chosen["_creationTime"])]
    later = [d for d in stored if d.get("a") == "ab" and d["_creationTime"] > chosen["_creationTime"]]
    assert len(documents(world.read(lambda t: t.collect_query(range_query("t.by_a", bounds))))) == len(later) > 0


RANGE_ERRORS = [
    ("FieldNotInIndex", "t.by_a_b", [("Eq", "c", 1)]),
    ("FieldNotInIndex", "t.by_a_b", [("Eq", "_id", 1)]),
    ("FieldNotInIndex", "t.by_id", [("Eq", "_creationTime", 1)]),
    ("InvalidIndexRange", "t.by_a_b", [("Eq", "b", 1)]),
    ("InvalidIndexRange", "t.by_a_b", [("Gt", "b", 1)]),
    ("InvalidIndexRange", "t.by_a_b", [("Gt", "a", 1), ("Eq", "b", 1)]),
    ("InvalidIndexRange", "t.by_a_b", [("Gt", "a", 1), ("Eq", "a", 1)]),
    ("AlreadyDefinedBound", "t.by_a_b", [("Eq", "a", 1), ("Eq", "a", 1)]),
    ("AlreadyDefinedBound", "t.by_a_b", [("Eq", "a", 1), ("Gt", "a", 1)]),
    ("AlreadyDefinedBound", "t.by_a_b", [("Gt", "a", 1), ("Gte", "a", 1)]),
    ("AlreadyDefinedBound", "t.by_a_b", [("Lt", "a", 1), ("Lte", "a", 1)]),
    ("BoundsOnMultipleFields", "t.by_a_b", [("Gt", "a", 1), ("Lt", "b", 1)]),
    ("IndexNotFoundError", "t.nope", []),
    ("IndexNotFoundError", "nope.by_a", []),
    ("InvalidQuery", "t", []),
    ("InvalidQuery", "t.by_a", [("Foo", "a", 1)]),
    ("InvalidQuery", "t.by_a", [("Eq", 5, 1)]),
    ("InvalidValue", "t.by_a", [("Eq", "a", {"$foo": 1})]),
]


@pytest.mark.parametrize(("code", "index", "expressions"), RANGE_ERRORS)
def test_range_errors(full, code: str, index: str, expressions: list[Any]) -> None:
    with fails(code):
        full[0].read(lambda t: t.open_query(range_query(index, expressions)))


def test_an_absent_table_is_empty_and_its_absence_is_read(memory: World) -> None:
    memory.insert_all("t", [{}])
    t = memory.begin(writable=False)
    for query in (scan_query("none"), range_query("none.by_id", []), range_query("none.by_creation_time", [])):
        assert t.collect_query(query) == b"[]"
    assert t.count("none") == 0 and t.count("t") == 1
    assert [number for number, _, _ in t.read_set.ranges].count(0) == 4


@pytest.mark.parametrize(
    "query",
    [
        None,
        [],
        {},
        {"source": 1},
        {"source": {"type": "Foo"}},
        {"source": {"type": "FullTableScan"}},
        {"source": {"type": "FullTableScan", "tableName": 1}},
        {"source": {"type": "FullTableScan", "tableName": "t", "order": "up"}},
        {"source": {"type": "IndexRange", "indexName": "t.by_id", "range": 1}},
        {"source": {"type": "IndexRange", "indexName": "t.by_id", "range": [1]}},
        scan_query("t", None, [1]),
        scan_query("t", None, [{"limit": -1}]),
        scan_query("t", None, [{"limit": 1.5}]),
        scan_query("t", None, [{"limit": 1, "filter": {}}]),
        {"source": {"type": "FullTableScan", "tableName": "t"}, "operators": 1},
    ],
)
def test_malformed_queries(memory: World, query: Any) -> None:
    t = memory.begin(writable=False)
    with fails("InvalidQuery"):
        t.open_query(query)
    with fails("InvalidQuery"):
        t.open_query(json_dumps({"query": query}))
    for raw in (b"[]", b"{}", b"1"):
        with fails("InvalidQuery"):
            t.open_query(raw)
    with fails("InvalidJson"):
        t.open_query(b"{")


def test_a_search_index_answers_no_range(memory: World) -> None:
    table = table_schema("t", {})
    table["searchIndexes"] = [{"indexDescriptor": "find", "searchField": "a", "filterFields": []}]
    memory.schema(table)
    t = memory.begin(writable=False)
    with fails("IndexNotADatabaseIndexError"):
        t.open_query(range_query("t.find", []))


def test_operators_apply_in_their_order(memory: World) -> None:
    memory.insert_all("t", [{"n": n} for n in range(10)])
    even = {"filter": {"$eq": [{"$mod": [{"$field": "n"}, {"$literal": 2}]}, {"$literal": 0}]}}
    t = memory.begin(writable=False)

    def run(*operators: Any) -> list[int]:
        return [d["n"] for d in documents(t.collect_query(scan_query("t", None, list(operators))))]

    assert run({"limit": 3}, even) == [0, 2]
    assert run(even, {"limit": 3}) == [0, 2, 4]
    assert run({"limit": 0}) == run({"limit": 5}, {"limit": 0}) == []
    assert run(even, {"limit": 4}, {"filter": {"$gt": [{"$field": "n"}, {"$literal": 3}]}}, {"limit": 1}) == [4]
    before = t.usage.documents_read
    run({"limit": 2})
    assert t.usage.documents_read == before + 2
    query = scan_query("t", None, [{"limit": 1}] * limits.QUERY_OPERATORS_MAX)
    assert len(documents(t.collect_query(query))) == 1
    query["operators"].append({"limit": 1})
    with fails("InvalidQuery"):
        t.open_query(query)


# -- filters ---------------------------------------------------------------------------------------------------------

literals = values.map(lambda value: {"$literal": spelled(value)})
leaves = st.one_of(literals, st.sampled_from(["a", "b", "a.k", "none", "_id"]).map(lambda path: {"$field": path}))


def expressions(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    two = st.lists(inner, min_size=2, max_size=2)
    return st.one_of(
        st.sampled_from(["$eq", "$neq", "$lt", "$lte", "$gt", "$gte", "$add", "$sub", "$mul", "$div", "$mod"]).flatmap(
            lambda name: two.map(lambda pair: {name: pair})
        ),
        st.sampled_from(["$and", "$or"]).flatmap(
            lambda name: st.lists(inner, max_size=3).map(lambda parts: {name: parts})
        ),
        st.sampled_from(["$not", "$neg"]).flatmap(lambda name: inner.map(lambda part: {name: part})),
    )


class Wrong(Exception):
    pass


def evaluate(expression: Any, document: dict[str, Any]) -> Any:
    """The meaning of an expression, written for reading."""
    from skerry.value import UndefinedAt, decode

    ((name, operand),) = expression.items()
    if name == "$literal":
        return decode(operand, undefined=UndefinedAt.ROOT)
    if name == "$field":
        return field(document, operand)
    if name in ("$and", "$or"):
        for part in operand:
            if boolean(evaluate(part, document)) is (name == "$or"):
                return name == "$or"
        return name == "$and"
    if name == "$not":
        return not boolean(evaluate(operand, document))
    if name == "$neg":
        return (
            arithmetic("$sub", Int64(0), value)
            if isinstance(value := evaluate(operand, document), Int64)
            else -number(value)
        )
    left, right = evaluate(operand[0], document), evaluate(operand[1], document)
    order = compare(left, right)
    tests = {
        "$eq": order == 0,
        "$neq": order != 0,
        "$lt": order < 0,
        "$lte": order <= 0,
        "$gt": order > 0,
        "$gte": order >= 0,
    }
    return tests[name] if name in tests else arithmetic(name, left, right)


def boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise Wrong
    return value


def number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Wrong
    return float(value)


def arithmetic(name: str, left: Any, right: Any) -> Any:
    if isinstance(left, Int64) and isinstance(right, Int64):
        a, b = left.value, right.value
        if name in ("$div", "$mod") and b == 0:
            raise Wrong
        result = {
            "$add": lambda: a + b,
            "$sub": lambda: a - b,
            "$mul": lambda: a * b,
            "$div": lambda: math.trunc(a / b),
            "$mod": lambda: a - b * math.trunc(a / b),
        }[name]()
        return Int64(result)
    x, y = number(left), number(right)
    if name == "$div" and y == 0:
        sign = math.copysign(1, x) * math.copysign(1, y)
        return math.nan if x == 0 or math.isnan(x) else sign * math.inf
    if name == "$mod":
        return math.nan if y == 0 or math.isinf(x) else math.fmod(x, y)
    return {"$add": lambda: x + y, "$sub": lambda: x - y, "$mul": lambda: x * y, "$div": lambda: x / y}[name]()


@settings(max_examples=400)
@given(expression=st.recursive(leaves, expressions, max_leaves=8), a=values, b=values)
def test_filters_mean_what_the_direct_evaluator_says(expression: Any, a: Any, b: Any) -> None:
    document = clean({"a": a, "b": b, "_id": "x"})
    try:
        expected: Any = boolean(evaluate(expression, document))
    except Wrong:
        expected = None
    try:
        answer = filters_module.Filter(expression).keeps(document)
    except DeveloperError as error:
        assert error.code == "InvalidFilter"
        answer = None
    assert answer is expected


@pytest.mark.parametrize("name", ["$add", "$sub", "$mul"])
def test_int64_arithmetic_is_checked(name: str) -> None:
    largest = {"$literal": {"$integer": "/////////38="}}
    smallest = {"$literal": {"$integer": "AAAAAAAAAIA="}}
    operands = {"$add": [largest, largest], "$sub": [smallest, largest], "$mul": [largest, smallest]}[name]
    with fails("InvalidFilter", "overflows"):
        filters_module.Filter({"$eq": [{name: operands}, largest]}).keeps({})
    with fails("InvalidFilter", "overflows"):
        filters_module.Filter({"$eq": [{"$neg": smallest}, largest]}).keeps({})
    with fails("InvalidFilter", "zero"):
        filters_module.Filter(
            {"$eq": [{"$div": [largest, {"$literal": {"$integer": "AAAAAAAAAAA="}}]}, largest]}
        ).keeps({})


@pytest.mark.parametrize(
    "expression",
    [
        1,
        None,
        [],
        {},
        {"$foo": 1},
        {"$eq": [1]},
        {"$eq": 1},
        {"$and": {}},
        {"$field": 1},
        {"$not": []},
        {"$eq": [], "$and": []},
    ],
)
def test_malformed_filters(expression: Any) -> None:
    with fails("InvalidFilter"):
        filters_module.Filter(expression)


def test_filter_nesting_at_the_bound_and_one_past_it() -> None:
    expression: Any = {"$literal": True}
    for _ in range(limits.FILTER_NESTING_MAX - 1):
        expression = {"$not": expression}
    filters_module.Filter(expression)
    with fails("InvalidFilter", "nested"):
        filters_module.Filter({"$not": expression})


def test_filter_steps_at_the_bound_and_one_past_it(memory: World, monkeypatch: pytest.MonkeyPatch) -> None:
    memory.insert_all("t", [{"a": "x" * 80}])
    query = scan_query("t", None, [{"filter": {"$eq": [{"$field": "a"}, {"$field": "a"}]}}])
    t = memory.begin(writable=False)
    t.collect_query(query)
    assert t.usage.filter_steps > 3 + 80 // limits.FILTER_BYTES_PER_STEP
    monkeypatch.setattr(usage_module, "FILTER_STEPS_MAX", 2 * t.usage.filter_steps)
    t.collect_query(query)
    with fails("FilterTooExpensive"):
        t.collect_query(query)


# -- read sets -------------------------------------------------------------------------------------------------------


def test_a_query_reads_only_what_it_consumed(memory: World) -> None:
    memory.schema(table_schema("t", {"by_n": ["n"]}))
    memory.insert_all("t", [{"n": n} for n in range(10)])
    index = memory.database.catalog.tables["t"].index("by_n")

    def read(query: dict[str, Any], steps: int | None) -> list[Any]:
        t = memory.begin(writable=False)
        number = t.open_query(query)
        while steps is None or steps:
            if t.next(number) is None:
                break
            steps = None if steps is None else steps - 1
        return [r for r in t.read_set.ranges if r[0] == index.number]

    t = memory.begin(writable=False)
    keys = [key for key, _ in t.snapshot.scan_index(index.number, b"", None, False)]
    assert read(range_query("t.by_n", []), 3) == [(index.number, b"", keys[2] + b"\0")]
    assert read(range_query("t.by_n", [], "desc"), 3) == [(index.number, keys[7], None)]
    assert read(range_query("t.by_n", [], None, [{"limit": 1}]), None) == [(index.number, b"", keys[0] + b"\0")]
    assert read(range_query("t.by_n", []), None) == [(index.number, b"", None)]
    assert read(range_query("t.by_n", []), 0) == []
    first = {"filter": {"$gte": [{"$field": "n"}, {"$literal": 4}]}}
    assert read(range_query("t.by_n", [], None, [first, {"limit": 1}]), None) == [(index.number, b"", keys[4] + b"\0")]


def test_plans_are_cached_by_text_and_follow_the_catalog(memory: World) -> None:
    text = json_dumps({"query": scan_query("t"), "version": "1"})
    for _ in range(2):
        assert memory.read(lambda t: t.collect_query(text)) == b"[]"
    memory.insert_all("t", [{}])
    assert len(documents(memory.read(lambda t: t.collect_query(text)))) == 1
    t = memory.begin()
    fresh = json_dumps({"query": scan_query("u")})
    assert t.collect_query(fresh) == b"[]"
    t.insert("u", {})
    assert len(documents(t.collect_query(fresh))) == 1
    t.abort()
    assert memory.read(lambda q: q.collect_query(fresh)) == b"[]"


@pytest.mark.parametrize("kind", ["Eq", "Lte", "Gt"])
def test_bounds_on_all_fields_reach_behind_every_id(kind: str) -> None:
    fields = ("a", "_creationTime")
    lower, upper = compile_range("t.i", fields, [spell("Eq", "a", "x"), spell(kind, "_creationTime", 5)], None)
    last = key_of("x") + key_of(5) + b"\xff" * 16
    assert (upper is not None and lower <= last < upper) is (kind != "Gt")
    assert (lower <= key_of("x") + key_of(6) < (upper or b"")) is (kind == "Gt")


def spell(kind: str, path: str, value: Any) -> dict[str, Any]:
    return {"type": kind, "fieldPath": path, "value": value}


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("limit", [1, 2, limits.SCAN_CHUNK_KEYS_FIRST, limits.SCAN_CHUNK_KEYS_FIRST + 1])
@pytest.mark.parametrize(
    "bounds", [[("Eq", "n", 3)], [("Gte", "n", 2)], [("Eq", "n", 99)], [("Gt", "n", 5), ("Lt", "n", 5)]]
)
@pytest.mark.parametrize("change", ["nothing", "another field", "the field", "pending"])
def test_a_few_documents_at_once_are_read_as_one_by_one(
    world: World, order: str, limit: int, bounds: list[tuple[str, str, Any]], change: str
) -> None:
    world.schema(table_schema("t", {"by_n": ["n"]}))
    ids = world.insert_all("t", [{"n": n % 6} for n in range(30)])
    query = range_query("t.by_n", bounds, order, [{"limit": limit}])
    if change == "pending":
        t = world.begin()
        t.patch(ids[3], {"n": 4})
        t.patch(ids[9], {"other": 1})
        world.commit(t)
    seen = []
    for at_once in (True, False):
        t = world.begin()
        if change == "another field":
            t.patch(ids[3], {"other": 1})
        elif change == "the field":
            t.patch(ids[3], {"n": 2})
        if at_once:
            found = documents(t.collect_query(query))
        else:
            number = t.open_query(query)
            found = []
            while (raw := t.next(number)) is not None:
                found.append(loads(raw))
        seen.append((found, t.read_set.documents, t.read_set.ranges, t.usage.metrics()))
        t.abort()
    assert seen[0] == seen[1]
    world.settle()
