"""Searches against BM25 by brute force, over small random documents that come, change and go."""

from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from skerry.database import Transaction, verify
from skerry.database.search_counts import Counts, counts_of
from skerry.database.search_text import analyse
from tests.database.search_world import brute_force, found, search_schema
from tests.database.world import memory_world

WORDS = ["a", "ab", "abc", "b", "ba", "Ü", "北京", "京", "🎉", "long" * 9, "x" * 31 + "é"]
texts = st.lists(st.sampled_from(WORDS), max_size=6).map(" ".join)
values = st.sampled_from(["p", "q", None])
bodies_ = texts | st.just(5)
steps = st.lists(
    st.tuples(st.just("insert"), bodies_, values)
    | st.tuples(st.just("patch"), bodies_, st.integers(0, 30))
    | st.tuples(st.just("move"), values, st.integers(0, 30))
    | st.tuples(st.just("delete"), st.none(), st.integers(0, 30))
    | st.tuples(st.just("commit"), st.none(), st.none())
    | st.tuples(st.just("search"), texts, st.none() | st.just("p")),
    max_size=40,
)


@settings(max_examples=150)
@given(steps)
def test_searches_agree_with_brute_force(script: list[tuple[str, Any, Any]]) -> None:
    world = memory_world()
    world.schema(search_schema())
    model: dict[str, dict[str, Any]] = {}
    t = world.begin()
    number = world.database.catalog.tables["m"].indexes["find"].number
    for action, first, second in script:
        if action == "insert":
            id_ = t.insert("m", {"body": first, "channel": second})
            model[id_] = _document(t, id_)
        elif action == "commit":
            world.commit(t)
            world.turn()
            t = world.begin()
        elif action == "search":
            _agrees(t, model, first, second)
        elif model:
            id_ = list(model)[second % len(model)]
            if action == "delete":
                t.delete(id_)
                del model[id_]
            else:
                t.patch(id_, {"body" if action == "patch" else "channel": first})
                model[id_] = _document(t, id_)
    for word in WORDS:
        _agrees(t, model, f"b {word}", None)
    world.commit(t)
    world.settle()
    lengths = [analyse(document["body"])[1] for document in model.values() if isinstance(document["body"], str)]
    expected = Counts(sum(length > 0 for length in lengths), sum(lengths))
    assert world.read(lambda t: counts_of(t, number)) == expected
    assert verify(world.engine.snapshot()).differences == []


def _agrees(t: Transaction, model: dict[str, dict[str, Any]], text: str, channel: str | None) -> None:
    equal = {} if channel is None else {"channel": channel}
    expected = brute_force(list(model.values()), text, equal)
    assert [d["_id"] for d in found(t, text, equal)] == [d["_id"] for d in expected], text


def _document(t: Transaction, id_: str) -> dict[str, Any]:
    raw = t.get(id_)
    assert raw is not None
    return orjson.loads(raw)
