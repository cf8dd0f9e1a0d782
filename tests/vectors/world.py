"""Vector indexes over a real database, their job and their timers turned by the test."""

import math
import struct
from collections import deque
from collections.abc import Callable
from typing import Any

import orjson

from skerry.errors import SkerryError
from skerry.value import decode_document_id, dumps
from skerry.vectors import Question, Share, VectorIndexes, VectorMemory, parse_question
from tests.database.world import World, table_schema
from tests.fixtures.hands import HandTimers

SECRET = b"a secret for tests"
INDEX = "docs.by_embedding"
Results = list[dict[str, Any]]


def vector_schema(dimensions: int, *filters: str, staged: bool = False, field: str = "v") -> dict[str, Any]:
    """A table `docs` with one vector index."""
    entry = {
        "indexDescriptor": "by_embedding",
        "vectorField": field,
        "dimensions": dimensions,
        "filterFields": list(filters),
    }
    kind = "stagedVectorIndexes" if staged else "vectorIndexes"
    return {**table_schema("docs", {"by_kind": ["kind"]}), kind: [entry]}


class Unbounded:
    """The budget of a call that may take as long as it likes."""

    def __init__(self) -> None:
        self.expected: list[int] = []

    def expect(self, cost_us: int) -> None:
        self.expected.append(cost_us)

    def leave_slice(self) -> None:
        raise SliceLeft


class SliceLeft(Exception):
    """A query was told to go on elsewhere."""


class VectorWorld:
    """Shape: `jobs` waits to be run by `settle`; `seconds` is the memory's clock."""

    def __init__(
        self, world: World, *, memory: VectorMemory | None = None, share_max: int | None = None, secret: bytes = SECRET
    ) -> None:
        self.world = world
        self.jobs: deque[Callable[[], None]] = deque()
        self.timers = HandTimers()
        self.seconds = 0.0
        self.charged = 0
        self.memory = memory or VectorMemory(seconds=lambda: self.seconds)
        self.share = Share(self.memory) if share_max is None else Share(self.memory, bytes_max=share_max)
        self.secret = secret
        self.indexes = self.open()

    def open(self) -> VectorIndexes:
        return VectorIndexes(
            self.world.database,
            submit=self.jobs.append,
            call_soon_threadsafe=self.world.queue.put,
            timers=self.timers,
            share=self.share,
            secret=self.secret,
            thread_time_ns=lambda: 0,
            charge=lambda _ns: None,
        )

    def settle(self) -> None:
        """Runs the job until it has nothing more to do."""
        self.world.turn()
        while self.jobs:
            self.jobs.popleft()()
            self.world.turn()

    def begin(self, question: Question) -> list[bytes | SkerryError]:
        """A search on its way; its answer arrives in the list."""
        answers: list[bytes | SkerryError] = []
        self.indexes.search(question, answers.append)
        return answers

    def search(self, vector: list[float], limit: int = 10, filters: Any = None, index: str = INDEX) -> Results:
        """As an action searches."""
        answers = self.begin(ask(vector, limit, filters, index))
        self.settle()
        (answer,) = answers
        if isinstance(answer, SkerryError):
            raise answer
        return orjson.loads(answer)["results"]

    def search_at(self, transaction: Any, vector: list[float], limit: int = 10, filters: Any = None) -> Results:
        """As a query searches."""
        raw = self.indexes.search_at(transaction, ask(vector, limit, filters), Unbounded())
        return orjson.loads(raw)["results"]

    def copy(self) -> Any:
        """The only copy there is."""
        (copy,) = self.indexes._copies.values()
        return copy


def ask(vector: Any, limit: Any = 10, filters: Any = None, index: str = INDEX) -> Question:
    """The question as the package spells it. Shape: `filters` are (field, value) pairs, any of which may hold."""
    expressions = None
    if filters is not None:
        parts = [{"$eq": [{"$field": field}, {"$literal": orjson.loads(dumps(value))}]} for field, value in filters]
        expressions = parts[0] if len(parts) == 1 else {"$or": parts}
    return parse_question({"indexName": index, "vector": vector, "limit": limit, "expressions": expressions})


def cosine(left: list[float], right: list[float]) -> float:
    """The cosine of two vectors, slowly and almost exactly."""
    if not any(left) or not any(right):
        return 0.0
    lengths = math.sqrt(math.fsum(x * x for x in left)) * math.sqrt(math.fsum(x * x for x in right))
    return math.fsum(x * y for x, y in zip(left, right, strict=True)) / lengths


def check_exact(found: Results, documents: dict[str, list[float]], vector: list[float], limit: int) -> None:
    """The answer is the brute-force one: scores right, order right, nothing better left out."""
    truth = {name: cosine(held, vector) for name, held in documents.items()}
    assert len(found) == min(limit, len(truth)), (found, truth)
    assert len({result["_id"] for result in found}) == len(found)
    for result in found:
        assert abs(result["_score"] - truth[result["_id"]]) < TOLERANCE, (result, truth[result["_id"]])
    order = [(-result["_score"], decode_document_id(result["_id"])[1]) for result in found]
    assert order == sorted(order)
    if found and len(found) < len(truth):
        left_out = max(score for name, score in truth.items() if name not in {result["_id"] for result in found})
        assert left_out <= found[-1]["_score"] + TOLERANCE


TOLERANCE = 2e-6
"""What rounding a unit vector to float32 may change of a cosine, and a little more."""


def as_float32(number: float) -> float:
    return struct.unpack("<f", struct.pack("<f", number))[0]
