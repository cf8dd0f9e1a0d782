"""Quotas at their bounds and one past them, with the clock in the test's hand; usage that outlives the process."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from skerry import limits
from skerry.admin.host import DEFAULT_NAME
from skerry.admin.registry import Quotas
from skerry.admin.shares import DEFAULTS, Share, changed_quotas, effective
from skerry.admin.token_bucket import TokenBucket
from skerry.errors import ClientError, DeveloperError, SkerryError
from skerry.functions.metering import COUNTERS, shown_usage
from tests.admin.world import HostWorld
from tests.conftest import REPOSITORY
from tests.fixtures import shared


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def share(clock: Clock, **quotas: int) -> Share:
    return Share("one", Quotas(**quotas), clock)


def refusal(found: SkerryError | None) -> tuple[str, int | None] | None:
    return None if found is None else (found.code, found.retry_after_s)


def test_a_batch_that_no_quota_ever_allows_is_told_so_and_not_to_come_again(clock: Clock) -> None:
    for quotas in ({"calls_at_once": 3}, {"requests_per_minute": 3}):
        one = share(clock, **quotas)
        assert refusal(one.admit(0, 4)) == ("BatchExceedsQuota", None)
        assert one.meter.calls_refused == 1
        assert one.admit(0, 3) is None, "nothing of it was counted"
    few = share(clock, calls_at_once=3)
    assert refusal(few.admit(1, 3)) == ("TooManyCallsAtOnce", 1), "it may come later"


# -- the bucket ------------------------------------------------------------------------------------------------------


def test_a_bucket_gives_its_burst_and_not_one_more() -> None:
    bucket = TokenBucket(rate=2, burst=3, now=0)
    assert [bucket.take(1, 0) for _ in range(3)] == [0, 0, 0]
    assert bucket.take(1, 0) == 0.5, "the wait until the next one"
    assert bucket.take(1, 0.5) == 0


def test_a_bucket_fills_to_its_burst_and_a_clock_that_steps_back_gives_nothing() -> None:
    bucket = TokenBucket(rate=2, burst=3, now=0)
    assert bucket.take(3, 1_000) == 0 and bucket.take(1, 1_000) == 0.5
    assert bucket.take(1, 900) == 0.5


def test_a_debt_is_waited_off_at_the_rate() -> None:
    bucket = TokenBucket(rate=2, burst=3, now=0)
    bucket.charge(13, 0)
    assert bucket.debt_seconds(0) == 5 and bucket.debt_seconds(4) == 1 and bucket.debt_seconds(5) == 0


# -- calls -----------------------------------------------------------------------------------------------------------


def test_calls_at_once_at_the_bound_and_one_past_it(clock: Clock) -> None:
    one = share(clock, calls_at_once=3)
    assert refusal(one.admit(2)) is None
    assert refusal(one.admit(3)) == ("TooManyCallsAtOnce", limits.HTTP_RETRY_AFTER_SECONDS)
    assert one.meter.calls_refused == 1
    assert refusal(one.admit(0, 3)) is None
    assert refusal(one.admit(1, 3)) == ("TooManyCallsAtOnce", limits.HTTP_RETRY_AFTER_SECONDS)


def test_requests_a_minute_at_the_bound_and_one_past_it(clock: Clock) -> None:
    one = share(clock, requests_per_minute=6)
    assert [refusal(one.admit(0)) for _ in range(6)] == [None] * 6
    assert refusal(one.admit(0)) == ("RequestRateExceeded", 10), "one comes every ten seconds"
    clock.now += 9
    assert refusal(one.admit(0)) == ("RequestRateExceeded", 1)
    clock.now += 1
    assert refusal(one.admit(0)) is None
    assert refusal(one.admit(0)) == ("RequestRateExceeded", 10)


def test_a_refused_call_costs_no_request(clock: Clock) -> None:
    one = share(clock, requests_per_minute=1, calls_at_once=1)
    assert refusal(one.admit(1)) is not None
    assert refusal(one.admit(0)) is None


def test_cpu_is_charged_afterwards_and_its_debt_waited_off(clock: Clock) -> None:
    one = share(clock, cpu_ms_per_minute=6_000)
    one.meter.cpu_ns += 6_000 * 1_000_000
    assert refusal(one.admit(0)) is None, "all of it may be used"
    one.meter.cpu_ns += 2_000 * 1_000_000
    assert refusal(one.admit(0)) == ("CpuQuotaSpent", 20)
    clock.now += 19
    assert refusal(one.admit(0)) == ("CpuQuotaSpent", 1)
    clock.now += 1
    assert refusal(one.admit(0)) is None


def test_actions_at_once_at_the_bound_and_one_past_it(clock: Clock) -> None:
    one = share(clock, actions_at_once=2)
    assert refusal(one.admit_action(1)) is None
    assert refusal(one.admit_action(2)) == ("TooManyActionsAtOnce", limits.HTTP_RETRY_AFTER_SECONDS)


def test_fetches_and_their_bytes_at_the_bound_and_past_it(clock: Clock) -> None:
    one = share(clock, egress_requests_per_minute=2, egress_bytes_per_minute=600)
    one.begin_fetch()
    one.begin_fetch()
    with pytest.raises(DeveloperError, match=r"2 fetches a minute\. Fetch again in 30 s") as caught:
        one.begin_fetch()
    assert caught.value.code == "EgressQuotaSpent"
    clock.now += 60
    one.egress_bytes(600)
    one.begin_fetch()
    one.egress_bytes(100)
    with pytest.raises(DeveloperError, match=r"600 bytes a minute\. Fetch again in 10 s"):
        one.begin_fetch()
    assert (one.meter.egress_requests, one.meter.egress_bytes) == (3, 700)


# -- setting them ----------------------------------------------------------------------------------------------------


def test_quotas_fall_back_to_the_defaults_one_by_one() -> None:
    assert effective(Quotas()) == DEFAULTS
    mine = changed_quotas(Quotas(), {"calls_at_once": 7})
    assert effective(mine).calls_at_once == 7 and effective(mine).storage_bytes == DEFAULTS.storage_bytes
    assert changed_quotas(mine, {"calls_at_once": None}) == Quotas()


@pytest.mark.parametrize(
    ("asked", "is_fine"),
    [
        ({"calls_at_once": 1}, True),
        ({"calls_at_once": 0}, False),
        ({"calls_at_once": limits.QUOTA_MAX}, True),
        ({"calls_at_once": limits.QUOTA_MAX + 1}, False),
        ({"calls_at_once": True}, False),
        ({"calls_at_once": 1.5}, False),
        ({"memory_bytes": limits.QUOTA_MEMORY_BYTES_MIN}, True),
        ({"memory_bytes": limits.QUOTA_MEMORY_BYTES_MIN - 1}, False),
        ({"memory_bytes": limits.GUEST_MEMORY_BYTES_MAX + 1}, False),
        ({"actions_at_once": limits.ACTIONS_RUNNING_MAX + 1}, False),
        ({"nonsense": 1}, False),
    ],
)
def test_quotas_are_judged_when_they_are_set(asked: dict[str, Any], is_fine: bool) -> None:
    if is_fine:
        changed_quotas(Quotas(), asked)
        return
    with pytest.raises(ClientError) as caught:
        changed_quotas(Quotas(), asked)
    assert caught.value.code == "InvalidQuotas"


# -- on a host -------------------------------------------------------------------------------------------------------


def codes(host: HostWorld, name: str, times: int) -> list[str | None]:
    async def all_of_them() -> list[Any]:
        asked = (host.call(name, "query", "f:add", {"x": 1, "y": 2}) for _ in range(times))
        return await asyncio.gather(*asked, return_exceptions=True)

    return [getattr(outcome, "code", None) for outcome in host.wait(all_of_them())]


def test_a_quota_holds_for_its_deployment_and_survives_a_restart(host: HostWorld, base: Path) -> None:
    host.create("one", "two")
    for name in ("one", "two"):
        host.deploy(name, shared.bundle("c", base))
    host.wait(host.host.change_quotas("one", {"requests_per_minute": 2}))
    assert codes(host, "one", 3) == [None, None, "RequestRateExceeded"]
    assert codes(host, "two", 3) == [None, None, None]
    folder = host.folder.path
    host.close()
    with HostWorld(folder, shared.compiled(base)) as again:
        assert codes(again, "one", 3) == [None, None, "RequestRateExceeded"]


def test_calls_that_wait_for_their_deployment_count_as_under_way(host: HostWorld, base: Path) -> None:
    host.create("one")
    host.deploy("one", shared.bundle("c", base))
    host.sweep(limits.DEPLOYMENT_IDLE_SECONDS)
    assert not host.hosted("one").is_open
    host.wait(host.host.change_quotas("one", {"calls_at_once": 3}))
    assert codes(host, "one", 5) == [None, None, None, "TooManyCallsAtOnce", "TooManyCallsAtOnce"]


def test_usage_is_counted_and_survives_a_restart(host: HostWorld, base: Path) -> None:
    host.create("one")
    host.deploy("one", shared.bundle("c", base))
    host.value("one", "mutation", "f:insert", {"n": 1, "body": "x" * 100})
    assert len(host.value("one", "query", "f:list", {"n": 1})) == 1
    with pytest.raises(AssertionError):
        host.value("one", "query", "f:no_such", {})
    used = host.host.usage("one")
    assert (used["calls"], used["documentsRead"], used["documentsWritten"]) == (2, 1, 1)
    assert used["hostcalls"] >= 2 and used["bytesWritten"] > 100 and used["bytesRead"] > 100
    assert used["cpuUs"] >= used["guestUs"] > 0 and used["storageBytes"] > 0
    folder = host.folder.path
    host.close()
    with HostWorld(folder, shared.compiled(base)) as again:
        kept = again.host.usage("one")
        assert {name: kept[name] for name in shown_usage({})} == {name: used[name] for name in shown_usage({})}
        again.value("one", "query", "f:add", {"x": 1, "y": 2})
        assert again.host.usage("one")["calls"] == 3


def test_every_counter_is_shown_once() -> None:
    assert len(shown_usage(dict.fromkeys(COUNTERS, 1_000))) == len(COUNTERS)
    assert shown_usage({"cpu_ns": 2_500})["cpuUs"] == 2
    assert shown_usage({"calls": 3})["guestSteps"] == 0, "totals from before it was counted"


def test_usage_of_a_deleted_deployment_is_nobodys(host: HostWorld, base: Path) -> None:
    host.create("one")
    host.deploy("one", shared.bundle("c", base))
    host.value("one", "query", "f:add", {"x": 1, "y": 2})
    hosted = host.hosted("one")
    host.wait(host.host.delete("one"))
    host.host._add_usage(hosted)
    host.create("one")
    assert host.host.usage("one")["calls"] == 0


_KILLED = """
    import os, signal, sys
    from pathlib import Path
    from tests.admin.world import HostWorld
    from tests.fixtures import shared
    folder, compiled, base = (Path(word) for word in sys.argv[1:])
    host = HostWorld(folder, compiled)
    host.create("one")
    host.deploy("one", shared.bundle("c", base))
    for _ in range(5):
        host.value("one", "query", "f:add", {"x": 1, "y": 2})
    host.sweep(0)
    for _ in range(3):
        host.value("one", "query", "f:add", {"x": 1, "y": 2})
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_process_loses_what_was_used_since_the_last_save_and_no_more(tmp_path: Path, base: Path) -> None:
    shared.bundle("c", base)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(REPOSITORY / "host"), str(REPOSITORY)))}
    words = [
        sys.executable,
        "-c",
        textwrap.dedent(_KILLED),
        str(tmp_path / "data"),
        str(shared.compiled(base)),
        str(base),
    ]
    ran = subprocess.run(words, env=environment, timeout=120, capture_output=True, text=True)
    assert ran.returncode == -signal.SIGKILL, ran.stderr
    with HostWorld(tmp_path / "data", shared.compiled(base)) as host:
        assert host.host.usage("one")["calls"] == 5


def test_the_default_deployment_has_the_defaults(host: HostWorld) -> None:
    assert host.hosted(DEFAULT_NAME).share.quotas == DEFAULTS


# -- storage and memory ----------------------------------------------------------------------------------------------


def test_data_at_their_quota_take_no_more_and_can_be_deleted(host: HostWorld, base: Path) -> None:
    host.create("one")
    host.deploy("one", shared.bundle("c", base))
    made = host.value("one", "mutation", "f:insert", {"n": 1, "body": "x" * 100})
    host.wait(host.host.change_quotas("one", {"storage_bytes": 1}))
    refused = host.wait(host.call("one", "mutation", "f:insert", {"n": 1, "body": "y"}))
    assert "storage quota" in refused.error_message, "StorageQuotaReached"
    assert len(host.value("one", "query", "f:list", {"n": 1})) == 1, "reads work"
    host.value("one", "mutation", "f:remove", {"id": made})
    assert host.value("one", "query", "f:list", {"n": 1}) == []
    host.wait(host.host.change_quotas("one", {"storage_bytes": None}))
    host.value("one", "mutation", "f:insert", {"n": 1, "body": "y"})
