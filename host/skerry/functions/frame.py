"""The state of one call, and of each function that runs in it.

A `Call` is what the outermost caller asked for; a `Frame` is one running function of it. `ctx.runQuery` and
`ctx.runMutation` add frames over the same transaction, log, clock and generator. A frame is what its isolate asks
(the `IsolateHost`), and what the operations work on.
"""

from typing import TYPE_CHECKING, Any

from skerry.database import Transaction
from skerry.functions.failures import log_line
from skerry.isolate import CpuBudget, EntropyStream, Linker

if TYPE_CHECKING:
    from skerry.functions.function_table import FunctionSpec
    from skerry.functions.request import CallRequest
    from skerry.functions.version import Version


class Call:
    """One call from outside.

    Shape: `now_ms` the frozen time; `raw_args` the canonical JSON of the arguments, once they are checked;
    `seed` 32 secret bytes; `cpu` the budget its isolates share.
    """

    __slots__ = (
        "cpu", "entropy", "has_read_clock", "has_read_identity", "linker", "log_lines", "now_ms", "now_ns",
        "raw_args", "request", "seed", "transaction", "version",
    )  # fmt: skip

    def __init__(
        self,
        version: "Version",
        request: "CallRequest",
        transaction: Transaction,
        linker: Linker,
        seed: bytes,
        cpu: CpuBudget,
    ) -> None:
        self.version = version
        self.request = request
        self.raw_args = b""
        self.transaction = transaction
        self.linker = linker
        self.now_ms = now_ms = transaction.now_ms
        # Whole milliseconds stay whole: multiplying the float would round them off, and a clock would show one less.
        self.now_ns = int(now_ms) * 1_000_000 + int(now_ms % 1 * 1_000_000)
        self.seed = seed
        self.entropy: EntropyStream | None = None
        self.log_lines: list[str] = []
        self.cpu = cpu
        self.has_read_clock = False
        self.has_read_identity = False


class NestedCall:
    """A function that the running one called, waiting for its turn.

    Shape: `size` in bytes, of its arguments' JSON; `is_stale` where it reads beside the transaction; `caps` what it may
    use of it at most.
    """

    __slots__ = ("args", "caps", "is_stale", "size", "spec", "ticket")

    def __init__(
        self,
        ticket: int,
        spec: "FunctionSpec",
        args: Any,
        size: int,
        is_stale: bool = False,
        caps: dict[str, int] | None = None,
    ) -> None:
        self.is_stale = is_stale
        self.caps = caps
        self.size = size
        self.ticket = ticket
        self.spec = spec
        self.args = args


class Frame:
    """One running function. Shape: `collected` is the JSON of the documents that it collected last."""

    __slots__ = ("call", "collected", "depth", "nested", "nested_bytes", "spec", "tickets_made", "transaction")

    def __init__(self, call: Call, spec: "FunctionSpec", depth: int) -> None:
        self.call = call
        self.spec = spec
        self.transaction = call.transaction
        self.depth = depth
        self.collected: bytes | None = None
        self.nested: list[NestedCall] | None = None
        self.nested_bytes = 0
        self.tickets_made = 0

    # -- what an isolate asks its host ---------------------------------------------------------------------------

    def clock_ns(self) -> int:
        self.call.has_read_clock = True
        return self.call.now_ns

    def entropy(self, length: int) -> bytes:
        call = self.call
        stream = call.entropy
        if stream is None:
            stream = call.entropy = EntropyStream(call.seed)
        return stream.take(length)

    def output(self, level: str, data: bytes) -> None:
        for line in data.decode("utf-8", "replace").removesuffix("\n").split("\n"):
            log_line(self.call.log_lines, level, line)
