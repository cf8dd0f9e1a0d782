"""Timers around the host's functions, put on from outside and taken off again.

Each probe charges a *part* with the time its function spent outside of other probed functions, so the parts of a call
add up to the call. What the timers themselves cost is measured first and subtracted.

Invariants: `Probes` leaves every object as it found it. A name that is no longer there is an error, never a silent gap
in the table.
"""

import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Final

from skerry.database import Database, Transaction
from skerry.functions import deployment, execution, lane, operations
from skerry.isolate import Isolate, bindings, linker

_now: Final = time.perf_counter_ns
_CALIBRATION_CALLS: Final = 2000
_CALIBRATION_ROUNDS: Final = 9

# part -> the functions charged to it, as (owner, names). The order is the order of the table.
_PARTS: Final[tuple[tuple[str, tuple[tuple[Any, tuple[str, ...]], ...]], ...]] = (
    ("look up the function", ((deployment, ("find_function",)), (deployment.Deployment, ("call",)))),
    ("parse the arguments", ((deployment, ("parse_arguments",)),)),
    ("schedule", ((lane.Lane, ("run", "_run_inline", "_finish")), (lane, ("_succeeded",)))),
    ("begin the transaction", ((Database, ("begin",)),)),
    ("check the arguments", ((execution, ("check_arguments",)),)),
    ("prepare the request", ((lane, ("run_function",)),)),
    (
        "store: make, limit, set the deadline",
        ((Isolate, ("__init__",)), (bindings, ("store_new", "store_limiter", "set_epoch_deadline"))),
    ),
    ("instantiate", ((bindings, ("instance_pre_instantiate",)),)),
    ("enter the guest", ((Isolate, ("invoke", "_call")),)),
    ("guest code", ((bindings, ("func_call_unchecked",)),)),
    ("hostcalls: crossing", ()),
    ("hostcalls: operation", ()),
    (
        "hostcalls: database",
        ((Transaction, ("get", "insert", "patch", "open_query", "next", "collect_query", "close_query")),),
    ),
    ("read the result", ((Isolate, ("_unpack",)),)),
    ("drop the isolate", ((Isolate, ("close",)), (bindings, ("store_delete",)))),
    ("check the result", ((execution, ("check_result",)),)),
    ("end the transaction", ((Transaction, ("abort",)),)),
    ("make the call record", ((lane, ("make_call_record",)),)),
    ("commit: hand to the writer", ((Database, ("commit",)), (lane.Lane, ("_commit",)))),
)
PART_NAMES: Final = tuple(name for name, _ in _PARTS)


class Probes:
    """All timers on, for a `with` block, on the calling thread's calls only.

    The thread gets a linker of its own while they are on: a linker binds the function that guests call when it is made.
    """

    def __init__(self) -> None:
        self._undo = ExitStack()
        self._inner_ns = 0  # spent in probed functions below the one that is running
        self._inner_calls = 0
        self.spent_ns = [0] * len(_PARTS)
        self._charges = [0] * len(_PARTS)  # calls of a part's functions
        self._children = [0] * len(_PARTS)  # probed calls made directly from them
        self._inside_ns, self._outside_ns = self._cost_of_a_timer()
        self.reset()

    def __enter__(self) -> "Probes":
        with ExitStack() as undo:
            for part, (_, functions) in enumerate(_PARTS):
                for owner, names in functions:
                    for name in names:
                        self._put_on(undo, owner, name, part)
            for table in operations.OPERATIONS.values():
                undo.callback(table.update, dict(table))  # type: ignore[attr-defined]  # a dict behind a read-only type
                table.update(
                    {name: self._timed(run, PART_NAMES.index("hostcalls: operation")) for name, run in table.items()}
                )  # type: ignore[attr-defined]  # as above
            self._own_linker(undo)
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()

    def reset(self) -> None:
        self.spent_ns[:] = self._charges[:] = self._children[:] = [0] * len(_PARTS)
        self._inner_ns = self._inner_calls = 0

    def take(self) -> list[float]:
        """Microseconds in each part since the last `take` or `reset`, without the timers' own cost."""
        spent = [
            max(0.0, (ns - calls * self._inside_ns - children * self._outside_ns) / 1e3)
            for ns, calls, children in zip(self.spent_ns, self._charges, self._children, strict=True)
        ]
        self.reset()
        return spent

    def _put_on(self, undo: ExitStack, owner: Any, name: str, part: int) -> None:
        found = vars(owner).get(name)
        if found is None:
            raise LookupError(f"{owner.__name__}.{name} is no longer there: name its successor in {__name__}")
        undo.callback(setattr, owner, name, found)
        setattr(owner, name, self._timed(found, part))

    def _own_linker(self, undo: ExitStack) -> None:
        """Makes this thread's next linker bind a timed `hostcall`."""
        original, part = bindings.HostFunction, PART_NAMES.index("hostcalls: crossing")
        had = getattr(linker._of_thread, "linker", None)
        bindings.HostFunction = lambda run: original(self._timed(run, part))  # type: ignore[assignment,misc]  # for the next lines only
        try:
            linker._of_thread.linker = linker.Linker(linker.get_engine())
        finally:
            bindings.HostFunction = original  # type: ignore[misc]  # put back
        undo.callback(setattr, linker._of_thread, "linker", had)

    def _timed(self, function: Callable[..., Any], part: int) -> Callable[..., Any]:
        spent_ns, charges, children = self.spent_ns, self._charges, self._children

        def timed(*args: Any, **named: Any) -> Any:
            outer_ns, outer_calls = self._inner_ns, self._inner_calls
            self._inner_ns = self._inner_calls = 0
            begin = _now()
            try:
                return function(*args, **named)
            finally:
                took = _now() - begin
                spent_ns[part] += took - self._inner_ns
                charges[part] += 1
                children[part] += self._inner_calls
                self._inner_ns, self._inner_calls = outer_ns + took, outer_calls + 1

        return timed

    def _cost_of_a_timer(self) -> tuple[float, float]:
        """Nanoseconds that a timer adds to its own part, and to the part that called it."""

        def nothing() -> None:
            pass

        def repeat(function: Callable[[], Any]) -> int:
            begin = _now()
            for _ in range(_CALIBRATION_CALLS):
                function()
            return _now() - begin

        timed = self._timed(nothing, 0)
        inside: list[float] = []
        outside: list[float] = []
        for _ in range(_CALIBRATION_ROUNDS):
            bare = repeat(nothing)
            self.reset()
            total = repeat(timed)
            inside.append((self.spent_ns[0] - bare) / _CALIBRATION_CALLS)
            outside.append((total - self.spent_ns[0]) / _CALIBRATION_CALLS)
        return max(0.0, sorted(inside)[_CALIBRATION_ROUNDS // 2]), sorted(outside)[_CALIBRATION_ROUNDS // 2]
