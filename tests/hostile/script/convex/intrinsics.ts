// Functions that replace what the language and the host's own script stand on, and go on as if nothing were.
import { api, mutation, query, tried } from "./server";

const everything: any = globalThis;

export const objectToJson = query({
  handler: async () => {
    (Object.prototype as any).toJSON = () => "owned";
    return { a: 1, b: [2] };
  },
});
export const objectSetters = query({
  handler: async (ctx) => {
    for (const name of ["_id", "value", "done", "status", "queryId", "then", "message", "code"]) {
      const traps = { get: () => "owned", set: () => { throw new Error(`set ${name}`); }, configurable: true, __proto__: null };
      Object.defineProperty(Object.prototype, name, traps as any);
    }
    return (await ctx.db.query("rows").collect()).length >= 0;
  },
});
export const objectThen = query({
  handler: async (ctx) => {
    let seen = 0;
    (Object.prototype as any).then = function (resolve: any) {
      seen++;
      delete (Object.prototype as any).then;
      resolve("stolen");
    };
    return [await ctx.db.query("rows").first(), seen];
  },
});
export const arrayMethods = query({
  handler: async (ctx) => {
    for (const name of ["push", "map", "forEach", "join", "slice", "concat", "filter"]) (Array.prototype as any)[name] = () => "owned";
    (Array.prototype as any)[Symbol.iterator] = function* () {
      yield "owned";
    };
    return (await ctx.db.query("rows").order("desc").collect()).length >= 0;
  },
});
export const arrayIndexSetter = query({
  handler: async (ctx) => {
    Object.defineProperty(Array.prototype, "0", { configurable: true, get: () => "owned", set() {} });
    const rows = await ctx.db.query("rows").collect();
    return Array.isArray(rows) && rows.every((row: any) => row !== "owned");
  },
});
export const jsonStringify = query({
  handler: async () => {
    JSON.stringify = (() => '{"$integer":"owned"') as any;
    return { a: new Date(0) as any };
  },
});
export const jsonParse = query({
  handler: async (ctx) => {
    JSON.parse = (() => ({ owned: true })) as any;
    return await ctx.runQuery(api.alive.ping, {});
  },
});
export const promiseThen = query({
  handler: async (ctx) => {
    Promise.prototype.then = (() => {}) as any;
    return await ctx.runQuery(api.alive.ping, {});
  },
});
export const promiseThenThrows = query({
  handler: async () => {
    Promise.prototype.then = (() => {
      throw new Error("owned");
    }) as any;
    return "returned";
  },
});
export const promiseGone = query({
  handler: async (ctx) => {
    everything.Promise = class {};
    return await ctx.db.query("rows").first().then(() => "ok");
  },
});
export const mapGet = query({
  handler: async (ctx) => {
    Map.prototype.get = () => ({ kind: "query", target: { invokeQuery: async () => '"owned"' } }) as any;
    Map.prototype.has = () => true;
    return await ctx.runQuery(api.alive.ping, {});
  },
});
export const setHas = query({
  handler: async () => {
    Set.prototype.has = () => true;
    return await tried("1.0/insert", { table: "rows", value: { n: 1 } });
  },
});
export const stringMethods = query({
  handler: async (ctx) => {
    for (const name of ["slice", "split", "indexOf", "replace", "charAt", "startsWith"]) (String.prototype as any)[name] = () => "owned";
    return await ctx.runQuery(api.alive.ping, {});
  },
});
export const functionCall = query({
  handler: async (ctx) => {
    Function.prototype.call = Function.prototype.apply = Function.prototype.bind = (() => "owned") as any;
    return await ctx.runQuery(api.alive.ping, {});
  },
});
export const errorConstructor = query({
  handler: async () => {
    everything.Error = class {
      constructor() {
        throw { message: "owned" };
      }
    };
    return await tried("1.0/insert", { table: "rows", value: {} });
  },
});
export const errorProperties = query({
  handler: async () => {
    for (const name of ["message", "stack", "name", "code"]) Object.defineProperty(Error.prototype, name, { get: () => { throw null; }, configurable: true });
    throw new Error("hidden");
  },
});
export const prepareStackTrace = query({
  handler: async () => {
    (Error as any).stackTraceLimit = 1e9;
    (Error as any).prepareStackTrace = () => ({ owned: true });
    throw new Error("prepared");
  },
});
export const errorToString = query({
  handler: async () => {
    Error.prototype.toString = Object.prototype.toString = () => { throw new Error("again"); };
    throw {};
  },
});
export const convexReplaced = query({
  handler: async (ctx) => {
    everything.Convex = { asyncSyscall: async () => '"forged"', syscall: () => '"forged"', jsSyscall: () => "forged" };
    return await ctx.runQuery(api.alive.ping, {});
  },
});
export const convexGone = query({
  handler: async (ctx) => {
    delete everything.Convex;
    return await ctx.runQuery(api.alive.ping, {}).catch((error: Error) => error.name);
  },
});
export const typedArrays = query({
  handler: async () => {
    Object.defineProperty(Object.getPrototypeOf(Uint8Array.prototype), "length", { get: () => 2 ** 31 });
    Object.defineProperty(ArrayBuffer.prototype, "byteLength", { get: () => 2 ** 31 });
    return new Uint8Array([1, 2]).buffer;
  },
});
export const species = query({
  handler: async () => {
    class Odd extends Array {
      static get [Symbol.species]() {
        return function () { return new Proxy([], { defineProperty: () => { throw new TypeError("species"); } }); } as any;
      }
    }
    return Odd.from([1, 2]).map((n) => n);
  },
});
export const promiseSpecies = query({
  handler: async (ctx) => {
    Object.defineProperty(Promise.prototype, "constructor", { get() { throw new Error("constructor"); } });
    return await ctx.runQuery(api.alive.ping, {});
  },
});
export const consoleGone = query({
  handler: async () => {
    everything.console = undefined;
    (Object.prototype as any).log = "owned";
    return "returned";
  },
});
export const globalFrozen = query({
  handler: async (ctx) => {
    Object.freeze(Object.prototype), Object.freeze(Array.prototype), Object.freeze(globalThis), Object.freeze(Promise.prototype);
    return await ctx.runQuery(api.alive.ping, {});
  },
});
export const leaves = mutation({
  handler: async () => {
    everything.left = (Object.prototype as any).owned = "from an earlier call";
    return null;
  },
});
// The natives that the host's script binds into the package, given what they were not made for.
export const nativeBindings = query({
  handler: async () => {
    const own = (_op: any, _argument: any, later: any) => (later?.catch?.(() => {}), 1);
    const given: unknown[] = [undefined, null, 0, "x", {}, [], own, new Proxy({}, { get: () => own }), Symbol("s"), 1n];
    const seen: Record<string, number> = {};
    const note = (outcome: string) => void (seen[outcome] = (seen[outcome] ?? 0) + 1);
    for (const bind of [everything.__skerryValues, everything.__skerryOperation]) {
      for (const first of given) {
        for (const second of given) {
          try {
            const bound = bind(first, second);
            for (const native of typeof bound === "function" ? [bound] : Object.values(bound as object)) {
              for (const value of given) {
                try {
                  const answer = (native as any)(value, value);
                  if (answer instanceof Promise) answer.catch(() => {});
                  note("answered");
                } catch (error) {
                  note((error as Error).name);
                }
              }
            }
          } catch (error) {
            note(`bind ${(error as Error).name}`);
          }
        }
      }
    }
    return Object.keys(seen).sort();
  },
});
export const nativeNoArguments = query({
  handler: async () => {
    const outcomes: string[] = [];
    const note = (run: () => unknown) => {
      try {
        outcomes.push(typeof run());
      } catch (error) {
        outcomes.push((error as Error).name);
      }
    };
    note(() => everything.__skerryValues());
    note(() => everything.__skerryOperation());
    note(() => everything.__skerryOperation(() => "own"));
    note(() => everything.__skerryOperation(() => "own")());
    note(() => new everything.__skerryOperation(() => "own"));
    note(() => everything.skerryRegister({ evil: { x: Object.assign(() => 1, { isQuery: true, isPublic: true, invokeQuery: async () => '"evil"' }) } }));
    note(() => everything.skerryRegister(null));
    return outcomes;
  },
});
