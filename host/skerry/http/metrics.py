"""Counters of the HTTP edge, kept as plain numbers on the way and turned into the Prometheus text format when asked.

Deployments are a label, of which there are only so many. Deliberately absent: labels by function or by caller, which a
stranger could multiply.
"""

import resource
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

from skerry.functions.care import StorageSeen
from skerry.functions.metering import COUNTERS, Meter
from skerry.functions.query_cache import get_cache_memory
from skerry.limits import METRICS_DEPLOYMENTS_MAX

KINDS: Final[Sequence[str]] = ("query", "mutation", "action", "any")
_BOUNDS_SECONDS: Final = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_USAGE_HELP: Final = "Used by a deployment's calls in this process; by those beyond the largest, without a name."
_STORAGE: Final = (
    ("data_bytes", "Pages that an open deployment's trees fill."),
    ("file_bytes", "Size of an open deployment's storage file."),
    ("free_bytes", "Of the file, what holds nothing; compacting gives it back to the disk."),
    ("history_retention_seconds", "For how long an open deployment's history is kept."),
)
CONTENT_TYPE: Final = b"text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """What this process has served since it started."""

    def __init__(self) -> None:
        self.in_flight = 0
        self.deploys = 0
        self.live_runs = 0
        self._refused: dict[str, int] = {}
        self._done = {kind: [0, 0] for kind in KINDS}
        self._buckets = {kind: [0] * (len(_BOUNDS_SECONDS) + 1) for kind in KINDS}
        self._seconds: dict[str, float] = dict.fromkeys(KINDS, 0.0)
        self._usage: Mapping[str, Meter] = {}
        self._storage: Mapping[str, tuple[StorageSeen, int]] = {}
        self._quarantined: Mapping[str, int] = {}
        self._live = (0, 0)
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def call_done(self, kind: str, ok: bool, seconds: float) -> None:
        """Counts a call whose function ran."""
        self._done[kind][ok] += 1
        self._seconds[kind] += seconds
        self._buckets[kind][bisect_left(_BOUNDS_SECONDS, seconds)] += 1

    def refused(self, code: str) -> None:
        """Counts a request that reached no function, by its error code."""
        self._refused[code] = self._refused.get(code, 0) + 1

    def text(
        self,
        usage: Mapping[str, Meter],
        storage: Mapping[str, tuple[StorageSeen, int]] | None = None,
        quarantined: Mapping[str, int] | None = None,
        live: tuple[int, int] = (0, 0),
    ) -> bytes:
        """Everything, in the Prometheus text format.

        Shape: `usage` and `storage` by deployment, of this process; `quarantined` is how many versions of which are;
        `live` how many sync connections and live queries there are.

        Limits: METRICS_DEPLOYMENTS_MAX; the deployments that used the least CPU time are one with an empty name.
        """
        self._usage = usage
        self._storage = storage or {}
        self._quarantined = quarantined or {}
        self._live = live
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """What prometheus_client asks a collector for."""
        calls = CounterMetricFamily("skerry_calls", "Calls whose function ran.", labels=["kind", "outcome"])
        times = HistogramMetricFamily("skerry_call_seconds", "Time from the request to its answer.", labels=["kind"])
        for kind in KINDS:
            failed, succeeded = self._done[kind]
            calls.add_metric([kind, "success"], succeeded)
            calls.add_metric([kind, "error"], failed)
            times.add_metric([kind], self._cumulative(kind), self._seconds[kind])
        yield calls
        yield times
        refused = CounterMetricFamily("skerry_requests_refused", "Requests that reached no function.", labels=["code"])
        for code, count in sorted(self._refused.items()):
            refused.add_metric([code], count)
        yield refused
        yield GaugeMetricFamily("skerry_calls_in_flight", "Calls that are being served.", self.in_flight)
        yield CounterMetricFamily("skerry_deploys", "Bundles made live over HTTP.", self.deploys)
        connections, queries = self._live
        yield GaugeMetricFamily("skerry_sync_connections", "WebSockets that are connected.", connections)
        yield GaugeMetricFamily("skerry_live_queries", "Different queries that clients watch.", queries)
        yield CounterMetricFamily("skerry_live_query_runs", "Runs of queries that clients watch.", self.live_runs)
        yield from _query_cache()
        yield from self._by_deployment()
        yield from self._storage_by_deployment()
        quarantined = GaugeMetricFamily(
            "skerry_quarantined_versions", "Versions that crashed the server and are not run.", labels=["deployment"]
        )
        for name, count in sorted(self._quarantined.items()):
            quarantined.add_metric([name], count)
        yield quarantined
        usage = resource.getrusage(resource.RUSAGE_SELF)
        yield CounterMetricFamily("process_cpu_seconds", "CPU time of the process.", usage.ru_utime + usage.ru_stime)
        yield GaugeMetricFamily("process_resident_memory_max_bytes", "Highest memory in use.", usage.ru_maxrss * 1024)

    def _by_deployment(self) -> Iterator[Metric]:
        """One family for each counter. A counter falls when its deployment falls behind others, as at a restart."""
        by_cpu = sorted(self._usage.items(), key=lambda item: item[1].cpu_ns, reverse=True)
        totals = {name: meter.totals() for name, meter in by_cpu[:METRICS_DEPLOYMENTS_MAX]}
        for _, meter in by_cpu[METRICS_DEPLOYMENTS_MAX:]:
            others = totals.setdefault("", dict.fromkeys(COUNTERS, 0))
            for counter, amount in meter.totals().items():
                others[counter] += amount
        for counter in COUNTERS:
            is_time = counter.endswith("_ns")
            shown = counter.removesuffix("_ns") + "_seconds" if is_time else counter
            family = CounterMetricFamily(f"skerry_deployment_{shown}", _USAGE_HELP, labels=["deployment"])
            for name, amounts in totals.items():
                family.add_metric([name], amounts[counter] / 1e9 if is_time else amounts[counter])
            yield family

    def _storage_by_deployment(self) -> Iterator[Metric]:
        """Gauges of the open deployments that have the largest files."""
        largest = sorted(self._storage.items(), key=lambda item: item[1][0].file_bytes, reverse=True)
        families = [
            GaugeMetricFamily(f"skerry_deployment_{name}", text, labels=["deployment"]) for name, text in _STORAGE
        ]
        for name, (seen, retention_s) in largest[:METRICS_DEPLOYMENTS_MAX]:
            for family, amount in zip(families, (*seen, retention_s), strict=True):
                family.add_metric([name], amount)
        yield from families

    def _cumulative(self, kind: str) -> list[tuple[str, float]]:
        total = 0
        buckets: list[tuple[str, float]] = []
        for bound, count in zip((*map(str, _BOUNDS_SECONDS), "+Inf"), self._buckets[kind], strict=True):
            total += count
            buckets.append((bound, total))
        return buckets


def _query_cache() -> Iterator[Metric]:
    """What the answers of queries that are kept take, and how often they were of use."""
    memory = get_cache_memory()
    yield CounterMetricFamily("skerry_query_cache_hits", "Queries that a kept answer was told to.", memory.hits)
    yield CounterMetricFamily("skerry_query_cache_misses", "Queries that no answer was kept for.", memory.misses)
    yield CounterMetricFamily(
        "skerry_query_cache_joined", "Of the misses, those that waited for an equal call.", memory.joined
    )
    yield GaugeMetricFamily("skerry_query_cache_bytes", "What the kept answers take.", memory.n_bytes)
    yield GaugeMetricFamily("skerry_query_cache_entries", "How many answers are kept.", memory.n_entries)
