"""Bounds of the database that no other file comes past: at the bound, and one past it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from orjson import dumps, loads

from skerry import limits
from skerry.database import query as query_module
from skerry.database.usage import Usage
from skerry.errors import DeveloperError, SystemFault
from skerry.storage import Tree
from tests.database.world import World, documents, lmdb_world, range_query, scan_query, table_schema


def fails(code: str) -> Any:
    return pytest.raises(DeveloperError, check=lambda e: e.code == code)


@pytest.mark.parametrize(
    ("code", "step", "bound"),
    [
        ("TooManyFunctionsScheduled", lambda u: u.schedule(1), limits.TRANSACTION_FUNCTIONS_SCHEDULED_MAX),
        (
            "ScheduledFunctionsArgumentsTooLarge",
            lambda u: u.schedule(limits.TRANSACTION_SCHEDULED_ARGS_BYTES_MAX // 4),
            4,
        ),
        ("TooManyDocumentsRead", lambda u: u.read_document(1), limits.TRANSACTION_DOCUMENTS_READ_MAX),
        ("TooManyBytesRead", lambda u: u.read_document(limits.TRANSACTION_BYTES_READ_MAX // 16), 16),
        ("TooManyReads", lambda u: u.read_range(), limits.TRANSACTION_RANGES_READ_MAX),
        ("TooManyWrites", lambda u: u.write_document(1), limits.TRANSACTION_DOCUMENTS_WRITTEN_MAX),
        ("TooManyBytesWritten", lambda u: u.write_document(limits.TRANSACTION_BYTES_WRITTEN_MAX // 16), 16),
        ("TooManyIndexBytesWritten", lambda u: u.write_index(limits.TRANSACTION_INDEX_BYTES_MAX // 16), 16),
        ("LongIndexKeysTooExpensive", lambda u: u.gather(limits.TRANSACTION_GATHERED_BYTES_MAX // 16), 16),
        ("FilterTooExpensive", lambda u: u.filter(limits.FILTER_STEPS_MAX // 16), 16),
    ],
)
def test_counters(code: str, step: Callable[[Usage], None], bound: int) -> None:
    usage = Usage()
    for _ in range(bound):
        step(usage)
    with fails(code):
        step(usage)
    with fails(code):
        step(usage)


def test_warnings_begin_at_their_share_of_a_limit() -> None:
    usage = Usage()
    usage.ranges_read = limits.TRANSACTION_RANGES_READ_MAX * limits.USAGE_WARNING_PERCENT // 100
    assert usage.warnings() == []
    usage.ranges_read += 1
    (line,) = usage.warnings()
    assert f"(actual: {usage.ranges_read}, limit: {limits.TRANSACTION_RANGES_READ_MAX})" in line


def test_query_text(memory: World, monkeypatch: pytest.MonkeyPatch) -> None:
    text = dumps({"query": scan_query("t")})
    monkeypatch.setattr(query_module, "QUERY_JSON_BYTES_MAX", len(text))
    t = memory.begin(writable=False)
    assert t.collect_query(text) == b"[]"
    with fails("ValueTooLargeError"):
        t.collect_query(text + b" ")
    nesting = max(text[: n + 1].count(b"{") + text[: n + 1].count(b"[") for n in range(len(text)))
    monkeypatch.setattr(query_module, "QUERY_JSON_BYTES_MAX", limits.QUERY_JSON_BYTES_MAX)
    for depth, code in (
        (limits.QUERY_JSON_NESTING_MAX - nesting, None),
        (limits.QUERY_JSON_NESTING_MAX + 1, "TooNestedError"),
    ):
        deep = b"[" * depth + b"]" * depth
        argument = text[:-1] + b',"more":' + deep + b"}"
        if code is None:
            assert t.collect_query(argument) == b"[]"
        else:
            with fails(code):
                t.collect_query(argument)


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize(
    "around", [limits.SCAN_CHUNK_KEYS_FIRST, limits.SCAN_CHUNK_KEYS_FIRST * 5, limits.SCAN_CHUNK_KEYS_MAX]
)
def test_scans_across_the_ends_of_chunks(world: World, around: int, order: str) -> None:
    world.schema(table_schema("t", {"by_n": ["n"]}))
    world.insert_all("t", [{"n": n} for n in range(around - 1)])
    for count in (around - 1, around, around + 1):
        expected = list(range(count))[:: 1 if order == "asc" else -1]
        for query in (scan_query("t", order), range_query("t.by_n", [], order), range_query("t.by_id", [], order)):
            for limit in (None, around - 1, around, around + 1):
                operators = [] if limit is None else [{"limit": limit}]
                rows = documents(world.read(lambda t, q=query, o=operators: t.collect_query({**q, "operators": o})))
                if "by_id" in str(query):
                    assert [row["_id"] for row in rows] == sorted((r["_id"] for r in rows), reverse=order == "desc")
                else:
                    assert [row["n"] for row in rows] == expected[:limit]
                assert len(rows) == min(count, limit or count)
        world.insert_all("t", [{"n": count}])


def test_splits_are_recommended_by_percent(memory: World) -> None:
    count = 100
    memory.insert_all("t", [{"n": n} for n in range(count)])

    def status(size: int) -> Any:
        t = memory.begin(writable=False)
        answer = loads(t.page(scan_query("t"), None, None, size, count))
        t.abort()
        return answer["pageStatus"]

    assert status(limits.PAGE_SPLIT_PERCENT) is None
    assert status(limits.PAGE_SPLIT_PERCENT + 1) == "SplitRecommended"
    assert limits.PAGE_SPLIT_DOCUMENTS == 6144


def test_an_index_entry_without_a_document_is_a_fault_of_ours(memory: World) -> None:
    memory.insert_all("t", [{}])
    snapshot = memory.engine.snapshot()
    ((key, _),) = snapshot.scan(Tree.DOCUMENTS, b"", None, False)
    memory.engine.commit([(Tree.DOCUMENTS, key, None)]).result()
    t = World(memory.engine).begin(writable=False)
    with pytest.raises(SystemFault, check=lambda e: e.code == "IndexCorrupted"):
        t.collect_query(scan_query("t"))


def test_a_mutation_that_failed_is_answered_after_what_it_looked_at(memory: World) -> None:
    memory.engine.hold()
    first = memory.begin()
    first.insert("t", {})
    memory.commit(first)
    failed = memory.begin()
    failed.insert("t", {})
    answers: list[Any] = []
    memory.database.conclude(failed, answers.append)
    memory.turn()
    assert answers == []
    memory.engine.release()
    memory.settle()
    assert answers == [memory.database.durable_ts]
    assert len(documents(memory.read(lambda t: t.collect_query(scan_query("t"))))) == 1


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_runs_of_long_keys_are_read_in_order_and_charged(tmp_path: Path, order: str) -> None:
    world = lmdb_world(tmp_path)
    world.schema(table_schema("t", {"by_a": ["a"]}))
    count = limits.SCAN_CHUNK_KEYS_FIRST + limits.SCAN_CHUNK_KEYS_MAX
    prefix = "p" * 2 * limits.STORAGE_LMDB_KEY_BYTES_MAX
    world.insert_all("t", [{"a": f"{prefix}{n * 7 % count:05}", "n": n * 7 % count} for n in range(count)])
    t = world.begin(writable=False)
    rows = documents(t.collect_query(range_query("t.by_a", [], order)))
    assert [row["n"] for row in rows] == list(range(count))[:: 1 if order == "asc" else -1]
    assert count * len(prefix) < t.usage.gathered_bytes < 4 * count * len(prefix)
    assert limits.SCAN_CHUNK_KEYS_LONG > limits.SCAN_CHUNK_KEYS_MAX
    t.abort()
    world.engine.close()
