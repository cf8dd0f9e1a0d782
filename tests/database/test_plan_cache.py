"""A query that a known one answers by its shape gets exactly the plan that compiling it gives."""

from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from skerry import limits
from skerry.database.plan_cache import PlanCache
from skerry.database.query import Plan, compile_query, parse_query_argument
from skerry.errors import DeveloperError
from tests.database.search_world import search_query, search_schema
from tests.database.world import World, memory_world, range_query, table_schema

WORLD = memory_world()
WORLD.schema(table_schema("t", {"by_a": ["a"], "by_a_b": ["a", "b"]}))
CATALOG = WORLD.database.catalog
JSON_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**60), 2**60),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=8),
    st.sampled_from(["}", '"value":', "\0", {"$integer": "AAAAAAAAAAA="}, [1], {}, {"value": 1}, {"$undefined": None}]),
)


def equality(index: str, value: Any) -> bytes:
    return orjson.dumps({"query": range_query(index, [("Eq", "_id" if index.endswith("by_id") else "a", value)])})


def seen(plan: Plan) -> tuple[Any, ...]:
    """What a plan does, and what binds cursors to it."""
    return (plan.table, plan.index, plan.lower, plan.upper, plan.reverse, plan.limits, plan.fingerprint())


@given(st.lists(JSON_VALUES, min_size=2, max_size=6), st.sampled_from(["t.by_a", "t.by_a_b", "t.by_id", "u.by_id"]))
@example([True, 1, 1.0, -0.0, 0], "t.by_a")
def test_every_value_gets_its_own_plan(values: list[Any], index: str) -> None:
    cache = PlanCache()
    for value in values:
        text = equality(index, value)
        expected = compile_query(parse_query_argument(text), CATALOG)
        assert seen(cache.plan(text, CATALOG)) == seen(expected)


def test_values_elsewhere_are_no_shape() -> None:
    cache = PlanCache()
    rest = b'"fieldPath":"a"}],"order":null},"operators":[]}'
    start = b'{"query":{"source":{"type":"IndexRange","indexName":"t.by_a","range":[{"type":"Eq",'
    for text in (
        b'{"n":{"value":%d},' + start[1:] + rest + b"}",  # beside the query
        start[:-13] + b'{"type":"Gt","value":%d,' + rest + b"}",
        start + b'"value":7,' + rest + b',"n":{"value":%d}}',
        start[:-13] + b'{"type":"Eq","fieldPath":"a","value":%d}],"range":[{"type":"Eq",' + rest + b"}",
    ):
        for number in (1, 2):
            argument = text % number
            try:
                expected = seen(compile_query(parse_query_argument(argument), CATALOG))
            except DeveloperError as error:
                with pytest.raises(DeveloperError, match=error.message):
                    cache.plan(argument, CATALOG)
            else:
                assert seen(cache.plan(argument, CATALOG)) == expected


def test_one_shape_takes_one_place() -> None:
    cache = PlanCache()
    for number in range(10):
        cache.plan(equality("t.by_a", number), CATALOG)
    assert len(cache) == 1


def test_the_cache_is_bounded() -> None:
    cache = PlanCache()
    text = equality("t.by_a", "x")
    for number in range(limits.PLAN_CACHE_ENTRIES_MAX + 1):
        cache.plan(text[:-1] + b',"n":%d}' % number, CATALOG)
    assert len(cache) == limits.PLAN_CACHE_ENTRIES_MAX


@pytest.mark.parametrize(("past", "kept"), [(0, 1), (1, 0)])
def test_texts_past_the_bound_are_not_kept(past: int, kept: int) -> None:
    cache = PlanCache()
    text = equality("t.by_a", 1)
    n_spaces = limits.PLAN_CACHE_TEXT_BYTES_MAX + past - len(text)
    cache.plan(text + b" " * n_spaces, CATALOG)
    assert len(cache) == kept


def test_another_catalog_gets_another_plan(memory: World) -> None:
    cache = PlanCache()
    text = equality("t.by_creation_time", 1).replace(b'"a"', b'"_creationTime"')
    assert cache.plan(text, memory.database.catalog).table is None
    memory.insert_all("t", [{}])
    assert cache.plan(text, memory.database.catalog).table is not None


def test_searches_take_no_place_of_others(memory: World) -> None:
    memory.schema(search_schema())
    cache, catalog = PlanCache(), memory.database.catalog
    for text in ("one", "two", "one"):
        plan = cache.plan(orjson.dumps({"query": search_query(text)}), catalog)
        assert plan.search is not None and plan.search.terms == (text.encode(),)
    assert len(cache) == 0
