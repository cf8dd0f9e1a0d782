"""Work of the host that is long for the loop thread leaves it, and gives the same there."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from skerry import limits
from skerry.bundle.build import build_app
from skerry.bundle.source_maps import StackMapper
from skerry.database.usage import Usage
from skerry.functions.execution import check_result
from skerry.functions.function_table import FunctionSpec
from skerry.isolate import CpuSlice, ModuleCache, SliceSpent, build_runner_at
from skerry.limits import (
    FILTER_STEPS_PER_LOOK,
    JSON_WHOLE_BYTES_MAX,
    SLICE_RESULT_BYTES_MAX,
    SLICE_SOURCE_MAP_BYTES_MAX,
    SLICE_VALIDATION_STEPS_MAX,
)
from tests.bundle.apps import CLOCK_MS, SERVER, write_app
from tests.fixtures.world import World

DEPTH = 8
TIMES = 60
assert 2**DEPTH * TIMES > SLICE_VALIDATION_STEPS_MAX, "each level tries its first form to the end, then its second"

APP = {
    "package.json": '{"dependencies": {"convex": "1"}}',
    "convex/server.ts": SERVER,
    "convex/s.ts": f"""
        import {{ v }} from "convex/values";
        import {{ mutation, query }} from "./server";
        let nested: any = v.object({{ a: v.string() }});
        for (let i = 0; i < {DEPTH}; i++)
          nested = v.union(v.object({{ a: nested, b: v.number() }}), v.object({{ a: nested, b: v.string() }}));
        export const union = query({{ args: {{ nested: v.array(nested) }}, handler: async () => "ran" }});
        export const returned = query({{
          args: {{ value: v.any() }}, returns: v.array(nested), handler: async (_ctx: any, {{ value }}: any) => value,
        }});
        export const fill = mutation({{
          args: {{ n: v.number() }},
          handler: async (ctx: any, {{ n }}: any) => {{
            for (let i = 0; i < n; i++) await ctx.db.insert("rows", {{ i }});
          }},
        }});
        export const filtered = query({{
          args: {{ operators: v.number() }},
          handler: async (ctx: any, {{ operators }}: any) => (await ctx.db.query("rows").filter((q: any) =>
            q.and(...Array.from({{ length: operators }}, (_, i) => q.neq(q.field("i"), -1 - i)))).collect()).length,
        }});
        export const wide = query({{ handler: async () => "x".repeat({SLICE_RESULT_BYTES_MAX}) }});
        export const fails = query({{ handler: async () => {{ throw new Error("as asked"); }} }});
    """,
}


@pytest.fixture
def world(tmp_path: Path, compiled: Path, cache: ModuleCache) -> Iterator[World]:
    folder = write_app(tmp_path / "app", APP)
    with World(tmp_path / "data", compiled) as made:
        made.activate(build_app(folder, clock_ms=CLOCK_MS, instantiate_at=build_runner_at(cache)).to_bytes())
        yield made


def costly() -> list[object]:
    value: object = {"a": "innermost"}
    for _ in range(DEPTH):
        value = {"a": value, "b": "second"}
    return [value] * TIMES


def patient(world: World) -> int:
    return world.deployment.lane.calls_patient


def test_a_union_that_doubles_at_each_level_is_checked_in_the_background(world: World) -> None:
    before = patient(world)
    assert world.query("s:union", {"nested": costly()[:1]}) == "ran" and patient(world) == before
    assert world.query("s:union", {"nested": costly()}) == "ran"
    assert patient(world) == before + 1
    assert world.query("s:returned", {"value": costly()}) == costly()
    assert patient(world) == before + 2


def test_a_long_filter_leaves_the_loop_thread_and_gives_the_same(world: World) -> None:
    world.mutation("s:fill", {"n": 2_000})
    before = patient(world)
    assert world.query("s:filtered", {"operators": 200}) == 2_000
    assert patient(world) == before + 1


def test_a_large_result_is_checked_in_the_background(world: World) -> None:
    before = patient(world)
    assert len(world.query("s:wide")) == SLICE_RESULT_BYTES_MAX
    assert patient(world) == before + 1


def test_a_large_source_map_is_decoded_in_the_background_once(world: World) -> None:
    version = world.deployment.version
    assert version is not None
    before = patient(world)
    raw = world.deployment._source_map(version.digest)
    version.stacks = StackMapper(raw[:-1] + b" " * SLICE_SOURCE_MAP_BYTES_MAX + raw[-1:])
    assert "as asked" in world.failure("query", "s:fails") and version.stacks.decoding_bytes == 0
    assert patient(world) == before + 1
    said = world.failure("query", "s:fails")
    assert "convex/s.ts" in said and patient(world) == before + 1


def test_a_small_source_map_is_decoded_where_the_call_runs(world: World) -> None:
    version = world.deployment.version
    assert version is not None
    version.stacks = StackMapper(b"{}" + b" " * (SLICE_SOURCE_MAP_BYTES_MAX - 2))
    before = patient(world)
    world.failure("query", "s:fails")
    assert patient(world) == before


def test_filters_are_looked_after_in_steps() -> None:
    usage, looks = Usage(), list[int]()
    usage.look = lambda: looks.append(usage.filter_steps)
    usage.filter(FILTER_STEPS_PER_LOOK)
    assert looks == []
    usage.filter(1)
    assert looks == [FILTER_STEPS_PER_LOOK + 1]


def test_a_result_at_the_bound_and_one_past_it() -> None:
    cpu = CpuSlice(lambda: 0, 5)
    spec: FunctionSpec = type("Spec", (), {"returns": None, "name": "f:x"})()
    text = b'"' + b"x" * (SLICE_RESULT_BYTES_MAX - 2) + b'"'
    check_result(spec, text, lambda number: None, cpu)
    with pytest.raises(SliceSpent):
        check_result(spec, b" " + text, lambda number: None, cpu)


def test_long_arguments_are_read_in_the_background(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "INLINE_SLICE_MS", 1_000)  # so that nothing but its length sends a call there
    before = patient(world)
    around = len(b'{"value":[""]}')
    for size, expected in ((JSON_WHOLE_BYTES_MAX - around, 0), (JSON_WHOLE_BYTES_MAX - around + 1, 1)):
        args = {"value": ["x" * size]}
        failed = world.call("query", "s:returned", args)
        assert not failed.ok and failed.error_code == "ReturnsValidationError"
        assert patient(world) == before + expected
    bad = world.call("query", "s:union", {"nested": ["x" * JSON_WHOLE_BYTES_MAX]})
    assert not bad.ok and bad.error_code == "ArgumentValidationError"
    broken = world.call("query", "s:union", b'{"nested":"%b}' % (b"x" * JSON_WHOLE_BYTES_MAX))
    assert not broken.ok and broken.error_code == "InvalidJson"
