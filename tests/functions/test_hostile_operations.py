"""Operations with arguments from nowhere: each answers with JSON, opens a ticket or raises a DeveloperError."""

import random
import time
from typing import Any

import orjson
import pytest

from skerry import limits
from skerry.errors import DeveloperError
from skerry.functions.frame import Call, Frame
from skerry.functions.operations import OPERATIONS
from skerry.isolate import CpuBudget, linker_of_this_thread
from skerry.isolate.build_runner import LOAD_OPERATIONS, LoadHost
from tests.fixtures.world import NOW_MS, World, request

ROUNDS = 2_000
OPERATIONS_PER_ROUND = 6
SCAN = {"type": "FullTableScan", "tableName": "notes", "order": "asc"}
RANGE = {"type": "IndexRange", "indexName": "notes.by_n", "range": [{"type": "Eq"}]}
VALUES: list[Any] = [
    *(None, True, False, 0, -1, 1, 2**53, 1.5, 1e308, "", "none", "notes", "notes.by_n", "x" * 100, [], {}, [[]]),
    *({"$integer": "AQAAAAAAAAA="}, {"$bytes": 1}, {"$undefined": None}, {"a": {"b": [1, {}]}}, SCAN),
    {"source": SCAN, "operators": [{"limit": -1}]},
    {"source": SCAN, "operators": [{"filter": {"$eq": [{"$field": "a"}, 1]}}]},
    {"source": RANGE, "operators": []},
]
NAMES = ["id", "table", "value", "query", "cursor", "endCursor", "pageSize", "queryId", "name", "udfType", "args"]
NAMES += ["level", "message", "length", "idString", "isSystem", "maximumRowsRead", "transactionLimits", "requestId"]
NO_OBJECTS = [b"", b"[]", b"null", b"{", b"\xff", b"1", b'{"a":' * 2000]


@pytest.mark.parametrize("kind", ["query", "mutation"])
def test_any_argument_gives_an_answer_or_a_developer_error(scripted: World, kind: str) -> None:
    rng = random.Random(f"operations of a {kind}")
    values = [*VALUES, scripted.mutation("f:insert", {"n": 1, "body": "x"})]
    names = [name for name in OPERATIONS[kind] if not name.startswith(b"crypto/")]  # tested with their own
    outcomes = {"answered": 0, "refused": 0}
    for _ in range(ROUNDS):
        frame = _frame(scripted, kind)
        for _ in range(OPERATIONS_PER_ROUND):
            fields = {name: rng.choice(values) for name in rng.sample(NAMES, rng.randint(0, 8))}
            argument = orjson.dumps(fields) if rng.random() < 0.97 else rng.choice(NO_OBJECTS)
            try:
                answer = OPERATIONS[kind][rng.choice(names)](frame, argument, None)
            except DeveloperError:
                outcomes["refused"] += 1
            else:
                assert isinstance(answer, bytes | int)
                outcomes["answered"] += 1
        frame.transaction.abort()
    assert min(outcomes.values()) > ROUNDS / 20, outcomes


def test_what_a_guest_may_ask_while_it_loads_takes_any_argument() -> None:
    host = LoadHost(NOW_MS, bytes(32))
    for name, operation in LOAD_OPERATIONS.items():
        for argument in [*NO_OBJECTS, b"{}", b'{"level":1}', b'{"length":[]}']:
            if name == b"env/get":  # looks at no argument: nothing is set while modules load
                assert operation(host, argument, None) == b"null"
                continue
            with pytest.raises(DeveloperError) as caught:
                operation(host, argument, None)
            assert caught.value.code == "InvalidArgument"
    assert host.log_lines == []


def _frame(world: World, kind: str) -> Frame:
    path = "f:add" if kind == "query" else "f:insert"
    version = world.deployment.version
    assert version is not None
    transaction = world.deployment.database.begin(writable=kind == "mutation", now_ms=NOW_MS, seed=bytes(32))
    budget = CpuBudget(time.thread_time_ns, limits.GUEST_CPU_MS_MAX)
    call = Call(version, request(kind, path), transaction, linker_of_this_thread(), bytes(32), budget)
    return Frame(call, version.functions[path], 0)
