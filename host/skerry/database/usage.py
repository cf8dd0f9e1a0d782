"""What a transaction has used, against the limits of the protocol.

Counters are checked where they grow, and the error is a developer error: a function may catch it, but the counter
stays, so each further read or write fails again. Host work that the protocol does not know (filter steps, index
bytes) is bounded here too.
"""

from collections.abc import Callable
from typing import Any, Final, cast

from skerry.errors import DeveloperError
from skerry.limits import (
    FILTER_STEPS_MAX,
    FILTER_STEPS_PER_LOOK,
    HISTORY_RETENTION_S,
    SLICE_SEARCH_CHARS_MAX,
    TRANSACTION_BYTES_READ_MAX,
    TRANSACTION_BYTES_WRITTEN_MAX,
    TRANSACTION_DOCUMENTS_READ_MAX,
    TRANSACTION_DOCUMENTS_WRITTEN_MAX,
    TRANSACTION_FUNCTIONS_SCHEDULED_MAX,
    TRANSACTION_GATHERED_BYTES_MAX,
    TRANSACTION_INDEX_BYTES_MAX,
    TRANSACTION_RANGES_READ_MAX,
    TRANSACTION_SCHEDULED_ARGS_BYTES_MAX,
    TRANSACTION_SEARCH_KEYS_MAX,
    USAGE_WARNING_PERCENT,
)

_READ_ADVICE: Final = (
    "Consider using smaller limits in your queries, paginating your queries, or using indexed queries with a selective "
    "index range expressions."
)

_FEW: Final[int] = 256
_FEW_BYTES: Final[int] = 1 << 20
"""Below these of everything, no limit is near."""
assert (
    USAGE_WARNING_PERCENT
    * min(
        TRANSACTION_DOCUMENTS_READ_MAX,
        TRANSACTION_DOCUMENTS_WRITTEN_MAX,
        TRANSACTION_RANGES_READ_MAX,
        TRANSACTION_FUNCTIONS_SCHEDULED_MAX,
    )
    >= 100 * _FEW
)
assert (
    USAGE_WARNING_PERCENT
    * min(TRANSACTION_BYTES_READ_MAX, TRANSACTION_BYTES_WRITTEN_MAX, TRANSACTION_SCHEDULED_ARGS_BYTES_MAX)
    >= 100 * _FEW_BYTES
)


METRICS: Final = (
    "bytesRead",
    "bytesWritten",
    "databaseQueries",
    "documentsRead",
    "documentsWritten",
    "functionsScheduled",
    "scheduledFunctionArgsBytes",
)
"""What is counted, under the names of the protocol; everything that goes by order goes by this one."""
FILE_METRICS: Final = ("filesWritten", "fileWriteBytes", "filesRead", "fileReadBytes")
"""What the protocol counts besides, and nothing here uses yet."""
_WARNINGS: Final = (
    "Many bytes read",
    "Many bytes written",
    "Many reads",
    "Many documents read",
    "Many writes",
    "Many functions scheduled",
    "Many bytes of arguments of scheduled functions",
)
Counts = tuple[int, int, int, int, int, int, int]
Maxima = tuple[Counts, Counts]
_NOTHING: Final[Counts] = (0, 0, 0, 0, 0, 0, 0)


def _nobody_looks() -> None:
    """For transactions whose time nobody bounds."""


class Usage:
    """The counters of one transaction. Shape: each with its maximum, which a called function may have lowered; `floor`
    is what had been used when that one began; `is_full` where the deployment's data have reached their quota; `look`
    is called now and then within long work of the host, and ends it (raises) where the call has no time left."""

    __slots__ = (
        "bytes_read",
        "bytes_read_max",
        "bytes_written",
        "bytes_written_max",
        "documents_read",
        "documents_read_max",
        "documents_written",
        "documents_written_max",
        "filter_steps",
        "floor",
        "functions_scheduled",
        "functions_scheduled_max",
        "gathered_bytes",
        "index_bytes",
        "is_full",
        "leave_slice",
        "look",
        "look_at_steps",
        "ranges_read",
        "ranges_read_max",
        "scheduled_args_bytes",
        "scheduled_args_bytes_max",
        "search_keys",
        "validation_steps_max",
    )

    def __init__(self) -> None:
        self.bytes_read = 0
        self.documents_read = 0
        self.ranges_read = 0
        self.documents_written = 0
        self.bytes_written = 0
        self.functions_scheduled = 0
        self.scheduled_args_bytes = 0
        self.filter_steps = 0
        self.index_bytes = 0
        self.gathered_bytes = 0
        self.search_keys = 0
        self.floor = _NOTHING
        self.bytes_read_max = TRANSACTION_BYTES_READ_MAX
        self.bytes_written_max = TRANSACTION_BYTES_WRITTEN_MAX
        self.ranges_read_max = TRANSACTION_RANGES_READ_MAX
        self.documents_read_max = TRANSACTION_DOCUMENTS_READ_MAX
        self.documents_written_max = TRANSACTION_DOCUMENTS_WRITTEN_MAX
        self.functions_scheduled_max = TRANSACTION_FUNCTIONS_SCHEDULED_MAX
        self.scheduled_args_bytes_max = TRANSACTION_SCHEDULED_ARGS_BYTES_MAX
        self.is_full = False
        self.look: Callable[[], None] = _nobody_looks
        self.validation_steps_max: int | None = None
        self.leave_slice: Callable[[], None] = _nobody_looks
        self.look_at_steps = FILTER_STEPS_PER_LOOK

    def bound(
        self, look: Callable[[], None], validation_steps_max: int | None, leave_slice: Callable[[], None]
    ) -> None:
        """Bounds the time of long host work.

        Shape: `look` as above; a check of a document that takes more than so many steps calls `leave_slice`, which
        raises, where there is a bound.
        """
        self.look = look
        self.validation_steps_max = validation_steps_max
        self.leave_slice = leave_slice

    def lower(self, caps: dict[str, int]) -> Maxima:
        """Lets a called function use so much at most, by the names of `METRICS`; ends with `restore`."""
        maxima = self.maxima
        before = (maxima, self.floor)
        used = self.used()
        self.floor = used
        caps_in_order = [caps.get(name, most) for name, most in zip(METRICS, maxima, strict=True)]
        lowered = [min(most, now + cap) for most, now, cap in zip(maxima, used, caps_in_order, strict=True)]
        self._set_maxima(cast("Counts", tuple(lowered)))
        return before

    def restore(self, before: Maxima) -> None:
        """Ends what `lower` began."""
        maxima, self.floor = before
        self._set_maxima(maxima)

    def used(self) -> Counts:
        """What has been used, in the order of `METRICS`."""
        return (
            self.bytes_read,
            self.bytes_written,
            self.ranges_read,
            self.documents_read,
            self.documents_written,
            self.functions_scheduled,
            self.scheduled_args_bytes,
        )

    @property
    def maxima(self) -> Counts:
        """What may be used, in the same order."""
        return (
            self.bytes_read_max,
            self.bytes_written_max,
            self.ranges_read_max,
            self.documents_read_max,
            self.documents_written_max,
            self.functions_scheduled_max,
            self.scheduled_args_bytes_max,
        )

    def _set_maxima(self, maxima: Counts) -> None:
        (
            self.bytes_read_max,
            self.bytes_written_max,
            self.ranges_read_max,
            self.documents_read_max,
            self.documents_written_max,
            self.functions_scheduled_max,
            self.scheduled_args_bytes_max,
        ) = maxima

    def _limit(self, name: str) -> int:
        """A limit as the running function knows it."""
        at = METRICS.index(name)
        return self.maxima[at] - self.floor[at]

    def read_range(self) -> None:
        """Count one `get`, query or page."""
        self.ranges_read += 1
        if self.ranges_read > self.ranges_read_max:
            raise DeveloperError(
                "TooManyReads",
                f"Too many reads in a single function execution (limit: {self._limit('databaseQueries')}). "
                + _READ_ADVICE,
            )

    def read_document(self, size: int) -> None:
        """Count one document of `size` bytes read, whether a filter keeps it or not."""
        self.documents_read += 1
        self.bytes_read += size
        if self.documents_read > self.documents_read_max or self.bytes_read > self.bytes_read_max:
            raise self._read_error()

    def _read_error(self) -> DeveloperError:
        if self.documents_read > self.documents_read_max:
            return DeveloperError(
                "TooManyDocumentsRead",
                f"Too many documents read in a single function execution (limit: {self._limit('documentsRead')}). "
                + _READ_ADVICE,
            )
        return DeveloperError(
            "TooManyBytesRead",
            f"Too many bytes read in a single function execution (limit: {self._limit('bytesRead')} bytes). "
            + _READ_ADVICE,
        )

    def write_document(self, size: int) -> None:
        """Count one insert, patch, replace or delete that leaves a document of `size` bytes."""
        self.documents_written += 1
        self.bytes_written += size
        if self.documents_written > self.documents_written_max:
            raise DeveloperError(
                "TooManyWrites",
                f"Too many writes in a single function execution (limit: {self._limit('documentsWritten')})",
            )
        if self.bytes_written > self.bytes_written_max:
            raise DeveloperError(
                "TooManyBytesWritten",
                f"Too many bytes written in a single function execution (limit: {self._limit('bytesWritten')} bytes)",
            )

    def grow(self, by_bytes: int) -> None:
        """Ends what would add to data that have reached their quota. Raises: DeveloperError `StorageQuotaReached`."""
        if by_bytes > 0:
            raise DeveloperError(
                "StorageQuotaReached",
                "The deployment's data have reached its storage quota: nothing can be added. Deletes work; what they "
                f"free is there to use once it is no longer kept as history ({HISTORY_RETENTION_S // 60} minutes).",
            )

    def write_index(self, size: int) -> None:
        """Count the bytes of index keys added or removed."""
        self.index_bytes += size
        if self.index_bytes > TRANSACTION_INDEX_BYTES_MAX:
            raise DeveloperError(
                "TooManyIndexBytesWritten",
                f"Too many bytes of index keys written in a single function execution (limit: "
                f"{TRANSACTION_INDEX_BYTES_MAX} bytes). Index smaller fields, or write fewer documents at a time.",
            )

    def analyse(self, n_chars: int) -> None:
        """Before a text is taken apart for a search index: leaves the loop thread where that takes long."""
        if n_chars > SLICE_SEARCH_CHARS_MAX:
            self.look()
            if self.validation_steps_max is not None:
                self.leave_slice()

    def search(self, n_keys: int) -> None:
        """Count the index keys that a search has read."""
        self.search_keys += n_keys
        if self.search_keys > TRANSACTION_SEARCH_KEYS_MAX:
            raise DeveloperError(
                "TooManySearchKeysRead",
                f"The searches of a single function execution read more than {TRANSACTION_SEARCH_KEYS_MAX} index "
                "keys. Search less often in one function.",
            )

    def gather(self, n_bytes: int) -> None:
        """Count bytes that storage gathers for index keys with a long common prefix."""
        self.gathered_bytes += n_bytes
        if self.gathered_bytes > TRANSACTION_GATHERED_BYTES_MAX:
            raise DeveloperError(
                "LongIndexKeysTooExpensive",
                "Reading index keys with long common prefixes took more than "
                f"{TRANSACTION_GATHERED_BYTES_MAX} bytes of work in a single function execution. Index smaller fields.",
            )

    def schedule(self, args_bytes: int) -> None:
        """Count one function scheduled with arguments of this size."""
        self.functions_scheduled += 1
        self.scheduled_args_bytes += args_bytes
        if self.functions_scheduled > self.functions_scheduled_max:
            raise DeveloperError(
                "TooManyFunctionsScheduled",
                f"Too many functions scheduled by this mutation (limit: {self._limit('functionsScheduled')})",
            )
        if self.scheduled_args_bytes > self.scheduled_args_bytes_max:
            raise DeveloperError(
                "ScheduledFunctionsArgumentsTooLarge",
                "Too large total size of the arguments of the functions scheduled by this mutation (limit: "
                f"{self._limit('scheduledFunctionArgsBytes')} bytes)",
            )

    def filter(self, steps: int) -> None:
        """Count the steps of evaluating a filter on one document."""
        self.filter_steps += steps
        if self.filter_steps > self.look_at_steps:
            self.look_at_steps = self.filter_steps + FILTER_STEPS_PER_LOOK
            self.look()
        if self.filter_steps > FILTER_STEPS_MAX:
            raise DeveloperError(
                "FilterTooExpensive",
                f"The filters of a single function execution took more than {FILTER_STEPS_MAX} steps. "
                "Use an index range.",
            )

    def metrics(self) -> dict[str, dict[str, int]]:
        """What `getTransactionMetrics` answers: of the running function, with what its caller lets it use."""
        metrics = {
            name: {"used": used - floor, "remaining": max(0, most - used)}
            for name, used, most, floor in zip(METRICS, self.used(), self.maxima, self.floor, strict=True)
        }
        return metrics | {name: {"used": 0, "remaining": 0} for name in FILE_METRICS}

    def warnings(self) -> list[str]:
        """One line for each limit that is used up to `USAGE_WARNING_PERCENT` or more."""
        if (
            self.documents_read < _FEW
            and self.documents_written < _FEW
            and self.ranges_read < _FEW
            and self.functions_scheduled < _FEW
            and self.bytes_read < _FEW_BYTES
            and self.bytes_written < _FEW_BYTES
            and self.scheduled_args_bytes < _FEW_BYTES
        ):
            return []
        return [
            f"{what} in a single function execution (actual: {used}, limit: {limit}). "
            "Consider doing less in one function, or splitting the work."
            for what, used, limit in zip(_WARNINGS, self.used(), self.maxima, strict=True)
            if used * 100 >= limit * USAGE_WARNING_PERCENT
        ]

    def snapshot_writes(self) -> tuple[Any, ...]:
        """The counters that a rolled back sub-transaction gives back."""
        return (self.documents_written, self.bytes_written, self.functions_scheduled, self.scheduled_args_bytes)

    def restore_writes(self, counters: tuple[Any, ...]) -> None:
        self.documents_written, self.bytes_written, self.functions_scheduled, self.scheduled_args_bytes = counters
