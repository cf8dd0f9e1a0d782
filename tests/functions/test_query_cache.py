"""Answers that are kept: each is what a run would give, and who may not be told it runs."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skerry.errors import SkerryError
from skerry.functions import query_cache
from skerry.functions.query_cache import get_cache_memory
from skerry.functions.request import CallResult, ReadTime
from tests.fixtures.caching_bundle import caching_bundle
from tests.fixtures.hostile_bundle import hostile_bundle
from tests.fixtures.world import World, request

ADA, BOB = {"subject": "ada"}, {"subject": "bob"}
SLOW = 8


@pytest.fixture
def app(empty: World, base: Path) -> Iterator[World]:
    empty.activate(caching_bundle(base))
    yield empty
    assert empty.deployment.cache.n_waiting == 0


@pytest.fixture(scope="module")
def shared_app(base: Path, compiled: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with World(tmp_path_factory.mktemp("caching"), compiled) as made:
        made.activate(caching_bundle(base))
        yield made


def fresh(world: World, path: str, args: Any, **more: Any) -> CallResult:
    """What a run gives, whatever is kept."""
    future: asyncio.Future[CallResult] = world.loop.create_future()

    def done(outcome: CallResult | SkerryError) -> None:
        assert isinstance(outcome, CallResult)
        future.set_result(outcome)

    world.deployment._run_query(request("query", path, args, **more), done)  # pyright: ignore[reportPrivateUsage]
    return world.finish(future)


def runs(world: World) -> int:
    return world.deployment.lane.calls_inline + world.deployment.lane.calls_patient


def ask(world: World, path: str, args: Any = None, **more: Any) -> tuple[Any, int]:
    """The value of a query, and how many runs it took."""
    before = runs(world)
    result = world.call("query", path, {} if args is None else args, **more)
    assert result.ok, result.error_message
    return orjson.loads(result.value), runs(world) - before


def keep(world: World, path: str, args: Any = None, **more: Any) -> Any:
    """Asks often enough for an answer to be kept."""
    ask(world, path, args, **more)
    return ask(world, path, args, **more)[0]


def test_from_the_second_asking_on_an_answer_is_kept_with_its_log_lines(app: World) -> None:
    app.mutation("q:write", {"key": "a", "value": 1})
    assert [ask(app, "q:read", {"key": "a"}) for _ in range(4)] == [([1], 1), ([1], 1), ([1], 0), ([1], 0)]
    before = app.deployment.meter.calls
    kept = app.call("query", "q:read", {"key": "a"})
    assert kept.log_lines == fresh(app, "q:read", {"key": "a"}).log_lines == ["[LOG] 'read' 'a' 1"]
    assert app.deployment.meter.calls == before + 2, "a hit is metered as a call"


def test_a_commit_drops_what_it_touches_and_nothing_else(app: World) -> None:
    for key in "ab":
        app.mutation("q:write", {"key": key, "value": 1})
        assert keep(app, "q:read", {"key": key}) == [1]
    keep(app, "q:all")
    app.mutation("q:write", {"key": "a", "value": 2})
    assert ask(app, "q:read", {"key": "a"}) == ([1, 2], 1)
    assert ask(app, "q:read", {"key": "b"}) == ([1], 0)
    assert ask(app, "q:all") == (3, 1)


def test_a_document_read_by_its_id(app: World) -> None:
    document = app.mutation("q:write", {"key": "a", "value": 1})
    assert keep(app, "q:byId", {"id": document}) == 1
    app.mutation("q:write", {"key": "a", "value": 2})
    assert ask(app, "q:byId", {"id": document}) == (1, 0)
    app.mutation("q:change", {"id": document, "value": 3})
    assert ask(app, "q:byId", {"id": document}) == (3, 1)


@pytest.mark.parametrize("path", ["q:who", "q:whoElse"])
def test_an_answer_that_looked_at_the_caller_is_for_that_caller_only(app: World, path: str) -> None:
    for identity in (None, ADA, BOB, ADA, BOB):
        name = "nobody" if identity is None else identity["subject"]
        assert keep(app, path, is_admin=True, identity=identity) == name
        assert ask(app, path, is_admin=True, identity=identity) == (name, 0)


def test_an_answer_that_did_not_look_at_the_caller_is_for_everybody(app: World) -> None:
    assert keep(app, "q:whoIf", {"key": "a"}) == "anybody"
    assert ask(app, "q:whoIf", {"key": "a"}, is_admin=True, identity=ADA) == ("anybody", 0)
    app.mutation("q:write", {"key": "a", "value": 1})
    assert ask(app, "q:whoIf", {"key": "a"}, is_admin=True, identity=ADA) == ("ada", 1)
    assert ask(app, "q:whoIf", {"key": "a"}) == ("nobody", 1)
    app.mutation("q:clear", {"key": "a"})
    assert ask(app, "q:whoIf", {"key": "a"}, is_admin=True, identity=BOB)[0] == "anybody"


@pytest.mark.parametrize(("path", "args"), [("q:clock", {}), ("q:chance", {}), ("q:search", {"text": "word"})])
def test_what_another_run_would_tell_otherwise_is_not_kept(app: World, path: str, args: Any) -> None:
    app.mutation("q:write", {"key": "a", "value": 1, "text": "a word"})
    assert [ask(app, path, args)[1] for _ in range(4)] == [1, 1, 1, 1]


def test_failures_are_not_kept(app: World) -> None:
    for asked in range(1, 4):
        before = runs(app)
        assert "no" in app.failure("query", "q:failing")
        assert runs(app) > before and app.deployment.cache.n_entries == 0, asked


def test_an_internal_function_is_not_told_to_the_public(app: World) -> None:
    assert keep(app, "q:hidden", is_admin=True) == "hidden"
    assert "Could not find public function" in app.failure("query", "q:hidden")
    assert app.deployment.kept_answer("q:hidden", b"{}", None) is None


def test_other_code_drops_everything(app: World, base: Path) -> None:
    keep(app, "q:constant", {"x": 1})
    app.activate(hostile_bundle(base))
    app.activate(caching_bundle(base))
    assert ask(app, "q:constant", {"x": 1}) == ([1], 1)


def test_other_quotas_drop_everything(app: World) -> None:
    keep(app, "q:constant", {"x": 1})
    app.deployment.terms_changed()
    assert ask(app, "q:constant", {"x": 1}) == ([1], 1)


def test_the_order_of_fields_is_no_part_of_the_arguments(app: World) -> None:
    assert keep(app, "q:constant", {"x": {"a": 1, "b": 2}}) == [{"a": 1, "b": 2}]
    assert app.deployment.kept_answer("q:constant", b'{"x":{"a":1,"b":2}}', None) is not None


def test_a_page_is_the_same_page(app: World) -> None:
    for value in range(5):
        app.mutation("q:write", {"key": "a", "value": value})
    opts = {"opts": {"numItems": 2, "cursor": None}}
    assert keep(app, "q:page", opts) == ask(app, "q:page", opts)[0] == orjson.loads(fresh(app, "q:page", opts).value)


def test_a_query_of_the_past_is_told_what_was_true_then(app: World) -> None:
    app.mutation("q:write", {"key": "a", "value": 1})
    then = app.deployment.database.durable_ts
    app.mutation("q:write", {"key": "a", "value": 2})
    assert keep(app, "q:read", {"key": "a"}) == [1, 2]
    assert ask(app, "q:read", {"key": "a"}, at=ReadTime(then)) == ([1], 1)
    assert ask(app, "q:read", {"key": "a"}, at=ReadTime(app.deployment.database.durable_ts)) == ([1, 2], 0)
    at = ReadTime()
    assert ask(app, "q:read", {"key": "a"}, at=at) == ([1, 2], 0) and at.ts == app.deployment.database.durable_ts


# -- equal calls at the same time --------------------------------------------------------------------------------


def go_slowly(world: World, path: str) -> None:
    assert world.deployment.version is not None
    world.deployment.version.functions[path].slowness = SLOW


def test_equal_calls_at_the_same_time_run_once(app: World) -> None:
    app.mutation("q:write", {"key": "a", "value": 1})
    go_slowly(app, "q:read")
    before, joined = runs(app), get_cache_memory().joined
    futures = [app.start("query", "q:read", {"key": "a"}) for _ in range(5)]
    other = app.start("query", "q:read", {"key": "a"}, is_admin=True, identity=ADA)
    assert [orjson.loads(app.finish(future).value) for future in futures] == [[1]] * 5
    assert app.finish(other).ok
    assert (runs(app) - before, get_cache_memory().joined - joined) == (2, 4), "another caller's may be another one"


def test_whoever_asks_after_a_commit_is_not_told_what_was_before_it(app: World) -> None:
    app.mutation("q:write", {"key": "a", "value": 1})
    go_slowly(app, "q:read")
    first = app.start("query", "q:read", {"key": "a"})
    app.mutation("q:write", {"key": "a", "value": 2})
    second = app.start("query", "q:read", {"key": "a"})
    assert orjson.loads(app.finish(second).value) == [1, 2]
    assert orjson.loads(app.finish(first).value) in ([1], [1, 2])


@pytest.mark.parametrize("path", ["q:failing", "q:chance"])
def test_who_waited_for_what_is_not_to_be_told_runs(app: World, path: str) -> None:
    go_slowly(app, path)
    before = runs(app)
    futures = [app.start("query", path, {}) for _ in range(4)]
    results = [app.finish(future) for future in futures]
    assert runs(app) - before >= 4
    if path == "q:chance":
        assert len({result.value for result in results}) == 4


# -- bounds ------------------------------------------------------------------------------------------------------


def test_what_is_kept_is_bounded_and_what_is_of_use_stays(app: World, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = app.deployment.cache
    keep(app, "q:constant", {"x": 10})
    size = cache.n_bytes
    monkeypatch.setattr(query_cache, "QUERY_CACHE_EACH_BYTES_MAX", 10 * size)
    for x in range(11, 20):
        keep(app, "q:constant", {"x": x})
    assert cache.n_entries == 10, "at the bound"
    assert ask(app, "q:constant", {"x": 10})[1] == 0
    keep(app, "q:constant", {"x": 20})
    assert cache.n_entries == 10 and cache.n_bytes <= 10 * size
    assert ask(app, "q:constant", {"x": 10})[1] == 0, "it was of use"
    assert ask(app, "q:constant", {"x": 11})[1] == 1
    assert get_cache_memory().n_bytes == sum(each.n_bytes for each in get_cache_memory().caches)


def test_a_tenant_does_not_take_the_place_of_another(
    app: World, base: Path, compiled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with World(tmp_path / "other", compiled, name="other") as other:
        other.activate(caching_bundle(base))
        keep(other, "q:constant", {"x": 0})
        size = other.deployment.cache.n_bytes
        monkeypatch.setattr(query_cache, "QUERY_CACHE_BYTES_MAX", get_cache_memory().n_bytes + 4 * size)
        for x in range(20):
            keep(app, "q:constant", {"x": x})
        assert other.deployment.cache.n_entries == 1 and 2 < app.deployment.cache.n_entries < 6
        assert ask(other, "q:constant", {"x": 0})[1] == 0


@pytest.mark.parametrize("past", [0, 1])
def test_bounds_of_one_answer(app: World, past: int, monkeypatch: pytest.MonkeyPatch) -> None:
    args = {"x": "y" * 100}
    monkeypatch.setattr(query_cache, "QUERY_CACHE_ARGS_BYTES_MAX", len(orjson.dumps(args)) - past)
    keep(app, "q:constant", args)
    assert ask(app, "q:constant", args)[1] == past
    monkeypatch.setattr(query_cache, "QUERY_CACHE_READS_MAX", 1 - past)
    keep(app, "q:read", {"key": "a"})
    assert ask(app, "q:read", {"key": "a"})[1] == past


def test_what_was_asked_for_once_is_forgotten_in_time(app: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(query_cache, "QUERY_CACHE_SEEN_MAX", 2)
    for x in range(4):
        ask(app, "q:constant", {"x": x})
    keep(app, "q:constant", {"x": 0})
    assert ask(app, "q:constant", {"x": 0})[1] == 0, "it was asked for twice again"
    cache = app.deployment.cache
    assert len(cache._seen) + len(cache._seen_before) <= 4  # pyright: ignore[reportPrivateUsage]


def test_what_is_closed_keeps_nothing(base: Path, compiled: Path, tmp_path: Path) -> None:
    before = get_cache_memory().n_bytes
    with World(tmp_path / "data", compiled) as world:
        world.activate(caching_bundle(base))
        keep(world, "q:constant", {"x": 0})
        assert get_cache_memory().n_bytes > before
    assert get_cache_memory().n_bytes == before and world.deployment.cache not in get_cache_memory().caches


# -- the property ------------------------------------------------------------------------------------------------

KEYS = st.sampled_from("ab")
CALLERS = st.sampled_from([None, ADA, BOB])
QUESTIONS = st.sampled_from(["q:read", "q:whoIf", "q:who", "q:all", "q:constant"])
STEPS = st.one_of(
    st.tuples(st.just("ask"), QUESTIONS, KEYS, CALLERS),
    st.tuples(st.sampled_from(["write", "clear"]), st.none(), KEYS, st.none()),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(STEPS, min_size=5, max_size=40))
def test_what_is_told_is_what_a_run_gives(shared_app: World, steps: list[tuple[str, Any, str, Any]]) -> None:
    world = shared_app
    for name, path, key, caller in steps:
        if name == "ask":
            args = {"key": key, "x": 1}
            told = world.call("query", path, args, is_admin=True, identity=caller)
            run = fresh(world, path, args, is_admin=True, identity=caller)
            assert (told.ok, told.value, told.log_lines) == (True, run.value, run.log_lines)
        elif name == "write":
            world.mutation("q:write", {"key": key, "value": 1})
        else:
            world.mutation("q:clear", {"key": key})
