"""Who goes first: background work stops where it looks, while the loop thread has calls, and is never starved."""

import threading

import pytest

from skerry import limits
from skerry.errors import DeveloperError
from skerry.functions import right_of_way
from skerry.functions.right_of_way import PatientBudget, RightOfWay
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
