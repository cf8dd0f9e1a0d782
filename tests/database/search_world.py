"""Searching in tests: schemas, queries, and BM25 by brute force over plain Python lists."""

from math import log
from typing import Any

import orjson

from skerry import limits
from skerry.database import Transaction
from skerry.database.search_index import coded_length, length_code
from skerry.database.search_text import analyse, query_terms
from skerry.value import key_of
from tests.database.world import World, documents, table_schema

UNDEFINED = {"$undefined": None}


def search_schema(
    table: str = "m", field: str = "body", filters: tuple[str, ...] = ("channel",), **more: Any
) -> dict[str, Any]:
    schema = table_schema(table, {})
    schema["searchIndexes"] = [{"indexDescriptor": "find", "searchField": field, "filterFields": list(filters)}]
    return {**schema, **more}


def search_query(
    text: str, equal: dict[str, Any] | None = None, operators: list[Any] | None = None, field: str = "body"
) -> dict[str, Any]:
    filters: list[dict[str, Any]] = [{"type": "Search", "fieldPath": field, "value": text}]
    filters += [{"type": "Eq", "fieldPath": path, "value": value} for path, value in (equal or {}).items()]
    return {"source": {"type": "Search", "indexName": "m.find", "filters": filters}, "operators": operators or []}


def found(t: Transaction, text: str, equal: dict[str, Any] | None = None, operators: list[Any] | None = None) -> Any:
    return documents(t.collect_query(search_query(text, equal, operators)))


def bodies(world: World, text: str, equal: dict[str, Any] | None = None) -> list[str]:
    return [document["body"] for document in world.read(lambda t: found(t, text, equal))]


def pages(world: World, query: dict[str, Any], size: int) -> list[list[dict[str, Any]]]:
    """All pages of a query, each read in a transaction of its own."""
    cursor: str | None = None
    gathered: list[list[dict[str, Any]]] = []
    while True:
        page = orjson.loads(world.read(lambda t, cursor=cursor: t.page(query, cursor, None, size)))
        gathered.append(page["page"])
        if page["isDone"]:
            return gathered
        cursor = page["continueCursor"]


def brute_force(every: list[dict[str, Any]], text: str, equal: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """What a search over documents (with their ids and creation times) must give."""
    analysed = [(document, *_analysed(document.get("body"))) for document in every]
    analysed = [(document, terms, length) for document, terms, length in analysed if terms]
    wanted = [
        entry
        for entry in analysed
        if all(key_of(entry[0].get(path)) == key_of(value) for path, value in (equal or {}).items())
    ]
    terms = query_terms(text)
    weights = dict.fromkeys(terms, 1.0)
    if terms:
        candidates = sorted({term for _, held, _ in wanted for term in held if term.startswith(terms[-1])})
        for term in candidates[: limits.SEARCH_PREFIX_TERMS_MAX]:
            weights.setdefault(term, 0.5)
    average = sum(length for _, _, length in analysed) / max(1, len(analysed))
    scored: list[tuple[float, float, dict[str, Any]]] = []
    for document, held, length in wanted:
        score = 0.0
        norm = 1.2 * (0.25 + 0.75 * coded_length(length_code(length)) / max(average, 1.0))
        for term, weight in weights.items():
            if term in held:
                having = sum(term in other for _, other, _ in analysed)
                idf = log(1 + (len(analysed) - having + 0.5) / (having + 0.5))
                score += idf * weight * held[term] * 2.2 / (held[term] + norm)
        if any(term in held for term in weights):
            scored.append((-round(score, 9), -document["_creationTime"], document))
    scored.sort(key=lambda entry: entry[:2])
    return [document for _, _, document in scored]


def _analysed(text: Any) -> tuple[dict[bytes, int], int]:
    return analyse(text) if isinstance(text, str) else ({}, 0)
