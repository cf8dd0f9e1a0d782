"""Imports into a table with a declared, a search and a vector index, while queries and actions look at it all the time:
each sees the table as it was before or as it is after, whichever index it asks.
"""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from tests.http.apps import build
from tests.http.serving import RunningServer, serve
from tests.http.test_transfers import ask

FOLDER = Path(__file__).parents[1] / "fixtures" / "importing"
QUERIES = ("scanned", "indexed", "searched", "nearest")
COUNT, MORE, ROUNDS = 150, 50, 4


@pytest.fixture
def own(tmp_path: Path) -> Iterator[RunningServer]:
    with serve(tmp_path / "data") as running:
        assert running.deploy(build(FOLDER, tmp_path / "app.skerry").read_bytes()).status == 200
        yield running


def value(server: RunningServer, kind: str, name: str, **args: Any) -> Any:
    answer = server.call(kind, f"docs:{name}", args)
    assert answer["status"] == "success", answer
    return answer["value"]


def rows(batch: int, count: int) -> bytes:
    made = [
        {"batch": batch, "text": f"otter {n} of the batch {batch}", "embedding": [1, n / count, batch, 0]}
        for n in range(count)
    ]
    return "\n".join(map(json.dumps, made)).encode()


def bring_in(server: RunningServer, mode: str, batch: int, count: int) -> None:
    path = f"/api/import?tableName=docs&mode={mode}&format=jsonLines"
    assert ask(server, "POST", path, rows(batch, count)).json() == {"numWritten": count}


@contextmanager
def looked_at(server: RunningServer, seen: list[tuple[str, Any]]) -> Iterator[None]:
    """Somebody asks each index all the time."""
    is_over = Event()

    def look(kind: str, name: str) -> None:
        while not is_over.is_set():
            seen.append((name, value(server, kind, name)))

    with ThreadPoolExecutor() as threads:
        looking = [threads.submit(look, "query", name) for name in QUERIES]
        looking.append(threads.submit(look, "action", "nearestIds"))
        try:
            yield
        finally:
            is_over.set()
        for one in looking:
            one.result()


def test_every_look_is_at_one_state_of_the_table(own: RunningServer) -> None:
    bring_in(own, "requireEmpty", 0, COUNT)
    states: list[dict[str, float]] = [{"b0": COUNT}]
    generations = [value(own, "query", "ids")]
    seen: list[tuple[str, Any]] = []
    with looked_at(own, seen):
        for batch in range(1, ROUNDS + 1):
            mode, count = ("replace", COUNT) if batch < ROUNDS else ("append", MORE)
            bring_in(own, mode, batch, count)
            states.append({f"b{batch}": count} if mode == "replace" else {**states[-1], f"b{batch}": count})
            for name in QUERIES:
                assert value(own, "query", name) == states[-1], name
            generations.append(value(own, "query", "ids"))
            assert value(own, "action", "nearestIds") == generations[-1]
    assert {name for name, _ in seen} == {*QUERIES, "nearestIds"}
    for name, found in seen:
        assert found in (generations if name == "nearestIds" else states), name


def test_what_is_written_while_an_import_appends_is_found_by_every_index(own: RunningServer) -> None:
    bring_in(own, "requireEmpty", 0, COUNT)
    with ThreadPoolExecutor(1) as thread:
        importing = thread.submit(bring_in, own, "append", 1, MORE)
        written = 0
        while not importing.done() or not written:
            value(own, "mutation", "add", batch=2)
            written += 1
            if written == 50:
                break
        importing.result()
    for name in QUERIES:
        assert value(own, "query", name) == {"b0": COUNT, "b1": MORE, "b2": written}, name
    assert value(own, "action", "nearestIds") == value(own, "query", "ids")
    job = ask(own, "POST", "/api/skerry/storage/jobs", {"kind": "verify"})
    assert job.status == 200
    while (job := ask(own, "GET", "/api/skerry/storage").json()["job"])["state"] == "running":
        pass
    assert job["result"]["differences"] == [], job
