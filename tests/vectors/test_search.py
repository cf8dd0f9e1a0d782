"""Searching: what is found, in which order, with which filters, and what is refused."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from skerry.errors import DeveloperError
from skerry.limits import FILTER_NESTING_MAX, VECTOR_DIMENSIONS_MAX, VECTOR_FILTER_VALUES_MAX, VECTOR_RESULTS_MAX
from skerry.value import Int64
from skerry.vectors import parse_question
from tests.database.world import lmdb_world
from tests.vectors.world import INDEX, VectorWorld, ask, check_exact, vector_schema

INFINITY, NAN = float("inf"), float("nan")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[VectorWorld]:
    inner = lmdb_world(tmp_path)
    inner.schema(vector_schema(2, "kind", "deep.er"))
    yield VectorWorld(inner)
    inner.engine.close()


def ids(found: list[dict[str, Any]]) -> list[str]:
    return [result["_id"] for result in found]


def test_the_nearest_come_first_with_their_cosines(world: VectorWorld) -> None:
    east, north, west = world.world.insert_all("docs", [{"v": v} for v in ([2, 0], [0, 0.5], [-3.5, 0])])
    assert world.search([10, 0]) == [
        {"_id": east, "_score": 1},
        {"_id": north, "_score": 0},
        {"_id": west, "_score": -1},
    ]
    assert ids(world.search([10, 0], 1)) == [east]


def test_equal_scores_come_by_id(world: VectorWorld) -> None:
    made = world.world.insert_all("docs", [{"v": [1, 1]} for _ in range(20)])
    assert ids(world.search([3, 1], 7)) == sorted(made)[:7]


def test_the_score_of_a_vector_with_itself_is_one_whatever_its_size(world: VectorWorld) -> None:
    sizes = [5e-324, 1e-200, 1.0, 1e200, 1.7e308]
    made = world.world.insert_all("docs", [{"v": [size, size]} for size in sizes])
    for size in sizes:
        assert world.search([size, size]) == [
            {"_id": name, "_score": pytest.approx(1, abs=1e-12)} for name in sorted(made)
        ]


def test_zeros_score_zero(world: VectorWorld) -> None:
    (zeros, low) = world.world.insert_all("docs", [{"v": [0, -0.0]}, {"v": [-1, 0]}])
    assert world.search([1, 0]) == [{"_id": zeros, "_score": 0}, {"_id": low, "_score": -1}]
    assert [result["_score"] for result in world.search([0, 0])] == [0, 0]


NOT_INDEXED: list[Any] = [
    {},
    {"v": None},
    {"v": "1,2"},
    {"v": []},
    {"v": [1]},
    {"v": [1, 2, 3]},
    {"v": [1, Int64(2)]},
    {"v": [1, "2"]},
    {"v": [True, 1]},
    {"v": [1, None]},
    {"v": [NAN, 1]},
    {"v": [INFINITY, 1]},
    {"v": {"v": [1, 2]}},
    {"w": [1, 2]},
]


@pytest.mark.parametrize("document", NOT_INDEXED)
def test_what_is_no_vector_of_the_index_is_not_found(world: VectorWorld, document: dict[str, Any]) -> None:
    (good,) = world.world.insert_all("docs", [{"v": [1, 0]}])
    world.world.insert_all("docs", [document])
    assert ids(world.search([1, 0])) == [good], "hydrated"
    world.world.insert_all("docs", [document])
    assert ids(world.search([1, 0])) == [good], "fed"


def test_filters_are_any_of_their_values_of_any_field(world: VectorWorld) -> None:
    kinds: list[Any] = ["a", "b", 1, Int64(1), None, True, [1, {"x": 2}], b"\0"]
    made = world.world.insert_all("docs", [{"v": [1, n], "kind": kind} for n, kind in enumerate(kinds)])
    (deep,) = world.world.insert_all("docs", [{"v": [0, 1], "deep": {"er": "a"}}])
    for name, kind in zip(made, kinds, strict=True):
        assert ids(world.search([1, 0], filters=[("kind", kind)])) == [name]
    assert ids(world.search([1, 0], filters=[("kind", "b"), ("kind", "a")])) == made[:2]
    assert ids(world.search([1, 0], filters=[("kind", 1), ("deep.er", "a")])) == [made[2], deep]
    assert world.search([1, 0], filters=[("kind", "c")]) == []
    missing = parse_question(
        {
            "indexName": INDEX,
            "vector": [1, 0],
            "expressions": {"$eq": [{"$field": "kind"}, {"$literal": {"$undefined": None}}]},
        }
    )
    answers = world.begin(missing)
    world.settle()
    assert deep.encode() in answers[0] and answers[0].count(b"_id") == 1


def refusal(call: Any) -> str:
    with pytest.raises(DeveloperError) as caught:
        call()
    assert caught.value.message.endswith((".", "levels deep."))
    return caught.value.code


def test_a_vector_of_the_wrong_length_is_refused_with_both_lengths(world: VectorWorld) -> None:
    with pytest.raises(DeveloperError, match=r"^Expected a vector with dimensions 2, received 3\.$") as caught:
        world.search([1, 2, 3])
    assert caught.value.code == "VectorDimensionsMismatch"
    assert refusal(lambda: world.search([1.0] * VECTOR_DIMENSIONS_MAX)) == "VectorDimensionsMismatch"
    assert refusal(lambda: ask([1.0] * (VECTOR_DIMENSIONS_MAX + 1))) == "VectorDimensionsMismatch"
    assert refusal(lambda: world.search([])) == "VectorDimensionsMismatch"


@pytest.mark.parametrize("vector", [None, "x", {}, [None, 1], ["1", 2], [NAN, 0], [0, INFINITY], [True, 1], [[1], 2]])
def test_what_is_no_vector_is_refused(vector: Any) -> None:
    assert refusal(lambda: ask(vector)) == "InvalidArgument"


def test_bounds_of_the_limit(world: VectorWorld) -> None:
    world.world.insert_all("docs", [{"v": [1, n]} for n in range(VECTOR_RESULTS_MAX + 1)])
    assert len(world.search([1, 0], VECTOR_RESULTS_MAX)) == VECTOR_RESULTS_MAX
    assert len(world.search([1, 0], None)) == 10  # type: ignore[arg-type]
    assert len(world.search([1, 0], 1.0)) == 1  # type: ignore[arg-type]
    with pytest.raises(DeveloperError, match=r"at most 256 results, requested 257\.$") as caught:
        ask([1, 0], VECTOR_RESULTS_MAX + 1)
    assert caught.value.code == "VectorLimitTooLargeError"
    for limit in (0, -1, 1.5, "1", True):
        assert refusal(lambda limit=limit: ask([1, 0], limit)) == "InvalidArgument"


def test_bounds_of_filters(world: VectorWorld) -> None:
    many = [("kind", n) for n in range(VECTOR_FILTER_VALUES_MAX)]
    world.world.insert_all("docs", [{"v": [1, n], "kind": n} for n in range(VECTOR_FILTER_VALUES_MAX + 1)])
    assert len(world.search([1, 0], VECTOR_RESULTS_MAX, many)) == VECTOR_FILTER_VALUES_MAX
    assert refusal(lambda: ask([1, 0], 1, [*many, ("kind", -1)])) == "TooManyElementsInVectorQueryError"
    hundreds = [("kind", n) for n in range(100_000)]
    assert refusal(lambda: ask([1, 0], 1, hundreds)) == "TooManyElementsInVectorQueryError"
    assert refusal(lambda: world.search([1, 0], 1, [("v", 1)])) == "IncorrectVectorFilterField"
    assert refusal(lambda: world.search([1, 0], 1, [("kind", 1), ("x" * 9_999, 1)])) == "IncorrectVectorFilterField"


EQUALITY = {"$eq": [{"$field": "kind"}, {"$literal": 1}]}


def nested(levels: int) -> Any:
    expression: Any = EQUALITY
    for _ in range(levels):
        expression = {"$or": [expression]}
    return expression


@pytest.mark.parametrize(
    "expression",
    [
        1,
        "x",
        [],
        {},
        {"$and": [EQUALITY]},
        {"$or": EQUALITY},
        {"$or": [1]},
        {"$or": [], "$eq": []},
        {"$eq": []},
        {"$eq": [{"$field": "kind"}]},
        {"$eq": [{"$literal": 1}, {"$field": "kind"}]},
        {"$eq": [{"$field": 1}, {"$literal": 1}]},
        {"$eq": [{"$field": "kind", "x": 1}, {"$literal": 1}]},
        {"$eq": [{"$field": "kind"}, {"$field": "kind"}]},
        {"$literal": True},
        nested(FILTER_NESTING_MAX + 1),
    ],
)
def test_what_is_no_filter_is_refused(expression: Any) -> None:
    query = {"indexName": INDEX, "vector": [1, 0], "expressions": expression}
    assert refusal(lambda: parse_question(query)) == "InvalidVectorSearchFilter"


def test_a_deep_filter_and_an_empty_one(world: VectorWorld) -> None:
    (name,) = world.world.insert_all("docs", [{"v": [1, 0], "kind": 1}])
    for expression, expected in ((nested(FILTER_NESTING_MAX), [name]), ({"$or": []}, [])):
        answers = world.begin(parse_question({"indexName": INDEX, "vector": [1, 0], "expressions": expression}))
        world.settle()
        assert (name.encode() in answers[0]) == bool(expected)


def test_names_of_indexes(world: VectorWorld) -> None:
    for name, code in (
        ("docs.by_kind", "IndexNotAVectorIndexError"),
        ("docs.by_id", "IndexNotAVectorIndexError"),
        ("docs.none", "IndexNotFoundError"),
        ("none.by_embedding", "IndexNotFoundError"),
        ("docs", "IndexNotFoundError"),
        ("", "IndexNotFoundError"),
    ):
        assert refusal(lambda name=name: world.search([1, 0], index=name)) == code
    for query in (None, [], {}, {"indexName": 1, "vector": [1, 0]}):
        assert refusal(lambda query=query: parse_question(query)) == "InvalidArgument"


def test_a_staged_index_is_not_searched_until_it_is_enabled(world: VectorWorld) -> None:
    world.world.schema(vector_schema(2, staged=True))
    with pytest.raises(DeveloperError) as caught:
        world.search([1, 0])
    assert caught.value.code == "IndexStagedError"
    assert caught.value.message == (
        "Index docs.by_embedding is currently staged and not available to query until it is enabled."
    )
    world.world.schema(vector_schema(2))
    assert world.search([1, 0]) == []


def test_the_largest_vectors_there_are(world: VectorWorld) -> None:
    world.world.schema(vector_schema(VECTOR_DIMENSIONS_MAX, field="deep.v"))
    held = {
        name: vector
        for vector in ([float(n % 7) for n in range(VECTOR_DIMENSIONS_MAX)], [1.0] * VECTOR_DIMENSIONS_MAX)
        for name in world.world.insert_all("docs", [{"deep": {"v": vector}}])
    }
    target = [float(n % 5) - 1 for n in range(VECTOR_DIMENSIONS_MAX)]
    check_exact(world.search(target), held, target, 10)
