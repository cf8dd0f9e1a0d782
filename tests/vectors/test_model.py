"""Any sequence of writes and searches, on a copy that is hydrating or ready, equals brute force."""

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, multiple, rule

from skerry.value import dumps
from tests.database.world import memory_world
from tests.vectors.world import VectorWorld, ask, check_exact, vector_schema

NUMBERS = st.one_of(st.integers(-3, 3), st.floats(-1e6, 1e6, allow_nan=False))
VECTORS = st.lists(NUMBERS, min_size=3, max_size=3)
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "v": st.one_of(VECTORS, VECTORS, VECTORS, st.none(), st.lists(NUMBERS, max_size=4)),
        "kind": st.sampled_from(["a", "b", 1, None]),
        "note": st.text(max_size=3),
    },
)


class Searching(RuleBasedStateMachine):
    """Plain documents beside a database; queries are kept open to be asked again after later commits."""

    names: Bundle[str] = Bundle("names")
    open_queries: Bundle[Any] = Bundle("open_queries")

    @initialize()
    def begin(self) -> None:
        self.vectors = VectorWorld(memory_world())
        self.vectors.world.schema(vector_schema(3, "kind"))
        self.documents: dict[str, dict[str, Any]] = {}

    def teardown(self) -> None:
        self.vectors.settle()

    @rule(target=names, values=st.lists(FIELDS, min_size=1, max_size=4))
    def insert(self, values: list[dict[str, Any]]) -> Any:
        made = self.vectors.world.insert_all("docs", values)
        self.documents |= zip(made, values, strict=True)
        return multiple(*made)

    @rule(name=names, value=FIELDS)
    def patch(self, name: str, value: dict[str, Any]) -> None:
        if name in self.documents:
            self.vectors.world.run(lambda transaction: transaction.patch(name, value, None))
            self.documents[name] = {**self.documents[name], **value}

    @rule(name=consumes(names))
    def delete(self, name: str) -> None:
        if self.documents.pop(name, None) is not None:
            self.vectors.world.run(lambda transaction: transaction.delete(name, None))

    @rule(steps=st.integers(1, 3))
    def work(self, steps: int) -> None:
        """A little of the job, so that hydration meets writes."""
        for _ in range(steps):
            if self.vectors.jobs:
                self.vectors.jobs.popleft()()
                self.vectors.world.turn()

    @rule(vector=VECTORS, limit=st.integers(1, 12), kinds=st.none() | st.lists(st.sampled_from(["a", "b", 1, "c"])))
    def search(self, vector: list[float], limit: int, kinds: list[Any] | None) -> None:
        filters = None if kinds is None else [("kind", kind) for kind in kinds]
        self.check(self.vectors.search(vector, limit, filters), self.documents, vector, limit, kinds)

    @rule(vector=VECTORS)
    def begin_search(self, vector: list[float]) -> None:
        """A search that waits for its copy."""
        self.vectors.begin(ask(vector))

    @rule(target=open_queries, vector=VECTORS)
    def open_query(self, vector: list[float]) -> Any:
        self.vectors.search(vector)  # the copy is ready
        transaction = self.vectors.world.begin(writable=False, detached=True)
        return transaction, vector, dict(self.documents)

    @rule(opened=open_queries, limit=st.integers(1, 12))
    def ask_again(self, opened: Any, limit: int) -> None:
        transaction, vector, documents = opened
        found = self.vectors.search_at(transaction, vector, limit)
        assert dumps(found) == dumps(self.vectors.search_at(transaction, vector, limit))
        self.check(found, documents, vector, limit, None)

    def check(
        self, found: Any, documents: dict[str, dict[str, Any]], vector: list[float], limit: int, kinds: Any
    ) -> None:
        held = {
            name: value["v"]
            for name, value in documents.items()
            if type(value.get("v")) is list
            and len(value["v"]) == 3
            and (kinds is None or any(_same(value.get("kind", ...), kind) for kind in kinds))
        }
        check_exact(found, held, vector, limit)


def _same(left: Any, right: Any) -> bool:
    return type(left) is type(right) and left == right


TestSearching = Searching.TestCase
TestSearching.settings = settings(
    max_examples=60,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
