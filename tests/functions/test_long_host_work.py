"""Host work that nothing can interrupt is not done on the loop thread."""

from pathlib import Path

import pytest

from skerry.bundle.build import build_app
from skerry.isolate import ModuleCache, build_runner_at
from skerry.limits import SEARCH_TERMS_PER_TEXT_MAX
from tests.bundle.apps import CLOCK_MS, SERVER, write_app
from tests.fixtures.world import World

APP = {
    "package.json": '{"dependencies": {"convex": "1"}}',
    "convex/server.ts": SERVER,
    "convex/keys.ts": """
        import { query } from "./server";
        export const derive = query({ handler: async (ctx: any, { rounds }: any) => {
          const bytes = (text: string) => new TextEncoder().encode(text);
          const key = await crypto.subtle.importKey("raw", bytes("password"), "PBKDF2", false, ["deriveBits"]);
          const algorithm = { name: "PBKDF2", hash: "SHA-256", salt: bytes("salt"), iterations: rounds };
          return [...new Uint8Array(await crypto.subtle.deriveBits(algorithm, key, 64))].join(",");
        } });
    """,
    "convex/schema.ts": """
        import { defineSchema, defineTable } from "convex/server";
        import { v } from "convex/values";
        export default defineSchema({
          notes: defineTable({ text: v.string() }).searchIndex("find", { searchField: "text" }),
        });
    """,
    "convex/notes.ts": """
        import { mutation, query } from "./server";
        export const write = mutation({ handler: async (ctx: any, { words }: any) => {
          const text = Array.from({ length: words }, (_, n) => "é" + n).join(" ");
          const id = await ctx.db.insert("notes", { text });
          await ctx.db.patch(id, { text: text + " end" });
          return id;
        } });
        export const find = query({ handler: async (ctx: any, { words }: any) =>
          (await ctx.db.query("notes").withSearchIndex("find", (q: any) => q.search("text", words)).collect()).length,
        });
    """,
}


@pytest.fixture
def world(tmp_path: Path, compiled: Path, cache: ModuleCache) -> World:
    folder = write_app(tmp_path / "app", APP)
    bundle = build_app(folder, clock_ms=CLOCK_MS, instantiate_at=build_runner_at(cache))
    made = World(tmp_path / "data", compiled)
    made.activate(bundle.to_bytes())
    return made


def test_a_long_key_derivation_runs_in_the_background_and_gives_the_same(world: World) -> None:
    with world:
        lane = world.deployment.lane
        world.query("keys:derive", {"rounds": 1})  # loads the library, which may take an inline call's whole slice
        patient = lane.calls_patient
        assert world.query("keys:derive", {"rounds": 100_000}) == "3,148,162,237,227,50,201,161"
        assert lane.calls_patient == patient + 1


def test_a_long_text_is_taken_apart_in_the_background_and_found(world: World) -> None:
    with world:
        lane = world.deployment.lane
        world.mutation("notes:write", {"words": 10})
        patient = lane.calls_patient
        world.mutation("notes:write", {"words": 60_000})
        assert lane.calls_patient == patient + 1
        assert world.query("notes:find", {"words": "é7 x"}) == 2
        assert world.query("notes:find", {"words": f"é{SEARCH_TERMS_PER_TEXT_MAX - 1} x"}) == 1
        assert world.query("notes:find", {"words": "é59999 x"}) == 0, "it lies behind the bound on a text's words"
