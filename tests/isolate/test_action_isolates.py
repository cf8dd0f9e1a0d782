"""The isolates of actions: what one leaves in its slot nobody finds, and all together address only so much memory."""

import struct
import time
from collections.abc import Callable, Iterator

import pytest

from skerry import limits
from skerry.errors import DeveloperError, SystemFault
from skerry.isolate import DONE, ActionBudget, ActionModule, ActionWorld, Isolate, ModuleCache
from skerry.isolate.build_runner import LOAD_OPERATIONS
from tests.fixtures.guests import c_guest, wat_guest
from tests.isolate.driver import CPU_MS_MAX, host, request

PAGE_BYTES = 65_536
FRESH_PAGES = 4  # of does_as_told
BUDGET_PAGES = 10

Open = Callable[[bytes], Isolate]


def _opener(cache: ModuleCache, world: ActionWorld) -> Open:
    modules: dict[bytes, ActionModule] = {}

    def open_isolate(wasm: bytes) -> Isolate:
        module = modules.setdefault(wasm, ActionModule(cache.load(wasm)))
        budget = ActionBudget(time.thread_time_ns, CPU_MS_MAX)
        budget.enter(lambda: None)
        return world.open(module, host(), LOAD_OPERATIONS, budget)

    return open_isolate


@pytest.fixture(scope="module", params=["warm", "cold"])
def open_isolate(request: pytest.FixtureRequest, cache: ModuleCache) -> Iterator[Open]:
    """Opens isolates in slots that keep their memory, or in those that give it back because no other is free."""
    opened = _opener(cache, ActionWorld(warm_max=1))
    in_the_way = opened(wat_guest("does_as_told")) if request.param == "cold" else None
    yield opened
    if in_the_way is not None:
        in_the_way.close()


@pytest.fixture
def small(cache: ModuleCache) -> Open:
    """A world with memory for two fresh isolates and two pages more."""
    return _opener(cache, ActionWorld(warm_max=1, memory_bytes_max=BUDGET_PAGES * PAGE_BYTES))


# -- slots ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("finder", ["finds_memory", "finds_memory_small"])
def test_memory_that_an_action_filled_is_clean_for_the_next(open_isolate: Open, finder: str) -> None:
    for _ in range(3):  # the pool prefers the slot that was used last
        filler = open_isolate(c_guest("hostile"))
        filler.invoke(request("h:fill"))
        filler.close()
        isolate = open_isolate(wat_guest(finder))
        try:
            assert isolate.call_raw("describe", None) == 0, "the first byte that is not zero"
        finally:
            isolate.close()
        again = open_isolate(c_guest("hostile"))
        status, found = again.invoke(request("h:find"))
        again.close()
        assert status == DONE and found.startswith(b"[0,")


def test_an_action_that_stands_still_keeps_its_memory_from_others(open_isolate: Open) -> None:
    waiting = open_isolate(c_guest("hostile"))
    last = waiting.memory_size - 4096
    waiting.write(last, b"\x5a" * 4096)
    other = open_isolate(c_guest("hostile"))
    assert other.read(last, 4096) == bytes(4096)
    other.close()
    assert waiting.read(last, 4096) == b"\x5a" * 4096
    waiting.close()


def test_tables_that_an_action_filled_are_empty_for_the_next(open_isolate: Open) -> None:
    for _ in range(3):
        filler = open_isolate(wat_guest("fills_table"))
        assert filler.call_raw("describe", None) == limits.GUEST_TABLE_ELEMENTS_MAX
        filler.close()
        finder = open_isolate(wat_guest("finds_table"))
        assert finder.call_raw("describe", None) == 0, "elements that are not null"
        finder.close()


# -- memory --------------------------------------------------------------------------------------------------------


def _grow(isolate: Isolate, pages: int) -> int:
    """Lets the guest ask for more; the pages it has then."""
    isolate.call_raw("invoke", struct.pack("<9I", 2, pages, *[0] * 7))
    return isolate.memory_size // PAGE_BYTES


def test_guests_grow_up_to_the_memory_of_all_and_no_page_further(small: Open) -> None:
    one, two = small(wat_guest("does_as_told")), small(wat_guest("does_as_told"))
    assert _grow(one, 3) == FRESH_PAGES, "one page more than all may have"
    assert _grow(one, 2) == FRESH_PAGES + 2
    assert _grow(two, 1) == FRESH_PAGES, "nothing is left"
    one.close()
    assert _grow(two, 6) == BUDGET_PAGES, "what a closed isolate had is there again"
    two.close()


def test_an_isolate_that_finds_no_memory_is_refused_and_leaves_nothing_behind(small: Open) -> None:
    one, two = small(wat_guest("does_as_told")), small(wat_guest("does_as_told"))
    for _ in range(3):
        with pytest.raises(SystemFault, match="hold all memory") as caught:
            small(wat_guest("does_as_told"))
        assert caught.value.code == "TooManyConcurrentActions"
    assert _grow(one, 2) == FRESH_PAGES + 2, "a refused isolate holds nothing"
    two.close()
    small(wat_guest("does_as_told")).close()
    one.close()
    full = small(wat_guest("does_as_told"))
    assert _grow(full, 6) == BUDGET_PAGES
    full.close()


def test_an_isolate_that_cannot_start_gives_its_memory_back(small: Open) -> None:
    for _ in range(BUDGET_PAGES):
        with pytest.raises(DeveloperError):
            small(c_guest("initialize_exits"))
        isolate = small(wat_guest("does_as_told"))
        isolate.close()
        isolate.close()
    full = small(wat_guest("does_as_told"))
    assert _grow(full, 6) == BUDGET_PAGES
    full.close()


def test_the_bounds_of_a_server(cache: ModuleCache) -> None:
    """Isolates of the largest memory, of which the warm slots alone hold fewer than all may address."""
    opened, count = _opener(cache, ActionWorld()), limits.ACTIONS_MEMORY_BYTES_MAX // limits.GUEST_MEMORY_BYTES_MAX
    assert count > limits.ACTION_WARM_ISOLATES_MAX
    isolates = [opened(wat_guest("finds_memory")) for _ in range(count)]
    with pytest.raises(SystemFault, match="hold all memory"):
        opened(wat_guest("finds_memory"))
    for number in (
        limits.ACTION_WARM_ISOLATES_MAX - 1,
        limits.ACTION_WARM_ISOLATES_MAX,
    ):  # the last warm, the first cold
        assert isolates[number].call_raw("invoke", b"") == 0
    for isolate in isolates:
        isolate.close()


def test_one_deployment_has_its_part_of_the_warm_slots_and_no_more(cache: ModuleCache) -> None:
    world = ActionWorld(warm_max=3, warm_each_max=2)
    module = ActionModule(cache.load(wat_guest("does_as_told")))
    sleepy, other = object(), object()
    opened = [
        world.open(module, host(), LOAD_OPERATIONS, ActionBudget(time.thread_time_ns, CPU_MS_MAX), whose)
        for whose in (sleepy, sleepy, sleepy, other, other)
    ]
    assert [isolate._slots is world._warm for isolate in opened] == [True, True, False, True, False]
    for isolate in opened:
        isolate.close()
    assert world._warm_of == {} and world._warm.taken == 0
    assert limits.ACTION_WARM_EACH_MAX * 4 <= limits.ACTION_WARM_ISOLATES_MAX * 3, "a quarter is left to the others"
