"""What one guest leaves in its memory and its table, the next guest in that slot does not find."""

import pytest

from skerry import limits
from skerry.isolate import DONE, ModuleCache
from tests.fixtures.guests import c_guest, wat_guest
from tests.isolate.driver import call, open_isolate

# Another module than the one that filled the slot, of one size or the other.
FINDERS = ["finds_memory", "finds_memory_small"]


@pytest.mark.parametrize("finder", FINDERS)
def test_memory_that_a_guest_filled_is_clean_for_the_next(cache: ModuleCache, finder: str) -> None:
    for _ in range(3):  # the pool prefers the slot that was used last
        call(cache, c_guest("hostile"), "h:fill", cpu_ms_max=20_000)
        isolate = open_isolate(cache, wat_guest(finder), cpu_ms_max=20_000)
        try:
            assert isolate.call_raw("describe", None) == 0, "the first byte that is not zero"
        finally:
            isolate.close()
        status, (found, pages) = call(cache, c_guest("hostile"), "h:find", cpu_ms_max=20_000)
        assert (status, found, pages > 2000) == (DONE, 0, True)


def test_memory_of_a_guest_that_trapped_is_clean_for_the_next(cache: ModuleCache) -> None:
    isolate = open_isolate(cache, c_guest("hostile"))
    isolate.write(isolate.memory_size - 4096, b"\x5a" * 4096)
    isolate.close()
    isolate = open_isolate(cache, c_guest("hostile"))
    assert isolate.read(isolate.memory_size - 4096, 4096) == bytes(4096)
    isolate.close()


def test_tables_that_a_guest_filled_are_empty_for_the_next(cache: ModuleCache) -> None:
    for _ in range(3):
        filler = open_isolate(cache, wat_guest("fills_table"))
        assert filler.call_raw("describe", None) == limits.GUEST_TABLE_ELEMENTS_MAX
        filler.close()
        finder = open_isolate(cache, wat_guest("finds_table"))
        assert finder.call_raw("describe", None) == 0, "elements that are not null"
        finder.close()
