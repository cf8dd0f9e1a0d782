"""The isolate's bounds, each reached and passed by one."""

import pytest

from skerry import limits
from skerry.errors import ClientError, DeveloperError
from skerry.functions import function_table
from skerry.isolate import DONE, CpuBudget, CpuSlice, EntropyStream, ModuleCache, SliceSpent
from skerry.isolate.build_runner import LOAD_OPERATIONS, entropy_length
from tests.fixtures.guests import wat_guest
from tests.isolate.driver import open_isolate


def answered(cache: ModuleCache, length: int, depth: int = 0) -> bytes:
    """The payload of so many bytes that a guest returns after recursing so deep."""
    isolate = open_isolate(cache, wat_guest("answers_as_asked"))
    try:
        packed = DONE << 60 | length << 32 | 64
        status, payload = isolate.invoke(packed.to_bytes(8, "little") + depth.to_bytes(4, "little"))
        assert status == DONE
        return payload
    finally:
        isolate.close()


def test_a_payload_has_a_bound(cache: ModuleCache) -> None:
    assert len(answered(cache, limits.GUEST_PAYLOAD_BYTES_MAX)) == limits.GUEST_PAYLOAD_BYTES_MAX
    with pytest.raises(DeveloperError) as caught:
        answered(cache, limits.GUEST_PAYLOAD_BYTES_MAX + 1)
    assert caught.value.code == "ResultTooLarge"


def test_the_stack_has_a_bound(cache: ModuleCache) -> None:
    """A frame takes at least 16 bytes and, of a function this small, less than 256."""
    answered(cache, 0, limits.GUEST_STACK_BYTES_MAX // 256)
    with pytest.raises(DeveloperError) as caught:
        answered(cache, 0, limits.GUEST_STACK_BYTES_MAX // 16)
    assert caught.value.code == "StackOverflow"


def test_entropy_has_a_bound() -> None:
    bound = limits.ENTROPY_BYTES_MAX
    assert entropy_length(b'{"length":%d}' % bound) == bound
    for argument in (
        b'{"length":%d}' % (bound + 1),
        b'{"length":-1}',
        b'{"length":true}',
        b"{}",
        b"[",
        b'{"length":"1"}',
    ):
        with pytest.raises(DeveloperError) as caught:
            entropy_length(argument)
        assert caught.value.code == "InvalidArgument"


def test_entropy_follows_from_the_seed() -> None:
    one, two, other = EntropyStream(bytes(16)), EntropyStream(bytes(16)), EntropyStream(bytes(15) + b"\1")
    assert [one.take(n) for n in (1, 600, 0, 32)] == [two.take(n) for n in (1, 600, 0, 32)]
    assert one.take(32) != two.take(16) + other.take(16)


@pytest.mark.parametrize("what", ["name", "argument", "result"])
def test_a_hostcall_over_its_bound_is_a_coded_error(cache: ModuleCache, what: str) -> None:
    name = limits.HOSTCALL_NAME_BYTES_MAX + 1 if what == "name" else 1
    argument = limits.HOSTCALL_ARGUMENT_BYTES_MAX + 1 if what == "argument" else 2
    answer = bytes(limits.HOSTCALL_RESULT_BYTES_MAX + 1)
    operations = {**LOAD_OPERATIONS, b"\0": lambda *_: answer}
    isolate = open_isolate(cache, wat_guest("hostcall_of_lengths"), operations=operations)
    try:
        isolate.invoke(name.to_bytes(4, "little") + argument.to_bytes(4, "little"))
        assert isolate.parked is not None and b'"code":"HostcallTooLarge"' in isolate.parked
    finally:
        isolate.close()


def test_a_description_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    description = b'{"abi":1,"language":"c","functions":[],"schema":null,"features":[]}'
    monkeypatch.setattr(limits, "DESCRIPTION_BYTES_MAX", len(description))
    function_table.Description(description)
    monkeypatch.setattr(limits, "DESCRIPTION_BYTES_MAX", len(description) - 1)
    with pytest.raises(ClientError) as caught:
        function_table.Description(description)
    assert caught.value.code == "DescriptionInvalid"


def test_a_budget_is_spent_to_its_last_nanosecond_and_looked_at_often_enough() -> None:
    now = [5_000_000]
    budget = CpuBudget(lambda: now[0], 1000)
    assert budget.ticks() == limits.CPU_LOOK_TICKS_MAX
    now[0] += 990_000_000
    assert budget.ticks() == 10 // limits.EPOCH_TICK_MS
    now[0] += 9_999_999
    assert budget.ticks() == 1
    now[0] += 1
    assert budget.ticks() == 0
    assert getattr(budget.spent(), "code", None) == "FunctionTimedOut"
    assert isinstance(CpuSlice(lambda: 0, 5).spent(), SliceSpent)
