"""Every guest language shows every behaviour of the matrix."""

from typing import Any

import orjson
import pytest

from tests.fixtures.matrix import CASES, ID, Case
from tests.fixtures.world import NOW_MS, World


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_guest_behaves_as_the_matrix_says(world: World, case: Case) -> None:
    world.now_ns = NOW_MS * 1_000_000
    _empty(world)
    made = None
    for path, args in case.setup:
        value = world.mutation(path, _filled(args, made))
        made = made or value
    result = world.call(case.kind, case.function, _filled(case.args, made))
    if case.error is not None:
        assert not result.ok and case.error in result.error_message, (result.value, result.error_message)
        assert (None if result.error_data is None else orjson.loads(result.error_data)) == case.data
    else:
        assert result.ok, result.error_message
        value = orjson.loads(result.value)
        assert _same(value, _filled(case.value, made)), value
        made = made or value
    assert result.log_lines == list(case.logs)
    for path, args, expected in case.after:
        value = world.query(path, _filled(args, made))
        assert _same(value, _filled(expected, made)), value


def test_pages_follow_each_other_to_the_end(world: World) -> None:
    _empty(world)
    ids = []
    for number in range(5):
        world.now_ns += 1_000_000
        ids.append(world.mutation("f:insert", {"n": 3, "body": str(number)}))
    found, cursor, is_done, pages = [], None, False, 0
    while not is_done:
        page = world.query("f:page", {"n": 3, "size": 2, "cursor": cursor})
        found += [document["_id"] for document in page["page"]]
        cursor, is_done, pages = page["cursor"], page["isDone"], pages + 1
    assert (found, pages) == (ids, 3)


def test_a_page_of_nothing_is_refused(world: World) -> None:
    assert "at least 1 document" in world.failure("query", "f:page", {"n": 3, "size": 0, "cursor": None})


def test_randomness_follows_from_the_seed_alone(world: World) -> None:
    try:
        world.seed = b"a"
        first, again = world.query("f:random"), world.query("f:random")
        world.seed = b"b"
        other = world.query("f:random")
    finally:
        world.seed = None
    assert first == again
    assert len({*first, *other}) == 4
    assert all(0 <= number < 1 for number in first + other)


def test_the_clock_shows_the_millisecond_it_was_frozen_in(world: World) -> None:
    """Whatever the last digits are: as a float of nanoseconds some would show one millisecond less."""
    began = world.now_ns
    try:
        for number in range(64):
            world.now_ns = began + number * 1_000_003 + number
            assert world.query("f:clock") == [world.now_ns // 1_000_000] * 2
    finally:
        world.now_ns = began


def _empty(world: World) -> None:
    for n in range(12):
        for document in world.query("f:list", {"n": n}):
            world.mutation("f:remove", {"id": document["_id"]})


def _filled(value: Any, made: Any) -> Any:
    if value == ID:
        return made
    if isinstance(value, dict):
        return {key: _filled(item, made) for key, item in value.items()}
    return [_filled(item, made) for item in value] if isinstance(value, list) else value


def _same(value: Any, expected: Any) -> bool:
    """Equal, `...` standing for anything and creation times left out."""
    if expected is ...:
        return True
    if isinstance(expected, dict) and isinstance(value, dict):
        fields = {key: item for key, item in value.items() if key != "_creationTime"}
        return fields.keys() == expected.keys() and all(_same(fields[key], expected[key]) for key in fields)
    if isinstance(expected, list) and isinstance(value, list):
        return len(value) == len(expected) and all(map(_same, value, expected))
    return type(value) is type(expected) and value == expected
