"""What the build binds into the `convex` package behaves as the package's own code does."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from skerry.bundle.build import Parts, build_app
from skerry.bundle.esbuild import Bundler
from skerry.bundle.node import tool_packages
from skerry.bundle.sources import find_sources
from tests.bundle.apps import CLOCK_MS, SERVER, instantiate_at, run, write_app
from tests.bundle.runner import Refused, Ticketed

VALUES = "dist/esm/values/value.js"
QUERY = "dist/esm/server/impl/query_impl.js"
SYSCALL = "dist/esm/server/impl/syscall.js"
REGISTRATION = "dist/esm/server/impl/registration_impl.js"
MARKS = {
    VALUES: "skerryBound",
    QUERY: "QueryImpl.prototype.collect",
    SYSCALL: "skerryPerform =",
    REGISTRATION: "skerryTake(skerryMutationContext",
}

# Every kind of value and of refusal, each as a JavaScript expression.
TO_JSON = [
    "null", "true", "1", "1.5", "-0", "NaN", "Infinity", "-Infinity", "0n", "-1n", "9223372036854775807n",
    "9223372036854775808n",
    "-9223372036854775808n", "-9223372036854775809n", "''", "'text'", "'\\u0000\\ud800 é'", "new ArrayBuffer(0)",
    "new Uint8Array([1, 2, 255]).buffer",
    "new Uint8Array([1])", "[]", "[1, [2n], {a: null}]", "{}", "{b: 1, a: 2, _c: [3]}", "{a: undefined, b: 1}",
    "{a: {b: undefined}}",
    "[undefined]", "[1,,2]", "undefined", "{$a: 1}", "{'': 1}", "{'é': 1}", "{'a\\u001f': 1}",
    "{['a'.repeat(1024)]: 1}", "{['a'.repeat(1025)]: 1}",
    "new Set([1])", "new Map([[1, 2]])", "new Date(0)", "() => 1", "Symbol('s')", "class A {}",
    "new (class A { x = 1 })()", "Object.create(null)",
    "Object.create({inherited: 1})", "{a: {b: [new Date(0)]}}", "{a: {b: new Set()}}", "/x/", "commitTs",
    "{a: commitTs}", "{10: 1, 9: 2, a: 3}",
    "{a: 1, [Symbol('s')]: 2}", "{get a() { return 5; }}", "{get a() { throw new Error('getter'); }}",
    "Object.defineProperty({}, 'hidden', {value: 1})",
    "new Proxy({a: 1}, {})", "'x'.repeat(20000)", "[new Set(['x'.repeat(20000)])]", "{__proto__: null, a: 1}",
    "JSON.parse('{\"__proto__\": 1}')", "new String('s')", "new Number(1)",
]  # fmt: skip
TO_VALUE = [
    "null", "true", "1", "'a'", "[1, [2]]", "{}", "{a: {b: [null]}}", "{$integer: 'AQAAAAAAAAA='}",
    "{$integer: 'AQ=='}", "{$integer: 1}", "{$integer: '!'}",
    "{$bytes: ''}", "{$bytes: 'AQL/'}", "{$bytes: 'AQL'}", "{$bytes: 5}", "{$float: 'AAAAAAAA+H8='}",
    "{$float: 'AAAAAAAAAIA='}", "{$float: 'AAAAAAAA8D8='}",
    "{$float: 'AA=='}", "{$float: 1}", "{$commitTs: null}", "{$commitTs: 1}", "{$set: []}", "{$map: []}",
    "{$other: 1}", "{$integer: 'AQAAAAAAAAA=', a: 1}",
    "{'': 1}", "{'é': 1}", "undefined", "5n", "JSON.parse('{\"__proto__\": 1}')", "{['a'.repeat(1025)]: 1}", "[,1]",
    "{b: 1, a: 2}",
]  # fmt: skip

CASES = """
function show(value, depth = 0) {
  if (depth > 6) return "deep";
  if (value === null || typeof value !== "object") {
    return typeof value + ":" + (Object.is(value, -0) ? "-0" : String(value));
  }
  if (value instanceof ArrayBuffer) return "bytes:" + [...new Uint8Array(value)];
  if (Array.isArray(value)) return "[" + Array.from(value, (v, i) => (i in value ? show(v, depth + 1) : "hole")) + "]";
  const proto = Object.getPrototypeOf(value);
  const kind = proto === Object.prototype ? "" : proto === null ? "null " : proto.constructor.name + " ";
  return kind + "{" + Object.getOwnPropertyNames(value).map((k) => k + "=" + show(value[k], depth + 1)) + "}";
}
function attempt(run) {
  try {
    return "ok " + show(run());
  } catch (e) {
    return `threw ${e.name} ${e.message}`;
  }
}
export function results(module) {
  const out = [];
  for (const make of [TO_JSON]) {
    for (const name of ["convexToJson", "convexOrUndefinedToJson", "patchValueToJson"]) {
      out.push(name + " " + make + ": " + attempt(() => module[name](make(module.commitTsPlaceholder))));
    }
  }
  for (const make of [TO_VALUE]) {
    out.push("jsonToConvex " + make + ": " + attempt(() => module.jsonToConvex(make())));
  }
  return out;
}
"""


def package_folder() -> Path:
    return tool_packages(lambda _: None)[1] / "node_modules" / "convex"


def bound_and_own(tmp_path: Path, queries: str) -> tuple[Path, Path]:
    """Two apps that differ in the package alone: pinned (bound by the build), and a copy whose version is not a known
    one.
    """
    files = {"convex/server.ts": SERVER, "convex/q.ts": queries}
    bound, own = write_app(tmp_path / "bound", files), write_app(tmp_path / "own", files)
    copy = own / "node_modules" / "convex"
    shutil.copytree(package_folder(), copy, ignore=shutil.ignore_patterns("*.map", "*.d.ts", "src", "cli", "cjs*"))
    (copy / "package.json").write_text(
        re.sub(r'"version": "[^"]+"', '"version": "0.0.1"', (copy / "package.json").read_text())
    )
    return bound, own


@pytest.fixture
def images(bundler: Bundler, parts: Parts, tmp_path: Path) -> Callable[[str], tuple[bytes, bytes]]:
    def build(queries: str) -> tuple[bytes, bytes]:
        bound, own = (
            build_app(app, clock_ms=CLOCK_MS, instantiate_at=instantiate_at, bundler=bundler, parts=parts)
            for app in bound_and_own(tmp_path, queries)
        )
        assert b"skerryBound" in bound.entries["app.js"] and b"skerryBound" not in own.entries["app.js"]
        assert b"QueryImpl.prototype.collect" in bound.entries["app.js"]
        assert b"QueryImpl.prototype.collect" not in own.entries["app.js"]
        return bound.image, own.image

    return build


def test_conversions_give_what_the_packages_own_give(bundler: Bundler, parts: Parts, tmp_path: Path) -> None:
    cases = CASES.replace("[TO_JSON]", f"[{', '.join(f'(commitTs) => ({case})' for case in TO_JSON)}]")
    cases = cases.replace("[TO_VALUE]", f"[{', '.join(f'() => ({case})' for case in TO_VALUE)}]")
    values = package_folder() / "dist" / "esm" / "values"
    write_app(
        tmp_path,
        {
            "convex/lib/cases.js": cases,
            "convex/lib/own/values/value.js": (values / "value.js").read_text(),
            "convex/lib/own/values/base64.js": (values / "base64.js").read_text(),
            "convex/lib/own/common/index.js": (values.parent / "common" / "index.js").read_text(),
            "node_modules/bound.js": f"export * from {json.dumps(str(values / 'value.js'))};",
            "convex/q.js": "import { queryGeneric } from 'convex/server'; import { results } from './lib/cases';\n"
            "import * as own from './lib/own/values/value.js'; import * as bound from 'bound';\n"
            "export const both = queryGeneric(() => ({ own: results(own), bound: results(bound), "
            "how: String(bound.jsonToConvex) }));",
        },
    )
    bundle = build_app(tmp_path, clock_ms=CLOCK_MS, instantiate_at=instantiate_at, bundler=bundler, parts=parts)
    assert bundle.entries["app.js"].count(b"function convexToJsonInternal(") == 1
    status, value = run(bundle.image).invoke("q:both")
    assert status == "done", value
    assert len(value["own"]) == 3 * len(TO_JSON) + len(TO_VALUE)
    assert "[native code]" in value["how"]
    assert value["bound"] == value["own"]


DOCUMENTS = [{"_id": f"id{n}", "n": {"$integer": "AQAAAAAAAAA="}, "text": "x" * n} for n in range(3)]
QUERIES = """
import { query } from './server';
const many = (ctx) => ctx.db.query('things');
const ordered = (ctx) => many(ctx).order('asc');
export const collect = query(async (ctx) => await many(ctx).order('desc').collect());
export const take = query(async (ctx) => await many(ctx).take(2));
export const first = query(async (ctx) => await many(ctx).first());
export const unique = query(async (ctx) => await many(ctx).unique());
export const single = query(async (ctx) => await ctx.db.query('one').unique());
export const none = query(async (ctx) => await ctx.db.query('none').first());
export const twice = query(async (ctx) => { const q = ordered(ctx); await q.collect(); return await q.collect(); });
export const chained = query(async (ctx) => {
  const q = ordered(ctx);
  q.filter(() => true);
  return await q.collect();
});
export const reused = query(async (ctx) => {
  const q = ordered(ctx);
  await q.collect();
  return q.filter(() => true);
});
export const iterated = query(async (ctx) => {
  const q = ordered(ctx);
  for await (const x of q) break;
  return await q.collect();
});
export const during = query(async (ctx) => {
  const q = ordered(ctx);
  const p = q.collect();
  await q.collect();
  await p;
});
export const next = query(async (ctx) => { const q = ordered(ctx); await q.collect(); return await q.next(); });
export const refusedWithData = query(async (ctx) => {
  try {
    return await ctx.db.query('conflicting').collect();
  } catch (e) {
    return [e.name, e.message, e.data];
  }
});
export const refused = query(async (ctx) => await ctx.db.query('broken').collect());
"""


def answered(image: bytes, name: str) -> tuple[str, Any, list[str]]:
    """The result of a query over `DOCUMENTS`, and the hostcalls that it made."""
    runner = run(image)
    streams: list[list[Any]] = []
    conflicts: list[str] = []
    conflict = Refused("no", "Refused", {"n": {"$integer": "AQAAAAAAAAA="}})

    def documents(argument: str) -> list[Any]:
        query = json.loads(argument)["query"]
        limits = [operator["limit"] for operator in query["operators"] if "limit" in operator]
        table = query["source"]["tableName"]
        found = {"things": DOCUMENTS, "one": DOCUMENTS[:1], "none": []}.get(table)
        if found is None:
            raise Refused("no such index", "IndexNotFoundError")
        return found[: min(limits, default=None)]

    def is_conflicting(argument: str) -> bool:
        return json.loads(argument)["query"]["source"]["tableName"] == "conflicting"

    def collect(argument: str, _: bytes) -> bytes:
        if is_conflicting(argument):
            raise conflict
        return json.dumps(documents(argument)).encode()

    def next_document(argument: str, _: bytes) -> bytes:
        if conflicts:
            raise conflict
        stream = streams[json.loads(argument)["queryId"]]
        return json.dumps({"value": stream.pop(0), "done": False} if stream else {"value": None, "done": True}).encode()

    def open_stream(argument: str, _: bytes) -> bytes:
        if is_conflicting(argument):
            conflicts.append(argument)
            return b'{"queryId": 0}'
        streams.append(list(documents(argument)))
        return json.dumps({"queryId": len(streams) - 1}).encode()

    runner.ops["collect"] = collect
    runner.ops["1.0/queryStream"] = open_stream
    runner.ops["1.0/queryStreamNext"] = next_document
    runner.ops["1.0/queryCleanup"] = lambda *_: b"true"
    status, value = runner.invoke(f"q:{name}")
    return (
        status,
        {**value, "stack": None, "code": None} if status == "failed" else value,
        [op for op, _, _ in runner.hostcalls],
    )


def test_collect_is_one_hostcall_with_the_same_answers(images: Callable[[str], tuple[bytes, bytes]]) -> None:
    bound, own = images(QUERIES)
    for name in re.findall(r"export const (\w+)", QUERIES):
        status, value, _ = answered(bound, name)
        own_status, own_value, _ = answered(own, name)
        assert (name, status, value) == (name, own_status, own_value)
    assert answered(bound, "collect")[2] == ["collect"]
    assert answered(bound, "first")[2] == answered(bound, "unique")[2] == answered(bound, "take")[2] == ["collect"]
    assert "1.0/queryStreamNext" in answered(own, "first")[2]


OPERATIONS = """
import { query, mutation } from './server';
const caught = async (run) => {
  try {
    return ['answered', await run()];
  } catch (e) {
    return [e.name, e.message, e.data ?? null];
  }
};
export const get = query(async (ctx) => [await ctx.db.get('there'), await ctx.db.get('gone')]);
export const getRefused = query((ctx) => caught(() => ctx.db.get('refused')));
export const getRefusedWithData = query((ctx) => caught(() => ctx.db.get('conflict')));
export const getUncaught = query((ctx) => ctx.db.get('conflict'));
export const getOdd = query((ctx) => caught(() => ctx.db.get(5)));
export const getText = query((ctx) => ctx.db.get('"\\\\\\n é \\u{1f600} \\ud800'));
export const junk = query((ctx) => caught(() => ctx.db.get('junk')));
export const odd = query((ctx) => caught(() => ctx.db.get('odd')));
export const later = query((ctx) => ctx.db.get('later'));
export const write = mutation(async (ctx) => {
  const id = await ctx.db.insert('t', { b: 1n, a: [1.5, -0, 'x'], c: undefined, d: new ArrayBuffer(2) });
  await ctx.db.patch(id, { z: undefined, y: { deep: [null, true] } });
  await ctx.db.replace(id, {});
  await ctx.db.delete(id);
  return await caught(() => ctx.db.insert('t', { f: () => 1 }));
});
export const order = query(async (ctx) => {
  const seen = [];
  const asked = (async () => { await ctx.db.get('there'); seen.push('answer'); })();
  const refused = (async () => { try { await ctx.db.get('conflict'); } catch { seen.push('refusal'); } })();
  const turns = (async () => { for (let i = 0; i < 16; i++) { await null; seen.push(i); } })();
  await Promise.all([asked, refused, turns]);
  return seen;
});
export const result = query(() => ({ b: 1n, a: [-0, 'é\\n"', { z: 1, y: undefined }] }));
export const nothing = query(() => undefined);
export const badResult = query(() => ({ bad: new Set() }));
export const args = query((ctx, args) => args);
"""
ANSWERS = {
    "there": b'{"_id":"there","n":{"$integer":"AQAAAAAAAAA="},"text":"\xc3\xa9 \\n"}',
    "junk": b"{not json",
    "odd": b'{"$nothing":1}',
}


def operated(image: bytes, name: str) -> tuple[str, Any, list[tuple[str, Any]]]:
    runner = run(image)

    def get(argument: str, _: bytes) -> bytes:
        asked = json.loads(argument)["id"]
        if asked == "refused":
            raise Refused("no", "IndexNotFoundError")
        if asked == "conflict":
            raise Refused("no", "Refused", {"n": {"$integer": "AQAAAAAAAAA="}})
        if asked == "later":
            raise Ticketed(7)
        return ANSWERS.get(asked, b"null")

    runner.ops["1.0/get"] = get
    runner.ops["1.0/insert"] = lambda *_: b'{"_id": "new"}'
    for op in ("1.0/shallowMerge", "1.0/replace", "1.0/remove"):
        runner.ops[op] = lambda *_: b"null"
    kind = "mutation" if name == "write" else "query"
    status, value = runner.invoke(f"q:{name}", '[{"n":{"$integer":"AQAAAAAAAAA="},"a":[1,"\\u00e9",{}]}]', kind)
    if status == "pending":
        status, value = runner.resume((7, 0, b'{"late":true}'))
    if status == "failed":
        value = {**value, "stack": re.sub(r":\d+:\d+|.*native.*\n", "", value["stack"])}
    return status, value, [(op, argument) for op, argument, _ in runner.hostcalls]


def test_operations_send_and_answer_what_the_packages_own_do(images: Callable[[str], tuple[bytes, bytes]]) -> None:
    bound, own = images(OPERATIONS)
    for name in re.findall(r"export const (\w+)", OPERATIONS):
        assert (name, *operated(bound, name)) == (name, *operated(own, name))
    assert operated(bound, "later")[1] == {"late": True}


CONTEXTS = """
import { query, mutation } from './server';
import { internalQueryGeneric, internalMutationGeneric } from 'convex/server';
const show = (value, depth = 0) =>
  typeof value === 'function' ? `${value.name}/${value.length}`
  : typeof value !== 'object' || value === null || depth > 4 ? String(value)
  : Object.getPrototypeOf(value) === Object.prototype
    ? Object.fromEntries(Object.getOwnPropertyNames(value).map((key) => [key, show(value[key], depth + 1)]))
  : value.constructor.name;
const looked = async (ctx) => {
  const before = show(ctx);
  ctx.db.get = ctx.mine = 1;
  return { before, after: show(ctx), metadata: await ctx.meta.getFunctionMetadata() };
};
export const publicQuery = query(looked);
export const publicMutation = mutation(looked);
export const secretQuery = internalQueryGeneric(looked);
export const secretMutation = internalMutationGeneric(looked);
export const twice = query(async (ctx) => {
  const args = '[{"a":1}]';
  return [await looked(ctx), await publicQuery.invokeQuery(args), await secretMutation.invokeMutation(args)];
});
export const functions = query(() => [publicQuery, publicMutation].map((run) => Object.getOwnPropertyNames(run)));
"""


def test_contexts_are_what_the_package_makes(images: Callable[[str], tuple[bytes, bytes]]) -> None:
    bound, own = images(CONTEXTS)
    for name in re.findall(r"export const (\w+)", CONTEXTS):
        shown: list[Any] = []
        for image in (bound, own):
            runner = run(image)
            runner.ops["1.0/getFunctionMetadata"] = lambda *_: b'{"name":"q:f","componentPath":""}'
            shown.append(runner.invoke(f"q:{name}", '[{"a":1}]', "mutation" if "Mutation" in name else "query"))
        bound_text, n_ours = OURS.subn("", json.dumps(shown[0]))
        assert bound_text == json.dumps(shown[1]) and shown[0][0] == "done"
        assert n_ours == {"publicQuery": 2, "secretQuery": 2, "twice": 4}.get(name, 0), "before and after, in queries"


OURS = re.compile(r', ?\\*"vectorSearch\\*": ?\\*"[^"\\]*\\*"')
"""The search that queries have beyond the package's context, as it is shown, also within a text."""


@pytest.mark.parametrize(("file", "before", "after"), [
    (VALUES, 'key === "$map"', 'key === "$mop"'),
    (VALUES, "export function jsonToConvex(value) {", "export function jsonToConvex(value, more) {"),
    (VALUES, 'if (key === "$map") {', 'if (key === "$new") { return 1; } if (key === "$map") {'),
    (QUERY, "async collect() {", "async collect(more) {"),
    (QUERY, "await this.take(2)", "await this.take(3)"),
    (SYSCALL, "resultStr = await Convex", "resultStr = await globalThis.Convex"),
    (REGISTRATION, "jsonToConvex(JSON.parse(argsStr))", "jsonToConvex(JSON.parse(argsStr), 1)"),
    (REGISTRATION, "invokeFunction(func, queryCtx, args)", "invokeFunction(func, queryCtx, args, 1)"),
    (REGISTRATION, "storage: setupStorageReader(requestId)", "storage: setupStorageReader(requestId, args)"),
    (REGISTRATION, 'invokeMutation(handler, argsStr, "internal")', 'invokeMutation(handler, argsStr, "secret")'),
])  # fmt: skip
def test_a_file_of_another_shape_stays_as_it_is(
    bundler: Bundler, tmp_path: Path, file: str, before: str, after: str
) -> None:
    copy = write_app(tmp_path, {"convex/a.ts": SERVER}) / "node_modules" / "convex"
    shutil.copytree(package_folder(), copy, ignore=shutil.ignore_patterns("*.map", "*.d.ts", "src", "cli", "cjs*"))
    mark = MARKS[file]
    assert mark in bundler.bundle(find_sources(tmp_path)).text
    text = (copy / file).read_text()
    assert before in text
    (copy / file).write_text(text.replace(before, after))
    assert mark not in bundler.bundle(find_sources(tmp_path)).text
