"""Vector search in the functions of a TypeScript app, in process."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from skerry.limits import VECTOR_SEARCHES_WAITING_MAX
from tests.fixtures import shared
from tests.fixtures.world import World
from tests.vectors.app import vector_bundle

DOCS = [
    {"embedding": [1, 0, 0, 0], "cuisine": "French", "stars": 1},
    {"embedding": [0.9, 0.1, 0, 0], "cuisine": "Thai", "stars": 2},
    {"embedding": [0, 1, 0, 0], "cuisine": "French", "stars": 3},
    {"embedding": [0, 0, 1], "cuisine": "French"},
    {"cuisine": "French"},
]


@pytest.fixture
def world(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    base = tmp_path_factory.getbasetemp()
    with World(tmp_path / "data", shared.compiled(base)) as made:
        made.activate(vector_bundle(base))
        yield made


def test_an_action_searches_with_and_without_filters(world: World) -> None:
    ids = world.mutation("docs:add", {"docs": DOCS})
    assert world.action("docs:search", {"vector": [1, 0, 0, 0]}) == [
        {"_id": ids[0], "_score": 1},
        {"_id": ids[1], "_score": pytest.approx(0.9938837, abs=1e-6)},
        {"_id": ids[2], "_score": 0},
    ]
    french = world.action("docs:search", {"vector": [1, 0, 0, 0], "cuisines": ["French"]})
    assert [result["_id"] for result in french] == [ids[0], ids[2]]
    both = world.action("docs:search", {"vector": [1, 0, 0, 0], "cuisines": ["French", "Thai"], "limit": 2})
    assert [result["_id"] for result in both] == ids[:2]
    assert world.action("docs:search", {"vector": [1, 0, 0, 0], "cuisines": ["none"]}) == []
    assert [doc["_id"] for doc in world.action("docs:searchAndRead", {"vector": [0, 1, 0, 0]})] == [
        ids[2],
        ids[1],
        ids[0],
    ]


def test_what_a_mutation_wrote_is_found_by_whoever_saw_it_return(world: World) -> None:
    world.action("docs:search", {"vector": [1, 0, 0, 0]})
    for number in range(10):
        assert world.action("docs:addAndSearch", {"vector": [number, 1, 1, 1]}) is True
    (first, *_) = world.action("docs:search", {"vector": [9, 1, 1, 1]})
    world.mutation("docs:patch", {"id": first["_id"], "value": {"embedding": [0, 0, 0, -1]}})
    assert world.action("docs:search", {"vector": [9, 1, 1, 1]})[0]["_id"] != first["_id"]
    world.mutation("docs:remove", {"id": first["_id"]})
    found = world.action("docs:search", {"vector": [0, 0, 0, -1], "limit": 256})
    assert first["_id"] not in {result["_id"] for result in found} and len(found) == 9


def test_writes_searches_and_queries_at_once_on_all_threads(world: World) -> None:
    """Each action finds what its own mutation wrote, while the copy is loaded, commits come and queries look."""
    world.mutation("docs:add", {"docs": [{"embedding": [n, 1, 2, 3]} for n in range(2_000)]})
    calls = []
    for n in range(60):
        calls.append(world.start("action", "docs:addAndSearch", {"vector": [1000 + n, 1, 1, -n]}))
        calls.append(world.start("query", "docs:searchInQuery", asked([n, 1, 1, 1], limit=256)))
    for call in calls:
        result = world.finish(call)
        assert result.ok, result.error_message
        assert result.value == b"true" or result.value.count(b"_id") == 256


def test_errors_reach_the_function_and_can_be_caught(world: World) -> None:
    for query, said in (
        ({"vector": [1]}, "Expected a vector with dimensions 4, received 1."),
        (
            {"vector": [1, 2, 3, {"$float": "AAAAAAAA+H8="}]},
            "Invalid argument `vector` for `vectorSearch`: each of its",
        ),
        ({"vector": [1, 0, 0, 0], "limit": 257}, "Vector queries can fetch at most 256 results, requested 257."),
        ({"vector": [1, 0, 0, 0], "limit": 0}, "Invalid argument `limit` for `vectorSearch`"),
    ):
        assert said in world.action("docs:caught", {"query": query})
    failed = world.failure("action", "docs:search", {"vector": [1, 0, 0, 0], "index": "by_stars"})
    assert "is not a vector index" in failed
    assert "is currently staged" in world.failure("action", "docs:search", {"vector": [1, 0, 0, 0], "index": "staged"})


def test_an_action_with_too_many_searches_at_once(world: World) -> None:
    outcomes = world.action("docs:many", {"vector": [1, 0, 0, 0], "times": VECTOR_SEARCHES_WAITING_MAX})
    assert outcomes == ["fulfilled"] * VECTOR_SEARCHES_WAITING_MAX
    outcomes = world.action("docs:many", {"vector": [1, 0, 0, 0], "times": VECTOR_SEARCHES_WAITING_MAX + 1})
    assert outcomes[:-1] == ["fulfilled"] * VECTOR_SEARCHES_WAITING_MAX
    assert "Too many vector searches wait" in outcomes[-1]


def asked(vector: list[float], **more: Any) -> dict[str, Any]:
    return {"query": {"indexName": "docs.by_embedding", "vector": vector, **more}}


def test_a_query_searches_its_snapshot_and_gives_the_same_bytes(world: World) -> None:
    ids = world.mutation("docs:add", {"docs": DOCS})
    first = world.call("query", "docs:searchInQuery", asked([1, 0.25, 0, 0]))
    assert first.ok and ids[0].encode() in first.value, first.error_message
    assert world.deployment.lane.calls_patient == 1, "it waited for its index where it may"
    again = world.call("query", "docs:searchInQuery", asked([1, 0.25, 0, 0]))
    assert again.value == first.value and world.deployment.lane.calls_patient == 1
    assert world.action("docs:search", {"vector": [1, 0.25, 0, 0]}) == world.query(
        "docs:searchInQuery", asked([1, 0.25, 0, 0])
    )
    world.mutation("docs:remove", {"id": ids[0]})
    assert ids[0].encode() not in world.call("query", "docs:searchInQuery", asked([1, 0.25, 0, 0])).value


def test_a_query_has_the_search_of_actions_and_reads_what_it_found(world: World) -> None:
    ids = world.mutation("docs:add", {"docs": DOCS})
    for more in ({}, {"cuisines": ["French"]}, {"limit": 1}):
        wanted = {"vector": [0, 1, 0, 0], **more}
        found = world.query("docs:searchAndReadInQuery", wanted)
        assert [{"_id": one["_id"], "_score": one["_score"]} for one in found] == world.action("docs:search", wanted)
        assert found[0]["_id"] == ids[2] and found[0]["stars"] == 3
    assert "Expected a vector" in world.failure("query", "docs:searchAndReadInQuery", {"vector": [1]})
    assert "is currently staged" in world.failure(
        "query", "docs:searchAndReadInQuery", {"vector": [1, 0, 0, 0], "index": "staged"}
    )


def test_a_mutation_is_told_where_to_search(world: World) -> None:
    for path in ("docs:searchInMutation", "docs:searchInQueryOfMutation"):
        assert "not in mutations" in world.failure("mutation", path, asked([1, 0, 0, 0]))


def test_an_index_survives_its_deployment(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    base = tmp_path_factory.getbasetemp()
    with World(tmp_path / "data", shared.compiled(base)) as made:
        made.activate(vector_bundle(base))
        made.mutation("docs:add", {"docs": DOCS})
        found = made.action("docs:search", {"vector": [1, 2, 3, 4]})
        assert len(found) == 3
        held = made.deployment.vectors
        assert held.bytes_held > 0, "it holds a copy"
    assert held.bytes_held == 0, "an idle deployment that is closed gives the memory back"
    with World(tmp_path / "data", shared.compiled(base)) as made:
        assert made.action("docs:search", {"vector": [1, 2, 3, 4]}) == found


def test_two_deployments_know_nothing_of_each_other(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    base = tmp_path_factory.getbasetemp()
    with World(tmp_path / "a", shared.compiled(base)) as one, World(tmp_path / "b", shared.compiled(base)) as other:
        for world in (one, other):
            world.activate(vector_bundle(base))
        (name,) = one.mutation("docs:add", {"docs": DOCS[:1]})
        assert one.action("docs:search", {"vector": [1, 0, 0, 0]}) == [{"_id": name, "_score": 1}]
        assert other.action("docs:search", {"vector": [1, 0, 0, 0]}) == []
