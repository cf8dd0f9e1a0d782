"""The order of values is that of the npm package's own comparator: as a comparison, as keys, and in an index."""

import itertools
import random
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from orjson import loads

from skerry.bundle.node import tool_packages
from skerry.errors import DeveloperError
from skerry.value import COMMIT_TS, UNDEFINED, Int64, compare, dumps_undefined, key_of
from tests.database.world import memory_world, range_query, table_schema
from tests.http.serving import environment

SCRIPT = Path(__file__).parent / "order.mjs"
SCALARS: list[Any] = [
    UNDEFINED, None, Int64(-(2**63)), Int64(-5), Int64(0), Int64(10), Int64(2**63 - 1), COMMIT_TS,
    float("-inf"), -1e300, -1, -5e-324, -0.0, 0, 5e-324, 0.5, 1, 2**53, 1e300, float("inf"), float("nan"), False, True,
    "", "\0", "\0\0", "a", "a\0", "aa", "b", "z", "é", "\ud7ff", "\ue000", "\uffff", "😀", "\U0010ffff",
    b"", b"\0", b"\0\x01", b"\x01", b"\xff", b"\xff\xff",
]  # fmt: skip


def sample() -> list[Any]:
    """The corners, and arrays and objects of them."""
    chance = random.Random(4)
    inner = [value for value in SCALARS if value is not UNDEFINED]
    made: list[Any] = [
        [],
        [[]],
        [None],
        {},
        {"a": 1},
        {"a": 1, "b": 1},
        {"a": 2},
        {"b": 0},
        {"": 0},
        {" ": 0},
        {"a a": 1},
    ]
    for _ in range(60):
        made.append([chance.choice(inner) for _ in range(chance.randrange(1, 4))])
        made.append(
            {chance.choice(["a", "ab", "b", "~", ""]): chance.choice(inner) for _ in range(chance.randrange(1, 4))}
        )
        made.append([chance.choice(made), chance.choice(inner)])
    return [*SCALARS, *made]


@pytest.fixture(scope="module")
def orders(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Any], list[str]]:
    """Values, and for each how it compares with each, by the npm package."""
    values = sample()
    folder = tmp_path_factory.mktemp("order")
    node, packages = tool_packages(lambda _: None)
    (folder / "node_modules").symlink_to(packages / "node_modules")
    shutil.copy(SCRIPT, folder)
    lines = b"\n".join(map(dumps_undefined, values)) + b"\n"
    done = subprocess.run(
        [node.executable, SCRIPT.name], cwd=folder, env=environment(), input=lines, capture_output=True, timeout=120
    )
    assert done.returncode == 0, done.stderr.decode()
    rows = done.stdout.decode().split()
    assert len(rows) == len(values)
    return values, rows


def test_comparison_and_keys_agree_with_the_package(orders: tuple[list[Any], list[str]]) -> None:
    values, rows = orders
    keys = [key_of(value) for value in values]
    for (at, left), (other, right) in itertools.product(enumerate(values), repeat=2):
        expected = {"<": -1, "=": 0, ">": 1}[rows[at][other]]
        assert compare(left, right) == expected, (left, right)
        assert (keys[at] > keys[other]) - (keys[at] < keys[other]) == expected, (left, right)


def test_an_index_and_its_ranges_agree_with_the_package(orders: tuple[list[Any], list[str]]) -> None:
    """Missing and undefined are the same, and not null; -0 is below 0; NaN equals itself; no int64 is a float64."""
    values, rows = orders
    stored = [
        at for at, value in enumerate(values) if value is not COMMIT_TS and b"$commitTs" not in dumps_undefined(value)
    ]
    world = memory_world()
    world.schema(table_schema("t", {"by_v": ["v", "w"]}))
    world.insert_all("t", [{"n": at} | ({} if values[at] is UNDEFINED else {"v": values[at]}) for at in stored])

    def found(expressions: list[Any], order: str) -> list[int]:
        return [
            row["n"] for row in loads(world.read(lambda t: t.collect_query(range_query("t.by_v", expressions, order))))
        ]

    everything = found([], "asc")
    assert sorted(everything) == stored and everything == found([], "desc")[::-1]
    assert all(rows[left][right] in "<=" for left, right in itertools.pairwise(everything))
    signs = {"Eq": "=", "Gt": ">", "Gte": ">=", "Lt": "<", "Lte": "<="}
    for at in stored:
        value = loads(dumps_undefined(values[at]))
        for kind, accepted in signs.items():
            expected = [other for other in everything if rows[other][at] in accepted]
            assert found([(kind, "v", value)], "asc") == expected, (kind, values[at])
    world.engine.close()


def test_half_a_surrogate_pair_is_no_key() -> None:
    world = memory_world()
    t = world.begin()
    with pytest.raises(DeveloperError) as caught:
        t.insert("t", {"v": "\ud800"})
    assert caught.value.code == "InvalidValue" and "surrogate" in caught.value.message
    text = (
        b'{"query":{"source":{"type":"IndexRange","indexName":"t.by_creation_time","range":[{"type":"Eq",'
        b'"fieldPath":"_creationTime","value":"\\ud800"}]},"operators":[]}}'
    )
    with pytest.raises(DeveloperError) as caught:
        t.open_query(text)
    assert caught.value.code == "InvalidJson"
    t.abort()
    world.engine.close()
