"""What the host keeps of one running action for its guest to ask: the counterpart of `frame`, without a transaction.

Operations run on the action thread while the guest is entered. One that takes time leaves a *step* here, for the loop
thread to take when the entry ends: so operations begin in the order in which the guest asked for them, and nothing of
the loop thread's state is touched from elsewhere.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from skerry import limits
from skerry.functions.failures import log_line
from skerry.isolate import CpuBudget, EntropyStream, GuestFault

if TYPE_CHECKING:
    from skerry.functions.function_table import FunctionSpec
    from skerry.functions.request import CallRequest
    from skerry.functions.version import Version

_NS_PER_MS: Final = 1_000_000

Step = tuple[str, int, Any]
"""What the loop thread is to do: the operation, its ticket (0 without one), what it needs."""


class ActionCall:
    """One action. Shape: `cpu` is its budget over all entries; `clock_ns` the real clock."""

    __slots__ = ("clock_ns", "cpu", "entropy", "has_read_identity", "log_lines", "request", "version")

    def __init__(
        self,
        version: "Version",
        request: "CallRequest",
        cpu: CpuBudget,
        clock_ns: Callable[[], int],
        entropy: EntropyStream,
    ) -> None:
        self.version = version
        self.request = request
        self.cpu = cpu
        self.clock_ns = clock_ns
        self.entropy = entropy
        self.log_lines: list[str] = []
        self.has_read_identity = False


class ActionFrame:
    """What an action's isolate asks (the `IsolateHost`), and what the operations work on.

    Shape: `steps` asked for in this entry; `held_bytes` of arguments and bodies that operations were given, of
    which `released_bytes` are held no longer (each is counted by one thread alone).
    """

    __slots__ = ("call", "held_bytes", "released_bytes", "spec", "steps", "tickets_made")

    def __init__(self, call: ActionCall, spec: "FunctionSpec") -> None:
        self.call = call
        self.spec = spec
        self.steps: list[Step] = []
        self.tickets_made = 0
        self.held_bytes = 0
        self.released_bytes = 0

    def later(self, operation: str, needed: Any) -> int:
        """Opens a ticket for an operation that the loop thread begins."""
        self.tickets_made += 1
        self.steps.append((operation, self.tickets_made, needed))
        return self.tickets_made

    def tell(self, operation: str, needed: Any) -> bytes:
        """Leaves word for the loop thread; nothing comes back."""
        self.steps.append((operation, 0, needed))
        return b"null"

    def hold(self, size: int) -> int:
        """Counts bytes that an operation holds until it ends. Raises: GuestFault `TooManyConcurrentOperations`."""
        self.held_bytes += size
        if self.held_bytes - self.released_bytes > limits.ACTION_HELD_BYTES_MAX:
            raise GuestFault(
                "TooManyConcurrentOperations",
                f"What open operations hold has more than {limits.ACTION_HELD_BYTES_MAX // limits.MIB} MiB. "
                "Await some of them.",
            )
        return size

    # -- what an isolate asks its host ---------------------------------------------------------------------------

    def clock_ns(self) -> int:
        return self.call.clock_ns() // _NS_PER_MS * _NS_PER_MS  # whole milliseconds: no timer for attacks on caches

    def entropy(self, length: int) -> bytes:
        return self.call.entropy.take(length)

    def output(self, level: str, data: bytes) -> None:
        for line in data.decode("utf-8", "replace").removesuffix("\n").split("\n"):
            log_line(self.call.log_lines, level, line)
