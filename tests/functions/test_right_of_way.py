"""Who goes first: background work stops where it looks, while the loop thread has calls, and is never starved."""

import asyncio
import os
import select
import threading

import pytest
import uvloop

from skerry import limits
from skerry.errors import DeveloperError
from skerry.functions import right_of_way
from skerry.functions.right_of_way import PatientBudget, RightOfWay, descriptor_of
from skerry.value import compile_validator

SECONDS_MAX = 30


def test_nobody_waits_while_the_way_is_free() -> None:
    way = RightOfWay()
    way.give_way()
    way.take()
    way.release()
    way.give_way()
    assert way.taken == 0


def test_work_waits_until_the_last_reason_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "GIVE_WAY_SECONDS_MAX", SECONDS_MAX)
    way, order, done = RightOfWay(), list[str](), threading.Event()

    def work() -> None:
        way.give_way()
        order.append("background")
        done.set()

    way.take()
    way.take()
    thread = threading.Thread(target=work)
    thread.start()
    while not way.n_waiting:
        thread.join(0.001)
    way.release()
    assert way.n_waiting == 1, "one reason is left"
    order.append("loop")
    way.release()
    assert done.wait(SECONDS_MAX)
    thread.join()
    assert order == ["loop", "background"] and way.n_waiting == 0


def test_work_gives_way_to_events_that_wait_for_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(limits, "EVENTS_LOOK_NS", 0)
    way = RightOfWay(slept.append)
    reader, writer = os.pipe()
    try:
        way.watch(reader)
        way.give_way()
        assert not slept
        os.write(writer, b"event")
        way.give_way()
        assert slept == [limits.HAND_OVER_SECONDS]
        os.read(reader, 10)
        way.give_way()
        assert len(slept) == 1
        os.write(writer, b"event")
        monkeypatch.setattr(limits, "EVENTS_LOOK_NS", 10**15)
        way.give_way()
        assert len(slept) == 1, "it asked a moment ago"
        way.watch(None)
        monkeypatch.setattr(limits, "EVENTS_LOOK_NS", 0)
        way.give_way()
        assert len(slept) == 1
    finally:
        os.close(reader)
        os.close(writer)


def test_a_loop_tells_what_it_polls() -> None:
    loop = uvloop.new_event_loop()
    reader, writer = os.pipe()
    try:
        loop.add_reader(reader, loop.stop)
        poll = select.poll()
        poll.register(descriptor_of(loop) or -1, select.POLLIN)
        loop.run_until_complete(asyncio.sleep(0))
        assert not poll.poll(0)
        os.write(writer, b"event")
        assert poll.poll(SECONDS_MAX * 1000), "an event that the loop has not taken"
        os.read(reader, 10)
        assert not poll.poll(0)
        loop.remove_reader(reader)
    finally:
        loop.close()
        os.close(reader)
        os.close(writer)
    other = asyncio.SelectorEventLoop()
    assert descriptor_of(other) is None
    other.close()


def test_work_is_not_starved_by_a_way_that_is_never_free() -> None:
    way = RightOfWay()
    way.take()
    for _ in range(3):
        way.give_way()
    assert way.n_waiting == 0, "what waited in vain is forgotten, so that nothing grows"


def test_a_background_call_gives_way_where_it_looks_and_still_ends_with_its_budget(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    way, now_ns = RightOfWay(), [0]
    monkeypatch.setattr(right_of_way, "_way", way)
    budget = PatientBudget(lambda: now_ns[0], 10)
    way.take()
    budget.look()
    now_ns[0] = 10_000_000
    with pytest.raises(DeveloperError) as caught:
        budget.look()
    assert caught.value.code == "FunctionTimedOut"


def looks(arrays: int) -> int:
    """How often a check of arrays in an array looks, at more than a hundred steps for each of them."""
    validator = compile_validator({"type": "array", "value": {"type": "array", "value": {"type": "number"}}})
    seen: list[int] = []
    validator.check([[1.0] * 100] * arrays, lambda _: None, look=lambda: seen.append(1))
    return len(seen)


def test_a_long_check_looks_as_it_goes() -> None:
    assert looks(limits.VALIDATION_STEPS_PER_LOOK // 200) == 0
    assert looks(limits.VALIDATION_STEPS_PER_LOOK // 100 * 10) in range(8, 12)


def test_a_slice_is_shorter_while_deployments_share_the_loop_thread() -> None:
    way = RightOfWay()
    assert way.slice_ms == limits.INLINE_SLICE_MS
    way.is_shared = True
    assert way.slice_ms == limits.INLINE_SLICE_SHARED_MS < limits.INLINE_SLICE_MS
