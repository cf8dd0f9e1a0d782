"""A guest may say where it counts its steps; whatever it says, the host reads within the guest's memory."""

import time

import pytest
import wasmtime

from skerry.isolate import CpuBudget, Isolate, ModuleCache, linker_of_this_thread
from skerry.isolate.build_runner import LOAD_OPERATIONS
from tests.isolate.driver import CPU_MS_MAX, host, request

PAGE = 65536
SAID = 123_456_789_012


def guest(export: str, at: int) -> bytes:
    """A module that says at `at` that it took SAID steps more with each entry."""
    return bytes(
        wasmtime.wat2wasm(f"""(module
  (memory (export "memory") 1 1)
  {export}
  (func (export "skerry_abi_version") (result i32) i32.const 1)
  (func (export "describe") (result i64) i64.const 0)
  (func (export "invoke") (param i32) (result i64)
    (i64.store (i32.const {at}) (i64.add (i64.load (i32.const {at})) (i64.const {SAID})))
    i64.const 0)
  (func (export "resume") (param i32) (result i64) i64.const 0))""")
    )


def counting(at: int) -> bytes:
    return guest(f'(global (export "skerry_steps_used") i32 (i32.const {at}))', at)


def steps(cache: ModuleCache, wasm: bytes, calls: int = 1) -> int:
    """What so many isolates of one call add up to, each entered once."""
    budget = CpuBudget(time.thread_time_ns, CPU_MS_MAX)
    for _ in range(calls):
        isolate = Isolate(linker_of_this_thread(), cache.load(wasm), host(), LOAD_OPERATIONS, budget)
        isolate.invoke(request("f:f"))
        isolate.close()
    return budget.steps


def test_what_a_guest_says_is_read_when_its_isolate_closes(cache: ModuleCache) -> None:
    assert steps(cache, counting(1024)) == SAID


def test_the_steps_of_a_calls_isolates_add_up(cache: ModuleCache) -> None:
    assert steps(cache, counting(1024), calls=3) == 3 * SAID


def test_a_guest_that_waits_is_asked_and_what_it_said_counts_once(cache: ModuleCache) -> None:
    budget = CpuBudget(time.thread_time_ns, CPU_MS_MAX)
    isolate = Isolate(linker_of_this_thread(), cache.load(counting(1024)), host(), LOAD_OPERATIONS, budget)
    for entry in (1, 2):
        isolate.invoke(request("f:f"))
        assert isolate.steps() == entry * SAID and budget.steps == 0
    isolate.close()
    isolate.close()
    assert budget.steps == 2 * SAID


def test_a_count_that_is_no_aligned_word_says_nothing(cache: ModuleCache) -> None:
    assert steps(cache, counting(1024 + 4)) == 0


def test_the_count_may_lie_at_the_end_of_the_memory_and_not_past_it(cache: ModuleCache) -> None:
    assert steps(cache, counting(PAGE - 8)) == SAID
    past = guest(f'(global (export "skerry_steps_used") i32 (i32.const {PAGE}))', 1024)
    assert steps(cache, past) == 0
    assert steps(cache, guest('(global (export "skerry_steps_used") i32 (i32.const -8))', 1024)) == 0


@pytest.mark.parametrize(
    "export",
    [
        "",
        '(global (export "skerry_steps_used") (mut i32) (i32.const 1024))',
        '(global (export "skerry_steps_used") i64 (i64.const 1024))',
        '(func (export "skerry_steps_used"))',
        '(table (export "skerry_steps_used") 1 1 funcref)',
    ],
)
def test_whatever_else_is_exported_says_nothing(cache: ModuleCache, export: str) -> None:
    assert steps(cache, guest(export, 1024)) == 0
