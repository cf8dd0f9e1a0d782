"""Searches against BM25 by brute force, over small random documents that come, change and go."""

import random
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skerry import limits
from skerry.database import Transaction, verify
from skerry.database.search_counts import Counts, counts_of
from skerry.database.search_index import ALL_SCOPE, SearchIndex
from skerry.database.search_postings import Reader, posting_bounds
from skerry.database.search_text import analyse
from tests.database.search_world import brute_force, found, search_schema
from tests.database.world import World, memory_world, scan_query

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


def _crowd() -> tuple[World, list[dict[str, Any]]]:
    """2,500 documents, nearly all with one word, many with a rare one besides."""
    chance = random.Random(5)
    rare = [f"r{n}" for n in range(300)]
    world = memory_world()
    world.schema(search_schema())
    texts = [
        " ".join([chance.choice(["w", "x", *rare]) if chance.random() < 0.5 else "w" for _ in range(length)])
        for length in [chance.randint(1, 9) for _ in range(2_500)]
    ]
    world.insert_all("m", [{"body": text, "channel": chance.choice("ab")} for text in texts])
    return world, orjson.loads(world.read(lambda t: t.collect_query(scan_query("m"))))


def test_with_one_frequent_word_the_order_is_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    world, every = _crowd()

    def counted(reader: Reader, term: bytes) -> tuple[int, bool]:
        n_postings = len(reader.keys(*posting_bounds(ALL_SCOPE, term), len(every) + 1, False))
        return n_postings, n_postings > limits.SEARCH_POSTINGS_MAX

    monkeypatch.setattr(Reader, "frequency", counted)
    for text in ("w", "w r7", "r3 w", "r1 r2 w zz", "r9 w r8"):
        for equal in ({}, {"channel": "a"}):
            got = world.read(lambda t, text=text, equal=equal: found(t, text, equal, [{"limit": 60}]))
            assert [d["_id"] for d in got] == [d["_id"] for d in brute_force(every, text, equal)[:60]], (text, equal)


def test_the_number_of_documents_with_a_frequent_word_is_estimated() -> None:
    world, every = _crowd()
    index = world.database.catalog.tables["m"].indexes["find"]
    assert isinstance(index, SearchIndex)

    def frequency(t: Transaction, term: bytes) -> tuple[int, bool]:
        return Reader(t, t.catalog.tables["m"], index).frequency(term)

    having = sum("w" in document["body"].split() for document in every)
    estimate, is_estimate = world.read(lambda t: frequency(t, b"w"))
    assert is_estimate and abs(estimate - having) < having / 3
    n_rare = sum("r7" in document["body"].split() for document in every)
    assert world.read(lambda t: frequency(t, b"r7")) == (n_rare, False)
    assert limits.SEARCH_SAMPLE_KEYS * limits.SEARCH_SAMPLED_ONE_IN > limits.SEARCH_POSTINGS_MAX
