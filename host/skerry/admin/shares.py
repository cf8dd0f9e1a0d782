"""What a deployment may use: its quotas, each judged where the use begins.

| quota | judged | over it |
|---|---|---|
| calls at once | when a call comes | 429 `TooManyCallsAtOnce` |
| requests a minute | when a call comes: a token bucket | 429 `RequestRateExceeded` |
| CPU time a minute | charged with what a call truly used, judged when the next one comes | 429 `CpuQuotaSpent` |
| actions at once | when an action begins | 429 `TooManyActionsAtOnce` |
| storage | when a document is inserted or grows | `StorageQuotaReached`, for the function to catch |
| egress requests and bytes a minute | before each fetch; bytes as they pass | `EgressQuotaSpent`, likewise |

A bucket holds a minute's allowance and may be overdrawn by what is under way, which later calls wait off: a heavy
caller waits alone. What waits in a queue counts as a call under way, so that a flood is refused and not kept.

Concurrency: the loop thread.
"""

from collections.abc import Callable
from dataclasses import fields, replace
from math import ceil
from typing import Any, Final, cast

from skerry import limits
from skerry.admin.registry import Quotas
from skerry.admin.token_bucket import TokenBucket
from skerry.errors import ClientError, DeveloperError
from skerry.functions.metering import CallLog, Meter
from skerry.functions.terms import Terms

_NS_PER_MS: Final = 1_000_000
_SECONDS_PER_MINUTE: Final = 60.0

DEFAULTS: Final = Quotas(
    calls_at_once=limits.QUOTA_CALLS_AT_ONCE,
    requests_per_minute=limits.QUOTA_REQUESTS_PER_MINUTE,
    cpu_ms_per_minute=limits.QUOTA_CPU_MS_PER_MINUTE,
    actions_at_once=limits.QUOTA_ACTIONS_AT_ONCE,
    memory_bytes=limits.GUEST_MEMORY_BYTES_MAX,
    storage_bytes=limits.QUOTA_STORAGE_BYTES,
    egress_requests_per_minute=limits.QUOTA_EGRESS_REQUESTS_PER_MINUTE,
    egress_bytes_per_minute=limits.QUOTA_EGRESS_BYTES_PER_MINUTE,
)
"""What holds for a deployment that nothing else was set for."""

_MAXIMA: Final = replace(
    DEFAULTS,
    calls_at_once=limits.QUOTA_MAX,
    requests_per_minute=limits.QUOTA_MAX,
    cpu_ms_per_minute=limits.QUOTA_MAX,
    actions_at_once=limits.ACTIONS_RUNNING_MAX,
    storage_bytes=limits.QUOTA_MAX,
    egress_requests_per_minute=limits.QUOTA_MAX,
    egress_bytes_per_minute=limits.QUOTA_MAX,
)
_MINIMA: Final = {"memory_bytes": limits.QUOTA_MEMORY_BYTES_MIN}


class Share(Terms):
    """One deployment's quotas and what it has used of them. Shape: `meter` counts it; `monotonic` is in seconds."""

    __slots__ = (
        "_cpu", "_cpu_seen_ns", "_egress_bytes", "_egress_requests", "_monotonic", "_requests", "_taken", "name",
        "quotas",
    )  # fmt: skip

    def __init__(
        self, name: str, quotas: Quotas, monotonic: Callable[[], float], *, call_log: CallLog | None = None
    ) -> None:
        self.name = name
        super().__init__(Meter(name, call_log))
        self._monotonic = monotonic
        self._cpu_seen_ns = 0
        self._taken: dict[str, int] = {}
        self.set_quotas(quotas)

    def set_quotas(self, quotas: Quotas) -> None:
        """Puts other quotas in force, from now on and with full buckets."""
        self.quotas = quotas = effective(quotas)
        now = self._monotonic()

        def bucket(per_minute: int | None) -> TokenBucket:
            assert per_minute is not None
            return TokenBucket(per_minute / _SECONDS_PER_MINUTE, per_minute, now)

        self._requests = bucket(quotas.requests_per_minute)
        self._cpu = bucket(quotas.cpu_ms_per_minute)
        self._egress_requests = bucket(quotas.egress_requests_per_minute)
        self._egress_bytes = bucket(quotas.egress_bytes_per_minute)

    @property
    def memory_bytes(self) -> int:
        return cast("int", self.quotas.memory_bytes)

    @property
    def storage_bytes(self) -> int | None:
        return self.quotas.storage_bytes

    # -- calls -------------------------------------------------------------------------------------------------------

    def admit(self, under_way: int, calls: int = 1) -> ClientError | None:
        """The refusal of so many calls, all or none, beside those that run or wait; None where they may come, and
        count."""
        if calls > 1 and calls > min(
            cast("int", self.quotas.calls_at_once), cast("int", self.quotas.requests_per_minute)
        ):
            self.meter.calls_refused += 1
            return ClientError(
                "BatchExceedsQuota",
                f"{calls} calls in one request are more than '{self.name}' may ever have at once, or in a minute: "
                "send fewer in each.",
            )
        now = self._monotonic()
        if under_way + calls > cast("int", self.quotas.calls_at_once):
            return self._refuse(
                "TooManyCallsAtOnce",
                f"{self.quotas.calls_at_once} calls of '{self.name}' are under way, which is its quota. Send the next "
                "ones as these are answered.",
                limits.HTTP_RETRY_AFTER_SECONDS,
            )
        wait_s = self._cpu_wait_s(now)
        if wait_s > 0:
            return self._refuse(
                "CpuQuotaSpent",
                f"'{self.name}' has used its {self.quotas.cpu_ms_per_minute} ms of CPU time a minute. Call less, "
                "or make its functions do less.",
                wait_s,
            )
        wait_s = self._requests.take(calls, now)
        if wait_s > 0:
            return self._refuse(
                "RequestRateExceeded",
                f"'{self.name}' has had its {self.quotas.requests_per_minute} requests a minute. Send fewer.",
                wait_s,
            )
        return None

    @property
    def cpu_wait_s(self) -> float:
        """The seconds until the deployment has paid for the CPU time that it used."""
        return self._cpu_wait_s(self._monotonic())

    def _cpu_wait_s(self, now: float) -> float:
        spent_ns = self.meter.cpu_ns - self._cpu_seen_ns
        if spent_ns:
            self._cpu_seen_ns = self.meter.cpu_ns
            self._cpu.charge(spent_ns / _NS_PER_MS, now)
        return self._cpu.debt_seconds(now) if self._cpu.tokens < 0 else 0.0

    def admit_action(self, under_way: int) -> ClientError | None:
        """The refusal of one more action, None where it may begin."""
        if under_way < cast("int", self.quotas.actions_at_once):
            return None
        return self._refuse(
            "TooManyActionsAtOnce",
            f"{self.quotas.actions_at_once} actions of '{self.name}' are under way, which is its quota. Begin the next "
            "ones as these end.",
            limits.HTTP_RETRY_AFTER_SECONDS,
        )

    def take_usage(self) -> dict[str, int]:
        """What was used since this was last asked, without what was not used."""
        before, self._taken = self._taken, self.meter.totals()
        grown = {name: amount - before.get(name, 0) for name, amount in self._taken.items()}
        return {name: amount for name, amount in grown.items() if amount}

    def _refuse(self, code: str, message: str, wait_s: float) -> ClientError:
        self.meter.calls_refused += 1
        seconds = max(1, ceil(wait_s))
        return ClientError(code, message, retry_after_s=seconds)

    # -- egress ------------------------------------------------------------------------------------------------------

    def begin_fetch(self) -> None:
        """Counts a fetch. Raises: DeveloperError `EgressQuotaSpent`."""
        now = self._monotonic()
        wait_s = self._egress_bytes.debt_seconds(now)
        what = f"{self.quotas.egress_bytes_per_minute} bytes"
        if wait_s == 0:
            wait_s = self._egress_requests.take(1, now)
            what = f"{self.quotas.egress_requests_per_minute} fetches"
        if wait_s > 0:
            raise DeveloperError(
                "EgressQuotaSpent",
                f"'{self.name}' has used its {what} a minute. Fetch again in {max(1, ceil(wait_s))} s, or less.",
            )
        self.meter.egress_requests += 1

    def egress_bytes(self, n_bytes: int) -> None:
        """Charges bytes that passed, either way; more than there was is a debt that later fetches wait off."""
        self.meter.egress_bytes += n_bytes
        self._egress_bytes.charge(n_bytes, self._monotonic())


def effective(quotas: Quotas) -> Quotas:
    """The quotas in force: the host's defaults where a deployment has none of its own."""
    given = {field.name: getattr(quotas, field.name) for field in fields(Quotas)}
    return replace(DEFAULTS, **{name: value for name, value in given.items() if value is not None})


def changed_quotas(before: Quotas, asked: dict[str, Any]) -> Quotas:
    """Quotas with some set, and those that are None back at the host's default.

    Raises: ClientError `InvalidQuotas`. Limits: QUOTA_MAX, QUOTA_MEMORY_BYTES_MIN, ACTIONS_RUNNING_MAX.
    """
    names = [field.name for field in fields(Quotas)]
    for name, value in asked.items():
        if name not in names:
            raise ClientError("InvalidQuotas", f"There is no quota {name[:40]!r}: there are {', '.join(names)}.")
        least, most = _MINIMA.get(name, 1), getattr(_MAXIMA, name)
        if value is not None and (type(value) is not int or not least <= value <= most):
            raise ClientError("InvalidQuotas", f"The quota {name} is a whole number from {least} to {most}, or null.")
    return replace(before, **asked)
