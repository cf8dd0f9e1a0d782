// What a function can find of the machine, of time, and of other calls.
import { mutation, query } from "./server";

const everything: any = globalThis;
let calls = 0;
const kept: unknown[] = [];
const WAYS: Record<string, () => any> = {
  moduleState: () => [++calls, kept.push("x".repeat(1000)), (everything.total = (everything.total ?? 0) + 1)],
  engineObject: () => ["__skerry", "std", "os", "bjson", "scriptArgs", "print", "gc", "require", "process.binding", "WebAssembly", "Worker", "importScripts", "Deno", "Bun", "Buffer", "Intl"].filter((name) => name.split(".").reduce((at: any, part) => at?.[part], everything) !== undefined),
  functionGlobal: () => Object.getOwnPropertyNames(new Function("return this")()).filter((name) => /skerry|^_/i.test(name)).sort(),
  environment: () => [Object.keys(process.env), process.env.SKERRY_ADMIN_KEY ?? null, process.env.PATH ?? null, JSON.stringify(process.env), "HOME" in process.env],
  environmentWrite: () => {
    process.env.INJECTED = "yes";
    return process.env.INJECTED ?? null;
  },
  processMembers: () => Object.getOwnPropertyNames(process).sort(),
  clock: () => {
    const before = [Date.now(), performance.now(), new Date().getTime()];
    let n = 0;
    for (let i = 0; i < 300000; i++) n += i;
    return JSON.stringify([Date.now(), performance.now(), new Date().getTime()]) === JSON.stringify(before) && n > 0;
  },
  importNode: async () => await import(/* @vite-ignore */ "no" + "de:fs").catch((error: Error) => error.name),
  importOs: async () => await Promise.all(["os", "std", "qjs:os", "./server", "/etc/passwd", "file:///etc/passwd", "http://127.0.0.1/x.js", "data:text/javascript,1"].map((name) => (0, eval)(`import(${JSON.stringify(name)})`).then(() => `loaded ${name}`, (error: Error) => error.name))),
  timeoutInQuery: () => everything.setTimeout(() => {}, 1),
  fetchInQuery: async () => await fetch("http://127.0.0.1/"),
  atomicsWait: () => everything.Atomics.wait(new Int32Array(new SharedArrayBuffer(8)), 0, 0, 1e6),
  stackPaths: () => (new Error("where").stack ?? "").split("\n").filter((frame) => /\/(home|root|tmp|usr|etc)\//.test(frame)),
  callerWalk: () => {
    const seen: string[] = [];
    const look = new Function("f", "try { return typeof f.caller + typeof f.arguments } catch (error) { return error.name }");
    for (const target of [look, everything.Convex.syscall, everything.skerryRegister, console.log]) seen.push(look(target));
    return seen;
  },
  registryTokens: async () => {
    let called = 0;
    const registry = new FinalizationRegistry(() => called++);
    for (let i = 0; i < 100000; i++) registry.register({ i }, i);
    await null;
    return called;
  },
  weakMapFlood: () => {
    const map = new WeakMap();
    for (let i = 0; i < 200000; i++) map.set({}, new Array(10));
    return map instanceof WeakMap;
  },
  queryStorage: () => [typeof everything.localStorage, typeof everything.indexedDB, typeof everything.caches, typeof everything.document],
  constructorEscape: () => [].constructor.constructor("return typeof process.exit + typeof process.mainModule")(),
  argumentsObject: (...given: unknown[]) => given.length,
};

export const run = query({ handler: async (_ctx, { what }: any) => (await WAYS[what]!()) ?? null });
export const runInMutation = mutation({ handler: async (_ctx, { what }: any) => (await WAYS[what]!()) ?? null });
export const random = query({ handler: async () => [Math.random(), crypto.randomUUID()] });
