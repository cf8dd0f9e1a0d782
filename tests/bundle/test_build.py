import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from skerry.bundle.build import InstantiateAt, Parts, build_app, image_of, rebuild, verify_bundle
from skerry.bundle.bundle_file import Bundle, make_bundle, read_bundle
from skerry.bundle.esbuild import Bundler
from skerry.bundle.image import Runner, Script, build_image
from skerry.errors import ClientError
from skerry.limits import SOURCE_LINE_CHARS_MAX
from tests.bundle.apps import CLOCK_MS, SERVER, LimitedRunner, instantiate_at, run, write_app

APP = {
    "package.json": '{"name": "app"}',
    "convex/server.ts": SERVER,
    "convex/rolls.ts": (
        "import { query } from './server';\n"
        "const at = Date.now();\nconst roll = Math.random();\n"
        "export const seen = query(() => ({ at, roll }));\n"
    ),
}


@pytest.fixture
def build(bundler: Bundler, parts: Parts) -> Callable[..., Bundle]:
    def run(folder: Path, *, clock_ms: int = CLOCK_MS, at: InstantiateAt = instantiate_at, **more: bytes) -> Bundle:
        return build_app(folder, clock_ms=clock_ms, instantiate_at=at, bundler=bundler, parts=parts, **more)

    return run


def refusal(build: Callable[..., Bundle], folder: Path, **more: InstantiateAt) -> ClientError:
    with pytest.raises(ClientError) as caught:
        build(folder, **more)
    return caught.value


def seen(bundle: Bundle) -> dict[str, float]:
    status, value = run(bundle.image).invoke("rolls:seen")
    assert status == "done"
    return value


def test_the_chat_example_builds(build: Callable[..., Bundle], repository: Path) -> None:
    bundle = build(repository / "examples" / "chat")
    listed = {item["name"]: (item["kind"], item["visibility"]) for item in bundle.manifest.functions}
    assert listed == {
        "messages:list": ("query", "public"),
        "messages:page": ("query", "public"),
        "messages:search": ("query", "public"),
        "messages:send": ("mutation", "public"),
    }
    assert [table["tableName"] for table in bundle.manifest.schema["tables"]] == ["messages"]
    assert bundle.manifest.features == []
    assert bundle.manifest.entries == {"messages": "convex/messages.ts", "schema": "convex/schema.ts"}


def test_the_same_inputs_give_the_same_bytes(build: Callable[..., Bundle], parts: Parts, tmp_path: Path) -> None:
    first = build(write_app(tmp_path / "first", APP))
    with Bundler(lambda _: None) as other:
        folder = write_app(tmp_path / "some" / "where" / "else", APP)
        second = build_app(folder, clock_ms=CLOCK_MS, instantiate_at=instantiate_at, bundler=other, parts=parts)
    assert first.digest == second.digest and first.to_bytes() == second.to_bytes()


def test_clock_and_seed_are_inputs_and_recorded(build: Callable[..., Bundle], tmp_path: Path) -> None:
    app = write_app(tmp_path, APP)
    first, later, chosen = build(app), build(app, clock_ms=CLOCK_MS + 1), build(app, seed=b"s" * 32)
    assert seen(first)["at"] == CLOCK_MS and seen(later)["at"] == CLOCK_MS + 1
    assert seen(first)["roll"] == seen(later)["roll"] != seen(chosen)["roll"]
    assert (first.manifest.clock_ms, chosen.manifest.seed) == (CLOCK_MS, b"s".hex() * 32)
    assert len({first.digest, later.digest, chosen.digest}) == 3
    write_app(tmp_path, {"convex/rolls.ts": APP["convex/rolls.ts"] + "// edited\n"})
    assert build(app).manifest.seed != first.manifest.seed


def test_a_bundle_verifies_from_itself_alone(build: Callable[..., Bundle], parts: Parts, tmp_path: Path) -> None:
    files = {
        **APP,
        "convex/tsconfig.json": "{}",
        "node_modules/left/index.js": "module.exports = 1;",
        "convex/use.js": "import l from 'left'; export const x = l;",
    }
    write_app(tmp_path / "shared", {"helper.ts": "export const help = 1;"})
    app = write_app(tmp_path / "app", {**files, "convex/far.ts": "export { help } from '../../shared/helper';"})
    bundle = build(app)
    file = tmp_path / "app.skerry"
    file.write_bytes(bundle.to_bytes())
    shutil.rmtree(app)
    assert verify_bundle(file, instantiate_at=instantiate_at, parts=parts).digest == bundle.digest

    def build_here(engine: bytes, scripts: Sequence[Script], clock_ms: int, seed: bytes) -> bytes:
        return build_image(engine, scripts, instantiate_at(clock_ms, seed))

    assert image_of(bundle, image_builder=build_here, parts=parts) == bundle.image


@pytest.mark.parametrize("part", ["image.wasm", "app.js", "app.js.map", "sources/app/convex/rolls.ts", "manifest.json"])
def test_a_bundle_that_was_not_built_from_its_sources(
    build: Callable[..., Bundle], parts: Parts, tmp_path: Path, part: str
) -> None:
    """Each has a right digest: only building again tells."""
    bundle = build(write_app(tmp_path / "app", APP))
    lies = {
        "image.wasm": bundle.image[:-1] + bytes([bundle.image[-1] ^ 1]),
        "app.js": bundle.entries["app.js"].replace(b"Math.random()", b"Math.random ()"),
        "app.js.map": bundle.entries["app.js.map"].replace(b"rolls.ts", b"other.ts"),
        "sources/app/convex/rolls.ts": b"export const seen = 1;",
        "manifest.json": bundle.entries["manifest.json"].replace(b'"visibility":"public"', b'"visibility":"internal"'),
    }
    assert lies[part] != bundle.entries[part]
    lying = make_bundle({**bundle.entries, part: lies[part]})
    file = tmp_path / "lying.skerry"
    file.write_bytes(lying.to_bytes())
    assert read_bundle(file.read_bytes()).digest == lying.digest
    with pytest.raises(ClientError) as caught:
        verify_bundle(file, instantiate_at=instantiate_at, parts=parts)
    assert caught.value.code == "BundleNotReproduced"


def test_another_engine_is_named_as_the_cause(build: Callable[..., Bundle], parts: Parts, tmp_path: Path) -> None:
    file = tmp_path / "app.skerry"
    file.write_bytes(build(write_app(tmp_path / "app", APP)).to_bytes())
    other = Parts(parts.engine, parts.prelude + b"\n;")
    with pytest.raises(ClientError, match="built with another prelude") as caught:
        verify_bundle(file, instantiate_at=instantiate_at, parts=other)
    assert caught.value.code == "BundleNotReproduced"


@pytest.mark.parametrize("name", ["app/../../x", "up9/x", "elsewhere/x", "app"])
def test_sources_that_no_build_writes_are_not_laid_out(
    build: Callable[..., Bundle], parts: Parts, tmp_path: Path, name: str
) -> None:
    bundle = build(write_app(tmp_path, APP))
    hostile = Bundle({**bundle.entries, f"sources/{name}": b"x"}, bundle.manifest, bundle.digest)
    with pytest.raises(ClientError) as caught:
        rebuild(hostile, instantiate_at=instantiate_at, parts=parts)
    assert caught.value.code == "BundleInvalid"


def test_a_module_that_throws_is_refused_with_its_line(build: Callable[..., Bundle], tmp_path: Path) -> None:
    text = "interface Limits {\n  n: number;\n}\n\nfunction load(): Limits {\n  throw new TypeError('no limits');\n}\n"
    text += "\nexport const limits = load();\n"
    error = refusal(build, write_app(tmp_path, {"convex/a.ts": text}))
    assert error.code == "ModuleLoadFailed"
    assert error.message.startswith("convex/a.ts:6:") and "Uncaught TypeError: no limits" in error.message
    assert error.data["line"] == 6 and error.data["sourceLine"] == "  throw new TypeError('no limits');"
    assert [line.rpartition(":")[0] for line in error.data["stack"].split("\n")] == [
        "    at load (../convex/a.ts:6",
        "    at <anonymous> (../convex/a.ts:9",
    ]


def test_the_source_line_of_a_failed_load_at_its_limit(build: Callable[..., Bundle], tmp_path: Path) -> None:
    for chars, shown in (
        (SOURCE_LINE_CHARS_MAX, SOURCE_LINE_CHARS_MAX),
        (SOURCE_LINE_CHARS_MAX + 1, SOURCE_LINE_CHARS_MAX),
    ):
        text = "null.x; //".ljust(chars, "/")
        error = refusal(build, write_app(tmp_path, {"convex/a.js": f"{text}\nexport {{}};"}))
        assert len(error.data["sourceLine"]) == shown


def test_a_module_that_never_ends_is_refused_with_its_function(build: Callable[..., Bundle], tmp_path: Path) -> None:
    text = "type N = number;\n\nfunction spin(n: N): N {\n  while (n > 0) n += 1;\n  return n;\n}\n"
    text += "export const x = spin(1);\n"
    error = refusal(build, write_app(tmp_path, {"convex/a.ts": text}))
    assert error.code == "ModuleLoadFailed" and "does it end?" in error.message
    assert error.data["file"] == "../convex/a.ts" and 3 <= error.data["line"] <= 6
    assert "    at <anonymous> (../convex/a.ts:7:" in error.data["stack"]


def test_the_deadline_behind_it(build: Callable[..., Bundle], tmp_path: Path) -> None:
    class Impatient(LimitedRunner):
        call_seconds_max = 0.05

    def at(clock_ms: int, seed: bytes) -> Callable[[bytes], Runner]:
        return Impatient

    app = write_app(tmp_path, {"convex/a.ts": "for (;;);"})
    error = refusal(build, app, at=at)
    assert error.code == "ModuleLoadFailed" and "do not finish loading" in error.message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("throw 'just text';", "Uncaught just text"),
        ("throw null;", "Uncaught null"),
        ("Promise.reject(new Error('later'));", "Uncaught Error: later"),
        ("(function f() { f(); })();", "RangeError"),
        ("const all = []; for (;;) all.push(new Array(100000).fill(1));", "out of memory"),
        ("new Function('return 1 +')();", "SyntaxError"),
    ],
)
def test_other_ways_to_fail_at_load(build: Callable[..., Bundle], tmp_path: Path, text: str, said: str) -> None:
    error = refusal(build, write_app(tmp_path, {"convex/a.js": text + "\nexport {};"}))
    assert error.code == "ModuleLoadFailed" and said in error.message


def test_an_app_that_uses_a_component_is_told_so(build: Callable[..., Bundle], tmp_path: Path) -> None:
    write_app(
        tmp_path,
        {
            "parts/counter/convex.config.ts": "import { defineComponent } from 'convex/server';\n"
            "export default defineComponent('counter');",
            "convex/convex.config.ts": "import { defineApp } from 'convex/server';\n"
            "import counter from '../parts/counter/convex.config';\n"
            "const app = defineApp();\napp.use(counter);\nexport default app;",
        },
    )
    error = refusal(build, tmp_path)
    assert error.code == "ModuleLoadFailed" and error.data["line"] == 4
    assert "Components are not served yet" in error.message


def test_features_that_are_not_served_build_all_the_same(build: Callable[..., Bundle], tmp_path: Path) -> None:
    write_app(
        tmp_path,
        {
            "convex/jobs.ts": "import { internalMutationGeneric as m } from 'convex/server';\n"
            "export const tick = m(async () => null);",
            "convex/crons.ts": "import { cronJobs, makeFunctionReference } from 'convex/server';\n"
            "const crons = cronJobs();\n"
            "crons.interval('tick', { minutes: 1 }, makeFunctionReference('jobs:tick'), {}); export default crons;",
            "convex/http.ts": "import { httpRouter } from 'convex/server'; export default httpRouter();",
            "convex/schema.ts": "import { defineSchema, defineTable } from 'convex/server';\n"
            "import { v } from 'convex/values';\n"
            "const notes = defineTable({ text: v.string() }).searchIndex('by_text', { searchField: 'text' });\n"
            "export default defineSchema({ notes });",
        },
    )
    manifest = build(tmp_path).manifest
    assert set(manifest.features) >= {"crons", "http"}
    assert [(item["name"], item["visibility"]) for item in manifest.functions] == [("jobs:tick", "internal")]
    assert json.dumps(manifest.schema).count("by_text") == 1
