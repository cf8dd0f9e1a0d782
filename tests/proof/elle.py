"""A checker of list-append histories, in the manner of Elle: what clients saw is searched for what no order shows.

A history is a list of `Transaction`s over lists that are only ever appended to, each element once. The longest read of
a list says in what order it was written (every other read must be a prefix of it), so from what was read follows who
depends on whom:

* `ww`: wrote the element behind another one's, `wr`: read what another one wrote last, `rw`: read a list before
  another one wrote its next element, `rt`: began after another one was answered.

A cycle of such edges is an anomaly, named by the edges it needs: only `ww` G0; also `wr` G1c; one `rw` G-single, more
G2; where it also needs `rt`, strictness is what failed. Besides, without a graph: elements that nobody or only a failed
transaction wrote (G1a), reads between two appends of one transaction (G1b), torn and lost transactions, and reads that
contradict the reader's own.

Limits: an element of a list belongs to one append; a history ends with a read of every list.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

Operation = tuple[str, str, Any]
"""`read`, a list, and the elements that were read; or `append`, a list, and the element."""

Status = Literal["ok", "failed", "unknown"]
Edge = tuple[int, str, int]

_SUBSETS = (
    ("G0", {"ww"}),
    ("G1c", {"ww", "wr"}),
    ("G2", {"ww", "wr", "rw"}),
    ("strict G0", {"ww", "rt"}),
    ("strict G1c", {"ww", "wr", "rt"}),
    ("strict G2", {"ww", "wr", "rw", "rt"}),
)


@dataclass(frozen=True)
class Transaction:
    """What one client knows of one transaction.

    Shape: `begin` and `end` are times of one clock. Where no answer came, `end` is None and its reads are not known.
    """

    operations: list[Operation]
    status: Status = "ok"
    begin: int = 0
    end: int | None = None


@dataclass(frozen=True)
class Anomaly:
    """What was found. Shape: `kind` as told above; `text` names the transactions by their place in the history."""

    kind: str
    text: str


def anomalies(history: list[Transaction]) -> list[Anomaly]:
    """All that single reads show, or else one cycle of the smallest kind."""
    return list(_History(history).look())


class _History:
    def __init__(self, history: list[Transaction]) -> None:
        self.history = history
        self.writer: dict[tuple[str, int], int] = {}
        self.last_of: dict[tuple[str, int], set[int]] = {}
        self.doubled: list[Anomaly] = []
        for number, transaction in enumerate(history):
            last: dict[str, int] = {}
            for name, key, value in transaction.operations:
                if name != "append":
                    continue
                if (key, value) in self.writer:
                    self.doubled.append(Anomaly("bad history", f"{value} is appended to {key} twice"))
                self.writer[key, value] = number
                last[key] = value
            for key, value in last.items():
                self.last_of.setdefault((key, number), set()).add(value)
        self.order: dict[str, list[int]] = {}
        for _, key, value in self._reads():
            if len(value) >= len(self.order.get(key, ())):
                self.order[key] = value

    def _reads(self) -> Iterator[tuple[int, str, list[int]]]:
        for number, transaction in enumerate(self.history):
            if transaction.status == "ok":
                for name, key, value in transaction.operations:
                    if name == "read":
                        yield number, key, value

    def look(self) -> Iterator[Anomaly]:
        direct = [*self.doubled, *self._of_reads(), *self._of_one(), *self._of_outcomes()]
        yield from direct
        if not direct:
            yield from self._of_cycles()

    def _of_reads(self) -> Iterator[Anomaly]:
        for number, key, value in self._reads():
            if len(set(value)) != len(value):
                yield Anomaly("duplicate", f"{number} read {key} = {value}")
            elif value != self.order[key][: len(value)]:
                yield Anomaly("incompatible order", f"{number} read {key} = {value}, another {self.order[key]}")
            for element in value:
                writer = self.writer.get((key, element))
                if writer is None:
                    yield Anomaly("from nowhere", f"{number} read {element} in {key}, which nobody appended")
                elif self.history[writer].status == "failed":
                    yield Anomaly("G1a", f"{number} read {element} in {key} of {writer}, which failed")
            if value:
                writer = self.writer.get((key, value[-1]))
                if writer is not None and writer != number and value[-1] not in self.last_of[key, writer]:
                    yield Anomaly("G1b", f"{number} read {key} = {value} in the middle of {writer}")

    def _of_one(self) -> Iterator[Anomaly]:
        """What a transaction reads holds what it has read before and its own appends since, at the end."""
        for number, transaction in enumerate(self.history):
            known: dict[str, list[int]] = {}
            own: dict[str, list[int]] = {}
            for name, key, value in transaction.operations if transaction.status == "ok" else ():
                if name == "append":
                    own.setdefault(key, []).append(value)
                    continue
                read: Any = value
                mine = own.get(key, [])
                seen = read[: len(read) - len(mine)]
                if read[len(seen) :] != mine or seen != known.get(key, seen):
                    yield Anomaly("internal", f"{number} read {key} = {read} after {known.get(key)} and its own {mine}")
                known[key] = seen

    def _of_outcomes(self) -> Iterator[Anomaly]:
        for number, transaction in enumerate(self.history):
            there = [
                value in self.order.get(key, ()) for name, key, value in transaction.operations if name == "append"
            ]
            if transaction.status == "ok" and not all(there):
                yield Anomaly("lost", f"of {number}, which committed, something is not there at the end")
            elif any(there) and not all(there):
                yield Anomaly("torn", f"of {number} only a part is there at the end")

    # -- cycles ------------------------------------------------------------------------------------------------------

    def _of_cycles(self) -> Iterator[Anomaly]:
        edges = set(self._dependencies())
        timed = [*edges, *self._real_time()]
        for kind, names in _SUBSETS:
            cycle = shortest_cycle([edge for edge in timed if edge[1] in names])
            if cycle is None:
                continue
            if sum(edge[1] == "rw" for edge in cycle) == 1:
                kind = kind.replace("G2", "G-single")
            yield Anomaly(kind, " ".join(f"{a} -{name}-> {b};" for a, name, b in cycle))
            return

    def _dependencies(self) -> Iterator[Edge]:
        for key, order in self.order.items():
            for earlier, later in pairwise(order):
                yield from _edge(self.writer[key, earlier], "ww", self.writer[key, later])
        for number, key, value in self._reads():
            theirs = [element for element in value if self.writer[key, element] != number]
            if theirs:
                yield from _edge(self.writer[key, theirs[-1]], "wr", number)
            behind = [element for element in self.order[key][len(value) :] if self.writer[key, element] != number]
            if behind:
                yield from _edge(number, "rw", self.writer[key, behind[0]])

    def _real_time(self) -> Iterator[Edge]:
        """Who was answered before another began, by way of one node (negative) for each time of an answer."""
        answers = sorted((t.end, number) for number, t in enumerate(self.history) if t.end is not None)
        begins = sorted((t.begin, number) for number, t in enumerate(self.history))
        place = 0
        for begin, number in begins:
            while place < len(answers) and answers[place][0] < begin:
                place += 1
                yield answers[place - 1][1], "rt", -place
                if place > 1:
                    yield -(place - 1), "rt", -place
            if place:
                yield -place, "rt", number


def _edge(a: int, name: str, b: int) -> Iterator[Edge]:
    if a != b:
        yield a, name, b


def shortest_cycle(edges: Iterable[Edge]) -> list[Edge] | None:
    """A cycle with few `rw` edges, then of few edges; None where there is none."""
    out: dict[int, list[Edge]] = {}
    for edge in edges:
        out.setdefault(edge[0], []).append(edge)
    best: list[Edge] | None = None
    for component in _components(out):
        for node in component:
            cycle = _cycle_through(node, out, component)
            if cycle is not None and (best is None or _weight(cycle) < _weight(best)):
                best = cycle
    return best


def _weight(cycle: list[Edge]) -> tuple[int, int]:
    return sum(edge[1] == "rw" for edge in cycle), len(cycle)


def _cycle_through(start: int, out: dict[int, list[Edge]], within: set[int]) -> list[Edge] | None:
    """The way back to a node with the fewest `rw` edges: `rw` edges go behind all others."""
    came: dict[int, Edge] = {}
    waiting: deque[tuple[int, int]] = deque([(0, start)])
    cost = {start: 0}
    while waiting:
        so_far, node = waiting.popleft()
        if so_far > cost[node]:
            continue
        for edge in out.get(node, ()):
            after = edge[2]
            if after == start:
                back = [edge]
                while back[0][0] != start:
                    back.insert(0, came[back[0][0]])
                return back
            new = so_far + (edge[1] == "rw")
            if after in within and new < cost.get(after, 1 << 30):
                cost[after], came[after] = new, edge
                waiting.append((new, after)) if edge[1] == "rw" else waiting.appendleft((new, after))
    return None


def _components(out: dict[int, list[Edge]]) -> Iterator[set[int]]:
    """The strongly connected components of more than one node (Tarjan's algorithm without recursion)."""
    index: dict[int, int] = {}
    low: dict[int, int] = {}
    stack: list[int] = []
    on_stack: set[int] = set()
    for root in list(out):
        if root in index:
            continue
        work = [(root, iter(out.get(root, ())))]
        index[root] = low[root] = len(index)
        stack.append(root)
        on_stack.add(root)
        while work:
            node, rest = work[-1]
            for _, _, after in rest:
                if after not in index:
                    index[after] = low[after] = len(index)
                    stack.append(after)
                    on_stack.add(after)
                    work.append((after, iter(out.get(after, ()))))
                    break
                if after in on_stack:
                    low[node] = min(low[node], index[after])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == index[node]:
                    component: set[int] = set()
                    while node not in component:
                        component.add(stack.pop())
                    on_stack -= component
                    if len(component) > 1:
                        yield component
