"""The engine's memory: what calls touch lies in the part that the host wipes in place, and no block overlaps another.

Calls run in the real isolate, from the pool, because its slots are what is wiped.
"""

import json
import random
import struct
import time

import pytest

from skerry.bundle.build import Parts, build_app
from skerry.bundle.esbuild import Bundler
from skerry.isolate import CpuBudget, Isolate, ModuleCache, get_engine, linker_of_this_thread
from skerry.isolate.build_runner import LOAD_OPERATIONS, LoadHost
from skerry.isolate.compiled import CompiledModule
from skerry.limits import POOL_MEMORY_RESIDENT_BYTES
from tests.bundle.apps import CLOCK_MS, SERVER, instantiate_at, write_app
from tests.bundle.runner import GuestRunner

PAGE_BYTES = 4096

APP = {
    "package.json": '{"dependencies": {"convex": "1"}}',
    "convex/server.ts": SERVER,
    "convex/sums.ts": """
        import { query } from "./server";
        export const add = query({ handler: async (ctx, args: any) => args.x + args.y });
        export const copies = query({ handler: async (ctx, args: any) =>
          Array.from({ length: args.n }, (_, i) => ({ i, text: "text " + i, half: i + 0.5 })) });
    """,
    "convex/slots.ts": """
        import { query } from "./server";
        export const soil = query({ handler: async () => {
          const kept: unknown[] = [];
          for (let i = 0; i < 20000; i++) kept.push("secret-" + i, { ["field_" + i]: i });
          (globalThis as any).leftover = kept;
          return kept.length;
        } });
        export const look = query({ handler: async () => typeof (globalThis as any).leftover });
    """,
}


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory, bundler: Bundler, parts: Parts) -> CompiledModule:
    folder = write_app(tmp_path_factory.mktemp("app"), APP)
    bundle = build_app(folder, clock_ms=CLOCK_MS, instantiate_at=instantiate_at, bundler=bundler, parts=parts)
    return ModuleCache(get_engine(), None, b"key").load(bundle.image)


def isolate(module: CompiledModule) -> Isolate:
    budget = CpuBudget(time.thread_time_ns, 10_000)
    return Isolate(linker_of_this_thread(), module, LoadHost(CLOCK_MS, bytes(32)), LOAD_OPERATIONS, budget)


def invoke(one: Isolate, name: str, arguments: dict[str, object]) -> object:
    given = json.dumps([arguments]).encode()
    request = struct.pack("<IIII", 0, len(name), 0, len(given)) + name.encode() + given
    status, payload = one.invoke(request)
    assert status == 0, payload
    return json.loads(payload)


def pages_changed(module: CompiledModule, name: str, arguments: dict[str, object]) -> list[int]:
    one = isolate(module)
    try:
        before = one.all_memory()
        invoke(one, name, arguments)
        after = one.all_memory()
    finally:
        one.close()
    assert len(after) == len(before)
    return [
        at for at in range(0, len(after), PAGE_BYTES) if before[at : at + PAGE_BYTES] != after[at : at + PAGE_BYTES]
    ]


def test_a_small_call_stays_within_the_pages_that_are_wiped_in_place(module: CompiledModule) -> None:
    changed = pages_changed(module, "sums:add", {"x": 1, "y": 2})
    assert 0 < len(changed) < 60
    assert max(changed) + PAGE_BYTES <= POOL_MEMORY_RESIDENT_BYTES


def test_a_larger_call_goes_on_beyond_them_without_the_memory_growing(module: CompiledModule) -> None:
    changed = pages_changed(module, "sums:copies", {"n": 1500})
    assert max(changed) >= POOL_MEMORY_RESIDENT_BYTES


def test_a_call_finds_nothing_of_the_one_before_in_its_slot(module: CompiledModule) -> None:
    fresh = isolate(module)
    image = fresh.all_memory()
    fresh.close()
    soiled = isolate(module)
    assert invoke(soiled, "slots:soil", {}) == 40_000
    assert len(soiled.all_memory()) > len(image)
    soiled.close()
    again = isolate(module)
    try:
        assert again.all_memory() == image
        assert invoke(again, "slots:look", {}) == "undefined"
    finally:
        again.close()


# Strings, arrays, objects and buffers of random sizes that grow, shrink and go, each with a check of what it holds.
BLOCKS = """
(() => {
  let state = SEED;
  const draw = (n) => (state = (Math.imul(state, 1103515245) + 12345) >>> 0, (state >>> 8) % n);
  const size = () => draw(8) ? draw(200) : draw(2) ? draw(3000) : draw(90000);
  const kept = [];
  const string = (tag) => {
    const text = String.fromCharCode(97 + tag % 26).repeat(size());
    return () => text === text.charAt(0).repeat(text.length) && (text === "" || text.charCodeAt(0) === 97 + tag % 26);
  };
  const list = (tag) => {
    const items = [];
    for (let n = size(); n > 0; n--) items.push(tag);
    return () => { items.push(tag); return items.every((item) => item === tag); };
  };
  const object = (tag) => {
    const fields = {};
    for (let n = draw(60); n > 0; n--) fields["k" + draw(500)] = tag;
    return () => { fields["x" + draw(500)] = tag; return Object.values(fields).every((item) => item === tag); };
  };
  const buffer = (tag) => {
    const bytes = new Uint8Array(size()).fill(tag);
    return () => bytes.every((byte) => byte === tag);
  };
  const map = (tag) => {
    const items = new Map();
    for (let n = draw(200); n > 0; n--) items.set(n, tag);
    return () => { items.delete(draw(200)); return [...items.values()].every((item) => item === tag); };
  };
  const makers = [string, list, object, buffer, map];
  for (let step = 0; step < 1500; step++) {
    const at = draw(150);
    if (kept[at] && !kept[at]()) throw new Error("a block changed in step " + step);
    kept[at] = draw(4) ? makers[draw(makers.length)](step % 251) : undefined;
  }
  return kept.every((check) => !check || check()) ? '"whole"' : '"broken"';
})()
"""


@pytest.mark.parametrize("seed", range(6))
def test_blocks_never_overlap(guest: GuestRunner, seed: int) -> None:
    if seed % 2:  # as in a call: after the image is made
        assert guest.unpack(guest.call("skerry_freeze", None))[0] == "done"
    assert guest.eval(BLOCKS.replace("SEED", str(seed + 1))) == ("done", '"whole"')


def test_spent_memory_is_still_an_error_that_can_be_caught(guest: GuestRunner) -> None:
    fill = "const kept = []; let error; try { for (;;) kept.push('x'.repeat(1000) + kept.length); }"
    fill += " catch (e) { error = e; }"
    status, payload = guest.eval(f"(() => {{ {fill} kept.length = 0; return JSON.stringify(error.name); }})()")
    assert status == "done" and json.loads(payload) in ("InternalError", "RangeError")
    assert guest.eval("String(Array.from({ length: 10 }, (_, i) => 'y' + i).length)") == ("done", "10")


def test_numbers_of_json_are_what_python_reads(guest: GuestRunner) -> None:
    draw = random.Random(7)
    texts = ["0", "-0", "0.0", "-0.0", "2147483647", "2147483648", "-2147483647", "-2147483648", "9007199254740992"]
    texts += [
        "9007199254740993",
        "0.1",
        "1e5",
        "-1E-5",
        "123456789012345678",
        "1234567890123456789",
        "0.000000000000000001",
    ]
    texts += ["5e-324", "1.7976931348623157e308", "1e400", "12345678901234567890123", "4.35", "0.3", "1700000000000.5"]
    for _ in range(3000):
        whole, part = draw.randrange(10 ** draw.randrange(1, 20)), draw.randrange(10 ** draw.randrange(1, 20))
        texts.append(f"{draw.choice(['', '-'])}{whole}{draw.choice(['', f'.{part}'])}{draw.choice(['', '', 'e-3'])}")
        long = str(draw.randrange(2**53 - 2, 10 ** draw.randrange(16, 19)))  # halfway between doubles among them
        places = draw.randrange(10)
        texts.append(f"{draw.choice(['', '-'])}{long[: len(long) - places]}.{long[len(long) - places :]}5")
        texts.append(f"{2**53 + draw.randrange(2**12)}.{draw.choice(['5', '25', '50000001', '49999999'])}"[:19])
    bits = "(n) => { const d = new DataView(new ArrayBuffer(8)); d.setFloat64(0, n);"
    bits += " return d.getBigUint64(0).toString(16); }"
    source = f"JSON.stringify(JSON.parse({json.dumps('[' + ','.join(texts) + ']')}).map({bits}))"
    status, payload = guest.eval(source)
    assert status == "done"
    assert json.loads(payload) == [f"{struct.unpack('>Q', struct.pack('>d', float(text)))[0]:x}" for text in texts]


def test_strings_of_json_survive_both_ways(guest: GuestRunner) -> None:
    draw = random.Random(9)
    alphabet = [
        "a",
        "Z",
        " ",
        '"',
        "\\",
        "/",
        "\n",
        "\t",
        "\b",
        "\x00",
        "\x1f",
        "\x7f",
        "\x80",
        "é",
        "ÿ",
        "Ā",
        "漢",
        "😀",
    ]
    texts = ["".join(draw.choices(alphabet, k=draw.randrange(12))) for _ in range(800)]
    texts += ["plain " * 100, "", "é" * 300, "x" * 200 + '"', "x" * 200 + "漢"]
    source = f"JSON.stringify(JSON.parse({json.dumps(json.dumps(texts, ensure_ascii=False), ensure_ascii=False)}))"
    status, payload = guest.eval(source)
    assert status == "done"
    assert payload == json.dumps(texts, ensure_ascii=False, separators=(",", ":"))


@pytest.mark.parametrize(
    "text", ['"a', '"a\\', '"\n"', '"\\x"', '"\\u12"', "01", "1.", "1e", "-", "+1", "1.2.3", '"a" "b"']
)
def test_malformed_json_is_refused(guest: GuestRunner, text: str) -> None:
    source = f"try {{ JSON.parse({json.dumps(text)}); '0'; }} catch (e) {{ JSON.stringify(e.name); }}"
    assert guest.eval(source) == ("done", '"SyntaxError"')
